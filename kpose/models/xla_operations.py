"""Convolutions and pools in the forms that XLA compiles well: the same results up to rounding.

On a GPU, XLA leaves convolutions to cuDNN, which is slow for images of three channels, and needs minutes to
choose among cuDNN's kernels if a network has a hundred convolutions. On a CPU, XLA's depthwise
convolutions are slow. Its gradient of a maximum pool is slow on a GPU. Here these operations are sums,
products, comparisons and matrix products, which XLA fuses. `kpose.models.layers` uses them inside
`tracing`. docs/speed.md and BUILD.md have the measurements.
"""

import contextlib
import contextvars

import tensorflow as tf

# Outside `tracing` None, inside whether the program is for a CPU.
_FOR_CPU = contextvars.ContextVar("kpose_xla_for_cpu", default=None)
# Images have three or four channels.
_FEW_CHANNELS = 4
# On a GPU, the gradient of a depthwise kernel up to 3 x 3 is one sum. On a CPU, one sum is slower.
_TAPS_OF_A_SUM = 9


@contextlib.contextmanager
def tracing(for_cpu):
    """A context for the trace of a function that XLA compiles.

    Args:
        for_cpu: whether the function will run on a CPU, where sums have another form.
    """
    token = _FOR_CPU.set(for_cpu)
    try:
        yield
    finally:
        _FOR_CPU.reset(token)


def active():
    """Whether a function for XLA is being traced."""
    return _FOR_CPU.get() is not None


def convolution(inputs, kernel, stride, padding):
    """A convolution without bias, or None if the form of Keras is the better one.

    A convolution of 1 x 1 becomes a matrix product. One of an image with a stride first moves each
    square of `stride` x `stride` pixels into the channels, and then has stride 1.

    Args:
        inputs: [B, H, W, C].
        kernel: [k, l, C, D].
        stride: of both axes.
        padding: "same" or "valid".

    Returns:
        [B, h, w, D], or None.
    """
    height, width, channels, filters = kernel.shape
    if (height, width, stride) == (1, 1, 1):
        flat = tf.matmul(tf.reshape(inputs, [-1, channels]), tf.reshape(kernel, [channels, filters]))
        return tf.reshape(flat, [-1, *inputs.shape[1:3], filters])
    if stride > 1 and channels <= _FEW_CHANNELS and min(height, width) >= stride:
        return _of_squares(inputs, kernel, stride, padding)
    return None


def _of_squares(inputs, kernel, stride, padding):
    (rows, top, _), (columns, left, _) = _windows(inputs, kernel.shape[:2], stride, padding)
    *sizes, channels, filters = kernel.shape
    # The first tap of the kernel moves to the first pixel of a square, by zeros before it.
    before = [-(-pad // stride) for pad in (top, left)]
    empty = [b * stride - pad for b, pad in zip(before, (top, left), strict=True)]
    taps = [-(-(e + size) // stride) for e, size in zip(empty, sizes, strict=True)]
    ends = [t * stride - e - size for t, e, size in zip(taps, empty, sizes, strict=True)]
    kernel = tf.pad(kernel, [*zip(empty, ends, strict=True), (0, 0), (0, 0)])
    kernel = tf.reshape(kernel, [taps[0], stride, taps[1], stride, channels, filters])
    kernel = tf.reshape(tf.transpose(kernel, [0, 2, 1, 3, 4, 5]), [*taps, stride**2 * channels, filters])
    # Squares before and after the image, so that each window is complete.
    squares = [-(-side // stride) for side in inputs.shape[1:3]]
    after = [max(0, n - b + t - 1 - s) for n, b, t, s in zip((rows, columns), before, taps, squares, strict=True)]
    margins = [
        (b * stride, (s + a) * stride - side)
        for b, s, a, side in zip(before, squares, after, inputs.shape[1:3], strict=True)
    ]
    folded = tf.nn.space_to_depth(tf.pad(inputs, [(0, 0), *margins, (0, 0)]), stride)
    return tf.nn.conv2d(folded, kernel, 1, "VALID")[:, :rows, :columns]


def depthwise(inputs, kernel, stride, padding):
    """A depthwise convolution without bias, as a sum of products in float32.

    Args:
        inputs: [B, H, W, C].
        kernel: [k, l, C, 1].
        stride, padding: as for `convolution`.

    Returns:
        [B, h, w, C] of the dtype of `inputs`.
    """
    sizes = kernel.shape[:2]

    def windows_of(inputs):
        return [window for _, _, window in _taps(tf.cast(inputs, tf.float32), sizes, stride, padding)]

    def outputs(inputs, taps):
        products = (window * taps[number] for number, window in enumerate(windows_of(inputs)))
        return tf.cast(sum(products), inputs.dtype)

    @tf.custom_gradient
    def convolved(inputs, taps):
        def gradient(upstream):
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                again = outputs(inputs, taps)
            factor = tf.cast(upstream, tf.float32)
            return tape.gradient(again, inputs, upstream), _sums([w * factor for w in windows_of(inputs)])

        return outputs(inputs, taps), gradient

    return convolved(inputs, tf.reshape(tf.cast(kernel, tf.float32), [-1, inputs.shape[-1]]))


def _sums(products):
    """The sums [number, C] of tensors [B, h, w, C] over all but the channels."""
    if _FOR_CPU.get() or len(products) > _TAPS_OF_A_SUM:
        return tf.stack([tf.reduce_sum(product, [0, 1, 2]) for product in products])
    # One kernel of the card for all.
    return tf.reduce_sum(tf.stack(products, 3), [0, 1, 2])


def max_pool(inputs, size, stride, padding):
    """A maximum pool, whose gradient goes to the first maximum of each window.

    Args:
        inputs: [B, H, W, C].
        size: side of the square windows.
        stride, padding: as for `convolution`.

    Returns:
        [B, h, w, C].
    """
    (rows, top, bottom), (columns, left, right) = _windows(inputs, (size, size), stride, padding)

    @tf.custom_gradient
    def pooled(inputs):
        best, chosen = None, None
        for row, column, window in _taps(inputs, (size, size), stride, padding, inputs.dtype.min):
            number = tf.constant(row * size + column, tf.int32)
            if best is None:
                best, chosen = window, tf.zeros_like(window, tf.int32)
            else:
                chosen = tf.where(window > best, number, chosen)
                best = tf.maximum(best, window)
        chosen = tf.cast(chosen, tf.int8)

        def gradient(upstream):
            return _of_chosen(upstream, chosen)

        return best, gradient

    def _of_chosen(upstream, chosen):
        # A pixel is in up to `reach` x `reach` windows.
        reach = -(-size // stride)
        height, width = inputs.shape[1:3]
        grid = [-(-(height + top + bottom) // stride), -(-(width + left + right) // stride)]
        pads = [(reach - 1, max(0, g - n)) for g, n in zip(grid, (rows, columns), strict=True)]
        number = tf.pad(tf.cast(chosen, tf.int32), [(0, 0), *pads, (0, 0)], constant_values=-1)
        upstream = tf.pad(tf.cast(upstream, tf.float32), [(0, 0), *pads, (0, 0)])
        y, x = tf.range(grid[0] * stride) % stride, tf.range(grid[1] * stride) % stride
        total = 0.0
        for down in range(reach):
            for across in range(reach):
                area = (
                    slice(None),
                    slice(reach - 1 - down, reach - 1 - down + grid[0]),
                    slice(reach - 1 - across, reach - 1 - across + grid[1]),
                )
                row, column = y + down * stride, x + across * stride
                # Taps outside the window have no number.
                tap = tf.where((row < size)[:, None] & (column < size), row[:, None] * size + column, -2)
                hit = _repeated(number[area], stride) == tap[..., None]
                total += tf.where(hit, _repeated(upstream[area], stride), 0.0)
        return tf.cast(total[:, top : top + height, left : left + width], inputs.dtype)

    return pooled(inputs)


def _repeated(values, times):
    """[B, H, W, C] -> [B, H * times, W * times, C]: each cell becomes a square."""
    _, height, width, channels = values.shape
    cells = tf.broadcast_to(
        values[:, :, None, :, None, :], [tf.shape(values)[0], height, times, width, times, channels]
    )
    return tf.reshape(cells, [-1, height * times, width * times, channels])


def _taps(inputs, sizes, stride, padding, outside=0):
    """For each tap of the windows (row, column, the values [B, h, w, C] under it)."""
    (rows, top, bottom), (columns, left, right) = _windows(inputs, sizes, stride, padding)
    padded = tf.pad(inputs, [(0, 0), (top, bottom), (left, right), (0, 0)], constant_values=outside)
    for row in range(sizes[0]):
        for column in range(sizes[1]):
            end = row + (rows - 1) * stride + 1, column + (columns - 1) * stride + 1
            yield row, column, padded[:, row : end[0] : stride, column : end[1] : stride]


def _windows(inputs, sizes, stride, padding):
    """For height and width: (number of windows, padding before, padding after), as in TensorFlow."""
    found = []
    for side, size in zip(inputs.shape[1:3], sizes, strict=True):
        if padding == "valid":
            found.append(((side - size) // stride + 1, 0, 0))
        else:
            number = -(-side // stride)
            total = max((number - 1) * stride + size - side, 0)
            found.append((number, total // 2, total - total // 2))
    return found
