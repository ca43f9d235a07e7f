"""Reads "CVAT for images 1.1": an XML file with skeletons, or with single points and boxes.

Format: https://docs.cvat.ai/docs/manual/advanced/xml_format/. The order of the joints is that of the
labels in <meta>, the bones are the lines of the skeleton's drawing. In a skeleton, a point that is
`outside` is unlabelled and one that is `occluded` is occluded.
"""

import math
import os
import xml.etree.ElementTree as ElementTree

from kpose.core.errors import InputError
from tfrecords_tools.convert import grouping, labels

ADVICE = "in CVAT, label persons with a skeleton, or put the points of each person into a group"
# Elements of an image that are no shapes.
NO_SHAPES = ("attribute",)


def read(options):
    """The `Source` of an XML file.

    Args:
        options: `ConvertOptions`; `input` is annotations.xml, or a folder that has it.

    Raises:
        InputError: not "CVAT for images 1.1", or a bad shape.
    """
    path = options.input
    path = os.path.join(path, "annotations.xml") if os.path.isdir(path) else path
    root = _load(path)
    source = labels.Source(images=_images(path))
    lines, single = _read_meta(root, source)
    skeletons = root.find("image/skeleton") is not None
    # A shape of several points is a person, whose points have no names.
    numbered = {e.get("label") for e in root.iterfind("image/points") if ";" in e.get("points", "")}
    for image in root.iterfind("image"):
        where = f"{path}: image {image.get('name')}"
        if not image.get("name"):
            raise InputError(f"{path}: an image has no name")
        persons = _Shapes(image, where, source).persons(skeletons, numbered)
        size = labels.size_of(image.get("width"), image.get("height"), where)
        source.photos.append(labels.Photo(where, [image.get("name")], size, persons))
    _set_points(source, lines, single, numbered)
    return source


def _load(path):
    text = labels.read_text(path, "XML file of CVAT")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise InputError(f"{path}: not XML ({error})") from None
    if root.tag != "annotations" or root.find("track") is not None or root.find("image") is None:
        raise InputError(f"{path}: not 'CVAT for images 1.1': choose this format in CVAT's export")
    return root


def _images(path):
    """The folder `images` beside the XML file, as in CVAT's archive, or the file's folder."""
    folder = os.path.dirname(path) or "."
    return os.path.join(folder, "images") if os.path.isdir(os.path.join(folder, "images")) else folder


def _read_meta(root, source):
    """Sets the joints of each skeleton from <meta>; returns the bones of each, and the labels of single points.

    Returns:
        (label of a skeleton -> (joint, joint) lines, label without a skeleton -> its type).
    """
    joints, single, lines = {}, {}, {}
    for label in root.iterfind("meta//labels/label"):
        name, kind, parent = (label.findtext(tag, "").strip() for tag in ("name", "type", "parent"))
        if parent:
            joints.setdefault(parent, []).append(name)
        elif kind != "skeleton":
            single[name] = kind
        elif label.findtext("svg", "").strip():
            lines[name] = _lines(name, label.findtext("svg"), source)
    for name, names in joints.items():
        source.points[name] = labels.Points(tuple(dict.fromkeys(names)))
    return lines, single


def _lines(name, svg, source):
    """(joint, joint) of the lines in a skeleton's drawing."""
    try:
        drawing = ElementTree.fromstring(f"<svg>{svg}</svg>")
    except ElementTree.ParseError:
        source.left_out[f"drawings of skeleton {name!r} that are not SVG, and with them its bones"] += 1
        return ()
    nodes = {}
    for circle in drawing.iter("circle"):
        number = circle.get("data-node-id", circle.get("data-element-id"))
        nodes[number] = circle.get("data-label-name")
    lines = [(nodes.get(e.get("data-node-from")), nodes.get(e.get("data-node-to"))) for e in drawing.iter("line")]
    good = [line for line in lines if None not in line and line[0] != line[1]]
    if len(good) < len(lines):
        source.left_out[f"bones of skeleton {name!r} whose joints have no name in its drawing"] += len(lines) - len(
            good
        )
    return tuple(dict.fromkeys(good))


def _set_points(source, lines, single, numbered):
    """Completes the joints of each category: those of <meta>, then those that occur besides them."""
    used = {}
    for photo in source.photos:
        for person in photo.persons:
            if person.category in numbered:
                _check_number(person, used.get(person.category))
            used.setdefault(person.category, {}).update(dict.fromkeys(person.joints))
    without = {name: None for category, names in used.items() if category not in source.points for name in names}
    # A label of the type "any" may be that of a box. One of the type "points" is a joint, even if unused.
    known = [name for name, kind in single.items() if kind == "points" or name in without]
    for category, names in used.items():
        if category in numbered:
            joints = tuple(names)
        elif category in source.points:
            joints = tuple(dict.fromkeys([*source.points[category].joints, *names]))
        else:
            joints = tuple(dict.fromkeys([*known, *names]))
        source.points[category] = labels.Points(joints, labels.bones_between(joints, lines.get(category, ())))


def _check_number(person, before):
    if before is not None and len(before) != len(person.joints):
        raise InputError(
            f"{person.where}: a shape {person.category!r} has {len(person.joints)} points, and another has "
            f"{len(before)}: its points have no names, so that all need the same number: use a skeleton"
        )


class _Shapes:
    """The shapes of an <image>."""

    def __init__(self, image, where, source):
        self.image = image
        self.where = where
        self.source = source

    def persons(self, skeletons, numbered):
        """List of `Person`.

        Args:
            skeletons: whether the file has skeletons; single points are then left out.
            numbered: labels of shapes of several points.
        """
        points, boxes, categories, persons = [], [], {}, []
        for number, shape in enumerate(self.image):
            label = shape.get("label", "").strip()
            if shape.tag == "box":
                boxes.append(grouping.Box(label, self._box(shape), self._group(shape)))
            elif shape.tag == "skeleton":
                key = ("skeleton", number)
                categories[key] = label, self._group(shape)
                points += self._joints(shape, key)
            elif shape.tag == "points" and not skeletons and label in numbered:
                persons.append(self._numbered(shape, label))
            elif shape.tag == "points" and not skeletons:
                x, y = self._numbers(shape, 1)[0]
                points.append(grouping.Point(label, x, y, self._flag(shape), self._group(shape)))
            elif shape.tag not in NO_SHAPES:
                self.source.left_out[f"shapes <{shape.tag}>"] += 1
        self._count_attributes()
        if not categories:
            return persons + grouping.persons_of(points, boxes, self.where, self.source, ADVICE)
        return persons + self._skeletons(points, boxes, categories)

    def _skeletons(self, points, boxes, categories):
        """The persons of an image with skeletons, each a group of points."""
        owner = {group: key for key, (_, group) in categories.items() if group is not None}
        for box in boxes:
            box.group = owner.get(box.group)
        persons = []
        for key in categories:
            # Persons one by one: the category is that of the skeleton, not that of the box.
            mine = [point for point in points if point.group == key]
            box = next((box for box in boxes if box.group == key), None)
            if box is None and len(categories) == len(boxes) == 1:
                box = boxes[0]
            boxes = [other for other in boxes if other is not box]
            person = grouping.persons_of(mine, [], self.where, self.source, ADVICE) if mine else []
            if not person and box is None:
                self.source.left_out["skeletons without a labelled point"] += 1
                continue
            joints = person[0].joints if person else {}
            persons.append(labels.Person(self.where, categories[key][0], joints, box and box.box))
        for box in boxes:
            self.source.left_out[f"boxes {box.label!r} that no skeleton is grouped with"] += 1
        return persons

    def _joints(self, skeleton, key):
        points = []
        for shape in skeleton:
            if shape.tag == "points":
                x, y = self._numbers(shape, 1)[0]
                if shape.get("outside") != "1":
                    points.append(grouping.Point(shape.get("label", "").strip(), x, y, self._flag(shape), key))
            elif shape.tag not in NO_SHAPES:
                self.source.left_out[f"shapes <{shape.tag}> of a skeleton"] += 1
        return points

    def _numbered(self, shape, label):
        rows = self._numbers(shape, None)
        joints = {f"point_{k}": (x, y, self._flag(shape)) for k, (x, y) in enumerate(rows, 1)}
        return labels.Person(self.where, label, joints)

    def _count_attributes(self):
        for attribute in self.image.iter("attribute"):
            self.source.left_out[f"attributes {attribute.get('name')!r}"] += 1

    @staticmethod
    def _flag(shape):
        return 1 if shape.get("occluded") == "1" else 2

    @staticmethod
    def _group(shape):
        return shape.get("group_id") if shape.get("group_id") not in (None, "", "0") else None

    def _numbers(self, shape, count):
        """[N, 2] finite x, y of the attribute `points`."""
        text = shape.get("points", "")
        rows = [[labels.finite(cell) for cell in pair.split(",")] for pair in text.split(";")]
        if any(len(row) != 2 or None in row for row in rows) or (count and len(rows) != count):
            raise InputError(f"{self.where}: points {text[:60]!r} of {shape.get('label')!r} are not x,y")
        return rows

    def _box(self, shape):
        """[x, y, width, height] of a <box>; a rotated one (degrees, about its middle) becomes upright."""
        numbers = [labels.finite(shape.get(name)) for name in ("xtl", "ytl", "xbr", "ybr")]
        rotation = labels.finite(shape.get("rotation", 0))
        if None in numbers or rotation is None:
            raise InputError(f"{self.where}: a <box> has no numbers xtl, ytl, xbr, ybr")
        left, top, right, bottom = numbers
        if not rotation:
            return [left, top, right - left, bottom - top]
        self.source.changed["rotated boxes: the upright box around them"] += 1
        cx, cy = (left + right) / 2, (top + bottom) / 2
        cos, sin = math.cos(math.radians(rotation)), math.sin(math.radians(rotation))
        ends = [(x - cx, y - cy) for x in (left, right) for y in (top, bottom)]
        return labels.box_around([(cx + a * cos - b * sin, cy + a * sin + b * cos) for a, b in ends])
