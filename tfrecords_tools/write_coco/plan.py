"""The plan of a write: the selected persons and their distribution over shards."""

import collections
import dataclasses
import hashlib
import os

import numpy as np
from absl import logging

from kpose.core.errors import InputError
from kpose.data import coco_files, coco_values, problems, records
from kpose.data.image_files import ImageFolder
from tfrecords_tools.write_coco.annotations import select_persons
from tfrecords_tools.write_coco.manifest import inputs
from tfrecords_tools.write_coco.options import WriteOptions

OTHER_SHARE = "in an image outside --share"


@dataclasses.dataclass(frozen=True)
class Plan:
    """A write that has been prepared.

    Attributes:
        options: `WriteOptions`; the skeleton is that of the labels.
        inputs: the manifest's entries on which the bytes depend; equal inputs give equal shards.
        shards: for each shard (list of `coco_files.Person`, dict of image id -> `coco_files.Image`).
        found: `Problems` in the labels.
        dropped: Counter of reason -> number of persons that are not selected.
    """

    options: WriteOptions
    inputs: dict
    shards: list
    found: problems.Problems
    dropped: collections.Counter

    def file_name(self, index):
        """The file name of a shard."""
        return os.path.basename(records.shard_path("", self.options.split, index, len(self.shards)))


def describe_selection(annotations, selected, dropped, found):
    """Lines of text: how many persons are selected, and why the others are not.

    Args:
        annotations, selected, dropped, found: what `select` returns.
    """
    lines = [
        f"{annotations.path}: {len(annotations.images):,} images, {len(annotations.persons):,} persons",
        f"selected: {len(selected):,} persons in {len({p.image_id for p in selected}):,} images",
        f"dropped: {sum(dropped.values()):,} persons",
    ]
    lines += [f"  {count:>9,}  {reason}" for reason, count in dropped.most_common()]
    if found.counts:
        lines.append(f"skipped as bad input: {sum(found.counts.values()):,}")
        lines += [f"  {count:>9,}  {kind}" for kind, count in found.counts.most_common()]
    return lines


def select(options):
    """The labels of a write.

    Args:
        options: `WriteOptions`.

    Returns:
        (`coco_files.Labels`, selected persons, Counter of reason -> persons dropped,
        `Problems`).

    Raises:
        InputError: a bad annotation file, or with `on_error` "stop" its first bad entry.
    """
    found = problems.Problems(options.on_error)
    annotations = coco_files.read_labels(
        options.annotations, options.skeleton, found, options.category, pixel_offset=options.pixel_offset
    )
    candidates, dropped = select_persons(annotations, options.select)
    chosen = [p for p in candidates if in_share(annotations.images[p.image_id], options.share)]
    if len(chosen) < len(candidates):
        dropped[OTHER_SHARE] += len(candidates) - len(chosen)
    candidates = chosen
    selected = [p for p in candidates if is_inside(p, annotations.images[p.image_id], found)]
    return annotations, selected, dropped, found


def in_share(image, share):
    """Whether an image belongs to a share of all images, by a hash of its file name.

    Args:
        image: `coco_files.Image`.
        share: (from, to) in 0..1. Shares that do not overlap have no image in common, also if they
            are of different files of labels.
    """
    name = str(image.source_id) if image.file_name is None else image.file_name
    place = int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big") / 2**48
    return share[0] <= place < share[1]


def is_inside(person, image, found):
    """Whether a person's box overlaps its image; if not, the problem is reported to `found`.

    Args:
        person: `coco_files.Person` with a box.
        image: its `coco_files.Image`. Without a size, the answer is True.
        found: `Problems`.
    """
    if coco_values.overlaps(person.box, image.size):
        return True
    width, height = image.size
    found.report(
        problems.OUTSIDE,
        f"annotation {person.id}: its box {[float(side) for side in person.box]} is outside image {image.file_name} of "
        f"{width} x {height} pixels",
    )
    return False


def prepare(options):
    """The `Plan` of a write; equal options and annotations give an equal plan.

    Raises:
        InputError: bad annotations, no person selected, no images.
    """
    labels = select(options)
    annotations, selected, dropped, found = labels
    for line in describe_selection(*labels):
        logging.info("%s", line)
    if not selected:
        raise InputError(f"{options.annotations}: --select={options.select} selects no person")
    # Reports a wrong folder before any worker starts.
    ImageFolder(options.images)
    shards = []
    for persons in plan_shards(selected, options.shards, options.seed):
        images = {p.image_id: annotations.images[p.image_id] for p in persons}
        shards.append((persons, images))
    command = options.command()
    options = dataclasses.replace(options, skeleton=annotations.skeleton)
    return Plan(options, inputs(options, command), shards, found, dropped)


def plan_shards(persons, shards, seed):
    """Distributes persons over shards; all persons of an image are in the same shard.

    So each image is decoded once.

    Args:
        persons: list of `coco_files.Person`.
        shards: number of shards.
        seed: seed of the order of the images.

    Returns:
        `shards` lists of persons; fewer if there are fewer images. Their lengths differ by at
        most the number of persons in an image.
    """
    by_image = collections.defaultdict(list)
    for person in persons:
        by_image[person.image_id].append(person)
    order = np.random.default_rng(seed).permutation(np.array(list(by_image), dtype=object))
    count = min(shards, len(order))
    plan = [[]]
    assigned = 0
    for index, image_id in enumerate(order):
        group = by_image[image_id]
        # Start the next shard if the middle of the group is past the share of this one. No shard
        # may stay empty.
        full = plan[-1] and (assigned + len(group) / 2) * count > len(plan) * len(persons)
        if len(plan) < count and (full or len(order) - index == count - len(plan)):
            plan.append([])
        plan[-1].extend(group)
        assigned += len(group)
    return plan
