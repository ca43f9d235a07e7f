"""Locks of folders: one process at a time; a lock ends with its process."""

import errno
import fcntl
import os
import socket
import subprocess
import sys

import pytest

from kpose.core import locks
from kpose.core.errors import InputError
from kpose.train import trainer
from tests import helpers, tiny

HOLD = """
import os, sys, time
from kpose.core import locks
with locks.locked(sys.argv[1], "training"):
    open(os.path.join(sys.argv[1], "work"), "w").close()
    print("held", flush=True)
    time.sleep(120)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that has the lock of the folder `run`."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_training_is_refused_until_the_first_is_killed(holder, tiny_data, tmp_path):
    config = tiny.make_recipe(tiny_data["train"])
    with pytest.raises(InputError, match="another process is training in this folder") as error:
        trainer.train(config, str(tmp_path / "run"))
    message = helpers.one_line(error)
    assert f"process {holder.pid} on {socket.gethostname()}" in message and "use another --workdir" in message
    assert sorted(os.listdir(tmp_path / "run")) == ["lock", "work"], "nothing was written"
    holder.kill()
    holder.wait()
    with locks.locked(str(tmp_path / "run"), "training"):
        assert "lock" in os.listdir(tmp_path / "run")


def test_the_lock_ends_with_the_work_and_a_new_empty_folder_is_removed(tmp_path):
    folder = str(tmp_path / "run")
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), locks.locked(folder, "training"):
            assert os.path.exists(folder)
            with pytest.raises(InputError, match="is training .*wait until it ends, or stop it$"):
                locks.locked(folder, "training").__enter__()
            raise ZeroDivisionError
        assert not os.path.exists(folder)


def test_a_file_system_without_locks_is_a_warning(tmp_path, monkeypatch, caplog):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with caplog.at_level("WARNING", logger="absl"), locks.locked(str(tmp_path), "training in this folder"):
        pass
    assert "no locks (No locks available): make sure that no other process is training" in caplog.text


def test_a_file_in_the_place_of_the_folder_is_one_line(tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(InputError, match="run: nothing can be written there") as error:
        locks.locked(str(tmp_path / "run"), "training").__enter__()
    helpers.one_line(error)
