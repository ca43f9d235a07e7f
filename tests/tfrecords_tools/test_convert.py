"""Labels of other tools become COCO keypoint files with the same joints, boxes and images."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO

from kpose.core.errors import InputError
from tests import helpers
from tests.tfrecords_tools import converter_inputs as inputs
from tests.tfrecords_tools import label_files as tools
from tests.tfrecords_tools.label_files import JOINTS
from tfrecords_tools.convert.options import ConvertOptions, joint_names


# One writer a format; each returns (source, images, what the format can hold).
def _yolo(tmp_path, truth):
    return tools.yolo(tmp_path / "set", truth), "", {}


def _labelstudio(tmp_path, truth):
    return tools.labelstudio(tmp_path / "export.json", truth), tools.photo_folder(tmp_path, truth), {"occlusion": False}


def _labelstudio_relations(tmp_path, truth):
    source = tools.labelstudio(tmp_path / "export.json", truth, link="relation")
    return source, tools.photo_folder(tmp_path, truth), {"occlusion": False}


def _labelme(tmp_path, truth):
    tools.photo_folder(tmp_path, truth)
    return tools.labelme(tmp_path / "labels", truth), str(tmp_path), {}


def _cvat(tmp_path, truth):
    return tools.cvat(tmp_path / "annotations.xml", truth), tools.photo_folder(tmp_path, truth), {}


def _cvat_without_boxes(tmp_path, truth):
    return (
        tools.cvat(tmp_path / "annotations.xml", truth, boxes=False),
        tools.photo_folder(tmp_path, truth),
        {"boxes": False},
    )


def _cvat_points(tmp_path, truth):
    return tools.cvat(tmp_path / "annotations.xml", truth, skeletons=False), tools.photo_folder(tmp_path, truth), {}


def _deeplabcut(tmp_path, truth):
    return tools.deeplabcut(tmp_path / "project", truth), "", {"boxes": False, "occlusion": False}


def _deeplabcut_split_path(tmp_path, truth):
    source = tools.deeplabcut(tmp_path / "project", truth, split_path=True)
    return source, "", {"boxes": False, "occlusion": False}


WRITERS = (
    _yolo,
    _labelstudio,
    _labelstudio_relations,
    _labelme,
    _cvat,
    _cvat_without_boxes,
    _cvat_points,
    _deeplabcut,
    _deeplabcut_split_path,
)


def _kind(writer):
    return writer.__name__.split("_")[1]


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.__name__)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(counts=st.lists(st.integers(1, 2), min_size=1, max_size=4), seed=st.integers(0, 999))
def test_the_labels_of_a_tool_are_kept(writer, tmp_path_factory, counts, seed):
    tmp_path = tmp_path_factory.mktemp("labels")
    truth = tools.photos(counts, seed)
    source, images, holds = writer(tmp_path, truth)
    order = list(JOINTS)
    if _kind(writer) in ("labelstudio", "labelme"):
        # Their files do not list the joints: the order is given.
        data, _ = tools.convert(_kind(writer), source, tmp_path, images=images, joints=tuple(order))
    else:
        data, _ = tools.convert(_kind(writer), source, tmp_path, images=images)
    tools.check(data, truth, **holds)


def test_pycocotools_reads_the_file(tmp_path, capsys):
    truth = tools.photos()
    source, _, _ = _yolo(tmp_path, truth)
    tools.convert("yolo", source, tmp_path)
    dataset = COCO(str(tmp_path / "made.json"))
    assert [len(dataset.getAnnIds(imgIds=[number])) for number in dataset.getImgIds()] == [1, 2, 1]
    assert dataset.loadCats(1)[0]["name"] == "mouse"


def test_missing_images_stop_or_are_skipped(tmp_path):
    truth = tools.photos()
    images = tools.photo_folder(tmp_path, truth)
    os.remove(os.path.join(images, "img002.png"))
    source = tools.cvat(tmp_path / "a.xml", truth)
    with pytest.raises(InputError, match=r"1 of 3 images are missing; the first is img002.png .*--on_missing=skip"):
        tools.convert("cvat", source, tmp_path, images=images)
    assert not (tmp_path / "made.json").exists()
    data, lines = tools.convert("cvat", source, tmp_path, images=images, on_missing="skip")
    tools.check(data, {name: animals for name, animals in truth.items() if name != "img002.png"})
    assert "left out: 1 images that are missing, the first is img002.png" in lines
    with pytest.raises(InputError, match="3 of 3 images are missing; .*give their folder with --images"):
        tools.convert("cvat", source, tmp_path, images=tools.paint(tmp_path / "others", ["x.png"]))


def test_images_of_another_size_are_an_error(tmp_path):
    truth = tools.photos((1,))
    source = tools.cvat(tmp_path / "a.xml", truth)
    images = tools.paint(tmp_path / "photos", truth, size=(80, 60))
    with pytest.raises(InputError, match="img001.png: the image has 80 x 60 pixels, but its labels are for 160 x 120"):
        tools.convert("cvat", source, tmp_path, images=images)


def test_pixel_offset_says_what_the_coordinates_are(tmp_path):
    truth = tools.photos((1,))
    source = tools.yolo(tmp_path / "set", truth)
    corner, indices = (tools.convert("yolo", source, tmp_path, pixel_offset=offset)[0] for offset in (0, 0.5))
    rows = [np.reshape(data["annotations"][0]["keypoints"], (-1, 3)) for data in (corner, indices)]
    labelled = rows[0][:, 2] > 0
    np.testing.assert_allclose(rows[1][labelled, :2] - rows[0][labelled, :2], 0.5, atol=2e-3)


def test_csv_and_lsp_are_formats(tmp_path):
    images = tools.paint(tmp_path / "photos", ["a.png"])
    table = tmp_path / "t.csv"
    table.write_text("file_name,nose_x,nose_y,tail x_x,tail x_y,tail x_v\na.png,1,2,30,40,1\ngone.png,1,2,3,4,2\n")
    with pytest.raises(InputError, match="line 3, column file_name: .*gone.png"):
        tools.convert("csv", table, tmp_path, images=images)
    data, lines = tools.convert("csv", table, tmp_path, images=images, on_missing="skip", category="mouse")
    assert data["categories"][0]["keypoints"] == ["nose", "tail x"] and data["categories"][0]["name"] == "mouse"
    assert data["annotations"][0]["keypoints"] == [1, 2, 2, 30, 40, 1]
    assert lines[-1] == "left out: 1 persons whose image is missing; gone.png"
    table.write_text("file_name,age\na.png,1\n")
    with pytest.raises(InputError, match="line 1: no column names a joint"):
        tools.convert("csv", table, tmp_path, images=images)
    scipy_io = pytest.importorskip("scipy.io")
    points, marks = inputs.persons(2)
    scipy_io.savemat(
        tmp_path / "joints.mat", {"joints": np.concatenate([points, marks[..., None]], -1).transpose(2, 1, 0)}
    )
    images = inputs.photos(tmp_path / "lsp", ["im0001.jpg", "im0002.jpg"])
    data, _ = tools.convert("lsp", tmp_path / "joints.mat", tmp_path, images=images, first=2)
    assert [image["file_name"] for image in data["images"]] == ["im0002.jpg"]
    np.testing.assert_allclose(
        np.reshape(data["annotations"][0]["keypoints"], (14, 3))[:, :2], points[1] - 0.5, atol=1e-6
    )


def test_joint_names_from_files(tmp_path):
    (tmp_path / "labels.txt").write_text("__ignore__\n_background_\nnose\ntail base\n", encoding="utf-8")
    assert joint_names([str(tmp_path / "labels.txt")]) == ("nose", "tail base")
    (tmp_path / "config.xml").write_text(
        '<View><Image name="i" value="$image"/><KeyPointLabels name="kp" toName="i"><Label value="nose"/>'
        '<Label value="尾"/></KeyPointLabels><RectangleLabels name="b" toName="i"><Label value="mouse"/>'
        "</RectangleLabels></View>",
        encoding="utf-8",
    )
    assert joint_names([str(tmp_path / "config.xml")]) == ("nose", "尾")
    assert joint_names(["a", "b"]) == ("a", "b") and joint_names(["hand"]) == ("hand",)
    assert joint_names(["coco"])[:2] == ("nose", "left_eye")
    (tmp_path / "mouse.json").write_text('{"joints": ["nose", "tail base"]}')
    assert joint_names([str(tmp_path / "mouse.json")]) == ("nose", "tail base")
    (tmp_path / "config.xml").write_text("<View/>")
    with pytest.raises(InputError, match="config.xml: it names no joints"):
        joint_names([str(tmp_path / "config.xml")])


@pytest.mark.parametrize(
    ("kind", "old", "new", "complaint"),
    [
        ("yolo", "kpt_shape: [5, 3]", "kpt_shape: 5", r"data.yaml: kpt_shape is 5: a pose data set has \[number"),
        ("yolo", "kpt_shape: [5, 3]", "kpt_shape: [4, 3]", "flip_idx is .*: it must exchange pairs of the 4 joints"),
        ("yolo", "flip_idx: [0, 2, 1, 3, 4]", "flip_idx: [1, 2, 0, 3, 4]", "it must exchange pairs of the 5 joints"),
        ("yolo", "    - nose\n", "", "kpt_names of class 0 must be a list of 5 names"),
        ("yolo", "- nose", "- left_ear", "the joint name 'left_ear' occurs 2 times"),
        ("yolo", "names:\n  0: mouse", "names:\n  1: mouse", "line 1: 0 is not a class of data.yaml, which has"),
        ("yolo", "images/train", "images/none", "images/none is no folder of images and no list"),
        ("yolo", "path: .", "path: [", "data.yaml: not YAML"),
        ("labelstudio", '"annotations": [{', '"annotations": [1, {', "task 1: its annotations are not complete"),
        ("labelstudio", '"x": ', '"x": "a", "_": ', "task 1, result box0: x, y, width, height must be numbers"),
        ("labelstudio", '"original_width": 160', '"original_width": -1', "the image's size is -1 x 120"),
        ("labelstudio", "[", "", "export.json: the export of Label Studio is not JSON"),
        ("labelme", '"label": "nose"', '"label": null', "img001.json: shape 2: it has no label"),
        ("labelme", '"points": [[', '"points": [["a", ', "img001.json: shape 1: its points are"),
        ("labelme", '"label": "nose"', '"label": "left_ear"', "img001.json: a person has two points 'left_ear'"),
        ("labelme", '"imagePath": ', '"imagePath": 3, "_": ', "img001.json: imagePath is 3"),
        ("cvat", "<image ", "<track ", "not XML"),
        ("cvat", "</annotations>", "<track/></annotations>", "not 'CVAT for images 1.1': choose this format"),
        ("cvat", '<points label="nose"', '<points label="left_ear"', "image img001.png: a person has two points"),
        ("cvat", "xtl=", "left=", "image img001.png: a <box> has no numbers xtl"),
        ("cvat", 'points="', 'points="a,', "image img001.png: points 'a,.* of 'nose' are not x,y"),
        ("deeplabcut", "scorer,", "who,", "its first rows must begin with scorer, bodyparts and coords"),
        ("deeplabcut", "coords,x,y", "coords,x,likelihood", "it has likelihoods: these are predictions"),
        ("deeplabcut", "coords,x,y", "coords,x,x", "the bodypart 'mouse1 nose' needs one column x and one column y"),
        ("deeplabcut", "scorer,Ed", "scorer,Al", "labels of 2 scorers, Al, Ed"),
        ("deeplabcut", "img001.png,", "img001.png,a,", "row 5 has 22 cells, but the row coords has 21"),
    ],
)
def test_bad_labels_are_one_line_and_write_nothing(kind, old, new, complaint, tmp_path):
    truth = tools.photos((1, 1, 1))
    writer = {"yolo": _yolo, "labelstudio": _labelstudio, "labelme": _labelme, "cvat": _cvat, "deeplabcut": _deeplabcut}
    source, images, _ = writer[kind](tmp_path, truth)
    path = pathlib.Path(source) / "img001.json" if kind == "labelme" else pathlib.Path(source)
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(InputError, match=complaint) as error:
        tools.convert(kind, source, tmp_path, images=images)
    helpers.one_line(error)
    assert not (tmp_path / "made.json").exists()


@pytest.mark.parametrize(
    ("kind", "options", "complaint"),
    [
        ("cvat", {"split": "val"}, "--split is for --from=yolo, not for --from=cvat"),
        ("lsp", {"joints": ("a",)}, "--joints is for --from=yolo or"),
        ("csv", {}, "--images is missing: --from=csv needs"),
        ("cvat", {"pixel_offset": 1.0}, "--pixel_offset=1: give 0"),
        ("cvat", {"margin": -1}, "--margin=-1"),
        ("coco", {}, "--from is one of yolo"),
    ],
)
def test_options_are_checked_first(kind, options, complaint):
    with pytest.raises(InputError, match=complaint):
        ConvertOptions(kind, "x", "out.json", **options)


@pytest.mark.parametrize("kind", ["yolo", "labelstudio", "labelme", "cvat", "deeplabcut"])
def test_a_missing_source_is_one_line(kind, tmp_path):
    with pytest.raises(InputError, match="none") as error:
        tools.convert(kind, tmp_path / "none", tmp_path)
    helpers.one_line(error)


def test_one_and_five_hundred_joints(tmp_path):
    images = tools.paint(tmp_path / "photos", ["a.png"])
    for count in (1, 500):
        rng = np.random.default_rng(count)
        xy = np.round(rng.uniform(5, 100, (count, 2)), 2)
        shapes = [
            {"label": f"点 {k}", "shape_type": "point", "points": [list(p)], "group_id": 1} for k, p in enumerate(xy)
        ]
        shapes.append({"label": "hand", "shape_type": "rectangle", "points": [[0, 0], [110, 110]], "group_id": 1})
        (tmp_path / "a.json").write_text(json.dumps({"shapes": shapes, "imagePath": "a.png"}))
        data, _ = tools.convert("labelme", tmp_path / "a.json", tmp_path, images=images)
        assert data["categories"][0]["keypoints"] == [f"点 {k}" for k in range(count)]
        found = np.reshape(data["annotations"][0]["keypoints"], (count, 3))
        np.testing.assert_allclose(found[:, :2], xy - 0.5, atol=1e-6)


def test_command_convert(tmp_path):
    source = tools.yolo(tmp_path / "set", tools.photos())
    arguments = ["--from=yolo", f"--input={source}", f"--output={tmp_path / 'out.json'}"]
    done = inputs.run("convert", *arguments)
    assert done.returncode == 0 and done.stderr == "" and "3 images, 4 persons" in done.stdout
    assert f"write_coco --images={tmp_path}/set" in done.stdout
    (tmp_path / "out.json").unlink()
    done = inputs.run("convert", *arguments, "--split=test")
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and "no split 'test'" in done.stderr
    assert not (tmp_path / "out.json").exists()
    done = inputs.run("convert", "--from=yolo", f"--input={source}")
    assert done.returncode == 1 and "--output is missing" in done.stderr


def test_the_command_does_not_load_tensorflow():
    code = "import sys, tfrecords_tools.convert.__main__; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
