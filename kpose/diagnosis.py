"""Where a training step that was not finite went wrong."""

import keras
import numpy as np
import tensorflow as tf


def explain(regressor, batch):
    """The first thing in a step that is not finite, by running its batch once more.

    Args:
        regressor: the `engine.Regressor`, with the weights that the step began with, or nearly.
        batch: the batch, as the step received it.

    Returns:
        A phrase such as "the output of layer conv3 (Conv2D)".
    """
    if regressor.augmentation:
        batch = regressor.augmentation(batch)
    for name in ("image", "keypoints", "region", "weight"):
        samples = _not_finite(tf.cast(batch[name], tf.float32))
        if samples.size:
            return f"{name} of sample {samples[0]} of the batch"
    for variable in regressor.network.variables:
        if not np.isfinite(keras.ops.convert_to_numpy(variable.value).astype(np.float32)).all():
            return f"weight {variable.path}"
    images = tf.cast(batch["image"], tf.float32)
    layer = _first_layer(regressor.network, images) if "estimate" not in batch else None
    if layer:
        return layer
    with tf.GradientTape() as tape:
        trainable = [v.value for v in regressor.network.trainable_variables]
        tape.watch(trainable)
        start = {"estimate": batch["estimate"]} if "estimate" in batch else {}
        outputs = regressor.network(images, training=True, **start)
        losses = regressor.sample_loss.call(batch["keypoints"], outputs)
        total = tf.reduce_sum(losses * batch["weight"])
    samples = _not_finite(losses)
    if samples.size:
        return f"the loss of sample {samples[0]} of the batch"
    for variable, gradient in zip(regressor.network.trainable_variables, tape.gradient(total, trainable), strict=True):
        if gradient is not None and not np.isfinite(np.asarray(gradient, np.float32)).all():
            return f"the gradient of {variable.path}"
    return "nothing that running the batch once more shows: the weights were others by then"


def _not_finite(values):
    """Indices of the samples with a value that is not finite."""
    values = np.asarray(tf.cast(values, tf.float32))
    return np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(1))


def _first_layer(network, inputs):
    """The first layer of a functional network whose output is not finite, looking into nested ones."""
    layers = [layer for layer in network.layers if not isinstance(layer, keras.layers.InputLayer)]
    probe = keras.Model(network.inputs, [layer.output for layer in layers])
    for layer, output in zip(layers, probe(inputs, training=True), strict=True):
        for part in tf.nest.flatten(output):
            samples = _not_finite(part)
            if not samples.size:
                continue
            name = f"the output of layer {layer.name} ({type(layer).__name__}) for sample {samples[0]} of the batch"
            if isinstance(layer, keras.Model):
                inside = keras.Model(network.inputs, layer.input if _feeds(network, layer) else network.inputs)
                return _first_layer(layer, inside(inputs)) or name if _feeds(network, layer) else name
            return name
    return None


def _feeds(network, layer):
    """Whether a nested network is fed by the outer one's images alone."""
    return len(layer.inputs) == 1 and len(network.inputs) == 1
