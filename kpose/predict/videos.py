"""Reads frames from video files and writes videos, with PyAV (the package av)."""

import contextlib
import fractions

import numpy as np
from absl import logging

from kpose.core import files
from kpose.core.errors import InputError
from kpose.drawing import persons

SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm")
# Encoders and their options, in order of preference. A build of PyAV may lack one.
ENCODERS = {"libx264": {"crf": "20", "preset": "veryfast"}, "mpeg4": {"qscale": "3"}}


def is_video(path):
    """Returns whether a file is a video, by its suffix."""
    return path.lower().endswith(SUFFIXES)


def _import_av():
    try:
        import av
    except ImportError:
        raise InputError(
            "videos need the package av: pip install av (or pip install '.[video]' in a checkout), or give the "
            "frames as images"
        ) from None
    return av


class Video:
    """An open video file; a context manager.

    Args:
        path: the file.

    Attributes:
        rate: frames a second, a Fraction.
        length: the number of frames; None if the file does not contain it.

    Raises:
        InputError: PyAV is not installed, or the file is missing, is no video or is damaged.
    """

    def __init__(self, path):
        self._av = _import_av()
        self.path = path
        try:
            self._container = self._av.open(path)
        except (self._av.FFmpegError, OSError) as error:
            raise InputError(f"{path}: cannot be read as a video ({error.strerror})") from None
        if not self._container.streams.video:
            self._container.close()
            raise InputError(f"{path}: it contains no video stream")
        stream = self._container.streams.video[0]
        stream.thread_type = "AUTO"
        self.rate = fractions.Fraction(stream.average_rate or 25)
        self.length = stream.frames or None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._container.close()

    def frames(self, every=1):
        """Yields every n-th frame: its number, from 1, and its pixels, [H, W, 3] uint8 RGB.

        Frames are rotated as a video player shows them. If a later frame cannot be decoded, the
        video ends there, with a warning.

        Args:
            every: n.

        Raises:
            InputError: the first frame cannot be decoded.
        """
        number = 0
        try:
            for number, frame in enumerate(self._container.decode(video=0), 1):
                if (number - 1) % every == 0:
                    pixels = frame.to_ndarray(format="rgb24")
                    # The rotation is in degrees, counter-clockwise.
                    yield number, np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))
        except self._av.FFmpegError as error:
            if not number:
                raise InputError(f"{self.path}: cannot be decoded ({error.strerror})") from None
            logging.warning("%s: damaged or cut short after frame %d: the later frames are skipped", self.path, number)
        if not number:
            raise InputError(f"{self.path}: it contains no frame")


@contextlib.contextmanager
def writing(stem, size, rate):
    """Opens `stem`.mp4 for writing; the file appears only if the block ends without an exception.

    If this build of PyAV has no encoder for the frames, they are written as `stem`/000001.png, ...

    Args:
        stem: the path without the suffix.
        size: (width, height) of the frames in pixels.
        rate: frames a second, a Fraction.

    Yields:
        A function of a frame's number and its pixels, [H, W, 3] uint8 RGB, that adds the frame.
    """
    # The colour format needs even sides: it stores one colour for 2 x 2 pixels.
    width, height = (side // 2 * 2 for side in size)
    codec = _find_encoder(width, height, rate)
    if codec is None:
        logging.warning(
            "%s.mp4: no video encoder is available, so the frames are written as %s/000001.png ...", stem, stem
        )
        yield lambda number, pixels: persons.save_image(f"{stem}/{number:06d}.png", pixels)
        return
    av = _import_av()
    with files.replacing(f"{stem}.mp4", "wb") as file, av.open(file, "w", format="mp4") as container:
        stream = container.add_stream(codec, rate=rate, options=ENCODERS[codec])
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"

        def add(number, pixels):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels[:height, :width]), format="rgb24")
            container.mux(stream.encode(frame))

        yield add
        container.mux(stream.encode(None))


def _find_encoder(width, height, rate):
    """Returns the name of an encoder that accepts frames of this size; None if there is none."""
    av = _import_av()
    for name in ENCODERS:
        try:
            context = av.CodecContext.create(name, "w")
            context.width, context.height, context.pix_fmt = width, height, "yuv420p"
            context.time_base = 1 / rate
            context.open()
        except (av.FFmpegError, ValueError):
            continue
        return name
    return None
