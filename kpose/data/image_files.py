"""Reads image files and reports each kind of bad file with a clear error.

Every image becomes RGB: grey-scale, CMYK, palette, alpha channel, 16 bits per channel, or a format
other than that of its name. An image with more pixels than Pillow's limit for decompression bombs
is rejected before it is decoded.
"""

import io
import os
import warnings
import zipfile
import zlib

from PIL import Image, ImageOps, UnidentifiedImageError

from kpose.core import files
from kpose.core.errors import InputError

# EXIF orientations that exchange width and height.
_TURNED = (5, 6, 7, 8)
_ORIENTATION = 0x0112
_MODES = {"L": "grey-scale", "1": "grey-scale", "LA": "grey-scale", "CMYK": "CMYK", "P": "palette", "RGBA": "alpha"}


def open_image(path):
    """The `EncodedImage` of a file.

    Raises:
        InputError: the file is missing, or is not an image.
    """
    return EncodedImage(_read_file(path), path)


class EncodedImage:
    """An image whose header has been read and whose pixels have not been decoded.

    Args:
        data: the bytes of the file.
        name: name of the file in error messages.

    Attributes:
        width, height: in pixels, as stored or, after `fit` or `turn_upright`, as turned.
        kinds: set of unusual properties, such as "grey-scale", "CMYK" or "PNG format".

    Raises:
        InputError: not an image, or too many pixels.
    """

    def __init__(self, data, name):
        self.name = name
        self.kinds = set()
        self._upright = False
        self._orientation = 1
        self._image = self._open(data)
        self.width, self.height = self._image.size
        # For the EXIF data of a PNG, Pillow would decode its pixels.
        if self._image.format != "PNG":
            self._orientation = self._image.getexif().get(_ORIENTATION, 1)
        if self._image.format != "JPEG":
            self.kinds.add(f"{self._image.format} format")
        if self._image.mode != "RGB":
            self.kinds.add(_MODES.get(self._image.mode, f"mode {self._image.mode}"))

    def _open(self, data):
        try:
            with warnings.catch_warnings():
                # Pillow warns above its limit and raises an error above twice the limit.
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                return Image.open(io.BytesIO(data))
        except Image.DecompressionBombError as error:
            raise InputError(f"{self.name}: rejected because of its header: {error}") from None
        except UnidentifiedImageError:
            raise InputError(f"{self.name}: not an image, or its format is not known") from None
        except (OSError, SyntaxError, ValueError) as error:
            raise self._damaged(error) from None

    def _damaged(self, error):
        return InputError(f"{self.name}: cannot be decoded ({error}): the file is damaged or cut short")

    def fit(self, width, height):
        """Chooses the stored or the EXIF-turned pixels by the size of the labelled image.

        COCO's labels are for the stored pixels. Other tools label the image as a viewer shows it.
        If the turned image has another shape, the size shows which of the two was labelled.

        Returns:
            Whether the stored or the turned image has this size.
        """
        if (width, height) == (self.width, self.height):
            if self._orientation != 1:
                self.kinds.add("EXIF orientation not applied: the labels fit the stored pixels")
            return True
        if self._orientation in _TURNED and (width, height) == (self.height, self.width):
            self._upright = True
            self.width, self.height = width, height
            self.kinds.add("turned by its EXIF orientation: the labels fit the turned pixels")
            return True
        return False

    def check_size(self, width, height):
        """Chooses the pixels as `fit`.

        Raises:
            InputError: neither the stored nor the turned image has this size.
        """
        if not self.fit(width, height):
            raise InputError(
                f"{self.name}: the image has {self.width} x {self.height} pixels, but its labels are for {width} x "
                f"{height}: give the images for which the labels were made"
            )

    def turn_upright(self):
        """Chooses the pixels as a viewer shows them: turned by the EXIF orientation."""
        if self._orientation == 1:
            return
        self._upright = True
        if self._orientation in _TURNED:
            self.width, self.height = self.height, self.width
        self.kinds.add("turned by its EXIF orientation")

    def decode(self, bottom=None, shrink=1):
        """The pixels as a PIL image in RGB.

        Args:
            bottom: the last row that is needed; None: all rows are.
            shrink: the image may be smaller than stored by up to this factor. A JPEG is then
                decoded at 1/2, 1/4 or 1/8 of its size, which is faster.

        Raises:
            InputError: the file is cut short or damaged.
        """
        image = self._image
        try:
            if image.format == "JPEG" and not self._upright and shrink >= 2:
                # The needed rows give the scale, in complete blocks of up to 32 rows. The height of
                # the image may be odd, and cannot be halved.
                rows = image.height if bottom is None else min(image.height, max(int(bottom) // 32 + 2, 1) * 32)
                scale = min(side // -(-side // int(shrink)) for side in (image.width, rows))
                image.draft(None, (image.width // scale, image.height // scale))
            image.load()
            if self._upright:
                image = ImageOps.exif_transpose(image)
            return _to_rgb(image)
        except (OSError, SyntaxError, ValueError) as error:
            raise self._damaged(error) from None


def _to_rgb(image):
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):
        # Pillow would clip 16 bits to the lowest 8.
        image = image.convert("I").point(lambda level: level * (1 / 256)).convert("L")
    return image.convert("RGB")


def _read_file(path):
    if not files.is_file(path):
        raise InputError(f"{path}: no such image file: check the folder that contains the images")
    try:
        return files.read_bytes(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None


class ImageFolder:
    """Images by file name, in a folder or in a .zip file that is not unpacked.

    The images of a .zip file may be in a folder inside it, as in COCO's
    (`train2017/000000000009.jpg`); they have their name with and without that folder.

    Args:
        path: the folder or .zip file; a URL such as gs://bucket/train2017 is read through
            TensorFlow.

    Raises:
        InputError: it does not exist, or is neither a folder nor a .zip file.
    """

    def __init__(self, path):
        self.path = path
        self._zip = None
        if files.is_folder(path):
            return
        if not files.is_file(path):
            raise InputError(f"{path}: no such image folder or .zip file")
        try:
            self._zip = zipfile.ZipFile(files.open_file(path, "rb"))
        except (zipfile.BadZipFile, OSError) as error:
            raise InputError(f"{path}: neither a folder nor a .zip file ({error})") from None
        self._members = {}
        for name in self._zip.namelist():
            # None: the name is in several folders. LSP's .zip has each image again with its
            # skeleton drawn on it.
            base = os.path.basename(name)
            self._members[base] = None if base in self._members else name
        self._members |= {name: name for name in self._zip.namelist()}

    def __contains__(self, file_name):
        if self._zip is None:
            return files.is_file(os.path.join(self.path, file_name))
        return file_name in self._members

    def size(self, file_name):
        """(width, height) in pixels, as stored, of an image.

        Raises:
            InputError: the image is missing, or is not an image.
        """
        image = self.open(file_name)
        return image.width, image.height

    def open(self, file_name):
        """The `EncodedImage` with a file name.

        Raises:
            InputError: the image is missing, or is not an image.
        """
        if self._zip is None:
            return open_image(os.path.join(self.path, file_name))
        name = f"{self.path}/{file_name}"
        if file_name not in self._members:
            raise InputError(f"{name}: no such image in the .zip file")
        if self._members[file_name] is None:
            raise InputError(
                f"{name}: several folders of the .zip file have this image: unpack it and give one folder as the images"
            )
        try:
            data = self._zip.read(self._members[file_name])
        except (zipfile.BadZipFile, OSError, zlib.error, RuntimeError) as error:
            raise InputError(f"{name}: cannot be read ({error})") from None
        return EncodedImage(data, name)
