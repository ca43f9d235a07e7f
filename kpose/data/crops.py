"""Cuts the crop of a person out of an image, and encodes it."""

import functools
import io

import cykooz_resizer as resizer
import numpy as np
from PIL import Image

JPEG_QUALITY = 95
# Chroma at half the resolution, as in most photos. Crops with it decode 1.5 times as fast as crops
# without it.
CHROMA_SUBSAMPLING = "4:2:0"


def crop_image(image, region, size):
    """The pixels of a region, resized to `size`; black outside the image.

    The method is bilinear. Its kernel widens if the image shrinks (no aliasing) and is renormalised
    at the image's edge. The result equals that of TensorFlow's ScaleAndTranslate, which the
    exported model uses, up to rounding.

    Args:
        image: PIL image in RGB.
        region: [4] xywh in the image's pixels, of positive width and height; may reach beyond the
            image.
        size: (height, width) of the result in pixels.

    Returns:
        PIL image.
    """
    x, y, w, h = (float(v) for v in region)
    height, width = size
    if x >= 0 and y >= 0 and x + w <= image.width and y + h <= image.height:
        return _resample(image, (x, y, w, h), size)
    # PIL pads the part with zeros. Divide them out of each row and column that the kernel shares
    # with the outside.
    columns, left, right = _inside(image.width, x, w, width)
    rows, top, bottom = _inside(image.height, y, h, height)
    part = image.crop((left, top, right, bottom))
    pixels = np.array(_resample(part, (x - left, y - top, w, h), size))
    for axis, share in ((0, rows), (1, columns)):
        edge = np.flatnonzero(share < 1)
        inside = share[edge].reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        lines = np.take(pixels, edge, axis).astype(np.float32)
        lines = np.where(inside > 0, lines / np.maximum(inside, 1e-3), 0)
        index = (edge, slice(None)) if axis == 0 else (slice(None), edge)
        pixels[index] = np.rint(np.clip(lines, 0, 255))
    return Image.fromarray(pixels)


def _inside(side, start, length, count):
    """The share of each sample's kernel that is inside the image, on one axis.

    Args:
        side: size of the image in pixels.
        start, length: the region in pixels.
        count: number of samples.

    Returns:
        ([count] share of the kernel, 0 where the centre of the sample is outside; first pixel and
        last + 1 pixel that the kernels reach, which may be outside).
    """
    reach = length / count
    first, last = int(np.floor(start - reach)) - 1, int(np.ceil(start + length + reach)) + 1
    pixels = np.arange(first, last)
    line = Image.fromarray(((pixels >= 0) & (pixels < side)).astype(np.float32)[None])
    box = (start - first, 0, start - first + length, 1)
    share = np.asarray(line.resize((count, 1), Image.Resampling.BILINEAR, box=box))[0]
    centres = start + (np.arange(count) + 0.5) * reach
    return np.where((centres >= 0) & (centres <= side), share, 0), first, last


# Cached, because a resizer keeps its buffers from image to image. Each process has its own.
@functools.cache
def _resizer():
    return resizer.Resizer()


_TRIANGLE = resizer.ResizeAlg.convolution(resizer.FilterType.bilinear)


def _resample(image, box, size):
    result = Image.new("RGB", (size[1], size[0]))
    options = resizer.ResizeOptions(resize_alg=_TRIANGLE, crop_box=resizer.CropBox(*box), use_alpha=False)
    _resizer().resize_pil(image, result, options)
    return result


def encode_jpeg(image):
    """A PIL image as JPEG bytes."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=CHROMA_SUBSAMPLING)
    return buffer.getvalue()
