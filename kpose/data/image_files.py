"""Reads image files and reports each kind of bad file with a clear error.

Every image becomes RGB: grey-scale, CMYK, palette, 16 bits per channel, or a format other than that
of its name. Transparent pixels become white. An animation is its first frame. An image with more
pixels than Pillow's limit for decompression bombs is rejected before it is decoded.
"""

import importlib
import io
import os
import struct
import threading
import warnings
import zipfile
import zlib

import numpy as np
from PIL import Image, UnidentifiedImageError

from kpose.core import files
from kpose.core.errors import InputError, first_line

# The formats that prediction decodes, and Pillow's modules for them. Other formats of Pillow start
# programs or have rarely used decoders, and images for prediction come from anywhere.
FORMATS = {
    "JPEG": "JpegImagePlugin",
    "PNG": "PngImagePlugin",
    "WEBP": "WebPImagePlugin",
    "BMP": "BmpImagePlugin",
    "TIFF": "TiffImagePlugin",
    "GIF": "GifImagePlugin",
    "AVIF": "AvifImagePlugin",
    "JPEG2000": "Jpeg2KImagePlugin",
    # The package pillow-heif adds it.
    "HEIF": None,
}
# The usual suffixes of files in these formats.
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif"),
    *(".jp2", ".j2k", ".jpx", ".heic", ".heif"),
)
_ORIENTATION = 0x0112
# EXIF orientations: how the stored pixels become upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Those that exchange width and height.
_TURNED = (5, 6, 7, 8)
_MODES = {"L": "grey-scale", "1": "grey-scale", "LA": "grey-scale", "CMYK": "CMYK", "P": "palette", "RGBA": "alpha"}
ANIMATION = "animation: the first frame is used"
# What follows the size of the first box of an HEIC file.
_HEIC_BRANDS = tuple(b"ftyp" + brand for brand in (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"))
# The filters of warnings belong to the whole process, and images are read in several threads.
_warnings_lock = threading.Lock()


def open_image(path, formats=None):
    """The `EncodedImage` of a file.

    Args:
        path: the file.
        formats: as for `EncodedImage`.

    Raises:
        InputError: the file is missing, or is not an image.
    """
    return EncodedImage(_read_file(path), path, formats)


class EncodedImage:
    """An image whose header has been read and whose pixels have not been decoded.

    Args:
        data: the bytes of the file.
        name: name of the file in error messages.
        formats: names of the formats that are decoded, such as `FORMATS`; None: all of Pillow's.

    Attributes:
        width, height: in pixels, as stored or, after `fit` or `turn_upright`, as turned.
        kinds: set of unusual properties, such as "grey-scale", "CMYK" or "PNG format".

    Raises:
        InputError: not an image, or too many pixels.
    """

    def __init__(self, data, name, formats=None):
        self.name = name
        self.kinds = set()
        self._upright = False
        self._data = data
        self._image = self._open(data, formats)
        self.width, self.height = self._image.size
        self._orientation = orientation(self._image, data)
        if self._image.format != "JPEG":
            self.kinds.add(f"{self._image.format} format")
        if self._image.mode != "RGB":
            self.kinds.add(_MODES.get(self._image.mode, f"mode {self._image.mode}"))
        if is_animation(self._image):
            self.kinds.add(ANIMATION)

    def _open(self, data, formats):
        if not data:
            raise InputError(f"{self.name}: the file is empty")
        if data[4:12] in _HEIC_BRANDS:
            self._register_heic()
        try:
            with _warnings_lock, warnings.catch_warnings():
                # Pillow warns above its limit of pixels and raises an error above twice the limit.
                # It also warns of damaged headers.
                warnings.simplefilter("ignore")
                return Image.open(io.BytesIO(data), formats=_registered(formats))
        except Image.DecompressionBombError as error:
            raise InputError(f"{self.name}: rejected because of its header: {first_line(error)}") from None
        except UnidentifiedImageError:
            raise InputError(f"{self.name}: not an image, or its format is not known") from None
        # Pillow's readers raise errors of many kinds for damaged files (struct.error, KeyError ...).
        except Exception as error:
            raise self._damaged(error) from None

    def _register_heic(self):
        try:
            import pillow_heif
        except ImportError:
            raise InputError(
                f"{self.name}: HEIC images need the package pillow-heif: pip install pillow-heif, or save as JPEG"
            ) from None
        pillow_heif.register_heif_opener()

    def _damaged(self, error):
        return InputError(f"{self.name}: cannot be decoded ({first_line(error)}): the file is damaged or cut short")

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
            InputError: the file is cut short or damaged, or its pixels have no known range.
        """
        image = self._image
        try:
            if image.format == "JPEG" and not self._upright and shrink >= 2:
                # The needed rows give the scale, in complete blocks of up to 32 rows. The height of
                # the image may be odd, and cannot be halved.
                rows = image.height if bottom is None else min(image.height, max(int(bottom) // 32 + 2, 1) * 32)
                scale = min(side // -(-side // int(shrink)) for side in (image.width, rows))
                image.draft(None, (image.width // scale, image.height // scale))
            self._load()
            return upright_rgb(image, self._orientation if self._upright else 1, self.name)
        except InputError:
            raise
        except Exception as error:
            raise self._damaged(error) from None

    def _load(self):
        if self._image.format != "TIFF":
            self._image.load()
            return
        # Its reader warns of damaged tags.
        with _warnings_lock, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._image.load()

    def pixels(self):
        """The pixels, [H, W, 3] uint8 RGB.

        A plain JPEG is decoded by simplejpeg. It gives the same pixels as Pillow in half of the time.

        Raises:
            InputError: as `decode`.
        """
        if self._image.format == "JPEG" and self._image.mode in ("RGB", "L"):
            import simplejpeg

            try:
                pixels = simplejpeg.decode_jpeg(self._data, "RGB")
            # It refuses every irregular file. Pillow decodes some of them, and names the damage.
            except ValueError:
                pixels = None
            if pixels is not None and pixels.shape == (self._image.height, self._image.width, 3):
                turn = _UPRIGHT.get(self._orientation) if self._upright else None
                return pixels if turn is None else np.asarray(Image.fromarray(pixels).transpose(turn))
        return np.asarray(self.decode())


def _registered(formats):
    """The formats that this build of Pillow can read, as a list; None for None."""
    if formats is None:
        return None
    for name in formats:
        # Importing a module of Pillow registers its format.
        if name not in Image.OPEN and FORMATS.get(name):
            importlib.import_module(f"PIL.{FORMATS[name]}")
    return [name for name in formats if name in Image.OPEN]


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
        return value if value in _UPRIGHT else 1
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
    return image.transpose(_UPRIGHT[turn]) if turn in _UPRIGHT else image


def _to_rgb(image, name):
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "F" or image.mode.startswith("I"):
        return _from_levels(image, name).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    if image.mode == "LAB":
        raise InputError(f"{name}: has the colour space LAB: save it as RGB")
    return image.convert("RGB")


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


def _read_file(path):
    try:
        exists = files.is_file(path)
    except Exception as error:
        # A URL of a kind that TensorFlow cannot read.
        raise InputError(f"{path}: cannot be read ({first_line(error)})") from None
    if not exists:
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
