"""Reads a pose data set in the format of Ultralytics YOLO: data.yaml and a text file an image.

Format: https://docs.ultralytics.com/datasets/pose/. A line of a text file is a person:
class, cx, cy, width, height, then x, y (and visibility) of each joint; all lengths are shares of the
image's size. The text file of .../images/a/1.jpg is .../labels/a/1.txt.
"""

import glob
import os

import yaml

from kpose.core.errors import InputError
from tfrecords_tools.convert import labels

SPLITS = ("train", "val", "test")
SUFFIXES = (".bmp", ".dng", ".heic", ".jpeg", ".jpg", ".jp2", ".mpo", ".pfm", ".png", ".tif", ".tiff", ".webp")
NO_LABELS = (
    "the labels of images/a.jpg are labels/a.txt: the last folder 'images' of the path becomes 'labels', and the "
    "suffix .txt"
)


def read(options):
    """The `Source` of a data set.

    Args:
        options: `ConvertOptions`; `input` is data.yaml or its folder.

    Raises:
        InputError: a bad data.yaml, a missing split, a bad line of a text file.
    """
    path = os.path.join(options.input, "data.yaml") if os.path.isdir(options.input) else options.input
    data = _load(path)
    count, dimensions = _shape(path, data)
    classes = _classes(path, data.get("names"))
    root = _root(path, data)
    source = labels.Source(images=options.images or root)
    _set_points(path, data, classes, count, options, source)
    images = _images(path, data, root, options.split or "train")
    texts = [_text_of(image) for image in images]
    if not any(map(os.path.isfile, texts)):
        raise InputError(f"{path}: none of its {len(images):,} images has labels, such as {texts[0]}: {NO_LABELS}")
    for image, text in zip(images, texts, strict=True):
        persons = _persons(text, classes, count, dimensions, source) if os.path.isfile(text) else []
        source.photos.append(labels.Photo(image, [_relative(image, source.images)], None, persons, True))
    _check_texts(texts, source, options)
    return source


def _load(path):
    try:
        data = yaml.safe_load(labels.read_text(path, "data.yaml"))
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not YAML: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(data, dict):
        raise InputError(f"{path}: not the data.yaml of a YOLO data set: it needs 'kpt_shape', 'names' and 'train'")
    return data


def _shape(path, data):
    """(number of joints, 2 or 3 numbers a joint)."""
    shape = data.get("kpt_shape")
    good = isinstance(shape, list) and len(shape) == 2 and all(type(value) is int for value in shape)
    if not good or shape[0] < 1 or shape[1] not in (2, 3):
        raise InputError(f"{path}: kpt_shape is {shape!r}: a pose data set has [number of joints, 2 or 3]")
    return shape


def _classes(path, names):
    """Index of a class -> its name; {} if the file names none."""
    if names is None:
        return {}
    names = dict(enumerate(names)) if isinstance(names, list) else names
    if not isinstance(names, dict) or not all(type(index) is int for index in names):
        raise InputError(f"{path}: names must be a list of class names, or an index and a name a line")
    return {index: str(name) for index, name in names.items()}


def _root(path, data):
    """The folder of the data set. YOLO takes `path` from the working folder or from its settings."""
    folder, given = os.path.dirname(os.path.abspath(path)), data.get("path")
    if not given:
        return folder
    places = [os.path.join(folder, str(given)), os.path.abspath(str(given)), folder]
    # The downloaded archive of a data set has data.yaml in the folder that `path` names.
    places.insert(1, os.path.join(os.path.dirname(folder), os.path.basename(os.path.normpath(str(given)))))
    return os.path.normpath(next(place for place in places if os.path.isdir(place)))


def _set_points(path, data, classes, count, options, source):
    """Sets the joints of each class."""
    flip_idx = data.get("flip_idx") or None
    if flip_idx is not None and (not isinstance(flip_idx, list) or not _exchanges(flip_idx, count)):
        raise InputError(
            f"{path}: flip_idx is {flip_idx!r}: it must exchange pairs of the {count} joints, 0 to {count - 1}"
        )
    flip_idx = flip_idx and tuple(flip_idx)
    if options.joints and len(options.joints) != count:
        raise InputError(f"--joints names {len(options.joints)} joints, but kpt_shape of {path} has {count}")
    given = data.get("kpt_names")
    by_class = _by_class(given, classes)
    for index, names in by_class.items():
        if not isinstance(names, list) or len(names) != count:
            raise InputError(f"{path}: kpt_names of class {index!r} must be a list of {count} names, as kpt_shape says")
        joints = options.joints or tuple(map(str, names))
        source.points[classes.get(index, f"class_{index}")] = labels.Points(joints, (), flip_idx)
    numbered = tuple(f"point_{number}" for number in range(1, count + 1))
    source.points[""] = labels.Points(options.joints or numbered, (), flip_idx)
    if not by_class and not options.joints:
        source.remarks.append(
            f"{os.path.basename(path)} has no kpt_names: the joints are named point_1 to point_{count}; --joints names "
            "them (for COCO's 17: --joints=coco)"
        )


def _by_class(given, classes):
    """Index of a class -> its joint names, from a dict, from a list a class, or from one list for all classes."""
    if isinstance(given, list) and given and isinstance(given[0], list):
        return dict(enumerate(given))
    return given if isinstance(given, dict) else {index: given for index in classes or {0: ""}} if given else {}


def _exchanges(order, count):
    """Whether `order` is `count` indices that exchange pairs of joints."""
    good = len(order) == count and all(type(index) is int and 0 <= index < count for index in order)
    return good and all(order[order[k]] == k for k in range(count))


def _images(path, data, root, split):
    """The sorted image files of a split: of a folder, a text file with a path a line, or a list of these."""
    entries = data.get(split) or []
    entries = entries if isinstance(entries, list) else [entries]
    if not entries:
        there = ", ".join(name for name in SPLITS if data.get(name))
        raise InputError(f"{path}: it has no split {split!r}: its splits are {there or 'missing'} (--split)")
    found = []
    for entry in map(str, entries):
        place = os.path.join(root, entry)
        if not os.path.exists(place) and entry.startswith("../"):
            # Archives of Roboflow have ../train/images beside data.yaml.
            place = os.path.join(root, entry[3:])
        if os.path.isdir(place):
            some = glob.glob(os.path.join(glob.escape(place), "**", "*.*"), recursive=True)
            found += [name for name in some if name.lower().endswith(SUFFIXES)]
        elif os.path.isfile(place):
            for line in filter(None, map(str.strip, labels.read_text(place, "list of images").splitlines())):
                found.append(os.path.join(os.path.dirname(place) if line.startswith("./") else root, line))
        else:
            raise InputError(f"{path}: {split}: {place} is no folder of images and no list of images")
    if not found:
        raise InputError(f"{path}: {split}: there are no images in {', '.join(map(str, entries))} of {root}")
    return sorted(set(map(os.path.normpath, found)))


def _text_of(image):
    """The text file with the labels of an image."""
    head, found, tail = image.rpartition(f"{os.sep}images{os.sep}")
    path = f"{head}{os.sep}labels{os.sep}{tail}" if found else image
    return os.path.splitext(path)[0] + ".txt"


def _relative(image, folder):
    """The path of an image in the image folder."""
    name = os.path.relpath(image, folder)
    if name.startswith(os.pardir + os.sep):
        raise InputError(
            f"{image}: it is not in the image folder {folder}: give with --images a folder that has all images"
        )
    return name


def _persons(path, classes, count, dimensions, source):
    """The persons of a text file; lengths are shares of the image's size."""
    persons, seen = [], set()
    for number, line in enumerate(labels.read_text(path, "file of labels").splitlines(), 1):
        cells = line.split()
        if not cells:
            continue
        where = f"{path}: line {number}"
        values = [labels.finite(cell) for cell in cells]
        if None in values:
            raise InputError(f"{where}: {cells[values.index(None)]!r} is not a number")
        if len(values) != 5 + count * dimensions:
            raise InputError(
                f"{where}: it has {len(values)} numbers: class, box and {count} joints of {dimensions} are "
                f"{5 + count * dimensions} (kpt_shape)"
            )
        index = int(values[0])
        if index != values[0] or index < 0 or (classes and index not in classes):
            raise InputError(f"{where}: {cells[0]} is not a class of data.yaml, which has {sorted(classes)}")
        if tuple(values) in seen:
            source.left_out["lines that repeat another line of their file"] += 1
            continue
        seen.add(tuple(values))
        category = classes.get(index, f"class_{index}")
        names = source.points_of(category).joints
        cx, cy, width, height = values[1:5]
        joints = _joints(where, names, values[5:], dimensions, source)
        box = [cx - width / 2, cy - height / 2, width, height]
        persons.append(labels.Person(where, category, joints, box))
    return persons


def _joints(where, names, values, dimensions, source):
    joints = {}
    for name, *row in zip(names, *(values[part::dimensions] for part in range(dimensions)), strict=True):
        x, y = row[:2]
        if dimensions == 3 and row[2] not in (0, 1, 2):
            raise InputError(f"{where}: the visibility of {name!r} is {row[2]:g}: it must be 0, 1 or 2")
        if dimensions == 2 and x == y == 0:
            source.changed["joints at 0, 0 without visibility: read as unlabelled"] += 1
        elif dimensions == 2 and (x < 0 or y < 0):
            source.changed["joints at negative coordinates without visibility: read as unlabelled"] += 1
        elif dimensions == 2 or row[2]:
            joints[name] = (x, y, 2 if dimensions == 2 else int(row[2]))
    return joints


def _check_texts(texts, source, options):
    """Counts text files whose image is missing, or raises `InputError`."""
    known = set(texts)
    folders = sorted({os.path.dirname(text) for text in texts if os.path.isdir(os.path.dirname(text))})
    lone = [os.path.join(f, n) for f in folders for n in sorted(os.listdir(f)) if n.endswith(".txt")]
    # Labels may lie beside the images, together with lists of images and of classes.
    lone = [text for text in lone if text not in known and f"{os.sep}labels{os.sep}" in text]
    lone = [text for text in lone if os.path.basename(text) != "classes.txt"]
    if lone and options.on_missing == "stop":
        raise InputError(
            f"{lone[0]}: the image of these labels is missing in the split, as those of {len(lone):,} files: add the "
            "images, or leave the labels out with --on_missing=skip"
        )
    if lone:
        source.left_out[f"files of labels whose image is missing, the first is {lone[0]}"] += len(lone)
