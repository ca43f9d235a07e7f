"""Reads image files, with one clear error for each way in which they can be bad.

Whatever an image is (grey-scale, CMYK, with a palette or an alpha channel, 16 bits deep, of another format than its
name says), it becomes RGB. One of more pixels than Pillow's limit for decompression bombs is refused by its header.
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


def read_image(path):
    """The image of a file as a PIL image in RGB, fully decoded.

    Raises:
        InputError: the file is missing, no image, or cut short.
    """
    return open_image(path).decode()


def open_image(path):
    """The `EncodedImage` of a file.

    Raises:
        InputError: the file is missing, or no image.
    """
    return EncodedImage(_read_file(path), path)


class EncodedImage:
    """An image whose header alone has been read.

    Args:
        data: the file's bytes.
        name: what to call it in errors.

    Attributes:
        width, height: in pixels, as stored.
        kinds: what is unusual about it: a set of "grey-scale", "CMYK", "not a JPEG" ...

    Raises:
        InputError: no image, or one of too many pixels.
    """

    def __init__(self, data, name):
        self.name = name
        self._data = data
        self._upright = False
        self._orientation = 1
        self.kinds = set()
        self._jpeg = _PlainJpeg.parse(data)
        if self._jpeg:
            # By far the most: Pillow then reads the header once, when it decodes.
            self.width, self.height = self._jpeg.width, self._jpeg.height
            return
        self._image = self._open(data)
        self.width, self.height = self._image.size
        # Of a PNG, Pillow would decode the pixels to look for it.
        if self._image.format != "PNG":
            self._orientation = self._image.getexif().get(_ORIENTATION, 1)
        if self._image.format != "JPEG":
            self.kinds.add(f"{self._image.format} format")
        if self._image.mode != "RGB":
            self.kinds.add(_MODES.get(self._image.mode, f"mode {self._image.mode}"))

    def _open(self, data):
        try:
            with warnings.catch_warnings():
                # Half of the limit is worth a warning to Pillow, and the whole an error.
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                return Image.open(io.BytesIO(data))
        except Image.DecompressionBombError as error:
            raise InputError(f"{self.name}: refused by its header: {error}") from None
        except UnidentifiedImageError:
            raise InputError(f"{self.name}: not an image, or of an unknown format") from None
        except (OSError, SyntaxError, ValueError) as error:
            raise self._damaged(error) from None

    def _damaged(self, error):
        return InputError(f"{self.name}: cannot be decoded ({error}): the file is damaged or cut short")

    def fit(self, width, height):
        """Chooses between the stored pixels and those turned as EXIF says, by the size that labels were made for.

        COCO's labels are for the stored pixels. Other tools label what a viewer shows; where that has another shape,
        the labels' size tells.

        Returns:
            Whether the image has that size, one way or the other.
        """
        if (width, height) == (self.width, self.height):
            if self._orientation != 1:
                self.kinds.add("EXIF orientation not applied: the labels fit the stored pixels")
            return True
        if self._orientation in _TURNED and (width, height) == (self.height, self.width):
            self._upright = True
            self.width, self.height = width, height
            self.kinds.add("turned as EXIF says: the labels fit that")
            return True
        return False

    def turn_upright(self):
        """Chooses the pixels as a viewer shows them: turned as EXIF says."""
        if self._orientation == 1:
            return
        self._upright = True
        if self._orientation in _TURNED:
            self.width, self.height = self.height, self.width
        self.kinds.add("turned as EXIF says")

    def decode(self, bottom=None, shrink=1):
        """The pixels.

        Args:
            bottom: the row below which nothing is needed: a JPEG is decoded no further.
            shrink: the image may come smaller by as much, or less, if that saves decoding.

        Returns:
            PIL image in RGB, perhaps shrunk and without its lowest rows.

        Raises:
            InputError: the file is cut short or damaged.
        """
        image = self._open(self._jpeg.until(bottom)) if self._jpeg else self._image
        try:
            if image.format == "JPEG" and not self._upright and shrink >= 2:
                image.draft(None, (-(-image.width // int(shrink)), -(-image.height // int(shrink))))
            image.load()
            if self._upright:
                image = ImageOps.exif_transpose(image)
            return _to_rgb(image)
        except (OSError, SyntaxError, ValueError) as error:
            raise self._damaged(error) from None


_MODES = {"L": "grey-scale", "1": "grey-scale", "LA": "grey-scale", "CMYK": "CMYK", "P": "palette", "RGBA": "alpha"}


def _to_rgb(image):
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):
        # Pillow would clip 16 bits to the lowest 8.
        image = image.convert("I").point(lambda level: level * (1 / 256)).convert("L")
    return image.convert("RGB")


class _PlainJpeg:
    """The header of a JPEG of the usual kind: baseline, in colour, one scan, nothing in it that turns the image."""

    def __init__(self, data, frame):
        self._data, self._frame = data, frame
        self.height = int.from_bytes(data[frame + 5 : frame + 7], "big")
        self.width = int.from_bytes(data[frame + 7 : frame + 9], "big")

    @classmethod
    def parse(cls, data):
        """None where it is another kind of file."""
        position, frame = 2, None
        if data[:2] != b"\xff\xd8":
            return None
        while position + 10 < len(data) and data[position] == 0xFF:
            marker, length = data[position + 1], int.from_bytes(data[position + 2 : position + 4], "big")
            if marker in (0xC0, 0xC1) and frame is None and data[position + 4] == 8 and data[position + 9] == 3:
                frame = position
            elif marker == 0xDA:
                return cls(data, frame) if frame and data[position + 4] == 3 and cls(data, frame).height else None
            elif marker not in (0xC4, 0xDB, 0xDD, 0xE0, 0xFE):
                # Other kinds of frame; EXIF, colour transforms, several pictures in one file.
                return None
            position += 2 + length
        return None

    def until(self, bottom):
        """The file with a header that says that it ends below row `bottom` (None: whole): decoding then ends there."""
        # Blocks are up to 32 rows high, and the rows of colour next to the last are interpolated.
        kept = self.height if bottom is None else max(int(bottom) // 32 + 2, 1) * 32
        if kept >= self.height:
            return self._data
        frame = self._frame
        return b"".join((self._data[: frame + 5], kept.to_bytes(2, "big"), self._data[frame + 7 :]))


def _read_file(path):
    if not files.is_file(path):
        raise InputError(f"{path}: no such image file: check the folder that its name is relative to")
    try:
        return files.read_bytes(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None


class ImageFolder:
    """The images that annotations name: in a folder, or in a .zip file that is read in place.

    In a .zip file the images may lie in a folder of their own, as in COCO's (`train2017/000000000009.jpg`).

    Args:
        path: the folder or .zip file; a URL such as gs://bucket/train2017 is read through TensorFlow.

    Raises:
        InputError: it does not exist, or is no .zip file.
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
            # None: in several folders, as in LSP's, which has each picture again with its skeleton drawn over it.
            base = os.path.basename(name)
            self._members[base] = None if base in self._members else name
        self._members |= {name: name for name in self._zip.namelist()}

    def __contains__(self, file_name):
        if self._zip is None:
            return files.is_file(os.path.join(self.path, file_name))
        return file_name in self._members

    def size(self, file_name):
        """(width, height) in pixels of the image called `file_name`, as stored.

        Raises:
            InputError: it is missing, or no image.
        """
        image = self.open(file_name)
        return image.width, image.height

    def open(self, file_name):
        """The `EncodedImage` called `file_name`.

        Raises:
            InputError: it is missing, or no image.
        """
        if self._zip is None:
            path = os.path.join(self.path, file_name)
            return EncodedImage(_read_file(path), path)
        name = f"{self.path}/{file_name}"
        if file_name not in self._members:
            raise InputError(f"{name}: no such image in the .zip file")
        if self._members[file_name] is None:
            raise InputError(f"{name}: several folders of the .zip file have it: unpack it and name the right one")
        try:
            data = self._zip.read(self._members[file_name])
        except (zipfile.BadZipFile, OSError, zlib.error, RuntimeError) as error:
            raise InputError(f"{name}: cannot be read ({error})") from None
        return EncodedImage(data, name)
