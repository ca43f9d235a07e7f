"""Reads frames from video files, streams and cameras, and writes videos, with PyAV (the package av)."""

import contextlib
import fractions
import functools
import os
import re
import sys
import typing

import numpy as np
from absl import logging

from kpose.core import files
from kpose.core.errors import InputError, first_line
from kpose.data import image_files
from kpose.drawing import persons
from kpose.predict import downloads, inputs

SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm")
# Suffixes that only a URL may have: playlists, and the names of live streams.
URL_SUFFIXES = (*SUFFIXES, ".m3u8", ".mpd", ".ts", ".mjpg", ".mjpeg")
# Containers that a file may be, and how FFmpeg may read further files: not at all. A playlist with the
# name film.mp4 would open other files and addresses.
CONTAINERS = "mov,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg"
FILE_OPTIONS = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "rtp", "srt", "udp")
# Content types of videos that do not begin with video/.
VIDEO_TYPES = ("multipart/x-mixed-replace", "application/vnd.apple.mpegurl", "application/x-mpegurl")
# Seconds to wait for a connection, and for the next frame of a stream.
TIMEOUT = 10.0
# Encoders and their options, in order of preference. A build of PyAV may lack one.
ENCODERS = {"libx264": {"crf": "20", "preset": "veryfast"}, "mpeg4": {"qscale": "3"}}
# Encoders count time in whole ticks. MPEG-4 allows at most this number a second.
MOST_TICKS = 65_535
# Rate of a video that does not say it, in frames a second.
RATE = 25


class Frame(typing.NamedTuple):
    """A frame of a video.

    Attributes:
        number: from 1.
        time: seconds since the start of the video.
        pixels: [H, W, 3] uint8 RGB.
    """

    number: int
    time: float
    pixels: np.ndarray


def is_video(path):
    """Returns whether a path is a video file, a stream or a camera.

    A file is a video by its suffix. So is an http URL; without a known suffix, its server is asked.
    """
    if inputs.is_url(path):
        suffix = os.path.splitext(re.split(r"[?#]", path)[0])[1].lower()
        return suffix in URL_SUFFIXES or (suffix not in image_files.SUFFIXES and _content_is_video(path))
    return path.lower().endswith(SUFFIXES) or is_stream(path)


def is_stream(path):
    """Returns whether a path is the URL of a video stream, such as rtsp://, or a camera's number."""
    return is_camera(path) or path.lower().partition("://")[0] in SCHEMES and "://" in path


def is_camera(path):
    """Returns whether a path is a camera's number, and no file."""
    return path.isascii() and path.isdigit() and not os.path.exists(path)


@functools.lru_cache(maxsize=1024)
def _content_is_video(url):
    """Whether the server says that a URL is a video; False if there is no answer."""
    kind = downloads.content_type(url)
    return kind.startswith("video/") or kind in VIDEO_TYPES


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
    """An open video; a context manager.

    Args:
        path: a file, a URL or a camera's number.

    Attributes:
        rate: frames a second, a Fraction.
        length: the number of frames; None if the file does not contain it.

    Raises:
        InputError: PyAV is not installed, or the video is missing, is no video or is damaged, or
            there is no connection.
    """

    def __init__(self, path):
        self._av = _import_av()
        self.path = inputs.without_password(path)
        self._live = is_stream(path)
        try:
            self._container = self._av.open(**_opening(path))
        except (self._av.FFmpegError, OSError, ValueError) as error:
            raise InputError(f"{self._name()}: cannot be {self._verb()} ({_reason(error)})") from None
        if not self._container.streams.video:
            self._container.close()
            raise InputError(f"{self._name()}: it contains no video stream")
        stream = self._container.streams.video[0]
        stream.thread_type = "AUTO"
        self.rate = _usual(stream.average_rate or stream.guessed_rate)
        self.length = None if self._live else stream.frames or None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._container.close()

    def _name(self):
        return f"camera {self.path}" if is_camera(self.path) else self.path

    def _verb(self):
        return "opened" if self._live else "read as a video"

    def frames(self, every=1):
        """Yields every n-th `Frame`.

        Frames are rotated as a video player shows them. If a later frame cannot be decoded, the
        video ends there, with a warning; in a stream, such frames are left out.

        Args:
            every: n.

        Raises:
            InputError: the first frame cannot be decoded.
        """
        number, start, time = 0, None, None
        try:
            for number, frame in enumerate(self._decoded(), 1):
                if start is None:
                    start = self._start(frame)
                before = -1 / float(self.rate) if time is None else time
                time = before + 1 / float(self.rate) if frame.time is None else frame.time - start
                # Time never goes back, also if the file says so.
                time = max(time, 0.0, np.nextafter(before, np.inf))
                if (number - 1) % every == 0:
                    yield Frame(number, time, _upright(frame))
        except (self._av.FFmpegError, OSError) as error:
            if not number:
                raise InputError(f"{self._name()}: cannot be decoded ({_reason(error)})") from None
            if self._live:
                logging.warning("%s: the stream ended after frame %d (%s)", self._name(), number, _reason(error))
            else:
                text = "%s: damaged or cut short after frame %d: the later frames are skipped"
                logging.warning(text, self._name(), number)
        if not number:
            raise InputError(f"{self._name()}: it contains no frame")

    def _start(self, frame):
        """The time of the start in seconds: of the file, or of the first frame of a stream."""
        start = self._container.start_time
        if self._live or start is None:
            return frame.time or 0.0
        return start / self._av.time_base

    def _decoded(self):
        """Yields PyAV's frames."""
        if not self._live:
            yield from self._container.decode(video=0)
            return
        for packet in self._container.demux(video=0):
            try:
                decoded = packet.decode()
            # A stream begins between two complete frames, and loses data.
            except self._av.error.InvalidDataError:
                continue
            yield from decoded


def _opening(path):
    """The arguments of `av.open` for a path."""
    if is_camera(path):
        if sys.platform.startswith("linux"):
            return {"file": f"/dev/video{path}", "format": "v4l2"}
        if sys.platform == "darwin":
            return {"file": path, "format": "avfoundation", "options": {"framerate": "30"}}
        raise InputError(f"camera {path}: the number of a camera can be given on Linux and macOS; give a URL")
    if not is_stream(path) and not inputs.is_url(path):
        return {"file": path, "options": FILE_OPTIONS}
    # Over UDP, the default, frames that lose a part are grey.
    options = {"rtsp_transport": "tcp"} if path.lower().startswith("rtsp") else {}
    return {"file": path, "options": options, "timeout": TIMEOUT}


def _usual(rate):
    """A rate of frames as a Fraction that encoders can write; `RATE` if there is none."""
    rate = fractions.Fraction(rate or RATE).limit_denominator(1001)
    # Some files have 90,000 ticks in place of a rate.
    return rate if 0 < rate.numerator <= MOST_TICKS and rate <= 1000 else fractions.Fraction(RATE)


def _reason(error):
    """What an error of PyAV says, in one line."""
    if type(error).__name__ == "ExitError":
        # So FFmpeg calls the end of the time that `av.open` got.
        return f"nothing arrived for {TIMEOUT:g} seconds"
    return first_line(getattr(error, "strerror", None) or error)


def _upright(frame):
    """[H, W, 3] uint8 RGB of PyAV's frame, rotated as the file says."""
    pixels = frame.to_ndarray(format="rgb24")
    # The rotation is in degrees, counter-clockwise.
    return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))


@contextlib.contextmanager
def writing(stem, size, rate):
    """Opens `stem`.mp4 for writing; the file appears only if the block ends without an exception.

    If this build of PyAV has no encoder for the frames, they are written as `stem`/000001.png, ...

    Args:
        stem: the path without the suffix.
        size: (width, height) of the frames in pixels.
        rate: frames a second, a Fraction.

    Yields:
        A function of a frame's number, its pixels, [H, W, 3] uint8 RGB, and its time in seconds,
        that adds the frame. Without a time, it follows the frame before at the given rate.
    """
    # The colour format needs even sides: it stores one colour for 2 x 2 pixels.
    width, height = (side // 2 * 2 for side in size)
    codec = _find_encoder(width, height, rate)
    if codec is None:
        logging.warning(
            "%s.mp4: no video encoder is available, so the frames are written as %s/000001.png ...", stem, stem
        )
        yield lambda number, pixels, time=None: persons.save_image(f"{stem}/{number:06d}.png", pixels)
        return
    av = _import_av()
    with files.replacing(f"{stem}.mp4", "wb") as file, av.open(file, "w", format="mp4") as container:
        stream = container.add_stream(codec, rate=rate, options=ENCODERS[codec])
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        tick = _tick(rate)
        stream.time_base = stream.codec_context.time_base = tick
        length = round(1 / (rate * tick))
        last = -length

        def add(number, pixels, time=None):
            nonlocal last
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels[:height, :width]), format="rgb24")
            last = last + length if time is None else max(round(time / tick), last + 1)
            frame.pts, frame.time_base, frame.duration = last, tick, length
            container.mux(stream.encode(frame))

        yield add
        container.mux(stream.encode(None))


def _tick(rate):
    """The unit of time of a video in seconds, a Fraction: the duration of a frame, or a part of it."""
    return 1 / (rate * max(MOST_TICKS // rate.numerator, 1))


def _find_encoder(width, height, rate):
    """Returns the name of an encoder that accepts frames of this size; None if there is none."""
    av = _import_av()
    for name in ENCODERS:
        try:
            context = av.CodecContext.create(name, "w")
            context.width, context.height, context.pix_fmt = width, height, "yuv420p"
            context.time_base = _tick(rate)
            context.open()
        except (av.FFmpegError, ValueError):
            continue
        return name
    return None
