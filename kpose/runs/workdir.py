"""What a training run leaves in its folder, and how to get its network back.

config.json      the recipe
starts.json      when it was started, by which command, code and packages
mean_pose.json   the training set's mean pose
checkpoints/     weights and everything else that the next step depends on
base/            of a cascade: the recipe of the stage before, and the errors measured of it
"""

import csv
import dataclasses
import datetime
import importlib.metadata
import os
import platform
import subprocess
import sys

import keras
import numpy as np

import kpose
from kpose import config as config_lib
from kpose import models
from kpose.core import devices, files, skeletons
from kpose.core.errors import InputError
from kpose.models.layers import OUTPUTS_OF_LOSS
from kpose.runs import checkpoints, shipped

CONFIG_FILE = "config.json"
MEAN_POSE_FILE = "mean_pose.json"
STARTS_FILE = "starts.json"
# Of these the numbers of a run depend.
PACKAGES = ("tensorflow", "keras", "keras-cv", "numpy", "numba", "ml_collections")
BASE_FOLDER = "base"


def load_config(workdir):
    """The recipe of a run.

    Raises:
        InputError: the folder holds no run.
    """
    return config_lib.load(os.path.join(workdir, CONFIG_FILE))


def load_mean_pose(workdir):
    """The training set's mean pose of a run: [K, 2] normalised."""
    saved = files.read_json(os.path.join(workdir, MEAN_POSE_FILE), "mean pose of a training run")
    return np.asarray(saved["mean_pose"], np.float32)


def note_start(workdir):
    """Adds to starts.json what is being run: time, command, code and package versions."""
    path = os.path.join(workdir, STARTS_FILE)
    starts = files.read_json(path, "list of starts") if os.path.exists(path) else []
    versions = {"python": platform.python_version(), "kpose": kpose.__version__, "commit": _commit()}
    versions |= {name: importlib.metadata.version(name) for name in PACKAGES}
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    files.write_json(path, [*starts, {"time": now, "command": sys.argv, "versions": versions}])


def _commit():
    """The commit of the checkout that the code is from, with a + where it was changed; None where it is no checkout."""
    folder = os.path.dirname(os.path.dirname(os.path.abspath(kpose.__file__)))
    try:
        command = ["git", "-C", folder, "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def copy_base(config, workdir):
    """Copies into a new cascade's folder the recipes of the stages before, so that it needs their folders no more.

    Raises:
        InputError: `config.model.base` holds no run, or one that a stage of this recipe cannot follow.
    """
    base = config.model.base
    saved = load_config(base)
    checkpoints.latest(base)
    for field in ("skeleton", "data.padding", "data.aspect"):
        ours, theirs = config_lib.flatten(config)[field], config_lib.flatten(saved)[field]
        if ours != theirs:
            raise InputError(f"config.{field} is {ours!r}, but the stage before, {base}, has {theirs!r}: take the same")
    source, target = base, os.path.join(workdir, BASE_FOLDER)
    while True:
        os.makedirs(target, exist_ok=True)
        config_lib.save(load_config(source), os.path.join(target, CONFIG_FILE))
        source, target = os.path.join(source, BASE_FOLDER), os.path.join(target, BASE_FOLDER)
        if not os.path.isdir(source):
            return


def build_network(config, workdir, synchronized=False, begin=False):
    """The network of a run, with initial weights, under the current dtype policy.

    Args:
        config: the run's recipe.
        workdir: the run's folder.
        synchronized: BatchNorm over all replicas together.
        begin: for the first step of the training: a cascade's base with the weights of `config.model.base`, a
            backbone with those of `config.model.weights`.
    """
    base = None
    if config.model.name == "cascade":
        folder = os.path.join(workdir, BASE_FOLDER)
        saved = load_config(folder)
        base = build_network(saved, folder)
        if begin:
            checkpoints.restore_network(base, checkpoints.latest(config.model.base), saved.optimizer.ema > 0)
    outputs = OUTPUTS_OF_LOSS.get(config.loss.name, ())
    network = models.build(config.model, skeletons.get(config.skeleton), outputs, synchronized, base)
    if begin:
        _begin(network, config.model)
    return network


def _begin(network, config):
    """Sets the weights that `config.weights` names: a run's, a shipped model's, or those of a file."""
    if not (os.path.isdir(config.weights) or _is_shipped(config.weights)):
        models.load_weights(network, config)
        return
    theirs = load_trained(config.weights).network
    shapes, wanted = ([tuple(v.shape) for v in n.variables] for n in (theirs, network))
    if shapes != wanted:
        raise InputError(
            f"config.model.weights is {config.weights!r}, a {theirs.name} of {len(shapes)} arrays, which are not "
            f"those of this recipe's {network.name} ({len(wanted)}): take a run of the same network"
        )
    network.set_weights(theirs.get_weights())


def load_network(workdir, config, best=False):
    """The network of a run with the weights of its newest checkpoint, or of the best one, in float32.

    Returns:
        (network, path of the checkpoint).
    """
    checkpoint = checkpoints.latest(workdir, best)
    with devices.dtype_policy("float32"):
        network = build_network(config, workdir)
    checkpoints.restore_network(network, checkpoint, averaged=config.optimizer.ema > 0)
    return network, checkpoint


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained network and what belongs to it.

    Attributes:
        config: its recipe.
        network: in float32.
        mean_pose: [K, 2] normalised, of the training set.
        origin: the checkpoint's path, or the name of the shipped model.
        folder: the run's folder; None for a shipped model.
    """

    config: object
    network: keras.Model
    mean_pose: np.ndarray
    origin: str
    folder: str | None


def _is_shipped(source):
    return source in shipped.names() and not os.path.exists(source)


def load_trained(source, best=False):
    """A trained network: of a run, from its newest checkpoint, or of a model that kpose ships.

    Args:
        source: folder of the training run, or one of `shipped.names()`.
        best: of a run, the checkpoint with the best validation score.

    Raises:
        InputError: neither the one nor the other, or damaged.
    """
    if _is_shipped(source):
        return Trained(*shipped.load_network(source), shipped.load_mean_pose(source), source, None)
    config = load_config(source)
    network, checkpoint = load_network(source, config, best)
    return Trained(config, network, load_mean_pose(source), checkpoint, source)


HISTORY_FILE = "history.csv"


def read_history(workdir):
    """The rows of a run's history.csv, as dicts of numbers; [] where there is none."""
    path = os.path.join(workdir, HISTORY_FILE)
    if not os.path.exists(path):
        return []
    with open(path, newline="") as file:
        return [
            {name: int(value) if name in ("step", "epoch") else float(value) for name, value in row.items() if value}
            for row in csv.DictReader(file)
        ]


def write_rows(path, rows):
    names = list(dict.fromkeys(name for row in rows for name in row))
    with files.replacing(path) as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
