"""The Keras networks and recipes of the models that kpose ships (`kpose.runs.shipped_files`)."""

import io

import numpy as np

from kpose import config as config_lib
from kpose import models
from kpose.core import devices, skeleton_files
from kpose.models import calibration
from kpose.models.weights import sources
from kpose.runs import shipped_files


def load(name=None):
    """Returns the recipe, `Skeleton`, Keras network and mean pose of a shipped model.

    Args:
        name: one of `shipped_files.names()`; None: the default model.

    Returns:
        (recipe, `Skeleton`, `keras.Model` in float32, the mean pose of the training set: [K, 2]
        float32, normalised).

    Raises:
        InputError: the model does not exist, or its files are damaged.
    """
    card, config = read_card(name)
    # Older cards have a name in the recipe only.
    skeleton = skeleton_files.of_saved(card.get("skeleton", config.skeleton))
    content = shipped_files.read_checked(card, "npz")
    with devices.dtype_policy("float32"):
        network = models.build(config.model, skeleton, card["outputs"])
    with np.load(io.BytesIO(content)) as arrays:
        network.set_weights([arrays[key].astype(np.float32) for key in sorted(arrays.files)])
    return config, skeleton, network, np.asarray(card["mean_pose"], np.float32)


def load_calibration(name=None):
    """Returns the `Calibration` of a shipped model; None: its scores are not calibrated.

    Raises:
        InputError: the model does not exist, or its card is damaged.
    """
    card = shipped_files.read_card(name)
    return calibration.of_fields(card.get("calibration"), f"{card['name']}.json")


def read_card(name):
    """Returns the card, a dict, and the recipe of a shipped model.

    Args:
        name: one of `shipped_files.names()`; None: the default model.

    Raises:
        InputError: the model does not exist, or its card is damaged.
    """
    card = shipped_files.read_card(name)
    config = config_lib.from_fields(card["recipe"])
    # Cards of older versions lack the field: there the name of the initial weights decides.
    if config.model.preprocessing == "auto":
        config.model.preprocessing = sources.preprocessing(config.model.weights)
    # The initial weights are not needed any more.
    config.model.weights = ""
    return card, config
