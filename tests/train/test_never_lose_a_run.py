"""Damaged files, a full disk, signals, NaN: saved steps stay, and the log names the cause."""

import contextlib
import errno
import glob
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import types

import numpy as np
import pytest
import tensorflow as tf

from kpose import config as config_lib
from kpose.core.errors import InputError
from kpose.data import pipeline
from kpose.evaluate import on_records
from kpose.runs import checkpoints
from kpose.runs.starts import note_start
from kpose.runs.workdir import read_history, write_history
from kpose.train import callbacks, nonfinite, trainer
from tests import helpers, tiny
from tests.train.test_regressor import BATCH, make_data, make_regressor, train
from tests.train.test_trainer import assert_same_weights, final_weights


def _recipe(data, steps, **fields):
    # With dropout, so that a lost seed changes the result.
    return tiny.make_recipe(data["train"], steps=steps, **tiny.DEEPPOSE, **fields)


def _start(config, workdir, folder, **options):
    """Starts a training in a new process, which treats errors and Ctrl-C as the command does."""
    path = os.path.join(folder, "config.json")
    config_lib.save(config, path)
    script = (
        "from absl import logging; logging.set_verbosity('info'); from kpose import config\n"
        "from kpose.core import errors; from kpose.train import trainer\n"
        f"try: trainer.train(config.load({path!r}), {workdir!r})\n"
        "except errors.InputError as error: raise SystemExit(str(error))\n"
        "except KeyboardInterrupt: raise SystemExit('interrupted')"
    )
    return subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True, **options)


def _damage(path, how):
    data, index = glob.glob(f"{path}.data-*")[0], f"{path}.index"
    if how == "cut":
        os.truncate(data, os.path.getsize(data) // 2)
    elif how == "flipped":
        with open(data, "r+b") as file:
            file.seek(os.path.getsize(data) // 2)
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 0xFF]))
    elif how == "no data":
        os.remove(data)
    else:
        os.remove(index)


@pytest.fixture(scope="module")
def whole(tiny_data, tmp_path_factory):
    """Workdir of an uninterrupted training of 8 steps, with the checkpoints of steps 4, 6 and 8."""
    workdir = str(tmp_path_factory.mktemp("whole"))
    trainer.train(_recipe(tiny_data, 8), workdir)
    return workdir


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(how, marks=() if how == "flipped" else pytest.mark.slow)
        for how in ("cut", "flipped", "no data", "no index")
    ],
)
def test_a_damaged_newest_checkpoint_is_told_and_the_one_before_it_used(how, whole, tiny_data, tmp_path, caplog):
    hurt = str(tmp_path / "hurt")
    shutil.copytree(whole, hurt)
    newest = checkpoints.latest(hurt)
    _damage(newest, how)
    with caplog.at_level("WARNING"):
        trainer.train(_recipe(tiny_data, 8), hurt)
    assert f"{newest}: damaged" in caplog.text and "continuing from" in caplog.text and "step-6" in caplog.text
    assert_same_weights(whole, hurt)
    left = [os.path.basename(path) for path in checkpoints._listed(os.path.join(hurt, checkpoints.FOLDER))]
    assert left == ["step-4", "step-6", "step-8"], "the one before is still listed"
    if how != "no data":
        assert glob.glob(f"{newest}.*.damaged"), "the damaged files are kept for inspection"


def test_without_any_whole_checkpoint_it_does_not_begin_anew(whole, tiny_data, tmp_path):
    workdir = str(tmp_path / "run")
    shutil.copytree(whole, workdir)
    for path in glob.glob(os.path.join(workdir, "checkpoints", "*.index")):
        _damage(path.removesuffix(".index"), "cut")
    with pytest.raises(InputError, match="cannot be restored .*no earlier one can.*another --workdir") as error:
        trainer.train(_recipe(tiny_data, 10), workdir)
    helpers.one_line(error)


@pytest.mark.parametrize("content", [None, b"", b"\xff\x00 garbled"], ids=["missing", "empty", "garbled"])
def test_a_lost_list_of_the_checkpoints_is_made_anew(content, tmp_path, caplog):
    workdir, regressor = str(tmp_path), make_regressor()
    saver = checkpoints.Checkpoints(workdir, regressor, keep=2)
    for step in (8, 9, 10):
        saver.save(step, step)
    saver.save_if_best(9, 9, 0.5)
    for folder in ("checkpoints", "checkpoints/best"):
        state = tmp_path / folder / "checkpoint"
        state.unlink()
        if content is not None:
            state.write_bytes(content)
    newest, best = (str(tmp_path / "checkpoints" / name) for name in ("step-10", "best/step-9"))
    assert checkpoints.exist(workdir)
    assert (checkpoints.latest(workdir), checkpoints.latest(workdir, best=True)) == (newest, best)
    with caplog.at_level("WARNING"):
        saver = checkpoints.Checkpoints(workdir, regressor, keep=2)
    assert "checkpoint: missing or damaged: written again with step-9, step-10" in caplog.text
    assert saver.restore() == (10, 10)
    saver.save(11, 11)
    kept = {os.path.basename(path) for path in glob.glob(str(tmp_path / "checkpoints" / "step-*.index"))}
    assert kept == {"step-10.index", "step-11.index"}
    assert checkpoints.latest(workdir, best=True) == best


@pytest.mark.parametrize("how", ["absolute", "relative"])
def test_a_state_file_of_another_run_does_not_reach_its_files(how, tmp_path, caplog):
    """The checkpoints of the other run stay, and this run continues with its own."""
    regressor, other, own = make_regressor(), tmp_path / "other", tmp_path / "own"
    for workdir, steps in ((other, (20, 21)), (own, (8, 9))):
        saver = checkpoints.Checkpoints(str(workdir), regressor, keep=2)
        for step in steps:
            saver.save(step, step)
    before = {path: path.read_bytes() for path in (other / "checkpoints").iterdir()}
    start = str(other / "checkpoints") if how == "absolute" else "../../other/checkpoints"
    lines = [f'model_checkpoint_path: "{start}/step-21"']
    lines += [f'all_model_checkpoint_paths: "{start}/step-{step}"' for step in (20, 21)]
    (own / "checkpoints" / "checkpoint").write_text("\n".join(lines) + "\n")
    assert checkpoints.latest(str(own)) == str(own / "checkpoints" / "step-9")
    with caplog.at_level("WARNING"):
        saver = checkpoints.Checkpoints(str(own), regressor, keep=2)
    assert "written again with step-8, step-9" in caplog.text
    assert saver.restore() == (9, 9)
    for step in (10, 11, 21):
        saver.save(step, step)
    assert {path: path.read_bytes() for path in (other / "checkpoints").iterdir()} == before
    kept = sorted(path.name for path in (own / "checkpoints").glob("step-*.index"))
    assert kept == ["step-11.index", "step-21.index"]


def test_absolute_paths_of_a_moved_run_are_its_own_checkpoints(tmp_path):
    regressor, begun, moved = make_regressor(), tmp_path / "begun", tmp_path / "moved"
    saver = checkpoints.Checkpoints(str(begun), regressor, keep=2)
    for step in (8, 9):
        saver.save(step, step)
    state = begun / "checkpoints" / "checkpoint"
    state.write_text(state.read_text().replace('"step-', f'"{begun}/checkpoints/step-'))
    shutil.copytree(begun, moved)
    before = sorted(os.listdir(begun / "checkpoints"))
    saver = checkpoints.Checkpoints(str(moved), regressor, keep=2)
    assert saver.restore() == (9, 9)
    saver.save(10, 10)
    assert checkpoints.latest(str(moved)) == str(moved / "checkpoints" / "step-10")
    assert sorted(os.listdir(begun / "checkpoints")) == before
    assert not glob.glob(str(moved / "checkpoints" / "step-8*"))


def test_what_a_killed_save_left_behind_is_removed(tmp_path):
    regressor, folder = make_regressor(), tmp_path / "checkpoints"
    checkpoints.Checkpoints(str(tmp_path), regressor, keep=3).save(2, 2)
    (folder / "step-4_temp").mkdir()
    (folder / "step-4_temp" / "part-00000-of-00001.data-00000-of-00001").write_bytes(b"half")
    (folder / "step-9.index").write_bytes(b"no part of any checkpoint that is known")
    saver = checkpoints.Checkpoints(str(tmp_path), regressor, keep=3)
    assert saver.restore() == (2, 2)
    saver.save(3, 3)
    assert sorted({name.split(".")[0] for name in os.listdir(folder)}) == ["checkpoint", "step-2", "step-3"]


def test_a_killed_training_goes_on_where_it_was(whole, tiny_data, tmp_path):
    """kill -9 after step 7, between two checkpoints; the tests marked slow kill at random steps."""
    killed, path = str(tmp_path / "killed"), str(tmp_path / "config.json")
    config_lib.save(_recipe(tiny_data, 8), path)
    script = (
        "import os; from kpose import config; from kpose.train import callbacks, trainer\n"
        "def end(self, batch, logs=None):\n"
        "    if self.model.steps.done == 7: os.kill(os.getpid(), 9)\n"
        "callbacks.SaveOnTermination.on_train_batch_end = end\n"
        f"trainer.train(config.load({path!r}), {killed!r})"
    )
    ended = subprocess.run([sys.executable, "-c", script], stderr=subprocess.DEVNULL, timeout=300, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert checkpoints.latest(killed).endswith("step-6")
    trainer.train(_recipe(tiny_data, 8), killed)
    assert_same_weights(whole, killed)


@pytest.mark.slow
def test_killed_twenty_times_at_random_steps_nothing_is_lost(tiny_data, tmp_path):
    """kill -9 at a random time after a new checkpoint, sometimes during a save."""
    killed, whole = str(tmp_path / "killed"), str(tmp_path / "whole")
    state, rng, steps = os.path.join(killed, "checkpoints", "checkpoint"), np.random.default_rng(), []
    for _ in range(20):
        before = os.stat(state).st_mtime_ns if os.path.exists(state) else 0
        run = _start(_recipe(tiny_data, 1_000_000, checkpoint_every=3), killed, str(tmp_path))
        deadline = time.monotonic() + 120
        while not os.path.exists(state) or os.stat(state).st_mtime_ns == before:
            assert run.poll() is None and time.monotonic() < deadline, run.stderr.read()
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 1))
        run.kill()
        run.communicate()
        steps.append(int(checkpoints.latest(killed).rsplit("-", 1)[1]))
    print("killed after step", steps)
    assert steps == sorted(set(steps)), "each start went on from the last checkpoint"
    for workdir in (killed, whole):
        trainer.train(_recipe(tiny_data, steps[-1] + 5), workdir)
    assert_same_weights(whole, killed)


def _start_and_wait(config, workdir, folder):
    """A training in a new process, after its first step."""
    process = _start(config, workdir, folder)
    deadline = time.monotonic() + 120
    events = os.path.join(workdir, "tensorboard", "train", "events*")
    # The first step is logged, so the training is running.
    while not any(os.path.getsize(path) > 500 for path in glob.glob(events)):
        assert process.poll() is None and time.monotonic() < deadline, "the training did not get going"
        time.sleep(0.05)
    return process


SIGNALS = [
    pytest.param(signal.SIGTERM, "SIGTERM", 0, id="SIGTERM"),
    pytest.param(signal.SIGINT, "Ctrl-C", 1, id="Ctrl-C"),
]


@pytest.mark.parametrize(("number", "name", "status"), SIGNALS)
def test_a_signal_saves_the_step_that_is_done(number, name, status, whole, tiny_data, tmp_path, monkeypatch, caplog):
    """At a step without a checkpoint. After Ctrl-C a script ends too, after SIGTERM `train` returns."""
    ended = str(tmp_path)
    original = callbacks.SaveOnTermination.on_train_batch_end

    def send(self, batch, logs=None):
        if self.model.steps.done == 3:
            os.kill(os.getpid(), number)
        original(self, batch, logs)

    monkeypatch.setattr(callbacks.SaveOnTermination, "on_train_batch_end", send)
    with caplog.at_level("INFO", logger="absl"):
        with pytest.raises(KeyboardInterrupt) if status else contextlib.nullcontext():
            trainer.train(_recipe(tiny_data, 8), ended)
    assert f"stopped by {name} at step 3 of 8, checkpoint saved: run the same command again to continue" in caplog.text
    assert checkpoints.latest(ended).endswith("step-3")
    if not status:
        monkeypatch.undo()
        trainer.train(_recipe(tiny_data, 8), ended)
        assert_same_weights(whole, ended)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "name", "status"), SIGNALS)
def test_a_signal_saves_and_the_same_command_goes_on(number, name, status, tiny_data, tmp_path):
    whole, ended = str(tmp_path / "whole"), str(tmp_path / "ended")
    process = _start_and_wait(_recipe(tiny_data, 100_000, checkpoint_every=90_000), ended, str(tmp_path))
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == status and "Traceback" not in said
    done = int(checkpoints.latest(ended).rsplit("-", 1)[1])
    assert (
        f"stopped by {name} at step {done} of 100000, checkpoint saved: run the same command again to continue" in said
    )
    for workdir in (whole, ended):
        trainer.train(_recipe(tiny_data, done + 3, checkpoint_every=90_000), workdir)
    assert_same_weights(whole, ended)


def test_a_second_ctrl_c_ends_at_once(tiny_data, tmp_path):
    """Also while the first one waits for a step that never ends."""
    script = (
        "import os, signal, time; from kpose.train import callbacks\n"
        "with callbacks.Termination():\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('still here', flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    print('not reached', flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "still here\n" and done.returncode == -signal.SIGINT
    assert "stopping after the current step; another Ctrl-C ends at once" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_a_signal_before_the_first_step_ends_well(number, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(trainer, "training_set_of", lambda *_: os.kill(os.getpid(), number))
    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    config = _recipe({"train": ""}, 4)
    config.skeleton = "coco"
    with caplog.at_level("INFO", logger="absl"):
        if number == signal.SIGTERM:
            assert trainer.train(config, str(tmp_path / "run")) == {}
        else:
            with pytest.raises(KeyboardInterrupt):
                trainer.train(config, str(tmp_path / "run"))
    name = "SIGTERM" if number == signal.SIGTERM else "Ctrl-C"
    assert f"stopped by {name} before the first step: run the same command again to start" in caplog.text
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == before
    assert not os.path.exists(tmp_path / "run")


def test_a_signal_inside_tensorflow_ends_well(tmp_path, monkeypatch, caplog):
    """As in TensorFlow's conversions: an exception of the handler would become a TypeError."""

    def convert(*_):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Exception as error:
            raise TypeError("cannot be converted to a tensor") from error

    monkeypatch.setattr(trainer, "training_set_of", convert)
    config = _recipe({"train": ""}, 4)
    config.skeleton = "coco"
    with caplog.at_level("INFO", logger="absl"):
        assert trainer.train(config, str(tmp_path / "run")) == {}
    assert "stopped by SIGTERM before the first step" in caplog.text


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_the_last_checkpoint_is_whole(tiny_data, tmp_path):
    """A limit of the file size has the same effect as a full disk."""
    whole, full = str(tmp_path / "whole"), str(tmp_path / "full")
    trainer.train(_recipe(tiny_data, 4), full)
    largest = max(os.path.getsize(path) for path in glob.glob(os.path.join(full, "checkpoints", "*.data-*")))
    limit = largest // 2

    def starve():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    process = _start(_recipe(tiny_data, 8), full, str(tmp_path), preexec_fn=starve)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1 and "Traceback" not in said
    assert "the checkpoint of step 6 cannot be written" in said and "step-4 is complete" in said
    for workdir in (whole, full):
        trainer.train(_recipe(tiny_data, 8), workdir)
    assert_same_weights(whole, full)


def test_a_full_disk_at_the_start_is_one_line(tiny_data, tmp_path, monkeypatch):
    def fill(_, path):
        raise OSError(errno.ENOSPC, "No space left on device", path)

    monkeypatch.setattr(config_lib, "save", fill)
    with pytest.raises(InputError, match="run/config.json: cannot be written .No space left on device.") as error:
        trainer.train(_recipe(tiny_data, 4), str(tmp_path / "run"))
    assert "free some space and run the same command again" in helpers.one_line(error)


@pytest.mark.slow
@pytest.mark.parametrize("limit, what", [(300, "config.json"), (6000, "tensorboard")])
def test_a_full_disk_is_one_line_whatever_is_written(limit, what, tiny_data, tmp_path):
    def starve():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    config = _recipe(tiny_data, 30, checkpoint_every=1000, log_every=1)
    process = _start(config, str(tmp_path / "run"), str(tmp_path), preexec_fn=starve)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 1 and "Traceback" not in said
    (line,) = (line for line in said.splitlines() if "free some space and run the same command again" in line)
    assert what in line or "run: cannot be written" in line


def test_an_evaluation_that_a_kill_has_cost_is_made_up_for(tiny_run, tiny_data, tmp_path):
    """The last checkpoint exists, but not its row of history.csv and not the best checkpoint."""
    workdir = tmp_path / "run"
    shutil.copytree(tiny_run, workdir)
    (first, expected), best = read_history(tiny_run), workdir / "checkpoints" / "best"
    write_history(str(workdir), [first])
    shutil.rmtree(best)
    logs = trainer.train(tiny.make_recipe(tiny_data["train"], tiny_data["val"]), str(workdir))
    assert expected.keys() - {"images_per_second"} == logs.keys()
    for name in logs:
        assert logs[name] == pytest.approx(expected[name], rel=1e-5), name
    assert read_history(str(workdir)) == [first, logs]
    assert checkpoints.latest(str(workdir), best=True).endswith("best/step-6")


@pytest.mark.slow
def test_the_best_checkpoint_is_kept_beside_the_newest(tiny_data, tmp_path):
    workdir = str(tmp_path)
    fields = {"optimizer__learning_rate": 0.01, "keep_checkpoints": 1, "checkpoint_every": 1}
    config = tiny.make_recipe(tiny_data["train"], tiny_data["val"], steps=0, epochs=6, **fields)
    trainer.train(config, workdir)
    with open(os.path.join(workdir, "history.csv")) as file:
        names, *lines = [line.strip().split(",") for line in file]
    rows = [dict(zip(names, map(float, line), strict=True)) for line in lines]
    scores = [row["val_pcp_strict"] for row in rows]
    first_best = rows[int(np.argmax(scores))]
    with open(os.path.join(workdir, "checkpoints", "best", "best.json")) as file:
        best = json.load(file)
    assert best["step"] == first_best["step"] and best["score"] == pytest.approx(max(scores))
    assert checkpoints.latest(workdir, best=True).endswith(f"step-{best['step']}")
    assert checkpoints.latest(workdir).endswith(f"step-{int(rows[-1]['step'])}")
    measured = on_records.evaluate(workdir, tiny_data["val"], best=True)
    assert measured["pcp"]["strict"]["average"] == pytest.approx(max(scores), abs=1e-6)


BAD_BATCH = 3


@pytest.fixture
def poisoned(monkeypatch):
    """Batch number 3 has a NaN label, for its second person."""
    original = pipeline.training_batches

    def batches(config, training_set, position, *share):
        def poison(index, batch):
            bad = np.zeros((config.batch_size, 1, 3), np.float32)
            bad[1, :, :2] = np.nan
            keypoints = batch["keypoints"] + tf.where(tf.equal(index + position, BAD_BATCH), bad, tf.zeros_like(bad))
            return batch | {"keypoints": keypoints}

        return original(config, training_set, position, *share).enumerate().map(poison)

    monkeypatch.setattr(pipeline, "training_batches", batches)


@pytest.mark.parametrize(
    "replicas, steps_per_execution, precision",
    [
        pytest.param(1, 1, "float32", marks=pytest.mark.slow),
        pytest.param(2, 3, "float32", marks=pytest.mark.slow),
        (1, 1, "mixed_float16"),
    ],
)
def test_a_nan_stops_and_names_step_record_and_place(
    replicas, steps_per_execution, precision, poisoned, tiny_data, tmp_path
):
    fields = {"replicas": replicas, "steps_per_execution": steps_per_execution, "precision": precision}
    with pytest.raises(InputError, match="step 3 was not finite: keypoints of sample 1 of the batch") as error:
        trainer.train(_recipe(tiny_data, 8, **fields), str(tmp_path))
    message = helpers.one_line(error)
    assert "on_nan=skip" in message and message.count(".jpg)") == 8
    assert all(np.isfinite(value).all() for value in final_weights(str(tmp_path)).values())


def test_a_nan_is_skipped_where_that_is_wanted(poisoned, tiny_data, tmp_path, caplog):
    with caplog.at_level("WARNING"):
        logs = trainer.train(_recipe(tiny_data, 8, on_nan="skip"), str(tmp_path))
    assert "step 3 was not finite: skipped, 1 in all" in caplog.text
    assert np.isfinite(logs["loss"])
    weights = final_weights(str(tmp_path))
    assert all(np.isfinite(value).all() for value in weights.values())
    (iterations,) = (value for name, value in weights.items() if "optimizer/_iterations" in name)
    assert iterations == 7


@pytest.mark.slow
def test_a_rollback_leaves_the_batch_out_and_resumes_beyond_it(poisoned, tiny_data, tmp_path, caplog, monkeypatch):
    """After the rollback to step 2, batch 4 follows, also in a killed and resumed run."""
    workdir, parts = str(tmp_path / "whole"), str(tmp_path / "parts")
    with caplog.at_level("WARNING"):
        trainer.train(_recipe(tiny_data, 8, on_nan="rollback"), workdir)
    assert (
        "step 3 was not finite" in caplog.text and "back to step 2, continuing from the batch after it" in caplog.text
    )
    weights = final_weights(workdir)
    (iterations,) = (value for name, value in weights.items() if "optimizer/_iterations" in name)
    assert iterations == 8
    (position,) = (value for name, value in weights.items() if name.startswith("position"))
    assert position == 10
    for steps in (5, 8):
        trainer.train(_recipe(tiny_data, steps, on_nan="rollback"), parts)
    assert_same_weights(workdir, parts)


@pytest.mark.parametrize("every", [3, 1000])
def test_no_step_is_saved_before_it_was_looked_at(every):
    """Otherwise a rollback would return to a bad step; on an accelerator checks are rare."""
    data = make_data()
    data["keypoints"][BATCH, 0] = [np.nan, 0, 2]
    saved = []
    watch = nonfinite.WatchFinite("rollback", every=100)
    saving = callbacks.SaveCheckpoints(
        types.SimpleNamespace(save=lambda step, position: saved.append(step)), every, total_steps=8, watch=watch
    )
    with pytest.raises(nonfinite.NonFinite) as error:
        train(make_regressor(), data, steps=8, steps_per_epoch=4, callbacks=[watch, saving])
    assert error.value.step == 1 and not saved


def test_a_layer_that_overflows_is_named(tiny_data, tmp_path):
    fields = {"optimizer__name": "sgd", "optimizer__learning_rate": 1e30, "log_every": 1000, "checkpoint_every": 1000}
    with pytest.raises(InputError, match=r"step \d was not finite: .*(layer|loss|gradient|weight)"):
        trainer.train(_recipe(tiny_data, 8, **fields), str(tmp_path))


def test_every_start_notes_code_and_packages(tiny_run, tmp_path):
    with open(os.path.join(tiny_run, "starts.json")) as file:
        starts = json.load(file)
    assert starts
    for _ in range(2):
        note_start(str(tmp_path))
    with open(tmp_path / "starts.json") as file:
        noted = json.load(file)
    assert len(noted) == 2
    starts += noted
    for start in starts:
        assert {"time", "command", "versions"} == set(start)
        assert start["versions"]["tensorflow"] == tf.__version__ and start["versions"]["kpose"]
