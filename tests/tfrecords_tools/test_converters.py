"""Leeds Sports Pose and tables of people become COCO keypoint files that the writer and pycocotools read."""

import csv
import json
import os
import pathlib
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO

from kpose.core import skeletons
from kpose.core.errors import InputError
from kpose.data import records
from kpose.data.image_files import ImageFolder
from tests import helpers
from tfrecords_tools import coco_builder, convert_csv, convert_lsp
from tfrecords_tools.write_coco import writer
from tfrecords_tools.write_coco.annotations import NO_JOINT, read_annotations, select_persons

scipy_io = pytest.importorskip("scipy.io", reason="no scipy: pip install 'kpose[lsp]'")

SIZE = (120, 90)


def _photos(folder, names, size=SIZE):
    """A folder with one picture a name, of (width, height) pixels."""
    folder.mkdir(exist_ok=True)
    for name in names:
        Image.new("RGB", size, "grey").save(folder / name)
    return str(folder)


def _persons(count, seed=0):
    """[N, 14, 2] joints inside an image of `SIZE`, in tenths of a pixel, and [N, 14] marks of 0 and 1."""
    rng = np.random.default_rng(seed)
    points = np.round(rng.uniform((20, 20), (90, 70), (count, 14, 2)), 1)
    return points, rng.integers(0, 2, (count, 14))


def _save_mat(path, points, marks, form):
    joints = np.concatenate([points, marks[..., None]], -1)
    scipy_io.savemat(path, {"joints": joints.transpose((2, 1, 0) if form == "lsp" else (1, 2, 0))})
    return str(path)


def _lsp(tmp_path, points, marks, form="lsp", names=None, **changes):
    """Converts a made joints.mat; returns (what the COCO file holds, the lines that are printed)."""
    digits = {"lsp": 4, "lspet": 5}[form]
    names = [f"im{index + 1:0{digits}d}.jpg" for index in range(len(points))] if names is None else names
    images = changes.pop("images", None) or _photos(tmp_path / "photos", names)
    joints = _save_mat(tmp_path / "joints.mat", points, marks, form)
    output = str(tmp_path / "labels.json")
    lines = convert_lsp.convert(convert_lsp.LspOptions(joints, images, output, **changes))
    return json.loads(pathlib.Path(output).read_text()), lines


def _keypoints(data):
    return np.array([person["keypoints"] for person in data["annotations"]], float).reshape(
        len(data["annotations"]), -1, 3
    )


@pytest.mark.parametrize("form", ["lsp", "lspet"])
def test_joints_of_both_forms_come_back_from_the_coco_file(form, tmp_path):
    points, marks = _persons(5)
    data, lines = _lsp(tmp_path, points, marks, form)
    found = _keypoints(data)
    flags = np.where(marks == 1, 1, 2) if form == "lsp" else 2 * marks
    np.testing.assert_array_equal(found[..., 2], flags)
    np.testing.assert_array_equal(found[..., :2], points * (flags > 0)[..., None])
    stem = "im000" if form == "lsp" else "im0000"
    assert [image["file_name"] for image in data["images"]] == [f"{stem}{n}.jpg" for n in range(1, 6)]
    assert {(image["width"], image["height"]) for image in data["images"]} == {SIZE}
    assert [(p["id"], p["image_id"]) for p in data["annotations"]] == [(n, n) for n in range(1, 6)]
    assert [p["num_keypoints"] for p in data["annotations"]] == (flags > 0).sum(1).tolist()
    assert len(lines) == 1 and f"5 images, 5 persons, {(flags > 0).sum()} of 70 joints labelled" in lines[0]
    selected, _ = select_persons(read_annotations(str(tmp_path / "labels.json"), skeletons.LSP), "labelled")
    assert [person["id"] for person in selected] == [1, 2, 3, 4, 5]


def test_coco_s_skeleton_takes_joints_by_their_names(tmp_path):
    points, marks = _persons(3)
    data, _ = _lsp(tmp_path, points, marks, skeleton=skeletons.COCO)
    found = _keypoints(data)
    assert found.shape == (3, 17, 3)
    for index, name in enumerate(skeletons.COCO.joints):
        if name in skeletons.LSP.joints:
            own = skeletons.LSP.joints.index(name)
            np.testing.assert_array_equal(found[:, index, :2], points[:, own])
            np.testing.assert_array_equal(found[:, index, 2], 2 - marks[:, own])
        else:
            assert name in ("nose", "left_eye", "right_eye", "left_ear", "right_ear")
            assert (found[:, index] == 0).all()
    assert all(person["num_keypoints"] == 12 for person in data["annotations"])
    both, _ = _lsp(tmp_path, points, marks, skeleton=skeletons.LSP)
    assert [p["bbox"] for p in both["annotations"]] == [p["bbox"] for p in data["annotations"]]


@pytest.mark.parametrize("skeleton", [skeletons.COCO, skeletons.LSP], ids=lambda table: table.name)
def test_pycocotools_reads_the_file_and_its_category(skeleton, tmp_path, capsys):
    _lsp(tmp_path, *_persons(3), skeleton=skeleton)
    dataset = COCO(str(tmp_path / "labels.json"))
    (category,) = dataset.loadCats(dataset.getCatIds("person"))
    assert category["keypoints"] == list(skeleton.joints)
    # COCO counts joints from 1.
    lines = {frozenset(category["keypoints"][joint - 1] for joint in line) for line in category["skeleton"]}
    assert frozenset(("left_knee", "left_ankle")) in lines and len(lines) == len(skeleton.bones)
    assert min(min(line) for line in category["skeleton"]) == 1
    (person,) = dataset.loadAnns(dataset.getAnnIds(imgIds=[2]))
    assert person["id"] == 2 and len(person["keypoints"]) == 3 * skeleton.num_joints


def test_the_writer_takes_the_converted_file(tmp_path):
    points, marks = _persons(4)
    _lsp(tmp_path, points, marks)
    manifest = writer.write_records(
        helpers.options(tmp_path / "labels.json", tmp_path / "photos", tmp_path / "out", skeleton=skeletons.LSP)
    )
    assert manifest["persons"] == 4
    assert records.find(str(tmp_path / "out" / "train-*")).skeleton.name == "lsp"


def test_the_box_has_room_by_its_longer_side_and_is_cut_at_the_image():
    points = np.array([[50, 20], [60, 70], [5, 5]])
    flags = np.array([2, 1, 0])
    assert coco_builder.box_of_joints(points, flags, (120, 90), 0.1) == [45, 15, 20, 60]
    assert coco_builder.box_of_joints(points, flags, (120, 90), 0) == [50, 20, 10, 50]
    assert coco_builder.box_of_joints(points, flags, (63, 72), 0.5) == [25, 0, 38, 72]
    assert coco_builder.box_of_joints(points, [0, 0, 2], (120, 90), 0.1) is None
    assert coco_builder.box_of_joints(points, [0, 0, 0], (120, 90), 0.1) is None


def test_joints_that_are_nowhere_or_outside_become_unlabelled_and_are_counted(tmp_path):
    points, marks = _persons(2)
    marks[:] = 1
    points[0, 3] = np.nan, 30
    points[0, 4] = np.inf, 30
    points[1, 5] = -0.06, 30
    points[1, 6] = 30, 90.06
    # On the edge, and beyond it by less than the tenth that is kept.
    points[1, 7], points[1, 8] = (0, 90), (-0.04, 120 - 90)
    marks[1, 9], points[1, 9] = 0, (-500, -500)
    data, lines = _lsp(tmp_path, points, marks, "lspet")
    found = _keypoints(data)
    assert np.argwhere(found[..., 2] == 0).tolist() == [[0, 3], [0, 4], [1, 5], [1, 6], [1, 9]]
    assert (found[found[..., 2] == 0] == 0).all()
    assert found[1, 7].tolist() == [0, 90, 2] and found[1, 8].tolist() == [0, 30, 2]
    assert lines[1:] == [
        "labelled at the source, unlabelled here: 2 joints without finite coordinates, 2 joints outside their image"
    ]
    inside = found[0][found[0, :, 2] > 0][:, :2]
    assert data["annotations"][0]["bbox"] == coco_builder.box_of_joints(inside, np.ones(len(inside)), SIZE, 0.12)


def test_a_person_without_a_box_is_left_out_and_counted(tmp_path):
    points, marks = _persons(3)
    marks[:] = 1
    marks[1] = 0
    marks[1, 4] = 1
    data, lines = _lsp(tmp_path, points, marks, "lspet")
    assert [image["id"] for image in data["images"]] == [person["id"] for person in data["annotations"]] == [1, 3]
    assert lines[-1] == "left out: 1 persons whose labelled joints make no box"
    with pytest.raises(InputError, match="labels.json: no person has joints that make a box"):
        _lsp(tmp_path, points, np.zeros_like(marks), "lspet")
    assert json.loads((tmp_path / "labels.json").read_text()) == data


def test_first_and_last_choose_images_that_keep_their_numbers(tmp_path):
    points, marks = _persons(6)
    data, _ = _lsp(tmp_path, points, marks, names=["im0003.jpg", "im0004.jpg"], first=3, last=4)
    assert [image["id"] for image in data["images"]] == [3, 4]
    np.testing.assert_array_equal(_keypoints(data)[..., :2], points[2:4])
    for first, last in ((0, 2), (4, 3), (1, 7)):
        with pytest.raises(InputError, match=f"images {first} to {last} are asked for, but it has 1 to 6"):
            _lsp(tmp_path, points, marks, first=first, last=last)


def test_absent_images_stop_or_are_left_out_and_counted(tmp_path):
    points, marks = _persons(5)
    names = ["im00001.jpg", "im00002.jpg", "im00004.jpg"]
    with pytest.raises(InputError, match="2 of 5 images are absent, im00003.jpg the first.*--on_missing=skip") as error:
        _lsp(tmp_path, points, marks, "lspet", names)
    helpers.one_line(error)
    assert not (tmp_path / "labels.json").exists()
    data, lines = _lsp(tmp_path, points, marks, "lspet", names, on_missing="skip")
    assert [image["file_name"] for image in data["images"]] == names
    assert lines[-1] == "left out: 2 of 5 images that are absent, im00003.jpg the first"
    # The digits of the other set.
    with pytest.raises(InputError, match="none of the 5 images is there.*with 4 digits, LSP Extended with 5"):
        _lsp(tmp_path, points, marks, "lsp", names, on_missing="skip")


def test_form_decides_what_the_third_number_means_whatever_the_shape(tmp_path):
    points, marks = _persons(3)
    path = _save_mat(tmp_path / "joints.mat", points, marks, "lspet")
    for form, flags in (("auto", 2 * marks), ("lspet", 2 * marks), ("lsp", 2 - marks)):
        found, labels, _ = convert_lsp.read_joints(path, form)
        np.testing.assert_array_equal(found, points)
        np.testing.assert_array_equal(labels, flags)
    _photos(tmp_path / "photos", ["im0001.jpg", "im0002.jpg", "im0003.jpg"])
    options = convert_lsp.LspOptions(path, str(tmp_path / "photos"), str(tmp_path / "a.json"), form="lsp")
    assert "3 images" in convert_lsp.convert(options)[0]


@pytest.mark.parametrize("form", ["lsp", "lspet"])
def test_a_set_of_one_image_whose_last_axis_matlab_dropped(form, tmp_path):
    points, marks = _persons(1)
    joints = np.concatenate([points[0], marks[0, :, None]], -1)
    scipy_io.savemat(tmp_path / "one.mat", {"joints": joints.T if form == "lsp" else joints})
    found, _, told = convert_lsp.read_joints(str(tmp_path / "one.mat"))
    assert told == form
    np.testing.assert_array_equal(found, points)


def _bad_mat(path, case):
    path = str(path)
    if case == "no MATLAB file":
        pathlib.Path(path).write_text("<html>404</html>" * 40)
    elif case == "empty":
        pathlib.Path(path).write_bytes(b"")
    elif case == "cut short":
        _save_mat(path, *_persons(50), "lsp")
        whole = pathlib.Path(path).read_bytes()
        pathlib.Path(path).write_bytes(whole[: len(whole) // 2])
    elif case == "MATLAB 7.3":
        # Its header; the rest is HDF5.
        pathlib.Path(path).write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(400))
    elif case == "another variable":
        scipy_io.savemat(path, {"poses": np.zeros((3, 14, 2))})
    elif case == "another shape":
        scipy_io.savemat(path, {"joints": np.zeros((2, 14, 3))})
    elif case == "text":
        scipy_io.savemat(path, {"joints": "none"})
    elif case == "odd marks":
        scipy_io.savemat(path, {"joints": np.full((3, 14, 2), 7.5)})
    return path


@pytest.mark.parametrize(
    ("case", "complaint"),
    [
        ("missing", "no such file"),
        ("no MATLAB file", "cannot be read as a MATLAB file"),
        ("empty", "cannot be read as a MATLAB file"),
        ("cut short", "cannot be read as a MATLAB file"),
        ("MATLAB 7.3", "saved as MATLAB 7.3.*save it with -v7"),
        ("another variable", "no variable called joints"),
        ("another shape", r"shape \[2, 14, 3\]: neither \[3, 14, N\]"),
        ("text", "its joints are no numbers"),
        ("odd marks", "the third number of a joint is 7.5"),
    ],
)
def test_a_bad_joints_mat_is_one_line_that_names_it(case, complaint, tmp_path):
    path = _bad_mat(tmp_path / "joints.mat", case)
    with pytest.raises(InputError, match=complaint) as error:
        convert_lsp.read_joints(path)
    assert helpers.one_line(error).startswith(f"{path}: ")


def test_without_scipy_it_says_what_to_install(tmp_path, monkeypatch):
    path = _save_mat(tmp_path / "joints.mat", *_persons(1), "lsp")
    for name in [name for name in sys.modules if name.partition(".")[0] == "scipy"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=r"pip install 'kpose\[lsp\]'"):
        convert_lsp.read_joints(path)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"output": "labels.json.gz"}, "ends in .json"),
        ({"margin": -0.1}, "margin=-0.1"),
        ({"margin": float("nan")}, "margin=nan"),
        ({"form": "mpii"}, "form 'mpii'"),
        ({"on_missing": "draw"}, "on_missing 'draw'"),
    ],
)
def test_bad_options(change, complaint):
    with pytest.raises(InputError, match=complaint) as error:
        convert_lsp.LspOptions(**{"joints": "j.mat", "images": "photos", "output": "a.json"} | change)
    helpers.one_line(error)


def test_sizes_are_read_from_headers_in_a_folder_and_in_a_zip_file(tmp_path):
    folder = _photos(tmp_path / "photos", ["im0001.jpg", "im0002.jpg"], size=(640, 480))
    cut = tmp_path / "photos" / "im0002.jpg"
    cut.write_bytes(cut.read_bytes()[:700])
    (tmp_path / "photos" / "text.jpg").write_text("no picture")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for path in (tmp_path / "photos").iterdir():
            archive.write(path, f"images/{path.name}")
    for source in (folder, str(tmp_path / "photos.zip")):
        images = ImageFolder(source)
        # The second has a header but no pixels.
        assert images.size("im0001.jpg") == images.size("im0002.jpg") == (640, 480)
        with pytest.raises(InputError, match="cannot be decoded"):
            images.open("im0002.jpg").decode()
        assert "im0001.jpg" in images and "im0003.jpg" not in images
        with pytest.raises(InputError, match="text.jpg: not an image"):
            images.size("text.jpg")
        with pytest.raises(InputError, match="im0003.jpg: no such image"):
            images.size("im0003.jpg")
    points, marks = _persons(2)
    from_folder, _ = _lsp(tmp_path, points, marks, images=folder)
    from_zip, _ = _lsp(tmp_path, points, marks, images=str(tmp_path / "photos.zip"))
    assert from_zip == from_folder and from_zip["images"][0]["width"] == 640


def test_a_name_in_two_folders_of_a_zip_file_is_not_guessed(tmp_path):
    """The published lsp_dataset.zip has every image twice: as it is, and with the skeleton drawn over it."""
    folder = _photos(tmp_path / "photos", ["im0001.jpg", "im0002.jpg"])
    with zipfile.ZipFile(tmp_path / "lsp.zip", "w") as archive:
        for name in ("images/im0001.jpg", "images/im0002.jpg", "visualized/im0001.jpg"):
            archive.write(os.path.join(folder, os.path.basename(name)), name)
    images = ImageFolder(str(tmp_path / "lsp.zip"))
    assert images.size("im0002.jpg") == images.size("visualized/im0001.jpg") == SIZE
    for read in (images.size, images.open):
        with pytest.raises(InputError, match="lsp.zip/im0001.jpg: several folders") as error:
            read("im0001.jpg")
        helpers.one_line(error)


@pytest.mark.parametrize(
    ("name", "reference", "first", "last"),
    [
        ("lsp", "person_keypoints_lsp_train.json", 1, 1000),
        ("lsp", "person_keypoints_lsp_test.json", 1001, 2000),
        ("lspet", "person_keypoints_lspet.json", 1, None),
    ],
)
def test_the_real_sets_agree_with_their_labels_made_elsewhere(name, reference, first, last, tmp_path):
    folder = helpers.real_data(name, reference).parent
    output = tmp_path / "labels.json"
    lines = convert_lsp.convert(
        convert_lsp.LspOptions(
            *(str(path) for path in (folder / "joints.mat", folder / "images", output)),
            skeleton=skeletons.COCO,
            first=first,
            last=last,
        )
    )
    data, expected = (json.loads(path.read_text()) for path in (output, folder / reference))
    assert data["images"] == expected["images"]
    for field in ("id", "image_id", "num_keypoints"):
        assert [p[field] for p in data["annotations"]] == [p[field] for p in expected["annotations"]]
    ours, theirs = _keypoints(data), _keypoints(expected)
    np.testing.assert_array_equal(ours[..., 2], theirs[..., 2])
    boxes, expected_boxes = (np.array([p["bbox"] for p in d["annotations"]]) for d in (data, expected))
    if name == "lsp":
        np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_array_equal(boxes, expected_boxes)
        assert len(lines) == 1
        return
    # Its joints.mat is in single precision: a value half-way between tenths may be rounded to the other one.
    assert np.abs(ours - theirs).max() < 0.11 and (np.abs(ours - theirs) > 1e-6).sum() < 60
    # Their boxes are stretched to joints outside the image, which ours take for wrong.
    points, flags, _ = convert_lsp.read_joints(str(folder / "joints.mat"))
    sizes = np.array([(image["width"], image["height"]) for image in data["images"]])[:, None]
    outside = (((points < -0.05) | (points > sizes + 0.05)).any(-1) & (flags > 0)).sum(1)
    assert np.abs(boxes - expected_boxes)[outside == 0].max() < 0.11
    assert lines[1:] == [f"labelled at the source, unlabelled here: {outside.sum()} joints outside their image"]
    assert 0 < outside.sum() < 20


# --- tables ---

SKELETON = skeletons.LSP
JOINT_COLUMNS = [f"{joint}_{part}" for joint in SKELETON.joints for part in "xy"]
FLAG_COLUMNS = [f"{joint}_v" for joint in SKELETON.joints]
BOX_COLUMNS = list(convert_csv.BOX)


def _row(file_name="a.png", box=None, seed=0, **cells):
    """A line of a table: all joints inside `SIZE`, labelled."""
    points = _persons(1, seed)[0][0]
    row = {"file_name": file_name} | dict(zip(JOINT_COLUMNS, points.ravel().tolist(), strict=True))
    return row | (dict(zip(BOX_COLUMNS, box, strict=True)) if box else {}) | cells


def _table(path, rows, columns=None):
    columns = columns or list(dict.fromkeys(column for row in rows for column in row))
    with open(path, "w", newline="", encoding="utf-8") as file:
        out = csv.DictWriter(file, columns)
        out.writeheader()
        out.writerows(rows)
    return str(path)


def _convert_csv(tmp_path, table, margin=0.12):
    images = tmp_path / "photos"
    if not images.exists():
        _photos(images, ["a.png", "b.png"])
    output = tmp_path / "people.json"
    lines = convert_csv.convert(convert_csv.CsvOptions(table, str(images), str(output), SKELETON, margin))
    return json.loads(output.read_text()), lines


def test_a_table_comes_back_as_persons_of_its_images(tmp_path):
    rows = [
        _row("b.png", (10, 12.5, 80, 70), 1, neck_x="", neck_y="", left_knee_v=1),
        _row("a.png", None, 2, left_knee_v="", neck_v=0, head_top_x=" 33.25 "),
        _row("b.png", (-5, 0, 60.25, 40), 3, right_hip_x=120, right_hip_y=0),
    ]
    data, lines = _convert_csv(tmp_path, _table(tmp_path / "people.csv", rows))
    assert [(i["id"], i["file_name"], i["width"], i["height"]) for i in data["images"]] == [
        (1, "b.png", 120, 90),
        (2, "a.png", 120, 90),
    ]
    annotations = read_annotations(str(tmp_path / "people.json"), SKELETON)
    selected, dropped = select_persons(annotations, "labelled")
    assert [(p["id"], p["image_id"]) for p in selected] == [(1, 1), (2, 2), (3, 1)] and not dropped
    found = {
        (p["id"], name): k.tolist() for p in selected for name, k in zip(SKELETON.joints, p["keypoints"], strict=True)
    }
    assert found[1, "neck"] == found[2, "neck"] == [0, 0, 0]
    assert found[1, "left_knee"] == [rows[0]["left_knee_x"], rows[0]["left_knee_y"], 1]
    assert found[2, "left_knee"] == [rows[1]["left_knee_x"], rows[1]["left_knee_y"], 2]
    assert found[2, "head_top"] == [33.25, rows[1]["head_top_y"], 2]
    assert found[3, "right_hip"] == [120, 0, 2]
    assert selected[0]["bbox"] == [10, 12.5, 80, 70] and selected[2]["bbox"] == [-5, 0, 60.25, 40]
    second = selected[1]["keypoints"]
    assert selected[1]["bbox"] == coco_builder.box_of_joints(second[:, :2], second[:, 2], SIZE, 0.12)
    assert lines == [f"{tmp_path}/people.json: 2 images, 3 persons, 40 of 42 joints labelled (1 occluded)"]


def test_pycocotools_reads_a_converted_table(tmp_path, capsys):
    rows = [_row("a.png", seed=1), _row("b.png", seed=2), _row("a.png", seed=3)]
    _convert_csv(tmp_path, _table(tmp_path / "people.csv", rows))
    dataset = COCO(str(tmp_path / "people.json"))
    by_name = {image["file_name"]: number for number, image in dataset.imgs.items()}
    assert dataset.getAnnIds(imgIds=[by_name["a.png"]]) == [1, 3]
    assert dataset.loadAnns(2)[0]["keypoints"][::3] == [rows[1][column] for column in JOINT_COLUMNS[::2]]
    assert dataset.loadCats(1)[0]["keypoints"] == list(SKELETON.joints)


_JOINT = st.one_of(
    st.just((0.0, 0.0, 0)),
    st.tuples(st.floats(0, SIZE[0]), st.floats(0, SIZE[1]), st.sampled_from((1, 2))),
)
_PERSON = st.tuples(
    st.sampled_from(("a.png", "b.png")),
    st.lists(_JOINT, min_size=14, max_size=14),
    st.tuples(st.floats(-20, 100), st.floats(-20, 80), st.floats(21, 300), st.floats(21, 300)),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_PERSON, min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_every_value_of_a_table_survives(tmp_path, people, random):
    rows = []
    for name, joints, box in people:
        row = {"file_name": name} | dict(zip(BOX_COLUMNS, box, strict=True))
        for joint, (x, y, v) in zip(SKELETON.joints, joints, strict=True):
            row |= {f"{joint}_x": x, f"{joint}_y": y, f"{joint}_v": v} if v else {}
        rows.append(row)
    columns = ["file_name", *BOX_COLUMNS, *JOINT_COLUMNS, *FLAG_COLUMNS]
    random.shuffle(columns)
    data, lines = _convert_csv(tmp_path, _table(tmp_path / "people.csv", rows, columns))
    names = {image["id"]: image["file_name"] for image in data["images"]}
    assert [p["id"] for p in data["annotations"]] == list(range(1, len(people) + 1))
    for person, (name, joints, box) in zip(data["annotations"], people, strict=True):
        assert names[person["image_id"]] == name
        assert person["bbox"] == list(box)
        assert person["keypoints"] == [number for joint in joints for number in joint]
    assert len(lines) == 1


def test_joints_outside_the_image_are_unlabelled_and_counted(tmp_path):
    row = _row("a.png", (0, 0, 120, 90), neck_x=120.5, left_hip_y=-1)
    data, lines = _convert_csv(tmp_path, _table(tmp_path / "people.csv", [row]))
    assert data["annotations"][0]["num_keypoints"] == 12
    assert lines[1:] == ["labelled at the source, unlabelled here: 2 joints outside their image"]


def test_a_person_with_a_box_and_no_joint_is_kept_and_the_selection_drops_it(tmp_path):
    rows = [{"file_name": "a.png"} | dict(zip(BOX_COLUMNS, (1, 2, 30, 40), strict=True)), _row("a.png")]
    table = _table(tmp_path / "people.csv", rows, ["file_name", *BOX_COLUMNS, *JOINT_COLUMNS])
    _convert_csv(tmp_path, table)
    selected, dropped = select_persons(read_annotations(str(tmp_path / "people.json"), SKELETON), "labelled")
    assert [person["id"] for person in selected] == [2] and dropped == {NO_JOINT: 1}


def test_tables_of_spreadsheets_with_a_mark_in_front_and_empty_lines(tmp_path):
    table = pathlib.Path(_table(tmp_path / "people.csv", [_row("a.png"), _row("b.png")]))
    header, first, second = table.read_bytes().splitlines()
    table.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join([header, first, b"", b"," * header.count(b","), second, b""]))
    data, _ = _convert_csv(tmp_path, str(table))
    assert [person["id"] for person in data["annotations"]] == [1, 2]


@pytest.mark.parametrize(
    ("cells", "complaint"),
    [
        ({"neck_x": "12,5"}, "line 3, column neck_x: '12,5' is no number"),
        ({"neck_x": "nan"}, "line 3, column neck_x: 'nan' is no number"),
        ({"neck_x": "1_0"}, "line 3, column neck_x: '1_0' is no number"),
        ({"neck_x": ""}, "line 3, column neck_x: it is empty, but the joint's other cells are not"),
        ({"neck_y": ""}, "line 3, column neck_y: it is empty"),
        ({"neck_x": "", "neck_y": "", "neck_v": 1}, "line 3, column neck_x: it is empty"),
        ({"neck_v": 3}, "line 3, column neck_v: 3 is no visibility flag"),
        ({"neck_v": "yes"}, "line 3, column neck_v: 'yes' is no number"),
        ({"width": ""}, "line 3, column width: it is empty, but the box's other cells are not"),
        ({"height": 0}, "line 3, column height: the box's height is 0"),
        ({"x": 120}, "line 3: the box .* lies outside a.png of 120 x 90 pixels"),
        ({"y": -40}, "line 3: the box .* lies outside a.png"),
        ({"file_name": ""}, "line 3, column file_name: it is empty"),
        ({"file_name": "none.png"}, "line 3, column file_name: .*none.png: no such image"),
        ({"file_name": "text.png"}, "line 3, column file_name: .*text.png: not an image"),
    ],
)
def test_a_bad_cell_is_named_by_file_line_and_column(cells, complaint, tmp_path):
    photos = _photos(tmp_path / "photos", ["a.png"])
    (tmp_path / "photos" / "text.png").write_text("no picture")
    columns = ["file_name", *BOX_COLUMNS, *JOINT_COLUMNS, *FLAG_COLUMNS]
    rows = [_row("a.png", (1, 2, 30, 40)), _row("a.png", (1, 2, 30, 40)) | cells]
    table = _table(tmp_path / "people.csv", rows, columns)
    with pytest.raises(InputError, match=complaint) as error:
        convert_csv.convert(convert_csv.CsvOptions(table, photos, str(tmp_path / "people.json"), SKELETON))
    assert helpers.one_line(error).startswith(f"{table}: line 3")
    assert not (tmp_path / "people.json").exists()


def test_a_person_without_a_box_and_with_one_joint_is_named_by_its_line(tmp_path):
    rows = [_row("a.png"), {"file_name": "a.png", "neck_x": 5, "neck_y": 6}]
    with pytest.raises(InputError, match="line 3: the person has no box, and too few joints"):
        _convert_csv(tmp_path, _table(tmp_path / "people.csv", rows))


HEADER = ",".join(["file_name", *JOINT_COLUMNS])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "it is empty: its first line must name the columns"),
        ("\n\n", "it is empty: its first line must name the columns"),
        (HEADER, "but no persons below it"),
        (HEADER + "\n\n", "but no persons below it"),
        (HEADER + ",neck_x\n", "line 1: the column 'neck_x' is there 2 times"),
        (HEADER + ",nek_v\n", "line 1: skeleton 'lsp' has no column 'nek_v': did you mean 'neck_v'"),
        (HEADER + ",age\n", "line 1: skeleton 'lsp' has no column 'age'$"),
        (HEADER.replace(",", ";") + "\n", "separate the cells with commas"),
        (HEADER + ",x,y\n", "line 1: it lacks the columns width, height"),
        (HEADER.replace("file_name,", "") + "\n", "line 1: it lacks the columns file_name"),
        ("file_name\n", "lacks the columns right_ankle_x, right_ankle_y, right_knee_x, right_knee_y and 24 more"),
        (HEADER + "\na.png,1,2\n", "line 2: it has 3 cells, but the first line has 29 columns"),
        (HEADER + '\n"a.png\n', "line 2: it is no CSV"),
    ],
)
def test_a_bad_table_is_one_line(text, complaint, tmp_path):
    path = tmp_path / "people.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=complaint) as error:
        _convert_csv(tmp_path, str(path))
    assert helpers.one_line(error).startswith(f"{path}: ")


def test_tables_that_are_absent_or_in_another_encoding(tmp_path):
    with pytest.raises(InputError, match="none.csv: no such .csv file"):
        _convert_csv(tmp_path, str(tmp_path / "none.csv"))
    path = tmp_path / "people.csv"
    path.write_bytes((HEADER + "\n\xe9.png").encode("latin-1"))
    with pytest.raises(InputError, match="people.csv: it is not text in UTF-8"):
        _convert_csv(tmp_path, str(path))


# --- commands ---


def _run(command, *arguments):
    line = [sys.executable, "-m", f"tfrecords_tools.{command}", *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=120)


def test_command_convert_lsp(tmp_path):
    points, marks = _persons(3)
    joints = _save_mat(tmp_path / "joints.mat", points, marks, "lspet")
    images = _photos(tmp_path / "photos", ["im00001.jpg", "im00002.jpg"])
    output = tmp_path / "out" / "labels.json"
    arguments = [f"--joints={joints}", f"--images={images}", f"--output={output}", "--skeleton=coco"]
    done = _run("convert_lsp", *arguments)
    assert done.returncode == 1 and not output.exists()
    assert "1 of 3 images are absent, im00003.jpg the first" in done.stderr and len(done.stderr.splitlines()) == 1
    done = _run("convert_lsp", *arguments, "--last=2", "--margin=0")
    assert done.returncode == 0 and done.stderr == "" and "2 images, 2 persons" in done.stdout
    data = json.loads(output.read_text())
    low, high = (getattr(points[1][marks[1] == 1], side)(0) for side in ("min", "max"))
    np.testing.assert_allclose(data["annotations"][1]["bbox"], [*low, *(high - low)], atol=1e-9)
    assert os.listdir(output.parent) == ["labels.json"]


def test_command_convert_csv(tmp_path):
    images = _photos(tmp_path / "photos", ["a.png"])
    table = _table(tmp_path / "people.csv", [_row("a.png")])
    output = tmp_path / "people.json"
    arguments = [f"--csv={table}", f"--images={images}", f"--output={output}"]
    done = _run("convert_csv", *arguments, "--skeleton=lsp")
    assert done.returncode == 0 and done.stderr == "" and "1 images, 1 persons" in done.stdout
    assert len(json.loads(output.read_text())["annotations"][0]["keypoints"]) == 42
    # COCO's joints are others.
    done = _run("convert_csv", *arguments)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "people.csv: line 1: skeleton 'coco' has no column 'neck_x'" in done.stderr
