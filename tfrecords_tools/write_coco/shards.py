"""Writes one shard: decodes images, cuts crops, encodes records."""

import collections
import dataclasses
import hashlib
import os

from PIL import Image

from kpose.core import files, geometry
from kpose.core.errors import InputError
from kpose.data import crops, problems, records, tfrecord
from kpose.data.image_files import ImageFolder
from tfrecords_tools.write_coco.plan import is_inside


def write_shard(persons, images, options, path, progress=lambda count: None):
    """Writes one shard, first to a temporary file, which is then renamed to `path`.

    Args:
        persons: list of `coco_files.Person`.
        images: image id -> `coco_files.Image`.
        options: `WriteOptions`.
        path: the shard's file.
        progress: called with the number of persons that were processed since the last call.

    Returns:
        Summary of the shard: dict of `file`, `persons`, `images`, `bytes`, `sha256`, `skipped` and
        `skipped_examples` (by kind of problem), `kinds` (number of images by unusual property).

    Raises:
        InputError: bad input, unless it is skipped; the shard cannot be written.
    """
    folder = ImageFolder(options.images, options.allow_outside)
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
            f"{path}: cannot be written ({error.strerror or error}): free some disk space, or fix this, and run the "
            "same command again: it keeps the complete shards"
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
        groups.setdefault(person.image_id, []).append(person)
    return groups.items()


def _persons_of_image(folder, entry, group, options, found, kinds):
    """Yields the `records.Person` of each person of an image that has no problem."""
    try:
        if entry.file_name is None:
            raise InputError(f"{options.annotations}: image {entry.source_id!r} has no file name")
        image = folder.open(entry.file_name)
        if entry.size is not None:
            try:
                image.check_size(*entry.size)
            except InputError as error:
                found.report(problems.OTHER_SIZE, str(error), len(group))
                return
        entry = dataclasses.replace(entry, width=image.width, height=image.height)
        group = [p for p in group if is_inside(p, entry, found) and _is_bounded(p, entry, options, found)]
        regions = [geometry.region_of(person.box, options.stored[1], options.aspect) for person in group]
        if not group:
            return
        # An image that has at least four times the resolution of its crops loses little if it is
        # decoded at half size.
        shrink = min(min(region[2:] / options.stored[0][::-1]) for region in regions) / 2
        bottom = max(region[1] + region[3] for region in regions)
        decoded = image.decode(bottom=bottom, shrink=shrink)
    except InputError as error:
        if options.on_error == "stop":
            raise
        found.report(problems.BAD_IMAGE, str(error), len(group))
        return
    kinds.update(image.kinds)
    for person, region in zip(group, regions, strict=True):
        kinds.update(_beyond(region, image))
        yield make_person(decoded, image, entry, person, region, options)


def _is_bounded(person, entry, options, found):
    """Whether Pillow crops the region of a person; if not, the problem is reported to `found`."""
    region = geometry.region_of(person.box, options.stored[1], options.aspect)
    # Pillow refuses crops beyond it; an image has at most half as many pixels.
    if region[2] * region[3] <= 2 * Image.MAX_IMAGE_PIXELS:
        return True
    found.report(
        problems.OUTSIDE,
        f"annotation {person.id}: its crop would have {region[2]:.0f} x {region[3]:.0f} pixels of image "
        f"{entry.file_name}, which has {entry.width} x {entry.height}",
    )
    return False


def _beyond(region, image):
    x, y, w, h = region
    inside = x >= 0 and y >= 0 and x + w <= image.width and y + h <= image.height
    return () if inside else ("crops that reach beyond the image",)


def make_person(decoded, image, entry, person, region, options):
    """The `records.Person` of one person.

    Args:
        decoded: the decoded image in RGB, perhaps smaller than the original.
        image: its `EncodedImage`.
        entry: its `coco_files.Image`.
        person: `coco_files.Person`.
        region: [4] xywh of the crop, in pixels of the original image.
        options: `WriteOptions`.
    """
    size, padding = options.stored
    scale = decoded.width / image.width
    return records.Person(
        jpeg=crops.encode_jpeg(crops.crop_image(decoded, region * scale, size)),
        image_id=person.image_id,
        annotation_id=person.id,
        file_name=entry.file_name,
        image_size=(image.height, image.width),
        box=person.box,
        padding=padding,
        aspect=options.aspect,
        region=region,
        area=person.area,
        keypoints=person.keypoints,
        pixel_offset=options.pixel_offset,
    )
