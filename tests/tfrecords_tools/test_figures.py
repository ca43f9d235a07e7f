"""The synthetic data set: repeatable, valid COCO, correct flags and sides, varied poses."""

import json
import os

import numpy as np
import pytest
from pycocotools.coco import COCO

from kpose.core import skeletons
from kpose.core.errors import InputError
from tfrecords_tools.figures import clothing, poses, scenes
from tfrecords_tools.figures.canvas import OBJECT, PERSON_DEPTH, PERSON_STRIDE, Canvas, Light
from tfrecords_tools.figures.dataset import render_dataset

NAMES = skeletons.COCO.joints
LEFT_SHOULDER, RIGHT_SHOULDER = NAMES.index("left_shoulder"), NAMES.index("right_shoulder")


@pytest.fixture(scope="module")
def drawn_scenes():
    """(Scene, annotations) of 240 images, about 380 people."""
    drawn = [scenes._compose(scenes._rng(0, "train", index)) for index in range(240)]
    return [(scene, scenes._annotations(scene, index + 1)) for index, scene in enumerate(drawn)]


@pytest.fixture(scope="module")
def people(drawn_scenes):
    """([N, 17, 3] keypoints, [N, 4] boxes) of all annotated persons."""
    found = [person for _, annotations in drawn_scenes for person in annotations]
    keypoints = np.array([person["keypoints"] for person in found], float).reshape(-1, 17, 3)
    return keypoints, np.array([person["bbox"] for person in found])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("figures")
    return root, render_dataset(str(root), 12, seed=3, split="val", workers=1)


def _read(root):
    """{relative path: bytes} of all files below `root`."""
    paths = [os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names]
    contents = {}
    for path in paths:
        with open(path, "rb") as file:
            contents[os.path.relpath(path, root)] = file.read()
    return contents


def _plain_canvas(height=280, width=240):
    light = Light((0.0, -0.6, 0.8), 0.5, 0.6)
    return Canvas(np.full((3, height, width), 120, np.float32), light)


def _draw(canvas, seed=0, yaw=0, person=0):
    """Draws one upright person turned by `yaw`; returns its joints and its height in pixels."""
    rng = np.random.default_rng(seed)
    body = poses.draw_pose(rng, yaw=yaw, roll=0)
    outfit = clothing.choose_outfit(rng, (120, 120, 120))
    return clothing.draw_person(canvas, person, body, outfit, (120, 140), 170.0), 170.0


def _strict_pcp_of_mean_pose(keypoints, boxes):
    """Strict PCP at 0.5 if the prediction for each person is the mean pose in the unit box."""
    unit = [(person[:, :2] - box[:2]) / box[2:] for person, box in zip(keypoints, boxes, strict=True)]
    mean = sum(unit) / len(unit)
    hits = []
    for person, box in zip(keypoints, boxes, strict=True):
        for a, b in skeletons.COCO.limb_list:
            reach = np.hypot(*(person[a, :2] - person[b, :2])) / 2
            hits.append(all(np.hypot(*(mean[j] * box[2:] + box[:2] - person[j, :2])) <= reach for j in (a, b)))
    return np.mean(hits)


def test_bytes_do_not_depend_on_the_workers(dataset, tmp_path):
    root, path = dataset
    render_dataset(str(tmp_path), 12, seed=3, split="val", workers=2)
    once, again = _read(root), _read(tmp_path)
    assert os.path.relpath(path, root) == os.path.join("annotations", "person_keypoints_val.json")
    assert len(once) == 13 and os.path.join("images", "val", "000000000012.jpg") in once
    assert once == again


def test_seed_split_and_index_matter():
    image, annotations = scenes.render_image(5, "train", 7)
    again, annotations_again = scenes.render_image(5, "train", 7)
    assert image.dtype == np.uint8 and image.shape[2] == 3
    assert np.array_equal(image, again) and annotations == annotations_again
    for other in ((5, "val", 7), (6, "train", 7), (5, "train", 8)):
        different, _ = scenes.render_image(*other)
        assert different.shape != image.shape or not np.array_equal(different, image)


def test_file_is_valid_coco(dataset):
    root, path = dataset
    coco = COCO(path)
    assert coco.getImgIds() == list(range(1, 13))
    (category,) = coco.loadCats(coco.getCatIds())
    assert category["keypoints"] == list(NAMES)
    assert np.min(category["skeleton"]) == 1 and np.max(category["skeleton"]) == 17
    for image in coco.loadImgs(coco.getImgIds()):
        assert (root / "images" / "val" / image["file_name"]).exists()
        assert 200 <= image["width"] <= 360 and 200 <= image["height"] <= 360
    with open(path, encoding="utf-8") as file:
        raw = json.load(file)
    assert len({person["id"] for person in raw["annotations"]}) == len(raw["annotations"]) > 0


def test_annotations_are_consistent(drawn_scenes):
    for scene, annotations in drawn_scenes:
        height, width = scene.canvas.depth.shape
        for person in annotations:
            keypoints = np.array(person["keypoints"], float).reshape(17, 3)
            flags = keypoints[:, 2]
            assert set(flags) <= {0, 1, 2}
            assert person["num_keypoints"] == (flags > 0).sum() > 0
            assert not keypoints[flags == 0].any()
            # The file has pixel indices.
            keypoints[flags > 0, :2] += 0.5
            x, y = keypoints[flags > 0, 0], keypoints[flags > 0, 1]
            assert (x >= 0).all() and (x < width).all() and (y >= 0).all() and (y < height).all()
            left, top, w, h = person["bbox"]
            assert left >= 0 and top >= 0 and left + w <= width and top + h <= height
            assert min(w, h) >= scenes.MIN_BOX and 0 < person["area"] <= w * h
            x, y = keypoints[flags == 2, 0], keypoints[flags == 2, 1]
            assert (x >= left - 2).all() and (x <= left + w + 2).all()
            assert (y >= top - 2).all() and (y <= top + h + 2).all()


def test_visible_joints_show_their_person(drawn_scenes):
    visible = 0
    for scene, annotations in drawn_scenes:
        for person in annotations:
            number = person["id"] % 10 + 1
            for x, y, flag in np.array(person["keypoints"], float).reshape(17, 3):
                if flag == 2:
                    assert scene.canvas.owner[int(y + 0.5), int(x + 0.5)] // PERSON_STRIDE == number
                    visible += 1
    assert visible > 1000


def test_an_object_in_front_hides_joints():
    canvas = _plain_canvas()
    joints, body_height = _draw(canvas)
    before = scenes._keypoints(canvas, 0, joints, body_height)
    assert (before[:, 2] == 2).sum() > 10
    middle = float(joints[LEFT_SHOULDER, 1] + 10)
    canvas.slab((0, 0, 240, middle), 2 * PERSON_DEPTH, (90, 60, 30), OBJECT)
    after = scenes._keypoints(canvas, 0, joints, body_height)
    covered = joints[:, 1] < middle - 1
    clear = joints[:, 1] > middle + 1
    assert (after[covered, 2] == 1).all() and covered.sum() >= 6
    assert np.array_equal(after[clear], before[clear])
    assert np.array_equal(after[:, :2], before[:, :2])


def test_a_person_in_front_hides_joints_and_the_edge_drops_them():
    canvas = _plain_canvas()
    joints, body_height = _draw(canvas)
    _draw(canvas, person=1)
    hidden = scenes._keypoints(canvas, 0, joints, body_height)
    assert (hidden[:, 2] == 1).all()
    outside = scenes._keypoints(canvas, 0, joints - (400, 0, 0), body_height)
    assert not outside.any()


def test_left_is_the_persons_own_left():
    for seed in range(10):
        facing, _ = _draw(_plain_canvas(), seed, yaw=0)
        away, _ = _draw(_plain_canvas(), seed, yaw=180)
        assert facing[LEFT_SHOULDER, 0] > facing[RIGHT_SHOULDER, 0]
        assert away[LEFT_SHOULDER, 0] < away[RIGHT_SHOULDER, 0]


def test_from_behind_the_face_is_hidden():
    for seed in range(5):
        canvas = _plain_canvas()
        joints, body_height = _draw(canvas, seed, yaw=180)
        assert (scenes._keypoints(canvas, 0, joints, body_height)[:3, 2] == 1).all()


def test_enough_people_are_fully_visible(people):
    keypoints, _ = people
    assert len(keypoints) >= 300
    assert (keypoints[:, :, 2] == 2).all(1).mean() >= 0.3


def test_the_mean_pose_is_a_poor_prediction(people):
    keypoints, boxes = people
    full = (keypoints[:, :, 2] == 2).all(1)
    assert _strict_pcp_of_mean_pose(keypoints[full], boxes[full]) < 0.3


@pytest.mark.parametrize(
    "change",
    [{"num_images": 0}, {"output_dir": ""}, {"split": "a/b"}, {"split": ""}, {"seed": -1}, {"workers": -1}],
)
def test_bad_arguments(change, tmp_path):
    arguments = {"output_dir": str(tmp_path), "num_images": 1, **change}
    with pytest.raises(InputError) as error:
        render_dataset(**arguments)
    assert next(iter(change)) in str(error.value) and "\n" not in str(error.value)
    assert not os.listdir(tmp_path)
