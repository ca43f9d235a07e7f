"""The command kpose.predict: images, folders, pipes, unreadable files, overlays."""

import fractions
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import kpose
from kpose.core.errors import InputError
from kpose.drawing import persons
from kpose.predict import detectors, files, videos
from tests import helpers
from tests.core.test_cli import run


@pytest.fixture(scope="module")
def model(model_dir):
    return kpose.load(model_dir)


def load(path):
    with open(path) as file:
        return json.load(file)


def test_images_are_given_with_or_without_their_flag(model_dir, photos, monkeypatch, capfd, tmp_path, caplog):
    caplog.set_level("INFO", logger="absl")
    monkeypatch.chdir(tmp_path)
    arguments = ("photos/a.jpg", f"--model={model_dir}", "--detector=none", "photos/b.png")
    status, out, err = run(monkeypatch, capfd, "kpose.predict", *arguments)
    assert status == 0, err
    assert out == "" and "each whole image is one person's box" in caplog.text
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


def ids(results):
    return [(os.path.basename(r["file_name"]), r["image_id"], r.get("frame")) for r in results]


def predict(model_dir, images, output_dir=None, **arguments):
    return files.predict(model_dir, images, None, output_dir, **{"detector": "none"} | arguments)


def test_ids_are_the_numbers_of_the_names_if_they_differ_and_else_positions(model, photos):
    for old, new in (("a.jpg", "im_000139.jpg"), ("b.png", "im_7.png")):
        (photos / old).rename(photos / new)
    assert ids(predict(model, photos)) == [("im_000139.jpg", 139, None), ("im_7.png", 7, None)]
    assert ids(predict(model, [photos / "im_7.png"])) == [("im_7.png", 7, None)]
    # The same number twice, and a name without a number.
    for name in ("other_7.png", "other.png"):
        Image.open(photos / "im_7.png").save(photos / name)
        assert [r["image_id"] for r in predict(model, photos)] == [1, 2, 3]
        (photos / name).unlink()


def test_frames_have_ids_that_no_image_and_no_other_video_has(model, photos, tmp_path):
    pytest.importorskip("av", reason="videos need the package av")
    (photos / "a.jpg").rename(photos / "a_3.jpg")
    (photos / "b.png").rename(photos / "b_12.png")
    for name in ("one", "two"):
        with videos.writing(str(tmp_path / name), (64, 48), fractions.Fraction(10)) as add:
            for number in range(1, 4):
                add(number, np.full((48, 64, 3), 60 * number, np.uint8))
    results = predict(model, [tmp_path / "one.mp4", photos, tmp_path / "two.mp4"])
    assert ids(results) == [
        *(("one.mp4", 12 + frame, frame) for frame in (1, 2, 3)),
        ("a_3.jpg", 3, None),
        ("b_12.png", 12, None),
        *(("two.mp4", 15 + frame, frame) for frame in (1, 2, 3)),
    ]


def test_images_without_persons_are_counted_and_named(model, photos, caplog, left_half):
    caplog.set_level("INFO", logger="absl")

    def only_wide(image):
        boxes, scores = left_half(image)
        return (boxes, scores) if image.shape[1] > 100 else ([], [])

    for number in range(14):
        Image.new("RGB", (80, 60)).save(photos / f"empty{number:02d}.png")
    results = predict(model, photos, detector=only_wide)
    assert {os.path.basename(r["file_name"]) for r in results} == {"a.jpg", "b.png"}
    named = ", ".join(f"empty{number:02d}.png" for number in range(10))
    assert f"nobody found in 14 of 16 files: {named} and 4 more" in caplog.text


def test_files_of_an_earlier_run_are_replaced_only_if_asked(model, photos, tmp_path, monkeypatch):
    out = str(tmp_path / "o")
    predict(model, photos / "a.jpg", out)
    before = {name: (tmp_path / "o" / name).read_bytes() for name in os.listdir(out)}
    monkeypatch.setattr(type(model), "predict_image", lambda *_: pytest.fail("work was done"))
    for path, name in ((photos / "b.png", "keypoints.json"), (photos / "a.jpg", "a.jpg, and 1 more")):
        with pytest.raises(InputError, match=f"{name}: exists, .*earlier run: give --overwrite") as error:
            predict(model, path, out)
        helpers.one_line(error)
    monkeypatch.undo()
    assert before == {name: (tmp_path / "o" / name).read_bytes() for name in os.listdir(out)}
    results = predict(model, photos / "b.png", out, overwrite=True)
    assert load(f"{out}/keypoints.json") == results and sorted(os.listdir(out)) == ["a.jpg", "b.jpg", "keypoints.json"]


def test_the_file_of_boxes_is_not_replaced(model, photos, tmp_path):
    predict(model, photos / "a.jpg", str(tmp_path))
    boxes = str(tmp_path / "keypoints.json")
    before = load(boxes)
    with pytest.raises(InputError, match="keypoints.json: the output would replace an input file"):
        files.predict(model, photos / "a.jpg", boxes, str(tmp_path), overwrite=True)
    assert load(boxes) == before


def test_a_folder_that_cannot_be_written_is_one_line_before_any_work(photos, tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below", "/proc/kpose"):
        with pytest.raises(InputError, match="nothing can be written there .*choose another --output_dir") as error:
            # The model does not exist: it is loaded later.
            predict("no model", photos, str(folder))
        helpers.one_line(error)


def test_overlays_are_jpeg_or_png(model, photos, tmp_path):
    for kind, format_ in (("jpg", "JPEG"), ("png", "PNG")):
        predict(model, photos, str(tmp_path / kind), overlay_format=kind)
        for name in ("a", "b"):
            with Image.open(tmp_path / kind / f"{name}.{kind}") as overlay:
                assert overlay.format == format_ and overlay.size == (120, 90)
    people = model.predict(photos / "b.png", detector="none")
    np.testing.assert_array_equal(Image.open(tmp_path / "png" / "b.png"), people.draw())
    with pytest.raises(InputError, match="the format of overlays is 'gif'"):
        predict(model, photos, str(tmp_path / "gif"), overlay_format="gif")


def test_an_overlay_that_cannot_be_written_is_one_line_and_the_results_are_written(
    model, photos, tmp_path, monkeypatch
):
    def full_disk(path, picture):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(persons, "save_picture", full_disk)
    with pytest.raises(InputError, match="2 overlays could not be written: .*No space left on device") as error:
        predict(model, photos, str(tmp_path / "o"))
    helpers.one_line(error)
    assert len(load(tmp_path / "o" / "keypoints.json")) == 2


def test_a_glob_with_two_stars_has_the_folders_below_but_no_earlier_overlays(model, photos, tmp_path, monkeypatch):
    below = photos / "more" / "deep"
    below.mkdir(parents=True)
    Image.open(photos / "b.png").save(below / "b.png")
    monkeypatch.chdir(tmp_path)
    for overwrite in (False, True):
        results = predict(model, "**/*.[jp]*g", "photos/found", overwrite=overwrite)
        names = [r["file_name"] for r in results]
        assert names == ["photos/a.jpg", "photos/b.png", "photos/more/deep/b.png"]
        assert sorted(os.listdir("photos/found")) == ["a.jpg", "b.jpg", "b_2.jpg", "keypoints.json"]


def test_one_damaged_file_of_each_format_and_the_batch_goes_on(model, photos, tmp_path, caplog):
    good = Image.open(photos / "b.png")
    for suffix, kind in (("tif", "TIFF"), ("gif", "GIF"), ("webp", "WEBP"), ("avif", "AVIF"), ("jp2", "JPEG2000")):
        good.save(photos / f"good.{suffix}", kind)
        data = (photos / f"good.{suffix}").read_bytes()
        (photos / f"half.{suffix}").write_bytes(data[: len(data) // 2])
        (photos / f"none.{suffix}").write_bytes(b"")
    good.save(photos / "png.jpg", "PNG")
    with pytest.raises(InputError, match="10 of 18 files could not be read"):
        predict(model, photos, str(tmp_path / "o"))
    names = {os.path.basename(r["file_name"]) for r in load(tmp_path / "o" / "keypoints.json")}
    suffixes = ("tif", "gif", "webp", "avif", "jp2")
    assert names == {"a.jpg", "b.png", "png.jpg", *(f"good.{suffix}" for suffix in suffixes)}
    skipped = [record.getMessage() for record in caplog.records if "skipped" in record.getMessage()]
    assert len(skipped) == 10 and not any("\n" in line for line in skipped)


def test_after_an_interrupt_the_finished_files_are_written(model, photos, tmp_path):
    asked = []

    def interrupted(image):
        asked.append(image)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return [[0, 0, 60, 90]], [0.9]

    with pytest.raises(KeyboardInterrupt):
        predict(model, photos, str(tmp_path / "o"), detector=interrupted)
    assert ids(load(tmp_path / "o" / "keypoints.json")) == [("a.jpg", 1, None)]
    assert sorted(os.listdir(tmp_path / "o")) == ["a.jpg", "keypoints.json"]


def test_a_file_that_is_given_twice_is_predicted_once(model, photos, monkeypatch):
    monkeypatch.chdir(photos)
    assert files.find_images(["b.png", "./b.png", "a.jpg", ".", "b.png"]) == ["b.png", "a.jpg"]


@pytest.mark.parametrize("images", ["none", "none*.jpg", "empty", "notes.txt*", "broken.jpg"])
def test_no_image_is_one_line(model, tmp_path, monkeypatch, images):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.jpg").symlink_to("nowhere.jpg")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=re.escape(images) + ": no ") as error:
        predict(model, images)
    helpers.one_line(error)
