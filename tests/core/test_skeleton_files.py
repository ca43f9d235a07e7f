"""Skeletons of files and COCO categories: from names alone to a table that comes back the same."""

import dataclasses
import json

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from kpose.core import skeleton_files, skeletons
from kpose.core.errors import InputError
from tests import docs_data, helpers

COCO, LSP = skeletons.COCO, skeletons.LSP
HAND = ["wrist", *(f"{finger}_{k}" for finger in ("thumb", "index", "middle", "ring", "little") for k in range(1, 5))]


def names_of(joints):
    return {(joints[a], joints[b]) for a, b in skeleton_files.pairs_of_names(joints)}


@pytest.mark.parametrize("table", [COCO, LSP], ids=lambda table: table.name)
def test_the_pairs_of_the_known_tables_follow_from_their_names(table):
    assert set(skeleton_files.pairs_of_names(table.joints)) == set(table.pairs)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("left_eye", "right_eye"),
        ("Left Eye", "Right Eye"),
        ("eye-left", "eye-right"),
        ("leftear", "rightear"),
        ("L_eye", "R_eye"),
        ("eye_l", "eye_r"),
        ("l eye", "r eye"),
        ("eye.L", "eye.R"),
        ("LShoulder", "RShoulder"),
        ("pawL", "pawR"),
        ("左手", "右手"),
        ("LEFT_PAW", "RIGHT_PAW"),
    ],
)
def test_spellings_of_left_and_right(left, right):
    assert names_of(["nose", right, left]) == {(left, right)}


def test_names_that_only_look_like_sides_are_no_pairs():
    assert not names_of(["lip", "rip", "ball", "bar", "left_eye", "light", "right", "L1", "R2", "leftover"])


def test_a_hand_needs_names_only():
    table = skeleton_files.from_category({"id": 7, "name": "hand", "keypoints": HAND, "skeleton": [[1, 2], [2, 3]]})
    assert (table.name, table.num_joints, table.pairs, table.bones) == ("hand", 21, (), ((0, 1), (1, 2)))
    assert table.oks_sigmas == (skeletons.DEFAULT_SIGMA,) * 21 and not table.limbs and not table.torso
    assert table.flip_order == tuple(range(21)) and table.limb_names == ()
    lines = skeleton_files.describe(table)
    assert "no pairs" in lines[0] and "0.067 for every joint" in lines[1]


def test_the_default_sigma_is_the_mean_of_cocos():
    assert sum(COCO.sigmas) / 17 == pytest.approx(skeletons.DEFAULT_SIGMA, abs=5e-4)


@pytest.mark.parametrize("order", [list(COCO.joints), list(COCO.joints[::-1]), [j.upper() for j in COCO.joints]])
def test_a_category_with_cocos_joints_is_coco(order):
    assert skeleton_files.from_category({"name": "person", "keypoints": order}) is COCO


def test_bones_of_other_tools_count_from_0_or_1_and_may_be_wrong():
    joints = ["a", "b", "c"]
    bones = [
        skeleton_files.from_category({"keypoints": joints, "skeleton": lines}).bones
        for lines in ([[1, 2], [2, 3]], [[0, 1], [1, 2]], [[1, 2], [1, 9], [2, 2], "x", None], None, {})
    ]
    assert bones == [((0, 1), (1, 2)), ((0, 1), (1, 2)), ((0, 1),), (), ()]


def test_a_mirror_order_gives_the_pairs_and_the_names_their_left():
    fields = {"keypoints": ["tip", "right_x", "left_x", "a", "b"], "flip_idx": [0, 2, 1, 4, 3]}
    assert skeleton_files.from_fields(fields).pairs == ((2, 1), (3, 4))


def test_a_file_of_json_or_yaml(tmp_path):
    fields = {
        "name": "bird",
        "joints": ["beak", "wing_l", "wing_r", "尾 巴"],
        "bones": [["beak", "wing_l"], [0, 2]],
        "sigmas": {"beak": 0.03},
        "limbs": {"wings": [["beak", "wing_l"], ["beak", "wing_r"]]},
        "torso": ["beak", "尾 巴"],
        "upper": ["beak"],
    }
    helpers.write_json(tmp_path / "a.json", fields)
    (tmp_path / "b.yaml").write_text(yaml.safe_dump(fields, allow_unicode=True), encoding="utf-8")
    first, second = (skeleton_files.find(str(tmp_path / name)) for name in ("a.json", "b.yaml"))
    assert first == second
    assert first.pairs == ((1, 2),) and first.bones == ((0, 1), (0, 2)) and first.torso == (0, 3)
    assert first.sigmas == (0.03, 0.067, 0.067, 0.067)
    assert first.limb_names == ("wing_1", "wing_2")
    unnamed = skeleton_files.find(helpers.write_json(tmp_path / "paw.json", {"joints": ["a"]}))
    assert (unnamed.name, unnamed.num_joints) == ("paw", 1)


NAME = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=8).filter(str.strip)


@settings(max_examples=150, deadline=None)
@given(st.lists(NAME, min_size=1, max_size=30, unique=True), st.data())
def test_a_table_comes_back_the_same_from_json(joints, data):
    index = st.integers(0, len(joints) - 1)
    line = st.lists(index, min_size=2, max_size=2, unique=True).map(tuple)
    bones = data.draw(st.lists(line, max_size=5).map(tuple)) if len(joints) > 1 else ()
    sigmas = data.draw(st.one_of(st.just(()), st.just(tuple(0.01 * (k + 1) for k in range(len(joints))))))
    table = skeleton_files.from_fields({"joints": joints, "name": "s"})
    table = dataclasses.replace(table, bones=bones, sigmas=sigmas, limbs={"g": bones[:2]} if bones else {})
    again = skeleton_files.of_saved(json.loads(json.dumps(skeleton_files.to_fields(table))))
    assert again == table
    order = table.flip_order
    assert [order[k] for k in order] == list(range(len(joints)))


@pytest.mark.parametrize("table", [COCO, LSP], ids=lambda table: table.name)
def test_a_known_table_comes_back_as_itself(table):
    assert skeleton_files.of_saved(skeleton_files.to_fields(table)) is table
    assert skeleton_files.of_saved(table.name) is table


def test_the_names_of_the_known_tables_are_theirs_alone():
    table = skeleton_files.from_fields({"joints": ["a", "b"], "name": "coco"})
    assert table.name == "coco_2"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"joints": ["a", "b", "a"]}, "two joints have the same name, 'a'"),
        ({"joints": []}, "'joints' must be a list of names"),
        ({"joints": ["a", 3]}, "'joints' must be a list of names"),
        ({"joints": ["a", "b"], "pairs": [["a", "c"]]}, "pairs: 'c' is not a joint"),
        ({"joints": ["a", "b"], "pairs": [["a", "a"]]}, "not a pair of two joints"),
        ({"joints": ["a", "b"], "sigmas": [0.1]}, "1 sigmas for 2 joints"),
        ({"joints": ["a", "b"], "sigmas": [0.1, 0]}, "sigmas must be positive"),
        ({"joints": ["a", "b"], "sigmas": [0.1, float("nan")]}, "sigmas must be positive"),
        ({"joints": ["a", "b"], "sigmas": ["x", 1]}, "give a positive number for each joint"),
        ({"joints": ["a", "b"], "sigmas": {"c": 1}}, "'c' is not a joint"),
        ({"joints": ["a", "b"], "limbs": [["a", "b"]]}, "limbs: .* is not an object"),
        ({"joints": ["a", "b"], "torso": ["a"]}, "not a pair of two joints"),
        ({"joints": ["a", "b"], "colour": 1}, "no field 'colour'"),
        ({"joints": ["a", "b", "c"], "flip_idx": [1, 2, 0]}, "does not exchange pairs"),
        ({"joints": [str(k) for k in range(1001)]}, "1001 joints: it needs between 1 and 1000"),
        ([1], "needs the field 'joints'"),
    ],
)
def test_a_wrong_file_is_one_line(fields, message, tmp_path):
    path = helpers.write_json(tmp_path / "bad.json", fields)
    with pytest.raises(InputError, match=message) as error:
        skeleton_files.find(path)
    assert path in str(error.value)
    helpers.one_line(error)


@pytest.mark.parametrize("name", ["missing.json", "missing.yaml", "hand"])
def test_a_missing_skeleton_is_one_line(name, tmp_path):
    with pytest.raises(InputError, match="missing.json|cannot be read|unknown skeleton 'hand'") as error:
        skeleton_files.find(name)
    helpers.one_line(error)


def test_yaml_that_is_none(tmp_path):
    (tmp_path / "bad.yaml").write_text("joints: [a, b\n - c: {")
    with pytest.raises(InputError, match="bad.yaml: not YAML") as error:
        skeleton_files.find(str(tmp_path / "bad.yaml"))
    helpers.one_line(error)


def test_the_file_of_the_page_on_own_data(tmp_path):
    (block,) = (b for b in docs_data.blocks("docs/own_data.md") if b.language == "yaml")
    (tmp_path / "hand.yaml").write_text(block.text)
    table = skeleton_files.find(str(tmp_path / "hand.yaml"))
    assert (table.name, table.num_joints, table.torso) == ("hand", 5, (0, 3))
    assert table.sigmas[:3] == (0.05, 0.03, skeletons.DEFAULT_SIGMA) and len(table.bones) == 4
