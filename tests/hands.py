"""Drawn hands, and other sets of points, as a COCO file with its own category."""

import colorsys
import os

import numpy as np
from PIL import Image, ImageDraw

from tests import helpers
from tfrecords_tools.write_coco import writer

FINGERS = ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky_finger")
# The names of COCO-WholeBody's hands: no left and right, no limbs.
JOINTS = ("wrist", *(f"{finger}{number}" for finger in FINGERS for number in (1, 2, 3, 4)))
# From 1, as in a COCO category.
BONES = tuple(pair for f in range(5) for pair in ((1, 4 * f + 2), *((4 * f + n + 1, 4 * f + n + 2) for n in (1, 2, 3))))
SIZE = (96, 96)


def points_of_hand(rng):
    """[21, 2] pixels of a random hand in an image of `SIZE`."""
    turn, grown = rng.uniform(-0.6, 0.6), rng.uniform(0.75, 1.0)
    points = [(0.0, 30.0)]
    for finger in range(5):
        angle = (finger - 2) * 0.32
        for reach in (30, 42, 52, 60):
            points.append((reach * np.sin(angle), 30 - reach * np.cos(angle)))
    cos, sin = np.cos(turn), np.sin(turn)
    return grown * np.array(points) @ [[cos, sin], [-sin, cos]] + 48 + rng.uniform(-5, 5, 2)


def make(folder, split="train", count=16, joints=JOINTS, bones=BONES, unlabelled=(), points=points_of_hand, **category):
    """Draws images and writes their annotations.

    Args:
        folder: folder of `images/` and `SPLIT.json`.
        split: name of the file, and seed of the images.
        count: number of images; each shows one figure.
        joints, bones: of the category; bones from 1.
        unlabelled: indices of joints without labels.
        points: function from a generator to [K, 2] pixels of one figure.
        **category: further fields of the category.

    Returns:
        (annotation file, folder of the images).
    """
    images = os.path.join(folder, "images")
    os.makedirs(images, exist_ok=True)
    rng = np.random.default_rng(len(split))
    entries, annotations = [], []
    for number in range(1, count + 1):
        place = points(rng)
        picture = Image.new("RGB", SIZE[::-1], tuple(rng.integers(0, 90, 3).tolist()))
        brush = ImageDraw.Draw(picture)
        for a, b in bones:
            brush.line([*place[a - 1], *place[b - 1]], fill=(200, 170, 150), width=3)
        for k, (x, y) in enumerate(place.tolist()):
            colour = tuple(round(255 * c) for c in colorsys.hsv_to_rgb(k / len(place), 1, 1))
            brush.ellipse([x - 1.5, y - 1.5, x + 1.5, y + 1.5], fill=colour)
        name = f"{split}_{number}.png"
        picture.save(os.path.join(images, name))
        entries.append(helpers.image_entry(number, name, SIZE))
        flagged = np.concatenate([place, np.full((len(place), 1), 2.0)], -1)
        flagged[list(unlabelled)] = 0
        low, high = place.min(0) - 3, place.max(0) + 3
        annotations.append(helpers.annotation(number, number, [*low, *(high - low)], flagged))
    content = {
        "images": entries,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "hand", "keypoints": list(joints), "skeleton": list(bones)} | category],
    }
    return helpers.write_json(os.path.join(folder, f"{split}.json"), content), images


def make_records(folder, split="train", count=16, options=(), **figures):
    """Writes the records of `make`; returns (glob, annotation file, folder of the images)."""
    annotations, images = make(folder, split, count, **figures)
    records = os.path.join(folder, "records")
    settings = {"split": split, "skeleton": "auto", "crop_size": (40, 40)} | dict(options)
    writer.write_records(helpers.options(annotations, images, records, **settings))
    return os.path.join(records, f"{split}-*"), annotations, images
