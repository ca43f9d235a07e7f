"""Random scenes with several people: the image and its annotations."""

import dataclasses
import functools
import math
import zlib

import numpy as np
from PIL import Image, ImageFilter

from kpose.core import geometry, skeletons
from kpose.metrics.coco import PERSON_CATEGORY
from tfrecords_tools.figures.canvas import (
    CHEST,
    EAR,
    EYE,
    FOOT,
    HAND,
    HEAD,
    LOWER_ARM,
    LOWER_LEG,
    MOUTH,
    NOSE,
    PELVIS,
    PERSON_DEPTH,
    PERSON_STRIDE,
    SKIRT,
    UPPER_ARM,
    UPPER_LEG,
    Canvas,
)
from tfrecords_tools.figures.clothing import choose_outfit, draw_person
from tfrecords_tools.figures.poses import draw_pose
from tfrecords_tools.figures.surroundings import choose_light, draw_object, make_background

MIN_BOX = 24  # pixels; a person whose visible part is less wide or less high is not annotated

# For each kind of joint: the body parts that show it (without and with sides), and the largest
# distance in depth between their surface and the joint, in body heights.
_JOINT_PARTS = {
    "nose": ((NOSE, HEAD, MOUTH), (), 0.05),
    "eye": ((HEAD, NOSE), (EYE,), 0.05),
    "ear": ((HEAD,), (EAR,), 0.065),
    "shoulder": ((CHEST,), (UPPER_ARM,), 0.10),
    "elbow": ((), (UPPER_ARM, LOWER_ARM), 0.07),
    "wrist": ((), (LOWER_ARM, HAND), 0.06),
    "hip": ((CHEST, PELVIS, SKIRT), (UPPER_LEG,), 0.14),
    "knee": ((), (UPPER_LEG, LOWER_LEG), 0.09),
    "ankle": ((), (LOWER_LEG, FOOT), 0.07),
}


@dataclasses.dataclass
class Scene:
    """A rendered scene.

    Attributes:
        canvas: `Canvas`.
        joints: for each person, [17, 3] x, y and depth in pixels.
        heights: for each person, the body height in pixels.
    """

    canvas: Canvas
    joints: list
    heights: list


def _rng(seed, split, index):
    return np.random.default_rng(np.random.SeedSequence([seed, zlib.crc32(split.encode()), index]))


def _extent(body):
    """(x0, y0, x1, y1) of the whole body relative to the middle of its hips, in body heights."""
    points = np.concatenate([body.joints, [body.head_centre], body.toes, body.hands])[:, :2]
    x0, y0 = points.min(0) - 0.03
    x1, y1 = points.max(0) + 0.03
    r = body.build["head"] * 1.2
    cx, cy = body.head_centre[:2]
    return min(x0, cx - r), min(y0, cy - r), max(x1, cx + r), max(y1, cy + r)


def _overlap(box, others):
    """The largest overlap of `box` with another box, as a share of the smaller of the two."""
    worst = 0.0
    for other in others:
        w = min(box[2], other[2]) - max(box[0], other[0])
        h = min(box[3], other[3]) - max(box[1], other[1])
        if w > 0 and h > 0:
            areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (box, other)]
            worst = max(worst, w * h / min(areas))
    return worst


def _place(rng, size, body, crowd, placed):
    """Random place of a body among others: ((x, y) of the hips, body height in pixels, box)."""
    width, height = size
    x0, y0, x1, y1 = _extent(body)
    cut_off = rng.random() < 0.16
    allowed = rng.uniform(0.15, 0.6) if rng.random() < 0.35 else 0.06
    best = None
    for attempt in range(8):
        scale = rng.uniform(110, 240 - 25 * crowd) * (0.94**attempt)
        fit = min((width - 6) / (x1 - x0), (height - 6) / (y1 - y0))
        scale = scale * rng.uniform(1, 1.4) if cut_off else min(scale, fit)
        w, h = (x1 - x0) * scale, (y1 - y0) * scale
        slack_x, slack_y = max(width - w, 0), max(height - h, 0)
        left, top = rng.uniform(0, slack_x), slack_y * rng.beta(3, 1.5)
        if cut_off:
            left += rng.choice((-1, 0, 1)) * w * rng.uniform(0.1, 0.45)
            top += rng.choice((-1, 0, 1, 1)) * h * rng.uniform(0.1, 0.45)
        box = (left, top, left + w, top + h)
        overlap = _overlap(box, placed)
        if best is None or overlap < best[0]:
            best = overlap, (left - x0 * scale, top - y0 * scale), scale, box
        if overlap <= allowed:
            break
    return best[1:]


def _compose(rng):
    """A random `Scene`, without the effects of the camera."""
    long, short = int(rng.integers(290, 361)), int(rng.integers(200, 281))
    size = (long, short) if rng.random() < 0.6 else (short, long)
    canvas = Canvas(make_background(rng, size), choose_light(rng))
    for _ in range(rng.integers(0, 3)):
        draw_object(canvas, rng, rng.uniform(0, size[0]), rng.uniform(size[1] / 2, size[1]), rng.uniform(30, 110), 0.0)
    crowd = (1, 1, 1, 1, 1, 2, 2, 2, 2, 3)[rng.integers(10)]
    bodies, placed = [draw_pose(rng) for _ in range(crowd)], []
    for body in bodies:
        placed.append(_place(rng, size, body, crowd, [box for _, _, box in placed]))
    # A person who stands lower in the image is nearer.
    order = sorted(range(crowd), key=lambda k: placed[k][2][3])
    scene = Scene(canvas, [], [])
    for person, k in enumerate(order):
        body, (origin, scale, box) = bodies[k], placed[k]
        rows, columns = slice(max(int(box[1]), 0), int(box[3])), slice(max(int(box[0]), 0), int(box[2]))
        behind = canvas.rgb[:, rows, columns].reshape(3, -1)[:, ::7].mean(1)
        if body.upright:
            feet = origin[0] + scale * body.joints[15:, 0].mean()
            canvas.shadow(feet, box[3] - 0.02 * scale, 0.2 * scale, 0.03 * scale, 0.5)
        scene.joints.append(draw_person(canvas, person, body, choose_outfit(rng, behind), origin, scale))
        scene.heights.append(scale)
    if rng.random() < 0.15:
        box = placed[order[-1]][2]
        x, y = rng.uniform(box[0], box[2]), rng.uniform(box[1] * 0.6 + box[3] * 0.4, box[3])
        draw_object(canvas, rng, x, y, rng.uniform(40, 110), PERSON_DEPTH * (crowd + 1))
    return scene


def _develop(rng, rgb):
    """uint8 [H, W, 3] image of a canvas, with exposure, uneven light, blur and grain."""
    _, height, width = rgb.shape
    across = np.linspace(-0.5, 0.5, width, dtype=np.float32) * rng.normal(0, 0.15)
    down = np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None] * rng.normal(0, 0.15)
    rgb = rgb * ((across + down + rng.uniform(0.78, 1.12)) * rng.normal(1, 0.03, (3, 1, 1)).astype(np.float32))
    if rng.random() < 0.9:
        rgb += rng.standard_normal((height, width), dtype=np.float32) * rng.uniform(0.5, 6)
    image = np.ascontiguousarray(np.clip(rgb, 0, 255).astype(np.uint8).transpose(1, 2, 0))
    if rng.random() < 0.2:
        image = np.asarray(Image.fromarray(image).filter(ImageFilter.BoxBlur(rng.uniform(0.2, 0.8))))
    return image


# Cached: the table is the same for every person.
@functools.cache
def _shown_by():
    """For each joint: (body parts that show it, largest depth below their surface in heights)."""
    table = []
    for name, side in zip(skeletons.COCO.joints, skeletons.COCO.sides, strict=True):
        middle, sided, slack = _JOINT_PARTS[name.rsplit("_", 1)[-1]]
        table.append(({*middle, *(part + (side == "right") for part in sided)}, slack))
    return tuple(table)


def _keypoints(canvas, person, joints, body_height):
    """[17, 3] x, y in the original frame and the visibility flag of one person's joints."""
    rows, columns = canvas.depth.shape
    keypoints = np.zeros((17, 3))
    for k, ((x, y, z), (parts, slack)) in enumerate(zip(joints.tolist(), _shown_by(), strict=True)):
        if not (0 <= x < columns and 0 <= y < rows):
            continue
        row, column = int(y), int(x)
        part = int(canvas.owner[row, column]) - PERSON_STRIDE * (person + 1)
        near = canvas.depth[row, column] - z <= slack * body_height
        # Rounded down, so that the joint stays on its pixel.
        keypoints[k] = math.floor(100 * x) / 100, math.floor(100 * y) / 100, 2 if part in parts and near else 1
    return keypoints


def _annotations(scene, image_id):
    """COCO annotations of all persons who are visible enough."""
    annotations = []
    for person, (joints, body_height) in enumerate(zip(scene.joints, scene.heights, strict=True)):
        mask = scene.canvas.owner // PERSON_STRIDE == person + 1
        if not mask.any():
            continue
        xs, ys = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
        keypoints = _keypoints(scene.canvas, person, joints, body_height)
        visible = keypoints[:, 2] > 0
        labelled = int(visible.sum())
        # COCO's files have pixel indices.
        keypoints[visible, :2] = np.round(geometry.to_indices(keypoints[visible, :2]), 2)
        if not labelled or np.ptp(xs) + 1 < MIN_BOX or np.ptp(ys) + 1 < MIN_BOX:
            continue
        annotations.append(
            {
                "id": 10 * image_id + person,
                "image_id": image_id,
                "category_id": PERSON_CATEGORY,
                "bbox": [float(v) for v in (xs[0], ys[0], np.ptp(xs) + 1, np.ptp(ys) + 1)],
                "area": float(mask.sum()),
                "iscrowd": 0,
                "keypoints": [int(v) if v == int(v) else v for v in keypoints.ravel().tolist()],
                "num_keypoints": labelled,
            }
        )
    return annotations


def render_image(seed, split, index):
    """Renders one image.

    Args:
        seed: integer, at least 0.
        split: name of the split.
        index: number of the image in its split, from 0; its id is index + 1.

    Returns:
        (uint8 [H, W, 3] RGB image, list of COCO annotations). The list is empty if no person is
        visible enough.
    """
    rng = _rng(seed, split, index)
    scene = _compose(rng)
    return _develop(rng, scene.canvas.rgb), _annotations(scene, index + 1)
