"""The files of the models that kpose ships; `kpose.export.shipped_model` writes them.

models_shipped/<name>.json    card: recipe, checksums of the other files, mean pose, origin
models_shipped/<name>.npz     weights: one float16 array per weight
models_shipped/<name>.tflite  the same network for predictions on CPUs
models_shipped/detectors/     card and .tflite file of the person detector, written by
                              `kpose.export.shipped_detector`

Nothing here needs TensorFlow; `kpose.runs.shipped` builds the Keras network.
"""

import hashlib
import os

from kpose.core import files
from kpose.core.errors import InputError

# In the folder of the package; `import kpose` would be a cycle, because `kpose.load` reads this.
FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "models_shipped")
DETECTORS = os.path.join(FOLDER, "detectors")
DEFAULT = "movenet_lightning_v4"
# Short names: the faster and the more accurate model. The one of research was also trained on data
# that are for research only.
SIZES = {"fast": DEFAULT, "fast-research": f"{DEFAULT}-research", "best": "movenet_thunder_v4"}


def names():
    """Returns the names of all shipped models, sorted."""
    found = os.listdir(FOLDER) if os.path.isdir(FOLDER) else ()
    return sorted(name.removesuffix(".json") for name in found if name.endswith(".json"))


def is_shipped(source):
    """Whether `source` names a shipped model, in full or in `SIZES`, and no file or folder."""
    return (source in SIZES or source in names()) and not os.path.exists(source)


def read_card(name=None):
    """Returns the card of a shipped model, a dict.

    Args:
        name: one of `names()` or of `SIZES`; None: the default model.

    Raises:
        InputError: the model does not exist, or its card is damaged.
    """
    name = SIZES.get(name, name) or DEFAULT
    if name not in names():
        raise InputError(f"unknown model {name!r}: the shipped models are {', '.join(names()) or 'missing'}")
    return files.read_json(os.path.join(FOLDER, f"{name}.json"), "card of a shipped model")


def read_detector(name):
    """Returns the bytes of the .tflite file of a shipped detector.

    Raises:
        InputError: as for `read_checked`.
    """
    card = files.read_json(os.path.join(DETECTORS, f"{name}.json"), "card of a shipped detector")
    return read_checked(card, "tflite", DETECTORS)


def read_checked(card, suffix, folder=None):
    """Returns the bytes of a file of a shipped model.

    Args:
        card: the model's card.
        suffix: of the file: "npz" or "tflite".
        folder: the folder of the file; None: that of the shipped models.

    Raises:
        InputError: the file is missing, or its checksum is not that of the card.
    """
    path = os.path.join(folder or FOLDER, f"{card['name']}.{suffix}")
    try:
        with open(path, "rb") as file:
            content = file.read()
    except FileNotFoundError:
        raise InputError(f"{path}: missing: install kpose again") from None
    if hashlib.sha256(content).hexdigest() != card["sha256"][suffix]:
        raise InputError(f"{path}: damaged (its checksum is not the one in {card['name']}.json): install kpose again")
    return content
