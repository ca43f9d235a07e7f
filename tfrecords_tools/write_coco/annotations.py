"""Selects the persons of a COCO annotation file to train on."""

import collections

from kpose.core.errors import InputError

# The reasons why a person is not selected, in the order of the checks. Only the first is counted.
CROWD = "a crowd"
NO_JOINT = "no joint labelled"
UNLABELLED_JOINT = "some joint not labelled"
OCCLUDED_JOINT = "some joint occluded"
ZERO_COORDINATE = "some joint with a coordinate of 0"
NO_BOX = "no box, or one without area or not of numbers"

SELECTIONS = ("fully_visible", "labelled")


def drop_reason(person, select, pixel_offset):
    """The reason why a person is not selected; None if it is selected.

    Args:
        person: `coco_files.Person`.
        select: "fully_visible": every joint has v == 2 and no joint has a coordinate of 0 (4,037
            and 159 persons of COCO 2017's splits train and val); "labelled": at least one joint has
            v > 0. Neither selects crowds.
        pixel_offset: `coco_files.Labels.pixel_offset`, which a coordinate of 0 has become.
    """
    if person.crowd:
        return CROWD
    keypoints = person.keypoints
    if not (keypoints[:, 2] > 0).any():
        return NO_JOINT
    if select == "fully_visible":
        if (keypoints[:, 2] == 0).any():
            return UNLABELLED_JOINT
        if (keypoints[:, 2] != 2).any():
            return OCCLUDED_JOINT
        if (keypoints[:, :2] == pixel_offset).any():
            return ZERO_COORDINATE
    return None if person.box is not None else NO_BOX


def select_persons(labels, select):
    """The persons of a selection, and the number of persons that were dropped for each reason.

    Args:
        labels: `coco_files.Labels`.
        select: one of `SELECTIONS`.

    Returns:
        (list of `coco_files.Person` in file order, Counter of reason -> persons).

    Raises:
        InputError: the selection is unknown.
    """
    if select not in SELECTIONS:
        raise InputError(f"unknown selection {select!r}: use one of {', '.join(SELECTIONS)}")
    selected, dropped = [], collections.Counter()
    for person in labels.persons:
        reason = drop_reason(person, select, labels.pixel_offset)
        if reason is None:
            selected.append(person)
        else:
            dropped[reason] += 1
    return selected, dropped
