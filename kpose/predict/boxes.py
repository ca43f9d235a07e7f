"""Reads the boxes of persons from COCO annotations or from detection results."""

import collections
import dataclasses
import os

from absl import logging

from kpose.core.errors import InputError
from kpose.data import coco_files, coco_names, problems
from kpose.metrics.coco import PERSON_CATEGORY
from kpose.predict import inputs


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


def read_boxes(path, image_paths, min_score=0.0, skeleton=None):
    """Returns the boxes of persons in a JSON file that belong to the given images.

    Entries of other categories than "person" are skipped; without names of categories those of
    other ids than 1. If the model's skeleton is not a person's, its category counts instead: the one
    with the skeleton's name, or all if the file has none of this name. Crowds are skipped.

    Args:
        path: COCO annotations (an object with "images" and "annotations") or detection results (a
            list). An image is found by its file name; in detection results without a file name, by
            the number at the end of the name, as in 000000000139.jpg.
        image_paths: the images.
        min_score: entries with a lower score are skipped.
        skeleton: the `Skeleton` that the model predicts; None: a person's.

    Returns:
        List of `PersonBox`, in the order of the file.

    Raises:
        InputError: the file does not exist, has another format or has no box for the images; or a
            box fits two images.
    """
    data = coco_files.load(path, "boxes file")
    wanted = coco_files.PERSON if skeleton is None or skeleton.is_person else skeleton.name
    entries, total = (_annotated if isinstance(data, dict) else _detected)(path, data, image_paths, wanted)
    if not entries:
        raise InputError(f"{path}: none of its {total} boxes belongs to one of the {len(image_paths)} images")
    persons = [(row, images, source_id) for row, images, source_id, is_person in entries if is_person]
    if not persons:
        raise InputError(f"{path}: none of its {len(entries)} entries for these images is a person with a box")
    kept = [row for row in persons if row[0].score is None or row[0].score >= min_score]
    if not kept:
        raise InputError(
            f"{path}: none of its {len(persons)} boxes of persons for these images has a score of {min_score:g} or "
            "more: lower --min_score"
        )
    if len(kept) < len(entries):
        logging.info(
            "%d boxes for these images: skipped %d that are crowds or not of persons, and %d with a score under %g",
            len(entries),
            len(entries) - len(persons),
            len(persons) - len(kept),
            min_score,
        )
    for _, images, _ in kept:
        if len(images) > 1:
            raise InputError(
                f"{path}: a box fits both {images[0]} and {images[1]}: run the prediction for one folder at a time"
            )
    unknown = set(image_paths) - {image for _, images, _, _ in entries for image in images}
    if unknown:
        logging.info("%s has no box for %d of the %d images", path, len(unknown), len(image_paths))
    return [PersonBox(source_id, image, row.box.tolist(), row.score) for row, (image,), source_id in kept]


def _annotated(path, data, image_paths, wanted):
    """The boxes of COCO annotations.

    Args:
        path, data: the file and its content.
        image_paths: the images.
        wanted: name of the category of the persons.

    Returns:
        (list of (row, images that fit it, image id as in the file, whether it is a person), number
        of boxes in the file).
    """
    found = problems.Problems("skip")
    labels = coco_files.read_labels(path, found=found, data=data)
    found.log()
    named = any(person.category == wanted for person in labels.persons)
    named_images = coco_names.NamedFiles((i.file_name, i.id) for i in labels.images.values() if i.file_name)
    paths_of = collections.defaultdict(list)
    for image_path in image_paths:
        ids = named_images.match(os.path.abspath(image_path))
        if len(ids) > 1:
            first, second = (labels.images[image_id].file_name for image_id in ids[:2])
            raise InputError(f"{path}: {image_path} fits both its images {first} and {second}")
        for image_id in ids:
            paths_of[image_id].append(image_path)
    for image_id, fitting in paths_of.items():
        pairs = [(os.path.abspath(image_path), image_path) for image_path in fitting]
        paths_of[image_id] = coco_names.match_by_name(pairs, labels.images[image_id].file_name)
    entries = []
    for row in labels.persons:
        is_person = not row.crowd and row.box is not None and (not named or row.category == wanted)
        if paths_of.get(row.image_id):
            entries.append((row, paths_of[row.image_id], labels.images[row.image_id].source_id, is_person))
    return entries, len(labels.persons)


def _detected(path, data, image_paths, wanted):
    """The boxes of detection results; returns as `_annotated`."""
    rows, names = coco_files.read_results(path, "detection results", data)
    named_paths = coco_names.NamedFiles((os.path.abspath(image_path), image_path) for image_path in image_paths)
    by_number = collections.defaultdict(list)
    for image_path in image_paths:
        number = inputs.number_of_file(image_path)
        if number is not None:
            by_number[number].append(image_path)
    entries = []
    for row, name in zip(rows, names, strict=True):
        if name:
            images = named_paths.match(name)
        else:
            images = by_number.get(row.image_id, [])
        if images:
            any_category = wanted != coco_files.PERSON
            is_person = row.box is not None and (any_category or row.category in (None, str(PERSON_CATEGORY)))
            entries.append((row, images, row.image_id, is_person))
    return entries, len(rows)
