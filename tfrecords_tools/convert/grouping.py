"""Groups labelled points and boxes of one image into persons, for tools that label points one by one."""

import collections
import dataclasses

from kpose.core.errors import InputError
from tfrecords_tools.convert.labels import Person


@dataclasses.dataclass
class Point:
    """A labelled point: its label, x, y, visibility flag 1 or 2, and its group (None: it has none)."""

    label: str
    x: float
    y: float
    flag: int = 2
    group: object = None


@dataclasses.dataclass
class Box:
    """A labelled box: its label, [x, y, width, height], and its group (None: it has none)."""

    label: str
    box: list
    group: object = None

    def contains(self, point):
        """Whether a `Point` is in the box or on its edge."""
        x, y, width, height = self.box
        return x <= point.x <= x + width and y <= point.y <= y + height


def persons_of(points, boxes, where, source, advice):
    """The persons of an image.

    Points and a box of one group are a person. Boxes of other groups are free. Points without a
    group belong to the free box if there is one; if there are several, to the one that contains
    them. Without a free box, they are one person. If one group of points has no box and one free
    box is left, they are one person.

    Args:
        points: list of `Point`.
        boxes: list of `Box`.
        where: the place in the source, for error messages.
        source: the `Source`; what belongs to no person is counted in `left_out`.
        advice: what the user does in the tool to tell persons apart.

    Returns:
        List of `Person`.

    Raises:
        InputError: a person has two points with one label, or two boxes.
    """
    groups = collections.defaultdict(list)
    for point in points:
        groups[point.group].append(point)
    box_of, free = {}, []
    for box in boxes:
        if box.group is None or box.group not in groups:
            free.append(box)
        elif box.group in box_of:
            raise InputError(
                f"{where}: a person has two boxes, {box_of[box.group].label!r} and {box.label!r}: {advice}"
            )
        else:
            box_of[box.group] = box
    members = [(group_points, box_of.get(group)) for group, group_points in groups.items() if group is not None]
    loose = groups.get(None, [])
    members += _members_without_group(loose, free, source)
    taken = {id(box) for _, box in members}
    free = [box for box in free if id(box) not in taken]
    alone = [number for number, (_, box) in enumerate(members) if box is None]
    if len(alone) == len(free) == 1:
        members[alone[0]] = members[alone[0]][0], free.pop()
    for box in free:
        source.left_out[f"boxes {box.label!r} without points"] += 1
    return [_person(group_points, box, where, advice) for group_points, box in members]


def _members_without_group(loose, free, source):
    """[(points, box or None)] of the points without a group."""
    if not loose:
        return []
    if len(free) <= 1:
        return [(loose, free[0] if free else None)]
    inside = collections.defaultdict(list)
    for point in loose:
        owners = [number for number, box in enumerate(free) if box.contains(point)]
        if len(owners) == 1:
            inside[owners[0]].append(point)
        else:
            source.left_out["points without a group that are in no box, or in several"] += 1
    return [(inside[number], free[number]) for number in sorted(inside)]


def _person(points, box, where, advice):
    joints = {}
    for point in points:
        if point.label in joints:
            raise InputError(f"{where}: a person has two points {point.label!r}: {advice}")
        joints[point.label] = (point.x, point.y, point.flag)
    return Person(where, box.label if box else "", joints, box.box if box else None)
