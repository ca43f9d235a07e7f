"""CSV tables of persons become COCO keypoint files, which the writer and pycocotools read."""

import csv
import json
import pathlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO

from kpose.core import skeletons
from kpose.core.errors import InputError
from kpose.data.coco_files import read_labels
from tests import helpers
from tests.tfrecords_tools import converter_inputs as inputs
from tfrecords_tools import coco_builder, convert_csv
from tfrecords_tools.write_coco.annotations import NO_JOINT, select_persons

SKELETON = skeletons.LSP
JOINT_COLUMNS = [f"{joint}_{part}" for joint in SKELETON.joints for part in "xy"]
FLAG_COLUMNS = [f"{joint}_v" for joint in SKELETON.joints]
BOX_COLUMNS = list(convert_csv.BOX)


def _row(file_name="a.png", box=None, seed=0, **cells):
    """A line of a table: all joints are labelled and inside `inputs.SIZE`."""
    points = inputs.persons(1, seed)[0][0]
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
        inputs.photos(images, ["a.png", "b.png"])
    output = tmp_path / "people.json"
    lines = convert_csv.convert(convert_csv.CsvOptions(table, str(images), str(output), SKELETON, margin))
    return json.loads(output.read_text()), lines


@pytest.mark.parametrize("absolute", [False, True])
def test_names_of_images_do_not_leave_the_folder(absolute, tmp_path):
    inputs.photos(tmp_path / "outside", ["a.png"])
    (tmp_path / "photos").mkdir()
    name = str(tmp_path / "outside" / "a.png") if absolute else "../outside/a.png"
    with pytest.raises(InputError, match="all images are missing|leaves the folder") as error:
        _convert_csv(tmp_path, _table(tmp_path / "people.csv", [_row(name)]))
    helpers.one_line(error)


def test_the_lines_of_a_table_become_persons_of_their_images(tmp_path):
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
    annotations = read_labels(str(tmp_path / "people.json"), SKELETON)
    selected, dropped = select_persons(annotations, "labelled")
    assert [(p.id, p.image_id) for p in selected] == [(1, 1), (2, 2), (3, 1)] and not dropped
    found = {(p.id, name): k.tolist() for p in selected for name, k in zip(SKELETON.joints, p.keypoints, strict=True)}
    assert found[1, "neck"] == found[2, "neck"] == [0, 0, 0]
    # The table has pixel indices, a row the middles of these pixels.
    assert found[1, "left_knee"] == [rows[0]["left_knee_x"] + 0.5, rows[0]["left_knee_y"] + 0.5, 1]
    assert found[2, "left_knee"] == [rows[1]["left_knee_x"] + 0.5, rows[1]["left_knee_y"] + 0.5, 2]
    assert found[2, "head_top"] == [33.75, rows[1]["head_top_y"] + 0.5, 2]
    assert found[3, "right_hip"] == [120.5, 0.5, 2]
    assert selected[0].box.tolist() == [10, 12.5, 80, 70] and selected[2].box.tolist() == [-5, 0, 60.25, 40]
    second = selected[1].keypoints
    assert selected[1].box.tolist() == coco_builder.box_of_joints(second[:, :2], second[:, 2], inputs.SIZE, 0.12)
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
    st.tuples(st.floats(0, inputs.SIZE[0]), st.floats(0, inputs.SIZE[1]), st.sampled_from((1, 2))),
)
_PERSON = st.tuples(
    st.sampled_from(("a.png", "b.png")),
    st.lists(_JOINT, min_size=14, max_size=14),
    st.tuples(st.floats(-20, 100), st.floats(-20, 80), st.floats(21, 300), st.floats(21, 300)),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_PERSON, min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_all_values_of_a_table_are_kept(tmp_path, people, random):
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
    assert lines[1:] == ["labelled in the source, unlabelled here: 2 joints outside their image"]


def test_a_person_with_a_box_and_no_joint_is_kept_and_the_selection_drops_it(tmp_path):
    rows = [{"file_name": "a.png"} | dict(zip(BOX_COLUMNS, (1, 2, 30, 40), strict=True)), _row("a.png")]
    table = _table(tmp_path / "people.csv", rows, ["file_name", *BOX_COLUMNS, *JOINT_COLUMNS])
    _convert_csv(tmp_path, table)
    selected, dropped = select_persons(read_labels(str(tmp_path / "people.json"), SKELETON), "labelled")
    assert [person.id for person in selected] == [2] and dropped == {NO_JOINT: 1}


def test_tables_with_a_byte_order_mark_and_empty_lines(tmp_path):
    table = pathlib.Path(_table(tmp_path / "people.csv", [_row("a.png"), _row("b.png")]))
    header, first, second = table.read_bytes().splitlines()
    table.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join([header, first, b"", b"," * header.count(b","), second, b""]))
    data, _ = _convert_csv(tmp_path, str(table))
    assert [person["id"] for person in data["annotations"]] == [1, 2]


@pytest.mark.parametrize(
    ("cells", "complaint"),
    [
        ({"neck_x": "12,5"}, "line 3, column neck_x: '12,5' is not a number"),
        ({"neck_x": "nan"}, "line 3, column neck_x: 'nan' is not a number"),
        ({"neck_x": "1_0"}, "line 3, column neck_x: '1_0' is not a number"),
        ({"neck_x": ""}, "line 3, column neck_x: it is empty, but other cells of the joint are not"),
        ({"neck_y": ""}, "line 3, column neck_y: it is empty"),
        ({"neck_x": "", "neck_y": "", "neck_v": 1}, "line 3, column neck_x: it is empty"),
        ({"neck_v": 3}, "line 3, column neck_v: 3 is not a visibility flag"),
        ({"neck_v": "yes"}, "line 3, column neck_v: 'yes' is not a number"),
        ({"width": ""}, "line 3, column width: it is empty, but other cells of the box are not"),
        ({"height": 0}, "line 3, column height: the box's height is 0"),
        ({"x": 120}, "line 3: the box .* is outside a.png of 120 x 90 pixels"),
        ({"y": -40}, "line 3: the box .* is outside a.png"),
        ({"file_name": ""}, "line 3, column file_name: it is empty"),
        ({"file_name": "none.png"}, "line 3, column file_name: .*none.png: no such image"),
        ({"file_name": "text.png"}, "line 3, column file_name: .*text.png: not an image"),
    ],
)
def test_a_bad_cell_is_named_by_file_line_and_column(cells, complaint, tmp_path):
    photos = inputs.photos(tmp_path / "photos", ["a.png"])
    (tmp_path / "photos" / "text.png").write_text("not an image")
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
        ("", "empty: the first line must name the columns"),
        ("\n\n", "empty: the first line must name the columns"),
        (HEADER, "but no persons$"),
        (HEADER + "\n\n", "but no persons$"),
        (HEADER + ",neck_x\n", "line 1: the column 'neck_x' is repeated: it occurs 2 times"),
        (HEADER + ",nek_v\n", "line 1: skeleton 'lsp' has no column 'nek_v': did you mean 'neck_v'"),
        (HEADER + ",age\n", "line 1: skeleton 'lsp' has no column 'age'$"),
        (HEADER.replace(",", ";") + "\n", "separate the cells with commas"),
        (HEADER + ",x,y\n", "line 1: these columns are missing: width, height"),
        (HEADER.replace("file_name,", "") + "\n", "line 1: these columns are missing: file_name"),
        (
            "file_name\n",
            "these columns are missing: right_ankle_x, right_ankle_y, right_knee_x, right_knee_y and 24 more",
        ),
        (HEADER + "\na.png,1,2\n", "line 2: it has 3 cells, but the first line has 29 columns"),
        (HEADER + '\n"a.png\n', "line 2: not CSV"),
    ],
)
def test_a_bad_table_is_one_line(text, complaint, tmp_path):
    path = tmp_path / "people.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=complaint) as error:
        _convert_csv(tmp_path, str(path))
    assert helpers.one_line(error).startswith(f"{path}: ")


def test_a_missing_table_and_one_in_another_encoding(tmp_path):
    with pytest.raises(InputError, match="none.csv: no such .csv file"):
        _convert_csv(tmp_path, str(tmp_path / "none.csv"))
    path = tmp_path / "people.csv"
    path.write_bytes((HEADER + "\n\xe9.png").encode("latin-1"))
    with pytest.raises(InputError, match="people.csv: not text in UTF-8"):
        _convert_csv(tmp_path, str(path))


def test_command_convert_csv(tmp_path):
    images = inputs.photos(tmp_path / "photos", ["a.png"])
    table = _table(tmp_path / "people.csv", [_row("a.png")])
    output = tmp_path / "people.json"
    arguments = [f"--csv={table}", f"--images={images}", f"--output={output}"]
    done = inputs.run("convert_csv", *arguments, "--skeleton=lsp")
    assert done.returncode == 0 and done.stderr == "" and "1 images, 1 persons" in done.stdout
    assert len(json.loads(output.read_text())["annotations"][0]["keypoints"]) == 42
    # COCO has other joints.
    done = inputs.run("convert_csv", *arguments)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "people.csv: line 1: skeleton 'coco' has no column 'neck_x'" in done.stderr
