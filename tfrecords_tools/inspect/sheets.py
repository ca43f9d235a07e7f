"""Statistics and contact sheets of record shards, as stored and augmented."""

import os

import numpy as np
import tensorflow as tf

from kpose.augment import augmentation as augmentation_lib
from kpose.core import geometry
from kpose.core.errors import InputError
from kpose.data import pipeline, records
from kpose.data.training_set import find_training_set, skeleton_of, with_aspect
from kpose.drawing import sheets
from kpose.drawing.persons import draw_skeleton, save_image
from tfrecords_tools.inspect.labels import quartiles

# Augmented versions of each person on a sheet.
VERSIONS = 7


def inspect(pattern, sheet_path, persons=40, seed=0):
    """Statistics of records, and a contact sheet of some of them.

    Args:
        pattern: glob of the record files.
        sheet_path: the PNG file of the sheet.
        persons: number of persons on the sheet.
        seed: seed of the choice of persons.

    Returns:
        Lines of text.

    Raises:
        InputError: no records, damaged records, or records of another schema version.
    """
    files = records.find(pattern)
    skeleton = files.skeleton
    columns, shards = _read_labels(files)
    count = len(columns["area"])
    visibility, box = columns["visibility"], columns["box"]
    shape = f"rectangle of aspect {files.aspect:g} around the " if files.aspect else ""
    lines = [
        f"{pattern}: {count:,} persons of {len(np.unique(columns['image_id'])):,} images in {len(files.paths)} shards, "
        f"{sum(size for _, size in shards.values()) / 1e6:.1f} MB",
        f"skeleton {skeleton.name} ({skeleton.num_joints} joints), crops {files.crop_size[0]} x {files.crop_size[1]} "
        f"pixels of the {shape}box times {files.padding:g}",
        _coordinates(files),
        "box height in pixels: " + quartiles(box[:, 3]) + "; width: " + quartiles(box[:, 2]),
        f"fully visible: {(visibility == 2).all(1).sum():,} persons",
        "joint               visible  occluded  unlabelled",
    ]
    for index, joint in enumerate(skeleton.joints):
        flags = [100 * (visibility[:, index] == flag).mean() for flag in (2, 1, 0)]
        cells = [f"{share:9.1f}%" for share in flags] if flags[2] < 100 else [f"{'-':>10}"] * 2 + [f"{100:9.1f}%"]
        lines.append(f"  {joint:<16}" + "".join(cells))
    never = [joint for k, joint in enumerate(skeleton.joints) if not (visibility[:, k] > 0).any()]
    if never:
        lines.append(f"warning: no record labels {', '.join(never)}")
    lines += [f"  {os.path.basename(path)}: {n:,} persons, {size / 1e6:.1f} MB" for path, (n, size) in shards.items()]
    with records.reading(files):
        sheet = _contact_sheet(files, count, min(persons, count), seed)
    save_image(sheet_path, sheet)
    return [*lines, f"contact sheet: {sheet_path}"]


def _coordinates(files):
    if files.pixel_offset is None:
        return "joints: as in the file of labels (records of kpose 0.1), taken as pixel indices"
    return f"joints: coordinates of the file of labels plus {files.pixel_offset:g}, in pixels from the corner"


def _read_labels(files):
    """(dict of label name -> array over all records, dict of file -> (persons, bytes))."""
    columns, shards = {}, {}
    for path in files.paths:
        seen = 0
        dataset = tf.data.TFRecordDataset(path).batch(512).map(lambda s: records.parse_labels(s, files))
        with records.reading(files):
            for batch in dataset.as_numpy_iterator():
                seen += len(batch["area"])
                for name in ("image_id", "area", "box", "visibility"):
                    columns.setdefault(name, []).append(batch[name])
        shards[path] = (seen, os.path.getsize(path))
    return {name: np.concatenate(values) for name, values in columns.items()}, shards


def _contact_sheet(files, count, persons, seed):
    chosen = set(np.random.default_rng(seed).choice(count, persons, replace=False).tolist())
    tiles, captions = [], []
    for index, serialised in enumerate(tf.data.TFRecordDataset(files.paths)):
        if index not in chosen:
            continue
        features = records.parse(serialised, files.skeleton)
        image = records.decode_jpeg(features["jpeg"]).numpy()
        region = features["region"].numpy()
        normalised = geometry.normalise(features["keypoints"].numpy(), region)
        tile, points = sheets.unstretch(image, normalised, region)
        tiles.append(draw_skeleton(tile, points, files.skeleton, visibility=features["visibility"].numpy()))
        captions.append(f"{int(features['annotation_id'])}: {region[2]:.0f} x {region[3]:.0f}")
    title = f"{persons} of {count:,} persons"
    return sheets.contact_sheet(
        tiles, columns=min(8, persons), tile_size=192, captions=captions, title=title, skeleton=files.skeleton
    )


def inspect_augmentation(pattern, config, sheet_path, persons=8, seed=0):
    """Draws training samples: a row is one person as stored and in `VERSIONS` augmented versions.

    Args:
        pattern: glob of the record files.
        config: the recipe.
        sheet_path: the PNG file of the sheet.
        persons: number of rows.
        seed: seed of the choice of persons and of the augmentation.

    Returns:
        Lines of text.

    Raises:
        InputError: no records, records that do not fit the recipe, or a recipe without
            augmentation.
    """
    config = config.copy_and_resolve_references()
    config.data.train = pattern
    skeleton = skeleton_of(config)
    if not augmentation_lib.build_augmentation(config, skeleton):
        raise InputError(f"recipe {config.name!r} has no augmentation: set fields of its augment section")
    data = with_aspect(config).data
    training_set = find_training_set(pattern, skeleton, data.padding, aspect=data.aspect, coordinates=data.coordinates)
    augmentation = augmentation_lib.build_augmentation(config, skeleton, training_set.window)
    size = tuple(config.model.input_size)

    def batch(**settings):
        stream = pipeline.shuffled_batches(training_set, input_size=size, batch_size=persons, seed=seed, **settings)
        return next(iter(stream))

    rows = [batch()]
    stored = batch(stored_crops=augmentation.warps)
    for version in range(1, VERSIONS + 1):
        draws = augmentation_lib.draws(seed, tf.constant(version * persons, tf.int64), persons)
        rows.append(augmentation.on_host(stored | {"draws": draws}))
    drawn = [_draw_batch(row, skeleton) for row in rows]
    tiles = [tiles[person] for person in range(persons) for tiles in drawn]
    title = f"{config.name}: as stored, and augmented {VERSIONS} times"
    sheet = sheets.contact_sheet(tiles, columns=VERSIONS + 1, tile_size=192, title=title, skeleton=skeleton)
    save_image(sheet_path, sheet)
    settings = ", ".join(f"{name} {value}" for name, value in config.augment.items() if name != "on")
    return [f"recipe {config.name}: {settings}", f"augmented crops: {sheet_path}"]


def _draw_batch(batch, skeleton):
    """An image of each sample with its labels, in the shape of its region."""
    batch = {name: np.asarray(value) for name, value in batch.items()}
    tiles = []
    for image, keypoints, region in zip(batch["image"], batch["keypoints"], batch["region"], strict=True):
        tile, points = sheets.unstretch(image, keypoints[:, :2], region)
        tiles.append(draw_skeleton(tile, points, skeleton, visibility=keypoints[:, 2]))
    return tiles
