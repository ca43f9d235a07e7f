"""Reads image files, with one clear error for each way in which they can be bad."""

import os

from PIL import Image, UnidentifiedImageError

from kpose.errors import InputError


def read_image(path):
    """The image of a file as a PIL image in RGB, fully decoded.

    Raises:
        InputError: the file is missing, no image, or cut short.
    """
    if not os.path.isfile(path):
        raise InputError(f"{path}: no such image file: check the folder that its name is relative to")
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except UnidentifiedImageError:
        raise InputError(f"{path}: not an image, or of an unknown format") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: cannot be decoded ({error}): the file is damaged or cut short") from None
