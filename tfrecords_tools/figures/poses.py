"""Bodies as small 3D skeletons in sampled poses."""

import dataclasses
import math

import numpy as np


def _rotation(axis, degrees):
    """[3, 3] right-handed rotation around axis 0, 1 or 2."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[i, i], matrix[i, j], matrix[j, i], matrix[j, j] = c, -s, s, c
    return matrix


def _limb_direction(side, spread, swing):
    """Unit vector of a hanging limb, turned sideways by `spread` and forwards by `swing` degrees.

    Body axes: x to the person's left, y up, z forwards. `side` is +1 for the left limb, -1 for the
    right.
    """
    a, f = math.radians(spread), math.radians(swing)
    return np.array([side * math.sin(a), -math.cos(a) * math.cos(f), math.cos(a) * math.sin(f)])


def _bent(direction, degrees, towards):
    """`direction`, turned by `degrees` towards another vector."""
    normal = towards - direction * (direction @ towards)
    norm = math.sqrt(normal @ normal)
    if norm < 1e-6:
        return direction
    return math.cos(math.radians(degrees)) * direction + math.sin(math.radians(degrees)) / norm * normal


# Arms: ranges of spread, swing and elbow bend in degrees; direction (outwards, up, forwards) of the
# bend.
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

# Legs: for each leg, ranges of spread, swing and knee bend in degrees. The left leg is chosen at
# random.
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

# Families of poses: share, legs, arms to choose from (None: any), mean forward lean of the spine in
# degrees.
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

# Nose, eyes and ears (left first) from the centre of the head: (left, up, forwards) in head radii.
_FACE = ((0, -0.12, 1.12), (0.36, 0.16, 0.9), (-0.36, 0.16, 0.9), (1.04, 0.02, 0.02), (-1.04, 0.02, 0.02))


def _view(rng):
    """Random yaw in degrees: 0 faces the viewer, 180 faces away; positive is to its own left."""
    draw = rng.random()
    if draw < 0.72:
        return float(np.clip(rng.normal(0, 15), -40, 40))
    if draw < 0.86:
        return rng.choice((-1, 1)) * rng.uniform(35, 115)
    return 180 + rng.normal(0, 22)


def _roll(rng):
    """Random rotation of the whole body in the image plane, in degrees."""
    draw = rng.random()
    if draw < 0.1:
        return rng.choice((-1, 1)) * rng.uniform(35, 90)
    return rng.uniform(-35, 35) if draw < 0.55 else rng.normal(0, 7)


@dataclasses.dataclass
class Body:
    """A posed person in units of the body height, the middle of the hips at the origin.

    Attributes:
        joints: [17, 3] in view axes (x right, y down, z to the viewer), as all points below.
        spine: (neck base, waist, crotch), each [3].
        chest, pelvis, head: [3, 3]; the columns are the directions left, up and forwards of the
            part.
        head_centre: [3].
        toes, hands: ends of feet and hands, (left [3], right [3]).
        build: lengths and widths, see `_build`.
        upright: whether the person stands on its feet and has a shadow below them.
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
    upright: bool


def _build(rng):
    """Random lengths and half widths of one person, in units of its height."""
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
    """Elbow, wrist and end of the hand, [3] each, of an arm in pose `kind` from `shoulder` [3]."""
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


def draw_pose(rng, yaw=None, roll=None):
    """A sampled `Body`.

    Args:
        rng: NumPy generator.
        yaw, roll: angles in degrees in place of the sampled ones; None: sample them.
    """
    build = _build(rng)
    _, legs, arms, lean = _FAMILIES[int(np.searchsorted(_FAMILY_SHARE, rng.random() * _FAMILY_SHARE[-1]))]
    sampled_yaw, sampled_roll = _view(rng), _roll(rng)
    yaw = sampled_yaw if yaw is None else yaw
    roll = sampled_roll if roll is None else roll
    # Image y points down, so the second row is mirrored. The other factors are rotations.
    view = np.diag([1.0, -1.0, 1.0]) @ _rotation(2, roll) @ _rotation(0, rng.normal(3, 7)) @ _rotation(1, yaw)
    spine = _rotation(0, rng.normal(lean, 7)) @ _rotation(2, rng.normal(0, 9)) @ _rotation(1, rng.normal(0, 8))
    # The head turns back by most of the lean, so that people look ahead.
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
    return Body(joints, (neck_base, waist, crotch), chest, view, head, head_centre, toes, hands, build, upright)
