"""Reads the models that kpose ships; `kpose.export.shipped_model` writes them.

models_shipped/<name>.json    card: recipe, checksums of the other files, mean pose, origin
models_shipped/<name>.npz     weights: one float16 array per weight
models_shipped/<name>.tflite  the same network for predictions on CPUs
"""

import hashlib
import io
import os

import numpy as np

from kpose import config as config_lib
from kpose import models
from kpose.core import devices, files, skeleton_files
from kpose.core.errors import InputError
from kpose.models.weights import sources

# In the folder of the package; `import kpose` would be a cycle, because `kpose.load` reads this.
FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "models_shipped")
DEFAULT = "movenet_lightning_v1"


def names():
    """Returns the names of all shipped models, sorted."""
    found = os.listdir(FOLDER) if os.path.isdir(FOLDER) else ()
    return sorted(name.removesuffix(".json") for name in found if name.endswith(".json"))


def load(name=None):
    """Returns the recipe, `Skeleton`, Keras network and mean pose of a shipped model.

    Args:
        name: one of `names()`; None: the default model.

    Returns:
        (recipe, `Skeleton`, `keras.Model` in float32, the mean pose of the training set: [K, 2]
        float32, normalised).

    Raises:
        InputError: the model does not exist, or its files are damaged.
    """
    card, config = read_card(name)
    skeleton = skeleton_of(card, config)
    content = read_checked(card, "npz")
    with devices.dtype_policy("float32"):
        network = models.build(config.model, skeleton, card["outputs"])
    with np.load(io.BytesIO(content)) as arrays:
        network.set_weights([arrays[key].astype(np.float32) for key in sorted(arrays.files)])
    return config, skeleton, network, np.asarray(card["mean_pose"], np.float32)


def load_network(name=None):
    """Returns the recipe and the Keras network of a shipped model, as `load`."""
    config, _, network, _ = load(name)
    return config, network


def skeleton_of(card, config):
    """Returns the `Skeleton` that a shipped model predicts, from what `read_card` returns."""
    # Older cards have a name in the recipe only.
    return skeleton_files.of_saved(card.get("skeleton", config.skeleton))


def read_card(name):
    """Returns the card, a dict, and the recipe of a shipped model.

    Args:
        name: one of `names()`; None: the default model.

    Raises:
        InputError: the model does not exist, or its card is damaged.
    """
    name = name or DEFAULT
    if name not in names():
        raise InputError(f"unknown model {name!r}: the shipped models are {', '.join(names()) or 'missing'}")
    card = files.read_json(os.path.join(FOLDER, f"{name}.json"), "card of a shipped model")
    config = config_lib.from_fields(card["recipe"])
    # Cards of older versions lack the field: there the name of the initial weights decides.
    if config.model.preprocessing == "auto":
        config.model.preprocessing = sources.preprocessing(config.model.weights)
    # The initial weights are not needed any more.
    config.model.weights = ""
    return card, config


def read_checked(card, suffix):
    """Returns the bytes of a file of a shipped model.

    Args:
        card: the model's card.
        suffix: of the file: "npz" or "tflite".

    Raises:
        InputError: the file is missing, or its checksum is not that of the card.
    """
    path = os.path.join(FOLDER, f"{card['name']}.{suffix}")
    try:
        with open(path, "rb") as file:
            content = file.read()
    except FileNotFoundError:
        raise InputError(f"{path}: missing: install kpose again") from None
    if hashlib.sha256(content).hexdigest() != card["sha256"][suffix]:
        raise InputError(f"{path}: damaged (its checksum is not the one in {card['name']}.json): install kpose again")
    return content
