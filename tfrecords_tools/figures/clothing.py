"""Skin, hair and clothes of people, as solids on a body."""

import colorsys
import dataclasses
import math

import numpy as np

from tfrecords_tools.figures.canvas import (
    CHEST,
    EAR,
    EYE,
    FOOT,
    HAIR,
    HAND,
    HEAD,
    LOWER_ARM,
    LOWER_LEG,
    MOUTH,
    NECK,
    NOSE,
    PACK,
    PELVIS,
    PERSON_DEPTH,
    PERSON_STRIDE,
    SKIRT,
    UPPER_ARM,
    UPPER_LEG,
    Solid,
)

_SKINS = ((250, 218, 192), (236, 192, 158), (214, 164, 122), (184, 130, 92), (140, 94, 64), (100, 66, 46))
_HAIRS = ((36, 28, 26), (66, 44, 30), (112, 72, 40), (168, 116, 60), (218, 180, 110), (150, 60, 32), (170, 168, 166))


@dataclasses.dataclass
class Outfit:
    """Colours (RGB, 0..255) and shapes of the clothes and hair of one person."""

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
    """A random colour of clothes."""
    if rng.random() < 0.2:
        return (float(rng.uniform(25, 245)),) * 3
    return tuple(255 * c for c in colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.35, 0.95), rng.uniform(0.3, 1)))


def _contrasting(rng, behind):
    """A random colour of clothes that usually differs from the mean colour behind the person."""
    colour = _cloth(rng)
    for _ in range(4 if rng.random() < 0.85 else 0):
        if math.dist(colour, behind) > 90:
            break
        colour = _cloth(rng)
    return colour


def choose_outfit(rng, behind):
    """A random `Outfit` for a person before the mean colour `behind`."""
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
    """A `Solid` with an elliptic cross-section of `widths` (left) and `depth` (forwards)."""
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


def draw_person(canvas, person, body, outfit, origin, scale):
    """Draws a person.

    Args:
        canvas: `Canvas`.
        person: number of the person, from 0.
        body: `Body`.
        outfit: `Outfit`.
        origin: (x, y) of the middle of the hips in pixels.
        scale: height of the person in pixels.

    Returns:
        [17, 3] x, y and depth of the joints in pixels.
    """
    shift = np.array([origin[0], origin[1], PERSON_DEPTH * (person + 1)])
    solids = _trunk(body, outfit) + _head(body, outfit)
    for i in range(2):
        solids += _arm(body, outfit, i) + _leg(body, outfit, i)
    # From back to front, so that edges blend with the solids behind them.
    solids.sort(key=lambda solid: solid.start[2] + solid.end[2] + 2 * solid.thick * min(solid.radius))
    for solid in solids:
        solid.start = solid.start * scale + shift
        solid.end = solid.end * scale + shift
        solid.radius = (solid.radius[0] * scale, solid.radius[1] * scale)
        solid.bulge *= scale
        canvas.solid(solid, PERSON_STRIDE * (person + 1) + solid.part)
    return body.joints * scale + shift
