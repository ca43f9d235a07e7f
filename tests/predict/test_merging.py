"""Which detections are of one person."""

import hypothesis
import numpy as np
from hypothesis import strategies as st
from pycocotools.cocoeval import COCOeval, Params

from kpose.core import skeletons
from kpose.predict import merging

SIGMAS = skeletons.COCO.oks_sigmas


def test_oks_is_that_of_pycocotools():
    rng = np.random.default_rng(0)
    truth, found = rng.uniform(0, 200, (3, 17, 2)), rng.uniform(0, 30, (4, 17, 2))
    found = truth[[0, 1, 2, 0]] + found
    areas = [3000.0, 9000.0, 500.0]
    evaluation = COCOeval.__new__(COCOeval)
    evaluation.params = Params("keypoints")
    flagged = [np.concatenate([person, np.full((17, 1), 2)], 1).ravel().tolist() for person in truth]
    evaluation._gts = {
        (1, 1): [
            {"keypoints": person, "bbox": [0, 0, 9, 9], "area": area, "num_keypoints": 17}
            for person, area in zip(flagged, areas, strict=True)
        ]
    }
    listed = [np.concatenate([person, np.ones((17, 1))], 1).ravel().tolist() for person in found]
    evaluation._dts = {(1, 1): [{"keypoints": person, "score": 1 - i / 9} for i, person in enumerate(listed)]}
    expected = evaluation.computeOks(1, 1)
    areas = np.array(areas)
    ours = np.stack([merging.oks(truth, person[None], areas, SIGMAS) for person in found])
    np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_of_two_equal_poses_the_better_one_is_kept():
    pose = np.random.default_rng(1).uniform(0, 100, (17, 3))
    poses = np.stack([pose, pose + 0.5, pose + [300, 0, 0]])
    boxes = np.float32([[0, 0, 100, 100], [0, 0, 100, 100], [300, 0, 100, 100]])
    kept = merging.distinct(poses, boxes, np.float32([0.4, 0.8, 0.5]), SIGMAS)
    assert kept.tolist() == [1, 2]
    assert merging.distinct(poses[:0], boxes[:0], np.zeros(0), SIGMAS).tolist() == []


@hypothesis.given(
    st.lists(st.tuples(*[st.integers(0, 40)] * 2, *[st.integers(1, 40)] * 2, st.integers(0, 100)), max_size=12)
)
@hypothesis.settings(max_examples=100, deadline=None)
def test_suppression_keeps_every_box_or_a_better_one_that_overlaps(rows):
    boxes = np.array([row[:4] for row in rows], np.float32).reshape(-1, 4)
    scores = np.array([row[4] for row in rows], np.float32)
    kept = merging.suppress(boxes, scores, 0.5).tolist()

    def cells(box):
        x, y, w, h = box.astype(int)
        return {(i, j) for i in range(x, x + w) for j in range(y, y + h)}

    def overlap(a, b):
        a, b = cells(boxes[a]), cells(boxes[b])
        return len(a & b) / len(a | b)

    assert all(overlap(a, b) <= 0.5 + 1e-6 for a in kept for b in kept if a != b)
    for index in range(len(rows)):
        assert any(index == k or (scores[k] >= scores[index] and overlap(index, k) > 0.5 - 1e-6) for k in kept)


def test_scores_fall_as_the_detector_and_the_model_disagree():
    pose = np.random.default_rng(2).uniform(0, 100, (1, 17, 3)).astype(np.float32)
    found = merging.Detections(np.float32([[0, 0, 100, 100]]), np.float32([0.9]), pose)
    moved = [merging.agreement(pose + [step, 0, 0], found, SIGMAS)[0] for step in (0, 3, 10, 1000)]
    assert moved[0] == 1 and moved[0] > moved[1] > moved[2] > moved[3] and abs(moved[3] - 1 / 3) < 1e-6
