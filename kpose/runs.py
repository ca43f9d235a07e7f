"""What a training run leaves in its folder, and how to get its network back.

config.json      the recipe
mean_pose.json   the training set's mean pose
checkpoints/     weights and everything else that the next step depends on
base/            of a cascade: the recipe of the stage before, and the errors measured of it
"""

import os

import numpy as np

from kpose import checkpoints, files, losses, models, runtime, skeletons
from kpose import config as config_lib
from kpose.errors import InputError

CONFIG_FILE = "config.json"
MEAN_POSE_FILE = "mean_pose.json"
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


def copy_base(config, workdir):
    """Copies into a new cascade's folder the recipes of the stages before, so that it needs their folders no more.

    Raises:
        InputError: `config.model.base` holds no run, or one that a stage of this recipe cannot follow.
    """
    base = config.model.base
    saved = load_config(base)
    checkpoints.latest(base)
    for field in ("skeleton", "data.padding"):
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
    outputs = losses.build(config.loss).outputs
    network = models.build(config.model, skeletons.get(config.skeleton), outputs, synchronized, base)
    if begin:
        models.load_weights(network, config.model)
    return network


def load_network(workdir, config):
    """The network of a run with the weights of its newest checkpoint, in float32.

    Returns:
        (network, path of the checkpoint).
    """
    checkpoint = checkpoints.latest(workdir)
    with runtime.dtype_policy("float32"):
        network = build_network(config, workdir)
    checkpoints.restore_network(network, checkpoint, averaged=config.optimizer.ema > 0)
    return network, checkpoint
