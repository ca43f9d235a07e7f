"""Damaged history.csv, starts.json and best.json: renamed, logged and begun anew."""

import json
import os
import shutil
import types

import pytest

from kpose.core.errors import InputError
from kpose.evaluate import on_records
from kpose.runs import checkpoints
from kpose.runs.starts import note_start
from kpose.runs.workdir import load_config, load_mean_pose, read_history, write_history
from kpose.train import trainer
from kpose.train.history import score_of
from tests import helpers, tiny
from tests.train.test_regressor import make_regressor

ROWS = [{"step": 2, "epoch": 1, "loss": 0.5}, {"step": 4, "epoch": 2, "loss": 0.25, "val_loss": 0.125}]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\x00garbled",
        b"step,epoch,loss\n2,1,0.5\n4,2",
        b"step,epoch,loss\n2,1,0.5,7\n",
        b"step,epoch,loss\n2,1,half\n",
        b"step,epoch,loss\n,1,0.5\n",
        b"step,epoch,loss\n2,1,\x00\x00\x00\n",
        b"loss\n0.5\n",
        b'step,epoch,loss\n2,1,"' + b"0" * 200_000,
    ],
    ids=["empty", "binary", "cut", "long line", "no number", "no step", "zeros", "other columns", "open quote"],
)
def test_a_damaged_history_is_set_aside(content, tmp_path, caplog):
    path = tmp_path / "history.csv"
    for name in ("history.csv.damaged", "history.csv.damaged-2"):
        path.write_bytes(content)
        caplog.clear()
        with caplog.at_level("WARNING", logger="absl"):
            assert read_history(str(tmp_path)) == []
        (record,) = caplog.records
        assert f"{path}: damaged (" in record.message and f"renamed to {name}: begun anew" in record.message
        assert "\n" not in record.message
        assert not path.exists() and (tmp_path / name).read_bytes() == content
    write_history(str(tmp_path), ROWS)
    assert read_history(str(tmp_path)) == ROWS


def test_a_damaged_history_that_cannot_be_renamed_is_ignored(tmp_path, monkeypatch, caplog):
    """As in the folder of another user."""
    (tmp_path / "history.csv").write_bytes(b"\xff")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    with caplog.at_level("WARNING", logger="absl"):
        assert read_history(str(tmp_path)) == []
    assert "ignored: it cannot be renamed (Permission denied)" in caplog.text


@pytest.mark.parametrize("content", [b"", b"[{", b"\xff\x00", b"{}", b"[" * 100_000])
def test_a_damaged_list_of_starts_is_set_aside(content, tmp_path, caplog):
    (tmp_path / "starts.json").write_bytes(content)
    with caplog.at_level("WARNING", logger="absl"):
        note_start(str(tmp_path))
    assert "renamed to starts.json.damaged: begun anew" in caplog.text
    assert (tmp_path / "starts.json.damaged").read_bytes() == content
    assert len(json.loads((tmp_path / "starts.json").read_text())) == 1


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b"{}", b'{"score": "high"}', b'{"score": null}'])
def test_a_damaged_score_of_the_best_checkpoint_is_set_aside(content, tmp_path, caplog):
    path, written = tmp_path / "checkpoints" / "best" / "best.json", []
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    saver = types.SimpleNamespace(_written=str(tmp_path), _best=None, _write=lambda *_: written.append(_))
    with caplog.at_level("WARNING", logger="absl"):
        for score in (0.5, 0.25):
            checkpoints.Checkpoints.save_if_best(saver, 4, 4, score)
    assert caplog.text.count("renamed to best.json.damaged: begun anew") == 1
    assert json.loads(path.read_text()) == {"step": 4, "score": 0.5} and len(written) == 1


def test_a_run_with_damaged_files_is_continued_and_evaluated(tiny_run, tiny_data, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(tiny_run, folder)
    workdir = str(folder)
    names = ("history.csv", "starts.json", "checkpoints/best/best.json")

    def damage():
        for name in names:
            (folder / name).write_bytes(b"\xff\x00 garbled")

    damage()
    trainer.train(tiny.make_recipe(tiny_data["train"], tiny_data["val"], steps=8), workdir)
    assert [row["step"] for row in read_history(workdir)][-1] == 8
    assert all(os.path.exists(folder / f"{name}.damaged") for name in names)
    assert checkpoints.latest(workdir, best=True)
    damage()
    assert on_records.evaluate(workdir, tiny_data["val"])["num_persons"]
    assert (folder / "evaluation" / "report.html").exists()


@pytest.mark.parametrize(
    "content",
    [
        "{}",
        "[]",
        '{"mean_pose": [[0, 0], [1]]}',
        '{"mean_pose": [[0, NaN]]}',
        '{"mean_pose": [0, 1]}',
        '{"mean_pose": "x"}',
    ],
)
def test_a_damaged_mean_pose_is_one_line(content, tmp_path):
    path = tmp_path / "mean_pose.json"
    path.write_text(content)
    with pytest.raises(InputError, match="damaged: it holds no mean pose|not JSON") as error:
        load_mean_pose(str(tmp_path))
    helpers.one_line(error)


@pytest.mark.parametrize("content", [None, b"", b"\xff\x00 garbled", b'{"score": null}'])
def test_the_best_score_is_taken_from_the_history(content, tiny_run, tiny_data, tmp_path, caplog):
    """So a worse evaluation does not replace the best checkpoint."""
    workdir = tmp_path / "run"
    shutil.copytree(tiny_run, workdir)
    path = workdir / "checkpoints" / "best" / "best.json"
    expected = json.loads(path.read_text())
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    saver = checkpoints.Checkpoints(str(workdir), make_regressor(), keep=3)
    rows = read_history(str(workdir))
    with caplog.at_level("WARNING", logger="absl"):
        saver.restore_best({row["step"]: score_of(row) for row in rows if "val_loss" in row})
    assert json.loads(path.read_text()) == pytest.approx(expected)
    assert "best.json: missing or damaged: written again from the history" in caplog.text
    saver.save_if_best(99, 99, expected["score"] - 0.1)
    assert checkpoints.latest(str(workdir), best=True).endswith(f"step-{expected['step']}")
    # Without a row of this step, nothing is invented.
    path.unlink()
    saver.restore_best({99: 1.0})
    assert not path.exists()


@pytest.mark.parametrize("size", [[32, 0.5], [32], [0, 32], [32, 2**63], [10**30, 32]])
def test_a_damaged_input_size_is_one_line(size, tiny_run, tmp_path):
    with open(os.path.join(tiny_run, "config.json")) as file:
        config = json.load(file)
    config["model"]["input_size"] = size
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="config.model.input_size is .*: give 2 positive integers below") as error:
        load_config(str(tmp_path))
    helpers.one_line(error)
