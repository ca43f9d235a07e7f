"""Reads COCO-style files: labels, detections and keypoint results, as any tool writes them.

Every command gets its rows here, so a file means the same everywhere. docs/data.md has the table of
what is accepted, and what is reported as a problem:

- Ids only connect entries. Whole numbers stay as they are, also as text or with a decimal point.
  If no annotation (or image) of a file has such an id, they are numbered by their place, from 1.
  Numbers beyond 63 bits are a problem.
- Categories are compared by name. Joints are ordered by the names that the category lists.
- Numbers may be text. Optional fields may be missing or null.
- A labelled joint outside its image becomes unlabelled, and is counted.
"""

import collections
import dataclasses
import math
import posixpath
import re
import urllib.parse

import numpy as np
from absl import logging

from kpose.core import files, skeletons
from kpose.core.errors import InputError
from kpose.data import problems

_INT64 = range(-(2**63), 2**63)
_TRUE, _FALSE = {"1", "true", "yes"}, {"", "0", "false", "no", "none"}
# The name of persons' category.
PERSON = "person"


@dataclasses.dataclass(frozen=True)
class Image:
    """An image of a COCO file.

    Attributes:
        id: its number in `Labels.images`.
        source_id: its id as the file has it.
        file_name: as the file has it; None: it has none.
        width, height: size in pixels for which the labels were made; None: not given.
    """

    id: int
    source_id: object
    file_name: str | None
    width: int | None = None
    height: int | None = None

    @property
    def size(self):
        """(width, height); None if one is not given."""
        return None if self.width is None or self.height is None else (self.width, self.height)


@dataclasses.dataclass(frozen=True, eq=False)
class Person:
    """An annotation of a person, or a detection or result.

    Attributes:
        id: number, unique in the file.
        image_id: `Image.id`; of results without a list of images: the id as the file has it.
        category: name of its category; None: not given.
        box: [4] float64 xywh in pixels; None: there is none, or one without an area.
        area: in square pixels: the file's, or that of the box; 0.0 without either.
        crowd: whether it marks a crowd.
        keypoints: [K, 3] float64: x, y in pixels and the flag (of results: a score); None: none.
        score: of a detection or result; None: not given.
        place: position in the file, from 0.
    """

    id: int
    image_id: object
    category: str | None = None
    box: np.ndarray | None = None
    area: float = 0.0
    crowd: bool = False
    keypoints: np.ndarray | None = None
    score: float | None = None
    place: int = 0

    @property
    def num_labelled(self):
        """The number of joints with a flag above 0."""
        return 0 if self.keypoints is None else int((self.keypoints[:, 2] > 0).sum())


@dataclasses.dataclass(frozen=True)
class Labels:
    """A COCO annotation file.

    Attributes:
        path: the file.
        images: `Image.id` -> `Image`.
        persons: list of `Person`, in file order. Each `image_id` is in `images`.
        skeleton: the `Skeleton` of the keypoints; None: they were not read.
        counts: Counter of what was changed while reading -> how often.
    """

    path: str
    images: dict
    persons: list
    skeleton: skeletons.Skeleton | None
    counts: collections.Counter

    def image_of(self, source_id):
        """The `Image` with an id as a file has it; None if there is none."""
        return self._by_key.get(_key(source_id))

    @property
    def _by_key(self):
        return {_key(image.source_id): image for image in self.images.values()}


def read_labels(path, skeleton=None, found=None, category=""):
    """The `Labels` of a COCO annotation file, plain or .gz.

    Args:
        path: the file.
        skeleton: the `Skeleton` of the labels. None: every annotation is a row, also those
            without keypoints, which are not read.
        found: `problems.Problems`; None: the first problem raises an error.
        category: name of the category whose annotations are the persons; "": with a skeleton all
            that have keypoints.

    Raises:
        InputError: not a COCO file, no annotation with keypoints, or keypoints of other joints.
    """
    found = found or problems.Problems()
    data = files.read_json(path, "annotation file", _compact)
    if not isinstance(data, dict) or not all(isinstance(data.get(key), list) for key in ("images", "annotations")):
        raise InputError(f"{path}: not a COCO annotation file: it needs the lists 'images' and 'annotations'")
    reader = _Reader(path, skeleton, found)
    reader.add_categories(data.get("categories"))
    reader.add_images(data["images"])
    entries = [(place, entry) for place, entry in enumerate(data["annotations"]) if isinstance(entry, dict)]
    numbers = reader.numbers("annotations", [entry.get("id") for _, entry in entries])
    entries = [(place, entry, number) for (place, entry), number in zip(entries, numbers, strict=True)]
    if category:
        wanted = reader.category_ids(category)
        entries = [row for row in entries if _key(row[1].get("category_id")) in wanted]
    if skeleton is not None:
        entries = [row for row in entries if row[1].get("keypoints") is not None]
        if not entries:
            raise InputError(
                f"{path}: none of its {len(data['annotations'])} annotations has keypoints: give a person_keypoints "
                "file, not an instances or captions file"
            )
    persons = reader.persons(entries)
    reader.log()
    return Labels(path, reader.images, persons, skeleton, reader.counts)


def read_results(path, what="keypoint results"):
    """The rows of a file of detections or keypoint results, a JSON list.

    Args:
        path: the file, plain or .gz.
        what: a noun for its content, for errors.

    Returns:
        (list of `Person`, list of file names or None): the `image_id` of a row is the id as the file
        has it.

    Raises:
        InputError: not a list of objects with an image and numbers.
    """
    data = files.read_json(path, what, _compact)
    if not isinstance(data, list):
        raise InputError(f"{path}: not a list of {what}")
    rows, names = [], []
    for place, entry in enumerate(data):
        rows.append(_result(path, place, entry))
        names.append(_file_name(entry.get("file_name")))
    return rows, names


def match_by_name(names, wanted):
    """The one of some file names that is meant by another, whatever folders both have in front.

    Args:
        names: iterable of (file name, value).
        wanted: a file name.

    Returns:
        The values whose names share the most parts of the path with it, counted from the end; []
        if no name has the same last part.
    """
    parts, best, found = _parts(wanted), 0, []
    for name, value in names:
        shared = 0
        for one, other in zip(reversed(_parts(name)), reversed(parts), strict=False):
            if one != other:
                break
            shared += 1
        if shared > best:
            best, found = shared, []
        if shared and shared == best:
            found.append(value)
    return found


def match_images(labels, rows, names):
    """The `Image.id` of each row of results.

    A row that names a file belongs to the image of this name. If several images have it, the one
    with the row's image id is meant. A row without a file name, and one whose name no image has
    although its image has no name, belongs to the image with its id.

    Args:
        labels: `Labels`.
        rows, names: from `read_results`.

    Returns:
        List of ids; None for a row whose image is not in the labels.

    Raises:
        InputError: a name that several images fit.
    """
    by_base = collections.defaultdict(list)
    for image in labels.images.values():
        if image.file_name:
            by_base[_parts(image.file_name)[-1]].append((image.file_name, image))
    by_key = labels._by_key
    ids = []
    for row, name in zip(rows, names, strict=True):
        by_id = by_key.get(_key(row.image_id))
        candidates = match_by_name(by_base.get(_parts(name)[-1], ()), name) if name else []
        if by_id is not None and (by_id in candidates or not name or not by_id.file_name):
            ids.append(by_id.id)
        elif len(candidates) > 1:
            raise InputError(
                f"{labels.path}: result {row.place} of {name} fits both {candidates[0].file_name} and "
                f"{candidates[1].file_name}: name the files with their folders"
            )
        else:
            ids.append(candidates[0].id if candidates else None)
    return ids


class _Reader:
    """Turns the entries of one annotation file into rows."""

    def __init__(self, path, skeleton, found):
        self.path, self.skeleton, self.found = path, skeleton, found
        self.images, self.counts = {}, collections.Counter()
        self._image_of, self._names, self._orders, self._foreign = {}, {}, {}, {}

    def log(self):
        for what, count in self.counts.items():
            logging.info("%s: %s: %d", self.path, what, count)

    def add_categories(self, categories):
        for category in categories if isinstance(categories, list) else ():
            if not isinstance(category, dict):
                continue
            key, name = _key(category.get("id")), category.get("name")
            self._names[key] = name if isinstance(name, str) else None
            joints = category.get("keypoints")
            if self.skeleton is None or not isinstance(joints, list) or not joints:
                continue
            joints, wanted = [_plain(j) for j in joints], [_plain(j) for j in self.skeleton.joints]
            if sorted(joints) != sorted(wanted):
                self._foreign[key] = self._describe_joints(name, category["keypoints"])
            elif joints != wanted:
                self._orders[key] = [joints.index(joint) for joint in wanted]

    def _describe_joints(self, name, joints):
        given = {_plain(joint) for joint in joints}
        other = next((t.name for t in skeletons.SKELETONS.values() if {_plain(j) for j in t.joints} == given), None)
        advice = f"use --skeleton={other}" if other else "name another category with --category"
        some = ", ".join(map(str, joints[:3]))
        return (
            f"category {name!r} has {len(joints)} joints ({some} ...) that are not those of skeleton "
            f"{self.skeleton.name!r}: {advice}"
        )

    def category_ids(self, name):
        wanted = {key for key, own in self._names.items() if own == name}
        if not wanted:
            names = ", ".join(map(repr, self._names.values())) or "none"
            raise InputError(f"{self.path}: no category is named {name!r}: the file has {names}")
        return wanted

    def add_images(self, entries):
        good = [e for e in entries if isinstance(e, dict)]
        for _ in range(len(entries) - len(good)):
            self.found.report(problems.BAD_ENTRY, f"{self.path}: an image is not an object")
        numbers = self.numbers("images", [e.get("id") for e in good])
        for entry, number in zip(good, numbers, strict=True):
            if number is None:
                continue
            width, height = (_number(entry.get(side)) for side in ("width", "height"))
            sides = [int(side) if side is not None and side > 0 else None for side in (width, height)]
            image = Image(number, entry.get("id"), _file_name(entry.get("file_name")), *sides)
            if self.images.setdefault(number, image) != image:
                self.found.report(
                    problems.DUPLICATE_IMAGE, f"{self.path}: two different images have the id {entry.get('id')!r}"
                )
                continue
            if _key(entry.get("id")) is not None:
                self._image_of[_key(entry.get("id"))] = image

    def numbers(self, what, ids):
        """A whole number for each id: its own, or if no id of the file is one, its place from 1.

        None for an id that is no number although others are, or has more than 63 bits: a problem.
        """
        keys = [_key(value) for value in ids]
        if ids and not any(isinstance(key, int) for key in keys):
            self.counts[f"{what} numbered by their place, because their ids are text or missing"] += len(ids)
            return list(range(1, len(ids) + 1))
        numbers = []
        for value, key in zip(ids, keys, strict=True):
            good = isinstance(key, int) and key in _INT64
            if not good:
                reason = "has more than 63 bits" if isinstance(key, int) else "is no whole number, as others are"
                self.found.report(problems.BAD_ENTRY, f"{self.path}: {what}: the id {value!r} {reason}")
            numbers.append(key if good else None)
        return numbers

    def persons(self, entries):
        persons, seen = [], set()
        for place, entry, number in entries:
            # An id that is no number was reported before.
            person = None if number is None else self._person(place, entry, number, seen)
            if person is not None:
                persons.append(person)
                seen.add(number)
        return persons

    def _person(self, place, entry, number, seen):
        """The `Person` of an annotation; None if it has a problem, which is reported."""
        where = f"{self.path}: annotation {entry.get('id', number)!r}"
        image = self._image_of.get(_key(entry.get("image_id")))
        category, crowd = _key(entry.get("category_id")), _flag(entry.get("iscrowd"))
        keypoints, problem = None, None
        if image is None:
            problem = problems.NO_IMAGE_ENTRY, f"its image {entry.get('image_id')!r} is not in the file"
        elif number in seen:
            problem = problems.DUPLICATE_PERSON, "another annotation has the same id"
        elif crowd is None:
            problem = problems.BAD_ENTRY, f"iscrowd is {entry.get('iscrowd')!r}: it must be 0 or 1"
        elif self.skeleton is not None and category in self._foreign:
            problem = problems.OTHER_JOINTS, self._foreign[category]
        elif self.skeleton is not None:
            # A box outside the image is the writer's to report, not its joints.
            size = image.size if _overlaps(_box(entry.get("bbox")), image.size) else None
            keypoints, problem = self._keypoints(entry["keypoints"], category, size)
        if problem:
            self.found.report(problem[0], f"{where}: {problem[1]}")
            return None
        box = _box(entry.get("bbox"))
        return Person(
            id=number,
            image_id=image.id,
            category=self._names.get(category),
            box=box,
            area=_area(entry.get("area"), box),
            crowd=crowd,
            keypoints=keypoints,
            score=_number(entry.get("score")),
            place=place,
        )

    def _keypoints(self, values, category, size):
        """([K, 3] float64, None), or (None, (kind of problem, message))."""
        joints = self.skeleton.num_joints
        numbers = _numbers_of(values)
        if numbers is None:
            return None, (problems.BAD_KEYPOINTS, "its keypoints are not a list of numbers")
        if numbers.size != 3 * joints:
            return None, (
                problems.BAD_KEYPOINTS,
                f"it has {numbers.size} keypoint numbers, but skeleton {self.skeleton.name!r} needs {3 * joints} "
                f"(x, y, v of {joints} joints)",
            )
        keypoints = numbers.reshape(joints, 3)
        (left, top, lowest), (right, bottom, highest) = keypoints.min(0), keypoints.max(0)
        # Comparisons with NaN are false.
        flagged = 0 <= lowest and highest <= 2 and not (keypoints[:, 2] % 1).any()
        if not (flagged and math.isfinite(left + top + right + bottom)):
            return None, (problems.BAD_KEYPOINTS, "its keypoints must be finite, with the flags 0, 1 or 2")
        if category in self._orders:
            keypoints = keypoints[self._orders[category]]
            self.counts["persons whose joints were put in order by name"] += 1
        if size is not None and not (0 <= min(left, top) and right <= size[0] and bottom <= size[1]):
            keypoints = self._without_outside(keypoints, size)
        return keypoints, None

    def _without_outside(self, keypoints, size):
        """Keypoints with those labelled joints that are outside the image unlabelled."""
        points = keypoints[:, :2]
        outside = (keypoints[:, 2] > 0) & ((points < 0) | (points > size)).any(1)
        if outside.any():
            self.counts["labelled joints outside their image, now unlabelled"] += int(outside.sum())
        return np.where(outside[:, None], 0.0, keypoints)


def _compact(entry):
    """An object of the file without segmentation, with keypoints as an array, to save memory."""
    entry.pop("segmentation", None)
    if isinstance(entry.get("keypoints"), list):
        numbers = _numbers_of(entry["keypoints"])
        if numbers is not None:
            entry["keypoints"] = numbers
    return entry


def _numbers_of(values):
    """Numbers, also as text or in nested lists, as a flat float64 array; None if they are something else."""
    try:
        array = np.asarray(values)
        if array.dtype.kind in "iufU":
            return array.astype(np.float64, copy=False).ravel()
        if array.dtype.kind == "O" and all(isinstance(value, int | float | str) for value in array.ravel()):
            return np.array([float(value) for value in array.ravel()])
    except (TypeError, ValueError, OverflowError):
        pass
    return None


def _key(value):
    """An id in a form that is equal for 7, 7.0 and "7"; None for what is no id."""
    if type(value) is int:
        return value
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, float):
        return int(value) if math.isfinite(value) and value == int(value) else None
    if isinstance(value, str):
        return int(value) if re.fullmatch(r"-?\d{1,40}", value.strip()) else value
    return None


def _number(value):
    """A finite float, also from text; None for what is none."""
    if type(value) is float:
        return value if math.isfinite(value) else None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _flag(value):
    """A bool in any spelling; None for what is none."""
    if isinstance(value, bool):
        return value
    if value is None or (type(value) is int and value in (0, 1)):
        return bool(value)
    text = "" if value is None else str(int(value)) if isinstance(value, float) and value in (0.0, 1.0) else str(value)
    text = text.strip().lower()
    return True if text in _TRUE else False if text in _FALSE else None


def _box(value):
    numbers = [_number(side) for side in value] if isinstance(value, list) and len(value) == 4 else [None]
    if None in numbers or numbers[2] <= 0 or numbers[3] <= 0:
        return None
    return np.array(numbers, np.float64)


def _overlaps(box, size):
    """Whether a box overlaps an image; True if one of them is not known."""
    if box is None or size is None:
        return True
    return box[0] < size[0] and box[1] < size[1] and box[0] + box[2] > 0 and box[1] + box[3] > 0


def _area(value, box):
    area = _number(value)
    if area is not None and area > 0:
        return area
    return 0.0 if box is None else float(box[2] * box[3])


def _file_name(value):
    return value if isinstance(value, str) and value else None


def _plain(name):
    """The name of a joint without case and separators."""
    return re.sub(r"[\W_]+", "", str(name)).lower()


def base_name(name):
    """The last part of a path, with slashes either way and URL escapes decoded."""
    return _parts(name)[-1]


def _parts(name):
    """The parts of a path: with slashes either way, and URL escapes decoded."""
    parts = posixpath.normpath(urllib.parse.unquote(name).replace("\\", "/")).split("/")
    return [part for part in parts if part not in ("", ".")] or [name]


def _result(path, place, entry):
    if not isinstance(entry, dict):
        raise InputError(f"{path}: result {place} is not an object")
    if _key(entry.get("image_id")) is None and not _file_name(entry.get("file_name")):
        raise InputError(f"{path}: result {place} names no image: it needs 'image_id' or 'file_name'")
    keypoints = None
    if entry.get("keypoints") is not None:
        keypoints = _numbers_of(entry["keypoints"])
        if keypoints is None or not np.isfinite(keypoints).all() or not keypoints.size or keypoints.size % 3:
            raise InputError(f"{path}: result {place}: 'keypoints' is not a list of three numbers for each joint")
        keypoints = keypoints.reshape(-1, 3)
    numbers = _numbers_of(entry["bbox"]) if isinstance(entry.get("bbox"), list) else None
    if entry.get("bbox") is not None and (numbers is None or numbers.shape != (4,) or not np.isfinite(numbers).all()):
        raise InputError(f"{path}: result {place}: 'bbox' must be four numbers")
    score = _number(entry.get("score"))
    if entry.get("score") is not None and score is None:
        raise InputError(f"{path}: result {place}: 'score' must be a number")
    category = entry.get("category_id")
    return Person(
        id=place + 1,
        image_id=entry.get("image_id"),
        category=None if category is None else str(_key(category)),
        box=numbers,
        area=_area(entry.get("area"), numbers),
        keypoints=keypoints,
        score=score,
        place=place,
    )
