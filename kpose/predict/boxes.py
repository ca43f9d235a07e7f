"""Reads the boxes of persons from COCO annotations or from detection results."""

import dataclasses
import os
import re

from absl import logging

from kpose.core import files
from kpose.core.errors import InputError
from kpose.metrics.coco import PERSON_CATEGORY


@dataclasses.dataclass(frozen=True)
class PersonBox:
    """The box of one person.

    Attributes:
        image_id: id of the image, as in the file of boxes.
        path: the image.
        box: [4] xywh in pixels of the image as stored.
        score: the detector's score; None: the file has no score.
    """

    image_id: int
    path: str
    box: list
    score: float | None


def read_boxes(path, image_paths, min_score=0.0):
    """Returns the boxes of persons in a JSON file that belong to the given images.

    Args:
        path: COCO annotations (an object with "images" and "annotations") or detection results (a
            list of objects with "image_id" and "bbox"). The images of detection results are found
            by the number at the end of the file name, as in 000000000139.jpg. Entries of other
            categories than "person" (without names: 1) are skipped.
        image_paths: the images.
        min_score: entries with a lower score are skipped.

    Returns:
        List of `PersonBox`, in the order of the file.

    Raises:
        InputError: the file does not exist, has another format or has no box for the images; or a
            box fits two images.
    """
    data = files.read_json(path, "boxes file")
    annotated = isinstance(data, dict)
    entries = data.get("annotations") if annotated else data
    if not isinstance(entries, list):
        raise InputError(f"{path}: neither COCO annotations nor a list of detection results")
    try:
        by_id = _images_of_annotations(data, image_paths) if annotated else _images_by_number(image_paths)
        category = _person_category(data.get("categories") or ()) if annotated else PERSON_CATEGORY
        here = [e for e in entries if e["image_id"] in by_id]
        persons = [e for e in here if e.get("category_id", category) == category]
        kept = [e for e in persons if e.get("score") is None or e["score"] >= min_score]
        found = [(by_id[e["image_id"]], e["image_id"], e["bbox"], e.get("score")) for e in kept]
    except KeyError as error:
        raise InputError(f"{path}: an entry lacks the field {error}") from None
    except (AttributeError, TypeError) as error:
        raise InputError(f"{path}: neither COCO annotations nor detection results ({error})") from None
    if not here:
        raise InputError(f"{path}: none of its {len(entries)} boxes belongs to one of the {len(image_paths)} images")
    if not persons:
        raise InputError(f"{path}: none of its {len(here)} boxes for these images is of a person (category {category})")
    if not kept:
        raise InputError(
            f"{path}: none of its {len(persons)} boxes of persons for these images has a score of {min_score:g} or "
            "more: lower --min_score"
        )
    if len(kept) < len(here):
        logging.info(
            "%d boxes for these images: skipped %d that are not of persons and %d with a score under %g",
            len(here),
            len(here) - len(persons),
            len(persons) - len(kept),
            min_score,
        )
    for images, *_ in found:
        if len(images) > 1:
            raise InputError(
                f"{path}: a box fits both {images[0]} and {images[1]}: run the prediction for one folder at a time"
            )
    return [PersonBox(image_id, image, box, score) for (image,), image_id, box, score in found]


def _images_of_annotations(data, image_paths):
    """Returns {image id: the images with its file name}."""
    by_name = {}
    for path in image_paths:
        by_name.setdefault(os.path.basename(path), []).append(path)
    by_id = {}
    for image in data.get("images", ()):
        found = by_name.get(os.path.basename(image["file_name"]), [])
        if len(found) > 1:
            # The file name may contain a folder that only one of the images is in.
            ending = os.sep + image["file_name"].lstrip(os.sep)
            found = [path for path in found if os.path.abspath(path).endswith(ending)] or found
        if found:
            by_id[image["id"]] = found
    return by_id


def _images_by_number(image_paths):
    """Returns {number at the end of the file name: images}."""
    by_id = {}
    for path in image_paths:
        number = re.search(r"(\d+)\.\w+$", os.path.basename(path))
        if number:
            by_id.setdefault(int(number[1]), []).append(path)
    return by_id


def _person_category(categories):
    """Returns the id of the category "person"; without this category `PERSON_CATEGORY`."""
    return next((c["id"] for c in categories if c.get("name") == "person"), PERSON_CATEGORY)
