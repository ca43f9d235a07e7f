"""Workers of the benchmarks: what they do between requests."""

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
