"""What is special in the labels of each tool: its layouts, its groups of points, what is left out and counted."""

import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from kpose.core.errors import InputError
from tests import helpers
from tests.tfrecords_tools import label_files as tools
from tests.tfrecords_tools.label_files import BONES, JOINTS, SIZE
from tfrecords_tools.convert import grouping, labels


def test_yolo_pairs_go_into_the_category(tmp_path):
    data, _ = tools.convert("yolo", tools.yolo(tmp_path / "set", tools.photos()), tmp_path)
    assert data["categories"][0]["flip_idx"] == tools.FLIP
    assert [image["file_name"] for image in data["images"]] == [f"images/train/img00{n}.png" for n in (1, 2, 3)]


def test_yolo_without_names_numbers_the_joints_and_says_so(tmp_path):
    truth = tools.photos()
    source = tools.yolo(tmp_path / "set", truth, named=False)
    data, lines = tools.convert("yolo", source, tmp_path)
    tools.check(data, truth, joints=[f"point_{k}" for k in range(1, 6)])
    assert any("has no kpt_names: the joints are named point_1 to point_5" in line for line in lines)
    data, lines = tools.convert("yolo", source, tmp_path, joints=JOINTS)
    tools.check(data, truth)
    assert not any("kpt_names" in line for line in lines)
    with pytest.raises(InputError, match="--joints names 2 joints, but kpt_shape of .*data.yaml has 5"):
        tools.convert("yolo", source, tmp_path, joints=("a", "b"))


def test_yolo_joint_names_as_a_list_or_a_list_a_class(tmp_path):
    truth = tools.photos()
    source = pathlib.Path(tools.yolo(tmp_path / "set", truth, named=False))
    for names in (list(JOINTS), [list(JOINTS)]):
        source.write_text(source.read_text().split("kpt_names")[0] + f"kpt_names: {json.dumps(names)}\n")
        tools.check(tools.convert("yolo", source, tmp_path)[0], truth)


def test_yolo_joints_of_two_numbers_are_visible_unless_at_the_corner(tmp_path):
    truth = tools.photos()
    data, lines = tools.convert("yolo", tools.yolo(tmp_path / "set", truth, dimensions=2), tmp_path)
    tools.check(data, truth, occlusion=False)
    zeros = sum(int((animal.joints[:, 2] == 0).sum()) for animals in truth.values() for animal in animals)
    assert zeros and any(f"changed: {zeros} joints at 0, 0 without visibility" in line for line in lines)


def test_yolo_splits_and_layouts(tmp_path):
    train, val = tools.photos(seed=1), tools.photos((2,), seed=2)
    tools.yolo(tmp_path / "set", train)
    source = tools.yolo(tmp_path / "set", val, split="val")
    tools.check(tools.convert("yolo", source, tmp_path)[0], train)
    tools.check(tools.convert("yolo", source, tmp_path, split="val")[0], val)
    with pytest.raises(InputError, match="no split 'test': its splits are train, val"):
        tools.convert("yolo", source, tmp_path, split="test")
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
        tools.check(tools.convert("yolo", source, tmp_path)[0], train)
    tools.check(tools.convert("yolo", tmp_path / "set", tmp_path)[0], train)


def test_yolo_backgrounds_and_repeated_lines_are_counted(tmp_path):
    truth = tools.photos()
    source = tools.yolo(tmp_path / "set", truth)
    tools.paint(tmp_path / "set" / "images" / "train", ["empty.png"])
    path = tmp_path / "set" / "labels" / "train" / "img001.txt"
    path.write_text(path.read_text() * 2)
    data, lines = tools.convert("yolo", source, tmp_path)
    tools.check(data, truth)
    assert "left out: 1 lines that repeat another line of their file; 1 images without a person" in lines
    (tmp_path / "set" / "images" / "train" / "img002.png").unlink()
    with pytest.raises(InputError, match="img002.txt: the image of these labels is missing"):
        tools.convert("yolo", source, tmp_path)
    data, lines = tools.convert("yolo", source, tmp_path, on_missing="skip")
    assert len(data["annotations"]) == 2 and any("1 files of labels whose image is missing" in line for line in lines)


def test_yolo_classes(tmp_path):
    truth = tools.photos()
    source = tools.yolo(tmp_path / "set", truth, names="names: [mouse, rat]\n")
    path = tmp_path / "set" / "labels" / "train" / "img001.txt"
    path.write_text("1" + path.read_text()[1:])
    with pytest.raises(
        InputError, match=r"persons of 2 categories: rat \(1\), mouse \(3\): choose one with --category"
    ):
        tools.convert("yolo", source, tmp_path)
    data, lines = tools.convert("yolo", source, tmp_path, category="mouse")
    tools.check(data, {name: animals for name, animals in truth.items() if name != "img001.png"})
    assert data["categories"][0]["name"] == "mouse"
    assert "left out: 1 persons of category 'rat'; 1 images without a person" in lines
    with pytest.raises(InputError, match="--category=cat: no person has this category: there are rat, mouse"):
        tools.convert("yolo", source, tmp_path, category="cat")


def test_turned_images_have_the_size_that_viewers_show(tmp_path):
    source = tools.yolo(tmp_path / "set", tools.photos((1,)))
    image = Image.new("RGB", (SIZE[1], SIZE[0]))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "set" / "images" / "train" / "img001.png", "JPEG", exif=exif)
    tools.check(tools.convert("yolo", source, tmp_path)[0], tools.photos((1,)))


def test_an_orientation_that_the_size_does_not_show_is_counted(tmp_path):
    source = tools.yolo(tmp_path / "set", tools.photos((1,)))
    image = Image.new("RGB", SIZE)
    exif = image.getexif()
    exif[0x0112] = 3
    image.save(tmp_path / "set" / "images" / "train" / "img001.png", "JPEG", exif=exif)
    data, lines = tools.convert("yolo", source, tmp_path)
    tools.check(data, tools.photos((1,)))
    assert "changed: 1 images whose EXIF orientation does not show in their size: read as stored" in lines


def test_points_without_a_group_belong_to_the_only_box_around_them():
    boxes = [grouping.Box("a", [0, 0, 50, 50]), grouping.Box("b", [40, 40, 50, 50]), grouping.Box("c", [95, 0, 5, 5])]
    points = [grouping.Point("nose", 10, 10), grouping.Point("nose", 70, 70), grouping.Point("tail", 45, 45)]
    source = labels.Source()
    persons = grouping.persons_of([*points, grouping.Point("ear", 60, 10)], boxes, "here", source, "advice")
    assert [(p.category, list(p.joints), p.box) for p in persons] == [
        ("a", ["nose"], [0, 0, 50, 50]),
        ("b", ["nose"], [40, 40, 50, 50]),
    ]
    assert source.left_out == {
        "points without a group that are in no box, or in several": 2,
        "boxes 'c' without points": 1,
    }
    with pytest.raises(InputError, match="here: a person has two boxes, 'a' and 'b': advice"):
        two = [grouping.Box(box.label, box.box, 1) for box in boxes[:2]]
        grouping.persons_of([grouping.Point("nose", 1, 1, 2, 1)], two, "here", source, "advice")


def test_label_studio_leaves_out_images_that_were_rotated_in_it(tmp_path):
    truth = tools.photos((1, 1))
    path = pathlib.Path(tools.labelstudio(tmp_path / "export.json", truth))
    tasks = json.loads(path.read_text())
    for region in tasks[0]["annotations"][0]["result"]:
        region["image_rotation"] = 90
    path.write_text(json.dumps(tasks))
    data, lines = tools.convert(
        "labelstudio", path, tmp_path, images=tools.photo_folder(tmp_path, truth), joints=JOINTS
    )
    assert [image["file_name"] for image in data["images"]] == ["img002.png"]
    assert any(
        "regions of images that were rotated in Label Studio; 1 images without a person" in line for line in lines
    )


def test_label_studio_minimal_takes_the_box_around_the_points(tmp_path):
    truth = tools.photos((1, 1, 1))
    source = tools.labelstudio_minimal(tmp_path / "minimal.json", truth)
    data, _ = tools.convert("labelstudio", source, tmp_path, images=tools.photo_folder(tmp_path, truth), joints=JOINTS)
    tools.check(data, truth, occlusion=False)
    apart = [tools.Animal(np.array([[10.0, 10, 2], [20, 20, 2]] + [[0, 0, 0]] * 3), (5, 5, 30, 30))]
    apart += [tools.Animal(np.array([[90.0, 80, 2], [99, 95, 2]] + [[0, 0, 0]] * 3), (80, 70, 30, 30))]
    source = tools.labelstudio_minimal(tmp_path / "minimal.json", {"img001.png": apart})
    data, _ = tools.convert("labelstudio", source, tmp_path, images=tools.photo_folder(tmp_path, truth), joints=JOINTS)
    tools.check(data, {"img001.png": apart}, occlusion=False)


def test_label_studio_without_boxes_is_one_person_an_image(tmp_path):
    truth = tools.photos((1, 1))
    source = tools.labelstudio(tmp_path / "export.json", truth, link="", boxes=False)
    data, _ = tools.convert("labelstudio", source, tmp_path, images=tools.photo_folder(tmp_path, truth), joints=JOINTS)
    tools.check(data, truth, boxes=False, occlusion=False)
    assert data["categories"][0]["name"] == "person"
    data, _ = tools.convert(
        "labelstudio", source, tmp_path, images=str(tmp_path / "photos"), category="mouse", joints=JOINTS
    )
    assert data["categories"][0]["name"] == "mouse"
    source = tools.labelstudio(tmp_path / "export.json", tools.photos((2,)), link="", boxes=False)
    with pytest.raises(InputError, match="task 1: a person has two points 'nose': in Label Studio, put each person's"):
        tools.convert("labelstudio", source, tmp_path, images=str(tmp_path / "photos"))


def test_label_studio_counts_annotators_predictions_and_other_regions(tmp_path):
    truth = tools.photos((1, 1, 1, 1))
    names = list(truth)
    tasks = [tools.task(n, name, tools.results(truth[name])) for n, name in enumerate(names, 1)]
    other = tools.results(tools.animals(1, 99))
    tasks[0]["annotations"].append({"id": 7, "result": other, "was_cancelled": False})
    tasks[0]["predictions"] = [{"result": other, "model_version": "m"}]
    tasks[1]["annotations"].insert(0, {"id": 8, "result": other, "was_cancelled": True})
    tasks[1]["annotations"][1]["result"].append(tools.region("x", "rectanglelabels", {}) | {"type": "choices"})
    tasks[2]["annotations"] = [{"result": [], "was_cancelled": True}]
    # An annotation that is marked as right comes before the first.
    tasks[3]["annotations"].insert(0, {"id": 9, "result": other, "was_cancelled": False})
    tasks[3]["annotations"][1]["ground_truth"] = True
    path = tmp_path / "export.json"
    path.write_text(json.dumps(tasks))
    data, lines = tools.convert(
        "labelstudio", path, tmp_path, images=tools.photo_folder(tmp_path, truth), joints=JOINTS
    )
    tools.check(data, {name: truth[name] for name in (names[0], names[1], names[3])}, occlusion=False)
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
    data, _ = tools.convert("labelstudio", path, tmp_path, images=tools.photo_folder(tmp_path, truth), joints=JOINTS)
    assert [image["file_name"] for image in data["images"]] == ["img001.png"]


def test_rotated_boxes_become_upright(tmp_path):
    truth = {"img001.png": [tools.Animal(tools.animals(1, 3)[0].joints, (80.0, 40.0, 30.0, 20.0))]}
    images = tools.photo_folder(tmp_path, truth)
    path = pathlib.Path(tools.labelstudio(tmp_path / "export.json", truth))
    # Label Studio turns about the top left corner, CVAT about the middle.
    path.write_text(path.read_text().replace('"rotation": 0,', '"rotation": 90,'))
    data, lines = tools.convert("labelstudio", path, tmp_path, images=images)
    np.testing.assert_allclose(data["annotations"][0]["bbox"], [60, 40, 20, 30], atol=1e-3)
    assert "changed: 1 rotated boxes: the upright box around them" in lines
    path = pathlib.Path(tools.cvat(tmp_path / "annotations.xml", truth))
    path.write_text(path.read_text().replace("<box ", '<box rotation="90.00" '))
    data, _ = tools.convert("cvat", path, tmp_path, images=images)
    np.testing.assert_allclose(data["annotations"][0]["bbox"], [85, 35, 20, 30], atol=1e-3)


def test_labelme_without_groups_or_boxes(tmp_path):
    truth = tools.photos((1, 1))
    tools.photo_folder(tmp_path, truth)
    for boxes in (True, False):
        source = tools.labelme(tmp_path / "labels", truth, groups=False, boxes=boxes, path="..\\photos\\")
        data, _ = tools.convert("labelme", source, tmp_path, images=str(tmp_path / "photos"), joints=JOINTS)
        tools.check(data, truth, boxes=boxes)
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
    data, lines = tools.convert(
        "labelme", tmp_path / "labels", tmp_path, images=tools.photo_folder(tmp_path, truth), joints=JOINTS[:-1]
    )
    assert data["categories"][0]["keypoints"] == list(JOINTS[:-1])
    wanted = (
        "flags 'night' of an image; 1 flags 'blurred' of a point; 1 shapes of type 'polygon'; 1 boxes 'bin' without "
        "points; 1 .json files that are not LabelMe's (notes.json)"
    )
    assert any(f"left out: 1 {wanted}" in line for line in lines), lines


def test_cvat_bones_order_and_unlabelled_joints_come_from_its_labels(tmp_path):
    truth = tools.photos((1,))
    data, lines = tools.convert(
        "cvat", tools.cvat(tmp_path / "a.xml", truth), tmp_path, images=tools.photo_folder(tmp_path, truth)
    )
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
    data, lines = tools.convert("cvat", path, tmp_path, images=images)
    found = np.reshape([row["keypoints"] for row in data["annotations"]], (3, 4, 3))
    np.testing.assert_allclose(found[..., :2], points - 0.5, atol=1e-3)
    assert data["categories"][0]["keypoints"] == ["point_1", "point_2", "point_3", "point_4"]
    assert "left out: 3 shapes <tag>; 3 attributes 'age'" in lines
    path.write_text((text + "</annotations>").replace(f"{points[1, 0, 0]},{points[1, 0, 1]};", "", 1))
    with pytest.raises(InputError, match="img1.png: a shape 'wheel' has 3 points, and another has 4"):
        tools.convert("cvat", path, tmp_path, images=images)


def test_deeplabcut_of_one_animal_with_bones_of_the_project(tmp_path):
    truth = tools.photos((1, 1))
    source = tools.deeplabcut(tmp_path / "project", truth, individuals=())
    (tmp_path / "project" / "config.yaml").write_text("skeleton:\n- [nose, left_ear]\n- [bodypart1, bodypart2]\n")
    data, lines = tools.convert("deeplabcut", source, tmp_path, category="mouse")
    tools.check(data, truth, boxes=False, occlusion=False)
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
    data, lines = tools.convert("deeplabcut", tmp_path / "project", tmp_path)
    assert len(data["annotations"]) == 4 and data["categories"][0]["keypoints"] == list(JOINTS)
    assert [image["file_name"] for image in data["images"]] == [
        f"labeled-data/{name}" for name in ("a/img001.png", "a/img002.png", "b/img001.png")
    ]
    assert "left out: 1 points of bodyparts that exist once (individual 'single')" in lines
    # Images of two videos have the same name: a folder without their folders cannot tell them apart.
    photos = tools.paint(tmp_path / "photos", first)
    with pytest.raises(InputError, match="img001.png is the image of two entries, labeled-data/a/img001.png and"):
        tools.convert("deeplabcut", tmp_path / "project", tmp_path, images=photos)


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
        tools.convert("yolo", source, tmp_path)
    helpers.one_line(error)
