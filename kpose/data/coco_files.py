"""Reads COCO-style files: labels, detections and keypoint results, as any tool writes them.

Every command gets its rows here, so a file means the same everywhere. docs/data.md has the table of
what is accepted, and what is reported as a problem:

- Ids only connect entries. Whole numbers stay as they are, also as text or with a decimal point.
  If no annotation (or image) of a file has such an id, they are numbered by their place, from 1.
  Numbers beyond 63 bits are a problem.
- Categories are compared by name. Joints are ordered by the names that the category lists.
- Numbers may be text. Optional fields may be missing or null.
- A labelled joint outside its image becomes unlabelled, and is counted.

In the file a joint is the index of its pixel, in a row it is a point in the original frame
(`kpose.core.geometry`): half a pixel further.
"""

import collections
import dataclasses
import math

import numpy as np
from absl import logging

from kpose.core import files, geometry, skeleton_files, skeletons
from kpose.core.errors import InputError
from kpose.data import coco_skeleton, coco_values, problems

_INT64 = range(-(2**63), 2**63)
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
        keypoints: [K, 3] float64: x, y in the original frame and the flag (of results: a score);
            None: none. Joints that are not labelled are as the file has them, mostly 0, 0.
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
        pixel_offset: what was added to the coordinates of labelled joints.
    """

    path: str
    images: dict
    persons: list
    skeleton: skeletons.Skeleton | None
    counts: collections.Counter
    pixel_offset: float = geometry.HALF_PIXEL


def load(path, what):
    """The JSON of a COCO-style file, plain or .gz, without segmentation.

    Args:
        path: the file.
        what: a noun for its content, for errors.

    Raises:
        InputError: the file is missing, unreadable or not JSON.
    """
    return files.read_json(path, what, _compact)


def read_labels(path, skeleton=None, found=None, category="", data=None, pixel_offset=geometry.HALF_PIXEL):
    """The `Labels` of a COCO annotation file, plain or .gz.

    Args:
        path: the file.
        skeleton: the `Skeleton` of the labels, or "auto": that of the category
            (`coco_skeleton`).
            None: every annotation is a row, also those without keypoints, which are not read.
        found: `problems.Problems`; None: the first problem raises an error.
        category: name of the category whose annotations are the persons; "": with a skeleton all
            that have keypoints.
        data: what `load` returned for the file; None: load it.
        pixel_offset: added to the coordinates of labelled joints. 0.5: they are pixel indices, as
            in COCO; 0: the tool that wrote the file already has them in the original frame.

    Raises:
        InputError: not a COCO file, no annotation with keypoints, or keypoints of other joints.
    """
    found = found or problems.Problems()
    data = load(path, "annotation file") if data is None else data
    if not isinstance(data, dict) or not all(isinstance(data.get(key), list) for key in ("images", "annotations")):
        raise InputError(f"{path}: not a COCO annotation file: it needs the lists 'images' and 'annotations'")
    if skeleton == skeletons.AUTO:
        skeleton = coco_skeleton.skeleton_of(path, data, category)
    reader = _Reader(path, skeleton, found, pixel_offset)
    reader.add_categories(data.get("categories"))
    reader.add_images(data["images"])
    entries = [(place, entry) for place, entry in enumerate(data["annotations"]) if isinstance(entry, dict)]
    numbers = reader.numbers("annotations", [entry.get("id") for _, entry in entries])
    entries = [(place, entry, number) for (place, entry), number in zip(entries, numbers, strict=True)]
    if category:
        wanted = reader.category_ids(category)
        entries = [row for row in entries if coco_values.key_of(row[1].get("category_id")) in wanted]
    if skeleton is not None:
        entries = [row for row in entries if row[1].get("keypoints") is not None]
        if not entries:
            raise InputError(
                f"{path}: none of its {len(data['annotations'])} annotations has keypoints: give a person_keypoints "
                "file, not an instances or captions file"
            )
    persons = reader.persons(entries)
    reader.log()
    return Labels(path, reader.images, persons, skeleton, reader.counts, pixel_offset)


def read_results(path, what="keypoint results", data=None):
    """The rows of a file of detections or keypoint results, a JSON list.

    Args:
        path: the file, plain or .gz.
        what: a noun for its content, for errors.
        data: what `load` returned for the file; None: load it.

    Returns:
        (list of `Person`, list of file names or None): the `image_id` of a row is the id as the file
        has it.

    Raises:
        InputError: not a list of objects with an image and numbers.
    """
    data = load(path, what) if data is None else data
    if not isinstance(data, list):
        raise InputError(f"{path}: not a list of {what}")
    rows, names = [], []
    for place, entry in enumerate(data):
        rows.append(_result(path, place, entry))
        names.append(coco_values.file_name_of(entry.get("file_name")))
    return rows, names


class _Reader:
    """Turns the entries of one annotation file into rows."""

    def __init__(self, path, skeleton, found, pixel_offset):
        self.path, self.skeleton, self.found, self.pixel_offset = path, skeleton, found, pixel_offset
        self.images, self.counts = {}, collections.Counter()
        self._image_of, self._names, self._orders, self._foreign = {}, {}, {}, {}

    def log(self):
        for what, count in self.counts.items():
            logging.info("%s: %s: %d", self.path, what, count)

    def add_categories(self, categories):
        for category in categories if isinstance(categories, list) else ():
            if not isinstance(category, dict):
                continue
            key, name = coco_values.key_of(category.get("id")), category.get("name")
            self._names[key] = name if isinstance(name, str) else None
            joints = category.get("keypoints")
            if self.skeleton is None or not isinstance(joints, list) or not joints:
                continue
            joints, wanted = skeleton_files.comparable(joints, self.skeleton.joints)
            if sorted(joints) != sorted(wanted):
                self._foreign[key] = self._describe_joints(name, category["keypoints"])
            elif joints != wanted:
                self._orders[key] = [joints.index(joint) for joint in wanted]

    def _describe_joints(self, name, joints):
        other = skeleton_files.of_joints(joints)
        advice = f"use --skeleton={other.name if other else skeletons.AUTO}, or another category with --category"
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
            width, height = (coco_values.number_of(entry.get(side)) for side in ("width", "height"))
            sides = [int(side) if side is not None and side > 0 else None for side in (width, height)]
            image = Image(number, entry.get("id"), coco_values.file_name_of(entry.get("file_name")), *sides)
            if self.images.setdefault(number, image) != image:
                self.found.report(
                    problems.DUPLICATE_IMAGE, f"{self.path}: two different images have the id {entry.get('id')!r}"
                )
                continue
            if coco_values.key_of(entry.get("id")) is not None:
                self._image_of[coco_values.key_of(entry.get("id"))] = image

    def numbers(self, what, ids):
        """A whole number for each id: its own, or if no id of the file is one, its place from 1.

        None for an id that is no number although others are, or has more than 63 bits: a problem.
        """
        keys = [coco_values.key_of(value) for value in ids]
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
        image = self._image_of.get(coco_values.key_of(entry.get("image_id")))
        category, crowd = coco_values.key_of(entry.get("category_id")), coco_values.flag_of(entry.get("iscrowd"))
        box = coco_values.box_of(entry.get("bbox"))
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
            size = image.size if coco_values.overlaps(box, image.size) else None
            keypoints, problem = self._keypoints(entry["keypoints"], category, size)
        if problem:
            self.found.report(problem[0], f"{where}: {problem[1]}")
            return None
        return Person(
            id=number,
            image_id=image.id,
            category=self._names.get(category),
            box=box,
            area=coco_values.area_of(entry.get("area"), box),
            crowd=crowd,
            keypoints=keypoints,
            score=coco_values.number_of(entry.get("score")),
            place=place,
        )

    def _keypoints(self, values, category, size):
        """([K, 3] float64, None), or (None, (kind of problem, message))."""
        joints = self.skeleton.num_joints
        numbers = coco_values.numbers_of(values)
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
        if max(-left, -top, right, bottom) > coco_values.MAX_COORDINATE:
            return None, (problems.BAD_KEYPOINTS, "its keypoints are more than a million pixels away")
        if category in self._orders:
            keypoints = keypoints[self._orders[category]]
            self.counts["persons whose joints were put in order by name"] += 1
        # The edges are inside. Some tools write the width itself as an index.
        if size is not None and not (-self.pixel_offset <= min(left, top) and right <= size[0] and bottom <= size[1]):
            keypoints = self._without_outside(keypoints, size)
        keypoints = keypoints.copy()
        keypoints[keypoints[:, 2] > 0, :2] += self.pixel_offset
        return keypoints, None

    def _without_outside(self, keypoints, size):
        """Keypoints with those labelled joints that are outside the image unlabelled."""
        points = keypoints[:, :2]
        outside = (keypoints[:, 2] > 0) & ((points < -self.pixel_offset) | (points > size)).any(1)
        if outside.any():
            self.counts["labelled joints outside their image, now unlabelled"] += int(outside.sum())
        return np.where(outside[:, None], 0.0, keypoints)


def _compact(entry):
    """An object of the file without segmentation, with keypoints as an array, to save memory."""
    entry.pop("segmentation", None)
    if isinstance(entry.get("keypoints"), list):
        numbers = coco_values.numbers_of(entry["keypoints"])
        if numbers is not None:
            entry["keypoints"] = numbers
    return entry


def _result(path, place, entry):
    if not isinstance(entry, dict):
        raise InputError(f"{path}: result {place} is not an object")
    if coco_values.key_of(entry.get("image_id")) is None and not coco_values.file_name_of(entry.get("file_name")):
        raise InputError(f"{path}: result {place} names no image: it needs 'image_id' or 'file_name'")
    keypoints = None
    if entry.get("keypoints") is not None:
        keypoints = coco_values.numbers_of(entry["keypoints"])
        if keypoints is None or not np.isfinite(keypoints).all() or not keypoints.size or keypoints.size % 3:
            raise InputError(f"{path}: result {place}: 'keypoints' is not a list of three numbers for each joint")
        keypoints = keypoints.reshape(-1, 3) + [geometry.HALF_PIXEL, geometry.HALF_PIXEL, 0.0]
    numbers = coco_values.numbers_of(entry["bbox"]) if isinstance(entry.get("bbox"), list) else None
    if entry.get("bbox") is not None and (numbers is None or numbers.shape != (4,) or not np.isfinite(numbers).all()):
        raise InputError(f"{path}: result {place}: 'bbox' must be four numbers")
    if numbers is not None and np.abs(numbers).max() > coco_values.MAX_COORDINATE:
        raise InputError(f"{path}: result {place}: 'bbox' has a number of more than a million pixels")
    score = coco_values.number_of(entry.get("score"))
    if entry.get("score") is not None and score is None:
        raise InputError(f"{path}: result {place}: 'score' must be a number")
    category = entry.get("category_id")
    return Person(
        id=place + 1,
        image_id=entry.get("image_id"),
        category=None if category is None else str(coco_values.key_of(category)),
        box=numbers,
        area=coco_values.area_of(entry.get("area"), numbers),
        keypoints=keypoints,
        score=score,
        place=place,
    )
