"""COCO keypoint annotations: read, checked, and the persons to train on selected."""

import collections
import dataclasses

import numpy as np

from kpose import files
from kpose.errors import InputError


@dataclasses.dataclass(frozen=True)
class Annotations:
    """A COCO keypoint file.

    Attributes:
        path: where it was read from.
        images: image id -> its entry (`file_name`, `width`, `height`).
        persons: the annotations of all persons, in file order, each with an `image_id` among `images`.
        skeleton: the `Skeleton` the labels were checked against.
    """

    path: str
    images: dict
    persons: list
    skeleton: object


def read_annotations(path, skeleton):
    """Reads a COCO keypoint JSON file, plain or .gz.

    Raises:
        InputError: the file is missing, empty, no JSON, no COCO file, or holds no keypoints of this skeleton.
    """
    data = files.read_json(path, "annotation file")
    if not isinstance(data, dict) or not all(isinstance(data.get(key), list) for key in ("images", "annotations")):
        raise InputError(f"{path}: no COCO annotation file: it needs the lists 'images' and 'annotations'")
    try:
        images = {image["id"]: image for image in data["images"] if image["file_name"]}
        persons = [person for person in data["annotations"] if "keypoints" in person]
        orphans = [number for number, image in ((p["id"], p["image_id"]) for p in persons) if image not in images]
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: an image or annotation lacks the field {error}") from None
    if not persons:
        raise InputError(
            f"{path}: none of its {len(data['annotations'])} annotations has keypoints: "
            "give a person_keypoints file, not an instances or captions file"
        )
    if orphans:
        raise InputError(f"{path}: annotation {orphans[0]} is of an image that the file does not list")
    for person in persons:
        numbers = person["keypoints"]
        if not isinstance(numbers, list) or not all(isinstance(value, (int, float)) for value in numbers):
            raise InputError(f"{path}: the keypoints of annotation {person['id']} are no list of numbers")
        if len(numbers) != 3 * skeleton.num_joints:
            raise InputError(
                f"{path}: annotation {person['id']} has {len(numbers)} keypoint numbers, but skeleton "
                f"{skeleton.name!r} wants {3 * skeleton.num_joints} (x, y, v of {skeleton.num_joints} joints)"
            )
    return Annotations(path, images, persons, skeleton)


def keypoint_array(person):
    """A person's keypoints as [K, 3] float64: x, y in pixels, visibility flag."""
    return np.asarray(person["keypoints"], np.float64).reshape(-1, 3)


# Why a person is not selected, in the order the reasons are looked for; the first that holds is counted.
CROWD = "a crowd"
NO_JOINT = "no joint labelled"
UNLABELLED_JOINT = "some joint not labelled"
OCCLUDED_JOINT = "some joint occluded"
ZERO_COORDINATE = "some joint with a coordinate of 0"
NO_BOX = "no box, or one without area"

SELECTIONS = ("fully_visible", "labelled")


def drop_reason(person, select):
    """Why `person` is not in the selection; None when it is.

    Args:
        person: a COCO annotation.
        select: "fully_visible": every joint has v == 2 and no joint a coordinate of 0 (the report's 4,037 and 159
            persons of COCO 2017); "labelled": at least one joint has v > 0. Crowds are in neither.
    """
    if person.get("iscrowd"):
        return CROWD
    keypoints = keypoint_array(person)
    if not (keypoints[:, 2] > 0).any():
        return NO_JOINT
    if select == "fully_visible":
        if (keypoints[:, 2] == 0).any():
            return UNLABELLED_JOINT
        if (keypoints[:, 2] != 2).any():
            return OCCLUDED_JOINT
        if (keypoints[:, :2] == 0).any():
            return ZERO_COORDINATE
    try:
        box = np.asarray(person.get("bbox", ()), np.float64)
    except (TypeError, ValueError):
        return NO_BOX
    if box.shape != (4,) or not np.isfinite(box).all() or (box[2:] <= 0).any():
        return NO_BOX
    return None


def select_persons(annotations, select):
    """The persons of a selection, and how many were dropped for which reason.

    Returns:
        (list of COCO annotations in file order, Counter reason -> persons).

    Raises:
        InputError: no such selection.
    """
    if select not in SELECTIONS:
        raise InputError(f"no selection is called {select!r}: there are {', '.join(SELECTIONS)}")
    selected, dropped = [], collections.Counter()
    for person in annotations.persons:
        reason = drop_reason(person, select)
        if reason is None:
            selected.append(person)
        else:
            dropped[reason] += 1
    return selected, dropped
