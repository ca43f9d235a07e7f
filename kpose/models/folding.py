"""Folding of BatchNorm into convolutions, for faster inference."""

import keras
import numpy as np
from keras import layers


def fold_batch_norm(network):
    """The same function of the images with fewer layers.

    w -> w * g / s, b -> beta + (b - mean) * g / s, where w, b: of the convolution; g, beta, mean:
    of the BatchNorm; s: the square root of its variance plus epsilon.

    Args:
        network: a functional `keras.Model` in float32; its layers can be such models too.

    Returns:
        A new network, for inference only. BatchNorm is folded only if it follows a convolution
        without activation. A network that is not a functional model is returned as it is.
    """
    if not isinstance(network, keras.Model) or not hasattr(network, "operations"):
        return network
    norms = dict(_foldable(network))

    def clone(layer):
        if isinstance(layer, keras.Model):
            return fold_batch_norm(layer)
        options = layer.get_config()
        if layer.name in norms:
            options["use_bias"] = True
        return type(layer).from_config(options)

    def call(layer, *args, **kwargs):
        return args[0] if layer.name in norms.values() else layer(*args, **kwargs)

    folded = keras.models.clone_model(network, clone_function=clone, call_function=call)
    for layer in network.layers:
        if layer.name in norms:
            folded.get_layer(layer.name).set_weights(_folded(layer, network.get_layer(norms[layer.name])))
        elif layer.name not in norms.values() and not isinstance(layer, keras.Model):
            folded.get_layer(layer.name).set_weights(layer.get_weights())
    return folded


def _foldable(network):
    """Pairs (name of a convolution, name of the BatchNorm that is the only layer after it)."""
    for layer in network.layers:
        plain = (
            isinstance(layer, layers.Conv2D | layers.DepthwiseConv2D) and layer.activation is keras.activations.linear
        )
        if not plain or len(layer._outbound_nodes) != 1:
            continue
        following = layer._outbound_nodes[0].operation
        if isinstance(following, layers.BatchNormalization) and len(following._inbound_nodes) == 1:
            yield layer.name, following.name


def _folded(convolution, norm):
    kernel, *bias = (np.asarray(w, np.float64) for w in convolution.get_weights())
    size = norm.moving_mean.shape[0]
    gamma = np.asarray(norm.gamma, np.float64) if norm.scale else np.ones(size)
    beta = np.asarray(norm.beta, np.float64) if norm.center else np.zeros(size)
    factor = gamma / np.sqrt(np.asarray(norm.moving_variance, np.float64) + norm.epsilon)
    bias = beta + ((bias[0] if bias else 0.0) - np.asarray(norm.moving_mean, np.float64)) * factor
    depthwise = isinstance(convolution, layers.DepthwiseConv2D)
    kernel = kernel * (factor.reshape(kernel.shape[2:]) if depthwise else factor)
    return [kernel.astype(np.float32), bias.astype(np.float32)]
