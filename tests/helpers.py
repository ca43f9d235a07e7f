"""Builders of small test data: painted images, COCO files and their records."""

import collections
import io
import json
import os
import pathlib

import numpy as np
import pytest
from PIL import Image

from kpose.core import files, skeletons
from kpose.data.image_files import open_image
from tfrecords_tools.write_coco import plan, writer

# Joints that are painted in one colour channel each, so that their positions can be measured in an
# image. One is in the middle, one on the left, one on the right.
PAINTED = tuple(skeletons.COCO.joints.index(name) for name in ("nose", "left_wrist", "right_ankle"))


def paint_dots(size, points, sigma=2.0):
    """A black image [H, W, 3] uint8 with a Gaussian dot in each colour channel.

    Args:
        size: (height, width) in pixels.
        points: (x, y) of the dot of each channel, in continuous pixel coordinates.
        sigma: standard deviation of the dots in pixels.
    """
    height, width = size
    columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    channels = [250 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2)) for x, y in points]
    return np.round(np.stack(channels, -1)).astype(np.uint8)


def find_dot(channel, threshold=40):
    """(x, y) of the centre of the bright pixels of [H, W], in continuous pixel coordinates."""
    light = np.where(channel > threshold, channel, 0).astype(np.float64)
    rows, columns = np.indices(channel.shape) + 0.5
    return np.array([(light * columns).sum(), (light * rows).sum()]) / light.sum()


def keypoints_in(box, seed=0, flag=2):
    """[17, 3] random joints inside a box, all with the same visibility flag."""
    x, y, w, h = box
    rng = np.random.default_rng(seed)
    joints = np.empty((17, 3))
    joints[:, 0] = np.round(x + w * rng.uniform(0.2, 0.8, 17), 2)
    joints[:, 1] = np.round(y + h * rng.uniform(0.2, 0.8, 17), 2)
    joints[:, 2] = flag
    return joints


def annotation(number, image_id, box, keypoints, **fields):
    """A COCO person annotation of keypoints in the original frame; the file has pixel indices."""
    keypoints = np.array(keypoints, float)
    labelled = keypoints[..., 2] > 0
    keypoints[labelled, :2] = np.round(keypoints[labelled, :2] - 0.5, 4)
    return {
        "id": number,
        "image_id": image_id,
        "category_id": 1,
        "iscrowd": 0,
        "area": round(0.6 * box[2] * box[3], 2),
        "bbox": [float(side) for side in box],
        "num_keypoints": int((keypoints[:, 2] > 0).sum()),
        "keypoints": keypoints.ravel().tolist(),
    } | fields


def image_entry(number, file_name, size):
    """A COCO image entry; `size` is (height, width)."""
    return {"id": number, "file_name": file_name, "height": size[0], "width": size[1]}


def write_json(path, data):
    """Writes data as JSON; returns the path as str."""
    with open(path, "w", encoding="utf-8") as file:
        json.dump(data, file)
    return str(path)


def write_coco(path, images, annotations):
    """Writes a COCO keypoint file of image entries and annotations; returns its path."""
    return write_json(path, {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]})


def png_bytes(pixels):
    """The PNG file of pixels [H, W, 3] uint8, as bytes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def painted_dataset(folder, boxes, size=(90, 120), unlabelled=()):
    """Writes one image per box, with dots at the person's joints `PAINTED`, and their annotations.

    Args:
        folder: folder of `photos/` and `annotations.json`.
        boxes: xywh in pixels, one per image.
        size: (height, width) of the images in pixels.
        unlabelled: indices of joints without labels: (0, 0) with flag 0, as in COCO.

    Returns:
        (annotation file, image folder, [N, 17, 3] keypoints).
    """
    photos = os.path.join(folder, "photos")
    os.makedirs(photos, exist_ok=True)
    images, annotations, everyone = [], [], []
    for index, box in enumerate(boxes):
        joints = keypoints_in(box, seed=index)
        joints[list(unlabelled)] = 0
        name = f"{index + 1:03d}.png"
        Image.fromarray(paint_dots(size, joints[list(PAINTED), :2])).save(os.path.join(photos, name))
        images.append(image_entry(index + 1, name, size))
        annotations.append(annotation(1000 + index, index + 1, box, joints))
        everyone.append(joints)
    return write_coco(os.path.join(folder, "annotations.json"), images, annotations), photos, np.array(everyone)


def options(annotations, images, output_dir, **changes):
    """`WriteOptions` for a small data set."""
    settings = {
        "annotations": str(annotations),
        "images": str(images),
        "output_dir": str(output_dir),
        "split": "train",
        "select": "labelled",
        "padding": 1.0,
        "crop_size": (64, 64),
        "shards": 2,
        "workers": 1,
        "seed": 0,
        "skeleton": skeletons.COCO,
    }
    return plan.WriteOptions(**settings | changes)


def painted_records(folder, boxes, padding=1.0, size=(90, 120), unlabelled=(), **changes):
    """Writes records of `painted_dataset`; returns (glob, [N, 17, 3] keypoints by image id - 1)."""
    annotations, photos, keypoints = painted_dataset(str(folder), boxes, size, unlabelled)
    output_dir = os.path.join(folder, "records")
    writer.write_records(options(annotations, photos, output_dir, padding=padding, **changes))
    return os.path.join(output_dir, "train-*"), keypoints


def one_line(error):
    """The message of an error that `pytest.raises` caught; asserts that it is one line."""
    message = str(error.value)
    assert message and "\n" not in message
    return message


def real_data(*parts):
    """The path of real data, in the folder of the variable KPOSE_DATA; skips without it."""
    folder = os.environ.get("KPOSE_DATA")
    if not folder:
        pytest.skip("needs real data: set the environment variable KPOSE_DATA to their folder")
    path = pathlib.Path(folder, *parts)
    if not path.exists():
        pytest.skip(f"{path} does not exist: add it to the folder of KPOSE_DATA")
    return path


def large_persons(min_joints, min_height, most):
    """(image [H, W, 3], box) of persons of devval who are alone in their image, at most `most`."""
    folder = real_data("coco")
    labels = real_data("coco", "annotations", "person_keypoints_devval.json")
    data = files.read_json(str(labels), "annotation file")
    names = {image["id"]: image["file_name"] for image in data["images"]}
    persons = collections.Counter(a["image_id"] for a in data["annotations"])
    alone = [a for a in data["annotations"] if persons[a["image_id"]] == 1]
    for person in [a for a in alone if a["num_keypoints"] >= min_joints and a["bbox"][3] > min_height][:most]:
        yield np.asarray(open_image(str(folder / "images" / names[person["image_id"]])).decode()), person["bbox"]
