"""Several workers, which are processes with TF_CONFIG on loopback: equal results, lost workers."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from kpose import config as config_lib
from kpose.core import devices
from kpose.core.errors import InputError
from kpose.runs import checkpoints
from kpose.train import trainer
from tests import tiny
from tests.train.test_trainer import final_weights

SCRIPT = """
import sys
from absl import logging
from kpose import config
from kpose.core import errors, startup
startup.import_tensorflow()
from kpose.train import trainer
logging.set_verbosity(logging.INFO)
try:
    logs = trainer.train(config.load(sys.argv[1]), sys.argv[2])
    print({name: round(float(value), 4) for name, value in sorted(logs.items()) if name.startswith("val_")})
except errors.InputError as error:
    raise SystemExit(f"error: {error}")
"""


def environments(workers):
    """The environment variables of each worker of a cluster on loopback."""
    sockets = [socket.socket() for _ in range(workers)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    cluster = {"worker": [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]}
    for one in sockets:
        one.close()
    tasks = ({"cluster": cluster, "task": {"type": "worker", "index": index}} for index in range(workers))
    return [os.environ | {"TF_CONFIG": json.dumps(task)} for task in tasks]


def _start(config, workdir, folder, workers=2):
    """Starts the workers, with one workdir or with one each; returns their processes."""
    workdirs = [workdir] * workers if isinstance(workdir, str) else workdir
    path = os.path.join(folder, "config.json")
    config_lib.save(config, path)
    command = [sys.executable, "-c", SCRIPT, path]
    return [
        subprocess.Popen([*command, own], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for own, environment in zip(workdirs, environments(workers), strict=True)
    ]


def _finish(processes, timeout=400):
    try:
        said = [process.communicate(timeout=timeout) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], said


def _assert_close(one, other):
    first, second = final_weights(one), final_weights(other)
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_allclose(second[name], value, rtol=1e-3, atol=2e-5, err_msg=name)


@pytest.mark.slow
def test_two_workers_train_as_two_replicas_and_the_chief_alone_writes(tiny_data, tmp_path):
    """With synchronised BatchNorm and validation; stopped after three of five steps and resumed."""
    one, many = str(tmp_path / "one"), str(tmp_path / "many")
    fields = {"optimizer__name": "sgd", "steps_per_execution": 2}
    logs = trainer.train(tiny.make_recipe(tiny_data["train"], tiny_data["val"], steps=5, replicas=2, **fields), one)
    for steps in (3, 5):
        config = tiny.make_recipe(tiny_data["train"], tiny_data["val"], steps=steps, **fields)
        codes, said = _finish(_start(config, many, str(tmp_path)))
        assert codes == [0, 0], said
    _assert_close(one, many)
    expected = {name: round(float(value), 4) for name, value in sorted(logs.items()) if name.startswith("val_")}
    for out, _ in said:
        found = eval(out.strip().splitlines()[-1])
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, rel=1e-3, abs=1e-3), name
    chief, other = (errors for _, errors in said)
    assert "2 replicas on" in chief and "worker 0 of 2" in chief and "BatchNorm synchronised" in chief
    assert "continuing at step 3 of 5" in chief and not other
    # In this process the tests draw no learning curve and no grid of predictions (`no_pictures`).
    assert sorted({*os.listdir(one), "learning_curve.png", "tensorboard"}) == sorted(os.listdir(many))


def _wait_for_a_checkpoint(workdir, processes):
    deadline = time.monotonic() + 300
    state = os.path.join(workdir, "checkpoints", "checkpoint")
    while not os.path.exists(state):
        assert time.monotonic() < deadline and processes[0].poll() is None, "the training did not get going"
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lost", "how"), [(1, signal.SIGKILL), (0, signal.SIGKILL), (1, signal.SIGSTOP), (0, signal.SIGSTOP)]
)
def test_a_lost_worker_ends_the_others_and_the_restarted_job_ends_with_equal_weights(lost, how, tiny_data, tmp_path):
    """The reference is a job of the same number of steps that nothing disturbed."""
    workdir, undisturbed = str(tmp_path / "run"), str(tmp_path / "undisturbed")
    config = tiny.make_recipe(tiny_data["train"], steps=100_000, checkpoint_every=5)
    processes = _start(config, workdir, str(tmp_path))
    _wait_for_a_checkpoint(workdir, processes)
    processes[lost].send_signal(how)
    other = processes[1 - lost]
    said = other.communicate(timeout=200)[1]
    processes[lost].kill()
    _finish(processes[lost : lost + 1])
    assert other.returncode == 1, said
    assert "error: another worker does not respond" in said.splitlines()[-1]
    assert "same command to continue" in said
    done = int(checkpoints.latest(workdir).rsplit("-", 1)[1])
    config = tiny.make_recipe(tiny_data["train"], steps=done + 7, checkpoint_every=5)
    codes, said = _finish(_start(config, workdir, str(tmp_path)))
    assert codes == [0, 0], said
    assert f"continuing at step {done} of {done + 7}" in said[0][1]
    codes, said = _finish(_start(config, undisturbed, str(tmp_path)))
    assert codes == [0, 0], said
    expected, found = final_weights(undisturbed), final_weights(workdir)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.slow
def test_sigterm_to_one_worker_ends_all_after_the_same_step_and_saves(tiny_data, tmp_path):
    workdir = str(tmp_path / "run")
    config = tiny.make_recipe(tiny_data["train"], steps=100_000, checkpoint_every=5, steps_per_execution=3)
    processes = _start(config, workdir, str(tmp_path))
    _wait_for_a_checkpoint(workdir, processes)
    processes[1].send_signal(signal.SIGTERM)
    codes, said = _finish(processes)
    assert codes == [0, 0], said
    done = int(checkpoints.latest(workdir).rsplit("-", 1)[1])
    assert f"stopped by SIGTERM at step {done} of 100000, checkpoint saved" in said[0][1]


@pytest.mark.slow
def test_workers_without_a_common_folder_are_refused(tiny_data, tmp_path):
    """One worker finds a checkpoint, the other finds none."""
    workdirs = [str(tmp_path / name) for name in ("one", "other")]
    trainer.train(tiny.make_recipe(tiny_data["train"], steps=2), workdirs[0])
    processes = _start(tiny.make_recipe(tiny_data["train"], steps=4), workdirs, str(tmp_path))
    codes, said = _finish(processes)
    assert codes == [1, 1]
    for _, errors in said:
        assert "the workers found the checkpoints of different steps (2, 0)" in errors.splitlines()[-1]


def test_a_chief_is_the_first_worker(monkeypatch):
    addresses = {"chief": ["a:1"], "worker": ["b:1", "c:1"]}
    for kind, index, expected in (("chief", 0, 0), ("worker", 0, 1), ("worker", 1, 2)):
        monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": addresses, "task": {"type": kind, "index": index}}))
        assert devices.cluster() == (expected, 3)
    monkeypatch.delenv("TF_CONFIG")
    assert devices.cluster() == (0, 1)


def test_a_worker_alone_ends_before_it_makes_the_folder_of_the_run(tmp_path, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", environments(2)[0]["TF_CONFIG"])
    with pytest.raises(InputError, match=r"not all workers came within 1 s .*missing: worker 1 \(127.0.0.1:"):
        trainer.train(tiny.make_recipe("none-*"), str(tmp_path / "run"), worker_timeout=1)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_worker_alone_ends_with_one_line_that_names_the_missing_one(tmp_path):
    """As a command; the address of the missing worker is free, so nothing answers there."""
    environment = environments(2)[0]
    missing = json.loads(environment["TF_CONFIG"])["cluster"]["worker"][1]
    command = [sys.executable, "-m", "kpose.train", "--config=coco_integral:quick", "--config.data.train=none-*"]
    command += [f"--workdir={tmp_path / 'run'}", "--worker_timeout=11"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert any(f"waiting for worker 1 ({missing}): Connection refused" in line for line in lines[:-1])
    assert "error: not all workers came within 11 s (--worker_timeout)" in lines[-1]
    assert f"missing: worker 1 ({missing}): Connection refused" in lines[-1]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "text", ["{", "{}", '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "ps", "index": 0}}']
)
def test_a_broken_tf_config_is_one_line(text, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(InputError, match="TF_CONFIG: ") as error:
        devices.start(tiny.make_recipe(""))
    assert "\n" not in str(error.value)
