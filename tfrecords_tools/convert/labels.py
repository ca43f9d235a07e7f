"""What the readers of the formats return: images with persons, the joints of the persons, and what was not used."""

import collections
import dataclasses
import math

from kpose.core import files
from kpose.core.errors import InputError


@dataclasses.dataclass
class Person:
    """A labelled person.

    Attributes:
        where: the place in the source, for error messages.
        category: name of its class; "": the source has none.
        joints: joint name -> (x, y, visibility flag 1 or 2), in the units of its `Photo`.
        box: [x, y, width, height] in the units of its `Photo`; None: the source has none.
    """

    where: str
    category: str
    joints: dict
    box: list | None = None


@dataclasses.dataclass
class Photo:
    """An image of the source with its persons.

    Attributes:
        where: the place in the source, for error messages.
        names: paths that the image may have in the image folder, the first is that of the source.
        size: (width, height) in pixels by the source; None: the source does not say it.
        persons: list of `Person`.
        relative: whether coordinates are shares of the image's size; otherwise they are pixels.
    """

    where: str
    names: list
    size: tuple | None
    persons: list
    relative: bool = False


@dataclasses.dataclass(frozen=True)
class Points:
    """The joints of one category.

    Attributes:
        joints: K names in the order of the source.
        bones: (joint, joint) indices of the lines to draw.
        flip_idx: K indices: after a mirroring, joint k is the former joint `flip_idx[k]`; None: the
            source does not say it.
    """

    joints: tuple
    bones: tuple = ()
    flip_idx: tuple | None = None


@dataclasses.dataclass
class Source:
    """The labels of a source.

    Attributes:
        photos: list of `Photo`.
        points: category -> `Points`; the key "" is for every category that has no entry.
        images: default of the image folder.
        pixel_offset: 0.5 if the coordinates are pixel indices, 0 if they count from the corner.
        left_out: Counter: what was left out -> how often.
        changed: Counter: what was read in another way than it is written -> how often.
        remarks: further lines for the user.
    """

    photos: list = dataclasses.field(default_factory=list)
    points: dict = dataclasses.field(default_factory=dict)
    images: str = "."
    pixel_offset: float = 0.0
    left_out: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    changed: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    remarks: list = dataclasses.field(default_factory=list)

    def points_of(self, category):
        """The `Points` of a category; without joints if the source has none."""
        return self.points.get(category) or self.points.get("") or Points(())

    def use_labels_in_order(self):
        """Sets the joints of each category to the labels that occur, in the order of their first use."""
        persons = [person for photo in self.photos for person in photo.persons]
        for category in {"", *(person.category for person in persons)}:
            some = [p for p in persons if not category or p.category in ("", category)]
            self.points[category] = Points(tuple(dict.fromkeys(name for person in some for name in person.joints)))


def bones_between(joints, lines):
    """Bones as indices: `lines` are (name, name) of `joints`; lines with other names are left out."""
    index = {joint: k for k, joint in enumerate(joints)}
    return tuple((index[a], index[b]) for a, b in dict.fromkeys(lines) if a in index and b in index and a != b)


def finite(value):
    """The finite float of a number, or of a text that is one; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = math.nan if isinstance(value, str) and "_" in value else float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def size_of(width, height, where):
    """(width, height) as whole pixels; None if the source has neither.

    Raises:
        InputError: one is missing, or one is not a positive whole number.
    """
    if width is None and height is None:
        return None
    numbers = [finite(width), finite(height)]
    if None in numbers or min(numbers) < 1 or any(number != int(number) for number in numbers):
        raise InputError(f"{where}: the image's size is {width} x {height}: give whole pixels")
    return tuple(int(number) for number in numbers)


def box_around(corners):
    """[x, y, width, height] of the smallest upright box around points [N, 2]."""
    xs, ys = zip(*corners, strict=True)
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


def read_text(path, what):
    """The text of a UTF-8 file, without a byte order mark.

    Args:
        path: the file.
        what: a noun for the file, for errors.

    Raises:
        InputError: the file is missing or is not text in UTF-8.
    """
    if not files.is_file(path):
        raise InputError(f"{path}: no such {what}")
    try:
        return files.read_bytes(path).decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: the {what} cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not text in UTF-8 ({error.reason})") from None
