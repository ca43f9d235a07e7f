"""Pictures of an evaluation: persons, truth beside prediction."""

import numpy as np

from kpose.core import geometry
from kpose.drawing import sheets
from kpose.metrics import tables

FIRST_PERSONS = 24
EXTREME_PERSONS = 8


def draw(persons, read_crops, skeleton):
    """Draws the first persons of an evaluation, and the best, the median and the worst ones.

    Args:
        persons: arrays over all persons: `truth` and `keypoints` [N, K, 3] and `box` [N, 4] in
            original pixels, `labels` [N, K, 3] normalised, `region` [N, 4] in original pixels.
        read_crops: function from numbers of persons to {number: crop [H, W, 3] uint8}.
        skeleton: the `Skeleton`.

    Returns:
        (picture of the first persons, {title: picture} of the others), each uint8 [H, W, 3].
    """
    first = np.arange(min(FIRST_PERSONS, len(persons["truth"])))
    extremes = _extreme_persons(persons)
    crops = read_crops(np.concatenate([first, *extremes.values()]))

    def grid(numbers, columns):
        regions = persons["region"][numbers]
        points = geometry.normalise(persons["keypoints"][numbers, :, :2], regions)
        images = [crops[number] for number in numbers]
        return sheets.prediction_grid(images, persons["labels"][numbers], points, skeleton, regions, columns)

    titled = {
        f"The {name} persons, by mean error over the box's longer side: truth beside prediction": grid(numbers, 4)
        for name, numbers in extremes.items()
        if len(numbers)
    }
    return grid(first, columns=6), titled


def _extreme_persons(persons):
    """{"best", "median", "worst": up to `EXTREME_PERSONS` person numbers}, by joint error."""
    errors = tables.person_errors(persons["truth"], persons["keypoints"][..., :2], persons["box"])
    # Persons without a labelled joint have no error; they are sorted to the end.
    order = np.argsort(errors)[: int(np.isfinite(errors).sum())]
    count = min(EXTREME_PERSONS, len(order))
    middle = max(0, len(order) // 2 - count // 2)
    return {"best": order[:count], "median": order[middle : middle + count], "worst": order[::-1][:count]}
