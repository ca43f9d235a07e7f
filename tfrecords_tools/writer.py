"""Selected persons -> crops -> record shards and their manifest."""

import collections
import concurrent.futures
import dataclasses
import glob
import hashlib
import multiprocessing
import os
import time

import numpy as np
from absl import logging

import kpose
from kpose import files, geometry, quiet
from kpose.errors import InputError
from kpose.images import ImageFolder
from tfrecords_tools import coco, crops


@dataclasses.dataclass(frozen=True)
class WriteOptions:
    """What to write; the fields are the flags of `tfrecords_tools.write_coco`.

    Attributes:
        annotations: COCO keypoint JSON file, plain or .gz.
        images: folder or .zip file that the file names are relative to.
        output_dir: where the shards go.
        split: the shards' name: train, val ...
        select: see `coco.drop_reason`.
        padding: the crop shows the box enlarged by this factor.
        crop_size: (height, width) of the stored crops in pixels.
        shards: number of files.
        workers: processes; 0: one a core. The bytes written do not depend on it.
        seed: shuffles the order of the images.
        skeleton: the `Skeleton` of the labels.
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

    def __post_init__(self):
        if not self.split or os.sep in self.split:
            raise InputError(f"split {self.split!r}: give a plain name such as train or val")
        if not 1 <= self.padding <= 10:
            raise InputError(f"padding {self.padding}: the factor the box is enlarged by is between 1 and 10")
        if not 1 <= self.shards <= 99_999:
            raise InputError(f"{self.shards} shards: give a number between 1 and 99,999")
        if self.workers < 0:
            raise InputError(f"{self.workers} workers: give a number of processes, or 0 for one a core")
        if len(self.crop_size) != 2 or not all(8 <= side <= 4096 for side in self.crop_size):
            raise InputError(f"crop size {self.crop_size}: height and width are between 8 and 4096 pixels")
        if self.seed < 0:
            raise InputError(f"seed {self.seed}: give a number that is not negative")


def describe_selection(annotations, selected, dropped):
    """What a dry run prints: how many persons are taken, and why the others are not."""
    lines = [
        f"{annotations.path}: {len(annotations.images):,} images, {len(annotations.persons):,} persons",
        f"selected: {len(selected):,} persons in {len({p['image_id'] for p in selected}):,} images",
        f"dropped: {sum(dropped.values()):,} persons",
    ]
    return lines + [f"  {count:>9,}  {reason}" for reason, count in dropped.most_common()]


def write_records(options):
    """Writes the shards and, last of all, the manifest.

    The shards are written aside and renamed into place when all are whole: a write that fails leaves earlier records
    as they were.

    Args:
        options: `WriteOptions`.

    Returns:
        The manifest, as written.

    Raises:
        InputError: bad annotations, a missing or damaged image, nothing selected.
    """
    quiet.import_tensorflow()  # A dry run does without it.
    from kpose import records

    annotations = coco.read_annotations(options.annotations, options.skeleton)
    selected, dropped = coco.select_persons(annotations, options.select)
    for line in describe_selection(annotations, selected, dropped):
        logging.info("%s", line)
    if not selected:
        raise InputError(f"{options.annotations}: no person is left by --select={options.select}")
    ImageFolder(options.images)  # Says what is wrong with it before any worker starts.
    os.makedirs(options.output_dir, exist_ok=True)
    plan = plan_shards(selected, options.shards, options.seed)
    jobs = []
    for index, persons in enumerate(plan):
        images = {p["image_id"]: annotations.images[p["image_id"]] for p in persons}
        path = records.shard_path(options.output_dir, options.split, index, len(plan))
        jobs.append((path, persons, images, options))
    paths = [job[0] for job in jobs]
    try:
        shards = list(_run(jobs, options.workers, len(selected)))
        for path in paths:
            os.replace(_aside(path), path)
    finally:
        for path in paths:
            if os.path.exists(_aside(path)):
                os.remove(_aside(path))
    _remove_earlier(options, set(paths))
    manifest = {
        "schema_version": records.SCHEMA_VERSION,
        "kpose_version": kpose.__version__,
        "skeleton": options.skeleton.name,
        "annotations": os.path.basename(options.annotations),
        "select": options.select,
        "padding": options.padding,
        "crop_size": list(options.crop_size),
        "seed": options.seed,
        "persons": len(selected),
        "images": len({p["image_id"] for p in selected}),
        "dropped": dict(dropped.most_common()),
        "shards": shards,
    }
    files.write_json(records.manifest_path(options.output_dir, options.split), manifest)
    return manifest


def _remove_earlier(options, written):
    """Removes what an earlier write of this split left: shards of another count, which a glob would read too."""
    for path in glob.glob(glob.escape(os.path.join(options.output_dir, options.split)) + "-?????-of-?????"):
        if path not in written:
            os.remove(path)


def plan_shards(persons, shards, seed):
    """Deals persons out to shards, all persons of an image to the same one, so that each image is decoded once.

    Returns:
        `shards` lists of annotations (fewer when there are fewer images), of nearly equal length; images are in an
        order shuffled by `seed`.
    """
    by_image = collections.defaultdict(list)
    for person in persons:
        by_image[person["image_id"]].append(person)
    order = np.random.default_rng(seed).permutation(np.array(list(by_image), dtype=object))
    plan = [[] for _ in range(min(shards, len(order)))]
    # Crowded images first into the emptiest shard would sort them: round robin keeps the order random.
    for index, image_id in enumerate(order):
        plan[index % len(plan)].extend(by_image[image_id])
    return plan


def _run(jobs, workers, total):
    """Runs `_write_shard` over the jobs, yielding each shard's summary in order."""
    workers = min(workers or os.cpu_count() or 1, len(jobs))
    started, done = time.monotonic(), 0
    if workers > 1:
        # Forking a process that runs TensorFlow's threads can deadlock.
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(workers, mp_context=context) as pool:
            futures = [pool.submit(_write_shard, *job) for job in jobs]
            try:
                for future in futures:
                    shard = future.result()
                    done += shard["persons"]
                    _log_progress(done, total, started)
                    yield shard
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    else:
        for job in jobs:
            shard = _write_shard(*job)
            done += shard["persons"]
            _log_progress(done, total, started)
            yield shard


def _log_progress(done, total, started):
    rate = done / max(time.monotonic() - started, 1e-9)
    logging.info("%d of %d persons (%.0f a second, %.0f s left)", done, total, rate, (total - done) / max(rate, 1e-9))


def _aside(path):
    """Where a shard is while the write may still fail."""
    return f"{path}.tmp"


def _write_shard(path, persons, images, options):
    """Writes one shard aside and returns its entry in the manifest."""
    quiet.import_tensorflow()
    import tensorflow as tf

    from kpose import records

    folder = ImageFolder(options.images)
    with tf.io.TFRecordWriter(_aside(path)) as writer:
        for image_id, group in _by_image(persons):
            image = folder.read(images[image_id]["file_name"])
            _check_size(image, images[image_id])
            for annotation in group:
                person = make_person(image, images[image_id], annotation, options)
                writer.write(records.encode(person, options.skeleton))
    with open(_aside(path), "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"file": os.path.basename(path), "persons": len(persons), "sha256": digest}


def _check_size(image, image_entry):
    """Refuses an image of another size than its labels were made on: they would lie beside the joints."""
    labelled = image_entry.get("width", image.width), image_entry.get("height", image.height)
    if labelled != image.size:
        raise InputError(
            f"{image_entry['file_name']}: the image has {image.width} x {image.height} pixels, but its annotations are "
            f"for {labelled[0]} x {labelled[1]}: give the images that they were made on"
        )


def _by_image(persons):
    groups = {}
    for person in persons:
        groups.setdefault(person["image_id"], []).append(person)
    return groups.items()


def make_person(image, image_entry, annotation, options):
    """The `records.Person` of one annotation: its crop and everything needed to go back.

    Args:
        image: the decoded original, a PIL image in RGB.
        image_entry: its entry in the COCO file.
        annotation: the person's.
        options: `WriteOptions`.

    Raises:
        InputError: the box lies wholly outside the image.
    """
    from kpose import records

    box = np.asarray(annotation["bbox"], np.float64)
    if box[0] >= image.width or box[1] >= image.height or box[0] + box[2] <= 0 or box[1] + box[3] <= 0:
        raise InputError(
            f"annotation {annotation['id']}: its box {box.tolist()} lies outside image "
            f"{image_entry['file_name']} of {image.width} x {image.height} pixels"
        )
    region = geometry.pad_box(box, options.padding)
    crop = crops.crop_image(image, region, options.crop_size)
    return records.Person(
        jpeg=crops.encode_jpeg(crop),
        image_id=annotation["image_id"],
        annotation_id=annotation["id"],
        file_name=image_entry["file_name"],
        image_size=(image.height, image.width),
        box=box,
        padding=options.padding,
        region=region,
        area=annotation.get("area") or box[2] * box[3],
        keypoints=coco.keypoint_array(annotation),
    )
