"""Writes a trained run as a model that kpose ships: weights, TensorFlow Lite file and card.

python -m kpose.export.shipped_model --workdir=runs/movenet --name=movenet_lightning_v1 --facts=facts.json

writes NAME.npz, NAME.tflite and NAME.json into the package (kpose/models_shipped), or into
OUTPUT_DIR. kpose.load("NAME") then loads it. The card NAME.json holds the recipe, checksums, the
mean pose and the facts: a JSON object with what a user should know, such as the training data and
its licences.

The scores of the model are calibrated if the run has a calibration of its checkpoint (python -m
kpose.evaluate --calibrate), or with --calibrate_on=RECORDS, which fits one for the shipped weights.
"""

import dataclasses
import hashlib
import io
import os

from absl import flags, logging

from kpose.core import cli, files, skeleton_files
from kpose.core.errors import InputError
from kpose.runs import shipped_files

# Entries of the card that are no facts.
_ENTRIES = frozenset(
    "name sha256 outputs checkpoint averaged_with share_of_run calibration mean_pose recipe skeleton".split()
)
# Persons in a batch of the predictions for a calibration.
BATCH_SIZE = 64

FLAGS = cli.flag_set()
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the training run.", required=True, flag_values=FLAGS)
_NAME = flags.DEFINE_string(
    "name", None, "Name of the model, with its version, such as movenet_lightning_v1.", required=True, flag_values=FLAGS
)
_FACTS = flags.DEFINE_string(
    "facts", None, "JSON file with an object whose entries are added to the card.", flag_values=FLAGS
)
_OUTPUT_DIR = flags.DEFINE_string(
    "output_dir", None, "Folder for the files (default: kpose/models_shipped in the package).", flag_values=FLAGS
)
_BEST = flags.DEFINE_bool(
    "best",
    False,
    "Take the checkpoint with the best validation score, not the newest one.",
    flag_values=FLAGS,
)
_AVERAGE_WITH = flags.DEFINE_string(
    "average_with",
    None,
    "Another run (its folder), a shipped model or a file of MoveNet's weights, of the same network: ship a mean of "
    "its weights and the run's.",
    flag_values=FLAGS,
)
_SHARE = flags.DEFINE_float(
    "share", 0.5, "Share of the run in the mean.", lower_bound=0.0, upper_bound=1.0, flag_values=FLAGS
)
_CALIBRATE_ON = flags.DEFINE_string(
    "calibrate_on",
    None,
    "Glob of records, in quotes: fit the calibration of the scores on them. Default: the calibration of the run, if "
    "it has one for these weights.",
    flag_values=FLAGS,
)


def ship(workdir, name, facts=None, output_dir=None, best=False, average_with=None, share=0.5, calibrate_on=None):
    """Writes a trained run as a shipped model; see `kpose.runs.shipped_files` for its files.

    Args:
        workdir: folder of the training run.
        name: the model's name, with its version.
        facts: dict of entries that are added to the card.
        output_dir: folder for the files; None: `shipped_files.FOLDER`.
        best: take the checkpoint with the best validation score, not the newest one.
        average_with: folder of another run, a shipped model, or for MoveNet a file as in
            `config.model.weights`; the weights are the means of its weights and the run's. For a
            run that began with these weights, the mean is often better than both (Wortsman et al.,
            "Model soups", ICML 2022, and "Robust fine-tuning of zero-shot models", CVPR 2022).
            None: the run's weights.
        share: share of the run in the mean.
        calibrate_on: glob of records on which the calibration of the scores is fitted; None: that of
            the run, if it has one for these weights.

    Returns:
        The paths of the files.

    Raises:
        InputError: the run does not exist or is a cascade; the name contains a folder; a fact has
            the name of another entry of the card; `average_with` does not exist or is another
            network; the scores cannot be calibrated.
    """
    # Imported here, because --help must not wait for TensorFlow.
    from kpose.models.layers import OUTPUTS_OF_LOSS
    from kpose.runs.workdir import load_trained

    for key in sorted(_ENTRIES.intersection(facts or ())):
        raise InputError(f"--facts: the card has an entry {key!r} already: choose another name")
    if name != os.path.basename(name):
        raise InputError(f"--name={name}: give a name without a folder; --output_dir names the folder")
    trained = _without_batch_norm(load_trained(workdir, best))
    config = trained.config
    if config.model.name == "cascade":
        raise InputError(f"{workdir}: a cascade cannot be shipped, because it needs the networks of several runs")
    if average_with:
        _average(trained, average_with, share)
        # The calibration of the run is for its own weights.
        trained = dataclasses.replace(trained, calibration=None)
    if calibrate_on:
        trained = dataclasses.replace(trained, calibration=_calibrated(trained, calibrate_on))
    contents = _contents(trained)
    card = {
        "name": name,
        "sha256": {suffix: hashlib.sha256(content).hexdigest() for suffix, content in contents.items()},
        "outputs": list(OUTPUTS_OF_LOSS.get(config.loss.name, ())),
        "checkpoint": os.path.basename(trained.origin),
    }
    if average_with:
        card |= {"averaged_with": os.path.basename(os.path.normpath(average_with)), "share_of_run": share}
    if trained.calibration is None:
        logging.warning("the scores of %s are not calibrated: --calibrate_on=RECORDS fits a calibration", name)
    else:
        card["calibration"] = trained.calibration.to_fields()
    card |= facts or {}
    card |= {
        "mean_pose": [[round(float(value), 5) for value in place] for place in trained.mean_pose],
        "recipe": config.to_dict(),
        "skeleton": skeleton_files.to_fields(trained.skeleton),
    }
    stem = os.path.join(output_dir or shipped_files.FOLDER, name)
    for suffix, content in contents.items():
        with files.replacing(f"{stem}.{suffix}", "wb") as file:
            file.write(content)
    files.write_json(f"{stem}.json", card)
    megabytes = sum(map(len, contents.values())) / 1e6
    logging.info("%s: wrote %s.npz, .tflite and .json (%.1f MB)", trained.origin, stem, megabytes)
    return [f"{stem}.{suffix}" for suffix in (*contents, "json")]


def _without_batch_norm(trained):
    """A trained MoveNet with its added BatchNorm folded into its convolutions; others as they are."""
    from kpose import models
    from kpose.core import devices

    config = trained.config.copy_and_resolve_references()
    if config.model.name != "movenet" or not config.model.batch_norm:
        return trained
    config.model.batch_norm = False
    with devices.dtype_policy("float32"):
        network = models.build(config.model, trained.skeleton)
    network.set_weights(trained.folded.get_weights())
    return dataclasses.replace(trained, config=config, network=network)


def _average(trained, name, share):
    """Replaces the weights of a trained network with means of them and those of `ship`'s `average_with`."""
    arrays, others = trained.network.get_weights(), _weights(name, trained)
    if [array.shape for array in arrays] != [array.shape for array in others]:
        raise InputError(f"--average_with={name}: its network is not that of {trained.origin}")
    trained.network.set_weights(
        [share * array + (1.0 - share) * other for array, other in zip(arrays, others, strict=True)]
    )


def _weights(source, trained):
    """The arrays of a run, a shipped model, or a file of weights for the network of `trained`."""
    from kpose.core import devices
    from kpose.runs.workdir import build_network, is_trained, load_trained

    if is_trained(source):
        return _without_batch_norm(load_trained(source)).network.get_weights()
    if not os.path.isfile(source):
        names = ", ".join(shipped_files.names())
        raise InputError(f"--average_with={source}: no run and no file of weights; the shipped models are {names}")
    config = trained.config.copy_and_resolve_references()
    if config.model.name != "movenet":
        raise InputError(f"--average_with={source}: a file is possible only for MoveNet, whose files hold all weights")
    config.model.weights = source
    with devices.dtype_policy("float32"):
        return build_network(config, trained.skeleton, initial_weights=True).get_weights()


def _calibrated(trained, pattern):
    """The `Calibration` of a trained network, fitted on the records of a glob."""
    from kpose.data import pipeline, records
    from kpose.runs import calibrations

    found = records.find(pattern, trained.skeleton)
    batches = pipeline.evaluation_batches(trained.config, found, BATCH_SIZE, identity=True)
    with records.reading(found):
        return calibrations.fit(trained, batches, pattern)


def _contents(trained):
    """Returns the files of a network by suffix: its weights in float16, and TensorFlow Lite."""
    import numpy as np

    from kpose.export import converted, description, tflite

    weights = io.BytesIO()
    arrays = trained.network.get_weights()
    np.savez_compressed(weights, **{f"{i:04d}": array.astype(np.float16) for i, array in enumerate(arrays)})
    server, facts = converted.network_server(trained)
    lite = description.attach(tflite.convert(server, "float16"), "tflite", facts)
    return {"npz": weights.getvalue(), "tflite": lite}


def main():
    facts = files.read_json(_FACTS.value, "file of facts") if _FACTS.value else {}
    if not isinstance(facts, dict):
        raise InputError(f"{_FACTS.value}: holds no JSON object")
    ship(
        _WORKDIR.value,
        _NAME.value,
        facts,
        _OUTPUT_DIR.value,
        _BEST.value,
        _AVERAGE_WITH.value,
        _SHARE.value,
        _CALIBRATE_ON.value,
    )


def console():
    cli.run(main, FLAGS, __doc__)


if __name__ == "__main__":
    console()
