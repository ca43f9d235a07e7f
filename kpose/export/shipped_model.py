"""How a trained run becomes a model that kpose ships: see `kpose.runs.shipped` for its files."""

import hashlib
import io
import os

import numpy as np

from kpose.core import files
from kpose.export import tflite
from kpose.models.layers import OUTPUTS_OF_LOSS
from kpose.runs import shipped
from kpose.runs.workdir import load_config, load_mean_pose, load_network


def ship(workdir, name, facts, folder=shipped.FOLDER, best=False):
    """Writes a trained run as a shipped model.

    Args:
        workdir: folder of the training run.
        name: what it will be called, with a version.
        facts: dict of what the card tells beside the recipe: data, licences, figures.
        folder: where to.
        best: the checkpoint with the best validation score, instead of the newest.
    """
    config = load_config(workdir)
    network, checkpoint = load_network(workdir, config, best)
    content = io.BytesIO()
    arrays = network.get_weights()
    np.savez_compressed(content, **{f"{i:04d}": array.astype(np.float16) for i, array in enumerate(arrays)})
    contents = {"npz": content.getvalue(), "tflite": tflite.convert(network)}
    outputs = list(OUTPUTS_OF_LOSS.get(config.loss.name, ()))
    card = {
        "name": name,
        "sha256": {suffix: hashlib.sha256(some).hexdigest() for suffix, some in contents.items()},
        "outputs": outputs,
        "answers": sorted(network.output),
        "checkpoint": os.path.basename(checkpoint),
        **facts,
        "mean_pose": [[round(float(value), 5) for value in place] for place in load_mean_pose(workdir)],
        "recipe": config.to_dict(),
    }
    for suffix, some in contents.items():
        with files.replacing(os.path.join(folder, f"{name}.{suffix}"), "wb") as file:
            file.write(some)
    files.write_json(os.path.join(folder, f"{name}.json"), card)
