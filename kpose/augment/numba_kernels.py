"""The image steps of `augmentation.Augmentation`, compiled for the CPU by Numba.

All steps of an image run while it is in the cache, and only those that were drawn for it. In
TensorFlow and keras_cv each step reads and writes the complete batch, in float32.
"""

import numba
import numpy as np

# Columns of the parameters. Columns 0 to 5 are the map, 6 to 14 the colour matrix.
PIVOT, THRESHOLD, MASK, SHARPNESS, EQUALISE, LEFT, TOP, RIGHT, BOTTOM = range(15, 24)
NUM_PARAMETERS = 24

# Pixels are packed into 32-bit integers, red in the lowest bits, so one load reads all channels.
_GREEN, _BLUE, _LEVEL = np.int32(8), np.int32(16), np.int32(255)
_HALF = np.float32(0.5)


def _compiled(function):
    options = {"nogil": True, "error_model": "numpy", "boundscheck": False}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:
        # No folder for compiled code is writable, so each process compiles it.
        return numba.njit(**options)(function)


def augment(images, parameters, size, warps, recolours):
    """Augments a batch.

    Args:
        images: [B, h, w, 3] uint8.
        parameters: [B, NUM_PARAMETERS] float32. For each image: the map from target to source
            pixels (for x and then for y: factor of the column, factor of the row, constant); the
            colour matrix by rows, and the factor of the mean luma that is added; the solarisation
            threshold (256 or more: no step); the mask of the bits that posterisation keeps (255:
            all); the factor of sharpness (1: no step); 1 to equalise; the rectangle to cut out in
            pixels (right <= left: no step).
        size: (height, width) of the result in pixels.
        warps: whether to apply the maps. Without it the images must have that size, and an image is
            mirrored if the first number of its map is negative.
        recolours: whether to apply the colour matrices.

    Returns:
        [B, *size, 3] uint8.
    """
    out = np.empty((len(images), *size, 3), np.uint8)
    _augment(images, parameters, out, warps, recolours)
    return out


@_compiled
def _augment(images, parameters, out, warps, recolours):
    height, width = out.shape[1], out.shape[2]
    # One row more: rounding can make the warp read the row below the last one, with a weight of
    # zero.
    source = np.zeros((images.shape[1] + 1) * images.shape[2] + 1, np.int32)
    target = np.empty(height * width, np.int32)
    scratch = np.empty(3 * height * width, np.uint8)
    for index in range(images.shape[0]):
        row = parameters[index]
        pixels = out[index].reshape(-1)
        if warps:
            _pack(images[index].reshape(-1), source[: images.shape[1] * images.shape[2]])
            _warp(source, images.shape[1], images.shape[2], row, target, height, width)
        else:
            _pack(images[index].reshape(-1), target)
            if row[0] < 0:
                _mirror(target, height, width)
        if recolours:
            _recolour(target, row)
        _unpack(target, pixels)
        if row[THRESHOLD] < 256 or row[MASK] < 255:
            _solarise_and_posterise(pixels, row[THRESHOLD], np.uint8(row[MASK]))
        if row[SHARPNESS] != 1:
            _sharpen(pixels, scratch, height, width, row[SHARPNESS])
        if row[EQUALISE] > 0:
            _equalise(pixels)
        if row[RIGHT] > row[LEFT]:
            _cut_out(out[index], pixels, int(row[LEFT]), int(row[TOP]), int(row[RIGHT]), int(row[BOTTOM]))


@_compiled
def _pack(levels, packed):
    # Four pixels are three words; shifting words is several times as fast as reading bytes.
    groups = packed.shape[0] // 4
    words, colour = levels[: 12 * groups].view(np.uint32), np.uint32(0xFFFFFF)
    pixels = packed.view(np.uint32)
    for i in range(groups):
        a, b, c = words[3 * i], words[3 * i + 1], words[3 * i + 2]
        pixels[4 * i] = a & colour
        pixels[4 * i + 1] = a >> np.uint32(24) | b << np.uint32(8) & colour
        pixels[4 * i + 2] = b >> np.uint32(16) | c << np.uint32(16) & colour
        pixels[4 * i + 3] = c >> np.uint32(8)
    for i in range(4 * groups, packed.shape[0]):
        red, green, blue = np.int32(levels[3 * i]), np.int32(levels[3 * i + 1]), np.int32(levels[3 * i + 2])
        packed[i] = red | green << _GREEN | blue << _BLUE


@_compiled
def _unpack(packed, levels):
    groups = packed.shape[0] // 4
    words, pixels = levels[: 12 * groups].view(np.uint32), packed.view(np.uint32)
    for i in range(groups):
        a, b, c, d = pixels[4 * i], pixels[4 * i + 1], pixels[4 * i + 2], pixels[4 * i + 3]
        words[3 * i] = a | b << np.uint32(24)
        words[3 * i + 1] = b >> np.uint32(8) | c << np.uint32(16)
        words[3 * i + 2] = c >> np.uint32(16) | d << np.uint32(8)
    for i in range(4 * groups, packed.shape[0]):
        levels[3 * i] = np.uint8(packed[i] & _LEVEL)
        levels[3 * i + 1] = np.uint8(packed[i] >> _GREEN & _LEVEL)
        levels[3 * i + 2] = np.uint8(packed[i] >> _BLUE & _LEVEL)


@_compiled
def _mirror(packed, height, width):
    for row in range(height):
        for column in range(width // 2):
            one, other = row * width + column, row * width + width - 1 - column
            packed[one], packed[other] = packed[other], packed[one]


@_compiled
def _warp(source, height, width, row, target, rows, columns):
    """Bilinear warp; pixels outside the image are black.

    Each row needs three loops. The compiler vectorises the first and the last; it cannot vectorise
    the loads of the second.
    """
    places, right, down = np.empty(columns, np.int32), np.empty(columns, np.float32), np.empty(columns, np.float32)
    corners = np.empty((4, columns), np.int32)
    for r in range(rows):
        line = target[r * columns : (r + 1) * columns]
        x0, y0 = row[1] * np.float32(r) + row[2], row[4] * np.float32(r) + row[5]
        # Slightly wider limits: `_at_the_edge` checks each of these pixels again.
        begin, end = _within(x0, row[0], -1.1, width + 0.1, 0, columns)
        begin, end = _within(y0, row[3], -1.1, height + 0.1, begin, end)
        first, last = _within(x0, row[0], 0.0, width - 1, begin, end)
        first, last = _within(y0, row[3], 0.0, height - 1, first, last)
        line[:begin], line[end:] = 0, 0
        for c in range(begin, first):
            line[c] = _at_the_edge(source, height, width, x0 + row[0] * np.float32(c), y0 + row[3] * np.float32(c))
        for c in range(last, end):
            line[c] = _at_the_edge(source, height, width, x0 + row[0] * np.float32(c), y0 + row[3] * np.float32(c))
        count = last - first
        # Indices start at 0, because the compiler does not vectorise loops with indices that can be
        # negative.
        _locate(x0, y0, row[0], row[3], first, np.int32(width), places[:count], right[:count], down[:count])
        _fetch(source, width, places[:count], corners[0], corners[1], corners[2], corners[3])
        _blend(corners[0], corners[1], corners[2], corners[3], right, down, line[first:last])


@_compiled
def _within(start, step, lowest, highest, begin, end):
    """The part of the range of c from `begin` to `end` in which lowest < start + step c < highest.

    It is shorter by up to a hundredth of a column at each end, as a margin for rounding errors.
    """
    if step == 0:
        return (begin, end) if lowest < start < highest else (begin, begin)
    low, high = (lowest - start) / step, (highest - start) / step
    if step < 0:
        low, high = high, low
    low, high = min(max(low, begin - 2.0), end + 2.0), min(max(high, begin - 2.0), end + 2.0)
    first = max(int(np.ceil(low + 1e-2)), begin)
    return min(first, end), max(min(int(np.floor(high - 1e-2)) + 1, end), min(first, end))


@_compiled
def _locate(x0, y0, of_x, of_y, first, width, places, right, down):
    for i in range(places.shape[0]):
        c = np.float32(np.int32(i + first))
        x, y = x0 + of_x * c, y0 + of_y * c
        left, top = np.int32(x), np.int32(y)
        places[i] = top * width + left
        right[i], down[i] = x - np.float32(left), y - np.float32(top)


@_compiled
def _fetch(source, width, places, p00, p01, p10, p11):
    for i in range(places.shape[0]):
        place = np.uintp(np.uint32(places[i]))
        below = place + np.uintp(width)
        p00[i], p01[i] = source[place], source[place + np.uintp(1)]
        p10[i], p11[i] = source[below], source[below + np.uintp(1)]


@_compiled
def _blend(p00, p01, p10, p11, right, down, result):
    for i in range(result.shape[0]):
        result[i] = _mixed(p00[i], p01[i], p10[i], p11[i], right[i], down[i])


@_compiled
def _mixed(a, b, c, d, right, down):
    wd = right * down
    wb, wc = right - wd, down - wd
    wa = np.float32(1) - wb - wc - wd
    red = _channel(a, wa) + _channel(b, wb) + _channel(c, wc) + _channel(d, wd) + _HALF
    green = (
        _channel(a >> _GREEN, wa) + _channel(b >> _GREEN, wb) + _channel(c >> _GREEN, wc) + _channel(d >> _GREEN, wd)
    ) + _HALF
    blue = (
        _channel(a >> _BLUE, wa) + _channel(b >> _BLUE, wb) + _channel(c >> _BLUE, wc) + _channel(d >> _BLUE, wd)
    ) + _HALF
    return np.int32(red) | np.int32(green) << _GREEN | np.int32(blue) << _BLUE


@_compiled
def _channel(pixel, weight):
    return np.float32(pixel & _LEVEL) * weight


@_compiled
def _at_the_edge(source, height, width, x, y):
    if x <= -1 or y <= -1 or x >= width or y >= height:
        return np.int32(0)
    left, top = int(np.floor(x)), int(np.floor(y))
    corners = np.zeros(4, np.int32)
    for corner in range(4):
        column, row = left + corner % 2, top + corner // 2
        if 0 <= column < width and 0 <= row < height:
            corners[corner] = source[row * width + column]
    return _mixed(corners[0], corners[1], corners[2], corners[3], np.float32(x - left), np.float32(y - top))


@_compiled
def _recolour(packed, row):
    red, green, blue = 0, 0, 0
    for i in range(packed.shape[0]):
        red += packed[i] & _LEVEL
        green += packed[i] >> _GREEN & _LEVEL
        blue += packed[i] >> _BLUE & _LEVEL
    luma = (0.299 * red + 0.587 * green + 0.114 * blue) / packed.shape[0]
    # Half a level is added, because the conversion to integers below rounds down.
    offset = np.float32(row[PIVOT] * luma) + _HALF
    a, b, c = row[6], row[7], row[8]
    d, e, f = row[9], row[10], row[11]
    g, h, k = row[12], row[13], row[14]
    lowest, highest = np.float32(0), np.float32(255.5)
    for i in range(packed.shape[0]):
        x = np.float32(packed[i] & _LEVEL)
        y = np.float32(packed[i] >> _GREEN & _LEVEL)
        z = np.float32(packed[i] >> _BLUE & _LEVEL)
        red = np.int32(min(max(a * x + b * y + c * z + offset, lowest), highest))
        green = np.int32(min(max(d * x + e * y + f * z + offset, lowest), highest))
        blue = np.int32(min(max(g * x + h * y + k * z + offset, lowest), highest))
        packed[i] = red | green << _GREEN | blue << _BLUE


@_compiled
def _solarise_and_posterise(levels, threshold, mask):
    for i in range(levels.shape[0]):
        level = levels[i]
        if level >= threshold:
            level = np.uint8(255) - level
        levels[i] = level & mask


@_compiled
def _sharpen(levels, before, height, width, factor):
    before[:] = levels
    line = 3 * width
    sums = np.empty(line, np.int32)
    away, thirteenth = np.float32(1) - factor, np.float32(1 / 13)
    half, lowest, highest = np.float32(0.5), np.float32(0), np.float32(255.5)
    # Slices, because the compiler vectorises loops with indices that start at 0.
    left, middle, right = sums[:-6], sums[3:-3], sums[6:]
    for row in range(1, height - 1):
        start = row * line
        above, here, below = before[start - line : start], before[start : start + line], before[start + line :]
        for i in range(line):
            sums[i] = np.int32(above[i]) + np.int32(here[i]) + np.int32(below[i])
        here, changed = before[start + 3 : start + line - 3], levels[start + 3 : start + line - 3]
        for i in range(line - 6):
            level = np.float32(here[i])
            total = np.float32(left[i] + middle[i] + right[i]) + np.float32(4) * level
            # An integer divided by 13 is never close to a half, so this rounds like a division.
            smooth = np.float32(np.int32(total * thirteenth + half))
            value = min(max(level + away * (smooth - level) + half, lowest), highest)
            changed[i] = np.uint8(np.int32(value))


@_compiled
def _equalise(levels):
    count = levels.shape[0] // 3
    for channel in range(3):
        histogram = np.zeros(256, np.int64)
        for i in range(count):
            histogram[levels[3 * i + channel]] += 1
        last = 255
        while last > 0 and histogram[last] == 0:
            last -= 1
        step = (count - histogram[last]) // 255
        if step == 0:
            continue
        table = np.empty(256, np.uint8)
        below = 0
        for level in range(256):
            table[level] = min((step // 2 + below) // step, 255)
            below += histogram[level]
        for i in range(count):
            levels[3 * i + channel] = table[levels[3 * i + channel]]


@_compiled
def _cut_out(image, levels, left, top, right, bottom):
    count = levels.shape[0] // 3
    for channel in range(3):
        total = 0
        for i in range(count):
            total += levels[3 * i + channel]
        image[top:bottom, left:right, channel] = np.uint8(np.rint(total / count))
