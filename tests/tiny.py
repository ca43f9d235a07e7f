"""A small rendered data set and a small recipe, for tests of training and what follows it."""

import os

from kpose import config as config_lib
from tests import helpers
from tfrecords_tools.figures import dataset
from tfrecords_tools.write_coco import writer


def make_records(folder, split, num_images):
    """Renders images and writes their records; returns (glob of the records, annotation file)."""
    annotations = dataset.render_dataset(folder, num_images, seed=5, split=split, workers=1)
    images, output_dir = os.path.join(folder, "images", split), os.path.join(folder, "records")
    writer.write_records(helpers.options(annotations, images, output_dir, split=split, crop_size=(48, 48)))
    return os.path.join(output_dir, f"{split}-*"), annotations


# A small version of the published network, with dropout: `make_recipe(..., **DEEPPOSE)`.
DEEPPOSE = {
    "model__name": "deeppose",
    "model__first_stride": 1,
    "model__kernels": (3, 3, 3, 3, 3),
    "model__filters": (4, 4, 4, 4, 4),
    "model__hidden": (16,),
}


def make_recipe(train, val="", **fields):
    """A recipe that trains in seconds; in `fields`, a name has __ instead of the dot."""
    config = config_lib.default()
    config.name = "tiny"
    config.batch_size = 8
    config.precision = "float32"
    config.steps = 6
    config.checkpoint_every = 2
    config.log_every = 2
    config.data.train, config.data.val = train, val
    config.augment.flip = 0.5
    config.model.name = "integral"
    config.model.input_size = (32, 32)
    config.model.filters = (8, 12, 16)
    config.model.head_filters = 8
    config.optimizer.name = "adamw"
    for name, value in fields.items():
        section, _, key = name.rpartition("__")
        (config[section] if section else config)[key] = value
    return config
