"""Networks by name: images [B, H, W, 3] of 0..255 -> dict with "keypoints" [B, K, 2], normalised, float32.

The dict also holds the outputs of `kpose.models.layers` that the recipe's loss asks for.
"""

from kpose.core import checks
from kpose.core.errors import InputError
from kpose.models.backbones import BACKBONES, build_backbone, check_backbone
from kpose.models.cascade import build_cascade, check_cascade
from kpose.models.deeppose import build_deeppose, check_deeppose
from kpose.models.integral import build_integral, check_integral
from kpose.models.movenet import build_movenet, check_movenet
from kpose.models.weights import movenet_tfjs, sources

MODELS = {
    "backbone": (check_backbone, build_backbone),
    "cascade": (check_cascade, build_cascade),
    "deeppose": (check_deeppose, build_deeppose),
    "integral": (check_integral, build_integral),
    "movenet": (check_movenet, build_movenet),
}


@checks.register
def check_recipe(config):
    """Raises `InputError` unless the recipe's `model` section makes a network."""
    check(config.model)


def check(config):
    """Raises `InputError` unless the recipe's `model` section makes a network."""
    checks.choice(config.name, "model.name", sorted(MODELS))
    checks.check_numbers(config, "input_size", 2)
    if config.name != "backbone":
        useless = {
            "weights": config.weights and config.name != "movenet",
            "freeze_epochs": config.freeze_epochs,
            "preprocessing": config.preprocessing == "torchvision",
        }
        for field in (name for name, wrong in useless.items() if wrong):
            raise InputError(
                f"config.model.{field} is {config[field]!r}, but {config.name} has no backbone: it is a field of "
                "model.name=backbone"
            )
    MODELS[config.name][0](config)


def build(config, skeleton, outputs=(), synchronized=False, base=None):
    """The network of a recipe.

    Args:
        config: the recipe's `model` section.
        skeleton: the `Skeleton` it predicts.
        outputs: what it predicts beside the keypoints (`kpose.models.layers`).
        synchronized: BatchNorm over all replicas together.
        base: of a cascade: the network of the stages before.

    Raises:
        InputError: no such model, or a section that makes no network.
    """
    check(config)
    return MODELS[config.name][1](config, skeleton, tuple(outputs), synchronized, base)


def load_weights(network, config):
    """Sets the weights that a recipe's backbone begins with; a no-op where it names none.

    Apart from `build`, because a network that a checkpoint will fill needs neither the file nor the time.

    Args:
        network: what `build` made of `config`.
        config: the recipe's `model` section.

    Raises:
        InputError: `config.weights` is not there or not this backbone's.
    """
    if config.weights and config.name == "movenet":
        # That, or a run, which `kpose.runs.workdir` looks up.
        movenet_tfjs.assign(network, config.weights)
    elif config.weights:
        sources.assign(network.get_layer("backbone"), BACKBONES[config.backbone], config.weights)
