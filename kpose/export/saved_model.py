"""A trained run as a SavedModel: photographs and boxes in, keypoints in original pixels out."""

import os
import shutil
import tempfile

import tensorflow as tf
from absl import logging

from kpose.core import files, skeletons
from kpose.core.errors import InputError
from kpose.export import tf_serving
from kpose.export.graph import KeypointServer
from kpose.models import folding
from kpose.runs.workdir import load_trained

# Beside saved_model.pb, where TF Serving leaves it alone and `kpose.predict` reads it.
DESCRIPTION_FILE = "assets.extra/kpose.json"


def export(workdir, output_dir=None, flip_test=False, best=False):
    """Writes a checkpoint of a run as `output_dir/<version>/`, the next free version number.

    The folder is written aside and renamed into place: TF Serving never sees a half version.

    Args:
        workdir: folder of the training run, or the name of a shipped model.
        output_dir: the model's base folder; by default the folder "serving" of the workdir.
        flip_test: average each answer with that for the mirror image, in the graph.
        best: export the checkpoint with the best validation score, instead of the newest.

    Returns:
        The version's folder.

    Raises:
        InputError: no such run or no checkpoint, or a shipped model without `output_dir`.
    """
    trained = load_trained(workdir, best)
    if not (output_dir or trained.folder):
        raise InputError("--output_dir is missing: a shipped model has no folder of its own for the export")
    output_dir = output_dir or os.path.join(workdir, "serving")
    config, data = trained.config, trained.config.data
    skeleton = skeletons.get(config.skeleton)
    network = folding.fold_batch_norm(trained.network)
    server = KeypointServer(network, skeleton, config.model.input_size, data.padding, flip_test, data.aspect)
    os.makedirs(output_dir, exist_ok=True)
    # A name that is no number: TF Serving does not look at it. Of its own for each of several exports at once.
    aside = tempfile.mkdtemp(prefix="writing-", dir=output_dir)
    # Of a temporary folder nobody else may read; TF Serving runs as somebody else.
    os.chmod(aside, 0o777 & ~_umask())
    try:
        tf.saved_model.save(server, aside, signatures=server.signatures)
        description = {"skeleton": skeleton.name, "recipe": config.name, "checkpoint": os.path.basename(trained.origin)}
        files.write_json(os.path.join(aside, DESCRIPTION_FILE), description)
        if not tf_serving.write_warm_up(aside):
            logging.info("no warm-up requests: they want the extra 'serving' (pip install 'kpose[serving]')")
        folder = _publish(aside, output_dir)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    tf_serving.write_configuration(output_dir)
    logging.info("exported %s to %s", trained.origin, folder)
    return folder


def _publish(aside, output_dir):
    """Renames a written version to the next free number, which another export may take first; its folder."""
    while True:
        version = 1 + max((int(name) for name in os.listdir(output_dir) if name.isdigit()), default=0)
        folder = os.path.join(output_dir, str(version))
        try:
            # Over a folder that holds something this fails.
            os.rename(aside, folder)
            return folder
        except OSError:
            if not os.path.exists(folder):
                raise


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask
