"""Draws a folder of hands with 21 joints and LabelMe's labels, as in docs/own_data.md.

python -m tests.drawn_hands FOLDER COUNT
"""

import json
import os
import sys

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

FINGERS = ("thumb", "index", "middle", "ring", "little")
JOINTS = ("wrist", *(f"{finger}_{number}" for finger in FINGERS for number in range(1, 5)))
# Of each finger: its first joint, its direction in degrees from up, and the lengths of its three
# bones. The wrist is at 0 and the palm is 1 long.
BASES = ((-0.24, -0.30), (-0.30, -0.95), (-0.06, -1.0), (0.17, -0.94), (0.38, -0.80))
TURNS = (-48, -9, 0, 8, 17)
LENGTHS = ((0.42, 0.34, 0.28), (0.46, 0.29, 0.22), (0.52, 0.33, 0.23), (0.47, 0.31, 0.22), (0.36, 0.22, 0.19))
# Images are drawn larger by this factor.
FINE = 2


def make(folder, count):
    """Draws `count` images NNNN.jpg, each of one hand, and writes a file of LabelMe beside each."""
    os.makedirs(folder, exist_ok=True)
    for number in range(count):
        rng = np.random.default_rng(number)
        size = (240, 320) if rng.uniform() < 0.5 else (320, 240)
        image, points = draw(rng, size)
        image.save(os.path.join(folder, f"{number:04d}.jpg"), quality=90)
        low, high = points.min(0), points.max(0)
        margin = 0.06 * (high - low).max()
        shapes = [_shape(joint, "point", [p]) for joint, p in zip(JOINTS, points.round(1).tolist(), strict=True)]
        shapes.append(_shape("hand", "rectangle", [(low - margin).tolist(), (high + margin).tolist()]))
        labels = {"version": "5.4", "flags": {}, "shapes": shapes, "imagePath": f"{number:04d}.jpg", "imageData": None}
        labels |= {"imageHeight": size[0], "imageWidth": size[1]}
        with open(os.path.join(folder, f"{number:04d}.json"), "w", encoding="utf-8") as file:
            json.dump(labels, file)


def _shape(label, kind, points):
    return {"label": label, "points": points, "shape_type": kind, "group_id": 1, "flags": {}}


def points_of_hand(rng):
    """[21, 2] joints of a random hand, left or right, in lengths of its palm; the wrist is at 0."""
    points = [np.zeros(2)]
    for base, turn, lengths in zip(BASES, TURNS, LENGTHS, strict=True):
        angle = np.radians(turn + rng.normal(0, 7))
        at = np.array(base)
        points.append(at)
        bent = rng.uniform(0.3, 1) if rng.uniform() < 0.4 else 1.0
        for length in lengths:
            at = at + bent * length * np.array([np.sin(angle), -np.cos(angle)])
            points.append(at)
            angle += np.radians(rng.normal(0, 8))
    points = np.array(points)
    if rng.uniform() < 0.5:
        points[:, 0] *= -1
    turn = np.radians(rng.uniform(-70, 70))
    cos, sin = np.cos(turn), np.sin(turn)
    return points @ np.array([[cos, sin], [-sin, cos]])


def draw(rng, size):
    """An image of a hand, and its joints [21, 2] in pixels from the corner.

    Args:
        rng: the generator.
        size: (height, width) in pixels.
    """
    height, width = size
    image = _background(rng, height * FINE, width * FINE)
    points = points_of_hand(rng)
    scale = rng.uniform(0.4, 0.8) * min(size) / (points.max(0) - points.min(0)).max()
    points = points * scale
    points -= points.min(0)
    # Not used; without these draws the images would not be those of the measurements in docs/own_data.md.
    rng.uniform(size=2)
    room = np.array([width, height]) - points.max(0)
    points += 0.1 * room + rng.uniform(0, 0.8, 2) * room
    _draw_hand(rng, ImageDraw.Draw(image), points * FINE, scale * FINE)
    image = image.resize((width, height), Image.Resampling.LANCZOS)
    if rng.uniform() < 0.5:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 1.2)))
    pixels = np.asarray(image) + rng.normal(0, rng.uniform(0, 10), (height, width, 3))
    return _image(pixels), points


def _image(pixels):
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _background(rng, height, width):
    low, high = rng.integers(0, 220, (2, 3))
    ramp = np.linspace(0, 1, height)[:, None, None]
    image = _image(np.broadcast_to(low * (1 - ramp) + high * ramp, (height, width, 3)))
    brush = ImageDraw.Draw(image)
    for _ in range(rng.integers(3, 12)):
        a, b = rng.uniform(0, 1, (2, 2)) * [width, height]
        colour = tuple(rng.integers(0, 255, 3).tolist())
        if rng.uniform() < 0.5:
            brush.line([*a, *b], fill=colour, width=int(rng.integers(4, 40)))
        else:
            brush.ellipse([*np.minimum(a, b), *np.maximum(a, b)], fill=colour)
    return image


def _draw_hand(rng, brush, joints, palm):
    """Draws forearm, palm and fingers in a random order.

    Args:
        rng: the generator.
        brush: the `ImageDraw`.
        joints: [21, 2] in its pixels.
        palm: length of the palm.
    """
    skin = np.array([235, 190, 160]) * rng.uniform(0.35, 1.0) + rng.normal(0, 8, 3)
    colour, edge = (tuple(np.clip(skin * part, 0, 255).astype(int).tolist()) for part in (1, 0.7))
    across = (joints[17] - joints[5]) * 0.3
    wrist = joints[0] - 0.9 * across, joints[0] + 0.9 * across
    back = 1.6 * joints[0] - 0.6 * joints[9]
    arm = [wrist[0], back - 0.8 * across, back + 0.8 * across, wrist[1]]
    thumb, index = joints[1] - 0.2 * across, joints[5] - 0.25 * across
    outline = [wrist[0], thumb, index, joints[9], joints[13], joints[17] + 0.25 * across, wrist[1]]
    for polygon in (arm, outline):
        brush.polygon([tuple(point) for point in polygon], fill=colour, outline=edge)
    for finger in rng.permutation(5):
        line = joints[1 + 4 * finger : 5 + 4 * finger]
        for extra, fill in ((0.05, edge), (0, colour)):
            radius = ((0.12 if finger == 0 else 0.1) + extra) * palm
            brush.line([tuple(point) for point in line], fill=fill, width=max(1, round(2 * radius)), joint="curve")
            for x, y in (line[0], line[-1]):
                brush.ellipse([x - radius, y - radius, x + radius, y + radius], fill=fill)


if __name__ == "__main__":
    make(sys.argv[1], int(sys.argv[2]))
