"""Reads and checks COCO keypoint annotations, and selects the persons to train on."""

import collections
import contextlib
import dataclasses

import numpy as np

from kpose.core import files
from kpose.core.errors import InputError
from tfrecords_tools.write_coco import problems


@dataclasses.dataclass(frozen=True)
class Annotations:
    """A COCO keypoint file.

    Attributes:
        path: the file.
        images: image id -> its entry (`file_name`, `width`, `height`).
        persons: the annotations of all persons, in file order. Each `image_id` is in `images`;
            `keypoints` is a [K, 3] float64 array of x, y in pixels and the visibility flag.
        skeleton: the `Skeleton` of the labels.
    """

    path: str
    images: dict
    persons: list
    skeleton: object


def read_annotations(path, skeleton, found=None, category=""):
    """The `Annotations` of a COCO keypoint JSON file, plain or .gz.

    Args:
        path: the file.
        skeleton: the `Skeleton` of the labels.
        found: `Problems`, to which bad entries are reported; None: a bad entry raises an error.
        category: name of the category whose annotations are the persons; "": all that have
            keypoints.

    Raises:
        InputError: the file is missing, empty, not JSON, not a COCO file, or has no keypoints of
            this skeleton.
    """
    found = found or problems.Problems()
    data = files.read_json(path, "annotation file", _compact)
    if not isinstance(data, dict) or not all(isinstance(data.get(key), list) for key in ("images", "annotations")):
        raise InputError(f"{path}: not a COCO annotation file: it needs the lists 'images' and 'annotations'")
    candidates = [a for a in data["annotations"] if isinstance(a, dict) and "keypoints" in a]
    if category:
        wanted = _category_ids(path, data, category)
        candidates = [a for a in candidates if a.get("category_id") in wanted]
    if not candidates:
        raise InputError(
            f"{path}: none of its {len(data['annotations'])} annotations has keypoints: give a person_keypoints file, "
            "not an instances or captions file"
        )
    images = {}
    for image in data["images"]:
        _add_image(path, image, images, found)
    persons, seen = [], set()
    for person in candidates:
        if _is_good(path, person, images, skeleton, seen, found):
            persons.append(person)
            seen.add(person["id"])
    return Annotations(path, images, persons, skeleton)


def _compact(entry):
    """An object of the file without segmentation, with keypoints as an array, to save memory."""
    entry.pop("segmentation", None)
    numbers = entry.get("keypoints")
    if isinstance(numbers, list) and len(numbers) % 3 == 0:
        with contextlib.suppress(ValueError, TypeError):
            array = np.array(numbers)
            if array.dtype.kind in "if":
                entry["keypoints"] = array.astype(np.float64).reshape(-1, 3)
    return entry


def _category_ids(path, data, category):
    categories = [c for c in data.get("categories", []) if isinstance(c, dict)]
    wanted = {c.get("id") for c in categories if c.get("name") == category}
    if not wanted:
        names = ", ".join(repr(c.get("name")) for c in categories) or "none"
        raise InputError(f"{path}: no category is named {category!r}: the file has {names}")
    return wanted


def _add_image(path, image, images, found):
    try:
        number, name = image["id"], image["file_name"]
    except (KeyError, TypeError) as error:
        found.report(problems.BAD_ENTRY, f"{path}: an image has no field {error}")
        return
    if not isinstance(name, str) or not name:
        found.report(problems.BAD_ENTRY, f"{path}: image {number} has no file name")
    elif images.setdefault(number, image) != image:
        found.report(problems.DUPLICATE_IMAGE, f"{path}: two different images have the id {number}")


def _is_good(path, person, images, skeleton, seen, found):
    for field in ("id", "image_id"):
        if not isinstance(person.get(field), int):
            found.report(problems.BAD_ENTRY, f"{path}: an annotation has no integer in the field {field!r}")
            return False
    number, keypoints = person["id"], person["keypoints"]
    if person["image_id"] not in images:
        found.report(problems.NO_IMAGE_ENTRY, f"{path}: the image of annotation {number} is not in the file")
    elif number in seen:
        found.report(problems.DUPLICATE_PERSON, f"{path}: two annotations have the id {number}")
    elif not isinstance(keypoints, np.ndarray) and len(keypoints or ()) in (0, 3 * skeleton.num_joints):
        found.report(problems.BAD_KEYPOINTS, f"{path}: the keypoints of annotation {number} are not a list of numbers")
    elif len(keypoints) != skeleton.num_joints:
        count = len(keypoints) if isinstance(keypoints, list) else keypoints.size
        found.report(
            problems.BAD_KEYPOINTS,
            f"{path}: annotation {number} has {count} keypoint numbers, but skeleton {skeleton.name!r} needs "
            f"{3 * skeleton.num_joints} (x, y, v of {skeleton.num_joints} joints)",
        )
    elif not np.isfinite(keypoints).all() or not np.isin(keypoints[:, 2], (0, 1, 2)).all():
        found.report(
            problems.BAD_KEYPOINTS,
            f"{path}: the keypoints of annotation {number} must be finite, with the flags 0, 1 or 2",
        )
    else:
        return True
    return False


# The reasons why a person is not selected, in the order of the checks. Only the first is counted.
CROWD = "a crowd"
NO_JOINT = "no joint labelled"
UNLABELLED_JOINT = "some joint not labelled"
OCCLUDED_JOINT = "some joint occluded"
ZERO_COORDINATE = "some joint with a coordinate of 0"
NO_BOX = "no box, or one without area or not of numbers"

SELECTIONS = ("fully_visible", "labelled")


def drop_reason(person, select):
    """The reason why a person is not selected; None if it is selected.

    Args:
        person: a COCO annotation.
        select: "fully_visible": every joint has v == 2 and no joint has a coordinate of 0 (4,037
            and 159 persons of COCO 2017's splits train and val); "labelled": at least one joint has
            v > 0. Neither selects crowds.
    """
    if person.get("iscrowd"):
        return CROWD
    keypoints = person["keypoints"]
    if not (keypoints[:, 2] > 0).any():
        return NO_JOINT
    if select == "fully_visible":
        if (keypoints[:, 2] == 0).any():
            return UNLABELLED_JOINT
        if (keypoints[:, 2] != 2).any():
            return OCCLUDED_JOINT
        if (keypoints[:, :2] == 0).any():
            return ZERO_COORDINATE
    return None if box_of(person) is not None else NO_BOX


def box_of(person):
    """The box of a person, [4] float64 xywh in pixels; None if it has no box with an area."""
    try:
        box = np.asarray(person.get("bbox", ()), np.float64)
    except (TypeError, ValueError):
        return None
    if box.shape != (4,) or not np.isfinite(box).all() or (box[2:] <= 0).any():
        return None
    return box


def select_persons(annotations, select):
    """The persons of a selection, and the number of persons that were dropped for each reason.

    Args:
        annotations: `Annotations`.
        select: one of `SELECTIONS`.

    Returns:
        (list of COCO annotations in file order, Counter of reason -> persons).

    Raises:
        InputError: the selection is unknown.
    """
    if select not in SELECTIONS:
        raise InputError(f"unknown selection {select!r}: use one of {', '.join(SELECTIONS)}")
    selected, dropped = [], collections.Counter()
    for person in annotations.persons:
        reason = drop_reason(person, select)
        if reason is None:
            selected.append(person)
        else:
            dropped[reason] += 1
    return selected, dropped
