"""What is written: the options, the selected persons, and their distribution over shards."""

import collections
import dataclasses
import math
import os

import numpy as np
from absl import logging

from kpose.core import geometry
from kpose.core.errors import InputError
from kpose.data import records
from kpose.data.image_files import ImageFolder
from tfrecords_tools.write_coco import problems
from tfrecords_tools.write_coco.annotations import read_annotations, select_persons
from tfrecords_tools.write_coco.manifest import inputs


@dataclasses.dataclass(frozen=True)
class WriteOptions:
    """What to write; the fields are the flags of `tfrecords_tools.write_coco`.

    Attributes:
        annotations: COCO keypoint JSON file, plain or .gz; may be a URL.
        images: folder or .zip file that the file names are relative to; may be a URL.
        output_dir: where the shards go.
        split: the shards' name: train, val ...
        select: see `annotations.drop_reason`.
        padding: what the network is to see: the box enlarged by this factor.
        crop_size: (height, width) of that in pixels.
        shards: number of files.
        workers: processes; 0: one a core. The bytes written do not depend on it.
        seed: shuffles the order of the images.
        skeleton: the `Skeleton` of the labels.
        context: the crops are stored with a margin: this factor larger, at the same scale, for augmentation to move
            real pixels into view.
        on_error: "stop" at bad input, or "skip" it and count.
        category: name of the COCO category whose annotations are the persons; "": all that have keypoints.
        aspect: crop the rectangle of this width over height round the box, so that nobody is stretched; 0: the box.
    """

    annotations: str
    images: str
    output_dir: str
    split: str
    select: str
    padding: float
    crop_size: tuple
    shards: int
    workers: int
    seed: int
    skeleton: object
    context: float = 1.0
    on_error: str = "stop"
    category: str = ""
    aspect: float = 0.0

    def __post_init__(self):
        if not self.split or os.sep in self.split:
            raise InputError(f"split {self.split!r}: give a plain name such as train or val")
        for name in ("padding", "context"):
            if not 1 <= getattr(self, name) <= 10:
                raise InputError(f"{name} {getattr(self, name)}: the factor of enlargement is between 1 and 10")
        if not 1 <= self.shards <= 99_999:
            raise InputError(f"{self.shards} shards: give a number between 1 and 99,999")
        if self.workers < 0:
            raise InputError(f"{self.workers} workers: give a number of processes, or 0 for one a core")
        if len(self.crop_size) != 2 or not all(8 <= side <= 4096 for side in self.crop_size):
            raise InputError(f"crop size {self.crop_size}: height and width are between 8 and 4096 pixels")
        geometry.check_aspect(self.aspect, self.crop_size)
        if self.seed < 0:
            raise InputError(f"seed {self.seed}: give a number that is not negative")

    @property
    def stored(self):
        """((height, width), padding) of the stored crops: the margin of `context` is of whole pixels all round."""
        height, width = self.crop_size
        step = math.gcd(height, width)
        steps = round((self.context - 1) * step / 2)
        size = height + 2 * steps * height // step, width + 2 * steps * width // step
        return size, self.padding * (1 + 2 * steps / step)


@dataclasses.dataclass(frozen=True)
class Plan:
    """A write that is about to begin.

    Attributes:
        options: `WriteOptions`.
        inputs: what the bytes depend on, as the manifest tells it; equal inputs give equal shards.
        shards: the persons of each shard, and the entries of their images.
        found: `Problems` in the labels.
        dropped: Counter reason -> persons that the selection leaves out.
    """

    options: WriteOptions
    inputs: dict
    shards: list
    found: problems.Problems
    dropped: collections.Counter

    def file_name(self, index):
        return os.path.basename(records.shard_path("", self.options.split, index, len(self.shards)))


def describe_selection(annotations, selected, dropped, found):
    """What a dry run prints: how many persons are taken, and why the others are not."""
    lines = [
        f"{annotations.path}: {len(annotations.images):,} images, {len(annotations.persons):,} persons",
        f"selected: {len(selected):,} persons in {len({p['image_id'] for p in selected}):,} images",
        f"dropped: {sum(dropped.values()):,} persons",
    ]
    lines += [f"  {count:>9,}  {reason}" for reason, count in dropped.most_common()]
    if found.counts:
        lines.append(f"skipped as bad input: {sum(found.counts.values()):,}")
        lines += [f"  {count:>9,}  {kind}" for kind, count in found.counts.most_common()]
    return lines


def select(annotations_path, skeleton, selection, on_error="stop", category=""):
    """The labels of a write.

    Returns:
        (`annotations.Annotations`, selected persons, Counter reason -> persons dropped, `Problems`).

    Raises:
        InputError: a bad annotation file, or with `on_error` "stop" the first bad entry of it.
    """
    found = problems.Problems(on_error)
    annotations = read_annotations(annotations_path, skeleton, found, category)
    candidates, dropped = select_persons(annotations, selection)
    selected = [p for p in candidates if is_inside(p, annotations.images[p["image_id"]], found)]
    return annotations, selected, dropped, found


def is_inside(person, entry, found):
    size = labelled_size(entry)
    if size is None:
        return True
    x, y, w, h = person["bbox"]
    if x < size[0] and y < size[1] and x + w > 0 and y + h > 0:
        return True
    found.meet(
        problems.OUTSIDE,
        f"annotation {person['id']}: its box {list(person['bbox'])} lies outside image {entry['file_name']} of "
        f"{size[0]} x {size[1]} pixels",
    )
    return False


def labelled_size(entry):
    """(width, height) that an image's labels were made for; None where its entry does not say."""
    size = entry.get("width"), entry.get("height")
    return size if all(isinstance(side, (int, float)) and side > 0 for side in size) else None


def prepare(options):
    """The `Plan` of a write, deterministic in its options.

    Raises:
        InputError: bad annotations, nothing selected, no images.
    """
    labels = select(options.annotations, options.skeleton, options.select, options.on_error, options.category)
    annotations, selected, dropped, found = labels
    for line in describe_selection(*labels):
        logging.info("%s", line)
    if not selected:
        raise InputError(f"{options.annotations}: no person is left by --select={options.select}")
    ImageFolder(options.images)  # Says what is wrong with it before any worker starts.
    shards = []
    for persons in plan_shards(selected, options.shards, options.seed):
        images = {p["image_id"]: annotations.images[p["image_id"]] for p in persons}
        shards.append((persons, images))
    return Plan(options, inputs(options), shards, found, dropped)


def plan_shards(persons, shards, seed):
    """Deals persons out to shards, all persons of an image to the same one, so that each image is decoded once.

    Returns:
        `shards` lists of annotations (fewer when there are fewer images), equal in length to within the persons of an
        image; images are in an order shuffled by `seed`.
    """
    by_image = collections.defaultdict(list)
    for person in persons:
        by_image[person["image_id"]].append(person)
    order = np.random.default_rng(seed).permutation(np.array(list(by_image), dtype=object))
    count = min(shards, len(order))
    plan = [[]]
    dealt = 0
    for index, image_id in enumerate(order):
        group = by_image[image_id]
        # On to the next shard where the middle of the group is past this one's share; none may stay empty.
        full = plan[-1] and (dealt + len(group) / 2) * count > len(plan) * len(persons)
        if len(plan) < count and (full or len(order) - index == count - len(plan)):
            plan.append([])
        plan[-1].extend(group)
        dealt += len(group)
    return plan
