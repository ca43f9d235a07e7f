"""Depthwise convolution whose gradients are fast on CPUs."""

import functools

import keras
from keras import layers, ops

_HALF = ("bfloat16", "float16")


@keras.saving.register_keras_serializable("kpose")
class DepthwiseConv2D(layers.DepthwiseConv2D):
    """Keras' DepthwiseConv2D; on CPUs, with gradients made of the kernels that TensorFlow has fast.

    TensorFlow's gradients have a fast kernel for 3 x 3 windows and, in bfloat16, for stride 1 alone; the others take
    5 to 30 times as long. Here the gradient by the input of a strided convolution is a convolution of stride 1 over
    the outputs' gradient with zeros between its cells (Dumoulin and Visin, "A guide to convolution arithmetic for deep
    learning", 2016, section 4), and that by a 5 x 5 window is put together from four by 3 x 3 windows. The numbers
    are the same up to rounding. Where there is a GPU, it is Keras' own. Arguments as for Keras'.
    """

    def call(self, inputs, training=None):
        if not (training and self._fits(inputs)):
            return super().call(inputs)
        import tensorflow as tf

        # A tensor, not the variable: of variables that a custom gradient reads, TensorFlow wants to know.
        outputs = _convolution(self.strides[0], self.padding.upper())(
            inputs, tf.identity(ops.convert_to_tensor(self.kernel))
        )
        if self.use_bias:
            outputs = ops.add(outputs, ops.reshape(self.bias, (1, 1, 1, -1)))
        return self.activation(outputs)

    def _fits(self, inputs):
        if keras.backend.backend() != "tensorflow":
            return False
        import tensorflow as tf

        return (
            self.data_format == "channels_last"
            and self.padding in ("same", "valid")
            and len(inputs.shape) == 4
            and None not in inputs.shape[1:]
            and self.kernel_size in ((3, 3), (5, 5))
            and self.strides[0] == self.strides[1]
            and tuple(self.dilation_rate) == (1, 1)
            and self.depth_multiplier == 1
            and not tf.config.list_logical_devices("GPU")
        )


@functools.cache
def _convolution(stride, padding):
    import tensorflow as tf

    @tf.custom_gradient
    def convolution(inputs, window):
        def gradients(upstream):
            half = upstream.dtype.name in _HALF
            strides = (1, stride, stride, 1)
            if stride > 1 and half:
                by_inputs = tf.nn.depthwise_conv2d(
                    _spread(upstream, inputs, window, stride, padding), window[::-1, ::-1], (1, 1, 1, 1), "SAME"
                )
            else:
                by_inputs = tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
                    input_sizes=tf.shape(inputs), filter=window, out_backprop=upstream, strides=strides, padding=padding
                )
            if window.shape[0] == 5 and (stride == 1 or half):
                by_window = _by_5x5_window(inputs, _spread(upstream, inputs, window, stride, padding))
            else:
                by_window = tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
                    input=inputs, filter_sizes=window.shape, out_backprop=upstream, strides=strides, padding=padding
                )
            return by_inputs, by_window

        return tf.nn.depthwise_conv2d(inputs, window, (1, stride, stride, 1), padding), gradients

    return convolution


def _spread(upstream, inputs, window, stride, padding):
    """The outputs' gradient at the inputs' resolution: at the inputs their windows are centred on, zeros elsewhere.

    So whatever stride and padding were, what is left is a convolution of stride 1 and "same" padding.
    """
    import tensorflow as tf

    size, channels = window.shape[0], window.shape[2]
    if stride > 1:
        height, width = upstream.shape[1:3]
        upstream = tf.reshape(upstream, (-1, height, 1, width, 1, channels))
        upstream = tf.pad(upstream, ((0, 0), (0, 0), (0, stride - 1), (0, 0), (0, stride - 1), (0, 0)))
        upstream = tf.reshape(upstream, (-1, height * stride, width * stride, channels))
    pads = [(0, 0)]
    for cells, spread in zip(inputs.shape[1:3], upstream.shape[1:3], strict=True):
        before = max(spread - stride + size - cells, 0) // 2 if padding == "SAME" else 0
        offset = size // 2 - before
        pads.append((offset, max(cells - offset - spread, 0)))
    if any(map(any, pads)):
        upstream = tf.pad(upstream, [*pads, (0, 0)])
    return upstream[:, : inputs.shape[1], : inputs.shape[2]]


def _by_5x5_window(inputs, upstream):
    """The gradient by a 5 x 5 window of stride 1 and "same" padding."""
    import tensorflow as tf

    height, width, channels = inputs.shape[1:]
    inputs = tf.pad(inputs, ((0, 0), (2, 2), (2, 2), (0, 0)))

    # By 3 x 3 windows at its corners; the middle row and column are in two of them.
    def corner(y, x):
        return tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
            input=inputs[:, y : y + height + 2, x : x + width + 2],
            filter_sizes=(3, 3, channels, 1),
            out_backprop=upstream,
            strides=(1, 1, 1, 1),
            padding="VALID",
        )

    upper, lower = (tf.concat([corner(y, 0), corner(y, 2)[:, 1:]], axis=1) for y in (0, 2))
    return tf.concat([upper, lower[1:]], axis=0)
