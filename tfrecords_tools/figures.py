"""Draws a data set of articulated people in the COCO keypoint format, so that a demo needs no download.

    python -m tfrecords_tools.figures --output_dir=DIR --num_images=2000 --seed=0 --split=train

writes `DIR/images/train/000000000001.jpg`, ... and `DIR/annotations/person_keypoints_train.json`, which the
other tools read as they read COCO itself.

Every person is a small 3D skeleton in a sampled pose, dressed in shaded solids and projected orthographically
into an image with a depth buffer. The buffer also knows which part of whom each pixel shows, and the
visibility flags are read off it:

    v=2  the joint's pixel shows the person's own part at about the joint's depth;
    v=1  it shows something else (another person, an object, the person's own torso, hair, far side ...);
    v=0  the joint lies outside the image; x and y are 0 then.

Nose, eyes and ears hidden by the person's own head, as from behind, are v=1: the head still tells where
they are. Left and right are the person's own. Coordinates are continuous: pixel i covers [i, i + 1).

An image depends on (seed, split, index) alone, never on the other images or the number of workers.
"""

import colorsys
import dataclasses
import functools
import json
import math
import multiprocessing
import os
import zlib

import numpy as np
from absl import flags, logging
from PIL import Image, ImageDraw, ImageFilter

from kpose import cli, skeletons
from kpose.errors import InputError

FLAGS = cli.flag_set()
_OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "Where to write.", required=True, flag_values=FLAGS)
_NUM_IMAGES = flags.DEFINE_integer("num_images", 2000, "How many images to draw.", flag_values=FLAGS)
_SEED = flags.DEFINE_integer("seed", 0, "Another seed, other images.", flag_values=FLAGS)
_SPLIT = flags.DEFINE_string("split", "train", "Name of the split; splits of a seed differ.", flag_values=FLAGS)
_WORKERS = flags.DEFINE_integer("workers", 0, "Processes; 0: one a core.", flag_values=FLAGS)

MIN_BOX = 24  # pixels; a person of whom less is to be seen, in either direction, is not annotated
LOG_EVERY = 500

# What a pixel of a person can show. Limb parts are numbered per side: base + 0 left, base + 1 right.
HEAD, HAIR, NOSE, MOUTH, NECK, CHEST, PELVIS, SKIRT, PACK = range(9)
EYE, EAR, UPPER_ARM, LOWER_ARM, HAND, UPPER_LEG, LOWER_LEG, FOOT = range(10, 26, 2)
PERSON_STRIDE = 32  # owner of a pixel: PERSON_STRIDE * (person + 1) + part; less than that is no person
NOTHING, OBJECT = 0, 1
PERSON_DEPTH = 1e4  # people stand in layers this far apart, far more than a person is deep

# Per joint kind: the parts that show it, and how far (in body heights) their surface may lie before the joint.
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

_SKINS = ((250, 218, 192), (236, 192, 158), (214, 164, 122), (184, 130, 92), (140, 94, 64), (100, 66, 46))
_HAIRS = ((36, 28, 26), (66, 44, 30), (112, 72, 40), (168, 116, 60), (218, 180, 110), (150, 60, 32), (170, 168, 166))


# --- Drawing ---------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Solid:
    """A tapered, rounded solid about an axis; axis ends are (x, y, depth) in pixels, depth towards the viewer.

    Attributes:
        start, end: [3] ends of the axis.
        radius: (at start, at end) half width across the axis, pixels.
        colour: RGB, 0..255.
        part: which part of the person it is.
        bulge: added to the half width midway.
        thick: half depth, as a multiple of the half width.
        cap: how many times flatter than round the ends are.
        trim: second colour, where `cut` or `bands` say so.
        cut: the second colour begins at this fraction of the axis.
        bands: number of bands of alternating colour along the axis; 0: none.
    """

    start: np.ndarray
    end: np.ndarray
    radius: tuple
    colour: tuple
    part: int = 0
    bulge: float = 0.0
    thick: float = 1.0
    cap: float = 1.0
    trim: tuple | None = None
    cut: float = 2.0
    bands: int = 0


@dataclasses.dataclass
class Light:
    """One distant lamp: a unit vector towards it (x right, y down, depth to the viewer), and its share."""

    direction: tuple
    ambient: float
    diffuse: float


class Canvas:
    """A picture under construction.

    Attributes:
        rgb: float32 [3, H, W], 0..255.
        depth: float32 [H, W], larger is nearer.
        owner: int16 [H, W]: NOTHING, OBJECT, or PERSON_STRIDE * (person + 1) + part.
    """

    def __init__(self, rgb, light):
        self.rgb = rgb
        self.depth = np.full(rgb.shape[1:], -1e9, np.float32)
        self.owner = np.full(rgb.shape[1:], NOTHING, np.int16)
        self.light = light

    def _window(self, x0, y0, x1, y1):
        height, width = self.depth.shape
        x0, y0 = max(int(x0), 0), max(int(y0), 0)
        x1, y1 = min(int(x1) + 1, width), min(int(y1) + 1, height)
        return None if x0 >= x1 or y0 >= y1 else (slice(y0, y1), slice(x0, x1))

    def _grid(self, window):
        rows, columns = window
        x = np.arange(columns.start, columns.stop, dtype=np.float32) + 0.5
        y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] + 0.5
        return x, y

    def solid(self, solid, owner):
        """Draws a `Solid` where nothing nearer is, with smooth edges."""
        (ax, ay, az), (bx, by, bz) = solid.start.tolist(), solid.end.tolist()
        ra, rb = solid.radius
        reach = max(ra, rb) + abs(solid.bulge) + 1
        window = self._window(min(ax, bx) - reach, min(ay, by) - reach, max(ax, bx) + reach, max(ay, by) + reach)
        if window is None:
            return
        length = math.hypot(bx - ax, by - ay)
        # An axis along the line of sight has no direction in the image: any will do.
        ux, uy = ((bx - ax) / length, (by - ay) / length) if length > 1e-3 else (0.0, 1.0)
        length = max(length, 1e-3)
        x, y = self._grid(window)
        x, y = x - ax, y - ay
        along = x * ux + y * uy
        across = y * ux - x * uy
        t = np.clip(along * (1 / length), 0, 1)
        radius = ra + (rb - ra) * t
        if solid.bulge:
            radius += (4 * solid.bulge) * t * (1 - t)
        beyond = (along - t * length) * solid.cap
        distance = np.sqrt(across * across + beyond * beyond)
        s = np.minimum(distance / radius, 1)
        facing = np.sqrt(1 - s * s)
        lx, ly, lz = self.light.direction
        lit = (across * (ly * ux - lx * uy) + beyond * (lx * ux + ly * uy)) / np.maximum(radius, distance) + facing * lz
        shade = self.light.ambient + self.light.diffuse * np.maximum(lit, 0)
        surface = az + (bz - az) * t + radius * solid.thick * facing
        colour = np.array(solid.colour, np.float32)[:, None, None]
        if solid.trim is not None:
            trim = np.array(solid.trim, np.float32)[:, None, None]
            colour = np.where((t > solid.cut) | ((t * solid.bands).astype(np.int8) % 2 == 1), trim, colour)
        self._blend(window, np.clip(radius - distance + 0.5, 0, 1), surface, colour * shade, owner)

    def slab(self, box, depth, colour, owner):
        """Draws an upright board: box = (x0, y0, x1, y1) pixels, shaded across its width."""
        x0, y0, x1, y1 = box
        window = self._window(x0 - 1, y0 - 1, x1 + 1, y1 + 1)
        if window is None:
            return
        x, y = self._grid(window)
        inside = np.clip(np.minimum(x - x0, x1 - x) + 0.5, 0, 1) * np.clip(np.minimum(y - y0, y1 - y) + 0.5, 0, 1)
        side = (x - (x0 + x1) / 2) / max(x1 - x0, 1) * self.light.direction[0]
        shade = np.broadcast_to(self.light.ambient + self.light.diffuse * (0.7 + 0.5 * side), inside.shape)
        surface = np.full_like(inside, depth)
        self._blend(window, inside, surface, np.array(colour, np.float32)[:, None, None] * shade, owner)

    def shadow(self, x, y, width, height, strength):
        """Darkens what is there with a soft ellipse about (x, y)."""
        window = self._window(x - 2 * width, y - 2 * height, x + 2 * width, y + 2 * height)
        if window is not None:
            gx, gy = self._grid(window)
            dark = np.exp(-(((gx - x) / width) ** 2)) * np.exp(-(((gy - y) / height) ** 2))
            self.rgb[(slice(None), *window)] *= 1 - strength * dark

    def _blend(self, window, cover, surface, colour, owner):
        depth = self.depth[window]
        # Half a pixel of give where two solids meet makes seams smooth.
        cover = cover * np.clip((surface - depth) * 0.5 + 0.5, 0, 1)
        rgb = self.rgb[(slice(None), *window)]
        rgb += cover * (colour - rgb)
        shown = cover > 0.5
        np.copyto(depth, surface, where=shown)
        np.copyto(self.owner[window], np.int16(owner), where=shown)


# --- Poses -----------------------------------------------------------------------------------------------


def _rotation(axis, degrees):
    """[3, 3] right-handed rotation about axis 0, 1 or 2."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[i, i], matrix[i, j], matrix[j, i], matrix[j, j] = c, -s, s, c
    return matrix


def _limb_direction(side, spread, swing):
    """Unit vector of a limb that hangs down, spread sideways and then swung forwards by so many degrees.

    Body axes: x to the person's left, y up, z forwards. `side` is +1 for the left limb, -1 for the right.
    """
    a, f = math.radians(spread), math.radians(swing)
    return np.array([side * math.sin(a), -math.cos(a) * math.cos(f), math.cos(a) * math.sin(f)])


def _bent(direction, degrees, towards):
    """`direction` turned by so many degrees towards another vector."""
    normal = towards - direction * (direction @ towards)
    norm = math.sqrt(normal @ normal)
    if norm < 1e-6:
        return direction
    return math.cos(math.radians(degrees)) * direction + math.sin(math.radians(degrees)) / norm * normal


# Arms: ranges in degrees of spread, swing and elbow bend; the (outwards, up, forwards) the elbow bends towards.
_ARMS = {
    "hang": ((4, 24), (-18, 18), (2, 35), (0, 0.2, 1)),
    "raised": ((115, 172), (-20, 20), (0, 75), (-0.4, 1, 0.2)),
    "aside": ((50, 115), (-20, 25), (0, 60), (0, -0.3, 0.6)),
    "akimbo": ((38, 62), (-25, 5), (75, 105), (-1, -0.3, 0.15)),
    "wave": ((55, 110), (-15, 25), (60, 135), (0, 1, 0.2)),
    "ahead": ((-5, 40), (40, 115), (0, 60), (0, 1, 0.2)),
    "swing": ((5, 25), (-60, 55), (20, 105), (0, 0.4, 1)),
    "folded": ((5, 20), (15, 40), (80, 115), (-1, 0.3, 0.6)),
    "behind": ((15, 30), (-35, -15), (40, 70), (-1, 0.1, -0.4)),
}
_ANY_ARMS = ("hang", "raised", "raised", "aside", "aside", "akimbo", "wave", "wave", "ahead", "folded", "behind")

# Legs: for either leg ranges in degrees of spread, swing and knee bend. Which is the left one is drawn by lot.
_STRAIGHT = ((2, 14), (-8, 8), (0, 10))
_LEGS = {
    "stand": (_STRAIGHT, _STRAIGHT),
    "wide": (((15, 42), (-8, 12), (0, 18)), ((15, 42), (-8, 12), (0, 18))),
    "walk": (((1, 8), (12, 36), (2, 22)), ((1, 8), (-30, -10), (5, 40))),
    "run": (((0, 15), (40, 85), (55, 110)), ((0, 15), (-40, -10), (30, 100))),
    "lunge": (((0, 12), (55, 90), (70, 100)), ((0, 12), (-48, -20), (5, 35))),
    "side_lunge": (((35, 60), (-5, 15), (0, 12)), ((20, 45), (35, 70), (70, 115))),
    "sit": (((4, 32), (65, 100), (60, 105)), ((4, 32), (65, 100), (60, 105))),
    "crouch": (((12, 50), (70, 115), (90, 135)), ((12, 50), (70, 115), (90, 135))),
    "kick": (((5, 30), (45, 105), (0, 50)), _STRAIGHT),
    "side_kick": (((45, 95), (0, 30), (0, 50)), _STRAIGHT),
    "one_leg": (((30, 60), (30, 70), (95, 135)), _STRAIGHT),
    "kneel": (((5, 25), (75, 95), (75, 100)), ((2, 15), (-10, 10), (80, 105))),
    "jump": (((10, 50), (0, 70), (10, 110)), ((10, 50), (0, 70), (10, 110))),
}

# Families of poses: share, legs, arms to draw from (None: any), mean forward lean of the spine in degrees.
_FAMILIES = (
    (0.13, "stand", None, 2),
    (0.13, "wide", None, 4),
    (0.09, "walk", ("swing", "hang", "wave"), 4),
    (0.10, "run", ("swing",), 14),
    (0.07, "lunge", None, 10),
    (0.09, "side_lunge", None, 12),
    (0.07, "sit", ("hang", "ahead", "raised", "wave"), 6),
    (0.07, "crouch", ("ahead", "aside", "raised", "wave"), 25),
    (0.05, "kick", ("aside", "swing", "raised"), -4),
    (0.06, "side_kick", ("aside", "wave", "raised"), 0),
    (0.05, "one_leg", ("raised", "aside", "akimbo"), 0),
    (0.03, "kneel", None, 6),
    (0.06, "jump", ("raised", "aside", "wave"), 4),
)
_FAMILY_SHARE = np.cumsum([family[0] for family in _FAMILIES])

# Nose, eyes and ears (left first) about the head's centre: (left, up, forwards) in head radii.
_FACE = ((0, -0.12, 1.12), (0.36, 0.16, 0.9), (-0.36, 0.16, 0.9), (1.04, 0.02, 0.02), (-1.04, 0.02, 0.02))


def _view(rng):
    """Yaw of the body in degrees: 0 faces the viewer, 180 turns its back; positive turns to its own left."""
    draw = rng.random()
    if draw < 0.72:
        return float(np.clip(rng.normal(0, 15), -40, 40))
    if draw < 0.86:
        return rng.choice((-1, 1)) * rng.uniform(35, 115)
    return 180 + rng.normal(0, 22)


def _roll(rng):
    """Rotation of the whole body in the image plane, degrees."""
    draw = rng.random()
    if draw < 0.1:
        return rng.choice((-1, 1)) * rng.uniform(35, 90)
    return rng.uniform(-35, 35) if draw < 0.55 else rng.normal(0, 7)


@dataclasses.dataclass
class Body:
    """A posed person in units of the body height, the middle of the hips at the origin.

    Attributes:
        joints: [17, 3] in view axes (x right, y down, z to the viewer).
        spine: (neck base, waist, crotch) as [3] points, likewise.
        chest, pelvis, head: [3, 3] whose columns are the part's own left, up and forwards, likewise.
        head_centre: [3].
        toes, hands: the ends of feet and hands, (left [3], right [3]), likewise.
        build: widths, see `_build`.
        yaw: as from `_view`.
        upright: whether the person stands on its feet, so that a shadow belongs below them.
    """

    joints: np.ndarray
    spine: tuple
    chest: np.ndarray
    pelvis: np.ndarray
    head: np.ndarray
    head_centre: np.ndarray
    toes: list
    hands: list
    build: dict
    yaw: float
    upright: bool


def _build(rng):
    """Lengths and half widths of one person, in units of its height."""
    child = rng.random() < 0.2
    stout = float(np.clip(rng.normal(1.08, 0.14), 0.85, 1.5))
    legs = rng.uniform(0.93, 1.05) * (0.92 if child else 1)
    vary = rng.normal(1, 0.05, 8).clip(0.88, 1.12)
    return {
        "head": (0.094 if child else 0.076) * vary[0],
        "torso": 0.30 * vary[1],
        "shoulder": 0.112 * vary[2] * (0.75 + 0.25 * stout),
        "hip": 0.062 * vary[3] * (0.7 + 0.3 * stout),
        "upper_arm": 0.165 * vary[4],
        "lower_arm": 0.145 * vary[5],
        "upper_leg": 0.245 * legs * vary[6],
        "lower_leg": 0.235 * legs * vary[7],
        "stout": stout,
    }


def _arm_joints(rng, kind, side, shoulder, chest, build):
    """Elbow, wrist and end of the hand, [3] each, of an arm in that pose; `shoulder` is its [3] upper end."""
    *ranges, towards = _ARMS[kind]
    spread, swing, bend = (rng.uniform(*limits) for limits in ranges)
    upper = _limb_direction(side, spread, swing)
    lower = _bent(upper, bend, rng.normal(0, 0.25, 3) + (side * towards[0], towards[1], towards[2]))
    palm = _bent(lower, rng.uniform(-25, 25), np.array([side, 0.3, 0.5]))
    elbow = shoulder + build["upper_arm"] * (chest @ upper)
    wrist = elbow + build["lower_arm"] * (chest @ lower)
    return elbow, wrist, wrist + 0.055 * (chest @ palm)


def _leg_joints(rng, limits, side, hip, view, build):
    """Knee, ankle and toes, [3] each, of a leg posed within `limits`, a value of `_LEGS`."""
    spread, swing, bend = (rng.uniform(*pair) for pair in limits)
    thigh = _limb_direction(side, spread, swing)
    shin = _limb_direction(side, spread * rng.uniform(0.1, 0.9), swing - bend)
    foot = _bent(shin, rng.uniform(65, 95), _limb_direction(side, 0, swing - bend + 90))
    foot = foot + (side * rng.uniform(0, 0.45), 0, 0)
    knee = hip + build["upper_leg"] * (view @ thigh)
    ankle = knee + build["lower_leg"] * (view @ shin)
    return knee, ankle, ankle + view @ (0.03 * shin + 0.085 * foot)


def _pose(rng, yaw=None, roll=None):
    """Samples a `Body`; `yaw` and `roll` in degrees replace the sampled ones."""
    build = _build(rng)
    _, legs, arms, lean = _FAMILIES[int(np.searchsorted(_FAMILY_SHARE, rng.random() * _FAMILY_SHARE[-1]))]
    sampled_yaw, sampled_roll = _view(rng), _roll(rng)
    yaw = sampled_yaw if yaw is None else yaw
    roll = sampled_roll if roll is None else roll
    # Image y points down, hence the mirrored second row: the rest are proper rotations.
    view = np.diag([1.0, -1.0, 1.0]) @ _rotation(2, roll) @ _rotation(0, rng.normal(3, 7)) @ _rotation(1, yaw)
    spine = _rotation(0, rng.normal(lean, 7)) @ _rotation(2, rng.normal(0, 9)) @ _rotation(1, rng.normal(0, 8))
    # The head makes up for most of the lean: people look ahead.
    nod = _rotation(1, rng.normal(0, 9)) @ _rotation(0, rng.normal(-0.7 * lean, 7)) @ _rotation(2, rng.normal(0, 7))
    chest = view @ spine
    head = chest @ nod

    neck_base = build["torso"] * chest[:, 1]
    waist = 0.24 * build["torso"] * (0.6 * chest[:, 1] + 0.4 * view[:, 1])
    crotch = -0.03 * view[:, 1]
    r = build["head"]
    head_centre = neck_base + 0.035 * chest[:, 1] + 1.1 * r * head[:, 1] + 0.1 * r * head[:, 2]
    joints = np.zeros((17, 3))
    joints[:5] = head_centre + r * np.array(_FACE) @ head.T

    toes, hands = [], []
    arms = arms or _ANY_ARMS
    both = arms[rng.integers(len(arms))] if rng.random() < 0.45 else None
    swap = rng.integers(2)
    for i, side in enumerate((1, -1)):
        kind = both or arms[rng.integers(len(arms))]
        lift = 0.03 if kind in ("raised", "wave") else -0.025
        joints[5 + i] = neck_base + chest @ (side * build["shoulder"], lift - 0.02, 0)
        joints[7 + i], joints[9 + i], hand = _arm_joints(rng, kind, side, joints[5 + i], chest, build)
        hands.append(hand)
        joints[11 + i] = view @ (side * build["hip"], 0, 0)
        limits = _LEGS[legs][(i + swap) % 2]
        joints[13 + i], joints[15 + i], toe = _leg_joints(rng, limits, side, joints[11 + i], view, build)
        toes.append(toe)

    upright = abs(roll) < 20 and legs != "jump"
    return Body(joints, (neck_base, waist, crotch), chest, view, head, head_centre, toes, hands, build, yaw, upright)


# --- Dressing --------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Outfit:
    """Colours (RGB, 0..255) and cuts of one person's looks."""

    skin: tuple
    hair: tuple
    shirt: tuple
    shirt_trim: tuple
    bands: int
    sleeve: str
    trousers: tuple
    leg: str
    shoes: tuple
    hat: tuple | None
    bald: bool
    long_hair: bool
    emblem: bool
    pack: tuple | None


def _cloth(rng):
    """A random colour for clothes."""
    if rng.random() < 0.2:
        return (float(rng.uniform(25, 245)),) * 3
    return tuple(255 * c for c in colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.35, 0.95), rng.uniform(0.3, 1)))


def _contrasting(rng, behind):
    """A colour for clothes that mostly stands out from the mean colour behind the person."""
    colour = _cloth(rng)
    for _ in range(4 if rng.random() < 0.85 else 0):
        if math.dist(colour, behind) > 90:
            break
        colour = _cloth(rng)
    return colour


def _outfit(rng, behind):
    """Samples an `Outfit` to be worn before the colour `behind`."""
    skin = np.array(_SKINS[rng.integers(len(_SKINS))]) * rng.uniform(0.93, 1.04)
    return Outfit(
        skin=tuple(skin),
        hair=_HAIRS[rng.integers(len(_HAIRS))],
        shirt=_contrasting(rng, behind),
        shirt_trim=_cloth(rng),
        bands=int(rng.integers(5, 12)) if rng.random() < 0.2 else 0,
        sleeve=("none", "short", "short", "long", "long")[rng.integers(5)],
        trousers=_contrasting(rng, behind),
        leg=("long", "long", "long", "shorts", "shorts", "skirt")[rng.integers(6)],
        shoes=_cloth(rng),
        hat=_cloth(rng) if rng.random() < 0.2 else None,
        bald=rng.random() < 0.06,
        long_hair=rng.random() < 0.3,
        emblem=rng.random() < 0.5,
        pack=_cloth(rng) if rng.random() < 0.1 else None,
    )


def _trunk_solid(start, end, widths, depth, frame, **looks):
    """A `Solid` of elliptic cross-section, `widths` along the frame's left and `depth` along its forwards."""
    axis = end[:2] - start[:2]
    normal = np.array([-axis[1], axis[0]]) / max(math.hypot(*axis), 1e-6)
    left, forwards = frame[:, 0], frame[:, 2]
    spans = [math.hypot(w * (left[:2] @ normal), depth * (forwards[:2] @ normal)) for w in widths]
    thick = math.hypot(widths[0] * left[2], depth * forwards[2]) / max(spans[0], 1e-6)
    return Solid(start, end, tuple(spans), thick=min(thick, 2.5), **looks)


def _trunk(body, outfit):
    neck_base, waist, crotch = body.spine
    build, chest = body.build, body.chest
    stout = build["stout"]
    half_waist, half_hip, depth = 0.082 * stout, build["hip"] + 0.036 * stout, 0.068 * stout
    shirt = {"colour": outfit.shirt, "trim": outfit.shirt_trim, "bands": outfit.bands, "part": CHEST}
    trousers = {"colour": outfit.trousers, "part": PELVIS}
    top = neck_base - 0.035 * chest[:, 1]
    solids = [
        Solid(neck_base - 0.02 * chest[:, 1], body.head_centre, (0.036, 0.031), outfit.skin, NECK),
        _trunk_solid(top, waist, (build["shoulder"], half_waist), depth, chest, cap=3.2, **shirt),
        _trunk_solid(waist, crotch, (half_waist, half_hip), depth, body.pelvis, cap=2.2, **trousers),
    ]
    front = 0.3 * top + 0.7 * (top + waist) / 2 + depth * 0.97 * chest[:, 2]
    if outfit.emblem:
        tip = front - 0.05 * chest[:, 1]
        solids.append(Solid(front, tip, (0.03, 0.012), outfit.shirt_trim, CHEST, thick=0.1))
    if outfit.pack:
        back = top - (depth + 0.03) * chest[:, 2]
        solids.append(Solid(back, back - 0.17 * chest[:, 1], (0.07, 0.085), outfit.pack, PACK, thick=0.6))
    if outfit.leg == "skirt":
        knees = (body.joints[13] + body.joints[14]) / 2
        hem = crotch + 0.7 * (knees - crotch)
        spread = math.dist(body.joints[13][:2], body.joints[14][:2]) / 2
        radii = (half_waist, max(0.11, spread * 0.9))
        solids.append(Solid(waist, hem, radii, outfit.trousers, SKIRT, cap=4, thick=0.6))
    return solids


def _arm(body, outfit, i):
    shoulder, elbow, wrist = body.joints[5 + i], body.joints[7 + i], body.joints[9 + i]
    stout = body.build["stout"]
    shirt = {"colour": outfit.shirt, "trim": outfit.skin, "cut": {"none": 0.0, "short": 0.62, "long": 2}[outfit.sleeve]}
    lower = outfit.shirt if outfit.sleeve == "long" else outfit.skin
    return [
        Solid(shoulder, elbow, (0.037 * stout, 0.029 * stout), part=UPPER_ARM + i, **shirt),
        Solid(elbow, wrist, (0.029 * stout, 0.021 * stout), lower, LOWER_ARM + i, bulge=0.003),
        Solid(wrist, body.hands[i], (0.021, 0.024), outfit.skin, HAND + i, thick=0.8),
    ]


def _leg(body, outfit, i):
    hip, knee, ankle = body.joints[11 + i], body.joints[13 + i], body.joints[15 + i]
    stout = body.build["stout"]
    cut = {"long": 2, "shorts": 0.7, "skirt": 0.3}[outfit.leg]
    trousers = {"colour": outfit.trousers, "trim": outfit.skin, "cut": cut}
    lower = outfit.trousers if outfit.leg == "long" else outfit.skin
    heel = ankle + 0.02 * (ankle - knee) / body.build["lower_leg"]
    return [
        Solid(hip, knee, (0.058 * stout, 0.04 * stout), part=UPPER_LEG + i, **trousers),
        Solid(knee, ankle, (0.04 * stout, 0.025 * stout), lower, LOWER_LEG + i, bulge=0.006),
        Solid(heel, body.toes[i], (0.027, 0.023), outfit.shoes, FOOT + i),
    ]


def _head(body, outfit):
    r, frame, centre = body.build["head"], body.head, body.head_centre
    up, forwards = frame[:, 1], frame[:, 2]

    def at(x, y, z):
        return centre + r * (frame @ (x, y, z))

    dark_skin = tuple(0.78 * c for c in outfit.skin)
    solids = [Solid(at(0, -0.42, 0.06), at(0, 0.22, 0), (0.76 * r, 0.98 * r), outfit.skin, HEAD)]
    for i, side in enumerate((1, -1)):
        ear = body.joints[3 + i]
        lobe = (ear + 0.1 * r * up, ear - 0.12 * r * up)
        solids.append(Solid(*lobe, (0.2 * r, 0.15 * r), dark_skin, EAR + i, thick=0.8))
        eye = body.joints[1 + i]
        solids.append(Solid(eye, eye, (0.19 * r, 0.19 * r), (248, 248, 245), EYE + i, thick=0.6))
        pupil = eye + 0.14 * r * forwards
        solids.append(Solid(pupil, pupil, (0.12 * r, 0.12 * r), (30, 24, 24), EYE + i, thick=0.5))
        brow = (at(side * 0.5, 0.42, 0.84), at(side * 0.22, 0.46, 0.92))
        solids.append(Solid(*brow, (0.06 * r, 0.06 * r), outfit.hair, HEAD))
        lips = (at(side * 0.25, -0.48, 0.8), at(0, -0.58, 0.83))
        solids.append(Solid(*lips, (0.06 * r, 0.07 * r), (168, 66, 66), MOUTH))
    solids.append(Solid(at(0, 0.1, 0.95), at(0, -0.14, 1.06), (0.08 * r, 0.14 * r), dark_skin, NOSE))
    if not outfit.bald:
        cap = at(0, 0.34, -0.26)
        solids.append(Solid(cap, at(0, -0.1, -0.24), (1.02 * r, 0.9 * r), outfit.hair, HAIR))
        if outfit.long_hair:
            down = at(0, -1.35, -0.55)
            solids.append(Solid(at(0, 0.1, -0.42), down, (0.98 * r, 0.75 * r), outfit.hair, HAIR, thick=0.5))
    if outfit.hat:
        crown = at(0, 0.56, -0.08)
        solids.append(Solid(crown, at(0, 0.66, -0.08), (1.02 * r, 0.96 * r), outfit.hat, HAIR, cap=1.2))
        brim = (at(0, 0.66, 0.7), at(0, 0.66, 1.2))
        solids.append(Solid(*brim, (0.6 * r, 0.5 * r), outfit.hat, HAIR, cap=1.6, thick=0.15))
    return solids


def _draw_person(canvas, person, body, outfit, origin, scale):
    """Draws person number `person`; `origin` is the pixel of the middle of the hips, `scale` pixels a height.

    Returns:
        [17, 3] joints in pixels and depth.
    """
    shift = np.array([origin[0], origin[1], PERSON_DEPTH * (person + 1)])
    solids = _trunk(body, outfit) + _head(body, outfit)
    for i in range(2):
        solids += _arm(body, outfit, i) + _leg(body, outfit, i)
    # From back to front, so that edges blend with what is behind them; the depth buffer does the rest.
    solids.sort(key=lambda solid: solid.start[2] + solid.end[2] + 2 * solid.thick * min(solid.radius))
    for solid in solids:
        solid.start = solid.start * scale + shift
        solid.end = solid.end * scale + shift
        solid.radius = (solid.radius[0] * scale, solid.radius[1] * scale)
        solid.bulge *= scale
        canvas.solid(solid, PERSON_STRIDE * (person + 1) + solid.part)
    return body.joints * scale + shift


# --- Surroundings ----------------------------------------------------------------------------------------


def _tint(rng, value, saturation=0.45):
    """A random colour of about that brightness, 0..1, as a tuple of ints."""
    value = float(np.clip(value + rng.normal(0, 0.08), 0.05, 1))
    return tuple(int(255 * c) for c in colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.05, saturation), value))


def _gradient(size, top, bottom):
    width, height = size
    ramp = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    rows = np.array(top) * (1 - ramp) + np.array(bottom) * ramp
    return Image.fromarray(rows.astype(np.uint8)).resize((width, height))


def _outdoors(rng, size, horizon):
    """Sky, ground, and buildings or trees between them."""
    width, height = size
    sky = colorsys.hsv_to_rgb(rng.uniform(0.52, 0.64), rng.uniform(0.05, 0.5), rng.uniform(0.65, 1))
    image = _gradient(size, [255 * c for c in sky], [235, 232, 225])
    draw = ImageDraw.Draw(image)
    ground = colorsys.hsv_to_rgb(rng.uniform(0.06, 0.36), rng.uniform(0.1, 0.55), rng.uniform(0.35, 0.75))
    buildings = rng.random() < 0.5
    x = -rng.uniform(0, 40)
    while x < width:
        span = rng.uniform(18, 75)
        top = horizon - rng.uniform(0.1, 0.9) * horizon
        if buildings:
            colour = _tint(rng, 0.6)
            draw.rectangle((x, top, x + span, horizon), fill=colour)
            pane = tuple(int(c * rng.uniform(0.5, 0.75)) for c in colour)
            for wy in np.arange(top + 5, horizon - 6, 13):
                for wx in np.arange(x + 4, x + span - 6, 11):
                    draw.rectangle((wx, wy, wx + 5, wy + 7), fill=pane)
        else:
            leaf = tuple(int(255 * c) for c in colorsys.hsv_to_rgb(rng.uniform(0.2, 0.4), 0.5, rng.uniform(0.25, 0.6)))
            draw.rectangle((x + span * 0.45, top, x + span * 0.55, horizon), fill=(92, 70, 52))
            for dx, dy, share in rng.uniform(-0.35, 0.35, (4, 3)):
                r = span * (0.45 + share / 3)
                cx, cy = x + span * (0.5 + dx), top + span * (0.3 + dy)
                draw.ellipse((cx - r, cy - r, cx + r, cy + r), fill=leaf)
        x += span * rng.uniform(0.8, 1.9)
    near, far = [254 * c for c in ground], [215 * c for c in ground]
    image.paste(_gradient((width, height - horizon), far, near), (0, horizon))
    if rng.random() < 0.3:
        left, right = np.sort(rng.uniform(0, width, 2))
        road = [(left, horizon), (right, horizon), (width, height), (0, height)]
        draw.polygon(road, fill=_tint(rng, 0.55, 0.1))
    return image


def _indoors(rng, size, horizon):
    """A wall, papered or hung with pictures, and a floor."""
    width, height = size
    wall = _tint(rng, 0.7, 0.5)
    image = _gradient(size, wall, [0.85 * c for c in wall])
    draw = ImageDraw.Draw(image)
    pattern = rng.random()
    other = _tint(rng, 0.65, 0.5)
    if pattern < 0.35:
        step = int(rng.integers(10, 36))
        for x in range(0, width, 2 * step):
            draw.rectangle((x, 0, x + step - 1, horizon), fill=other)
    elif pattern < 0.8:
        for _ in range(rng.integers(1, 5)):
            x, y, w, h = rng.uniform(0, width), rng.uniform(0, horizon * 0.7), rng.uniform(20, 80), rng.uniform(20, 80)
            frame = (x, y, x + w, min(y + h, horizon))
            draw.rectangle(frame, fill=_tint(rng, 0.6, 0.7), outline=_tint(rng, 0.3), width=2)
    floor = _tint(rng, 0.5, 0.5)
    image.paste(_gradient((width, height - horizon), [0.8 * c for c in floor], floor), (0, horizon))
    if rng.random() < 0.5:
        line = tuple(int(0.75 * c) for c in floor)
        for x in np.arange(-width, 2 * width, rng.uniform(25, 60)):
            draw.line((width / 2 + (x - width / 2) * 0.5, horizon, x, height), fill=line)
    draw.line((0, horizon, width, horizon), fill=_tint(rng, 0.35), width=3)
    return image


def _blobs(rng, size):
    """A heap of soft shapes with no ground at all."""
    image = _gradient(size, _tint(rng, 0.6, 0.6), _tint(rng, 0.6, 0.6))
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(5, 30)):
        x, y = rng.uniform(0, size[0]), rng.uniform(0, size[1])
        r, q = rng.uniform(8, 60, 2)
        shape = draw.ellipse if rng.random() < 0.6 else draw.rectangle
        shape((x - r, y - q, x + r, y + q), fill=_tint(rng, 0.55, 0.6))
    return image


def _background(rng, size):
    """float32 [3, H, W] of a random place; size is (width, height)."""
    horizon = int(size[1] * rng.uniform(0.35, 0.75))
    draw = rng.random()
    if draw < 0.45:
        image = _outdoors(rng, size, horizon)
    elif draw < 0.75:
        image = _indoors(rng, size, horizon)
    elif draw < 0.9:
        image = _blobs(rng, size)
    else:
        image = _gradient(size, _tint(rng, 0.7), _tint(rng, 0.5))
    image = image.filter(ImageFilter.BoxBlur(rng.uniform(0.5, 1.8)))
    rgb = np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1), dtype=np.float32)
    grain = rng.uniform(0.5, 4)
    coarse = rng.normal(128, 50, (size[1] // 5, size[0] // 5)).clip(0, 255).astype(np.uint8)
    texture = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BILINEAR), np.float32)
    rgb += (texture - 128) * (grain / 30)
    return rgb


def _light(rng):
    angle = math.radians(rng.uniform(-70, 70))
    flat = rng.uniform(0.5, 0.85)
    ambient = rng.uniform(0.4, 0.65)
    direction = (flat * math.sin(angle), -flat * math.cos(angle), math.sqrt(1 - flat * flat))
    return Light(direction, ambient, 1.12 - ambient)


def _object(canvas, rng, x, y, size, depth):
    """Draws furniture, a pole, a bush or a ball of about `size` pixels round (x, y) at that depth."""
    kind = rng.integers(4)
    colour = np.array(_tint(rng, 0.55, 0.8))
    if kind == 0:
        w, h = size * rng.uniform(0.5, 1.1), size * rng.uniform(0.4, 0.9)
        canvas.slab((x - w / 2, y - h / 2, x + w / 2, y + h / 2), depth, colour, OBJECT)
        canvas.slab((x - w / 2 - 3, y - h / 2 - 4, x + w / 2 + 3, y - h / 2 + 2), depth + 5, colour * 1.15, OBJECT)
    elif kind == 1:
        slant, r = rng.uniform(-12, 12), size * rng.uniform(0.05, 0.1)
        height = canvas.depth.shape[0]
        ends = np.array([x - slant, -9, depth]), np.array([x + slant, height + 9, depth])
        canvas.solid(Solid(*ends, (r, r), colour), OBJECT)
    elif kind == 2:
        leaf = 255 * np.array(colorsys.hsv_to_rgb(rng.uniform(0.2, 0.4), 0.55, rng.uniform(0.35, 0.65)))
        for dx, dy, shade in rng.uniform(-1, 1, (9, 3)):
            centre = np.array([x + dx * size * 0.35, y + dy * size * 0.25, depth + 10 * dy])
            r = size * (0.18 + 0.05 * shade)
            canvas.solid(Solid(centre, centre, (r, r), leaf * (1 + 0.15 * shade), thick=0.5), OBJECT)
    else:
        centre = np.array([x, y, depth])
        r = size * rng.uniform(0.15, 0.3)
        canvas.solid(Solid(centre, centre, (r, r), colour * 1.2), OBJECT)


# --- Scenes ----------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Scene:
    """A finished picture: `canvas`, per person its joints [17, 3] in pixels, heights in pixels and yaws."""

    canvas: Canvas
    joints: list
    heights: list
    yaws: list


def _rng(seed, split, index):
    return np.random.default_rng(np.random.SeedSequence([seed, zlib.crc32(split.encode()), index]))


def _extent(body):
    """(x0, y0, x1, y1) of the whole figure about the middle of its hips, in body heights."""
    points = np.concatenate([body.joints, [body.head_centre], body.toes, body.hands])[:, :2]
    x0, y0 = points.min(0) - 0.03
    x1, y1 = points.max(0) + 0.03
    r = body.build["head"] * 1.2
    cx, cy = body.head_centre[:2]
    return min(x0, cx - r), min(y0, cy - r), max(x1, cx + r), max(y1, cy + r)


def _overlap(box, others):
    """Largest share of the smaller of `box` and one of the others that both cover."""
    worst = 0.0
    for other in others:
        w = min(box[2], other[2]) - max(box[0], other[0])
        h = min(box[3], other[3]) - max(box[1], other[1])
        if w > 0 and h > 0:
            areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (box, other)]
            worst = max(worst, w * h / min(areas))
    return worst


def _place(rng, size, body, crowd, placed):
    """Chooses (hip pixel x, y), pixels a body height and the box for a body among those already placed."""
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
    """Draws a whole scene (see `Scene`) before the camera's own noise."""
    long, short = int(rng.integers(290, 361)), int(rng.integers(200, 281))
    size = (long, short) if rng.random() < 0.6 else (short, long)
    canvas = Canvas(_background(rng, size), _light(rng))
    for _ in range(rng.integers(0, 3)):
        _object(canvas, rng, rng.uniform(0, size[0]), rng.uniform(size[1] / 2, size[1]), rng.uniform(30, 110), 0.0)
    crowd = (1, 1, 1, 1, 1, 2, 2, 2, 2, 3)[rng.integers(10)]
    bodies, placed = [_pose(rng) for _ in range(crowd)], []
    for body in bodies:
        placed.append(_place(rng, size, body, crowd, [box for _, _, box in placed]))
    # Whoever stands lower in the image is nearer.
    order = sorted(range(crowd), key=lambda k: placed[k][2][3])
    scene = Scene(canvas, [], [], [])
    for person, k in enumerate(order):
        body, (origin, scale, box) = bodies[k], placed[k]
        rows, columns = slice(max(int(box[1]), 0), int(box[3])), slice(max(int(box[0]), 0), int(box[2]))
        behind = canvas.rgb[:, rows, columns].reshape(3, -1)[:, ::7].mean(1)
        if body.upright:
            feet = origin[0] + scale * body.joints[15:, 0].mean()
            canvas.shadow(feet, box[3] - 0.02 * scale, 0.2 * scale, 0.03 * scale, 0.5)
        scene.joints.append(_draw_person(canvas, person, body, _outfit(rng, behind), origin, scale))
        scene.heights.append(scale)
        scene.yaws.append(body.yaw)
    if rng.random() < 0.15:
        box = placed[order[-1]][2]
        x, y = rng.uniform(box[0], box[2]), rng.uniform(box[1] * 0.6 + box[3] * 0.4, box[3])
        _object(canvas, rng, x, y, rng.uniform(40, 110), PERSON_DEPTH * (crowd + 1))
    return scene


def _develop(rng, rgb):
    """uint8 [H, W, 3] photograph of a canvas: exposure, uneven light, blur and grain."""
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


# --- Labels ----------------------------------------------------------------------------------------------


@functools.cache
def _shown_by():
    """Per joint: the parts that show it and the depth it may lie below their surface, in body heights."""
    table = []
    for name, side in zip(skeletons.COCO.joints, skeletons.COCO.sides, strict=True):
        middle, sided, slack = _JOINT_PARTS[name.rsplit("_", 1)[-1]]
        table.append(({*middle, *(part + (side == "right") for part in sided)}, slack))
    return tuple(table)


def _keypoints(canvas, person, joints, body_height):
    """[17, 3] of x, y in pixels and the flag v of one person, read off the canvas."""
    rows, columns = canvas.depth.shape
    keypoints = np.zeros((17, 3))
    for k, ((x, y, z), (parts, slack)) in enumerate(zip(joints.tolist(), _shown_by(), strict=True)):
        if not (0 <= x < columns and 0 <= y < rows):
            continue
        row, column = int(y), int(x)
        part = int(canvas.owner[row, column]) - PERSON_STRIDE * (person + 1)
        near = canvas.depth[row, column] - z <= slack * body_height
        # Rounded down: a joint stays on its pixel.
        keypoints[k] = math.floor(100 * x) / 100, math.floor(100 * y) / 100, 2 if part in parts and near else 1
    return keypoints


def _annotations(scene, image_id):
    """COCO annotations of everybody of whom enough is to be seen."""
    annotations = []
    for person, (joints, body_height) in enumerate(zip(scene.joints, scene.heights, strict=True)):
        mask = scene.canvas.owner // PERSON_STRIDE == person + 1
        if not mask.any():
            continue
        xs, ys = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
        keypoints = _keypoints(scene.canvas, person, joints, body_height)
        labelled = int((keypoints[:, 2] > 0).sum())
        if not labelled or np.ptp(xs) + 1 < MIN_BOX or np.ptp(ys) + 1 < MIN_BOX:
            continue
        annotations.append(
            {
                "id": 10 * image_id + person,
                "image_id": image_id,
                "category_id": 1,
                "bbox": [float(v) for v in (xs[0], ys[0], np.ptp(xs) + 1, np.ptp(ys) + 1)],
                "area": float(mask.sum()),
                "iscrowd": 0,
                "keypoints": [int(v) if v == int(v) else v for v in keypoints.ravel().tolist()],
                "num_keypoints": labelled,
            }
        )
    return annotations


def render_image(seed, split, index):
    """Draws one image.

    Args:
        seed: an integer, at least 0.
        split: name of the split.
        index: number of the image in its split, from 0; its id is index + 1.

    Returns:
        (uint8 [H, W, 3] RGB image, list of COCO annotation dicts). The list is empty if nobody is seen
        well enough.
    """
    rng = _rng(seed, split, index)
    scene = _compose(rng)
    return _develop(rng, scene.canvas.rgb), _annotations(scene, index + 1)


# --- The data set ----------------------------------------------------------------------------------------


def _render_file(index, folder, seed, split):
    """Writes image number `index` into `folder`; its entry for "images" and its annotations."""
    pixels, annotations = render_image(seed, split, index)
    name = f"{index + 1:012d}.jpg"
    Image.fromarray(pixels).save(os.path.join(folder, name), quality=int(72 + 24 * ((index * 0.618034) % 1)))
    height, width = pixels.shape[:2]
    return {"id": index + 1, "file_name": name, "width": width, "height": height}, annotations


def _category():
    skeleton = [[a + 1, b + 1] for a, b in skeletons.COCO.bones]
    names = list(skeletons.COCO.joints)
    return {"supercategory": "person", "id": 1, "name": "person", "keypoints": names, "skeleton": skeleton}


def _check(output_dir, num_images, seed, split, workers):
    if not output_dir:
        raise InputError("output_dir is empty: name the directory to write to")
    if num_images < 1:
        raise InputError(f"num_images is {num_images}: it must be at least 1")
    if seed < 0:
        raise InputError(f"seed is {seed}: it must be at least 0")
    if not split or any(c in split for c in "/\\") or split in (".", ".."):
        raise InputError(f"split is {split!r}: it must be a plain name such as train, without slashes")
    if workers < 0:
        raise InputError(f"workers is {workers}: it must be at least 0 (0: one a core)")


def render_dataset(output_dir, num_images, seed=0, split="train", workers=0):
    """Draws a split: `output_dir/images/<split>/*.jpg` and `output_dir/annotations/person_keypoints_<split>.json`.

    The JSON file is removed first and put in place last: while there is one, its images are there.

    Args:
        output_dir: directory to write to; made if missing.
        num_images: how many images, at least 1.
        seed: an integer, at least 0.
        split: a plain name.
        workers: processes; 0: one a core; 1: in this process. More than one are spawned, so a script that
            asks for them needs the usual `if __name__ == "__main__"`.

    Returns:
        Path of the JSON file.

    Raises:
        InputError: an argument is out of range.
    """
    _check(output_dir, num_images, seed, split, workers)
    folder = os.path.join(output_dir, "images", split)
    path = os.path.join(output_dir, "annotations", f"person_keypoints_{split}.json")
    os.makedirs(folder, exist_ok=True)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if os.path.exists(path):
        os.remove(path)

    render = functools.partial(_render_file, folder=folder, seed=seed, split=split)
    workers = min(workers or os.cpu_count() or 1, num_images)
    if workers == 1:
        images, annotations = _gather(map(render, range(num_images)), num_images)
    else:
        # Spawned, not forked: the caller may hold threads and locks, TensorFlow's for instance.
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            images, annotations = _gather(pool.imap(render, range(num_images), chunksize=8), num_images)

    dataset = {
        "info": {"description": f"Drawn figures, seed {seed}, split {split}", "version": "1.0"},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": [_category()],
    }
    with open(path + ".tmp", "w", encoding="utf-8") as file:
        json.dump(dataset, file)
    os.replace(path + ".tmp", path)
    logging.info("%s: %d images, %d people", path, num_images, len(annotations))
    return path


def _gather(results, num_images):
    images, annotations = [], []
    for done, (image, people) in enumerate(results, 1):
        images.append(image)
        annotations += people
        if done % LOG_EVERY == 0:
            logging.info("%d of %d images drawn", done, num_images)
    return images, annotations


def main():
    render_dataset(_OUTPUT_DIR.value, _NUM_IMAGES.value, _SEED.value, _SPLIT.value, _WORKERS.value)


def console():
    cli.run(main, FLAGS, __doc__)


if __name__ == "__main__":
    console()
