"""The input pipeline: batches of images and labels from record files (tf.data).

A batch is a dict:

    image        [B, H, W, 3] uint8: the region, stretched to the network's input size
    keypoints    [B, K, 3] float32: normalised x, y and the visibility flag; (0, 0, 0) if unlabelled,
                 (0, 0, -1) if the data set of the sample never labels the joint
    region       [B, 4] float32: the region that the image shows, xywh in original pixels
    weight       [B] float32: 1, or 0 for the samples that fill up the last batch of an evaluation
    draws        [B, D] float32 in [0, 1): random numbers for augmentation (training only)
    normals      [B, K, 2] float32, standard normal: displacements for a cascade (cascades only)

Training samples, their order and their random numbers depend only on the seed and the position. A
resumed run therefore gets the same batches as an uninterrupted one, with any number of replicas or
workers. Images are decoded one by one; all other operations run on batches, for speed.
"""

import os

import numpy as np
import tensorflow as tf

from kpose.augment import augmentation
from kpose.augment.augmentation import build_augmentation
from kpose.core.errors import InputError
from kpose.data import records
from kpose.data.crop_cache import CropCache
from kpose.data.resampling import resample
from kpose.data.samples import decode_records
from kpose.data.training_set import (
    PERIOD,
    add_labels,
    check_shape,
    stored_share,
    summarise_labels,
    with_coordinates,
)

# Most record files of a data set that are open at once. An open file has a buffer of 256 KB, and
# systems limit the number of open files, often to 1,024 for a process.
OPEN_FILES = 128


def training_batches(config, training_set, start_step=0, worker=0, workers=1):
    """The training batches of a recipe, augmented if `config.augment.on` is "host".

    Args:
        config: the recipe.
        training_set: its `training_set.TrainingSet`.
        start_step: number of batches that are already consumed.
        worker, workers: as for `shuffled_batches`.

    Returns:
        Endless `tf.data.Dataset` of batches. If `config.augment.on` is "device" and the
        augmentation warps, `image` holds the stored crops, larger than the network's input.

    Raises:
        InputError: `workers` does not divide the batch size, or the cache exceeds the memory.
    """
    augment = build_augmentation(config, training_set.skeleton, training_set.window)
    batches = shuffled_batches(
        training_set,
        input_size=tuple(config.model.input_size),
        batch_size=config.batch_size,
        seed=config.seed,
        start_step=start_step,
        shuffle_buffer=config.data.shuffle_buffer,
        normals=config.model.name == "cascade",
        stored_crops=augment.warps,
        cache=CropCache(training_set) if config.data.cache else None,
        worker=worker,
        workers=workers,
    )
    if augment and config.augment.on == "host":
        batches = batches.map(augment.on_host, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
    return batches


def evaluation_batches(config, files, batch_size=None, identity=False, skeleton=None):
    """The batches of an evaluation: every record once, in order.

    Args:
        config: the recipe.
        files: `records.RecordFiles`.
        batch_size: samples per batch, at most the number of records; None: the recipe's batch size.
        identity, skeleton: as for `ordered_batches`.

    Returns:
        `tf.data.Dataset` of known cardinality. Samples of weight 0 fill up the last batch.

    Raises:
        InputError: a record is damaged, or the crops have another aspect or less padding.
    """
    check_shape(files, config.data.aspect)
    files = with_coordinates(files, config.data.coordinates)
    labels = summarise_labels(files, config.data.padding, skeleton)
    num_records = labels.num_records
    return ordered_batches(
        files,
        input_size=tuple(config.model.input_size),
        padding=config.data.padding,
        batch_size=min(batch_size, num_records) if batch_size else config.batch_size,
        num_records=num_records,
        labelled=labels.labelled > 0,
        identity=identity,
        skeleton=skeleton,
    )


def shuffled_batches(
    training_set,
    *,
    input_size,
    batch_size,
    seed,
    start_step=0,
    shuffle_buffer=10_000,
    normals=False,
    stored_crops=False,
    cache=None,
    worker=0,
    workers=1,
):
    """Endless shuffled batches, not augmented.

    Args:
        training_set: `training_set.TrainingSet`.
        input_size: (height, width) of the network's input in pixels.
        batch_size: samples per global batch.
        seed: seed of the order and of the random numbers.
        start_step: number of batches that are already consumed.
        shuffle_buffer: number of encoded records in the shuffle buffer.
        normals: add `normals`.
        stored_crops: return the stored crops, for an augmentation that warps them to the input
            size. They are reduced only if they have many more pixels than the input.
        cache: `CropCache` with the decoded crops; None: decode the records.
        worker: number of this process, from 0.
        workers: number of processes that share each global batch. Each process gets its part of
            every global batch. It reads all records and decodes those of its part.

    Returns:
        `tf.data.Dataset` of batches. A batch may hold the end of one epoch and the next one's start.

    Raises:
        InputError: the batch size is not a multiple of `workers`.
    """
    if batch_size % workers:
        raise InputError(f"config.batch_size {batch_size} cannot be divided among {workers} workers")
    part = batch_size // workers
    samples = _mixed(training_set, seed, start_step * batch_size, shuffle_buffer, cached=cache is not None)
    if workers > 1:
        samples = samples.filter(lambda position, *_: position % batch_size // part == worker)
    size, window = input_size, training_set.window
    if stored_crops:
        size, window = _enough_pixels(training_set.crop_size, input_size, window), 1.0

    def finish(positions, batch):
        batch = batch | {"image": resample(batch["image"], size, window), "weight": tf.ones([part])}
        batch["draws"] = augmentation.draws(seed, positions[0], part)
        if normals:
            batch["normals"] = _normals(seed, positions[0], part, training_set.skeleton.num_joints)
        return batch

    batches = _decoded_batches(samples, training_set, part, cache)
    batches = batches.map(finish, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
    options = tf.data.Options()
    # Own threads: in the pool that a CPU training step uses, the pipeline would wait for the step.
    options.threading.private_threadpool_size = os.cpu_count()
    return batches.with_options(options)


def _decoded_batches(samples, training_set, batch_size, cache):
    """(positions, dict of image, keypoints and region) in batches, decoded or from the cache."""
    if cache is not None:
        return samples.batch(batch_size, drop_remainder=True).map(
            lambda positions, sources, indices: (positions, cache.gather(sources, indices)),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
    return samples.batch(batch_size, drop_remainder=True).map(
        lambda positions, sources, serialised: (positions, decode_records(training_set, sources, serialised)),
        # Each call decodes on all cores. The second one fills the gaps between two calls.
        num_parallel_calls=2,
    )


def batch_members(config, training_set, step):
    """The persons of one batch of `training_batches`.

    Args:
        config: the recipe.
        training_set: its `training_set.TrainingSet`.
        step: number of the batch, from 0.

    Returns:
        List of (file name of the image, annotation id).
    """
    members = []
    first = step * config.batch_size
    samples = _mixed(training_set, config.seed, first, config.data.shuffle_buffer, cached=False)
    for _, source, serialised in samples.take(config.batch_size):
        person = records.parse(serialised, training_set.files[int(source)].skeleton, image=False)
        members.append((person["file_name"].numpy().decode(), int(person["annotation_id"])))
    return members


def _mixed(training_set, seed, first, shuffle_buffer, cached):
    """The training samples from position `first` on.

    Returns:
        `tf.data.Dataset` of (position, index of the data set, serialised record). If `cached`, the
        third element is the index of the record in its data set.
    """
    taken = training_set.taken(first)
    streams, before = [], 0
    for source, files in enumerate(training_set.files):
        of_files = training_set.labels.counts[before : before + len(files.paths)]
        before += len(files.paths)
        streams.append(_shuffled(files.paths, of_files, seed + source, int(taken[source]), shuffle_buffer, cached))
    positions = tf.data.Dataset.range(first, np.iinfo(np.int64).max)
    if len(streams) == 1:
        sources = tf.data.Dataset.from_tensors(tf.constant(0, tf.int64)).repeat()
        return tf.data.Dataset.zip(positions, sources, streams[0])
    mixture = tf.constant(training_set.mixture, tf.int64)
    sources = positions.map(lambda position: tf.gather(mixture, position % PERIOD))
    mixed = tf.data.Dataset.choose_from_datasets(streams, sources, stop_on_empty_dataset=False)
    return tf.data.Dataset.zip(positions, sources, mixed)


def _shuffled(paths, counts, seed, first, shuffle_buffer, cached):
    """The records of one data set, epoch after epoch, from number `first` on.

    All files are read at the same time, each at a rate in proportion to its records. So every part
    of an epoch holds records of every file, even if the shuffle buffer is small. More than
    `OPEN_FILES` files are read in `OPEN_FILES` lanes, and each lane reads one file after another.

    If `cached`, the indices of the records in the data set, in the same order.
    """
    total, lanes = sum(counts), min(len(paths), OPEN_FILES)
    starts = tf.constant(np.cumsum([0, *counts[:-1]]), tf.int64)
    sizes = tf.constant(counts, tf.int64)
    names = tf.constant(list(paths))
    # An element that is no record.
    gap = tf.constant(-1, tf.int64) if cached else tf.constant("")

    def epoch_records(epoch):
        # A shuffle depends on the seed of its graph, which is otherwise the caller's global seed.
        tf.random.set_seed(seed + 1)
        key = tf.stack([seed, epoch])
        order = tf.random.experimental.stateless_shuffle(tf.range(len(paths)), seed=key)
        lane_sizes = tf.math.unsorted_segment_sum(tf.gather(sizes, order), tf.range(len(paths)) % lanes, lanes)
        # Lanes of very different sizes would need too many gaps: at most three for each record.
        rounds = tf.minimum(tf.reduce_max(lane_sizes), 4 * -(-total // lanes))
        shifts = tf.random.stateless_uniform([lanes], key, 0, rounds, tf.int64)

        def read(lane):
            files = order[lane::lanes]
            begin, size = tf.gather(starts, files), tf.gather(sizes, files)
            if cached:
                found = tf.data.Dataset.from_tensor_slices(tf.ragged.range(begin, begin + size).flat_values)
            else:
                found = tf.data.TFRecordDataset(tf.gather(names, files))
            gaps = tf.data.Dataset.from_tensors(gap).repeat()
            turns = tf.data.Dataset.from_tensor_slices(_turns(lane_sizes[lane], rounds, shifts[lane]))
            return tf.data.Dataset.choose_from_datasets([gaps, found], turns, stop_on_empty_dataset=False)

        elements = tf.data.Dataset.range(lanes).interleave(
            read, cycle_length=lanes, block_length=1, num_parallel_calls=min(4, lanes), deterministic=True
        )
        # Gaps are removed from many elements at once: `filter` calls its function for each.
        elements = elements.batch(256).map(lambda some: tf.boolean_mask(some, tf.not_equal(some, gap))).unbatch()
        return elements.shuffle(min(shuffle_buffer, total), seed=epoch)

    epochs = tf.data.Dataset.range(first // total, np.iinfo(np.int64).max)
    return epochs.flat_map(epoch_records).skip(first % total)


def _turns(count, rounds, shift):
    """The rounds in which a lane gives a record: spread evenly over all rounds.

    Args:
        count: number of records of the lane, int64.
        rounds: number of rounds, int64. A lane of more records gives one in each of `count` rounds.
        shift: int64 in [0, rounds): record j is in round (j * rounds + shift) // count.

    Returns:
        [max(rounds, count)] int64: 1 in a round with a record, else 0.
    """
    rounds = tf.maximum(rounds, count)
    with_record = (tf.range(count) * rounds + shift) // tf.maximum(count, 1)
    return tf.math.unsorted_segment_sum(tf.ones_like(with_record), with_record, rounds)


def _normals(seed, position, count, joints):
    """[count, joints, 2] float32 standard normal numbers of the samples from `position` on."""
    rows = augmentation.numbered(tf.raw_ops.StatelessRandomNormalV2, ~seed, position, count, 2 * joints)
    return tf.reshape(rows, [count, joints, 2])


def _enough_pixels(stored, input_size, window):
    """(height, width) of the crops that a warp samples.

    Crops much larger than the input are reduced first, because bilinear sampling would alias.
    """
    return tuple(
        round(side / window) if stored_side * window > 1.5 * side else stored_side
        for stored_side, side in zip(stored, input_size, strict=True)
    )


def ordered_batches(
    files, *, input_size, padding, batch_size, num_records, labelled=None, identity=False, skeleton=None
):
    """Every record once, in order. Samples of weight 0 fill up the last batch.

    Args:
        files: `records.RecordFiles`.
        input_size: (height, width) of the network's input in pixels.
        padding: factor by which the box is enlarged for the network's input.
        batch_size: samples per batch.
        num_records: number of records in `files`.
        labelled: as for `training_set.add_labels`.
        identity: add the annotations: `image_id` and `annotation_id` [B] int64, `box` [B, 4]
            float32 xywh and `truth` [B, K, 3] float32, both in original pixels, `area` [B] float32.
        skeleton: the `Skeleton` of `keypoints`; None: that of the files.

    Returns:
        `tf.data.Dataset` of known cardinality.
    """
    window = stored_share(files, padding)

    def decode(serialised):
        features = records.parse(serialised, files.skeleton)
        labels = add_labels(features, files, skeleton or files.skeleton, padding, labelled)
        sample = {
            "image": tf.ensure_shape(records.decode_jpeg(features["jpeg"]), [*files.crop_size, 3]),
            "keypoints": labels["keypoints"],
            "region": labels["region"],
            "weight": tf.constant(1.0),
        }
        if identity:
            sample |= {key: features[key] for key in ("image_id", "annotation_id", "box", "area")}
            sample["truth"] = tf.concat([features["keypoints"], labels["keypoints"][..., 2:]], -1)
        return sample

    def finish(batch):
        batch = {name: _filled(value, batch_size) for name, value in batch.items()}
        return batch | {"image": resample(batch["image"], input_size, window)}

    dataset = tf.data.TFRecordDataset(files.paths).map(decode, num_parallel_calls=tf.data.AUTOTUNE)
    dataset = dataset.batch(batch_size).map(finish, num_parallel_calls=tf.data.AUTOTUNE)
    batches = -(-num_records // batch_size)
    return dataset.apply(tf.data.experimental.assert_cardinality(batches)).prefetch(tf.data.AUTOTUNE)


def _filled(value, batch_size):
    """A tensor [b, ...], filled up with zeros to [batch_size, ...]."""
    missing = batch_size - tf.shape(value)[0]
    filled = tf.pad(value, tf.concat([[[0, missing]], tf.zeros([tf.rank(value) - 1, 2], tf.int32)], 0))
    return tf.ensure_shape(filled, [batch_size, *value.shape[1:]])
