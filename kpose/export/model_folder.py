"""The folder of an exported model: numbered versions, each with a description of the model.

<base>/<version>/saved_model.pb              the graph
<base>/<version>/assets.extra/kpose.json     skeleton, recipe and checkpoint of the model
<base>/<version>/assets.extra/model.tflite   the network alone, for predictions without TensorFlow

Exports with a name have the base <folder>/<name>.
"""

import os

from kpose.core import files, skeleton_files
from kpose.core.errors import InputError

# TensorFlow Serving ignores the folder assets.extra.
DESCRIPTION_FILE = "assets.extra/kpose.json"
LITE_FILE = "assets.extra/model.tflite"


def versions(base):
    """Returns the versions in a model's base folder, oldest first; [] without the folder."""
    names = os.listdir(base) if os.path.isdir(base) else ()
    # "10" is newer than "9".
    return sorted((name for name in names if name.isdecimal()), key=int)


def named_models(folder):
    """Returns the names of the models whose base folders are in a folder, sorted."""
    names = os.listdir(folder) if os.path.isdir(folder) else ()
    return sorted(name for name in names if not name.isdecimal() and versions(os.path.join(folder, name)))


def version_folder(path):
    """Returns the folder of one version.

    Args:
        path: the base folder, whose newest version is taken, or the folder of a version.

    Raises:
        InputError: there is no exported model.
    """
    if os.path.exists(os.path.join(path, "saved_model.pb")):
        return path
    found = versions(path)
    if not found and named_models(path):
        raise InputError(f"{path}: it contains the models {', '.join(named_models(path))}: name the folder of one")
    if not found:
        raise InputError(f"{path}: no exported model: write one with python -m kpose.export")
    return os.path.join(path, found[-1])


def write_description(folder, skeleton, recipe, checkpoint, calibration=None):
    """Writes the description of a version.

    Args:
        folder: the version's folder.
        skeleton: the `Skeleton` of the keypoints.
        recipe: the recipe's name.
        checkpoint: the checkpoint's name.
        calibration: that of the scores; None: they are not calibrated.
    """
    saved = skeleton_files.to_fields(skeleton)
    description = {"skeleton": saved, "recipe": recipe, "checkpoint": checkpoint}
    description["calibration"] = calibration and calibration.to_fields()
    files.write_json(os.path.join(folder, DESCRIPTION_FILE), description)


def read_description(folder):
    """Returns the description of a version: a dict with at least its "skeleton".

    Args:
        folder: the version's folder.

    Raises:
        InputError: the description is missing or damaged.
    """
    description = files.read_json(os.path.join(folder, DESCRIPTION_FILE), "description of a kpose model")
    if not isinstance(description, dict) or "skeleton" not in description:
        raise InputError(f"{os.path.join(folder, DESCRIPTION_FILE)}: not a description of a kpose model")
    return description


def read_skeleton(folder):
    """Returns the `Skeleton` of the keypoints of a version; arguments and errors as above."""
    return skeleton_files.of_saved(read_description(folder)["skeleton"])
