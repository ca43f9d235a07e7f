"""Reads image files and reports each kind of bad file with a clear error.

Every image becomes RGB: grey-scale, CMYK, palette, 16 bits per channel, or a format other than that
of its name. Transparent pixels become white. An animation is its first frame. An image that
announces too many pixels, or scans, is rejected before it is decoded.
"""

import importlib
import io
import os
import threading
import warnings
import zipfile
import zlib

import numpy as np
from PIL import Image, UnidentifiedImageError

from kpose.core import files
from kpose.core.errors import InputError, first_line
from kpose.core.limits import WORK, WORK_PER_BYTE
from kpose.data import image_modes, jpeg_scans

# The formats that are decoded, and Pillow's modules for them. Other formats of Pillow start programs
# (an EPS file named .jpg would run PostScript) or have rarely used decoders.
FORMATS = {
    "JPEG": "JpegImagePlugin",
    "PNG": "PngImagePlugin",
    "WEBP": "WebPImagePlugin",
    "BMP": "BmpImagePlugin",
    "TIFF": "TiffImagePlugin",
    "GIF": "GifImagePlugin",
    "AVIF": "AvifImagePlugin",
    "JPEG2000": "Jpeg2KImagePlugin",
    "PPM": "PpmImagePlugin",
    # The package pillow-heif adds it.
    "HEIF": None,
}
# The usual suffixes of files in these formats.
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif"),
    *(".jp2", ".j2k", ".jpx", ".ppm", ".pgm", ".heic", ".heif"),
)
# Bytes of the largest file that is read: a small archive may claim a member of many gigabytes.
MAX_BYTES = 1_000_000_000
# Pixels of the largest image: those of most cameras. With transparency, it takes 1.6 GB.
MAX_PIXELS = 120_000_000
# EXIF orientations that exchange width and height.
_TURNED = (5, 6, 7, 8)
_MODES = {"L": "grey-scale", "1": "grey-scale", "LA": "grey-scale", "CMYK": "CMYK", "P": "palette", "RGBA": "alpha"}
ANIMATION = "animation: the first frame is used"
# What follows the size of the first box of an HEIC file.
_HEIC_BRANDS = tuple(b"ftyp" + brand for brand in (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"))
# The filters of warnings belong to the whole process, and images are read in several threads.
_warnings_lock = threading.Lock()


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
        self._data = data
        self._image = self._open(data)
        self.width, self.height = self._image.size
        self._check_work()
        self._orientation = image_modes.orientation(self._image, data)
        if self._image.format != "JPEG":
            self.kinds.add(f"{self._image.format} format")
        if self._image.mode != "RGB":
            self.kinds.add(_MODES.get(self._image.mode, f"mode {self._image.mode}"))
        if image_modes.is_animation(self._image):
            self.kinds.add(ANIMATION)

    def _open(self, data):
        if not data:
            raise InputError(f"{self.name}: not an image: the file is empty")
        no_reader = data[4:12] in _HEIC_BRANDS and not _register_heic()
        try:
            with _warnings_lock, warnings.catch_warnings():
                # Pillow warns above its limit of pixels and raises an error above twice the limit.
                # It also warns of damaged headers.
                warnings.simplefilter("ignore")
                return Image.open(io.BytesIO(data), formats=_registered())
        except Image.DecompressionBombError as error:
            raise InputError(f"{self.name}: rejected because of its header: {first_line(error)}") from None
        # Pillow's readers raise errors of many kinds for damaged files (struct.error, KeyError ...).
        except Exception as error:
            # An AVIF file may begin in the same way.
            if no_reader:
                raise InputError(
                    f"{self.name}: HEIC images need the package pillow-heif: pip install pillow-heif, or save as JPEG"
                ) from None
            if isinstance(error, UnidentifiedImageError):
                raise InputError(f"{self.name}: not an image, or its format is not known") from None
            raise self._damaged(error) from None

    def _check_work(self):
        pixels = self.width * self.height
        if pixels > MAX_PIXELS:
            raise InputError(
                f"{self.name}: rejected because of its header: {self.width} x {self.height} pixels, at most "
                f"{MAX_PIXELS // 10**6} million are read: reduce it"
            )
        most = WORK + WORK_PER_BYTE * len(self._data)
        if self._image.format in ("JPEG", "MPO") and jpeg_scans.more_than(self._data, most // pixels):
            raise InputError(
                f"{self.name}: rejected: a JPEG of {len(self._data):,} bytes that would be decoded in more than "
                f"{most // pixels} scans: save it again"
            )

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
            return image_modes.upright_rgb(image, self._orientation if self._upright else 1, self.name)
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
                turn = image_modes.UPRIGHT.get(self._orientation) if self._upright else None
                return pixels if turn is None else np.asarray(Image.fromarray(pixels).transpose(turn))
        return np.asarray(self.decode())


def _register_heic():
    """Lets Pillow read HEIC; returns whether the package for it is installed."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def _registered():
    """The formats of `FORMATS` that this build of Pillow can read, as a list."""
    for name, module in FORMATS.items():
        # Importing a module of Pillow registers its format.
        if name not in Image.OPEN and module:
            importlib.import_module(f"PIL.{module}")
    return [name for name in FORMATS if name in Image.OPEN]


def _read_file(path):
    try:
        exists = files.is_file(path)
    except Exception as error:
        # A URL of a kind that TensorFlow cannot read.
        raise InputError(f"{path}: cannot be read ({first_line(error)})") from None
    if not exists:
        raise InputError(f"{path}: no such image file: check the folder that contains the images")
    try:
        _check_bytes(files.size(path), path)
        return files.read_bytes(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None


def _check_bytes(count, name):
    if count is not None and count > MAX_BYTES:
        raise InputError(f"{name}: {count / 1e9:.1f} GB, too large for an image (at most {MAX_BYTES / 1e9:g} GB)")


class ImageFolder:
    """Images by file name, in a folder or in a .zip file that is not unpacked.

    The images of a .zip file may be in a folder inside it, as in COCO's
    (`train2017/000000000009.jpg`); they have their name with and without that folder.

    Args:
        path: the folder or .zip file; a URL such as gs://bucket/train2017 is read through
            TensorFlow.
        allow_outside: file names may leave the folder: absolute ones, and those with "..".

    Raises:
        InputError: it does not exist, or is neither a folder nor a .zip file.
    """

    def __init__(self, path, allow_outside=False):
        self.path = path
        self._allow_outside = allow_outside
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
            return self._inside(file_name) and files.is_file(os.path.join(self.path, file_name))
        return file_name in self._members

    def _inside(self, file_name):
        """Whether a file name may be opened: labels come from anywhere."""
        place = os.path.normpath(file_name)
        return self._allow_outside or not (os.path.isabs(place) or place.split(os.sep)[0] == os.pardir)

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
            InputError: the image is missing, is not an image, or is outside the folder.
        """
        if self._zip is None:
            if not self._inside(file_name):
                raise InputError(
                    f"{file_name}: the name of this image leaves the folder {self.path}: give the folder that "
                    "contains all images, or use names relative to it (write_coco also takes --allow_outside)"
                )
            return open_image(os.path.join(self.path, file_name))
        name = f"{self.path}/{file_name}"
        if file_name not in self._members:
            raise InputError(f"{name}: no such image in the .zip file")
        if self._members[file_name] is None:
            raise InputError(
                f"{name}: several folders of the .zip file have this image: unpack it and give one folder as the images"
            )
        member = self._members[file_name]
        _check_bytes(self._zip.getinfo(member).file_size, name)
        try:
            data = self._zip.read(member)
        except (zipfile.BadZipFile, OSError, zlib.error, RuntimeError) as error:
            raise InputError(f"{name}: cannot be read ({error})") from None
        return EncodedImage(data, name)
