"""The models that kpose ships: weights in the package, checked before they are used.

A model `<name>` is `models_shipped/<name>.json` (its recipe, the checksum of its weights and where it comes from) and
`<name>.npz` (one array for each weight, in float16), and `<name>.tflite`, the same network for predictions on CPUs.
"""

import hashlib
import io
import os

import numpy as np

import kpose
from kpose import config as config_lib
from kpose import models
from kpose.core import devices, files, skeletons
from kpose.core.errors import InputError

FOLDER = os.path.join(os.path.dirname(kpose.__file__), "models_shipped")
DEFAULT = "movenet_lightning_v1"


def names():
    """The names of all models that are shipped."""
    there = os.listdir(FOLDER) if os.path.isdir(FOLDER) else ()
    return sorted(name.removesuffix(".json") for name in there if name.endswith(".json"))


def load_network(name=None):
    """(recipe, network in float32) of a shipped model; arguments and errors as for `load`."""
    card, config = read_card(name)
    content = read_checked(card, "npz")
    with devices.dtype_policy("float32"):
        network = models.build(config.model, skeletons.get(config.skeleton), card["outputs"])
    with np.load(io.BytesIO(content)) as arrays:
        network.set_weights([arrays[key].astype(np.float32) for key in sorted(arrays.files)])
    return config, network


def load_mean_pose(name):
    """The mean pose of what a shipped model was trained on: [K, 2] normalised."""
    card, _ = read_card(name)
    return np.asarray(card["mean_pose"], np.float32)


def read_card(name):
    """(card, recipe) of a shipped model."""
    name = name or DEFAULT
    if name not in names():
        raise InputError(f"no model is called {name!r}: there are {', '.join(names()) or 'none'}")
    card = files.read_json(os.path.join(FOLDER, f"{name}.json"), "card of a shipped model")
    config = config_lib.from_fields(card["recipe"])
    # What it began with matters no more.
    config.model.weights = ""
    return card, config


def read_checked(card, suffix):
    """The bytes of one of a model's files, if they are those that the card tells of."""
    path = os.path.join(FOLDER, f"{card['name']}.{suffix}")
    try:
        with open(path, "rb") as file:
            content = file.read()
    except FileNotFoundError:
        raise InputError(f"{path}: missing: install kpose again") from None
    if hashlib.sha256(content).hexdigest() != card["sha256"][suffix]:
        raise InputError(f"{path}: damaged (its checksum is not that of {card['name']}.json): install kpose again")
    return content
