"""Prediction for videos: the people of each frame, tracks, and what is written and shown meanwhile."""

import contextlib
import dataclasses
import os
import signal
import threading

import numpy as np
from absl import logging

from kpose.core.progress import Progress
from kpose.drawing import persons
from kpose.predict import tracking, videos
from kpose.predict.inputs import InputImage
from kpose.predict.screens import Window
from kpose.predict.smoothing import Smoother


@dataclasses.dataclass(frozen=True)
class Options:
    """How videos are processed.

    Attributes:
        every: process every n-th frame.
        track: give persons ids.
        smooth: smooth the joints of each track; this tracks too.
        show: show the frames in a window.
    """

    every: int = 1
    track: bool = False
    smooth: bool = False
    show: bool = False

    def check(self):
        """Raises `InputError` if a package or a screen is missing."""
        if self.track or self.smooth:
            tracking.check()
        if self.show:
            Window("kpose").close()


def people_of_frames(model, video, detector=None, options=None):
    """Yields each `videos.Frame` of a video with its `People`.

    Args:
        model: a `Model`.
        video: an open `videos.Video`.
        detector: a callable, from `Model.find_detector`; None: the whole image is one box.
        options: `Options`; None: each frame, without tracks.

    Raises:
        InputError: the first frame cannot be decoded, the detector is wrong, or a package for
            tracking is missing.
    """
    options = options or Options()
    tracker = None
    if options.track or options.smooth:
        tracker = tracking.Tracker(model.skeleton.oks_sigmas, persons.joint_threshold(model.calibrated))
    smoother = Smoother() if options.smooth else None
    for frame in video.frames(options.every):
        image = InputImage(frame.pixels, f"frame {frame.number} of {video.path}")
        people = model.predict_image(image, detector=detector)
        if tracker is not None:
            ids = tracker.update(people.keypoints, people.boxes, frame.time)
            people = dataclasses.replace(people, track_ids=ids)
        if smoother is not None:
            people = dataclasses.replace(
                people, keypoints=smoother.update(people.track_ids, people.keypoints, people.boxes, frame.time)
            )
        yield frame, people


def predict_video(model, path, detector, options, stem, add):
    """Predicts a video; writes its overlay and shows it.

    SIGINT (Ctrl-C) and SIGTERM end the video after the frame that is being processed; what is
    written until then is kept.

    Args:
        model, detector, options: as for `people_of_frames`.
        path: a file, a URL or a camera's number.
        stem: the path of the overlay without its suffix; None: no overlay.
        add: function of a `videos.Frame` and its `People`, called for each frame.

    Returns:
        Whether a signal ended the video.

    Raises:
        InputError: as for `videos.Video` and `people_of_frames`, or there is no screen.
    """
    with contextlib.ExitStack() as stack:
        window = stack.enter_context(Window(f"kpose: {path}")) if options.show else None
        video = stack.enter_context(videos.Video(path))
        total = -(-video.length // options.every) if video.length else None
        progress = stack.enter_context(Progress(total, "frames", name=os.path.basename(video.path)))
        stopped = stack.enter_context(_until_signal())
        write, number = None, 0
        for frame, people in people_of_frames(model, video, detector, options):
            number = frame.number
            add(frame, people)
            if stem or window:
                picture = persons.picture_of_people(frame.pixels, people, model.skeleton, people.track_ids)
            if stem and write is None:
                writing = videos.writing(stem, frame.pixels.shape[1::-1], video.rate / options.every)
                write = stack.enter_context(writing)
            if stem:
                write(number, np.asarray(picture), frame.time)
            if window:
                window.show(picture)
            progress.add(1)
            if stopped() or (window and not window.is_open):
                logging.info("%s: stopped after frame %d; the results so far are kept", video.path, number)
                break
        return stopped()


@contextlib.contextmanager
def _until_signal():
    """Yields a function that says whether SIGINT or SIGTERM arrived; a second signal acts as before."""
    received = []
    # Only the main thread gets signals.
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore():
        for number, handler in before.items():
            signal.signal(number, handler)

    def receive(number, _):
        received.append(number)
        restore()

    for number in before:
        signal.signal(number, receive)
    try:
        yield lambda: bool(received)
    finally:
        restore()
