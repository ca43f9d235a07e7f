"""A trained run as a SavedModel: photographs and boxes in, keypoints in original pixels out."""

import os
import shutil

import tensorflow as tf
from absl import logging

from kpose import files, runs, skeletons, tf_serving
from kpose.models import folding
from kpose.serving import KeypointServer

# Beside saved_model.pb, where TF Serving leaves it alone and `kpose.predict` reads it.
DESCRIPTION_FILE = "assets.extra/kpose.json"


def export(workdir, output_dir, flip_test=False, best=False):
    """Writes a checkpoint of a run as `output_dir/<version>/`, the next free version number.

    The folder is written aside and renamed into place: TF Serving never sees a half version.

    Args:
        workdir: folder of the training run, or the name of a shipped model.
        output_dir: the model's base folder.
        flip_test: average each answer with that for the mirror image, in the graph.
        best: export the checkpoint with the best validation score, instead of the newest.

    Returns:
        The version's folder.

    Raises:
        InputError: no such run or no checkpoint.
    """
    trained = runs.load_trained(workdir, best)
    config, data = trained.config, trained.config.data
    skeleton = skeletons.get(config.skeleton)
    network = folding.fold_batch_norm(trained.network)
    server = KeypointServer(network, skeleton, config.model.input_size, data.padding, flip_test, data.aspect)
    os.makedirs(output_dir, exist_ok=True)
    version = 1 + max((int(name) for name in os.listdir(output_dir) if name.isdigit()), default=0)
    folder = os.path.join(output_dir, str(version))
    # A name that is no number: TF Serving does not look at it.
    aside = os.path.join(output_dir, f"writing-{version}")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        tf.saved_model.save(server, aside, signatures=server.signatures)
        description = {"skeleton": skeleton.name, "recipe": config.name, "checkpoint": os.path.basename(trained.origin)}
        files.write_json(os.path.join(aside, DESCRIPTION_FILE), description)
        if not tf_serving.write_warm_up(aside):
            logging.info("no warm-up requests: they want the extra 'serving' (pip install 'kpose[serving]')")
        os.rename(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    tf_serving.write_configuration(output_dir)
    logging.info("exported %s to %s", trained.origin, folder)
    return folder
