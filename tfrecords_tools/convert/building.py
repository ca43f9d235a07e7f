"""Writes the labels of a `Source` as a COCO keypoint file."""

import collections
import os
import posixpath

import numpy as np

from kpose.core import geometry
from kpose.core.errors import InputError
from kpose.data.image_files import ImageFolder
from tfrecords_tools import coco_builder
from tfrecords_tools.convert.labels import Points, bones_between

# Decimals of the joints in the COCO file, in pixels.
DECIMALS = 3


class Images:
    """The images of a folder or .zip file, by the paths that a tool has for them.

    Args:
        path: the folder or .zip file.

    Raises:
        InputError: see `ImageFolder`.
    """

    def __init__(self, path):
        self.path = path
        self._folder = ImageFolder(path)

    def find(self, names):
        """The name of an image in the folder; None if it is missing.

        A tool's path may begin with folders that the image folder does not have. So the path is
        tried first, and then without its first folders.

        Args:
            names: paths of the tool for the same image.
        """
        for name in names:
            parts = posixpath.normpath(name.replace("\\", "/")).split("/")
            parts = [part for part in parts if part not in ("", ".", "..")]
            for first in range(len(parts)):
                candidate = "/".join(parts[first:])
                if candidate in self._folder:
                    return candidate
        return None

    def size(self, name, photo, source):
        """(width, height) of an image in pixels, by its labels, or as viewers show it.

        Args:
            name: its name in the folder.
            photo: its `Photo`.
            source: the `Source`; an orientation that the size does not show is counted in `changed`.

        Raises:
            InputError: not an image, or not of the size that its labels say.
        """
        image = self._folder.open(name)
        stored = image.width, image.height
        if photo.size is None:
            image.turn_upright()
            # write_coco sees by the size alone whether the labels are those of the turned image.
            if image.kinds & {"turned by its EXIF orientation"} and (image.width, image.height) == stored:
                source.changed["images whose EXIF orientation does not show in their size: read as stored"] += 1
        else:
            try:
                image.check_size(*photo.size)
            except InputError as error:
                raise InputError(f"{photo.where}: {error}") from None
        return image.width, image.height


def write(source, options):
    """Writes the COCO file.

    Args:
        source: the `Source`.
        options: the `ConvertOptions`.

    Returns:
        Lines of text: what was written, and what was left out.

    Raises:
        InputError: no persons, an unknown category, a bad joint name, missing images or images of
            another size, a box outside its image.
    """
    category = _category(source, options.category)
    points = _points(source.points_of(category), options)
    images = Images(options.images or source.images)
    builder = _Builder(source, options, category, points, images)
    for photo in source.photos:
        builder.add(photo)
    lines = builder.finish()
    some = ", ".join(points.joints[:6]) + (" ..." if len(points.joints) > 6 else "")
    lines.append(f"category {category!r}: {len(points.joints)} joints ({some}), {len(points.bones)} bones")
    lines += source.remarks
    for what, counter in (("left out", source.left_out), ("changed", source.changed)):
        if counter:
            lines.append(f"{what}: " + "; ".join(f"{count:,} {name}" for name, count in counter.items()))
    return lines + [f"the file names are relative to {images.path}: write_coco --images={images.path}"]


def _category(source, wanted):
    """The name of the category to write."""
    counts = collections.Counter(person.category for photo in source.photos for person in photo.persons)
    if not counts:
        raise InputError(f"no person is labelled{_reasons(source)}: nothing was written")
    named = [name for name in counts if name]
    if wanted:
        if named and wanted not in named:
            raise InputError(f"--category={wanted}: no person has this category: there are {', '.join(named)}")
        return wanted
    if len(named) > 1:
        some = ", ".join(f"{name} ({counts[name]:,})" for name in named)
        raise InputError(f"persons of {len(named)} categories: {some}: choose one with --category")
    return named[0] if named else "person"


def _reasons(source):
    """Text with what was left out; empty if nothing was."""
    left_out = "; ".join(f"{count:,} {name}" for name, count in source.left_out.items())
    return f" (left out: {left_out})" if left_out else ""


def _points(points, options):
    """The `Points` to write: those of the source, or those that --joints names."""
    names = tuple(name.strip() for name in options.joints or points.joints)
    for name in names:
        if not name:
            raise InputError("a joint has an empty name: give each joint a name")
        if names.count(name) > 1:
            raise InputError(f"the joint name {name!r} occurs {names.count(name)} times: give each joint its own name")
    if not names:
        raise InputError("no labelled point has a name, so there are no joints: nothing was written")
    bones = bones_between(names, [(points.joints[a], points.joints[b]) for a, b in points.bones])
    return Points(names, bones, points.flip_idx if names == points.joints else None)


class _Builder:
    """Adds photos to a `coco_builder.Collection`."""

    def __init__(self, source, options, category, points, images):
        self.source = source
        self.options = options
        self.category = category
        self.points = points
        self.images = images
        self.collection = coco_builder.Collection(points, category, points.flip_idx)
        self._index = {name: k for k, name in enumerate(points.joints)}
        # Name in the image folder -> first name in the source.
        self._names = {}
        self._missing = []
        self._persons = 0

    def add(self, photo):
        """Adds a `Photo`, if it has a person of the category."""
        persons = []
        for person in photo.persons:
            if person.category in ("", self.category):
                persons.append(person)
            else:
                self.source.left_out[f"persons of category {person.category!r}"] += 1
        if not persons:
            self.source.left_out["images without a person"] += 1
            return
        name = self.images.find(photo.names)
        if name is None:
            self._missing.append(photo)
            return
        if name in self._names:
            raise InputError(
                f"{photo.where}: {self.images.path}/{name} is the image of two entries, {self._names[name]} and "
                f"{photo.names[0]}: give with --images the folder in which both have their own file"
            )
        self._names[name] = photo.names[0]
        size = self.images.size(name, photo, self.source)
        number = len(self._names)
        added = [self._add_person(person, number, size, photo.relative) for person in persons]
        if any(added):
            self.collection.add_image(number, name, size)
        else:
            self.source.left_out["images without a person"] += 1

    def _add_person(self, person, image_id, size, relative):
        """Adds a `Person`; returns whether it was added."""
        scale = np.array(size if relative else (1, 1), np.float64)
        offset = self.source.pixel_offset if self.options.pixel_offset is None else self.options.pixel_offset
        raw, flags = np.zeros((len(self.points.joints), 2)), np.zeros(len(self.points.joints), int)
        for name, (x, y, flag) in person.joints.items():
            if name not in self._index:
                self.source.left_out[f"points {name!r}, which --joints does not name"] += 1
                continue
            raw[self._index[name]], flags[self._index[name]] = np.array([x, y]) * scale, flag
        points = raw + offset
        usable = self.collection.usable_flags(raw, flags, size)
        box = person.box and [round(float(value), 3) for value in np.array(person.box) * np.tile(scale, 2)]
        if box is None or min(box[2:]) <= 0:
            box = coco_builder.box_of_joints(points, usable, size, self.options.margin)
        if box is None:
            self.source.left_out["persons without a box and with too few joints for one"] += 1
            return False
        if box[0] >= size[0] or box[1] >= size[1] or box[0] + box[2] <= 0 or box[1] + box[3] <= 0:
            raise InputError(f"{person.where}: the box {box} is outside its image of {size[0]} x {size[1]} pixels")
        self._persons += 1
        # + 0.0 turns -0.0 into 0.0.
        indices = np.round(geometry.to_indices(points), DECIMALS) + 0.0
        self.collection.add_person(self._persons, image_id, indices, usable, box)
        return True

    def finish(self):
        """Writes the file; returns lines of text.

        Raises:
            InputError: images are missing, unless they are skipped; there are no persons.
        """
        if self._missing:
            total, first = len(self._missing) + len(self._names), self._missing[0]
            text = f"{len(self._missing):,} of {total:,} images are missing; the first is {first.names[0]}"
            if not self._names:
                raise InputError(f"{self.images.path}: {text} ({first.where}): give their folder with --images")
            if self.options.on_missing == "stop":
                raise InputError(
                    f"{self.images.path}: {text} ({first.where}): add them, or leave them out with --on_missing=skip"
                )
            self.source.left_out[f"images that are missing, the first is {first.names[0]}"] += len(self._missing)
        what = f"labels of {self.options.format}, {os.path.basename(os.path.normpath(self.options.input))}"
        return self.collection.write(self.options.output, what)
