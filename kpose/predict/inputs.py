"""Images for prediction, from anything: files, URLs, folders, globs, bytes, PIL images and arrays.

`gather` turns what a caller gives into `Source`s without reading files. `Source.read` reads one.
"""

import collections
import concurrent.futures
import glob
import os
import re
import threading
import urllib.parse
from collections.abc import Iterator

import numpy as np
from absl import logging
from PIL import Image

from kpose.core.errors import InputError, first_line
from kpose.data import image_files, image_modes
from kpose.predict import downloads

# Images that `read_ahead` holds: they are decoded, and may be large.
AHEAD = 2
ACCEPTED = (
    "give a path, a URL, a folder, a glob, bytes, a file object, a PIL image, an array uint8 [H, W], [H, W, 1], "
    "[H, W, 3] or [H, W, 4], a batch [N, H, W, C] or a list of these"
)


class InputImage:
    """An image for a model.

    Args:
        pixels: [H, W, 3] uint8 RGB.
        name: the image's name, for errors.

    Raises:
        InputError: the array has another shape or type.
    """

    def __init__(self, pixels, name="the image"):
        self.pixels = np.asarray(pixels)
        self.name = name
        if self.pixels.dtype != np.uint8 or self.pixels.ndim != 3 or self.pixels.shape[2] != 3 or not self.pixels.size:
            raise InputError(f"{name} is {_described(self.pixels)}: give uint8 [H, W, 3] in RGB")


class Source:
    """One image that has not been read.

    Args:
        content: a path, a URL, bytes, a file object, a PIL image, an array or an `InputImage`.
        name: the image's name, for errors and results.
        float_max: the value of white in arrays of floats, 1 or 255; None: there are none.

    Attributes:
        name: as above.
        path: the file; None: the image is not a file on this computer.
    """

    def __init__(self, content, name, float_max=None):
        self.name = name
        self.path = content if isinstance(content, str) and not is_url(content) else None
        self._content = content
        self._float_max = float_max
        self._lock = threading.Lock()

    def __getstate__(self):
        # A lock cannot be copied or pickled.
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state):
        vars(self).update(state, _lock=threading.Lock())

    def read(self, upright=True):
        """Returns the `InputImage`.

        Args:
            upright: turn the image by its EXIF orientation. False for boxes of a file, and COCO's
                labels: they are for the pixels as stored.

        Raises:
            InputError: the image is missing or damaged, or cannot be downloaded.
        """
        content = self._loaded()
        if isinstance(content, InputImage):
            return content
        if isinstance(content, Image.Image):
            return InputImage(_of_pil(content, self.name, upright), self.name)
        if isinstance(content, np.ndarray):
            return InputImage(_of_array(content, self.name, self._float_max), self.name)
        if isinstance(content, str):
            image = image_files.open_image(content)
        else:
            image = image_files.EncodedImage(content, self.name)
        if image_files.ANIMATION in image.kinds:
            logging.info("%s: %s", self.name, image_files.ANIMATION)
        if upright:
            image.turn_upright()
        return InputImage(image.pixels(), self.name)

    def _loaded(self):
        """The content; that of a URL or a file object is read once and kept, encoded as it is."""
        with self._lock:
            if isinstance(self._content, str) and is_url(self._content):
                self._content = downloads.download(self._content)
            elif hasattr(self._content, "read"):
                self._content = _of_file(self._content, self.name)
            return self._content


def gather(images, float_max=None):
    """Returns the `Source`s of images, and whether it is one image and no list of one.

    Args:
        images: a path (str or os.PathLike), a URL (http or https), a folder, a glob, the bytes of a
            file, a file object, a PIL image, an array uint8 [H, W], [H, W, 1], [H, W, 3] (RGB) or
            [H, W, 4] (RGBA), a batch [N, H, W, C] of arrays, or a list or iterator of these. A
            folder, a glob, a batch and a list are several images, also if it is one.
        float_max: the value of white in arrays of floats, 1 or 255; None: floats are refused.

    Raises:
        InputError: an argument is of another kind, or a folder or glob has no image. Files are not
            read yet.
    """
    if float_max not in (None, 1, 255):
        raise InputError(f"float_max is {float_max!r}: give 1 or 255, the value of white in arrays of floats")
    if not isinstance(images, list | tuple | Iterator) or hasattr(images, "read"):
        return _gather_some(images, "the image", float_max)
    sources = []
    for number, some in enumerate(images, 1):
        if isinstance(some, list | tuple):
            raise InputError(f"image {number} has the type {type(some).__name__}: {ACCEPTED}")
        sources += _gather_some(some, f"image {number}", float_max)[0]
    return sources, False


def _gather_some(some, name, float_max):
    """As `gather`, for what is no list."""
    if isinstance(some, InputImage):
        return [Source(some, some.name)], True
    if isinstance(some, str | os.PathLike):
        return _gather_path(os.fspath(some))
    if isinstance(some, bytes | bytearray | memoryview):
        return [Source(bytes(some), name)], True
    if isinstance(some, Image.Image):
        return [Source(some, getattr(some, "filename", "") or name)], True
    if hasattr(some, "read"):
        given = getattr(some, "name", None)
        return [Source(some, given if isinstance(given, str) else name)], True
    if not hasattr(some, "__array__"):
        raise InputError(f"{name} has the type {type(some).__name__}: {ACCEPTED}")
    array = _as_array(some, name)
    _check_array(array, name, float_max)
    if array.ndim == 4:
        return [Source(one, f"image {number}", float_max) for number, one in enumerate(array, 1)], False
    return [Source(array, name, float_max)], True


def _gather_path(path):
    if not isinstance(path, str):
        path = os.fsdecode(path)
    if not path:
        raise InputError("the path of the image is empty")
    if is_url(path):
        return [Source(path, path)], True
    if not os.path.exists(path):
        path = os.path.expanduser(path)
    if os.path.isdir(path) or is_glob(path):
        return [Source(found, found) for found in find_files(path, image_files.SUFFIXES)], False
    return [Source(path, path)], True


def is_url(path):
    """Whether a path is a URL that is downloaded."""
    return path.lower().startswith(("http://", "https://"))


def is_glob(path):
    """Whether a path is a glob: it has one of the signs *, ? and [, and is no existing file."""
    return glob.has_magic(path) and not os.path.lexists(path)


def find_files(path, suffixes, apart=None):
    """Returns the files in a folder or of a glob, sorted.

    Hidden files are left out. If the last part of a glob names no suffix, as in `photos/**`, only
    files with one of the suffixes count, as in a folder.

    Args:
        path: the folder or glob; `**` in a glob stands for any number of folders.
        suffixes: in lower case.
        apart: a folder whose files are left out if the search begins outside it; None: none is.

    Raises:
        InputError: there is no such file.
    """
    if os.path.isdir(path):
        root, found, any_suffix = path, [os.path.join(path, name) for name in os.listdir(path)], False
    else:
        root = _fixed_part(path)
        found, any_suffix = glob.glob(path, recursive=True), "." in os.path.basename(path)
    paths = [
        file
        for file in sorted(set(found))
        if (any_suffix or file.lower().endswith(suffixes))
        and not os.path.basename(file).startswith(".")
        and os.path.isfile(file)
    ]
    if apart is not None and not _is_inside(root, apart):
        paths = [file for file in paths if not _is_inside(file, apart)]
    if not paths:
        if not os.path.isdir(path) and (not found or os.path.lexists(path)):
            raise InputError(f"{path}: no such file or folder")
        raise InputError(f"{path}: no image or video there ({', '.join(suffixes)})")
    return paths


def _fixed_part(pattern):
    """The folder in front of the first part of a glob that has a sign of a glob."""
    parts = pattern.split(os.sep)
    first = next((number for number, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    return os.sep.join(parts[:first]) or (os.sep if pattern.startswith(os.sep) else ".")


def _is_inside(path, folder):
    path, folder = os.path.realpath(path), os.path.realpath(folder)
    return path == folder or path.startswith(os.path.join(folder, ""))


def read_ahead(sources, read):
    """Yields each source with its image, which is read in another thread meanwhile.

    Args:
        sources: a list.
        read: function of a source that returns its image.

    Yields:
        (source, image, None), or (source, None, the `InputError`).
    """
    waiting, todo = collections.deque(), iter(sources)
    pool = concurrent.futures.ThreadPoolExecutor(1, "kpose-read")
    try:
        while True:
            while len(waiting) < AHEAD and (source := next(todo, None)) is not None:
                waiting.append((source, pool.submit(read, source)))
            if not waiting:
                return
            source, future = waiting.popleft()
            try:
                answer = source, future.result(), None
            except InputError as error:
                answer = source, None, error
            del future
            yield answer
            del answer
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def without_password(path):
    """A path; a URL without the user's name and password, for logs and results."""
    return re.sub(r"^(\w+://)[^/@?#]*@", r"\1", path)


def name_of_file(path):
    """The last part of a path, or of a URL as the name of a file: without the query and rare signs."""
    if "://" not in path:
        return os.path.basename(path)
    _, _, rest = without_password(path).partition("://")
    host, *parts = urllib.parse.unquote(re.split(r"[?#]", rest)[0]).rstrip("/").split("/")
    # The end of a host is no suffix.
    name = parts[-1] if parts else host.replace(".", "_")
    return re.sub(r"[^\w.+() -]", "_", name)[-100:] or "image"


def number_of_file(path):
    """The number at the end of a file's name, as in 000000000139.jpg; None without one."""
    found = re.search(r"\d{1,15}$", os.path.splitext(name_of_file(path))[0])
    return int(found[0]) if found else None


def _of_file(file, name):
    try:
        data = file.read()
    except (OSError, ValueError) as error:
        raise InputError(f"{name}: cannot be read ({first_line(error)})") from None
    if not isinstance(data, bytes):
        raise InputError(f"{name}: a file of text: open it in the mode 'rb'")
    return data


def _of_pil(image, name, upright):
    try:
        image.load()
        turn = image_modes.orientation(image) if upright else 1
        return np.asarray(image_modes.upright_rgb(image, turn, name))
    except InputError:
        raise
    # As for files: Pillow raises errors of many kinds.
    except Exception as error:
        raise InputError(f"{name}: the PIL image cannot be read ({first_line(error)})") from None


def _as_array(some, name):
    try:
        return np.asarray(some)
    except Exception as error:
        raise InputError(
            f"{name} has the type {type(some).__name__} and gives no array ({first_line(error)})"
        ) from None


def _check_array(array, name, float_max):
    """Raises `InputError` unless the array is an image or a batch of images."""
    kind = _described(array)
    if not array.size:
        raise InputError(f"{name} is {kind}: it has no pixels")
    if array.ndim not in (2, 3, 4) or (array.ndim > 2 and array.shape[-1] not in (1, 3, 4)):
        first = array.ndim in (3, 4) and array.shape[-3] in (1, 3, 4)
        hint = "the channels must be the last dimension" if first else ACCEPTED
        raise InputError(f"{name} is {kind}: {hint}")
    if array.dtype == np.uint8:
        return
    if not np.issubdtype(array.dtype, np.floating):
        raise InputError(f"{name} is {kind}: give uint8, or floats and float_max=1 or 255 (the value of white)")
    if float_max is None:
        raise InputError(f"{name} is {kind}: say float_max=1 or float_max=255 (the value of white), or give uint8")
    low, high = float(array.min()), float(array.max())
    # The comparison is also false for a NaN. Resampling gives values a little outside.
    if not (low >= -0.01 * float_max and high <= 1.01 * float_max):
        raise InputError(f"{name} is {kind} with values from {low:g} to {high:g}: float_max={float_max} allows 0 to it")


def _of_array(array, name, float_max):
    """[H, W, 3] uint8 of a checked array [H, W], [H, W, 1], [H, W, 3] or [H, W, 4]."""
    if array.dtype != np.uint8:
        array = np.rint(np.clip(array.astype(np.float32) * (255 / float_max), 0, 255)).astype(np.uint8)
    if array.ndim == 2 or array.shape[2] == 1:
        return np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
    if array.shape[2] == 4:
        return np.asarray(image_modes.upright_rgb(Image.fromarray(np.ascontiguousarray(array)), name=name))
    return array


def _described(array):
    """The type and shape of an array, such as "float64 [4, 5]"."""
    return f"{array.dtype} {list(array.shape)}"
