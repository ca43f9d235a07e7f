"""Labels of other tools become COCO keypoint files with the same joints, boxes and images."""

import json
import os
import pathlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO

from kpose.core.errors import InputError
from tests import helpers
from tests.tfrecords_tools import converter_inputs as inputs
from tests.tfrecords_tools import label_files as tools
from tests.tfrecords_tools.label_files import BONES, JOINTS, SIZE
from tfrecords_tools.convert import formats
from tfrecords_tools.convert.options import ConvertOptions, joint_names


def _convert(kind, source, tmp_path, **options):
    output = tmp_path / "made.json"
    lines = formats.convert(ConvertOptions(kind, str(source), str(output), **options))
    return json.loads(output.read_text()), lines


def _check(data, truth, boxes=True, occlusion=True, joints=JOINTS):
    """The file has the animals of `truth`, in its order: joints as pixel indices, boxes in pixels."""
    (category,) = data["categories"]
    assert category["keypoints"] == list(joints)
    names = {image["id"]: os.path.basename(image["file_name"]) for image in data["images"]}
    assert all((image["width"], image["height"]) == SIZE for image in data["images"])
    expected = [(name, animal) for name, animals in truth.items() for animal in animals]
    assert [names[row["image_id"]] for row in data["annotations"]] == [name for name, _ in expected]
    for row, (_, animal) in zip(data["annotations"], expected, strict=True):
        found = np.reshape(row["keypoints"], (-1, 3))
        wanted = np.array(animal.joints)
        if not occlusion:
            wanted[:, 2] = np.where(wanted[:, 2] > 0, 2, 0)
        wanted[wanted[:, 2] > 0, :2] -= 0.5
        np.testing.assert_allclose(found, wanted, atol=2e-3)
        if boxes:
            np.testing.assert_allclose(row["bbox"], animal.box, atol=2e-3)
        else:
            x, y, w, h = row["bbox"]
            seen = np.array(animal.joints)[animal.joints[:, 2] > 0, :2]
            assert (seen >= (x - 0.1, y - 0.1)).all() and (seen <= (x + w + 0.1, y + h + 0.1)).all()


def _photos(tmp_path, truth):
    return tools.paint(tmp_path / "photos", truth)


# One writer a format; each returns (source, images, what the format can hold).
def _yolo(tmp_path, truth):
    return tools.yolo(tmp_path / "set", truth), "", {}


def _labelstudio(tmp_path, truth):
    return tools.labelstudio(tmp_path / "export.json", truth), _photos(tmp_path, truth), {"occlusion": False}


def _labelstudio_relations(tmp_path, truth):
    source = tools.labelstudio(tmp_path / "export.json", truth, link="relation")
    return source, _photos(tmp_path, truth), {"occlusion": False}


def _labelme(tmp_path, truth):
    _photos(tmp_path, truth)
    return tools.labelme(tmp_path / "labels", truth), str(tmp_path), {}


def _cvat(tmp_path, truth):
    return tools.cvat(tmp_path / "annotations.xml", truth), _photos(tmp_path, truth), {}


def _cvat_without_boxes(tmp_path, truth):
    return tools.cvat(tmp_path / "annotations.xml", truth, boxes=False), _photos(tmp_path, truth), {"boxes": False}


def _cvat_points(tmp_path, truth):
    return tools.cvat(tmp_path / "annotations.xml", truth, skeletons=False), _photos(tmp_path, truth), {}


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
        data, _ = _convert(_kind(writer), source, tmp_path, images=images, joints=tuple(order))
    else:
        data, _ = _convert(_kind(writer), source, tmp_path, images=images)
    _check(data, truth, **holds)


def test_pycocotools_reads_the_file(tmp_path, capsys):
    truth = tools.photos()
    source, _, _ = _yolo(tmp_path, truth)
    _convert("yolo", source, tmp_path)
    dataset = COCO(str(tmp_path / "made.json"))
    assert [len(dataset.getAnnIds(imgIds=[number])) for number in dataset.getImgIds()] == [1, 2, 1]
    assert dataset.loadCats(1)[0]["name"] == "mouse"


def test_yolo_pairs_go_into_the_category(tmp_path):
    data, _ = _convert("yolo", tools.yolo(tmp_path / "set", tools.photos()), tmp_path)
    assert data["categories"][0]["flip_idx"] == tools.FLIP
    assert [image["file_name"] for image in data["images"]] == [f"images/train/img00{n}.png" for n in (1, 2, 3)]


def test_yolo_without_names_numbers_the_joints_and_says_so(tmp_path):
    truth = tools.photos()
    source = tools.yolo(tmp_path / "set", truth, named=False)
    data, lines = _convert("yolo", source, tmp_path)
    _check(data, truth, joints=[f"point_{k}" for k in range(1, 6)])
    assert any("has no kpt_names: the joints are named point_1 to point_5" in line for line in lines)
    data, lines = _convert("yolo", source, tmp_path, joints=JOINTS)
    _check(data, truth)
    assert not any("kpt_names" in line for line in lines)
    with pytest.raises(InputError, match="--joints names 2 joints, but kpt_shape of .*data.yaml has 5"):
        _convert("yolo", source, tmp_path, joints=("a", "b"))


def test_yolo_joints_of_two_numbers_are_visible_unless_at_the_corner(tmp_path):
    truth = tools.photos()
    data, lines = _convert("yolo", tools.yolo(tmp_path / "set", truth, dimensions=2), tmp_path)
    _check(data, truth, occlusion=False)
    zeros = sum(int((animal.joints[:, 2] == 0).sum()) for animals in truth.values() for animal in animals)
    assert zeros and any(f"changed: {zeros} joints at 0, 0 without visibility" in line for line in lines)


def test_yolo_splits_and_layouts(tmp_path):
    train, val = tools.photos(seed=1), tools.photos((2,), seed=2)
    tools.yolo(tmp_path / "set", train)
    source = tools.yolo(tmp_path / "set", val, split="val")
    _check(_convert("yolo", source, tmp_path)[0], train)
    _check(_convert("yolo", source, tmp_path, split="val")[0], val)
    with pytest.raises(InputError, match="no split 'test': its splits are train, val"):
        _convert("yolo", source, tmp_path, split="test")
    text = pathlib.Path(source).read_text()
    # The folder of the data set as `path`, as in Ultralytics' own files; a list of images; Roboflow's paths.
    (tmp_path / "set" / "list.txt").write_text(
        "./images/train/img001.png\n./images/train/img002.png\n./images/train/img003.png\n"
    )
    for changed in (
        text.replace("path: .", "path: set"),
        text.replace("path: .\n", ""),
        text.replace("path: .", "path: ../somewhere/else"),
        text.replace("train: images/train", "train: list.txt"),
        text.replace("train: images/train", "train: [images/train]"),
        text.replace("path: .\n", "").replace("train: images/train", "train: ../images/train"),
    ):
        pathlib.Path(source).write_text(changed)
        _check(_convert("yolo", source, tmp_path)[0], train)
    _check(_convert("yolo", tmp_path / "set", tmp_path)[0], train)


def test_yolo_backgrounds_and_repeated_lines_are_counted(tmp_path):
    truth = tools.photos()
    source = tools.yolo(tmp_path / "set", truth)
    tools.paint(tmp_path / "set" / "images" / "train", ["empty.png"])
    labels = tmp_path / "set" / "labels" / "train" / "img001.txt"
    labels.write_text(labels.read_text() * 2)
    data, lines = _convert("yolo", source, tmp_path)
    _check(data, truth)
    assert "left out: 1 lines that repeat another line of their file; 1 images without a person" in lines
    (tmp_path / "set" / "images" / "train" / "img002.png").unlink()
    with pytest.raises(InputError, match="img002.txt: the image of these labels is missing"):
        _convert("yolo", source, tmp_path)
    data, lines = _convert("yolo", source, tmp_path, on_missing="skip")
    assert len(data["annotations"]) == 2 and any("1 files of labels whose image is missing" in line for line in lines)


def test_yolo_classes(tmp_path):
    truth = tools.photos()
    source = tools.yolo(tmp_path / "set", truth, names="names: [mouse, rat]\n")
    labels = tmp_path / "set" / "labels" / "train" / "img001.txt"
    labels.write_text("1" + labels.read_text()[1:])
    with pytest.raises(
        InputError, match=r"persons of 2 categories: rat \(1\), mouse \(3\): choose one with --category"
    ):
        _convert("yolo", source, tmp_path)
    data, lines = _convert("yolo", source, tmp_path, category="mouse")
    _check(data, {name: animals for name, animals in truth.items() if name != "img001.png"})
    assert data["categories"][0]["name"] == "mouse"
    assert "left out: 1 persons of category 'rat'; 1 images without a person" in lines
    with pytest.raises(InputError, match="--category=cat: no person has this category: there are rat, mouse"):
        _convert("yolo", source, tmp_path, category="cat")


def test_turned_images_have_the_size_that_viewers_show(tmp_path):
    source = tools.yolo(tmp_path / "set", tools.photos((1,)))
    image = Image.new("RGB", (SIZE[1], SIZE[0]))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "set" / "images" / "train" / "img001.png", "JPEG", exif=exif)
    _check(_convert("yolo", source, tmp_path)[0], tools.photos((1,)))


def test_label_studio_minimal_takes_the_box_around_the_points(tmp_path):
    truth = tools.photos((1, 1, 1))
    source = tools.labelstudio_minimal(tmp_path / "minimal.json", truth)
    data, _ = _convert("labelstudio", source, tmp_path, images=_photos(tmp_path, truth), joints=JOINTS)
    _check(data, truth, occlusion=False)
    apart = [tools.Animal(np.array([[10.0, 10, 2], [20, 20, 2]] + [[0, 0, 0]] * 3), (5, 5, 30, 30))]
    apart += [tools.Animal(np.array([[90.0, 80, 2], [99, 95, 2]] + [[0, 0, 0]] * 3), (80, 70, 30, 30))]
    source = tools.labelstudio_minimal(tmp_path / "minimal.json", {"img001.png": apart})
    data, _ = _convert("labelstudio", source, tmp_path, images=_photos(tmp_path, truth), joints=JOINTS)
    _check(data, {"img001.png": apart}, occlusion=False)


def test_label_studio_without_boxes_is_one_person_an_image(tmp_path):
    truth = tools.photos((1, 1))
    source = tools.labelstudio(tmp_path / "export.json", truth, link="", boxes=False)
    data, _ = _convert("labelstudio", source, tmp_path, images=_photos(tmp_path, truth), joints=JOINTS)
    _check(data, truth, boxes=False, occlusion=False)
    assert data["categories"][0]["name"] == "person"
    data, _ = _convert(
        "labelstudio", source, tmp_path, images=str(tmp_path / "photos"), category="mouse", joints=JOINTS
    )
    assert data["categories"][0]["name"] == "mouse"
    source = tools.labelstudio(tmp_path / "export.json", tools.photos((2,)), link="", boxes=False)
    with pytest.raises(InputError, match="task 1: a person has two points 'nose': in Label Studio, put each person's"):
        _convert("labelstudio", source, tmp_path, images=str(tmp_path / "photos"))


def test_label_studio_counts_annotators_predictions_and_other_regions(tmp_path):
    truth = tools.photos((1, 1, 1, 1))
    names = list(truth)
    tasks = [tools.task(n, name, tools.results(truth[name])) for n, name in enumerate(names, 1)]
    other = tools.results(tools.animals(1, 99))
    tasks[0]["annotations"].append({"id": 7, "result": other, "was_cancelled": False})
    tasks[0]["predictions"] = [{"result": other, "model_version": "m"}]
    tasks[1]["annotations"].insert(0, {"id": 8, "result": other, "was_cancelled": True})
    tasks[1]["annotations"][1]["result"].append(tools._region("x", "rectanglelabels", {}) | {"type": "choices"})
    tasks[2]["annotations"] = [{"result": [], "was_cancelled": True}]
    # An annotation that is marked as right comes before the first.
    tasks[3]["annotations"].insert(0, {"id": 9, "result": other, "was_cancelled": False})
    tasks[3]["annotations"][1]["ground_truth"] = True
    path = tmp_path / "export.json"
    path.write_text(json.dumps(tasks))
    data, lines = _convert("labelstudio", path, tmp_path, images=_photos(tmp_path, truth), joints=JOINTS)
    _check(data, {name: truth[name] for name in (names[0], names[1], names[3])}, occlusion=False)
    assert (
        "left out: 1 tasks' predictions; 2 annotations of a task after its first; 2 annotations that were skipped or "
        "cancelled; 1 results of type 'choices'; 1 tasks without an annotation"
    ) in lines


@pytest.mark.parametrize(
    "address",
    [
        "/data/upload/3/0a1b2c3d-img001.png",
        "/data/local-files/?d=a/b%20c/photos/img001.png",
        "https://example.com/x/img001.png?token=1",
        "s3://bucket/photos/img001.png",
        "/tasks/5/resolve/?fileuri=czM6Ly9idWNrZXQvcGhvdG9zL2ltZzAwMS5wbmc=",
        "img001.png",
        "C:\\work\\photos\\img001.png",
    ],
)
def test_label_studio_names_of_images(address, tmp_path):
    truth = tools.photos((1,))
    task = tools.task(1, "img001.png", tools.results(truth["img001.png"])) | {"data": {"image": address}}
    del task["file_upload"]
    path = tmp_path / "export.json"
    path.write_text(json.dumps([task]))
    data, _ = _convert("labelstudio", path, tmp_path, images=_photos(tmp_path, truth), joints=JOINTS)
    assert [image["file_name"] for image in data["images"]] == ["img001.png"]


def test_rotated_boxes_become_upright(tmp_path):
    truth = {"img001.png": [tools.Animal(tools.animals(1, 3)[0].joints, (80.0, 40.0, 30.0, 20.0))]}
    images = _photos(tmp_path, truth)
    path = pathlib.Path(tools.labelstudio(tmp_path / "export.json", truth))
    # Label Studio turns about the top left corner, CVAT about the middle.
    path.write_text(path.read_text().replace('"rotation": 0,', '"rotation": 90,'))
    data, lines = _convert("labelstudio", path, tmp_path, images=images)
    np.testing.assert_allclose(data["annotations"][0]["bbox"], [60, 40, 20, 30], atol=1e-3)
    assert "changed: 1 rotated boxes: the upright box around them" in lines
    path = pathlib.Path(tools.cvat(tmp_path / "annotations.xml", truth))
    path.write_text(path.read_text().replace("<box ", '<box rotation="90.00" '))
    data, _ = _convert("cvat", path, tmp_path, images=images)
    np.testing.assert_allclose(data["annotations"][0]["bbox"], [85, 35, 20, 30], atol=1e-3)


def test_labelme_without_groups_or_boxes(tmp_path):
    truth = tools.photos((1, 1))
    _photos(tmp_path, truth)
    for boxes in (True, False):
        source = tools.labelme(tmp_path / "labels", truth, groups=False, boxes=boxes, path="..\\photos\\")
        data, _ = _convert("labelme", source, tmp_path, images=str(tmp_path / "photos"), joints=JOINTS)
        _check(data, truth, boxes=boxes)
        assert data["categories"][0]["name"] == ("mouse" if boxes else "person")


def test_labelme_counts_other_shapes_flags_and_files(tmp_path):
    truth = tools.photos((1,))
    tools.labelme(tmp_path / "labels", truth, path="")
    path = tmp_path / "labels" / "img001.json"
    data = json.loads(path.read_text())
    extra = {"points": [[1, 1], [2, 2], [3, 1]], "group_id": None, "flags": {}}
    data["shapes"] += [
        extra | {"label": "leaf", "shape_type": "polygon"},
        extra | {"label": "bin", "shape_type": "rectangle"},
    ]
    data["shapes"][1]["flags"]["blurred"] = True
    data["flags"] = {"night": True}
    path.write_text(json.dumps(data))
    (tmp_path / "labels" / "notes.json").write_text("{}")
    data, lines = _convert(
        "labelme", tmp_path / "labels", tmp_path, images=_photos(tmp_path, truth), joints=JOINTS[:-1]
    )
    assert data["categories"][0]["keypoints"] == list(JOINTS[:-1])
    wanted = (
        "flags 'night' of an image; 1 flags 'blurred' of a point; 1 shapes of type 'polygon'; 1 boxes 'bin' without "
        "points; 1 .json files that are not LabelMe's (notes.json)"
    )
    assert any(f"left out: 1 {wanted}" in line for line in lines), lines


def test_cvat_bones_order_and_unlabelled_joints_come_from_its_labels(tmp_path):
    truth = tools.photos((1,))
    data, lines = _convert("cvat", tools.cvat(tmp_path / "a.xml", truth), tmp_path, images=_photos(tmp_path, truth))
    (category,) = data["categories"]
    bones = [(JOINTS[a - 1], JOINTS[b - 1]) for a, b in category["skeleton"]]
    assert sorted(bones) == sorted(BONES) and category["name"] == "mouse"
    assert any(line.startswith("category 'mouse': 5 joints (nose, left_ear") for line in lines)


def test_cvat_shapes_of_several_points_and_other_shapes(tmp_path):
    points = np.round(np.random.default_rng(1).uniform(10, 100, (3, 4, 2)), 2)
    text = "<annotations><meta><task><labels/></task></meta>"
    for number, rows in enumerate(points):
        joined = ";".join(f"{x},{y}" for x, y in rows)
        text += f'<image id="{number}" name="img{number}.png" width="160" height="120">'
        text += f'<points label="wheel" occluded="0" points="{joined}"><attribute name="age">3</attribute></points>'
        text += '<tag label="good"/></image>'
    path = tmp_path / "a.xml"
    path.write_text(text + "</annotations>")
    images = tools.paint(tmp_path / "photos", ["img0.png", "img1.png", "img2.png"])
    data, lines = _convert("cvat", path, tmp_path, images=images)
    found = np.reshape([row["keypoints"] for row in data["annotations"]], (3, 4, 3))
    np.testing.assert_allclose(found[..., :2], points - 0.5, atol=1e-3)
    assert data["categories"][0]["keypoints"] == ["point_1", "point_2", "point_3", "point_4"]
    assert "left out: 3 shapes <tag>; 3 attributes 'age'" in lines
    path.write_text((text + "</annotations>").replace(f"{points[1, 0, 0]},{points[1, 0, 1]};", "", 1))
    with pytest.raises(InputError, match="img1.png: a shape 'wheel' has 3 points, and another has 4"):
        _convert("cvat", path, tmp_path, images=images)


def test_deeplabcut_of_one_animal_with_bones_of_the_project(tmp_path):
    truth = tools.photos((1, 1))
    source = tools.deeplabcut(tmp_path / "project", truth, individuals=())
    (tmp_path / "project" / "config.yaml").write_text("skeleton:\n- [nose, left_ear]\n- [bodypart1, bodypart2]\n")
    data, lines = _convert("deeplabcut", source, tmp_path, category="mouse")
    _check(data, truth, boxes=False, occlusion=False)
    assert data["categories"][0] | {"id": 1} == {
        "supercategory": "mouse",
        "id": 1,
        "name": "mouse",
        "keypoints": list(JOINTS),
        "skeleton": [[1, 2]],
    }
    assert "left out: 1 bones of config.yaml between bodyparts that the labels do not have" in lines
    assert data["images"][0]["file_name"] == "labeled-data/film/img001.png"


def test_deeplabcut_reads_a_project_of_several_videos_and_their_unique_bodyparts(tmp_path):
    first, second = tools.photos((2, 1)), tools.photos((1,), seed=5)
    tools.deeplabcut(tmp_path / "project", first, video="a")
    path = pathlib.Path(tools.deeplabcut(tmp_path / "project", second, video="b"))
    lines = path.read_text().splitlines()
    ends = [",Ed,Ed", ",single,single", ",corner,corner", ",x,y", ",3,4"]
    path.write_text("\n".join(line + end for line, end in zip(lines, ends, strict=True)) + "\n")
    data, lines = _convert("deeplabcut", tmp_path / "project", tmp_path)
    assert len(data["annotations"]) == 4 and data["categories"][0]["keypoints"] == list(JOINTS)
    assert [image["file_name"] for image in data["images"]] == [
        f"labeled-data/{name}" for name in ("a/img001.png", "a/img002.png", "b/img001.png")
    ]
    assert "left out: 1 points of bodyparts that exist once (individual 'single')" in lines
    # Images of two videos have the same name: a folder without their folders cannot tell them apart.
    photos = tools.paint(tmp_path / "photos", first)
    with pytest.raises(InputError, match="img001.png is the image of two entries, labeled-data/a/img001.png and"):
        _convert("deeplabcut", tmp_path / "project", tmp_path, images=photos)


def test_missing_images_stop_or_are_skipped(tmp_path):
    truth = tools.photos()
    images = _photos(tmp_path, truth)
    os.remove(os.path.join(images, "img002.png"))
    source = tools.cvat(tmp_path / "a.xml", truth)
    with pytest.raises(InputError, match=r"1 of 3 images are missing; the first is img002.png .*--on_missing=skip"):
        _convert("cvat", source, tmp_path, images=images)
    assert not (tmp_path / "made.json").exists()
    data, lines = _convert("cvat", source, tmp_path, images=images, on_missing="skip")
    _check(data, {name: animals for name, animals in truth.items() if name != "img002.png"})
    assert "left out: 1 images that are missing, the first is img002.png" in lines
    with pytest.raises(InputError, match="3 of 3 images are missing; .*give their folder with --images"):
        _convert("cvat", source, tmp_path, images=tools.paint(tmp_path / "others", ["x.png"]))


def test_images_of_another_size_are_an_error(tmp_path):
    truth = tools.photos((1,))
    source = tools.cvat(tmp_path / "a.xml", truth)
    images = tools.paint(tmp_path / "photos", truth, size=(80, 60))
    with pytest.raises(InputError, match="img001.png has 80 x 60 pixels, but its labels are for 160 x 120"):
        _convert("cvat", source, tmp_path, images=images)


def test_pixel_offset_says_what_the_coordinates_are(tmp_path):
    truth = tools.photos((1,))
    source = tools.yolo(tmp_path / "set", truth)
    corner, indices = (_convert("yolo", source, tmp_path, pixel_offset=offset)[0] for offset in (0, 0.5))
    rows = [np.reshape(data["annotations"][0]["keypoints"], (-1, 3)) for data in (corner, indices)]
    labelled = rows[0][:, 2] > 0
    np.testing.assert_allclose(rows[1][labelled, :2] - rows[0][labelled, :2], 0.5, atol=2e-3)


def test_csv_and_lsp_are_formats(tmp_path):
    images = tools.paint(tmp_path / "photos", ["a.png"])
    table = tmp_path / "t.csv"
    table.write_text("file_name,nose_x,nose_y,tail x_x,tail x_y,tail x_v\na.png,1,2,30,40,1\ngone.png,1,2,3,4,2\n")
    with pytest.raises(InputError, match="line 3, column file_name: .*gone.png"):
        _convert("csv", table, tmp_path, images=images)
    data, lines = _convert("csv", table, tmp_path, images=images, on_missing="skip", category="mouse")
    assert data["categories"][0]["keypoints"] == ["nose", "tail x"] and data["categories"][0]["name"] == "mouse"
    assert data["annotations"][0]["keypoints"] == [1, 2, 2, 30, 40, 1]
    assert lines[-1] == "left out: 1 persons whose image is missing; gone.png"
    table.write_text("file_name,age\na.png,1\n")
    with pytest.raises(InputError, match="line 1: no column names a joint"):
        _convert("csv", table, tmp_path, images=images)
    scipy_io = pytest.importorskip("scipy.io")
    points, marks = inputs.persons(2)
    scipy_io.savemat(
        tmp_path / "joints.mat", {"joints": np.concatenate([points, marks[..., None]], -1).transpose(2, 1, 0)}
    )
    images = inputs.photos(tmp_path / "lsp", ["im0001.jpg", "im0002.jpg"])
    data, _ = _convert("lsp", tmp_path / "joints.mat", tmp_path, images=images, first=2)
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
    assert joint_names(["a", "b"]) == ("a", "b")
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
        _convert(kind, source, tmp_path, images=images)
    helpers.one_line(error)
    assert not (tmp_path / "made.json").exists()


@pytest.mark.parametrize(
    ("cells", "complaint"),
    [
        (lambda cells: [*cells, "0.5"], "line 1: it has 21 numbers: class, box and 5 joints of 3 are 20"),
        (lambda cells: [*cells[:-1], "7"], "line 1: the visibility of '尾' is 7: it must be 0, 1 or 2"),
        (lambda cells: ["0.5", *cells[1:]], "line 1: 0.5 is not a class"),
        (lambda cells: [cells[0], "x", *cells[2:]], "line 1: 'x' is not a number"),
        (lambda cells: [cells[0], "nan", *cells[2:]], "line 1: 'nan' is not a number"),
        (lambda cells: [cells[0], "7", *cells[2:]], r"line 1: the box .* is outside its image of 160 x 120 pixels"),
    ],
)
def test_bad_lines_of_yolo_are_named(cells, complaint, tmp_path):
    source = tools.yolo(tmp_path / "set", tools.photos((1,)))
    path = tmp_path / "set" / "labels" / "train" / "img001.txt"
    path.write_text(" ".join(cells(path.read_text().split())))
    with pytest.raises(InputError, match=f"img001.txt: {complaint}") as error:
        _convert("yolo", source, tmp_path)
    helpers.one_line(error)


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
        _convert(kind, tmp_path / "none", tmp_path)
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
        data, _ = _convert("labelme", tmp_path / "a.json", tmp_path, images=images)
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
    import subprocess
    import sys

    code = "import sys, tfrecords_tools.convert.__main__; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
