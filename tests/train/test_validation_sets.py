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


def test_each_set_has_its_metrics_and_the_first_decides(tiny_run, tiny_data, tmp_path, caplog, capsys):
    train, val, workdir = tiny_data["train"], tiny_data["val"], str(tmp_path)
    with caplog.at_level("INFO", logger="absl"):
        trainer.train(tiny.make_recipe(train, f"a={val},二={train}"), workdir)
    rows, alone = read_history(workdir), read_history(tiny_run)
    for row, other in zip(rows, alone, strict=True):
        for metric in ("loss", "pcp_strict", "pcp_mean", "pdj_0.2", "oks_ap", "spread"):
            assert row[f"val_{metric}"] == pytest.approx(other[f"val_{metric}"], rel=1e-5, abs=1e-6)
        assert row["loss"] == pytest.approx(other["loss"], rel=1e-6)
    assert "'a' decides the best checkpoint" in caplog.text and "  二: validation loss" in capsys.readouterr().err
    best = os.path.join(checkpoints.BEST_FOLDER, "best.json")
    with open(tmp_path / best) as found, open(os.path.join(tiny_run, best)) as expected:
        assert found.read() == expected.read()
    folder = str(tmp_path / "tensorboard")
    assert {"validation", "mean_pose", "validation_二", "mean_pose_二"} <= set(os.listdir(folder))
    # The second set is measured on its own records.
    metrics = on_records.evaluate(workdir, train, tiny_data["train_annotations"])
    second = {"pcp_strict": metrics["pcp"]["strict"]["average"], "pcp_mean": metrics["pcp"]["mean"]["average"]}
    second |= {"pdj_0.2": metrics["pdj"]["0.2"], "oks_ap": metrics["oks_ap"]["AP"]}
    for name, value in second.items():
        assert rows[-1][validation_sets.column("二", name)] == pytest.approx(value, abs=1e-6), name
    assert rows[-1][validation_sets.column("二", "loss")] != pytest.approx(rows[-1]["val_loss"], rel=1e-3)
    page = (tmp_path / "evaluation" / "report.html").read_text(encoding="utf-8")
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
