"""Comparisons of two evaluations."""

import io
import json
import zipfile

import numpy as np
import pytest

from kpose.core.errors import InputError
from kpose.core.skeletons import COCO
from kpose.evaluate import on_records, summary, two_runs
from kpose.metrics import bootstrap, tables
from tests.core.test_cli import run
from tests.metrics.test_keras_metrics import persons


def test_a_comparison_says_what_the_evaluations_say(evaluations, monkeypatch, capfd, tmp_path):
    folders, metrics = evaluations
    status, out, _ = run(
        monkeypatch, capfd, "kpose.evaluate", f"--compare={','.join(folders)}", f"--output_dir={tmp_path}"
    )
    assert status == 0 and "PCP strict" in out
    assert run(monkeypatch, capfd, "kpose.evaluate", "--compare", *folders)[:2] == (0, out)
    table = json.loads((tmp_path / "compare.json").read_text())
    assert table["num_persons"] == metrics[0]["num_persons"]
    for side, expected in zip(("first", "second"), metrics, strict=True):
        assert table["pcp_strict"][side] == pytest.approx(expected["pcp"]["strict"]["average"], abs=1e-6)
        assert table["pdj"][side] == pytest.approx(expected["pdj"]["0.2"], abs=1e-6)
        assert table["oks_ap"][side] == expected["oks_ap"]["AP"]
        for group in COCO.limbs:
            row = table["pcp_mean_by_group"][group]
            assert row[side] == pytest.approx(expected["pcp"]["mean"][group], abs=1e-6)
    low, high = table["oks_ap"]["interval"]
    assert low <= table["oks_ap"]["difference"] <= high


def save_evaluation(folder, counts, truth, **arrays):
    """Writes the files of an evaluation that a comparison reads."""
    folder.mkdir(parents=True)
    np.savez(folder / summary.PERSONS_FILE, annotation_id=np.arange(len(truth)), **counts, **arrays)
    table = {"pcp": tables.pcp_table(truth, truth[..., :2], COCO), "oks_ap": None}
    (folder / "metrics.json").write_text(json.dumps(table))
    return str(folder)


def test_a_comparison_resamples_images(tmp_path):
    """Each person four times in its image; without the images of an older kpose, persons."""
    truth, prediction = (np.repeat(array, 4, 0) for array in persons(2, count=40))
    images = np.repeat(np.arange(40), 4)
    better = truth[..., :2] + 0.9 * (prediction - truth[..., :2])
    both = [bootstrap.person_counts(truth, points, COCO) for points in (prediction, better)]
    new = [save_evaluation(tmp_path / f"new{i}", counts, truth, image=images) for i, counts in enumerate(both)]
    old = [save_evaluation(tmp_path / f"old{i}", counts, truth) for i, counts in enumerate(both)]
    table = two_runs.compare(*new)
    assert table["num_images"] == 40 and "160 persons in 40 images" in two_runs.describe(table)[0]
    expected = bootstrap.paired_differences(*({k: v[::4] for k, v in counts.items()} for counts in both), np.arange(40))
    assert table["pdj"]["interval"] == pytest.approx(expected["pdj"]["interval"])
    assert table["oks_ap"]["interval"] is None
    # One of the two files is enough: the persons are the same.
    assert two_runs.compare(old[0], new[1])["pdj"]["interval"] == table["pdj"]["interval"]
    alone = two_runs.compare(*old)
    assert alone["num_images"] is None and "resample persons" in two_runs.describe(alone)[1]
    ratio = np.diff(table["pdj"]["interval"])[0] / np.diff(alone["pdj"]["interval"])[0]
    assert ratio == pytest.approx(2, rel=0.2)


def test_a_comparison_takes_workdirs_and_writes_no_nan(tmp_path, monkeypatch, capfd):
    """For persons without a labelled joint."""
    truth = np.zeros((3, 17, 3))
    for name in "ab":
        counts = bootstrap.person_counts(truth, truth[..., :2], COCO)
        save_evaluation(tmp_path / name / "evaluation", counts, truth, image=np.arange(3))
    arguments = ("--compare", str(tmp_path / "a"), str(tmp_path / "b"), f"--output_dir={tmp_path}")
    status, out, _ = run(monkeypatch, capfd, "kpose.evaluate", *arguments)
    text = (tmp_path / "compare.json").read_text()
    assert status == 0 and "nan" not in out.lower() and "NaN" not in text
    assert json.loads(text)["pcp_strict"] == {"first": None, "second": None, "difference": None, "interval": None}


def test_an_evaluation_compared_with_itself_differs_nowhere(evaluations):
    table = two_runs.compare(evaluations[0][0], evaluations[0][0])
    assert table["oks_ap"]["interval"] == table["pcp_strict"]["interval"] == [0, 0]


def test_evaluations_of_other_persons_are_not_compared(evaluations, tiny_run, tiny_data, tmp_path, without_report):
    on_records.evaluate(tiny_run, tiny_data["train"], output_dir=str(tmp_path / "train"))
    with pytest.raises(InputError, match="on different persons .*evaluate both on the same records"):
        two_runs.compare(evaluations[0][0], str(tmp_path / "train"))
    with pytest.raises(InputError, match="persons.npz: no such file"):
        two_runs.compare(evaluations[0][0], str(tmp_path))


def test_a_damaged_or_far_too_large_file_of_persons_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(two_runs, "MAX_BYTES", 10**8)
    path = tmp_path / summary.PERSONS_FILE
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("pdj.npy", "w") as member:
        for _ in range(21):
            member.write(bytes(10_000_000))
    with pytest.raises(InputError, match="persons.npz: unpacks to 0.2 GB, at most 0.1 GB"):
        two_runs.compare(str(tmp_path), str(tmp_path))
    header = io.BytesIO()
    # 10^13 numbers, which are not in the file.
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**13,)})
    for content in (b"no archive", None):
        path.write_bytes(content or b"")
        if content is None:
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("pdj.npy", header.getvalue())
        with pytest.raises(InputError, match="persons.npz: cannot be read"):
            two_runs.compare(str(tmp_path), str(tmp_path))
