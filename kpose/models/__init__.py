"""Networks by name: images [B, H, W, 3] of 0..255 -> dict with "keypoints" [B, K, 2], normalised, float32.

The dict also holds the outputs of `kpose.models.outputs` that the recipe's loss asks for.
"""

from kpose.errors import InputError
from kpose.models import tfjs
from kpose.models import weights as weights_lib
from kpose.models.backbones import BACKBONES, HEADS, LEVELS, STRIDE, backbone_regressor
from kpose.models.cascade import cascade
from kpose.models.deeppose import deeppose
from kpose.models.integral import integral
from kpose.models.movenet import movenet


def _check_deeppose(config):
    _check_numbers(config, "filters", 5)
    _check_numbers(config, "kernels", 5)
    _check_numbers(config, "hidden")
    smallest = 14 * config.first_stride + 1
    if min(config.input_size) < smallest:
        raise InputError(
            f"config.model.input_size is {tuple(config.input_size)}: three pools after stride {config.first_stride} "
            f"leave nothing of less than {smallest} pixels"
        )


def _build_deeppose(config, skeleton, outputs, synchronized, base):
    return deeppose(
        input_size=tuple(config.input_size),
        num_joints=skeleton.num_joints,
        outputs=outputs,
        filters=tuple(config.filters),
        kernels=tuple(config.kernels),
        first_stride=config.first_stride,
        hidden=tuple(config.hidden),
        dropout=config.dropout,
        batch_norm_momentum=config.batch_norm_momentum,
        synchronized=synchronized,
    )


def _check_integral(config):
    _check_numbers(config, "filters")
    levels = len(config.filters)
    if any(side % 2**levels for side in config.input_size):
        raise InputError(
            f"config.model.input_size is {tuple(config.input_size)}: {levels} levels of filters halve it {levels} "
            f"times, so both sides must be multiples of {2**levels}"
        )
    if config.head_level >= levels:
        raise InputError(f"config.model.head_level is {config.head_level}: filters give the levels 0 to {levels - 1}")


def _build_integral(config, skeleton, outputs, synchronized, base):
    return integral(
        input_size=tuple(config.input_size),
        num_joints=skeleton.num_joints,
        outputs=outputs,
        filters=tuple(config.filters),
        head_filters=config.head_filters,
        head_level=config.head_level,
        batch_norm_momentum=config.batch_norm_momentum,
        synchronized=synchronized,
    )


def _check_backbone(config):
    if any(side % STRIDE for side in config.input_size):
        raise InputError(
            f"config.model.input_size is {tuple(config.input_size)}: a backbone halves it five times, so both sides "
            f"must be multiples of {STRIDE}"
        )
    for field, choices in (("backbone", BACKBONES), ("head", HEADS)):
        if config[field] not in choices:
            raise InputError(f"config.model.{field} is {config[field]!r}: it is one of {', '.join(choices)}")
    if config.head == "spatial" and config.head_level not in LEVELS:
        raise InputError(
            f"config.model.head_level is {config.head_level}: a backbone has the levels {LEVELS[0]} to {LEVELS[-1]}"
        )


def _build_backbone(config, skeleton, outputs, synchronized, base):
    return backbone_regressor(
        backbone=config.backbone,
        head=config.head,
        input_size=tuple(config.input_size),
        num_joints=skeleton.num_joints,
        outputs=outputs,
        head_filters=config.head_filters,
        head_level=config.head_level,
        weights=config.weights,
        batch_norm_momentum=config.batch_norm_momentum,
        synchronized=synchronized,
    )


def _check_cascade(config):
    if not config.base:
        raise InputError(
            "config.model.name is 'cascade', but config.model.base names no run: give the workdir of the stage before"
        )
    _check_numbers(config, "filters")
    _check_numbers(config, "hidden")
    if config.sub_image % 2 ** len(config.filters):
        raise InputError(
            f"config.model.sub_image is {config.sub_image}: {len(config.filters)} filters halve it as many times: it "
            f"must be a multiple of {2 ** len(config.filters)}"
        )


def _build_cascade(config, skeleton, outputs, synchronized, base):
    return cascade(
        base,
        input_size=tuple(config.input_size),
        num_joints=skeleton.num_joints,
        torso=skeleton.torso,
        sub_image=config.sub_image,
        sigma=config.sigma,
        filters=tuple(config.filters),
        hidden=tuple(config.hidden),
        outputs=outputs,
        batch_norm_momentum=config.batch_norm_momentum,
        synchronized=synchronized,
    )


def _check_movenet(config):
    check_movenet_size("model.input_size", config.input_size)


def check_movenet_size(field, size):
    """Raises `InputError` unless MoveNet's network can see pictures of `size`, the value of a recipe's `field`."""
    if len(size) != 2 or any(side < STRIDE or side % STRIDE for side in size):
        raise InputError(
            f"config.{field} is {tuple(size)}: movenet halves it five times, so both sides are multiples of {STRIDE}"
        )


def _build_movenet(config, skeleton, outputs, synchronized, base):
    return movenet(
        input_size=tuple(config.input_size),
        num_joints=skeleton.num_joints,
        outputs=outputs,
        width=config.width,
        frozen_blocks=config.frozen_blocks,
    )


MODELS = {
    "backbone": (_check_backbone, _build_backbone),
    "cascade": (_check_cascade, _build_cascade),
    "deeppose": (_check_deeppose, _build_deeppose),
    "integral": (_check_integral, _build_integral),
    "movenet": (_check_movenet, _build_movenet),
}


def _check_numbers(config, field, length=None):
    value = tuple(config[field])
    if (length and len(value) != length) or not all(isinstance(v, int) and v > 0 for v in value):
        wanted = f"{length} positive whole numbers" if length else "positive whole numbers"
        raise InputError(f"config.model.{field} is {value}: it is {wanted}")


def check(config):
    """Raises `InputError` unless the recipe's `model` section makes a network."""
    if config.name not in MODELS:
        raise InputError(f"config.model.name is {config.name!r}: it is one of {', '.join(sorted(MODELS))}")
    _check_numbers(config, "input_size", 2)
    weights = config.weights and config.name not in ("backbone", "movenet")
    if weights or (config.freeze_epochs and config.name != "backbone"):
        field = "weights" if weights else "freeze_epochs"
        raise InputError(
            f"config.model.{field} is {config[field]!r}, but {config.name} has no backbone: model.name=backbone has"
        )
    MODELS[config.name][0](config)


def build(config, skeleton, outputs=(), synchronized=False, base=None):
    """The network of a recipe.

    Args:
        config: the recipe's `model` section.
        skeleton: the `Skeleton` it predicts.
        outputs: what it predicts beside the keypoints (`kpose.models.outputs`).
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
        # That, or a run, which `kpose.runs` looks up.
        tfjs.assign(network, config.weights)
    elif config.weights:
        weights_lib.assign(network.get_layer("backbone"), BACKBONES[config.backbone], config.weights)
