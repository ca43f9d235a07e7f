"""The folder of a training run, and how to load its network.

config.json      the recipe
starts.json      for each start: time, command, code and package versions (`kpose.runs.starts`)
records.json     sizes and checksums of the records
mean_pose.json   the training set's mean pose
skeleton.json    the joints that the network predicts
history.csv      the metrics of each epoch
checkpoints/     weights and all other state that the next step depends on
base/            for a cascade: the recipe of the previous stage and its measured errors
calibration.json the calibration of the scores, if there is one (`kpose.runs.calibrations`)
"""

import csv
import dataclasses
import functools
import os

import keras
import numpy as np
from absl import logging

from kpose import config as config_lib
from kpose import models
from kpose.core import devices, files, skeleton_files, skeletons
from kpose.core.errors import InputError, first_line
from kpose.models import folding
from kpose.models.calibration import Calibration
from kpose.models.layers import OUTPUTS_OF_LOSS
from kpose.models.weights import sources
from kpose.runs import calibrations, carry_over, checkpoints, shipped, shipped_files

CONFIG_FILE = "config.json"
MEAN_POSE_FILE = "mean_pose.json"
SKELETON_FILE = "skeleton.json"
BASE_FOLDER = "base"
HISTORY_FILE = "history.csv"


def load_config(workdir):
    """The recipe of a run, with `model.preprocessing` and `loss.weighting` other than "auto".

    Raises:
        InputError: the folder holds no run.
    """
    config = config_lib.load(os.path.join(workdir, CONFIG_FILE))
    # Runs of older versions lack these fields. In them the name of the initial weights decided the
    # preprocessing, and RLE had one weighting.
    if config.model.preprocessing == "auto":
        config.model.preprocessing = sources.preprocessing(config.model.weights)
    if config.loss.weighting == "auto":
        config.loss.weighting = "kpose_0.1"
    return config


def resolve_preprocessing(config, workdir=None):
    """A copy of a recipe with `config.model.preprocessing` resolved to "keras" or "torchvision".

    If `workdir` holds checkpoints, "auto" becomes the preprocessing of that run. Otherwise
    `config.model.weights` decides: for a run or a shipped model, the preprocessing of that model;
    for a PyTorch file or package, "torchvision"; for anything else, "keras".

    Args:
        config: the recipe; it is not changed.
        workdir: the run's folder; it need not exist.

    Raises:
        InputError: `config.model.weights` is a folder that holds no run, or for a network without
            published weights no folder.
    """
    resolved, weights = config.copy_and_resolve_references(), config.model.weights
    if config.model.preprocessing != "auto":
        return resolved
    if checkpoints.exist(workdir) and os.path.exists(os.path.join(workdir, CONFIG_FILE)):
        choice = load_config(workdir).model.preprocessing
    elif config.model.name != "backbone":
        # The field has no effect.
        choice = "keras"
        if config.model.name != "movenet" and weights and not is_trained(weights):
            models.load_weights(None, config.model)
    elif os.path.isdir(weights):
        choice = load_config(weights).model.preprocessing
    elif shipped_files.is_shipped(weights):
        choice = shipped.read_card(weights)[1].model.preprocessing
    else:
        choice = sources.preprocessing(weights)
    resolved.model.preprocessing = choice
    return resolved


def resolve_recipe(config, workdir):
    """A copy of a recipe with the choices that a run of kpose 0.1 in the folder has made.

    - `config.model.preprocessing`: as `resolve_preprocessing`.
    - `config.loss.weighting`: "auto" becomes that of the run, or "authors" for a new run.
    - `config.data.coordinates` becomes that of the run: it continues with its labels.

    Args:
        config: the recipe; it is not changed.
        workdir: the run's folder; it need not exist.
    """
    resolved = resolve_preprocessing(config, workdir)
    begun = os.path.exists(os.path.join(workdir, CONFIG_FILE))
    saved = load_config(workdir) if begun else None
    if resolved.loss.weighting == "auto":
        resolved.loss.weighting = saved.loss.weighting if begun else "authors"
    if begun and checkpoints.exist(workdir) and saved.data.coordinates != resolved.data.coordinates:
        logging.info("%s: its labels are pixel indices, as in kpose 0.1; a new run has continuous coordinates", workdir)
        resolved.data.coordinates = saved.data.coordinates
    return resolved


def load_skeleton(workdir):
    """The `Skeleton` that a run's network predicts.

    Raises:
        InputError: the folder holds no run.
    """
    path = os.path.join(workdir, SKELETON_FILE)
    if os.path.exists(path):
        return skeleton_files.of_saved(files.read_json(path, "skeleton of a training run"))
    # Runs of kpose 0.1 have a name in the recipe only.
    source = load_config(workdir).skeleton
    if source == skeletons.AUTO:
        raise InputError(f"{path}: missing, and with it the joints of the run: copy the whole folder of the run")
    return skeleton_files.find(source)


def check_skeleton(skeleton, workdir):
    """The skeleton of a training, after a comparison with that of a run in the folder.

    Raises:
        InputError: the folder holds a run with other joints.
    """
    if checkpoints.exist(workdir) and os.path.exists(os.path.join(workdir, CONFIG_FILE)):
        saved = load_skeleton(workdir)
        if saved.joints != skeleton.joints:
            raise InputError(
                f"{workdir}: its run has the skeleton {saved.name!r} ({saved.num_joints} joints), but the records have "
                f"{skeleton.name!r} ({skeleton.num_joints}): use another --workdir, or the run's own records"
            )
        return saved
    return skeleton


def load_mean_pose(workdir):
    """[K, 2] float32 normalised mean pose of a run's training set.

    Raises:
        InputError: the file is missing or damaged.
    """
    path = os.path.join(workdir, MEAN_POSE_FILE)
    saved = files.read_json(path, "mean pose of a training run")
    try:
        pose = np.asarray(saved["mean_pose"], np.float32)
    except (KeyError, TypeError, ValueError, OverflowError):
        pose = np.zeros(0)
    if pose.ndim != 2 or pose.shape[1] != 2 or not np.isfinite(pose).all():
        raise InputError(f"{path}: damaged: it holds no mean pose (x and y of each joint): copy the run again")
    return pose


def copy_base(config, workdir, skeleton=None):
    """Copies the recipes of the previous stages into the folder of a new cascade.

    After the first start, the cascade no longer needs their folders.

    Args:
        config: the recipe of the cascade.
        workdir: its folder.
        skeleton: the `Skeleton` that it learns; None: it is not compared.

    Raises:
        InputError: `config.model.base` holds no run, its skeleton or aspect differ, or its padding is
            larger.
    """
    base = config.model.base
    saved = load_config(base)
    checkpoints.latest(base)
    if config.data.aspect != saved.data.aspect:
        raise InputError(
            f"config.data.aspect is {config.data.aspect:g}, but it is {saved.data.aspect:g} in the previous stage, "
            f"{base}: set the same value"
        )
    if skeleton is not None and load_skeleton(base).joints != skeleton.joints:
        raise InputError(
            f"the skeleton is {skeleton.name!r}, but {load_skeleton(base).name!r} in the previous stage, {base}: its "
            "joints must be the same"
        )
    if config.data.padding < saved.data.padding:
        raise InputError(
            f"config.data.padding is {config.data.padding:g}, but the previous stage, {base}, sees the box times "
            f"{saved.data.padding:g}: set this value or a larger one"
        )
    source, target = base, os.path.join(workdir, BASE_FOLDER)
    while True:
        os.makedirs(target, exist_ok=True)
        config_lib.save(load_config(source), os.path.join(target, CONFIG_FILE))
        source, target = os.path.join(source, BASE_FOLDER), os.path.join(target, BASE_FOLDER)
        if not os.path.isdir(source):
            return


def build_network(config, skeleton, workdir=None, synchronized=False, initial_weights=False):
    """The network of a run, under the current dtype policy.

    Args:
        config: the run's recipe.
        skeleton: the `Skeleton` that it predicts.
        workdir: the run's folder; required for a cascade.
        synchronized: BatchNorm uses the statistics of all replicas together.
        initial_weights: load the initial weights: those of `config.model.weights`, and for a
            cascade those of `config.model.base` too. If False, the caller restores a checkpoint.

    Raises:
        InputError: the initial weights are missing, damaged or of another network.
    """
    config, base, share = resolve_preprocessing(config, workdir), None, 1.0
    if config.model.name == "cascade":
        folder = os.path.join(workdir, BASE_FOLDER)
        saved = load_config(folder)
        base, share = build_network(saved, skeleton, folder), saved.data.padding / config.data.padding
        if initial_weights:
            checkpoints.restore_network(base, checkpoints.latest(config.model.base), saved.optimizer.ema > 0)
    outputs = OUTPUTS_OF_LOSS.get(config.loss.name, ())
    network = models.build(config.model, skeleton, outputs, synchronized, base, share)
    if initial_weights:
        _load_initial_weights(network, skeleton, config)
    return network


def _load_initial_weights(network, skeleton, config):
    """Loads the initial weights of `config.model.weights`: a run, a shipped model or a file."""
    source = config.model.weights
    if not is_trained(source):
        models.load_weights(network, config.model)
        return
    trained = load_trained(source)
    if trained.config.model.preprocessing != config.model.preprocessing and config.model.name == "backbone":
        raise InputError(
            f"config.model.preprocessing is {config.model.preprocessing!r}, but {source} was trained with "
            f"{trained.config.model.preprocessing!r}: set it to 'auto', which uses that of the initial weights"
        )
    carry_over.carry_over(network, trained, skeleton, config.model, source)
    aspect, theirs = config.data.aspect, trained.config.data.aspect
    if bool(aspect) != bool(theirs):
        logging.warning(
            "initial weights of %s: they were trained on %s, but the crops of the records are %s: other records "
            "(write_coco --aspect=%g) may suit these weights better",
            source,
            *("crops without stretching" if a else "stretched crops" for a in (theirs, aspect)),
            theirs,
        )


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained network with its recipe and mean pose.

    Attributes:
        config: the recipe.
        skeleton: the `Skeleton` that the network predicts.
        network: `keras.Model` in float32.
        mean_pose: [K, 2] float32 normalised mean pose of the training set.
        origin: path of the checkpoint, or name of the shipped model.
        folder: folder of the run; None for a shipped model.
        calibration: `kpose.models.calibration.Calibration` of the scores; None: there is none.
    """

    config: object
    skeleton: skeletons.Skeleton
    network: keras.Model
    mean_pose: np.ndarray
    origin: str
    folder: str | None
    calibration: Calibration | None = None

    @functools.cached_property
    def folded(self):
        """The network for inference: BatchNorm folded into convolutions (`folding.fold_batch_norm`).

        It is made once. Later changes of the weights of `network` do not reach it.
        """
        return folding.fold_batch_norm(self.network)

    def output_folder(self, given, name=""):
        """The folder for results: `given`, or else the folder `name` of the run.

        Args:
            given: value of --output_dir; None or "": the folder of the run.
            name: a folder inside that of the run; "": the folder of the run itself.

        Raises:
            InputError: `given` is empty, and a shipped model has no folder.
        """
        if given:
            return given
        if not self.folder:
            raise InputError("--output_dir is missing: a shipped model has no folder of its own for the results")
        return os.path.join(self.folder, name) if name else self.folder


def is_trained(source):
    """Whether `source` is a folder, which must be a run, or the name of a shipped model."""
    return os.path.isdir(source) or shipped_files.is_shipped(source)


def load_trained(source, best=False):
    """The trained network of a run, or of a model that kpose ships.

    Args:
        source: folder of a run, or one of `shipped_files.names()`.
        best: for a run, use the checkpoint with the best validation score, not the newest one.

    Returns:
        `Trained`.

    Raises:
        InputError: the source is neither a run nor a shipped model, or it is damaged.
    """
    if shipped_files.is_shipped(source):
        return Trained(*shipped.load(source), source, None, shipped.load_calibration(source))
    config = load_config(source)
    checkpoint = checkpoints.latest(source, best)
    skeleton = load_skeleton(source)
    with devices.dtype_policy("float32"):
        network = build_network(config, skeleton, source)
    checkpoints.restore_network(network, checkpoint, averaged=config.optimizer.ema > 0)
    mean_pose = load_mean_pose(source)
    if len(mean_pose) != skeleton.num_joints:
        raise InputError(
            f"{source}: damaged: its mean pose has {len(mean_pose)} joints, and its skeleton {skeleton.num_joints}: "
            "copy the run again"
        )
    calibration = calibrations.read(source, checkpoint, network)
    return Trained(config, skeleton, network, mean_pose, checkpoint, source, calibration)


def read_history(workdir):
    """The rows of a run's history.csv, as dicts of numbers; [] if the file does not exist.

    A damaged file is renamed and logged, and then there are no rows: results do not depend on it.
    """
    path = os.path.join(workdir, HISTORY_FILE)
    if not os.path.lexists(path):
        return []
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return _history_rows(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        files.set_aside(path, getattr(error, "strerror", None) or first_line(error))
        return []


def _history_rows(reader):
    """The rows of a `csv.DictReader`. Raises `ValueError` if they are not those of a history."""
    if not {"step", "epoch"} <= set(reader.fieldnames or ()):
        raise ValueError("it has no columns step and epoch")
    rows = []
    for row in reader:
        if None in row or None in row.values():
            raise ValueError(f"line {reader.line_num} has another number of values than the first line")
        place = {name: int(row.pop(name)) for name in ("step", "epoch")}
        rows.append(place | {name: float(value) for name, value in row.items() if value})
    return rows


def write_history(workdir, rows):
    """Writes the rows of a run's history.csv: dicts by column; missing values stay empty."""
    path = os.path.join(workdir, HISTORY_FILE)
    names = list(dict.fromkeys(name for row in rows for name in row))
    with files.replacing(path) as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
