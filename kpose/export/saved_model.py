"""Exports a trained network as a SavedModel: images and boxes in, keypoints in pixels out."""

import contextlib
import glob
import os
import shutil
import tempfile

import tensorflow as tf
from absl import logging

from kpose.core import files, locks
from kpose.core.errors import InputError, first_line
from kpose.export import converted, model_folder, run_exports, tf_serving
from kpose.export.graph import KeypointServer
from kpose.runs.workdir import load_trained

# Start of the names of folders of versions that are being written.
_UNFINISHED = "writing-"


def export(workdir, output_dir=None, flip_test=False, best=False, name=None, lite=True):
    """Writes a trained network to `output_dir/<version>/`, with the next free version number.

    The folder is written under another name and renamed when it is complete, so that TF Serving
    never loads an incomplete version.

    Args:
        workdir: folder of the training run, or the name of a shipped model.
        output_dir: the model's base folder; None: WORKDIR/serving.
        flip_test: average each prediction with the prediction for the mirrored image, in the graph.
        best: take the checkpoint with the best validation score, not the newest one.
        name: name of the model for TF Serving. Its base folder is then `output_dir/<name>`, and one
            server serves all models of `output_dir`. None: `tf_serving.MODEL_NAME`.
        lite: also write `model_folder.LITE_FILE`, which `kpose.load` runs without TensorFlow. If
            TensorFlow Lite cannot run the network, a warning says so.

    Returns:
        The version's folder.

    Raises:
        InputError: the run or its checkpoint does not exist, `output_dir` is missing for a shipped
            model, or the name is impossible.
    """
    trained = load_trained(workdir, best)
    output_dir = trained.output_folder(output_dir, "serving")
    tf_serving.check_name(name, output_dir)
    base = os.path.join(output_dir, name) if name else output_dir
    files.check_folder_for_output(base)
    skeleton = trained.skeleton
    server = KeypointServer.from_config(trained.folded, trained.config, skeleton, flip_test, trained.calibration)
    os.makedirs(base, exist_ok=True)
    _remove_leftovers(base)
    with _unfinished(base) as unfinished:
        _save(server, unfinished)
        checkpoint = os.path.basename(trained.origin)
        model_folder.write_description(unfinished, skeleton, trained.config.name, checkpoint, trained.calibration)
        if lite:
            _write_lite(trained, flip_test, unfinished)
        if not tf_serving.write_warm_up(unfinished, name):
            logging.info(
                "no warm-up requests were written: they need the package tensorflow-serving-api: "
                "pip install tensorflow-serving-api (or pip install '.[serving]' in a checkout)"
            )
        folder = _publish(unfinished, base)
    tf_serving.write_configuration(output_dir, name)
    run_exports.add(trained.folder, folder)
    logging.info("exported %s to %s", trained.origin, folder)
    return folder


def _save(server, folder):
    """Writes the SavedModel of a server into a folder."""
    try:
        tf.saved_model.save(server, folder, signatures=server.signatures)
    except tf.errors.OpError as error:
        reason = first_line(error.message)
        base = os.path.dirname(folder)
        raise InputError(f"{base}: cannot be written ({reason}): free some disk space and export again") from None


def _write_lite(trained, flip_test, folder):
    """Writes the network as TensorFlow Lite into the folder of a version."""
    try:
        content = converted.lite(trained, flip_test)
    except InputError as error:
        logging.warning("%s; kpose.load and kpose-predict will run the SavedModel in TensorFlow", error)
        return
    with files.replacing(os.path.join(folder, model_folder.LITE_FILE), "wb") as file:
        file.write(content)


@contextlib.contextmanager
def _unfinished(base):
    """A context with a new folder for a version, which is removed at the end unless it was renamed."""
    # TF Serving ignores names that are not numbers. Two exports at a time have two folders.
    folder = tempfile.mkdtemp(prefix=_UNFINISHED, dir=base)
    # mkdtemp lets only this user read the folder, but TF Serving may run as another user.
    os.chmod(folder, 0o777 & ~_umask())
    try:
        with locks.locked(folder, "exporting to this folder"):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_leftovers(base):
    """Removes the folders of exports that were killed."""
    for folder in glob.glob(os.path.join(glob.escape(base), f"{_UNFINISHED}*")):
        # A folder without files belongs to an export that has just made it.
        if os.path.isdir(folder) and os.listdir(folder) and not locks.is_taken(folder):
            logging.info("%s: left by an export that was killed: removed", folder)
            shutil.rmtree(folder, ignore_errors=True)


def _publish(unfinished, base):
    """Renames a complete version to the next free number and returns its folder."""
    while True:
        found = model_folder.versions(base)
        folder = os.path.join(base, str(int(found[-1]) + 1 if found else 1))
        try:
            # Fails if another export took the number meanwhile: its folder is not empty.
            os.rename(unfinished, folder)
            break
        except OSError:
            if not os.path.exists(folder):
                raise
    # Not before: a folder without a lock is removed by the next export.
    os.remove(os.path.join(folder, locks.LOCK_FILE))
    return folder


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask
