"""Cutting a region out of an image: what the network will see of a person."""

import io

import numpy as np
from PIL import Image

JPEG_QUALITY = 95


def crop_image(image, region, size):
    """The pixels of a region, stretched to `size`; black outside the image.

    Bilinear, with the kernel widened when the picture shrinks (no aliasing), and renormalised at the image's edge:
    to rounding the same as TensorFlow's ScaleAndTranslate, which the exported model uses on whole photographs.

    Args:
        image: PIL image in RGB.
        region: [4] xywh in the image's pixels, of positive width and height; may reach beyond the image.
        size: (height, width) of the result in pixels.

    Returns:
        PIL image.
    """
    x, y, w, h = (float(v) for v in region)
    height, width = size
    if x >= 0 and y >= 0 and x + w <= image.width and y + h <= image.height:
        return image.resize((width, height), Image.Resampling.BILINEAR, box=(x, y, x + w, y + h))
    # Outside, zeros have to be weighted out again: the same resampling of a mask says how much was inside.
    left, top = int(np.floor(x - w / width)) - 1, int(np.floor(y - h / height)) - 1
    right, bottom = int(np.ceil(x + w + w / width)) + 1, int(np.ceil(y + h + h / height)) + 1
    box = (x - left, y - top, x - left + w, y - top + h)

    def resample(picture):
        part = picture.crop((left, top, right, bottom))
        return np.asarray(part.resize((width, height), Image.Resampling.BILINEAR, box=box), np.float32)

    inside = resample(Image.new("L", image.size, 255)) / 255.0
    pixels = resample(image) / np.maximum(inside, 1e-3)[..., None]
    columns = x + (np.arange(width) + 0.5) * w / width
    rows = y + (np.arange(height) + 0.5) * h / height
    within = ((rows >= 0) & (rows <= image.height))[:, None] & ((columns >= 0) & (columns <= image.width))
    return Image.fromarray(np.uint8(np.rint(np.clip(pixels * within[..., None], 0, 255))))


def encode_jpeg(image):
    """A PIL image as JPEG bytes, without chroma subsampling (crops are small: colour edges matter)."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()
