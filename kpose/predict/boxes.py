"""Persons' boxes from a COCO annotation file or from detection results."""

import os
import re

from absl import logging

from kpose.core import files
from kpose.core.errors import InputError

# COCO's, and that of detections in its format.
PERSON_CATEGORY = 1


def read_boxes(path, image_paths, min_score=0.0):
    """The boxes of persons in a JSON file that belong to the given images.

    Args:
        path: COCO annotations (a dict with "images" and "annotations") or detection results (a list of dicts with
            `image_id` and `bbox`). Results are matched with images by the number that the file name ends in, as in
            000000000139.jpg. Entries of other categories than person (that of this name, else 1) are left out.
        image_paths: the images.
        min_score: entries of lower scores are left out.

    Returns:
        List of (image_id, image path, box [4] xywh, score or None), in the order of the file.

    Raises:
        InputError: no such file, one that is none of both, or boxes that are of none of the images or of either of two.
    """
    data = files.read_json(path, "boxes file")
    annotated = isinstance(data, dict)
    entries = data.get("annotations") if annotated else data
    if not isinstance(entries, list):
        raise InputError(f"{path}: neither COCO annotations nor a list of detection results")
    try:
        by_id = _images_of_annotations(data, image_paths) if annotated else _images_by_number(image_paths)
        person = _person_category(data.get("categories") or ()) if annotated else PERSON_CATEGORY
        here = [e for e in entries if e["image_id"] in by_id]
        persons = [e for e in here if e.get("category_id", person) == person]
        sure = [e for e in persons if e.get("score") is None or e["score"] >= min_score]
        requests = [(e["image_id"], by_id[e["image_id"]], e["bbox"], e.get("score")) for e in sure]
    except KeyError as error:
        raise InputError(f"{path}: an entry lacks the field {error}") from None
    except (AttributeError, TypeError) as error:
        raise InputError(f"{path}: neither COCO annotations nor detection results ({error})") from None
    if not here:
        raise InputError(f"{path}: none of its {len(entries)} boxes is of one of the {len(image_paths)} images")
    if not requests:
        raise InputError(
            f"{path}: of its {len(here)} boxes for these images, {len(persons)} are of persons (category {person}), "
            f"none of them with a score of {min_score:g} or more: lower --min_score"
        )
    if len(requests) < len(here):
        logging.info(
            "of %d boxes for these images, %d are not of persons and %d have a score under %g: left out",
            len(here),
            len(here) - len(persons),
            len(persons) - len(sure),
            min_score,
        )
    for _, image, _, _ in requests:
        if len(image) > 1:
            raise InputError(f"{path}: it does not tell {image[0]} from {image[1]}: predict for one folder at a time")
    return [(image_id, image, box, score) for image_id, (image,), box, score in requests]


def _images_of_annotations(data, image_paths):
    """{id: the given images that its file name may mean}."""
    by_name = {}
    for path in image_paths:
        by_name.setdefault(os.path.basename(path), []).append(path)
    by_id = {}
    for image in data.get("images", ()):
        found = by_name.get(os.path.basename(image["file_name"]), [])
        if len(found) > 1:
            # A folder in the file's name tells more.
            ending = os.sep + image["file_name"].lstrip(os.sep)
            found = [path for path in found if os.path.abspath(path).endswith(ending)] or found
        if found:
            by_id[image["id"]] = found
    return by_id


def _images_by_number(image_paths):
    """{number at the end of their names: images}."""
    by_id = {}
    for path in image_paths:
        number = re.search(r"(\d+)\.\w+$", os.path.basename(path))
        if number:
            by_id.setdefault(int(number[1]), []).append(path)
    return by_id


def _person_category(categories):
    return next((c["id"] for c in categories if c.get("name") == "person"), PERSON_CATEGORY)
