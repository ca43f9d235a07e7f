"""Which checkpoints are kept: independent of the time and of other files in the folder."""

import os
import time

import pytest

from kpose.runs import checkpoints
from tests.train.test_regressor import make_regressor

DAY = 86_400.0


def names(folder):
    """The names of the checkpoints in a folder, from their files."""
    return sorted({name.split(".")[0] for name in os.listdir(folder) if name.startswith("step-")})


@pytest.fixture
def clock(monkeypatch):
    """A function that shifts time.time() by a number of days."""
    real = time.time
    return lambda days: monkeypatch.setattr(time, "time", lambda: real() + days * DAY)


@pytest.mark.parametrize("days", [[-3], [3], [-3, -6, -9], [5, -5, 5], [0, 0.0]], ids=str)
def test_a_clock_that_is_set_removes_no_checkpoint(days, clock, tmp_path):
    workdir, regressor = str(tmp_path), make_regressor()
    saver = checkpoints.Checkpoints(workdir, regressor, keep=2)
    for step in (1, 2, 3):
        saver.save(step, step)
    saver.save_if_best(2, 2, 0.5)
    step = 3
    for change in days:
        clock(change)
        saver = checkpoints.Checkpoints(workdir, regressor, keep=2)
        assert saver.restore() == (step, step)
        assert names(tmp_path / "checkpoints") == [f"step-{step - 1}", f"step-{step}"]
        assert names(tmp_path / "checkpoints" / "best") == ["step-2"]
        assert checkpoints.latest(workdir, best=True).endswith("best/step-2")
        step += 1
        saver.save(step, step)
        assert names(tmp_path / "checkpoints") == [f"step-{step - 1}", f"step-{step}"]
        assert checkpoints.latest(workdir).endswith(f"step-{step}")


def test_times_of_files_do_not_matter(tmp_path):
    workdir, regressor = str(tmp_path), make_regressor()
    saver = checkpoints.Checkpoints(workdir, regressor, keep=3)
    for step in (8, 9, 10):
        saver.save(step, step)
    for age, step in enumerate((8, 9, 10)):
        for path in tmp_path.glob(f"checkpoints/step-{step}.*"):
            os.utime(path, (age, 10_000_000 - age))
    os.remove(tmp_path / "checkpoints" / "checkpoint")
    saver = checkpoints.Checkpoints(workdir, regressor, keep=3)
    assert saver.restore() == (10, 10)
    saver.save(11, 11)
    assert names(tmp_path / "checkpoints") == ["step-10", "step-11", "step-9"]


def test_a_list_that_an_earlier_kpose_wrote_with_times_is_read(tmp_path):
    import tensorflow as tf

    workdir, regressor = str(tmp_path), make_regressor()
    saver = checkpoints.Checkpoints(workdir, regressor, keep=3)
    for step in (1, 2):
        saver.save(step, step)
    late = time.time() + 100 * DAY
    tf.compat.v1.train.update_checkpoint_state(
        str(tmp_path / "checkpoints"), "step-2", ["step-1", "step-2"], None, [late, late], last_preserved_timestamp=late
    )
    saver = checkpoints.Checkpoints(workdir, regressor, keep=3)
    assert saver.restore() == (2, 2)
    assert names(tmp_path / "checkpoints") == ["step-1", "step-2"]


def test_only_incomplete_or_older_unlisted_checkpoints_are_removed(tmp_path):
    workdir, regressor = str(tmp_path), make_regressor()
    saver = checkpoints.Checkpoints(workdir, regressor, keep=10)
    for step in (1, 5, 7, 9):
        saver.save(step, step)
    folder = tmp_path / "checkpoints"
    # The list has only step-5 and step-7.
    (folder / "checkpoint").write_text(
        'model_checkpoint_path: "step-7"\nall_model_checkpoint_paths: "step-5"\nall_model_checkpoint_paths: "step-7"\n'
    )
    (folder / "step-12_temp").mkdir()
    (folder / "step-13.data-00000-of-00001").write_bytes(b"half")
    strangers = ["step-best.txt", "step-3-notes", "step-4.index.bak", "step-2.damaged", "notes.md"]
    for name in strangers:
        (folder / name).write_text("not kpose's")
    assert checkpoints.Checkpoints(workdir, regressor, keep=10).restore() == (7, 7)
    left = set(os.listdir(folder))
    assert set(strangers) <= left
    whole = {name.split(".")[0] for name in left if name.endswith(".index")}
    assert whole == {"step-5", "step-7", "step-9"}, "complete and newer than the list: kept"
    assert not {"step-12_temp", "step-13.data-00000-of-00001"} & left


@pytest.mark.parametrize("workdir", ["run", "runs/a", "./run", "../run"])
def test_a_workdir_may_be_relative_and_may_move(workdir, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    regressor = make_regressor()
    saver = checkpoints.Checkpoints(workdir, regressor, keep=2)
    for step in (1, 2, 3):
        saver.save(step, step)
    saver.save_if_best(2, 2, 0.5)
    assert checkpoints.exist(workdir)
    assert checkpoints.Checkpoints(workdir, regressor, keep=2).restore() == (3, 3)
    for best, step in ((False, 3), (True, 2)):
        path = checkpoints.latest(workdir, best=best)
        assert path.endswith(f"step-{step}") and os.path.exists(f"{path}.index")
    os.rename(workdir, tmp_path / "elsewhere")
    assert checkpoints.Checkpoints(str(tmp_path / "elsewhere"), regressor, keep=2).restore() == (3, 3)
    assert names(tmp_path / "elsewhere" / "checkpoints") == ["step-2", "step-3"]


def test_step_1_is_not_step_10(tmp_path):
    saver = checkpoints.Checkpoints(str(tmp_path), make_regressor(), keep=1)
    for step in (1, 10, 100):
        saver.save(step, step)
        assert names(tmp_path / "checkpoints") == [f"step-{step}"]
