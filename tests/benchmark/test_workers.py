"""Workers of the benchmarks: what they do between requests."""

import os
import subprocess
import sys
import time

from kpose.benchmark import workers

_BUSY = """
import threading, time
from kpose.benchmark import workers

def wait_busily():
    while True:
        pass

threading.Thread(target=wait_busily, daemon=True).start()
workers.serve(lambda request: {"seconds": time.process_time()})
"""


def test_a_paused_worker_takes_no_time_between_requests(tmp_path, monkeypatch):
    (tmp_path / "busy_worker.py").write_text(_BUSY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    with workers.Worker("busy_worker", str(tmp_path / "log"), paused=True) as worker:
        first = worker.ask({})["seconds"]
        time.sleep(1.0)
        assert worker.ask({})["seconds"] - first < 0.4
    assert not worker.alive


_KILLED = """
import os, signal, sys
from kpose.benchmark import workers

worker = workers.Worker("busy_worker", sys.argv[1], paused=True)
worker.ask({})
print(worker._process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_paused_worker_ends_if_its_parent_is_killed(tmp_path):
    """Such a process cannot look for its parent itself."""
    (tmp_path / "busy_worker.py").write_text(_BUSY)
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{os.getcwd()}"}
    found = subprocess.run(
        [sys.executable, "-c", _KILLED, tmp_path / "log"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    process = int(found.stdout)
    deadline = time.monotonic() + 20
    while _lives(process) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _lives(process)


def _lives(process):
    """Whether a process exists and is no zombie."""
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
