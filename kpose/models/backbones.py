"""Backbones of keras_cv, which begin with ImageNet's weights, under a regression head.

Gupta and Gritton tried a pretrained ResNet-18 in place of DeepPose's convolutions, and it came to predict the mean
pose for everyone. What it takes is here: the preprocessing of the weights, BatchNorm that is frozen with them
(`config.model.freeze_epochs`), and a head that keeps the places of the features.
"""

import dataclasses
from collections.abc import Callable

import keras
from keras import layers

from kpose.core import startup
from kpose.core.errors import InputError
from kpose.models.depthwise import DepthwiseConv2D
from kpose.models.integral import top_down
from kpose.models.layers import BatchNormalization, SoftArgmax, extra_outputs
from kpose.models.weights import sources

HEADS = ("pooled", "spatial")
# Backbones halve the resolution five times.
STRIDE = 32
# Their feature levels, counted as in `integral`: level 1 is a quarter of the input's resolution, level 4 a 32nd.
LEVELS = (1, 2, 3, 4)
# Of the pooled head: predictions begin near the centre, and the published loss, a sum over the batch, where it is
# stable.
INITIAL_STD = 0.001

# Images of 0..255 -> what the weights were trained on, as scale and offset by channel. keras_cv's own ResNets see
# 0..1, torchvision's are standardised by ImageNet's mean and deviation.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_UNIT = (1 / 255, 0.0)
_STANDARDISED = ([1 / (255 * s) for s in _STD], [-m / s for m, s in zip(_MEAN, _STD, strict=True)])
_LITE = (1 / 128, -127 / 128)


@dataclasses.dataclass(frozen=True)
class Spec:
    """A backbone: its class in `keras_cv.models`, that class' arguments, and how to read weights for it.

    Attributes:
        family: the class.
        options: its arguments. keras_cv's named variants would fetch theirs from the network.
        rescale: (scale, offset) of its images for the weights of Keras.
        rescale_pytorch: the same for those of PyTorch.
        translate: PyTorch module name -> layer name.
    """

    family: str
    options: dict
    rescale: tuple
    rescale_pytorch: tuple
    translate: Callable


def _resnet(blocks, block_type):
    options = {
        "stackwise_filters": [64, 128, 256, 512],
        "stackwise_blocks": blocks,
        "stackwise_strides": [1, 2, 2, 2],
        "block_type": block_type,
    }
    return Spec("ResNetBackbone", options, _UNIT, _STANDARDISED, sources.translate_resnet)


# He et al., "Deep Residual Learning for Image Recognition", CVPR 2016; Tan and Le, "EfficientNet", ICML 2019, whose
# Lite variants have ReLU6 and no squeeze and excitation. Stochastic depth is off: dropped blocks would move even the
# features of a frozen backbone.
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
        _LITE,
        _LITE,
        sources.translate_efficientnet_lite0,
    ),
}


def features(name, input_size, weights="", batch_norm_momentum=0.9, synchronized=False):
    """A backbone as a plain Keras model: rescaled images -> list of four feature maps, 1/4 to 1/32 of their size.

    It is made of Keras' own layers, so a saved network needs no keras_cv. Arguments as for `backbone_regressor`.
    """
    spec = BACKBONES[name]
    keras_cv = startup.import_keras_cv()
    whole = getattr(keras_cv.models, spec.family)(include_rescaling=False, input_shape=(*input_size, 3), **spec.options)
    outputs = [whole.get_layer(whole.pyramid_level_inputs[f"P{level + 1}"]).output for level in LEVELS]
    model = keras.Model(whole.input, outputs, name="backbone")
    if spec.family == "ResNetBackbone" and sources.is_pytorch(weights):
        model = _as_in_torchvision(model)

    def clone(layer):
        options = layer.get_config()
        if isinstance(layer, layers.BatchNormalization):
            # keras_cv offers no arguments for these.
            return BatchNormalization(**options | {"momentum": batch_norm_momentum, "synchronized": synchronized})
        if isinstance(layer, layers.DepthwiseConv2D):
            return DepthwiseConv2D(**options)
        return type(layer).from_config(options)

    return keras.models.clone_model(model, clone_function=clone)


def _as_in_torchvision(resnet):
    """A keras_cv ResNet with the strides and the padding under which torchvision's weights were trained.

    torchvision pads all sides alike where TensorFlow's "same" pads the far sides of an even image alone, and its
    bottlenecks have their stride in the 3x3 convolution, not in the 1x1 before it. With keras_cv's the weights fit,
    but each strided layer looks a pixel off.
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
            # The pool's input comes from a ReLU, where zeros are as good as minus infinity.
            padding = layers.ZeroPadding2D(_window(layer)[0] // 2, name=f"{layer.name}_pad")
            return layer(padding(args[0]), **kwargs)
        return layer(*args, **kwargs)

    return keras.models.clone_model(resnet, clone_function=clone, call_function=call)


def _window(layer):
    return getattr(layer, "kernel_size", getattr(layer, "pool_size", (1, 1)))


def backbone_regressor(
    backbone="resnet18",
    head="pooled",
    input_size=(224, 224),
    num_joints=17,
    outputs=(),
    head_filters=64,
    head_level=1,
    weights="",
    batch_norm_momentum=0.9,
    synchronized=False,
):
    """The network as a functional Keras model, under the current dtype policy; `get_layer("backbone")` is the backbone.

    Args:
        backbone: a name in `BACKBONES`.
        head: "pooled": global average pooling and one fully connected layer. "spatial": a top-down path to maps whose
            expectations are the keypoints, as in `kpose.models.integral`.
        input_size: (height, width) in pixels, multiples of 32.
        num_joints: K.
        outputs: what is predicted beside the keypoints (`kpose.models.layers`), from the coarsest features' mean.
        head_filters, head_level: of the spatial head, as in `kpose.models.integral`; level 4 has 1/32 of the input's
            resolution.
        weights: where the backbone's weights will come from (`config.model.weights`), which decides the scale of the
            images and, for a ResNet, the padding. They are set by `kpose.models.load_weights`.
        batch_norm_momentum: weight of the old BatchNorm statistics in the running mean.
        synchronized: BatchNorm over the batches of all replicas together.

    Returns:
        `keras.Model`: images [B, H, W, 3] of 0..255 -> {"keypoints": [B, K, 2] float32, normalised}.
    """
    spec = BACKBONES[backbone]
    scale, offset = spec.rescale_pytorch if sources.is_pytorch(weights) else spec.rescale
    images = keras.Input((*input_size, 3), name="images")
    x = layers.Rescaling(scale, offset, dtype="float32", name="rescale")(images)
    maps = features(backbone, input_size, weights, batch_norm_momentum, synchronized)(x)
    # The heads in float32 always, as in the other networks.
    if head == "pooled":
        pooled = layers.GlobalAveragePooling2D(dtype="float32", name="pooled")(maps[-1])
        x = layers.Dense(2 * num_joints, kernel_initializer=_small(), dtype="float32", name="regressor")(pooled)
        keypoints = layers.Reshape((num_joints, 2), dtype="float32", name="keypoints")(x)
    else:
        # No level 0, half the input's resolution: nothing needs maps as large.
        x, top = top_down([None, *maps], head_filters, head_level, batch_norm_momentum, synchronized)
        x = layers.Conv2D(num_joints, 1, dtype="float32", name="maps")(x)
        keypoints = SoftArgmax(name="keypoints")(x)
        pooled = layers.GlobalAveragePooling2D(dtype="float32", name="pooled")(top) if outputs else None
    answer = {"keypoints": keypoints} | extra_outputs(pooled, num_joints, outputs, _small)
    return keras.Model(images, answer, name=f"{backbone}_{head}")


def _small():
    return keras.initializers.RandomNormal(stddev=INITIAL_STD)


def check_backbone(config):
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


def build_backbone(config, skeleton, outputs, synchronized, base):
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
