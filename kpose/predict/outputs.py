"""The files that prediction writes: checked before the work, overlays drawn in threads."""

import concurrent.futures
import os
import threading

from kpose.core import files
from kpose.core.errors import InputError
from kpose.drawing import persons
from kpose.predict import inputs, videos

KEYPOINTS_FILE = "keypoints.json"
FORMATS = ("jpg", "png")
# Threads that draw and encode overlays, and overlays that may wait: each holds its image.
THREADS, MOST_WAITING = 2, 3


class Outputs:
    """The output folder of a prediction; a context manager that waits for the overlays.

    Args:
        folder: the output folder; None: nothing is written.
        paths: the images and videos.
        overlays: whether overlays are written.
        overlay_format: one of `FORMATS`, for images.
        overwrite: replace the files of an earlier run.
        kept: other files that must not be replaced, such as the file of boxes.

    Attributes:
        errors: list of texts, one for each overlay that could not be written.

    Raises:
        InputError: the folder cannot be written, a file would replace an input, or a file of an
            earlier run exists and `overwrite` is not set.
    """

    def __init__(self, folder, paths, overlays=True, overlay_format="jpg", overwrite=False, kept=()):
        if overlay_format not in FORMATS:
            raise InputError(f"the format of overlays is {overlay_format!r}: use one of {', '.join(FORMATS)}")
        self.folder = folder
        self.errors = []
        self._stems = {}
        self._pool = None
        if not folder:
            return
        if overlays:
            self._stems = _stems(paths, folder)
        written = {path: stem + _suffix(path, overlay_format) for path, stem in self._stems.items()}
        _check_folder(folder)
        _check_replaced([*written.values(), self.keypoints_file], [*paths, *kept], overwrite)
        self._overlays = written
        self._room = threading.Semaphore(MOST_WAITING)

    @property
    def keypoints_file(self):
        """The path of the results; None without a folder."""
        return os.path.join(self.folder, KEYPOINTS_FILE) if self.folder else None

    def stem(self, path):
        """The path of the overlay of a file without its suffix; None: it has no overlay."""
        return self._stems.get(path)

    def __enter__(self):
        self._pool = concurrent.futures.ThreadPoolExecutor(THREADS, "kpose-draw")
        return self

    def __exit__(self, *_):
        self._pool.shutdown(wait=True)

    def draw(self, path, pixels, people):
        """Draws the overlay of an image in a thread; waits while `MOST_WAITING` are not finished.

        Args:
            path: the image.
            pixels: [H, W, 3] uint8.
            people: its `People`.
        """
        if path in self._stems:
            self._room.acquire()
            self._pool.submit(self._draw, self._overlays[path], pixels, people)

    def _draw(self, overlay, pixels, people):
        try:
            persons.save_picture(overlay, persons.picture_of_people(pixels, people, people.skeleton))
        except OSError as error:
            self.errors.append(f"{overlay}: cannot be written ({error.strerror or error})")
        finally:
            self._room.release()


def _suffix(path, overlay_format):
    return ".mp4" if videos.is_video(path) else f".{overlay_format}"


def _stems(paths, folder):
    """Returns {path: path of its overlay without the suffix}, all different."""
    stems, used = {}, set()
    for path in paths:
        name = f"camera{path}" if videos.is_camera(path) else os.path.splitext(inputs.name_of_file(path))[0]
        stem, copy = name, 1
        # Some file systems do not distinguish upper and lower case.
        while stem.lower() in used:
            copy += 1
            stem = f"{name}_{copy}"
        used.add(stem.lower())
        stems[path] = os.path.join(folder, stem)
    return stems


def _check_folder(folder):
    """Makes the folder; raises `InputError` unless files can be written into it."""
    files.check_folder_for_output(folder)
    os.makedirs(folder, exist_ok=True)


def _check_replaced(written, kept, overwrite):
    """Raises `InputError` if a file that will be written exists and must not be replaced."""
    existing = [path for path in written if os.path.lexists(path)]
    inputs_by_file = {_identity(path): path for path in kept if os.path.exists(path)}
    for path in existing:
        if os.path.exists(path) and _identity(path) in inputs_by_file:
            raise InputError(f"{path}: the output would replace an input file: choose another --output_dir")
    if existing and not overwrite:
        others = f", and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise InputError(
            f"{existing[0]}{others}: exists, from an earlier run: give --overwrite, or choose another --output_dir"
        )


def _identity(path):
    found = os.stat(path)
    return found.st_dev, found.st_ino
