"""Reads the JSON files of LabelMe, one an image: points, and perhaps a rectangle a person.

Format: https://github.com/wkentaro/labelme. Points and a rectangle with the same group_id are a
person. A point with the flag "occluded" or "hidden" is occluded.
"""

import glob
import os

from kpose.core import files
from kpose.core.errors import InputError
from tfrecords_tools.convert import grouping, labels

ADVICE = "in LabelMe, give the points and the rectangle of each person their own Group ID"
OCCLUDED = ("occluded", "hidden")


def read(options):
    """The `Source` of a folder of JSON files, or of one file.

    Args:
        options: `ConvertOptions`; `input` is the folder, with its folders, or the file.

    Raises:
        InputError: there is no file of LabelMe, or one is bad.
    """
    folder = options.input if os.path.isdir(options.input) else os.path.dirname(options.input) or "."
    paths = [options.input]
    if os.path.isdir(options.input):
        paths = sorted(glob.glob(os.path.join(glob.escape(folder), "**", "*.json"), recursive=True))
    source = labels.Source(images=folder)
    for path in paths:
        data = files.read_json(path, "file of LabelMe")
        if isinstance(data, dict) and isinstance(data.get("shapes"), list) and "imagePath" in data:
            source.photos.append(_photo(path, data, options.images or folder, source))
        else:
            source.left_out[f".json files that are not LabelMe's ({os.path.basename(path)})"] += 1
    if not source.photos:
        raise InputError(f"{options.input}: no file of LabelMe: it needs .json files with 'shapes' and 'imagePath'")
    source.use_labels_in_order()
    return source


def _photo(path, data, images, source):
    size = labels.size_of(data.get("imageWidth"), data.get("imageHeight"), path)
    name = data["imagePath"]
    if not isinstance(name, str) or not name:
        raise InputError(f"{path}: imagePath is {name!r}: it must be the path of the image")
    _count_flags(data.get("flags"), "of an image", source)
    points, boxes = [], []
    for number, shape in enumerate(data["shapes"], 1):
        where = f"{path}: shape {number}"
        if not isinstance(shape, dict) or not isinstance(shape.get("label"), str):
            raise InputError(f"{where}: it has no label")
        kind, label, group = shape.get("shape_type", "polygon"), shape["label"].strip(), shape.get("group_id")
        if isinstance(group, list | dict):
            raise InputError(f"{where}: group_id is {group!r}: it must be a number")
        if kind not in ("point", "rectangle"):
            source.left_out[f"shapes of type {kind!r}"] += 1
            continue
        corners = _corners(shape.get("points"), 1 if kind == "point" else 2, where)
        if kind == "rectangle":
            boxes.append(grouping.Box(label, labels.box_around(corners), group))
        else:
            points.append(grouping.Point(label, *corners[0], _flag(shape.get("flags"), source), group))
    persons = grouping.persons_of(points, boxes, path, source, ADVICE)
    # imagePath is relative to the JSON file.
    beside = os.path.relpath(os.path.join(os.path.dirname(path), name.replace("\\", "/")), images)
    return labels.Photo(path, [beside, name], size, persons)


def _corners(rows, least, where):
    """[N, 2] finite x, y of a shape."""
    rows = rows if isinstance(rows, list) else []
    corners = [[labels.finite(value) for value in row] for row in rows if isinstance(row, list) and len(row) == 2]
    if len(corners) != len(rows) or len(rows) < least or any(None in corner for corner in corners):
        raise InputError(f"{where}: its points are {str(rows)[:60]}: it needs {least} or more of [x, y]")
    return corners


def _flag(flags, source):
    """Visibility flag of a point: 1 if it is marked as occluded, otherwise 2."""
    occluded = [name for name in _set_flags(flags) if name.lower() in OCCLUDED]
    _count_flags({name: name not in occluded for name in _set_flags(flags)}, "of a point", source)
    return 1 if occluded else 2


def _set_flags(flags):
    return [str(name) for name, value in flags.items() if value] if isinstance(flags, dict) else []


def _count_flags(flags, what, source):
    for name in _set_flags(flags):
        source.left_out[f"flags {name!r} {what}"] += 1
