"""Regressors on backbones of keras_cv, which can start from ImageNet weights.

Gupta and Gritton replaced the convolutions of DeepPose by a pretrained ResNet-18, and it learned to
predict the mean pose for every person. These networks avoid that: they use the preprocessing of the
weights, BatchNorm is frozen together with the backbone (`config.model.freeze_epochs`), and the
spatial head keeps the positions of the features.
"""

import dataclasses
from collections.abc import Callable

import keras
from keras import layers

from kpose.core import startup
from kpose.core.errors import InputError
from kpose.models.integral import top_down
from kpose.models.layers import WITH_XLA_FORM, BatchNormalization, Conv2D, SoftArgmax, extra_outputs
from kpose.models.weights import sources

HEADS = ("pooled", "spatial")
# Backbones halve the resolution five times.
STRIDE = 32
# Feature levels, counted as in `integral`: level 1 has 1/4 of the input's resolution, level 4 has
# 1/32.
LEVELS = (1, 2, 3, 4)
# Initial weights of the pooled head. With small ones, predictions start near the centre, where the
# published loss, a sum over the batch, is stable.
INITIAL_STD = 0.001

# Images of 0..255 -> the range that the weights were trained on: scale and offset, for each
# channel. ResNets of keras_cv take 0..1; those of torchvision take images normalised by the mean
# and deviation of ImageNet.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_UNIT = (1 / 255, 0.0)
_STANDARDISED = ([1 / (255 * s) for s in _STD], [-m / s for m, s in zip(_MEAN, _STD, strict=True)])
_LITE = (1 / 128, -127 / 128)


@dataclasses.dataclass(frozen=True)
class Spec:
    """A backbone: its class, the arguments of the class, and how to read weights for it.

    Attributes:
        family: name of the class in `keras_cv.models`.
        options: the arguments. They are listed here because keras_cv downloads those of its named
            variants.
        rescale: preprocessing ("keras", "torchvision") -> (scale, offset) of images of 0..255.
        translate: PyTorch module name -> layer name.
    """

    family: str
    options: dict
    rescale: dict
    translate: Callable


def _resnet(blocks, block_type):
    options = {
        "stackwise_filters": [64, 128, 256, 512],
        "stackwise_blocks": blocks,
        "stackwise_strides": [1, 2, 2, 2],
        "block_type": block_type,
    }
    rescale = {"keras": _UNIT, "torchvision": _STANDARDISED}
    return Spec("ResNetBackbone", options, rescale, sources.translate_resnet)


# He et al., "Deep Residual Learning for Image Recognition", CVPR 2016; Tan and Le, "EfficientNet",
# ICML 2019. The Lite variants have ReLU6 and no squeeze-and-excitation. Stochastic depth is off:
# dropped blocks would change the features of a frozen backbone too.
BACKBONES = {
    "resnet18": _resnet([2, 2, 2, 2], "basic_block"),
    "resnet50": _resnet([3, 4, 6, 3], "block"),
    "efficientnet_lite0": Spec(
        "EfficientNetLiteBackbone",
        {
            "stackwise_kernel_sizes": [3, 3, 5, 3, 5, 5, 3],
            "stackwise_num_repeats": [1, 2, 2, 3, 3, 4, 1],
            "stackwise_input_filters": [32, 16, 24, 40, 80, 112, 192],
            "stackwise_output_filters": [16, 24, 40, 80, 112, 192, 320],
            "stackwise_expansion_ratios": [1, 6, 6, 6, 6, 6, 6],
            "stackwise_strides": [1, 2, 2, 2, 1, 2, 1],
            "width_coefficient": 1.0,
            "depth_coefficient": 1.0,
            "drop_connect_rate": 0.0,
        },
        {"keras": _LITE, "torchvision": _LITE},
        sources.translate_efficientnet_lite0,
    ),
}


def backbone_regressor(
    backbone="resnet18",
    head="pooled",
    input_size=(224, 224),
    num_joints=17,
    outputs=(),
    head_filters=64,
    head_level=1,
    preprocessing="keras",
    batch_norm_momentum=0.9,
    synchronized=False,
):
    """The network as a functional Keras model, under the current dtype policy.

    `get_layer("backbone")` is the backbone. `kpose.models.load_weights` sets its initial weights.

    Args:
        backbone: a name in `BACKBONES`.
        head: "pooled": global average pooling and one fully connected layer. "spatial": a top-down
            path to maps whose expectations are the keypoints, as in `kpose.models.integral`.
        input_size: (height, width) in pixels, multiples of 32.
        num_joints: K.
        outputs: further outputs beside the keypoints (`kpose.models.layers`), from the mean of the
            coarsest features.
        head_filters, head_level: of the spatial head, as in `kpose.models.integral`; level 4 has
            1/32 of the input's resolution.
        preprocessing: "keras": scale and padding of keras_cv. "torchvision": scale of torchvision
            (mean and deviation of ImageNet) and, for a ResNet, its strides and padding.
        batch_norm_momentum: weight of the old value in the running statistics of BatchNorm.
        synchronized: BatchNorm over the batches of all replicas together.

    Returns:
        `keras.Model`: images [B, H, W, 3] of 0..255 -> {"keypoints": [B, K, 2] float32,
        normalised}.
    """
    spec = BACKBONES[backbone]
    scale, offset = spec.rescale[preprocessing]
    images = keras.Input((*input_size, 3), name="images")
    x = layers.Rescaling(scale, offset, dtype="float32", name="rescale")(images)
    maps = features(backbone, input_size, preprocessing, batch_norm_momentum, synchronized)(x)
    # The heads are always in float32, as in the other networks.
    if head == "pooled":
        pooled = layers.GlobalAveragePooling2D(dtype="float32", name="pooled")(maps[-1])
        x = layers.Dense(2 * num_joints, kernel_initializer=_small(), dtype="float32", name="regressor")(pooled)
        keypoints = layers.Reshape((num_joints, 2), dtype="float32", name="keypoints")(x)
    else:
        # No level 0 (half of the input's resolution): the head does not need maps of that size.
        x, top = top_down([None, *maps], head_filters, head_level, batch_norm_momentum, synchronized)
        x = Conv2D(num_joints, 1, dtype="float32", name="maps")(x)
        keypoints = SoftArgmax(name="keypoints")(x)
        pooled = layers.GlobalAveragePooling2D(dtype="float32", name="pooled")(top) if outputs else None
    answer = {"keypoints": keypoints} | extra_outputs(pooled, num_joints, outputs, _small)
    return keras.Model(images, answer, name=f"{backbone}_{head}")


def check_backbone(config):
    """Raises `InputError` unless the recipe's `model` section is that of a backbone and a head."""
    if any(side % STRIDE for side in config.input_size):
        raise InputError(
            f"config.model.input_size is {tuple(config.input_size)}: a backbone halves it five times, so both sides "
            f"must be multiples of {STRIDE}"
        )
    for field, choices in (("backbone", BACKBONES), ("head", HEADS)):
        if config[field] not in choices:
            raise InputError(f"config.model.{field} is {config[field]!r}: it must be one of {', '.join(choices)}")
    if config.head == "spatial" and config.head_level not in LEVELS:
        raise InputError(
            f"config.model.head_level is {config.head_level}: a backbone has the levels {LEVELS[0]} to {LEVELS[-1]}"
        )


def build_backbone(config, skeleton, outputs, synchronized, base):
    """The network of a recipe; arguments as for `kpose.models.build`, without use of `base`."""
    return backbone_regressor(
        backbone=config.backbone,
        head=config.head,
        input_size=tuple(config.input_size),
        num_joints=skeleton.num_joints,
        outputs=outputs,
        head_filters=config.head_filters,
        head_level=config.head_level,
        preprocessing=_preprocessing(config),
        batch_norm_momentum=config.batch_norm_momentum,
        synchronized=synchronized,
    )


def _preprocessing(config):
    # Recipes that do not come from a run can have "auto"; `kpose.runs.workdir` resolves it for all
    # others.
    return sources.preprocessing(config.weights) if config.preprocessing == "auto" else config.preprocessing


def features(name, input_size, preprocessing="keras", batch_norm_momentum=0.9, synchronized=False):
    """A backbone as a plain Keras model: rescaled images -> four feature maps, 1/4 to 1/32 in size.

    All layers are of Keras or kpose, so a saved network loads without keras_cv. Arguments as for
    `backbone_regressor`.
    """
    spec = BACKBONES[name]
    keras_cv = startup.import_keras_cv()
    full = getattr(keras_cv.models, spec.family)(include_rescaling=False, input_shape=(*input_size, 3), **spec.options)
    outputs = [full.get_layer(full.pyramid_level_inputs[f"P{level + 1}"]).output for level in LEVELS]
    model = keras.Model(full.input, outputs, name="backbone")
    if spec.family == "ResNetBackbone" and preprocessing == "torchvision":
        model = _as_in_torchvision(model)

    def clone(layer):
        options = layer.get_config()
        if isinstance(layer, layers.BatchNormalization):
            # keras_cv has no arguments for these.
            return BatchNormalization(**options | {"momentum": batch_norm_momentum, "synchronized": synchronized})
        return WITH_XLA_FORM.get(type(layer), type(layer)).from_config(options)

    return keras.models.clone_model(model, clone_function=clone)


def _as_in_torchvision(resnet):
    """A keras_cv ResNet with the strides and the padding of torchvision.

    torchvision pads all sides equally, but "same" padding of TensorFlow pads only the right and the
    bottom of an even image. In bottlenecks of torchvision the 3x3 convolution has the stride, not
    the 1x1 convolution before it. Weights of torchvision fit both networks, but with the layout of
    keras_cv each strided layer is off by one pixel.
    """
    moved = {
        layer.name: layer.name.replace("_1_conv", "_2_conv")
        for layer in resnet.layers
        if layer.name.endswith("_1_conv") and layer.kernel_size == (1, 1) and layer.strides == (2, 2)
    }

    def pads(layer):
        return getattr(layer, "padding", None) == "valid" and max(_window(layer)) > 1

    def clone(layer):
        options = layer.get_config()
        if layer.name in moved:
            options["strides"] = 1
        elif layer.name in moved.values() or (max(_window(layer)) > 1 and layer.strides == (2, 2)):
            options |= {"strides": 2, "padding": "valid"}
        return type(layer).from_config(options)

    def call(layer, *args, **kwargs):
        if pads(layer):
            # The input of the pool comes from a ReLU, so zeros have the same effect as minus
            # infinity.
            padding = layers.ZeroPadding2D(_window(layer)[0] // 2, name=f"{layer.name}_pad")
            return layer(padding(args[0]), **kwargs)
        return layer(*args, **kwargs)

    return keras.models.clone_model(resnet, clone_function=clone, call_function=call)


def _window(layer):
    return getattr(layer, "kernel_size", getattr(layer, "pool_size", (1, 1)))


def _small():
    return keras.initializers.RandomNormal(stddev=INITIAL_STD)
