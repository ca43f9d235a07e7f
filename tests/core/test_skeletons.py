"""Skeleton tables: inconsistent tables are errors; COCO's agrees with the official evaluation."""

import dataclasses

import numpy as np
import pytest
from pycocotools.cocoeval import Params

from kpose.core import skeletons
from kpose.core.errors import InputError
from tests import helpers

COCO = skeletons.COCO


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"sigmas": COCO.sigmas[:-1]}, "16 sigmas for 17 joints"),
        ({"sigmas": (*COCO.sigmas, 0.1)}, "18 sigmas for 17 joints"),
        ({"joints": (*COCO.joints[:-1], "nose")}, "the same name"),
        ({"pairs": ((1, 17),)}, r"\(1, 17\)"),
        ({"pairs": ((1, 2), (2, 3))}, "two left/right pairs"),
        ({"pairs": ((4, 4),)}, r"\(4, 4\)"),
        ({"bones": ((-1, 0),)}, r"\(-1, 0\)"),
        ({"bones": ((0, 1, 2),)}, r"\(0, 1, 2\)"),
        ({"torso": (5, 99)}, r"\(5, 99\)"),
        ({"limbs": {"upper_arms": ((5, 7), (6, 40))}}, r"\(6, 40\)"),
        ({"upper": (0, 17)}, r"upper body \(0, 17\)"),
        ({"upper": (3, 3)}, r"upper body \(3, 3\)"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(change, complaint):
    with pytest.raises(InputError, match=complaint) as error:
        dataclasses.replace(COCO, **change)
    assert "'coco'" in helpers.one_line(error)


def test_flip_order_swaps_left_with_right_and_undoes_itself():
    order = COCO.flip_order
    assert sorted(order) == list(range(17))
    for joint, other in enumerate(order):
        assert order[other] == joint
        swapped = COCO.joints[joint].replace("left", "?").replace("right", "left").replace("?", "right")
        assert COCO.joints[other] == swapped


def test_sides_follow_the_names():
    for name, side in zip(COCO.joints, COCO.sides, strict=True):
        assert side == (name.split("_")[0] if "_" in name else "middle")


def test_sigmas_are_those_of_the_official_evaluation():
    np.testing.assert_allclose(COCO.sigmas, Params(iouType="keypoints").kpt_oks_sigmas, rtol=0, atol=1e-12)


def test_limbs_and_torso_join_the_named_joints():
    def names(limbs):
        return {tuple(COCO.joints[j] for j in limb) for limb in limbs}

    ends = {
        "upper_arms": ("shoulder", "elbow"),
        "lower_arms": ("elbow", "wrist"),
        "upper_legs": ("hip", "knee"),
        "lower_legs": ("knee", "ankle"),
    }
    assert tuple(COCO.limbs) == tuple(ends)
    for group, (a, b) in ends.items():
        assert names(COCO.limbs[group]) == {(f"{side}_{a}", f"{side}_{b}") for side in ("left", "right")}
    assert len(COCO.limb_list) == 8
    assert names([COCO.torso]) == {("left_shoulder", "right_hip")}


def test_get_knows_the_table_and_lists_the_names_otherwise():
    assert skeletons.get("coco") is COCO
    with pytest.raises(InputError, match="'spider'.*coco") as error:
        skeletons.get("spider")
    helpers.one_line(error)


def test_a_skeleton_of_another_size_is_possible():
    table = skeletons.Skeleton(
        name="three",
        joints=("head", "left_hand", "right_hand"),
        pairs=((1, 2),),
        limbs={"upper_arms": ((0, 1), (0, 2))},
        torso=(0, 1),
        upper=(0,),
        bones=((0, 1), (0, 2)),
        sigmas=(0.1, 0.1, 0.1),
    )
    assert table.num_joints == 3
    assert table.flip_order == (0, 2, 1)
    assert table.sides == ("middle", "left", "right")
    assert table.limb_list == ((0, 1), (0, 2))


def test_lsp_is_left_and_right_as_coco_is():
    lsp = skeletons.LSP
    assert lsp.num_joints == 14 and len(lsp.limb_list) == 8
    assert [lsp.joints[j] for j in lsp.torso] == ["left_shoulder", "right_hip"]
    for left, right in lsp.pairs:
        assert lsp.joints[left].replace("left", "right") == lsp.joints[right]
    limbs = {group: {tuple(lsp.joints[j] for j in limb) for limb in pairs} for group, pairs in lsp.limbs.items()}
    assert limbs == {
        group: {tuple(COCO.joints[j] for j in limb) for limb in pairs} for group, pairs in COCO.limbs.items()
    }
    shared = [name for name in lsp.joints if name in COCO.joints]
    assert len(shared) == 12
    for name in shared:
        assert lsp.sigmas[lsp.joints.index(name)] == COCO.sigmas[COCO.joints.index(name)]
        assert (lsp.joints.index(name) in lsp.upper) == (COCO.joints.index(name) in COCO.upper)
