"""Confidence intervals and comparisons, against what they must be by construction."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from kpose.core import skeletons
from kpose.core.errors import InputError
from kpose.evaluate import figures, on_records, two_runs
from kpose.metrics import bootstrap
from kpose.metrics.tables import (
    joint_errors,
    limb_table,
    pck_table,
    pcp_table,
    pdj_curve,
    pdj_table,
    person_errors,
    subsets,
)
from kpose.train import trainer
from tests import tiny
from tests.core.test_cli import run
from tests.metrics.test_keras_metrics import persons, plain_pcp

COCO = skeletons.COCO
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def test_the_persons_counts_add_up_to_the_tables():
    truth, prediction = persons(3)
    counts = bootstrap.person_counts(truth, prediction, COCO)
    for rule in ("strict", "mean"):
        expected = plain_pcp(truth.astype(np.float64), prediction.astype(np.float64), rule)
        sums = counts[f"pcp_{rule}"].sum(0)
        assert bootstrap.average(sums) == pytest.approx(expected["average"])
        np.testing.assert_allclose(sums[:, 0] / sums[:, 1], [expected[group] for group in COCO.limbs])
        limbs = counts[f"limbs_{rule}"].sum(0)
        table = limb_table(truth, prediction, COCO)[rule]
        np.testing.assert_allclose(limbs[:, 0] / limbs[:, 1], list(table.values()))
        assert list(table) == list(COCO.limb_names)
    for name, threshold in (("pdj", "0.2"), ("pdj_0.1", "0.1")):
        expected = pdj_table(truth, prediction, COCO)[threshold]
        assert bootstrap.average(counts[name].sum(0)) == pytest.approx(expected, abs=1e-6)


def test_every_interval_holds_its_figure():
    truth, prediction = persons(5, count=60)
    boxes = np.tile([10.0, 10.0, 50.0, 120.0], (len(truth), 1))
    table = figures.figures(truth, prediction, 0.5 * prediction, boxes, np.full(len(truth), 50.0**2), COCO)
    found, errors = table["intervals"], table["joint_errors"]
    pairs = [(found["pdj"][name], value) for name, value in table["pdj"].items()]
    pairs += [(found["pck"][name], table["pck"][name]) for name in ("average", *COCO.joints)]
    pairs += [(found["joint_errors"][name], value["mean"]) for name, value in errors.items()]
    for rule in ("strict", "mean"):
        for key in ("pcp", "pcp_by_limb"):
            pairs += [(found[key][rule][name], value) for name, value in table[key][rule].items()]
    assert len(pairs) == 2 + 18 + 17 + 2 * (5 + 8)
    for (low, high), value in pairs:
        assert low <= value <= high
    assert table["mean_pose_joint_errors"] == joint_errors(truth, 0.5 * prediction, COCO)
    assert table["mean_pose_pck"] == pck_table(truth, 0.5 * prediction, boxes, COCO)
    (medium,) = (subset for subset in table["subsets"] if subset["name"].startswith("medium"))
    assert medium["mean_pose_pdj"] == table["mean_pose_pdj"] and medium["intervals"]["pdj"] == found["pdj"]


def test_an_interval_is_as_wide_as_the_binomial_says():
    """400 persons with one limb each, right with probability 0.3: a standard error of 0.0229."""
    right = (np.random.default_rng(0).random(400) < 0.3).astype(float)
    counts = np.stack([right, np.ones(400)], -1)[:, None]
    low, high = bootstrap.interval(bootstrap.average(bootstrap.resampled(counts)))
    error = np.sqrt(right.mean() * (1 - right.mean()) / 400)
    assert low < right.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.12)


def test_nothing_counted_has_no_interval():
    assert bootstrap.interval(bootstrap.average(bootstrap.resampled(np.zeros((5, 1, 2))))) is None


def test_a_paired_difference_is_surer_than_two_intervals():
    truth, prediction = persons(4, count=200)
    better = truth[..., :2] + 0.9 * (prediction - truth[..., :2])
    one, other = (bootstrap.person_counts(truth, points, COCO) for points in (prediction, better))
    found = bootstrap.paired(one, other)["pcp_strict"]
    low, high = found["interval"]
    assert 0 < low < found["difference"] < high
    alone = bootstrap.table(one, COCO)["pcp"]["strict"]["average"]
    assert high - low < 0.7 * (alone[1] - alone[0])
    same = bootstrap.paired(one, one)["pdj"]
    assert same["difference"] == 0 and same["interval"] == [0, 0]


@pytest.fixture(scope="module")
def evaluations(tiny_run, tiny_data, tmp_path_factory):
    """Of two runs on the same persons: folders and tables."""
    folder = tmp_path_factory.mktemp("evaluations")
    other = str(folder / "run")
    trainer.train(tiny.make_recipe(tiny_data["train"], steps=2), other)
    folders = [str(folder / name) for name in ("one", "two")]
    tables = [
        on_records.evaluate(workdir, tiny_data["val"], tiny_data["val_annotations"], where)
        for workdir, where in zip((tiny_run, other), folders, strict=True)
    ]
    return folders, tables


def test_a_comparison_says_what_the_evaluations_say(evaluations, monkeypatch, capfd, tmp_path):
    folders, tables = evaluations
    status, out, _ = run(
        monkeypatch, capfd, "kpose.evaluate", f"--compare={','.join(folders)}", f"--output_dir={tmp_path}"
    )
    assert status == 0 and "PCP strict" in out
    assert run(monkeypatch, capfd, "kpose.evaluate", "--compare", *folders)[:2] == (0, out)
    table = json.loads((tmp_path / "compare.json").read_text())
    assert table["num_persons"] == tables[0]["num_persons"]
    for side, expected in zip(("first", "second"), tables, strict=True):
        assert table["pcp_strict"][side] == pytest.approx(expected["pcp"]["strict"]["average"], abs=1e-6)
        assert table["pdj"][side] == pytest.approx(expected["pdj"]["0.2"], abs=1e-6)
        assert table["oks_ap"][side] == expected["oks_ap"]["AP"]
        for group in COCO.limbs:
            row = table["pcp_mean_by_group"][group]
            assert row[side] == pytest.approx(expected["pcp"]["mean"][group], abs=1e-6)


def test_a_comparison_takes_workdirs_and_writes_no_nan(tmp_path, monkeypatch, capfd):
    """Of persons of whom nothing counts."""
    truth = np.zeros((3, 17, 3))
    for name in "ab":
        folder = tmp_path / name / "evaluation"
        folder.mkdir(parents=True)
        counts = bootstrap.person_counts(truth, truth[..., :2], COCO)
        np.savez(folder / two_runs.PERSONS_FILE, annotation_id=np.arange(3), **counts)
        table = {"pcp": pcp_table(truth, truth[..., :2], COCO), "oks_ap": None}
        (folder / "metrics.json").write_text(json.dumps(table))
    arguments = ("--compare", str(tmp_path / "a"), str(tmp_path / "b"), f"--output_dir={tmp_path}")
    status, out, _ = run(monkeypatch, capfd, "kpose.evaluate", *arguments)
    text = (tmp_path / "compare.json").read_text()
    assert status == 0 and "nan" not in out.lower() and "NaN" not in text
    assert json.loads(text)["pcp_strict"] == {"first": None, "second": None, "difference": None, "interval": None}


def test_evaluations_of_other_persons_are_not_compared(evaluations, tiny_run, tiny_data, tmp_path):
    on_records.evaluate(tiny_run, tiny_data["train"], output_dir=str(tmp_path / "train"))
    with pytest.raises(InputError, match="measured other persons .*evaluate both on the same records"):
        two_runs.compare(evaluations[0][0], str(tmp_path / "train"))
    with pytest.raises(InputError, match="persons.npz: no such file"):
        two_runs.compare(evaluations[0][0], str(tmp_path))


def test_the_report_holds_the_figures_and_opens_offline(evaluations):
    folders, tables = evaluations
    with open(f"{folders[0]}/report.html") as file:
        page = file.read()
    average = tables[0]["pcp"]["strict"]["average"]
    assert f"strict PCP {100 * average:.1f}%" in page and "The worst persons" in page
    assert page.count("<img ") >= 7 and page.count('src="data:image/png;base64,') == page.count("<img ")
    assert not re.search(r"""(?:src|href|action)\s*=\s*["']?(?!["']?(?:data:|#))|url\(|@import|<script|<link""", page)
    for subset in tables[0]["subsets"]:
        assert subset["name"] in page
    for name, value in tables[0]["oks_ap"].items():
        shown = "-" if value is None else f"{100 * value:.1f}%"
        assert f"<th>{name}</th>" in page and f"<td>{shown}</td>" in page
    low, high = (100 * edge for edge in tables[0]["intervals"]["pdj"]["0.2"])
    assert f"[{low:.1f}, {high:.1f}]" in page


def test_the_report_shows_visibility_where_it_is_learned_and_no_ap_where_there_is_none(tmp_path):
    truth, prediction = persons(8)
    boxes = np.tile([10.0, 10.0, 50.0, 120.0], (len(truth), 1))
    facts = {"recipe": "tiny", "checkpoint": "c", "records": "r", "box_source": "b", "flip_test": True, "oks_ap": None}
    table = figures.figures(truth, prediction, prediction, boxes, np.full(len(truth), 50.0**2), COCO) | facts
    table |= {"num_persons": len(truth), "visibility": {"auc": 0.8125, "f1": None, "accuracy": 0.5, "labelled": 1.0}}
    on_records.write_pictures(table, {"truth": truth, "keypoints": prediction, "box": boxes}, {}, COCO, str(tmp_path))
    page = (tmp_path / "report.html").read_text()
    assert "<h2>Visibility</h2>" in page and "<td>81.2%</td><td>-</td>" in page
    assert "object keypoint similarity" not in page


@pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed")
def test_the_report_opens_in_a_browser_without_a_network(evaluations):
    arguments = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND"]
    url = f"file://{evaluations[0][0]}/report.html"
    page = subprocess.run([*arguments, "--dump-dom", url], capture_output=True, text=True, timeout=120, check=True)
    assert "Percentage of correct parts" in page.stdout and "The worst persons" in page.stdout


def test_the_tables_beside_pcp_agree_with_plain_loops():
    truth, prediction = persons(6)
    boxes = np.tile([10.0, 10.0, 50.0, 120.0], (len(truth), 1))
    pck, errors = pck_table(truth, prediction, boxes, COCO), joint_errors(truth, prediction, COCO)
    for k, joint in enumerate(COCO.joints):
        gaps = [np.hypot(*(t[k, :2] - p[k])) for t, p in zip(truth, prediction, strict=True) if t[k, 2] > 0]
        assert pck[joint] == pytest.approx(sum(gap <= 24 for gap in gaps) / len(gaps))
        assert errors[joint]["mean"] == pytest.approx(sum(gaps) / len(gaps), rel=1e-5)
        assert errors[joint]["median"] == pytest.approx(sorted(gaps)[len(gaps) // 2], rel=0.3)
    curve = pdj_curve(truth, prediction, COCO)
    table = pdj_table(truth, prediction, COCO)
    assert dict(zip(curve["thresholds"], curve["pdj"], strict=True))[0.2] == table["0.2"]
    assert curve["pdj"] == sorted(curve["pdj"])
    chosen = subsets(truth, np.full(len(truth), 50.0**2))
    assert chosen["medium (under 96 x 96)"].all() and not chosen["large"].any()
    counts = (truth[..., 2] > 0).sum(1)
    assert (chosen["12 to 17 labelled joints"] == (counts >= 12)).all()
    assert (chosen["fully visible"] == np.array([(person[:, 2] == 2).all() for person in truth])).all()


def test_truth_scored_as_prediction_is_perfect(tiny_data):
    truth, _ = persons(7)
    boxes = np.tile([0.0, 0.0, 200.0, 200.0], (len(truth), 1))
    assert pcp_table(truth, truth[..., :2], COCO)["strict"]["average"] == 1
    assert pck_table(truth, truth[..., :2], boxes, COCO)["average"] == 1
    assert set(pdj_curve(truth, truth[..., :2], COCO)["pdj"]) == {1.0}
    assert (person_errors(truth, truth[..., :2], boxes) == 0).all()
