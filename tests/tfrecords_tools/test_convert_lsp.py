"""Leeds Sports Pose becomes a COCO keypoint file, which the writer and pycocotools read."""

import json
import os
import pathlib
import sys
import zipfile

import numpy as np
import pytest
from pycocotools.coco import COCO

from kpose.core import skeletons
from kpose.core.errors import InputError
from kpose.data import records
from kpose.data.coco_files import read_labels
from tests import helpers
from tests.tfrecords_tools import converter_inputs as inputs
from tfrecords_tools import coco_builder, convert_lsp
from tfrecords_tools.write_coco import writer
from tfrecords_tools.write_coco.annotations import select_persons

scipy_io = pytest.importorskip("scipy.io", reason="scipy is not installed: pip install scipy")


def _save_mat(path, points, marks, form):
    joints = np.concatenate([points, marks[..., None]], -1)
    scipy_io.savemat(path, {"joints": joints.transpose((2, 1, 0) if form == "lsp" else (1, 2, 0))})
    return str(path)


def _lsp(tmp_path, points, marks, form="lsp", names=None, **changes):
    """Writes and converts a joints.mat; returns (data of the COCO file, printed lines)."""
    digits = {"lsp": 4, "lspet": 5}[form]
    names = [f"im{index + 1:0{digits}d}.jpg" for index in range(len(points))] if names is None else names
    images = changes.pop("images", None) or inputs.photos(tmp_path / "photos", names)
    joints = _save_mat(tmp_path / "joints.mat", points, marks, form)
    output = str(tmp_path / "labels.json")
    lines = convert_lsp.convert(convert_lsp.LspOptions(joints, images, output, **changes))
    return json.loads(pathlib.Path(output).read_text()), lines


def _keypoints(data):
    """[N, K, 3] in the frame of joints.mat: the COCO file has pixel indices, half a pixel less."""
    found = np.array([person["keypoints"] for person in data["annotations"]], float)
    found = found.reshape(len(data["annotations"]), -1, 3)
    return found + np.where(found[..., 2:] > 0, [0.5, 0.5, 0], 0)


@pytest.mark.parametrize("form", ["lsp", "lspet"])
def test_joints_of_both_forms_are_in_the_coco_file(form, tmp_path):
    points, marks = inputs.persons(5)
    data, lines = _lsp(tmp_path, points, marks, form)
    found = _keypoints(data)
    flags = np.where(marks == 1, 1, 2) if form == "lsp" else 2 * marks
    np.testing.assert_array_equal(found[..., 2], flags)
    np.testing.assert_allclose(found[..., :2], points * (flags > 0)[..., None], atol=1e-9)
    stem = "im000" if form == "lsp" else "im0000"
    assert [image["file_name"] for image in data["images"]] == [f"{stem}{n}.jpg" for n in range(1, 6)]
    assert {(image["width"], image["height"]) for image in data["images"]} == {inputs.SIZE}
    assert [(p["id"], p["image_id"]) for p in data["annotations"]] == [(n, n) for n in range(1, 6)]
    assert [p["num_keypoints"] for p in data["annotations"]] == (flags > 0).sum(1).tolist()
    assert len(lines) == 1 and f"5 images, 5 persons, {(flags > 0).sum()} of 70 joints labelled" in lines[0]
    selected, _ = select_persons(read_labels(str(tmp_path / "labels.json"), skeletons.LSP), "labelled")
    assert [person.id for person in selected] == [1, 2, 3, 4, 5]


def test_joints_of_the_coco_skeleton_are_matched_by_name(tmp_path):
    points, marks = inputs.persons(3)
    data, _ = _lsp(tmp_path, points, marks, skeleton=skeletons.COCO)
    found = _keypoints(data)
    assert found.shape == (3, 17, 3)
    for index, name in enumerate(skeletons.COCO.joints):
        if name in skeletons.LSP.joints:
            own = skeletons.LSP.joints.index(name)
            np.testing.assert_allclose(found[:, index, :2], points[:, own], atol=1e-9)
            np.testing.assert_array_equal(found[:, index, 2], 2 - marks[:, own])
        else:
            assert name in ("nose", "left_eye", "right_eye", "left_ear", "right_ear")
            assert (found[:, index] == 0).all()
    assert all(person["num_keypoints"] == 12 for person in data["annotations"])
    both, _ = _lsp(tmp_path, points, marks, skeleton=skeletons.LSP)
    assert [p["bbox"] for p in both["annotations"]] == [p["bbox"] for p in data["annotations"]]


@pytest.mark.parametrize("skeleton", [skeletons.COCO, skeletons.LSP], ids=lambda table: table.name)
def test_pycocotools_reads_the_file_and_its_category(skeleton, tmp_path, capsys):
    _lsp(tmp_path, *inputs.persons(3), skeleton=skeleton)
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
    points, marks = inputs.persons(4)
    _lsp(tmp_path, points, marks)
    manifest = writer.write_records(
        helpers.options(tmp_path / "labels.json", tmp_path / "photos", tmp_path / "out", skeleton=skeletons.LSP)
    )
    assert manifest["persons"] == 4
    assert records.find(str(tmp_path / "out" / "train-*")).skeleton.name == "lsp"


def test_joints_not_finite_or_outside_become_unlabelled_and_are_counted(tmp_path):
    points, marks = inputs.persons(2)
    marks[:] = 1
    points[0, 3] = np.nan, 30
    points[0, 4] = np.inf, 30
    points[1, 5] = -0.06, 30
    points[1, 6] = 30, 90.06
    # On the edge; and outside by less than the rounding to 0.1.
    points[1, 7], points[1, 8] = (0, 90), (-0.04, 120 - 90)
    marks[1, 9], points[1, 9] = 0, (-500, -500)
    data, lines = _lsp(tmp_path, points, marks, "lspet")
    found = _keypoints(data)
    assert np.argwhere(found[..., 2] == 0).tolist() == [[0, 3], [0, 4], [1, 5], [1, 6], [1, 9]]
    assert (found[found[..., 2] == 0] == 0).all()
    assert found[1, 7].tolist() == [0, 90, 2] and found[1, 8].tolist() == [0, 30, 2]
    assert lines[1:] == [
        "labelled in the source, unlabelled here: 2 joints without finite coordinates, 2 joints outside their image"
    ]
    inside = found[0][found[0, :, 2] > 0][:, :2]
    assert data["annotations"][0]["bbox"] == coco_builder.box_of_joints(inside, np.ones(len(inside)), inputs.SIZE, 0.12)


def test_a_person_without_a_box_is_left_out_and_counted(tmp_path):
    points, marks = inputs.persons(3)
    marks[:] = 1
    marks[1] = 0
    marks[1, 4] = 1
    data, lines = _lsp(tmp_path, points, marks, "lspet")
    assert [image["id"] for image in data["images"]] == [person["id"] for person in data["annotations"]] == [1, 3]
    assert lines[-1] == "left out: 1 persons with too few labelled joints for a box"
    with pytest.raises(InputError, match="labels.json: no person has enough joints for a box"):
        _lsp(tmp_path, points, np.zeros_like(marks), "lspet")
    assert json.loads((tmp_path / "labels.json").read_text()) == data


def test_first_and_last_choose_images_that_keep_their_numbers(tmp_path):
    points, marks = inputs.persons(6)
    data, _ = _lsp(tmp_path, points, marks, names=["im0003.jpg", "im0004.jpg"], first=3, last=4)
    assert [image["id"] for image in data["images"]] == [3, 4]
    np.testing.assert_allclose(_keypoints(data)[..., :2], points[2:4], atol=1e-9)
    for first, last in ((0, 2), (4, 3), (1, 7)):
        with pytest.raises(InputError, match=f"images {first} to {last} were requested, but it has images 1 to 6"):
            _lsp(tmp_path, points, marks, first=first, last=last)


def test_missing_images_stop_or_are_left_out_and_counted(tmp_path):
    points, marks = inputs.persons(5)
    names = ["im00001.jpg", "im00002.jpg", "im00004.jpg"]
    with pytest.raises(
        InputError, match="2 of 5 images are missing; the first is im00003.jpg.*--on_missing=skip"
    ) as error:
        _lsp(tmp_path, points, marks, "lspet", names)
    helpers.one_line(error)
    assert not (tmp_path / "labels.json").exists()
    data, lines = _lsp(tmp_path, points, marks, "lspet", names, on_missing="skip")
    assert [image["file_name"] for image in data["images"]] == names
    assert lines[-1] == "left out: 2 of 5 images, which are missing; the first is im00003.jpg"
    # With the number of digits of the other set.
    with pytest.raises(InputError, match="all 5 images are missing.*with 4 digits, LSP Extended with 5"):
        _lsp(tmp_path, points, marks, "lsp", names, on_missing="skip")


def test_form_sets_the_meaning_of_the_third_number_for_any_shape(tmp_path):
    points, marks = inputs.persons(3)
    path = _save_mat(tmp_path / "joints.mat", points, marks, "lspet")
    for form, flags in (("auto", 2 * marks), ("lspet", 2 * marks), ("lsp", 2 - marks)):
        found, labels, _ = convert_lsp.read_joints(path, form)
        np.testing.assert_array_equal(found, points)
        np.testing.assert_array_equal(labels, flags)
    inputs.photos(tmp_path / "photos", ["im0001.jpg", "im0002.jpg", "im0003.jpg"])
    options = convert_lsp.LspOptions(path, str(tmp_path / "photos"), str(tmp_path / "a.json"), form="lsp")
    assert "3 images" in convert_lsp.convert(options)[0]


@pytest.mark.parametrize("form", ["lsp", "lspet"])
def test_a_set_of_one_image_has_no_last_axis(form, tmp_path):
    points, marks = inputs.persons(1)
    joints = np.concatenate([points[0], marks[0, :, None]], -1)
    scipy_io.savemat(tmp_path / "one.mat", {"joints": joints.T if form == "lsp" else joints})
    found, _, read_form = convert_lsp.read_joints(str(tmp_path / "one.mat"))
    assert read_form == form
    np.testing.assert_array_equal(found, points)


def _bad_mat(path, case):
    path = str(path)
    if case == "no MATLAB file":
        pathlib.Path(path).write_text("<html>404</html>" * 40)
    elif case == "empty":
        pathlib.Path(path).write_bytes(b"")
    elif case == "cut short":
        _save_mat(path, *inputs.persons(50), "lsp")
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
        ("MATLAB 7.3", "a MATLAB 7.3 file.*save it with -v7"),
        ("another variable", "no variable named joints"),
        ("another shape", r"shape \[2, 14, 3\]: it must be \[3, 14, N\]"),
        ("text", "its joints are not numbers"),
        ("odd marks", "the third number of a joint is 7.5"),
    ],
)
def test_a_bad_joints_mat_is_one_line_that_names_it(case, complaint, tmp_path):
    path = _bad_mat(tmp_path / "joints.mat", case)
    with pytest.raises(InputError, match=complaint) as error:
        convert_lsp.read_joints(path)
    assert helpers.one_line(error).startswith(f"{path}: ")


def test_without_scipy_the_error_says_what_to_install(tmp_path, monkeypatch):
    path = _save_mat(tmp_path / "joints.mat", *inputs.persons(1), "lsp")
    for name in [name for name in sys.modules if name.partition(".")[0] == "scipy"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=r"scipy is not installed: pip install scipy.*'\.\[lsp\]'"):
        convert_lsp.read_joints(path)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"output": "labels.json.gz"}, "must end in .json"),
        ({"margin": -0.1}, "margin=-0.1"),
        ({"margin": float("nan")}, "margin=nan"),
        ({"form": "mpii"}, "form is 'mpii'"),
        ({"on_missing": "draw"}, "on_missing is 'draw'"),
    ],
)
def test_bad_options(change, complaint):
    with pytest.raises(InputError, match=complaint) as error:
        convert_lsp.LspOptions(**{"joints": "j.mat", "images": "photos", "output": "a.json"} | change)
    helpers.one_line(error)


def test_images_in_a_zip_file_give_the_same_coco_file_as_in_a_folder(tmp_path):
    folder = inputs.photos(tmp_path / "photos", ["im0001.jpg", "im0002.jpg"], size=(640, 480))
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for path in (tmp_path / "photos").iterdir():
            archive.write(path, f"images/{path.name}")
    points, marks = inputs.persons(2)
    from_folder, _ = _lsp(tmp_path, points, marks, images=folder)
    from_zip, _ = _lsp(tmp_path, points, marks, images=str(tmp_path / "photos.zip"))
    assert from_zip == from_folder and from_zip["images"][0]["width"] == 640


@pytest.mark.parametrize(
    ("name", "reference", "first", "last"),
    [
        ("lsp", "person_keypoints_lsp_train.json", 1, 1000),
        ("lsp", "person_keypoints_lsp_test.json", 1001, 2000),
        pytest.param("lspet", "person_keypoints_lspet.json", 1, None, marks=pytest.mark.slow),
    ],
)
def test_the_real_sets_agree_with_reference_labels(name, reference, first, last, tmp_path):
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
    # The reference has the numbers of joints.mat.
    ours, theirs = _keypoints(data), np.reshape([p["keypoints"] for p in expected["annotations"]], (-1, 17, 3))
    np.testing.assert_array_equal(ours[..., 2], theirs[..., 2])
    boxes, expected_boxes = (np.array([p["bbox"] for p in d["annotations"]]) for d in (data, expected))
    if name == "lsp":
        np.testing.assert_allclose(ours, theirs, atol=1e-9)
        np.testing.assert_array_equal(boxes, expected_boxes)
        assert len(lines) == 1
        return
    # Its joints.mat has single precision: a value halfway between two tenths may be rounded either
    # way.
    assert np.abs(ours - theirs).max() < 0.11 and (np.abs(ours - theirs) > 1e-6).sum() < 60
    # The reference boxes include joints outside the image, which ours do not use.
    points, flags, _ = convert_lsp.read_joints(str(folder / "joints.mat"))
    sizes = np.array([(image["width"], image["height"]) for image in data["images"]])[:, None]
    outside = (((points < -0.05) | (points > sizes + 0.05)).any(-1) & (flags > 0)).sum(1)
    assert np.abs(boxes - expected_boxes)[outside == 0].max() < 0.11
    assert lines[1:] == [f"labelled in the source, unlabelled here: {outside.sum()} joints outside their image"]
    assert 0 < outside.sum() < 20


def test_command_convert_lsp(tmp_path):
    points, marks = inputs.persons(3)
    joints = _save_mat(tmp_path / "joints.mat", points, marks, "lspet")
    images = inputs.photos(tmp_path / "photos", ["im00001.jpg", "im00002.jpg"])
    output = tmp_path / "out" / "labels.json"
    arguments = [f"--joints={joints}", f"--images={images}", f"--output={output}", "--skeleton=coco"]
    done = inputs.run("convert_lsp", *arguments)
    assert done.returncode == 1 and not output.exists()
    assert "1 of 3 images are missing; the first is im00003.jpg" in done.stderr and len(done.stderr.splitlines()) == 1
    done = inputs.run("convert_lsp", *arguments, "--last=2", "--margin=0")
    assert done.returncode == 0 and done.stderr == "" and "2 images, 2 persons" in done.stdout
    data = json.loads(output.read_text())
    low, high = (getattr(points[1][marks[1] == 1], side)(0) for side in ("min", "max"))
    np.testing.assert_allclose(data["annotations"][1]["bbox"], [*low, *(high - low)], atol=1e-9)
    assert os.listdir(output.parent) == ["labels.json"]
