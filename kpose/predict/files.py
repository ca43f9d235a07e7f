"""Predicts keypoints for image and video files: COCO results, and overlays with drawn skeletons."""

import dataclasses
import os

import numpy as np
from absl import logging

from kpose.core.errors import InputError, first_line
from kpose.core.progress import Progress
from kpose.data import image_files
from kpose.metrics import coco
from kpose.predict import boxes as box_files
from kpose.predict import inputs, video_files, videos
from kpose.predict.model import Model
from kpose.predict.outputs import KEYPOINTS_FILE, Outputs
from kpose.predict.results import Results

__all__ = ["KEYPOINTS_FILE", "find_images", "predict"]

SUFFIXES = (*image_files.SUFFIXES, *videos.SUFFIXES)
# A file with one path or URL on each line.
LIST = ".txt"
# Names of images without a person in the log.
_NAMED = 10


def predict(
    model,
    images,
    boxes=None,
    output_dir="predictions",
    overlays=True,
    detector="auto",
    min_score=None,
    every=1,
    stream=None,
    overwrite=False,
    overlay_format="jpg",
    track=False,
    smooth=False,
    show=False,
    returned=True,
):
    """Predicts the keypoints of each person in image and video files.

    Writes `output_dir/keypoints.json`, COCO keypoint results with the name of their file, and with
    `overlays` also `output_dir/<image>.jpg` and `output_dir/<video>.mp4`. The results are in the
    order of the boxes, or of the files. With `boxes`, a result repeats the `image_id` and `bbox` of
    its box; otherwise see `_number`. Results of videos also have the number of the `frame`, from 1,
    its `time` in seconds since the start of the video and, with `track`, the person's `track_id`.

    Args:
        model: a `Model`, or its `source`.
        images: a file, a URL, the number of a camera, a folder or a glob, or a list of these.
        boxes: JSON file with COCO annotations or detection results (see `boxes.read_boxes`). The
            person's score is multiplied by the score in the file, if there is one. None: use
            `detector`.
        output_dir: folder for the results; None: they are not written.
        overlays: write images and videos with the skeletons drawn.
        detector: as for `Model`.
        min_score: persons with a lower score of the detector or in the file are skipped. None: the
            detector's default, no limit for a file.
        every: process every n-th frame of a video.
        stream: text file to which the results are also written, at the end.
        overwrite: replace the files of an earlier run.
        overlay_format: "jpg" or "png", for the overlays of images.
        track: give the persons of a video stable ids.
        smooth: smooth the joints of videos with the one-euro filter; this tracks too.
        show: show the frames of videos in a window.
        returned: whether the results are returned. Those of a long video need much memory.

    Returns:
        The list of COCO results; None without `returned`.

    Raises:
        InputError: there is no model or no image, the boxes do not fit the images, the output folder
            cannot be written or holds files of an earlier run, or an overlay would replace an input.
            If one of several files cannot be read, it is logged and skipped, and the error is raised
            at the end, after the results of the other files are written.
    """
    paths = find_images(images, output_dir)
    outputs = Outputs(output_dir, paths, overlays, overlay_format, overwrite, kept=[boxes] if boxes else ())
    jobs = [_Job(path, number) for number, path in enumerate(paths, 1)]
    options = video_files.Options(every, track, smooth, show)
    _check_options(options, jobs)
    model = model if isinstance(model, Model) else Model(model)
    found = None
    if boxes is None:
        found = model.find_detector(detector, min_score)
        _number(jobs)
    else:
        jobs = _add_boxes(jobs, boxes, min_score or 0.0, model.skeleton)
    with Results(outputs.folder) as results:
        work = _Work(model, outputs, found, options, results)
        complete = False
        try:
            work.run(jobs)
            complete = True
        finally:
            # After an interrupt, those of the files that were finished, and of the video until then.
            if complete or work.stopped or len(results):
                if outputs.folder:
                    results.write(outputs.keypoints_file)
                if stream:
                    results.print_to(stream)
        work.report(len(jobs), outputs)
        return list(results) if returned else None


def _check_options(options, jobs):
    """Raises `InputError` if an option for videos is given and there is no video, or cannot be used."""
    given = [f"--{name}" for name in ("track", "smooth", "show") if getattr(options, name)]
    if given and not any(job.is_video for job in jobs):
        raise InputError(f"{given[0]} is for videos, and there is none")
    options.check()


@dataclasses.dataclass
class _Job:
    """One file to process.

    Attributes:
        path: the file.
        number: its position among the files, from 1.
        image_id: id of an image without boxes of a file.
        boxes: list of `boxes.PersonBox`; []: there is no file of boxes.
        places: positions of the boxes in the file of boxes.
    """

    path: str
    number: int
    image_id: int | None = None
    boxes: list = dataclasses.field(default_factory=list)
    places: list = dataclasses.field(default_factory=list)

    @property
    def is_video(self):
        return videos.is_video(self.path)


def _number(jobs):
    """Sets the `image_id` of the images.

    It is the number at the end of the file's name, as in 000000000139.jpg, if each image has one and
    they differ; otherwise the position among the files, from 1.
    """
    images = [job for job in jobs if not job.is_video]
    for job, number in zip(
        images, image_ids([job.path for job in images], [job.number for job in images]), strict=True
    ):
        job.image_id = number


def image_ids(paths, places=None):
    """The ids of images without boxes of a file; see `_number`.

    Args:
        paths: the images.
        places: their positions among all files; None: the images are all files.
    """
    numbers = [inputs.number_of_file(path) for path in paths]
    if None in numbers or len(set(numbers)) < len(numbers):
        return list(range(1, len(paths) + 1)) if places is None else places
    return numbers


def _add_boxes(jobs, file, min_score, skeleton):
    """Adds the boxes of a file to the jobs; returns the jobs that have boxes.

    Raises:
        InputError: one of the files is a video, or as for `boxes.read_boxes`.
    """
    for job in jobs:
        if job.is_video:
            raise InputError(f"{job.path}: --boxes are for images: give the video's frames, or leave --boxes out")
    by_path = {job.path: job for job in jobs}
    for place, box in enumerate(box_files.read_boxes(file, list(by_path), min_score, skeleton)):
        by_path[box.path].boxes.append(box)
        by_path[box.path].places.append(place)
    return [job for job in jobs if job.boxes]


class _Work:
    """The prediction of some files.

    Args:
        model: the `Model`.
        outputs: the `Outputs`.
        detector: a callable or None, from `Model.find_detector`.
        options: the `video_files.Options`.
        results: the `Results`, to which those of the files are added.

    Attributes:
        stopped: whether a signal ended a video.
        failed: number of files that could not be read.
        empty: names of the files in which nobody was found.
    """

    def __init__(self, model, outputs, detector, options, results):
        self._model, self._outputs, self._detector, self._options = model, outputs, detector, options
        self._results = results
        # The largest id of an image or frame so far.
        self._last_id = 0
        self.stopped, self.failed, self.empty = False, 0, []

    def run(self, jobs):
        """Predicts all files and writes their overlays.

        Raises:
            InputError: the only file cannot be read.
        """
        self._last_id = max((job.image_id for job in jobs if job.image_id is not None), default=0)
        with Progress(len(jobs), "files", shown=len(jobs) > 1) as progress, self._outputs:
            for job, image, error in inputs.read_ahead(jobs, _read):
                try:
                    if error is not None:
                        raise error
                    self._predict(job, image)
                except InputError as problem:
                    self.failed += 1
                    if len(jobs) == 1:
                        raise
                    logging.error("skipped: %s", problem)
                progress.add(1)

    def _predict(self, job, image):
        before = len(self._results)
        if job.is_video:
            self._predict_video(job)
        else:
            self._results.add(self._predict_image(job, image), job.places)
        if len(self._results) == before:
            self.empty.append(job.path)

    def _predict_image(self, job, image):
        """Returns the results of one image; its overlay is drawn meanwhile."""
        boxes = [box.box for box in job.boxes] or None
        people = self._model.predict_image(image, boxes, self._detector)
        scores = [box.score for box in job.boxes]
        if any(score is not None for score in scores):
            scores = np.float32([1.0 if score is None else score for score in scores])
            people = dataclasses.replace(people, scores=people.scores * scores, box_scores=scores)
        self._outputs.draw(job.path, image.pixels, people)
        image_ids = [box.image_id for box in job.boxes] or [job.image_id] * len(people)
        return coco_results(image_ids, people, job.path, boxes)

    def _predict_video(self, job):
        """Adds the results of one video, and writes its overlay.

        Raises:
            KeyboardInterrupt: a signal ended the video. What is written until then is kept.
        """
        first_id, name = self._last_id, inputs.without_password(job.path)

        def add(frame, people):
            self._last_id = first_id + frame.number
            found = dataclasses.replace(people, name=name).to_coco(self._last_id)
            facts = {"frame": frame.number, "time": round(frame.time, 6)}
            self._results.add([result | facts for result in found])

        stem = self._outputs.stem(job.path)
        with self._results.all_or_none():
            self.stopped = video_files.predict_video(self._model, job.path, self._detector, self._options, stem, add)
        if self.stopped:
            raise KeyboardInterrupt

    def report(self, count, outputs):
        """Logs the numbers of persons and files.

        Args:
            count: the number of files.
            outputs: the `Outputs`.

        Raises:
            InputError: a file could not be read, or an overlay could not be written.
        """
        place = f": {outputs.keypoints_file}" if outputs.folder else ""
        logging.info("%d persons in %d files%s", len(self._results), count - self.failed, place)
        if self.empty:
            names = [inputs.name_of_file(path) for path in self.empty[:_NAMED]]
            more = f" and {len(self.empty) - _NAMED} more" if len(self.empty) > _NAMED else ""
            logging.info("nobody found in %d of %d files: %s%s", len(self.empty), count, ", ".join(names), more)
        if outputs.errors:
            raise InputError(f"{len(outputs.errors)} overlays could not be written: {outputs.errors[0]}")
        if self.failed:
            raise InputError(f"{self.failed} of {count} files could not be read (named above); the others are done")


def _read(job):
    """Returns the `InputImage` of a job; None for a video."""
    # Boxes of a file are for the pixels as stored.
    return None if job.is_video else inputs.Source(job.path, job.path).read(upright=not job.boxes)


def coco_results(image_ids, people, path, boxes=None):
    """Returns COCO results with the name of their file.

    Args:
        image_ids: [N].
        people: `People`.
        path: the file.
        boxes: [N, 4] the boxes as given, in float64; None: those of `people`.
    """
    boxes = people.boxes if boxes is None else boxes
    results = coco.coco_results(image_ids, boxes, people.keypoints, people.scores)
    return [result | {"file_name": path} for result in results]


def find_images(images, output_dir=None):
    """Returns the paths of images and videos, each once; those of a folder or glob are sorted.

    Args:
        images: a file, a URL, a folder or a glob, a .txt file with one path or URL on each line, or a
            list of these.
        output_dir: the folder of an earlier run's overlays, which are left out of a search that
            begins outside it; None: there is none.

    Raises:
        InputError: one of them has no image or video.
    """
    paths = [os.fspath(path) for path in ([images] if isinstance(images, str | os.PathLike) else images)]
    found = [path for some in paths for path in _find_some(some, output_dir)]
    unique = {}
    for path in found:
        # "./a.jpg" is "a.jpg".
        unique.setdefault(path if "://" in path else os.path.normpath(path), path)
    return list(unique.values())


def _find_some(path, output_dir):
    if path.lower().endswith(LIST) and os.path.isfile(path):
        return _listed(path)
    if inputs.is_url(path) or videos.is_stream(path) or os.path.isfile(path):
        return [path]
    return inputs.find_files(path, SUFFIXES, apart=output_dir)


def _listed(path):
    """The paths and URLs in a text file, one on each line; empty lines are left out."""
    try:
        with open(path, encoding="utf-8") as file:
            lines = [line.strip() for line in file]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: the list of images cannot be read ({first_line(error)})") from None
    found = [line for line in lines if line]
    if not found:
        raise InputError(f"{path}: the list of images is empty")
    return found
