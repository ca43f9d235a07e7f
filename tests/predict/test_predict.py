"""Prediction in Python and by the command: images, folders, videos and pipes."""

import fractions
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
from kpose.export import saved_model
from kpose.predict import detectors, files, videos
from kpose.predict.boxes import read_boxes
from kpose.predict.model import People
from tests import helpers
from tests.core.test_cli import run


@pytest.fixture(scope="module")
def model_dir(tiny_run, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("serving"))
    saved_model.export(tiny_run, folder)
    return folder


@pytest.fixture(scope="module")
def model(model_dir):
    return kpose.load(model_dir)


@pytest.fixture
def photos(tmp_path):
    """A folder with two images of 120 x 90 pixels."""
    folder = tmp_path / "photos"
    folder.mkdir()
    random = np.random.default_rng(0)
    for name in ("a.jpg", "b.png"):
        pixels = random.integers(0, 256, (9, 12, 3), np.uint8).repeat(10, 0).repeat(10, 1)
        Image.fromarray(pixels).save(folder / name)
    return folder


def left_half(image):
    """A detector that finds a person in the left half and, with a lower score, one in the right half."""
    height, width = image.shape[:2]
    return [[0, 0, width // 2, height], [width // 2, 0, width // 2, height]], [0.9, 0.5]


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


def test_detected_boxes_are_sorted_by_score_and_their_scores_are_multiplied(model, photos):
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
        (np.zeros((9, 9, 3), np.uint8), {"detector": "yolo"}, "no detector 'yolo'"),
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


# Files of boxes.


def _write(path, data):
    path.write_text(json.dumps(data))
    return str(path)


def test_other_categories_and_low_scores_of_a_detections_file_are_skipped(tmp_path):
    entries = [
        {"image_id": 7, "category_id": category, "bbox": [i, 0, 5, 5], "score": score}
        for i, (category, score) in enumerate([(1, 0.9), (18, 0.9), (1, 0.1), (1, 0.5)])
    ]
    entries.append({"image_id": 7, "bbox": [4, 0, 5, 5]})
    found = read_boxes(_write(tmp_path / "boxes.json", entries), ["x/0007.jpg"], 0.3)
    assert [(person.box[0], person.score) for person in found] == [(0, 0.9), (3, 0.5), (4, None)]
    named = {
        "images": [{"id": 7, "file_name": "0007.jpg"}],
        "categories": [{"id": 18, "name": "person"}, {"id": 1, "name": "dog"}],
        "annotations": entries[:2],
    }
    found = read_boxes(_write(tmp_path / "named.json", named), ["x/0007.jpg"])
    assert [person.box[0] for person in found] == [1]


@pytest.mark.parametrize(
    "data, message",
    [
        (
            [{"image_id": 1, "category_id": 18, "bbox": [0, 0, 5, 5]}],
            "none of its 1 boxes for these images is of a person .category 1.",
        ),
        ([{"image_id": 1, "category_id": 1, "score": 0.1, "bbox": [0, 0, 5, 5]}], "lower --min_score"),
        ([{"image_id": 1, "score": "high", "bbox": [0, 0, 5, 5]}], "nor detection results"),
        ([3], "nor detection results"),
        (
            {"images": [{"id": 1}], "annotations": [{"image_id": 1, "bbox": [0, 0, 5, 5]}]},
            "lacks the field 'file_name'",
        ),
    ],
)
def test_bad_box_files_are_one_clear_error(tmp_path, data, message):
    with pytest.raises(InputError, match=message) as error:
        read_boxes(_write(tmp_path / "boxes.json", data), ["1.jpg"], 0.3)
    helpers.one_line(error)


def test_equal_names_in_two_folders_are_resolved_by_the_folder_or_refused(tmp_path):
    paths = ["a/1.jpg", "b/1.jpg"]
    box = {"image_id": 5, "bbox": [0, 0, 5, 5]}
    with_folder = {"images": [{"id": 5, "file_name": "b/1.jpg"}], "annotations": [box]}
    assert read_boxes(_write(tmp_path / "boxes.json", with_folder), paths)[0].path == "b/1.jpg"
    for data in ({"images": [{"id": 5, "file_name": "1.jpg"}], "annotations": [box]}, [box | {"image_id": 1}]):
        with pytest.raises(InputError, match=r"a box fits both a/1.jpg and b/1.jpg"):
            read_boxes(_write(tmp_path / "boxes.json", data), paths)


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


def test_the_detector_is_made_with_its_name_and_min_score(model_dir, photos, monkeypatch, tmp_path, caplog):
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


# Videos.

FRAMES, RATE = 7, fractions.Fraction(10)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """A video of 7 frames of 64 x 48 pixels, each a little brighter."""
    pytest.importorskip("av", reason="videos need the package av")
    stem = str(tmp_path_factory.mktemp("film") / "film")
    with videos.writing(stem, (64, 48), RATE) as add:
        for number in range(1, FRAMES + 1):
            add(number, np.full((48, 64, 3), 30 * number, np.uint8))
    return f"{stem}.mp4"


def test_every_n_th_frame_has_its_number_and_its_pixels(film):
    with videos.Video(film) as video:
        assert video.rate == RATE and video.length == FRAMES
        frames = list(video.frames(every=3))
    assert [number for number, _ in frames] == [1, 4, 7]
    for number, picture in frames:
        assert picture.shape == (48, 64, 3) and abs(int(picture.mean()) - 30 * number) < 4


def test_frames_are_rotated_as_the_file_says(tmp_path):
    pytest.importorskip("av", reason="videos need the package av")
    path = tmp_path / "upright.mp4"
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:, 32:] = 200
    with videos.writing(str(path.with_suffix("")), (64, 48), RATE) as add:
        add(1, picture)
    # The header of the track holds a rotation matrix: replace the identity by 90 degrees clockwise.
    one, minus_one, last = b"\0\1\0\0", b"\xff\xff\0\0", b"\x40\0\0\0"
    none, right = (one, 0, 0, 0, one, 0, 0, 0, last), (0, one, 0, minus_one, 0, 0, 0, 0, last)
    data = path.read_bytes()
    start = data.index(b"tkhd")
    none, right = (b"".join(number or bytes(4) for number in matrix) for matrix in (none, right))
    path.write_bytes(data[:start] + data[start:].replace(none, right, 1))
    with videos.Video(str(path)) as video:
        _, turned = next(video.frames())
    assert turned.shape == (64, 48, 3) and turned[:24].mean() < 20 and turned[-24:].mean() > 180


def test_a_video_that_is_cut_short_ends_there(tmp_path):
    av = pytest.importorskip("av", reason="videos need the package av")
    path = tmp_path / "short.mkv"
    random = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(40):
            frame = av.VideoFrame.from_ndarray(random.integers(0, 256, (48, 64, 3), np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    data = path.read_bytes()
    # The end is missing, and there are zeros in the middle.
    path.write_bytes(data[: len(data) // 2] + bytes(200) + data[len(data) // 2 + 200 : len(data) * 3 // 4])
    with videos.Video(str(path)) as video:
        numbers = [number for number, _ in video.frames()]
    assert 10 <= len(numbers) < 40 and numbers == list(range(1, len(numbers) + 1))


def test_the_results_of_a_video_are_a_video_and_keypoints_by_frame(model_dir, film, tmp_path):
    results = files.predict(model_dir, film, output_dir=str(tmp_path), every=2, detector=left_half)
    assert [r["image_id"] for r in results] == [1, 1, 3, 3, 5, 5, 7, 7] and results[0]["file_name"] == film
    assert sorted(os.listdir(tmp_path)) == ["film.mp4", "keypoints.json"]
    with videos.Video(str(tmp_path / "film.mp4")) as overlay:
        assert overlay.rate == RATE / 2
        pictures = [picture for _, picture in overlay.frames()]
    assert len(pictures) == 4 and pictures[0].shape == (48, 64, 3)
    assert np.ptp(pictures[0].astype(int), axis=(0, 1)).max() > 50, "something is drawn"


def test_without_an_encoder_the_frames_are_written_as_images(model_dir, film, tmp_path, monkeypatch):
    monkeypatch.setattr(videos, "ENCODERS", {"no_such_encoder": {}})
    files.predict(model_dir, film, output_dir=str(tmp_path), every=3)
    assert sorted(os.listdir(tmp_path / "film")) == ["000001.png", "000004.png", "000007.png"]
    assert not os.path.exists(tmp_path / "film.mp4")


def test_videos_with_odd_sides_can_be_written(tmp_path):
    pytest.importorskip("av", reason="videos need the package av")
    with videos.writing(str(tmp_path / "odd"), (65, 49), RATE) as add:
        add(1, np.zeros((49, 65, 3), np.uint8))
    with videos.Video(str(tmp_path / "odd.mp4")) as video:
        assert next(video.frames())[1].shape == (48, 64, 3)


def test_an_error_in_a_video_leaves_no_incomplete_overlay(model_dir, film, tmp_path):
    seen = []

    def fails_later(image):
        seen.append(image)
        return left_half(image) if len(seen) < 3 else None

    with pytest.raises(InputError, match="must return boxes"):
        files.predict(model_dir, film, output_dir=str(tmp_path), detector=fails_later)
    assert os.listdir(tmp_path) == []


def test_bad_videos_are_one_clear_error(model_dir, film, photos, tmp_path, monkeypatch):
    broken = tmp_path / "broken.mp4"
    broken.write_text("no video")
    boxes = tmp_path / "boxes.json"
    boxes.write_text("[]")
    for path, box_file, message in (
        (str(broken), None, "broken.mp4: cannot be read as a video"),
        (film, str(boxes), "--boxes are for images"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            files.predict(model_dir, path, box_file, str(tmp_path / "o"))
        assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match=r"pip install av \(or pip install '.\[video\]' in a checkout\)"):
        files.predict(model_dir, film, output_dir=str(tmp_path / "o"))
