"""Frames out of video files and overlays back into them, through PyAV (the extra `video`)."""

import contextlib
import fractions

import numpy as np
from absl import logging

from kpose.core import files
from kpose.core.errors import InputError
from kpose.drawing import persons

SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm")
# The first that this build of PyAV has and that takes the frames' size.
ENCODERS = {"libx264": {"crf": "20", "preset": "veryfast"}, "mpeg4": {"qscale": "3"}}


def is_video(path):
    """Whether a file is a video, by its name."""
    return path.lower().endswith(SUFFIXES)


def _import_av():
    try:
        import av
    except ImportError:
        raise InputError("videos need the package av: pip install 'kpose[video]', or give single frames") from None
    return av


class Video:
    """A video file, opened; a context manager.

    Args:
        path: the file.

    Attributes:
        rate: frames a second, a Fraction.
        length: the number of frames, None where the file does not say.

    Raises:
        InputError: PyAV is not installed, or the file is missing, no video or damaged.
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
            raise InputError(f"{path}: there are no pictures in it")
        stream = self._container.streams.video[0]
        stream.thread_type = "AUTO"
        self.rate = fractions.Fraction(stream.average_rate or 25)
        self.length = stream.frames or None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._container.close()

    def frames(self, every=1):
        """The frames 1, 1 + every, 1 + 2 every, ... as pairs of number and picture, uint8 [H, W, 3].

        They are turned as a player shows them. A file that breaks off ends there, with a warning.

        Raises:
            InputError: not even the first frame can be decoded.
        """
        number = 0
        try:
            for number, frame in enumerate(self._container.decode(video=0), 1):
                if (number - 1) % every == 0:
                    picture = frame.to_ndarray(format="rgb24")
                    # In degrees, counter-clockwise.
                    yield number, np.ascontiguousarray(np.rot90(picture, round(frame.rotation / 90)))
        except self._av.FFmpegError as error:
            if not number:
                raise InputError(f"{self.path}: cannot be decoded ({error.strerror})") from None
            logging.warning("%s: damaged or cut short after frame %d, which is taken as its end", self.path, number)
        if not number:
            raise InputError(f"{self.path}: there is no frame in it")


@contextlib.contextmanager
def writing(stem, size, rate):
    """Opens a video for writing; it becomes `stem`.mp4 when the block ends well, and vanishes otherwise.

    Where this PyAV cannot encode such frames, they become `stem`/000001.png and so on.

    Args:
        stem: the path without a suffix.
        size: (width, height) of the frames in pixels.
        rate: frames a second, a Fraction.

    Yields:
        A function of a frame's number and its picture, uint8 [H, W, 3], that adds it.
    """
    # Colours are stored for two by two pixels.
    width, height = (side // 2 * 2 for side in size)
    codec = _find_encoder(width, height, rate)
    if codec is None:
        logging.warning("%s.mp4 cannot be encoded here: its frames are written as %s/000001.png ...", stem, stem)
        yield lambda number, picture: persons.save_image(f"{stem}/{number:06d}.png", picture)
        return
    av = _import_av()
    with files.replacing(f"{stem}.mp4", "wb") as file, av.open(file, "w", format="mp4") as container:
        stream = container.add_stream(codec, rate=rate, options=ENCODERS[codec])
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"

        def add(number, picture):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture[:height, :width]), format="rgb24")
            container.mux(stream.encode(frame))

        yield add
        container.mux(stream.encode(None))


def _find_encoder(width, height, rate):
    """The name of an encoder that takes frames of this size; None if there is none."""
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
