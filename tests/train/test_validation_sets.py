"""Several validation sets: names, columns, TensorBoard, report, and which one decides."""

import os

import pytest

from kpose.core import validation_sets
from kpose.core.errors import InputError
from kpose.evaluate import on_records
from kpose.runs import checkpoints
from kpose.runs.workdir import read_history
from kpose.train import trainer
from tests import helpers, tiny


def test_sets_have_names_and_a_glob_stays_a_glob(tmp_path, monkeypatch):
    assert validation_sets.parse("") == ()
    assert validation_sets.parse("records/val-*") == (("", "records/val-*"),)
    assert validation_sets.parse("one/val-*,two/val-*") == (("", "one/val-*,two/val-*"),)
    assert validation_sets.parse("runs/lr=1/val-*") == (("", "runs/lr=1/val-*"),)
    assert validation_sets.parse("a=one/val-*, 二=two/x=1/val-*") == (("a", "one/val-*"), ("二", "two/x=1/val-*"))
    monkeypatch.chdir(tmp_path)
    os.makedirs("lr=1")
    (tmp_path / "lr=1" / "val-0").touch()
    assert validation_sets.parse("lr=1/val-*") == (("", "lr=1/val-*"),)


@pytest.mark.parametrize(
    "text, words",
    [("a=x,y", "a name and a glob for each"), ("a=x,b=", "a name and a glob"), ("a=x,a=y", "two sets.*'a'")],
)
def test_wrong_names_are_one_line(text, words):
    with pytest.raises(InputError, match=words) as error:
        validation_sets.parse(text)
    helpers.one_line(error)


def test_a_set_may_have_the_name_of_a_metric():
    names = ("pcp", "b", "b_c")
    row = {validation_sets.column(name, "pcp_strict"): number for number, name in enumerate(("", *names))}
    row |= {"step": 1, "val_b_loss": 7, "val_b_c_loss": 8, "val_loss": 6}
    assert validation_sets.split(row, names) == {
        "": {"pcp_strict": 0, "loss": 6},
        "pcp": {"pcp_strict": 1},
        "b": {"pcp_strict": 2, "loss": 7},
        "b_c": {"pcp_strict": 3, "loss": 8},
    }


def test_each_set_has_its_metrics_and_the_first_decides(tiny_data, tmp_path, caplog, capsys):
    train, val = tiny_data["train"], tiny_data["val"]
    alone = {}
    for name, text in {"val": val, "train": train, "both": f"a={val},二={train}"}.items():
        with caplog.at_level("INFO", logger="absl"):
            trainer.train(tiny.make_recipe(train, text, steps=4), str(tmp_path / name))
        alone[name] = read_history(str(tmp_path / name))
    metrics = ("loss", "pcp_strict", "pcp_mean", "pdj_0.2", "oks_ap", "spread")
    for row, *others in zip(alone["both"], alone["val"], alone["train"], strict=True):
        for name, other in zip(("", "二"), others, strict=True):
            for metric in metrics:
                expected = other[f"val_{metric}"]
                assert row[validation_sets.column(name, metric)] == pytest.approx(expected, rel=1e-5, abs=1e-6)
        assert row["loss"] == pytest.approx(others[0]["loss"], rel=1e-6)
    assert "'a' decides the best checkpoint" in caplog.text and "  二: validation loss" in capsys.readouterr().err
    best = os.path.join(checkpoints.BEST_FOLDER, "best.json")
    assert (tmp_path / "both" / best).read_text() == (tmp_path / "val" / best).read_text()
    folder = str(tmp_path / "both" / "tensorboard")
    assert {"validation", "mean_pose", "validation_二", "mean_pose_二"} <= set(os.listdir(folder))
    on_records.evaluate(str(tmp_path / "both"), val)
    page = (tmp_path / "both" / "evaluation" / "report.html").read_text(encoding="utf-8")
    assert "The first set decides the best checkpoint" in page and "<td>二</td>" in page


@pytest.mark.slow
def test_a_killed_run_with_several_sets_gets_its_lost_row(tiny_data, tmp_path, kill_at):
    text = f"a={tiny_data['val']},b={tiny_data['train']}"
    whole, killed = str(tmp_path / "whole"), str(tmp_path / "killed")
    trainer.train(tiny.make_recipe(tiny_data["train"], text), whole)
    kill_at(3, "on_test_batch_end")
    with pytest.raises(BaseException, match=""):
        trainer.train(tiny.make_recipe(tiny_data["train"], text), killed)
    trainer.train(tiny.make_recipe(tiny_data["train"], text), killed)
    for row, expected in zip(read_history(killed), read_history(whole), strict=True):
        for name in ("val_loss", "val_b_loss", "val_b_oks_ap"):
            assert row[name] == pytest.approx(expected[name], rel=1e-5)
