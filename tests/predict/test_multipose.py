"""The built-in detector: decoding of its maps, boxes, sizes, real images and damaged files."""

import numpy as np
import pytest
from PIL import Image

from kpose.core import files
from kpose.core.errors import InputError
from kpose.predict import multipose
from kpose.runs import shipped_files
from tests import helpers


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _maps(rng, height=14, width=18, joints=3):
    maps = {
        "center": rng.normal(-4, 1, (height, width, 1)),
        "box_size": rng.uniform(2, 9, (height, width, 2)),
        "box_offset": rng.normal(0.5, 0.3, (height, width, 2)),
        "heatmap": rng.normal(-2, 2, (height, width, joints)),
        "regress": rng.normal(0, 3, (height, width, 2 * joints)),
        "offset": rng.normal(0, 0.4, (height, width, 2 * joints)),
    }
    for row, column in ((3, 4), (9, 13), (13, 0)):
        maps["center"][row, column] = rng.uniform(0, 3)
    return {name: value.astype(np.float32) for name, value in maps.items()}


def _decode_by_loops(maps, cell):
    """The published graph's rules, cell by cell: [(center, box, joints)], highest centre first."""
    center = _sigmoid(maps["center"][..., 0])
    height, width = center.shape
    people = []
    for row in range(height):
        for column in range(width):
            near = center[max(row - 2, 0) : row + 3, max(column - 2, 0) : column + 3]
            if center[row, column] < near.max() or center[row, column] <= multipose.MIN_CENTER:
                continue
            y, x = (np.float64([row, column]) + maps["box_offset"][row, column]).tolist()
            h, w = maps["box_size"][row, column].tolist()
            top, bottom = np.clip([y - h / 2, y + h / 2], 0, height)
            left, right = np.clip([x - w / 2, x + w / 2], 0, width)
            joints = []
            for k in range(maps["heatmap"].shape[-1]):
                goal_y, goal_x = np.float64([row, column]) + maps["regress"][row, column, 2 * k : 2 * k + 2]
                best = (-1, 0, 0)
                for i in range(height):
                    for j in range(width):
                        if top <= i < bottom and left <= j < right:
                            far = (i - goal_y) ** 2 + (j - goal_x) ** 2
                            value = _sigmoid(maps["heatmap"][i, j, k]) * np.exp(-far / (0.3 * min(height, width)))
                            best = max(best, (value, i, j))
                value, i, j = best
                dy, dx = maps["offset"][i, j, 2 * k : 2 * k + 2]
                joints.append(((j + dx) * cell, (i + dy) * cell, value))
            box = np.array([left, top, right - left, bottom - top]) * cell
            people.append((center[row, column], box, np.array(joints)))
    return sorted(people, key=lambda person: -person[0])


@pytest.mark.parametrize("seed", range(4))
def test_maps_are_decoded_as_the_published_graph_does(seed):
    maps = _maps(np.random.default_rng(seed))
    found, expected = multipose.decode(maps, 2.5), _decode_by_loops(maps, 2.5)
    assert len(found.scores) == len(expected) >= 2
    for index, (center, box, joints) in enumerate(expected):
        np.testing.assert_allclose(found.boxes[index], box, atol=1e-3)
        np.testing.assert_allclose(found.keypoints[index], joints, atol=1e-3)
        counted = [value for value in joints[:, 2] if value > 0.127]
        score = np.sqrt(center * np.mean(counted)) if counted else 0
        assert found.centers[index] == pytest.approx(center) and found.scores[index] == pytest.approx(score, abs=1e-5)


def test_maps_without_a_peak_have_nobody():
    maps = {name: np.full_like(value, -9) for name, value in _maps(np.random.default_rng(0)).items()}
    found = multipose.decode(maps, 4)
    assert found.boxes.shape == (0, 4) and found.keypoints.shape == (0, 3, 3)


def test_a_box_is_recut_towards_its_joints():
    keypoints = np.zeros((2, 5, 3), np.float32)
    keypoints[0, :, :2] = [[20, 30], [60, 30], [20, 110], [60, 110], [900, 900]]
    keypoints[0, :4, 2] = 0.5
    # The second person has too few joints that count.
    keypoints[1, :3] = [[0, 0, 0.9], [5, 5, 0.9], [9, 9, 0.9]]
    boxes = np.float32([[0, 0, 100, 200], [10, 20, 30, 1]])
    found = multipose.recut(boxes, keypoints)
    # 0.6 of the box and 0.4 of [18, 26] to [62, 114].
    np.testing.assert_allclose(found[0], [7.2, 10.4, 77.6, 155.2], rtol=1e-5)
    np.testing.assert_allclose(found[1], [10, 20, 30, 2])


@pytest.mark.parametrize("shape", [(1, 1), (3, 900), (700, 2), (33, 31)])
def test_images_of_any_shape_are_searched(shape):
    found = multipose.MultiPose()(np.full((*shape, 3), 128, np.uint8))
    assert found.boxes.shape == (0, 4) and found.scores.shape == (0,) and found.keypoints.shape == (0, 17, 3)


def test_a_damaged_network_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped_files, "DETECTORS", str(tmp_path))
    with pytest.raises(InputError) as error:
        multipose.MultiPose()
    helpers.one_line(error)
    (tmp_path / "movenet_multipose.tflite").write_bytes(b"damaged")
    files.write_json(str(tmp_path / "movenet_multipose.json"), {"name": "movenet_multipose", "sha256": {"tflite": "0"}})
    with pytest.raises(InputError, match="damaged .its checksum"):
        multipose.MultiPose()


def _overlap(boxes, box):
    """[N] intersection over union."""
    low, high = np.maximum(boxes[:, :2], box[:2]), np.minimum(boxes[:, :2] + boxes[:, 2:], np.add(box[:2], box[2:]))
    shared = np.prod(np.maximum(high - low, 0), axis=1)
    return shared / (np.prod(boxes[:, 2:], axis=1) + np.prod(box[2:]) - shared)


def test_large_persons_of_coco_are_found_and_an_enlarged_image_gives_the_same():
    detector, found, count = multipose.MultiPose(), 0, 0
    for image, box in helpers.large_persons(12, 120, 16):
        people = detector(image)
        count += 1
        found += len(people.boxes) and _overlap(people.boxes, box).max() > 0.5
        if count <= 3:
            height, width = image.shape[:2]
            large = np.asarray(Image.fromarray(image).resize((5 * width, 5 * height), Image.Resampling.BICUBIC))
            best, other = people.boxes[0], detector(large).boxes / 5
            assert _overlap(other, best).max() > 0.85
    assert count == 16 and found >= 15
