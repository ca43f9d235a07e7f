"""The persons of an evaluation, with the crops that the network sees: stored crops, or cut from images.

A record stores the crop as JPEG, often with more of the image around it. So the network sees pixels
that were compressed once more and resampled twice. A user's predictions use the pixels of the
image. `StoredCrops` and `ImageCrops` give the same batches from the two sources.
"""

import itertools

import numpy as np
import tensorflow as tf
from absl import logging

from kpose.core import geometry, limits
from kpose.core.errors import InputError
from kpose.data import pipeline, records, resampling
from kpose.data.image_files import ImageFolder
from kpose.evaluate import summary
from kpose.metrics import bootstrap

BATCH_SIZE = 64


class StoredCrops:
    """The persons of records, with the crops that are stored in them.

    Args:
        files: `records.RecordFiles`.
        config: the recipe.

    Attributes:
        pixels: where the pixels come from, for metrics.json.
        image: [N] the number of each person's image (`bootstrap.number_images`).

    Iterating yields the batches of `pipeline.evaluation_batches` with the annotations (`identity`).

    Raises:
        InputError: as `pipeline.evaluation_batches`.
    """

    def __init__(self, files, config):
        self.pixels = summary.STORED
        self._files = files
        self._batches = pipeline.evaluation_batches(config, files, BATCH_SIZE, identity=True)
        self.image = persons_of_records(files)["image"]

    def __len__(self):
        return len(self._batches)

    def __iter__(self):
        with records.reading(self._files):
            yield from self._batches

    def read(self, numbers):
        """{number: crop [H, W, 3] uint8} of the persons with these numbers."""
        return find_crops(self._batches, numbers)


def find_crops(batches, numbers):
    """{number: crop [H, W, 3] uint8} of the persons with these numbers, from batches in order."""
    wanted, crops, start = {int(number) for number in numbers}, {}, 0
    for batch in batches:
        size = len(batch["image"])
        for number in wanted.intersection(range(start, start + size)):
            crops[number] = np.asarray(batch["image"][number - start])
        start += size
        if len(crops) == len(wanted):
            break
    return crops


class ImageCrops:
    """Persons with crops cut from the images themselves, as predictions cut them.

    The persons are ordered by image, so that each image is decoded once.

    Args:
        folder: folder or .zip file of the images.
        persons: from `persons_of_records` or `persons_of_labels`.
        config: the recipe: the input size, padding and aspect of the crops.

    Attributes:
        pixels, image: as for `StoredCrops`.

    Iterating yields batches as those of `StoredCrops`, with the further column `inside` [B] bool:
    whether the person's box overlaps the image. As in predictions, other persons get scores of 0.

    Raises:
        InputError: the folder or some of the images do not exist, or a box is too far away. While
            iterating: an image is damaged, or has another size than its labels were made for.
    """

    def __init__(self, folder, persons, config):
        self.pixels = folder
        self._folder = ImageFolder(folder)
        self._size = tuple(config.model.input_size)
        order = np.argsort(persons["image"], kind="stable")
        self._persons = {name: np.asarray(values)[order] for name, values in persons.items()}
        self._names = self._persons.pop("file_name")
        self._image_sizes = self._persons.pop("image_size")
        self.image = self._persons.pop("image")
        self._check()
        boxes = tf.constant(self._persons["box"], tf.float32)
        self._persons["region"] = geometry.region_of(boxes, config.data.padding, config.data.aspect).numpy()

    def _check(self):
        missing = [name for name in dict.fromkeys(self._names) if name not in self._folder]
        if missing:
            raise InputError(
                f"{self.pixels}: {len(missing)} of {self.image[-1] + 1} images are not there, such as {missing[0]}: "
                "give the folder or .zip file that contains the images of these persons"
            )
        far = np.flatnonzero(~(np.abs(self._persons["box"]) <= limits.FARTHEST).all(1))
        if len(far):
            number = self._persons["annotation_id"][far[0]]
            raise InputError(f"annotation {number}: its box {limits.TOO_FAR}")

    def __len__(self):
        return -(-len(self.image) // BATCH_SIZE)

    def __iter__(self):
        count = len(self.image)
        size = min(BATCH_SIZE, count)
        crops = self._cut_all(range(count))
        for start in range(0, count, size):
            end = min(start + size, count)
            images, inside = zip(*(found for _, found in itertools.islice(crops, end - start)), strict=True)
            batch = {name: values[start:end] for name, values in self._persons.items()}
            points = geometry.normalise(batch["truth"][..., :2], batch["region"]) * (batch["truth"][..., 2:] > 0)
            batch["keypoints"] = np.concatenate([points, batch["truth"][..., 2:]], -1).astype(np.float32)
            batch |= {"image": np.stack(images), "inside": np.array(inside), "weight": np.ones(end - start, np.float32)}
            # Equal shapes, so that the prediction is traced once.
            yield {
                name: np.pad(values, [(0, size - len(values))] + [(0, 0)] * (values.ndim - 1))
                for name, values in batch.items()
            }

    def read(self, numbers):
        """{number: crop [H, W, 3] uint8} of the persons with these numbers."""
        return {number: crop for number, (crop, _) in self._cut_all(sorted({int(number) for number in numbers}))}

    def _cut_all(self, numbers):
        """Yields (number, (crop [H, W, 3] uint8, whether the box overlaps the image))."""
        for _, group in itertools.groupby(numbers, key=lambda number: self.image[number]):
            group = list(group)
            image = self._decode(group[0])
            crops = _cut(tf.constant(image), tf.constant(self._persons["region"][group]), self._size).numpy()
            x, y, w, h = self._persons["box"][group].T
            inside = (x < image.shape[1]) & (y < image.shape[0]) & (x + w > 0) & (y + h > 0)
            yield from zip(group, zip(crops, inside, strict=True), strict=True)

    def _decode(self, number):
        """The image of a person, [H, W, 3] uint8: as stored, or turned if the labels fit that."""
        name, (height, width) = self._names[number], self._image_sizes[number]
        image = self._folder.open(name)
        if height and width:
            image.check_size(width, height)
        return np.array(image.decode())


@tf.function(autograph=False, reduce_retracing=True)
def _cut(image, regions, size):
    """Crops [N, *size, 3] uint8 of regions [N, 4] in one image [H, W, 3] uint8."""
    return tf.map_fn(
        lambda region: resampling.crop_image(image, region, size),
        regions,
        fn_output_signature=tf.TensorSpec((*size, 3), tf.uint8),
        parallel_iterations=4,
    )


def persons_of_records(files):
    """The persons of records, in order; the crops are not decoded.

    Args:
        files: `records.RecordFiles`.

    Returns:
        dict of columns: `image_id`, `annotation_id` [N] int64, `file_name` [N] str, `image_size`
        [N, 2] int64 (height, width; 0: not known), `box` [N, 4] xywh and `truth` [N, K, 3] in
        original pixels, `area` [N], and `image` [N], the number of the person's image. Images are
        told apart by id and file name: the records may come from several sources, and each numbers
        its images.
    """
    parts = []
    dataset = tf.data.TFRecordDataset(files.paths).batch(512)
    with records.reading(files):
        for serialised in dataset:
            parts.append(records.parse_labels(serialised, files))
    columns = {name: np.concatenate([part[name].numpy() for part in parts]) for name in parts[0]}
    keypoints, visibility = columns.pop("keypoints"), columns.pop("visibility")
    columns["truth"] = np.concatenate([keypoints, visibility[..., None]], -1)
    columns["file_name"] = np.array([name.decode() for name in columns["file_name"].tolist()])
    names = ("image_id", "annotation_id", "file_name", "image_size", "box", "truth", "area")
    number = bootstrap.number_images(columns["image_id"].tolist(), columns["file_name"].tolist())
    return {name: columns[name] for name in names} | {"image": number}


def persons_of_labels(labels):
    """All labelled persons of an annotation file; no crowds, and no persons without a box.

    Args:
        labels: `coco_files.Labels`.

    Returns:
        dict of columns, as `persons_of_records`.

    Raises:
        InputError: there is no such person, or its image has no file name.
    """
    persons = [p for p in labels.persons if p.num_labelled and not p.crowd and p.box is not None]
    if not persons:
        raise InputError(f"{labels.path}: no labelled person with a box")
    images = [labels.images[person.image_id] for person in persons]
    unnamed = [image for image in images if image.file_name is None]
    if unnamed:
        raise InputError(f"{labels.path}: image {unnamed[0].source_id!r} has no file name")
    logging.info("%s: %d labelled persons in %d images", labels.path, len(persons), len({i.id for i in images}))
    return {
        "image_id": np.array([image.id for image in images], np.int64),
        "annotation_id": np.array([person.id for person in persons], np.int64),
        "file_name": np.array([image.file_name for image in images]),
        "image_size": np.array([(image.height or 0, image.width or 0) for image in images], np.int64),
        "box": np.array([person.box for person in persons]),
        "truth": np.array([person.keypoints for person in persons], np.float32),
        "area": np.array([person.area for person in persons], np.float32),
        "image": bootstrap.number_images([image.id for image in images]),
    }
