"""Reads image files, with one clear error for each way in which they can be bad."""

import io
import os
import zipfile

from PIL import Image, UnidentifiedImageError

from kpose.errors import InputError


def read_image(path):
    """The image of a file as a PIL image in RGB, fully decoded.

    Raises:
        InputError: the file is missing, no image, or cut short.
    """
    if not os.path.isfile(path):
        raise InputError(f"{path}: no such image file: check the folder that its name is relative to")
    return _decode(path, path)


def _decode(file, name):
    try:
        with Image.open(file) as image:
            return image.convert("RGB")
    except UnidentifiedImageError:
        raise InputError(f"{name}: not an image, or of an unknown format") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{name}: cannot be decoded ({error}): the file is damaged or cut short") from None


class ImageFolder:
    """The images that annotations name: in a folder, or in a .zip file that is read in place.

    In a .zip file the images may lie in a folder of their own, as in COCO's (`train2017/000000000009.jpg`).

    Args:
        path: the folder or .zip file.

    Raises:
        InputError: it does not exist, or is no .zip file.
    """

    def __init__(self, path):
        self.path = path
        self._zip = None
        if os.path.isdir(path):
            return
        if not os.path.isfile(path):
            raise InputError(f"{path}: no such image folder or .zip file")
        try:
            self._zip = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise InputError(f"{path}: neither a folder nor a .zip file ({error})") from None
        self._members = {os.path.basename(name): name for name in self._zip.namelist()}
        self._members |= {name: name for name in self._zip.namelist()}

    def read(self, file_name):
        """The image called `file_name` as a PIL image in RGB.

        Raises:
            InputError: it is missing, no image, or cut short.
        """
        if self._zip is None:
            return read_image(os.path.join(self.path, file_name))
        name = f"{self.path}/{file_name}"
        if file_name not in self._members:
            raise InputError(f"{name}: no such image in the .zip file")
        try:
            data = self._zip.read(self._members[file_name])
        except (zipfile.BadZipFile, OSError) as error:
            raise InputError(f"{name}: cannot be read ({error})") from None
        return _decode(io.BytesIO(data), name)
