"""Prediction in Python and by the command: images, folders, videos and pipes."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import kpose
from kpose.core import skeletons
from kpose.core.errors import InputError
from kpose.drawing import persons
from kpose.predict import detectors, files
from kpose.predict.model import People
from tests.core.test_cli import run


@pytest.fixture(scope="module")
def model(model_dir):
    return kpose.load(model_dir)


def nobody(image):
    return np.zeros((0, 4)), np.zeros(0)


def load(path):
    with open(path) as file:
        return json.load(file)


# In Python.


def test_importing_kpose_is_free_of_tensorflow():
    script = "import sys, kpose; assert not {'tensorflow', 'keras', 'PIL'} & set(sys.modules); kpose.load"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_importing_the_model_does_not_import_training_evaluation_and_the_input_pipeline():
    script = (
        "import sys, kpose.predict.model\n"
        "unwanted = ('kpose.train', 'kpose.evaluate', 'kpose.data.pipeline')\n"
        "print([name for name in sys.modules if name.startswith(unwanted)])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_paths_arrays_and_lists_give_the_same_people(model, photos):
    path, box = str(photos / "b.png"), [[10, 5, 40, 80], [60, 5, 50, 80]]
    one = model.predict(path, box)
    assert one.keypoints.shape == (2, 17, 3) and one.scores.shape == (2,) and one.box_scores is None
    assert model.skeleton is skeletons.COCO
    np.testing.assert_array_equal(one.boxes, box)
    pixels = np.asarray(Image.open(path))
    listed = model.predict([photos / "b.png", pixels, pixels[:, ::-1]], [box, box, box[:1]])
    assert len(listed) == 3 and listed[2].keypoints.shape == (1, 17, 3)
    for people in listed[:2]:
        np.testing.assert_allclose(people.keypoints, one.keypoints, atol=1e-3)


def test_without_boxes_the_whole_image_is_one_person(model, photos):
    people = model.predict([str(photos / "a.jpg")])[0]
    np.testing.assert_array_equal(people.boxes, [[0, 0, 120, 90]])


def test_detected_boxes_are_sorted_by_score_and_their_scores_are_multiplied(model, photos, left_half):
    path = str(photos / "b.png")
    found = model.predict(path, detector=left_half)
    given = model.predict(path, found.boxes)
    np.testing.assert_array_equal(found.boxes, [[0, 0, 60, 90], [60, 0, 60, 90]])
    np.testing.assert_allclose(found.box_scores, [0.9, 0.5])
    np.testing.assert_allclose(found.keypoints, given.keypoints)
    np.testing.assert_allclose(found.scores, given.scores * [0.9, 0.5], rtol=1e-6)


@pytest.mark.parametrize("arguments", [{"detector": nobody}, {"boxes": []}])
def test_an_image_without_persons_has_no_keypoints(model, photos, arguments):
    people = model.predict(str(photos / "a.jpg"), **arguments)
    assert people.keypoints.shape == (0, 17, 3) and people.scores.shape == (0,) and people.boxes.shape == (0, 4)


def test_an_image_is_rotated_by_its_exif_orientation(model, photos, tmp_path):
    upright = Image.open(photos / "b.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    # Stored turned to the left, to be turned to the right.
    path = tmp_path / "turned.jpg"
    upright.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif, quality=100, subsampling=0)
    people, expected = model.predict(path), model.predict(photos / "b.png")
    np.testing.assert_array_equal(people.boxes, [[0, 0, 120, 90]])
    np.testing.assert_allclose(people.keypoints, expected.keypoints, atol=1.0)
    # Boxes are for the pixels as stored, as COCO's are.
    stored = model.predict(path, [[0, 0, 90, 120]])
    assert np.abs(stored.keypoints - expected.keypoints).max() > 3


def test_image_formats_that_tensorflow_cannot_read(model, photos, tmp_path):
    picture = Image.open(photos / "b.png")
    expected = model.predict(photos / "b.png").keypoints
    for name, mode in (("palette.png", "P"), ("lossless.webp", "RGB"), ("bitmap.bmp", "RGB"), ("cmyk.jpg", "CMYK")):
        options = {"lossless": True} if name.endswith("webp") else {"quality": 100} if name.endswith("jpg") else {}
        picture.convert(mode, palette=Image.Palette.ADAPTIVE).save(tmp_path / name, **options)
        np.testing.assert_allclose(model.predict(tmp_path / name).keypoints, expected, atol=2.0, err_msg=name)


@pytest.mark.parametrize(
    "images, arguments, message",
    [
        (np.zeros((4, 5)), {}, r"float64 \[4, 5\]: give a file name or uint8"),
        ("none.jpg", {}, "none.jpg: no such image"),
        (np.zeros((9, 9, 3), np.uint8), {"boxes": [[1, 2, 3]]}, r"boxes must be \[N, 4\]"),
        (np.zeros((9, 9, 3), np.uint8), {"boxes": [[1, 2, 0, 3]]}, "no width"),
        (np.zeros((9, 9, 3), np.uint8), {"boxes": [[0, 0, 9, 9]], "detector": "none"}, "leave one of them out"),
        (np.zeros((9, 9, 3), np.uint8), {"detector": "yolo"}, "unknown detector 'yolo'"),
        (np.zeros((9, 9, 3), np.uint8), {"detector": lambda image: 3}, r"must return boxes \[N, 4\]"),
        ([np.zeros((9, 9, 3), np.uint8)], {"boxes": []}, "boxes for 0 images, and 1 images"),
    ],
)
def test_bad_arguments_are_one_clear_error(model, images, arguments, message):
    with pytest.raises(InputError, match=message) as caught:
        model.predict(images, **arguments)
    assert "\n" not in str(caught.value)


# Overlays.


def people_at(score, box=(20, 10, 60, 100), box_scores=None):
    points = np.stack([np.linspace(25, 75, 17), np.linspace(15, 105, 17), np.full(17, score)], axis=1)
    # The nose has another score: equal scores of all joints are not drawn as transparency.
    points[0, 2] = 1.0
    return People(points[None].astype(np.float32), np.float32([score]), np.float32([box]), box_scores)


def test_the_less_sure_the_fainter_and_below_the_threshold_not_at_all():
    grey = np.full((120, 100, 3), 128, np.uint8)
    bare = persons.draw_people(grey, people_at(0.0), skeletons.COCO).astype(int)
    change = [
        np.abs(persons.draw_people(grey, people_at(score), skeletons.COCO).astype(int) - bare).sum()
        for score in (0.1, 0.3, 0.6, 1.0)
    ]
    assert change[0] == 0 and 0 < change[1] < 0.35 * change[3] < change[2] < change[3]


def test_joints_that_a_model_does_not_tell_apart_are_not_faded():
    grey = np.full((120, 100, 3), 128, np.uint8)
    people = [people_at(score) for score in (0.1, 1.0)]
    people[0].keypoints[:, :, 2] = 0.1
    faint, sure = (persons.draw_people(grey, some, skeletons.COCO) for some in people)
    np.testing.assert_array_equal(faint, sure)


def test_detected_boxes_show_their_score_and_others_none():
    grey = np.full((120, 100, 3), 128, np.uint8)
    box = (20, 40, 60, 60)
    skeleton = skeletons.COCO
    given, detected = people_at(0.5, box), people_at(0.5, box, np.float32([0.5]))
    gap = persons.draw_people(grey, detected, skeleton) != persons.draw_people(grey, given, skeleton)
    np.testing.assert_array_equal(gap, persons.draw_box(grey, box, label="0.50") != persons.draw_box(grey, box))


# The command.


def test_images_are_given_with_or_without_their_flag(model_dir, photos, monkeypatch, capfd, tmp_path, caplog):
    caplog.set_level("INFO", logger="absl")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(detectors, "ssdlite_file", lambda: None)
    status, out, err = run(monkeypatch, capfd, "kpose.predict", "photos/a.jpg", f"--model={model_dir}", "photos/b.png")
    assert status == 0, err
    assert out == "" and "each whole image is one person's box" in caplog.text and detectors.INSTALL in caplog.text
    assert sorted(os.listdir("predictions")) == ["a.png", "b.png", "keypoints.json"]
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
    # In a process of its own, to see that TensorFlow's messages do not get into the pipe.
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
    files.predict(model_dir, paths, output_dir=str(tmp_path / "o"))
    assert sorted(os.listdir(tmp_path / "o")) == ["a.png", "a_2.png", "keypoints.json"]
    before = (photos / "b.png").read_bytes()
    with pytest.raises(InputError, match="b.png: the overlay would replace an input file"):
        files.predict(model_dir, str(photos / "b.png"), output_dir=str(photos))
    assert (photos / "b.png").read_bytes() == before
