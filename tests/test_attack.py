"""The fuzzers find faults: a target that fails, crashes or hangs is counted, and the next items run."""

import json
import os
import signal
import time

import numpy as np

from tests.attack import __main__ as attack
from tests.attack import mutations, targets


def test_mutations_repeat_by_their_seed_and_leave_the_valid_input_alone():
    data = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [], "n": [1, 2]}
    text = json.dumps(data)
    made = {mutations.of_json(np.random.default_rng([7, number]), data) for number in range(50)}
    assert len(made) > 40 and json.dumps(data) == text
    for number in range(50):
        one, other = (mutations.of_bytes(np.random.default_rng([7, number]), text.encode()) for _ in range(2))
        assert one == other


def _target(folder):
    """Answers, refuses, fails, crashes or hangs, by the number of the item."""

    def one(rng):
        _, item = rng.bit_generator.seed_seq.entropy
        if item == 1:
            raise KeyError("a fault")
        if item == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        if item == 5:
            time.sleep(60)
        return targets.Result.REFUSED if item % 2 else targets.Result.ANSWERED

    return one


def test_faults_are_counted_and_the_next_items_run(tmp_path, monkeypatch):
    started = []

    class Child:
        """A fork in place of a new Python, so that the target is known there."""

        def __init__(self, command, **_):
            kind, first, count, seed, folder = command[4:]
            started.append(int(first))
            self.pid = os.fork()
            if not self.pid:
                try:
                    attack.child(kind, int(first), int(count), int(seed), folder)
                finally:
                    os._exit(0)
            self.status = None

        def poll(self):
            if self.status is None and (found := os.waitpid(self.pid, os.WNOHANG))[0]:
                self.status = os.waitstatus_to_exitcode(found[1])
            return self.status

        def kill(self):
            os.kill(self.pid, signal.SIGKILL)

        def wait(self):
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    monkeypatch.setattr(attack.subprocess, "Popen", Child)
    monkeypatch.setattr(attack, "ITEM_SECONDS", 1.0)
    monkeypatch.setitem(targets.KINDS, "test", (_target, 8))
    row = attack.attack("test", 8, 0, 60, str(tmp_path / "faults"))
    assert started == [0, 4, 6]
    assert {name: row[name] for name in attack.COLUMNS} == {
        "items": 8,
        "answered": 4,
        "refused": 1,
        "crashes": 1,
        "tracebacks": 1,
        "too_slow": 1,
    }
    assert sorted(os.listdir(tmp_path / "faults")) == ["test-1.txt", "test-3.txt", "test-5.txt"]
    assert "KeyError: 'a fault'" in (tmp_path / "faults" / "test-1.txt").read_text()
