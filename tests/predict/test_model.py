"""Prediction in Python: images, boxes, detectors, image formats, errors."""

import copy
import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import kpose
from kpose.core import skeletons
from kpose.core.errors import InputError
from kpose.predict import detectors, files


@pytest.fixture(scope="module")
def model(model_dir):
    return kpose.load(model_dir)


def nobody(image):
    return np.zeros((0, 4)), np.zeros(0)


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
    people = model.predict([str(photos / "a.jpg")], detector="none")[0]
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
    # Stored rotated by 90 degrees to the left; EXIF rotates it back.
    path = tmp_path / "turned.jpg"
    upright.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif, quality=100, subsampling=0)
    people, expected = (model.predict(image, detector="none") for image in (path, photos / "b.png"))
    np.testing.assert_array_equal(people.boxes, [[0, 0, 120, 90]])
    np.testing.assert_allclose(people.keypoints, expected.keypoints, atol=1.0)
    # Boxes are for the pixels as stored, as in COCO.
    stored = model.predict(path, [[0, 0, 90, 120]])
    assert np.abs(stored.keypoints - expected.keypoints).max() > 3


def test_image_formats_that_tensorflow_cannot_read(model, photos, tmp_path):
    picture = Image.open(photos / "b.png")
    expected = model.predict(photos / "b.png", detector="none").keypoints
    for name, mode in (("palette.png", "P"), ("lossless.webp", "RGB"), ("bitmap.bmp", "RGB"), ("cmyk.jpg", "CMYK")):
        options = {"lossless": True} if name.endswith("webp") else {"quality": 100} if name.endswith("jpg") else {}
        picture.convert(mode, palette=Image.Palette.ADAPTIVE).save(tmp_path / name, **options)
        np.testing.assert_allclose(
            model.predict(tmp_path / name, detector="none").keypoints, expected, atol=2.0, err_msg=name
        )


@pytest.mark.parametrize(
    "images, arguments, message",
    [
        (np.zeros((4, 5)), {}, r"float64 \[4, 5\]: say float_max=1"),
        ("none.jpg", {}, "none.jpg: no such image"),
        (np.zeros((9, 9, 3), np.uint8), {"boxes": [[1, 2, 3]]}, r"boxes must be \[N, 4\]"),
        (np.zeros((9, 9, 3), np.uint8), {"boxes": [[1, 2, 0, 3]]}, "no width"),
        (np.zeros((9, 9, 3), np.uint8), {"boxes": [[0, 0, 9, 9]], "detector": "none"}, "leave one of them out"),
        (np.zeros((9, 9, 3), np.uint8), {"detector": "yolo"}, "unknown detector 'yolo'"),
        (np.zeros((9, 9, 3), np.uint8), {"detector": 5}, "the detector is 5: give a name or a function"),
        (np.zeros((9, 9, 3), np.uint8), {"detector": lambda image: 3}, r"must return boxes \[N, 4\]"),
        ([np.zeros((9, 9, 3), np.uint8)], {"boxes": []}, "boxes for 0 images, and 1 images"),
    ],
)
def test_bad_arguments_are_one_clear_error(model, images, arguments, message):
    with pytest.raises(InputError, match=message) as caught:
        model.predict(images, **arguments)
    assert "\n" not in str(caught.value)


def test_a_person_detector_is_the_default_as_in_the_command(model_dir, photos, monkeypatch, left_half):
    monkeypatch.setattr(detectors, "get", lambda name, min_score=0.3: {"auto": left_half, "none": None}[name])
    model = kpose.load(model_dir)
    assert len(model.predict(photos / "a.jpg")) == 2
    assert len(model.predict(photos / "a.jpg", detector="none")) == 1
    assert len(model.predict(photos / "a.jpg", min_score=0.6, detector=left_half)) == 1
    assert len(kpose.load(model_dir, detector="none").predict(photos / "a.jpg")) == 1
    results = files.predict(model_dir, photos / "a.jpg", output_dir=None)
    assert results == model.predict(photos / "a.jpg").to_coco()


def test_the_detector_of_a_name_is_made_once(model_dir, photos, monkeypatch, left_half):
    made = []
    monkeypatch.setattr(detectors, "get", lambda *asked: made.append(asked) or left_half)
    model = kpose.load(model_dir)
    for score in (None, None, 0.5, 0.5):
        model.predict(photos / "a.jpg", min_score=score)
    assert made == [("auto", None), ("auto", 0.5)]


@pytest.mark.parametrize("kind", ["folder", "glob", "list", "batch"])
def test_several_images_give_a_list_also_of_one(model, photos, kind):
    (photos / "b.png").unlink()
    images = {"folder": photos, "glob": f"{photos}/*.jpg", "list": [photos / "a.jpg"]}.get(
        kind, np.asarray(Image.open(photos / "a.jpg"))[None]
    )
    (people,) = model.predict(images, detector="none")
    assert people.size == (120, 90) and len(people) == 1
    assert people.name == (str(photos / "a.jpg") if kind != "batch" else "image 1")


def test_a_damaged_image_among_several_is_logged_and_the_others_are_predicted(model, photos, caplog):
    caplog.set_level("INFO", logger="absl")
    (photos / "aa.jpg").write_text("no image")
    first, bad, last = model.predict(photos, detector="none")
    assert (len(first), len(bad), len(last)) == (1, 0, 1) and first.error is None
    assert bad.error.endswith("aa.jpg: not an image, or its format is not known") and bad.error in caplog.text
    assert "not read" in repr(bad)
    with pytest.raises(InputError, match="not an image"):
        model.predict(photos / "aa.jpg")
    with pytest.raises(InputError, match="none of the 1 images could be read: .*not an image"):
        model.predict([photos / "aa.jpg"])
    with pytest.raises(InputError, match="not an image"):
        bad.draw()


def test_the_people_of_a_file_are_drawn_as_they_were_predicted(model, photos, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.png"
    Image.open(photos / "b.png").save(path, exif=exif)
    assert model.predict(path, detector="none").draw().size == (90, 120)
    assert model.predict(path, boxes=[[0, 0, 120, 90]]).draw().size == (120, 90)


def test_floats_are_accepted_when_their_white_is_said(model, photos):
    pixels = np.asarray(Image.open(photos / "b.png"))
    expected = model.predict(pixels, detector="none").keypoints
    for white in (1, 255):
        people = model.predict(pixels.astype(np.float32) * (white / 255), detector="none", float_max=white)
        np.testing.assert_array_equal(people.keypoints, expected)
        assert people.draw().size == (120, 90)
        drawn = kpose.draw(pixels.astype(np.float32) * (white / 255), people, float_max=white)
        np.testing.assert_array_equal(drawn, people.draw())


def test_a_model_of_something_else_takes_the_whole_image_and_says_so(model, photos, monkeypatch, caplog):
    caplog.set_level("INFO", logger="absl")
    other = copy.copy(model)
    other.skeleton = dataclasses.replace(skeletons.COCO, name="hand")
    monkeypatch.setattr(type(other.skeleton), "is_person", property(lambda skeleton: skeleton.name != "hand"))
    other._named_detector = other._make_detector
    people = other.predict(photos / "a.jpg")
    np.testing.assert_array_equal(people.boxes, [[0, 0, 120, 90]])
    assert "the model predicts 'hand'" in caplog.text
    with pytest.raises(InputError, match="the detector 'ssdlite' finds persons"):
        other.predict(photos / "a.jpg", detector="ssdlite")
