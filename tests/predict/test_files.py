"""The command kpose.predict: images, folders, pipes, unreadable files, overlays."""

import json
import os
import subprocess
import sys

import pytest
from PIL import Image

from kpose.core.errors import InputError
from kpose.predict import detectors, files
from tests.core.test_cli import run


def load(path):
    with open(path) as file:
        return json.load(file)


def test_images_are_given_with_or_without_their_flag(model_dir, photos, monkeypatch, capfd, tmp_path, caplog):
    caplog.set_level("INFO", logger="absl")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(detectors, "ssdlite_file", lambda: None)
    status, out, err = run(monkeypatch, capfd, "kpose.predict", "photos/a.jpg", f"--model={model_dir}", "photos/b.png")
    assert status == 0, err
    assert out == "" and "each whole image is one person's box" in caplog.text and detectors.INSTALL in caplog.text
    assert sorted(os.listdir("predictions")) == ["a.jpg", "b.jpg", "keypoints.json"]
    results = load("predictions/keypoints.json")
    assert [(r["image_id"], r["file_name"]) for r in results] == [(1, "photos/a.jpg"), (2, "photos/b.png")]


def test_with_json_only_the_results_go_to_stdout_and_nothing_is_written(
    model_dir, photos, monkeypatch, capfd, tmp_path
):
    monkeypatch.chdir(tmp_path)
    arguments = (f"--model={model_dir}", "--json", "--detector=none", str(photos))
    status, out, _ = run(monkeypatch, capfd, "kpose.predict", *arguments)
    assert status == 0
    results = json.loads(out)
    assert [len(r["keypoints"]) for r in results] == [51, 51] and os.listdir() == ["photos"]
    status, out, _ = run(monkeypatch, capfd, "kpose.predict", *arguments, "--output_dir=o", "--nooverlays")
    assert json.loads(out) == results == load("o/keypoints.json") and os.listdir("o") == ["keypoints.json"]


def test_an_unreadable_file_among_several_is_logged_skipped_and_counted(model_dir, photos):
    (photos / "aa.jpg").write_text("no image")
    # In another process, to check that messages of TensorFlow do not get into the pipe.
    command = [sys.executable, "-m", "kpose.predict", f"--model={model_dir}", "--detector=none", "--json", str(photos)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"skipped: {photos}/aa.jpg: not an image" in done.stderr
    assert "error: 1 of 3 files could not be read" in done.stderr
    names = [os.path.basename(r["file_name"]) for r in json.loads(done.stdout)]
    assert names == ["a.jpg", "b.png"] and [r["image_id"] for r in json.loads(done.stdout)] == [1, 3]


def test_the_detector_is_made_with_its_name_and_min_score(model_dir, photos, monkeypatch, tmp_path, caplog, left_half):
    caplog.set_level("INFO", logger="absl")
    asked = []

    def get(name, min_score):
        asked.append((name, min_score))
        return left_half

    monkeypatch.setattr(detectors, "get", get)
    path = str(photos / "a.jpg")
    results = files.predict(model_dir, path, None, str(tmp_path / "o"), detector="ssdlite", min_score=0.7)
    assert asked == [("ssdlite", 0.7)] and [r["bbox"] for r in results] == [[0, 0, 60, 90], [60, 0, 60, 90]]


def test_overlays_replace_neither_each_other_nor_an_input_file(model_dir, photos, tmp_path):
    Image.open(photos / "b.png").save(photos / "a.png")
    paths = [str(photos / name) for name in ("a.jpg", "a.png")]
    files.predict(model_dir, paths, output_dir=str(tmp_path / "o"), detector="none")
    assert sorted(os.listdir(tmp_path / "o")) == ["a.jpg", "a_2.jpg", "keypoints.json"]
    before = (photos / "b.png").read_bytes()
    for overwrite in (False, True):
        with pytest.raises(InputError, match="b.png: the output would replace an input file"):
            files.predict(
                model_dir, str(photos / "b.png"), None, str(photos), overlay_format="png", overwrite=overwrite
            )
    assert (photos / "b.png").read_bytes() == before
