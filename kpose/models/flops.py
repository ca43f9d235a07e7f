"""The number of floating-point operations of a network."""

import tensorflow as tf
from tensorflow.compat.v1 import profiler

from kpose.core import startup

# A training step costs about three forward passes: one forward, one each for the gradients of
# inputs and of weights.
PASSES_OF_TRAINING = 3


def forward(network, input_size):
    """Floating-point operations of one forward pass for one image.

    A multiplication and an addition count as two operations.

    Args:
        network: images [B, H, W, 3] -> a structure of tensors.
        input_size: (height, width) in pixels.
    """
    traced = tf.function(lambda images: network(images, training=False), autograph=False)
    graph = traced.get_concrete_function(tf.TensorSpec([1, *input_size, 3])).graph
    options = profiler.ProfileOptionBuilder(profiler.ProfileOptionBuilder.float_operation()).with_empty_output()
    with startup.quiet_tensorflow():
        return profiler.profile(graph, options=options.build()).total_float_ops
