"""Selected persons -> crops -> record shards and their manifest.

A write is three steps, so that processes or a cluster (`beam_writer`) can share the second one: `prepare` reads the
labels and deals persons out to shards, `write_shard` makes one of them, `finish` puts the shards in place and writes
the manifest.
"""

import collections
import dataclasses
import glob
import hashlib
import importlib.metadata
import math
import os
import platform

import numpy as np
from absl import logging

import kpose
from kpose import files, geometry, records, tfrecord
from kpose.errors import InputError
from kpose.images import ImageFolder
from tfrecords_tools import coco, crops, problems, processes, staging


@dataclasses.dataclass(frozen=True)
class WriteOptions:
    """What to write; the fields are the flags of `tfrecords_tools.write_coco`.

    Attributes:
        annotations: COCO keypoint JSON file, plain or .gz; may be a URL.
        images: folder or .zip file that the file names are relative to; may be a URL.
        output_dir: where the shards go.
        split: the shards' name: train, val ...
        select: see `coco.drop_reason`.
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
        (`coco.Annotations`, selected persons, Counter reason -> persons dropped, `Problems`).

    Raises:
        InputError: a bad annotation file, or with `on_error` "stop" the first bad entry of it.
    """
    found = problems.Problems(on_error)
    annotations = coco.read_annotations(annotations_path, skeleton, found, category)
    candidates, dropped = coco.select_persons(annotations, selection)
    selected = [p for p in candidates if _is_inside(p, annotations.images[p["image_id"]], found)]
    return annotations, selected, dropped, found


def _is_inside(person, entry, found):
    size = _labelled_size(entry)
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


def _labelled_size(entry):
    """(width, height) that an image's labels were made for; None where its entry does not say."""
    size = entry.get("width"), entry.get("height")
    return size if all(isinstance(side, (int, float)) and side > 0 for side in size) else None


def write_records(options):
    """Writes the shards and, last of all, the manifest.

    Shards are made in a folder beside the records and move into place when all are whole, so a write that fails leaves
    earlier records as they were. One that was interrupted goes on where it was; one that is done already is left alone.

    Args:
        options: `WriteOptions`.

    Returns:
        The manifest, as written.

    Raises:
        InputError: bad annotations, a missing or damaged image, nothing selected, a full disk.
    """
    return carry_out(options, lambda jobs, total: processes.run(write_shard, jobs, options.workers, total))


def carry_out(options, run):
    """As `write_records`, the shards being made by `run`.

    Args:
        options: `WriteOptions`.
        run: (arguments of `write_shard` for each shard that is missing, persons in all of them) -> iterable of (index
            of the shard among them, its summary).
    """
    plan = prepare(options)
    there = records.read_manifest(options.output_dir, options.split)
    if there and _inputs_of(there) == plan.inputs and not staging.exists(options) and _sizes_agree(there, options):
        logging.info("%s holds these records already", options.output_dir)
        return there
    with staging.open_staging(options, plan.inputs) as stage:
        missing = [index for index in range(len(plan.shards)) if not stage.summary(plan.file_name(index))]
        if len(missing) < len(plan.shards):
            logging.info("going on: %d of %d shards are there", len(plan.shards) - len(missing), len(plan.shards))
        jobs = [(*plan.shards[index], options, stage.path(plan.file_name(index))) for index in missing]
        for index, summary in run(jobs, sum(len(job[0]) for job in jobs)):
            stage.keep(plan.file_name(missing[index]), summary)
        return finish(plan, [stage.summary(plan.file_name(index)) for index in range(len(plan.shards))], stage)


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
    return Plan(options, _inputs(options), shards, found, dropped)


def _inputs(options):
    return {
        "schema_version": records.SCHEMA_VERSION,
        "kpose_version": kpose.__version__,
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in ("numpy", "pillow", "cykooz.resizer")},
        "command": _command(options),
        "skeleton": options.skeleton.name,
        "annotations": os.path.basename(options.annotations),
        "annotations_sha256": hashlib.sha256(files.read_bytes(options.annotations)).hexdigest(),
        "images": options.images,
        "select": options.select,
        "category": options.category,
        "padding": options.padding,
        "aspect": options.aspect,
        "context": options.stored[1] / options.padding,
        "crop_size": list(options.crop_size),
        "stored_size": list(options.stored[0]),
        "seed": options.seed,
        "on_error": options.on_error,
        "shard_count": options.shards,
    }


def _command(options):
    flags = {
        "annotations": options.annotations,
        "images": options.images,
        "split": options.split,
        "select": options.select,
        "category": options.category,
        "padding": f"{options.padding:g}",
        "aspect": f"{options.aspect:g}" if options.aspect else "",
        "context": f"{options.context:g}",
        "crop_size": ",".join(map(str, options.crop_size)),
        "shards": options.shards,
        "seed": options.seed,
        "skeleton": options.skeleton.name,
        "on_error": options.on_error,
    }
    given = " ".join(f"--{name}={value}" for name, value in flags.items() if value != "")
    return f"python -m tfrecords_tools.write_coco {given}"


def _inputs_of(manifest):
    return {key: value for key, value in manifest.items() if key not in RESULTS}


# What a manifest tells beside the inputs.
RESULTS = ("persons", "images_used", "dropped", "skipped", "skipped_examples", "kinds", "shards")


def _sizes_agree(manifest, options):
    sizes = (
        (files.size(os.path.join(options.output_dir, shard["file"])), shard["bytes"]) for shard in manifest["shards"]
    )
    return all(there == written for there, written in sizes)


def finish(plan, summaries, stage):
    """Puts the shards in place and writes the manifest; returns it.

    Raises:
        InputError: every person was skipped.
    """
    options = plan.options
    for summary in summaries:
        plan.found.add(summary["skipped"], summary["skipped_examples"])
    plan.found.log()
    shards = [{key: summary[key] for key in ("file", "persons", "bytes", "sha256")} for summary in summaries]
    persons = sum(shard["persons"] for shard in shards)
    if not persons:
        raise InputError(f"{options.annotations}: all of its selected persons were skipped: nothing is written")
    kinds = sum((collections.Counter(summary["kinds"]) for summary in summaries), collections.Counter())
    manifest = plan.inputs | {
        "persons": persons,
        "images_used": sum(summary["images"] for summary in summaries),
        "dropped": dict(plan.dropped.most_common()),
        "skipped": dict(plan.found.counts.most_common()),
        "skipped_examples": plan.found.examples,
        "kinds": dict(kinds.most_common()),
        "shards": shards,
    }
    path = records.manifest_path(options.output_dir, options.split)
    # Until all shards are in place, none of them is vouched for.
    if files.is_file(path):
        files.remove(path)
    stage.move_into_place([shard["file"] for shard in shards])
    _remove_earlier(options, {shard["file"] for shard in shards})
    files.write_json(path, manifest)
    stage.clear()
    return manifest


def _remove_earlier(options, written):
    """Removes what an earlier write of this split left: shards of another count, which a glob would read too."""
    for path in files.matching(glob.escape(os.path.join(options.output_dir, options.split)) + "-?????-of-?????"):
        if os.path.basename(path) not in written:
            files.remove(path)


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


def write_shard(persons, images, options, path, progress=lambda count: None):
    """Writes one shard: aside, then renamed to `path`.

    Args:
        persons: its annotations, those of an image one after another.
        images: image id -> its entry in the COCO file.
        options: `WriteOptions`.
        path: the shard.
        progress: called with the number of persons done since the last call.

    Returns:
        Its summary: dict of `file`, `persons`, `images`, `bytes`, `sha256`, `skipped` and `skipped_examples` (by
        kind), `kinds` (of unusual images).

    Raises:
        InputError: bad input, unless it is skipped; a disk that is full.
    """
    folder = ImageFolder(options.images)
    found = problems.Problems(options.on_error)
    kinds = collections.Counter()
    written, used, size, digest = 0, 0, 0, hashlib.sha256()
    try:
        with files.replacing(path, "wb") as file:
            for image_id, group in _by_image(persons):
                made = list(_persons_of_image(folder, images[image_id], group, options, found, kinds))
                for person in made:
                    framed = tfrecord.frame(records.encode(person, options.skeleton))
                    file.write(framed)
                    digest.update(framed)
                    size += len(framed)
                written += len(made)
                used += bool(made)
                progress(len(group))
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror or error}): make room, or mend it, and give the same command "
            "again: whole shards are kept"
        ) from None
    return {
        "file": os.path.basename(path),
        "persons": written,
        "images": used,
        "bytes": size,
        "sha256": digest.hexdigest(),
        "skipped": dict(found.counts),
        "skipped_examples": found.examples,
        "kinds": dict(kinds),
    }


def _by_image(persons):
    groups = {}
    for person in persons:
        groups.setdefault(person["image_id"], []).append(person)
    return groups.items()


def _persons_of_image(folder, entry, group, options, found, kinds):
    """The `records.Person`s of one image, those in trouble left out."""
    try:
        image = folder.open(entry["file_name"])
        size = _labelled_size(entry)
        if size is not None and not image.fit(*size):
            found.meet(
                problems.OTHER_SIZE,
                f"{entry['file_name']}: the image has {image.width} x {image.height} pixels, but its annotations are "
                f"for {size[0]} x {size[1]}: give the images that they were made on",
                len(group),
            )
            return
        entry = entry | {"width": image.width, "height": image.height}
        group = [person for person in group if _is_inside(person, entry, found)]
        regions = [geometry.region_of(coco.box_of(person), options.stored[1], options.aspect) for person in group]
        if not group:
            return
        # Little is lost by halving the resolution while decoding where four times what is wanted is there.
        shrink = min(min(region[2:] / options.stored[0][::-1]) for region in regions) / 2
        picture = image.decode(bottom=max(region[1] + region[3] for region in regions), shrink=shrink)
    except InputError as error:
        if options.on_error == "stop":
            raise
        found.meet(problems.BAD_IMAGE, str(error), len(group))
        return
    kinds.update(image.kinds)
    for person, region in zip(group, regions, strict=True):
        kinds.update(_beyond(region, image))
        yield make_person(picture, image, entry, person, region, options)


def _beyond(region, image):
    x, y, w, h = region
    inside = x >= 0 and y >= 0 and x + w <= image.width and y + h <= image.height
    return () if inside else ("crops that reach beyond the image",)


def make_person(picture, image, entry, annotation, region, options):
    """The `records.Person` of one annotation: its crop and everything needed to go back.

    Args:
        picture: the decoded original, perhaps shrunk and without its lowest rows, in RGB.
        image: its `EncodedImage`.
        entry: its entry in the COCO file.
        annotation: the person's.
        region: [4] xywh in the original's pixels: what the crop shows.
        options: `WriteOptions`.
    """
    box = coco.box_of(annotation)
    size, padding = options.stored
    scale = picture.width / image.width
    area = annotation.get("area")
    return records.Person(
        jpeg=crops.encode_jpeg(crops.crop_image(picture, region * scale, size)),
        image_id=annotation["image_id"],
        annotation_id=annotation["id"],
        file_name=entry["file_name"],
        image_size=(image.height, image.width),
        box=box,
        padding=padding,
        aspect=options.aspect,
        region=region,
        area=area if isinstance(area, (int, float)) and 0 < area < math.inf else box[2] * box[3],
        keypoints=annotation["keypoints"],
    )
