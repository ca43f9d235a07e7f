"""PIL images of any mode as upright images in RGB."""

import struct

import numpy as np
from PIL import Image

from kpose.core.errors import InputError

_ORIENTATION = 0x0112
_STRIP_PIXELS = 4_000_000
# EXIF orientations: how the stored pixels become upright.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def is_animation(image):
    """Whether a PIL image has several frames that are shown one after the other."""
    try:
        # The frames of an MPO are views of a scene, the first is the photograph.
        return image.format in ("GIF", "WEBP", "PNG", "AVIF") and bool(getattr(image, "is_animated", False))
    except Exception:
        # The second frame is damaged.
        return True


def orientation(image, data=b""):
    """The EXIF orientation of a PIL image, 1 to 8; 1 if there is none or it is damaged.

    Args:
        image: the PIL image. Its pixels are not decoded.
        data: the file, in which a PNG may have its EXIF data behind the pixels.
    """
    if image.format == "TIFF":
        # Pillow turns these itself.
        return 1
    try:
        # The method of PNG images decodes the pixels first, in order to find data behind them.
        exif = Image.Image.getexif(image) if image.format == "PNG" else image.getexif()
        if image.format == "PNG" and _ORIENTATION not in exif:
            exif = Image.Exif()
            exif.load(b"Exif\0\0" + _png_chunk(data, b"eXIf"))
        value = exif.get(_ORIENTATION, 1)
        return value if value in UPRIGHT else 1
    except Exception:
        return 1


def _png_chunk(data, kind):
    """The content of the first chunk of a kind in a PNG file; b"" without one."""
    start = 8
    while start + 8 <= len(data):
        length, name = struct.unpack(">I4s", data[start : start + 8])
        if name == kind:
            return data[start + 8 : start + 8 + length]
        start += 12 + length
    return b""


def upright_rgb(image, turn=1, name="the image"):
    """A PIL image in RGB, with transparent pixels in white.

    Args:
        image: the decoded PIL image, of any mode.
        turn: EXIF orientation that is applied.
        name: the image's name, for errors.

    Raises:
        InputError: the mode cannot be converted, or its values have no known range.
    """
    image = _to_rgb(image, name)
    return image.transpose(UPRIGHT[turn]) if turn in UPRIGHT else image


def _to_rgb(image, name):
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "F" or image.mode.startswith("I"):
        return _from_levels(image, name).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info:
        return _on_white(image)
    if image.mode == "LAB":
        raise InputError(f"{name}: has the colour space LAB: save it as RGB")
    return image.convert("RGB")


def _on_white(image):
    """A PIL image with transparency on white, in RGB; by strips of rows, for less memory."""
    result = Image.new("RGB", image.size)
    rows = max(_STRIP_PIXELS // image.width, 1)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height))).convert("RGBA")
        white = Image.new("RGBA", strip.size, (255, 255, 255, 255))
        result.paste(Image.alpha_composite(white, strip).convert("RGB"), (0, top))
    return result


def _from_levels(image, name):
    """An image of 16 or 32 bits per pixel as one of 8 bits, mode "L".

    Integers are 0..65535, floats 0..1 or 0..255. Integers of 32 bits up to 255 have 8 bits.

    Raises:
        InputError: other values.
    """
    levels = np.asarray(image)
    low, high = float(levels.min()), float(levels.max())
    limits = (1, 255) if image.mode == "F" else (65535,)
    if image.mode == "I" and image.format == "TIFF":
        limits = (255, 65535)
    # The comparisons are false for NaN.
    limit = next((limit for limit in limits if 0 <= low and high <= limit), None)
    if limit is None:
        wanted = " or ".join(f"0 to {limit}" for limit in limits)
        raise InputError(
            f"{name}: pixels of 32 bits from {low:g} to {high:g}: they must be from {wanted}, or save it with 8 bits"
        )
    if limit == 65535:
        return Image.fromarray((levels // 256).astype(np.uint8))
    return Image.fromarray(np.rint(levels * (255 / limit)).astype(np.uint8))
