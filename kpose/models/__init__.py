"""Networks by name.

A network maps images [B, H, W, 3] of 0..255 to a dict with "keypoints" [B, K, 2], normalised,
float32. The dict also holds the further outputs (`kpose.models.layers`) that the recipe's loss
needs.
"""

from kpose.core import checks
from kpose.core.errors import InputError
from kpose.models.backbones import BACKBONES, build_backbone, check_backbone
from kpose.models.cascade import build_cascade, check_cascade
from kpose.models.deeppose import build_deeppose, check_deeppose
from kpose.models.integral import build_integral, check_integral
from kpose.models.movenet import build_movenet, check_movenet
from kpose.models.weights import movenet_tfjs, sources

# Name -> (check of the recipe's `model` section, function that builds the network).
MODELS = {
    "backbone": (check_backbone, build_backbone),
    "cascade": (check_cascade, build_cascade),
    "deeppose": (check_deeppose, build_deeppose),
    "integral": (check_integral, build_integral),
    "movenet": (check_movenet, build_movenet),
}


def check(config):
    """Raises `InputError` unless a recipe's `model` section describes a possible network."""
    checks.choice(config.name, "model.name", sorted(MODELS))
    checks.check_numbers(config, "input_size", 2)
    if config.name != "backbone":
        useless = {
            # A run's weights fit deeppose and integral too.
            "weights": config.weights and config.name != "movenet" and (_is_file(config) or config.name == "cascade"),
            "freeze_epochs": config.freeze_epochs,
            "preprocessing": config.preprocessing == "torchvision",
        }
        for field in (name for name, wrong in useless.items() if wrong):
            raise InputError(
                f"config.model.{field} is {config[field]!r}, but {config.name} has no backbone: it is a field of "
                "model.name=backbone"
            )
    MODELS[config.name][0](config)


@checks.register
def check_recipe(config):
    """`check` of the `model` section of a recipe."""
    check(config.model)


def _is_file(config):
    return sources.is_pytorch(config.weights) or config.weights.endswith((*sources.KERAS_SUFFIXES, ".json"))


def build(config, skeleton, outputs=(), synchronized=False, base=None, share=1.0):
    """The network of a recipe.

    Args:
        config: the recipe's `model` section.
        skeleton: the `Skeleton` that it predicts.
        outputs: further outputs beside the keypoints (`kpose.models.layers`).
        synchronized: BatchNorm over the batches of all replicas together.
        base: for a cascade: the network of the previous stages.
        share: for a cascade: side of the middle part of the images that `base` sees, as a fraction of
            the side of the images.

    Raises:
        InputError: as for `check`.
    """
    check(config)
    if config.name == "cascade":
        return build_cascade(config, skeleton, tuple(outputs), synchronized, base, share)
    return MODELS[config.name][1](config, skeleton, tuple(outputs), synchronized, base)


def load_weights(network, config):
    """Sets the initial weights that `config.weights` names, if it names any.

    It is a file, package or preset. This is not part of `build`: a network that a checkpoint fills
    does not need the file. `kpose.runs.workdir` handles weights of runs and of shipped models.

    Args:
        network: the network that `build` made from `config`.
        config: the recipe's `model` section.

    Raises:
        InputError: `config.weights` is missing, cannot be read or does not fit the network.
    """
    if config.weights and config.name == "movenet":
        movenet_tfjs.assign(network, config.weights)
    elif config.weights and config.name != "backbone":
        raise InputError(
            f"config.model.weights is {config.weights!r}: no such run or shipped model; {config.name} has no backbone, "
            "so its initial weights are those of a run"
        )
    elif config.weights:
        sources.assign(network.get_layer("backbone"), BACKBONES[config.backbone], config.weights)
