"""Colours of the joints and bones of a skeleton.

Joints of a left/right pair have the colour of their side. Other joints are green if most joints are
in pairs, as those of a person. Otherwise they are coloured by group: joints whose names begin with
the same word, such as the points of one finger, have the same hue and become lighter along the
group. If the names form no groups, the hue goes once around the colour wheel, in the order of the
joints.
"""

import colorsys
import functools
import itertools
import re

SIDES = {"left": (255, 140, 40), "right": (50, 150, 255), "middle": (120, 225, 150)}
# Colours of persons in a crowd: bright, and those that follow each other differ most.
PERSONS = (
    (255, 80, 80),
    (70, 185, 255),
    (255, 210, 50),
    (190, 120, 255),
    (90, 225, 110),
    (255, 140, 40),
    (60, 225, 215),
    (255, 115, 195),
    (185, 225, 50),
    (125, 145, 255),
    (225, 170, 120),
    (230, 230, 230),
)
# More groups than this have hues that nobody can tell apart.
MOST_GROUPS = 16
# The wheel ends at magenta, so that the last joint does not look like the first.
WHEEL = 0.88
# (saturation, value) of the first and of the last joint of a group.
FIRST, LAST = (0.95, 0.80), (0.45, 1.0)


def of_joints(skeleton):
    """[K] colours of the joints, each (red, green, blue) in 0..255."""
    return _of_joints(skeleton.joints, skeleton.sides)


@functools.lru_cache(maxsize=32)
def _of_joints(joints, sides):
    single = [k for k, side in enumerate(sides) if side == "middle"]
    colours = [SIDES[side] for side in sides]
    if 2 * len(single) <= len(joints):
        return tuple(colours)
    groups = _groups([joints[k] for k in single])
    if groups is None:
        hues = _wheel(len(single))
        for k, hue in zip(single, hues, strict=True):
            colours[k] = _rgb(hue, 0.75, 1.0)
        return tuple(colours)
    for hue, members in zip(_wheel(len(groups)), groups, strict=True):
        for place, member in enumerate(members):
            share = place / (len(members) - 1) if len(members) > 1 else 0.5
            tone = (a + share * (b - a) for a, b in zip(FIRST, LAST, strict=True))
            colours[single[member]] = _rgb(hue, *tone)
    return tuple(colours)


def _groups(names):
    """Lists of the places of names that begin with the same word; None if that gives no groups."""
    words = {}
    for place, name in enumerate(names):
        words.setdefault(_first_word(name), []).append(place)
    groups = list(words.values())
    useful = 2 <= len(groups) <= MOST_GROUPS and 2 * len(groups) <= len(names)
    return groups if useful else None


def _first_word(name):
    """The letters at the start of a name, up to a digit, a separator or a capital: "RingTip" -> "ring"."""
    found = re.match(r"[\W\d_]*([A-Z]+(?![a-z])|[^\W\d_](?:(?![A-Z])[^\W\d_])*)", name)
    return found[1].lower() if found else ""


def _wheel(count):
    """`count` hues in 0..1."""
    return [WHEEL * index / max(count - 1, 1) for index in range(count)]


def _rgb(*hsv):
    return tuple(round(255 * value) for value in colorsys.hsv_to_rgb(*hsv))


def of_bone(skeleton, bone):
    """Colour (red, green, blue) of a bone: that of the side of its joints.

    Without a side it is the colour of the joint that comes later in the skeleton. A bone from left
    to right has that of the middle.
    """
    sides = {skeleton.sides[joint] for joint in bone} - {"middle"}
    if sides:
        return SIDES[sides.pop() if len(sides) == 1 else "middle"]
    return of_joints(skeleton)[max(bone)]


def of_person(number):
    """Colour (red, green, blue) of a person of a crowd, by a number from 0."""
    return PERSONS[number % len(PERSONS)]


def lighter(colour):
    """A colour mixed with white."""
    return tuple(round(0.6 * value + 0.4 * 255) for value in colour)


def entries(skeleton, most):
    """The legend of a skeleton: list of (colour, text), at most `most` of them.

    The text is the number of the joint, from 0, and its name. If there are more joints, the last
    entry says how many, and its colour is None.
    """
    rows = zip(of_joints(skeleton), skeleton.joints, strict=True)
    listed = [(colour, f"{index}: {name}") for index, (colour, name) in enumerate(itertools.islice(rows, most))]
    if skeleton.num_joints > most:
        listed[-1] = (None, f"... and {skeleton.num_joints - most + 1} more")
    return listed
