"""Predicts keypoints for image and video files: COCO results, and overlays with drawn skeletons."""

import contextlib
import dataclasses
import glob
import json
import os

import numpy as np
from absl import logging

from kpose.core import files
from kpose.core.errors import InputError
from kpose.core.progress import Progress
from kpose.drawing import persons
from kpose.metrics import coco
from kpose.predict import boxes as box_files
from kpose.predict import detectors, videos
from kpose.predict.model import InputImage, Model

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
KEYPOINTS_FILE = "keypoints.json"


def predict(
    model_dir, images, boxes=None, output_dir=".", overlays=True, detector="none", min_score=None, every=1, stream=None
):
    """Predicts the keypoints of each person in image and video files.

    Writes `output_dir/keypoints.json`, COCO keypoint results with the name of their file, and with
    `overlays` also `output_dir/<image>.png` and `output_dir/<video>.mp4`. The results are in the
    order of the boxes, or of the files. With `boxes`, a result repeats the `image_id` and `bbox` of
    its box. Otherwise the `image_id` of an image is its position among the files, and the
    `image_id` of a video frame is the frame's number; both start at 1.

    Args:
        model_dir: as `source` of `Model`.
        images: a file, a folder or a glob, or a list of these.
        boxes: JSON file with COCO annotations or detection results (see `boxes.read_boxes`). The
            person's score is multiplied by the score in the file, if there is one. None: use
            `detector`.
        output_dir: folder for the results; None: they are not written.
        overlays: write images and videos with the skeletons drawn.
        detector: one of `detectors.NAMES`, or a callable as described in `kpose.predict.detectors`.
            "none": each image is one person's box.
        min_score: persons with a lower score of the detector or in the file are skipped. None:
            `detectors.MIN_SCORE` for a detector, no limit for a file.
        every: process every n-th frame of a video.
        stream: text file to which the results are also written, at the end.

    Returns:
        The list of COCO results.

    Raises:
        InputError: there is no model or no image, or the boxes do not fit the images. If one of
            several files cannot be read, it is logged and skipped, and the error is raised at the
            end, after the results of the other files are written.
    """
    paths = find_images(images)
    stems = _overlay_stems(paths, output_dir) if overlays and output_dir else {}
    model = Model(model_dir)
    jobs = [_Job(path, number, stems.get(path)) for number, path in enumerate(paths, 1)]
    if boxes is None:
        detector = _choose_detector(detector, detectors.MIN_SCORE if min_score is None else min_score, model.skeleton)
    else:
        detector = None
        jobs = _add_boxes(jobs, boxes, min_score or 0.0, model.skeleton)
    results, failed = _predict_jobs(model, jobs, detector, every)
    _write(results, output_dir, stream)
    place = f": {os.path.join(output_dir, KEYPOINTS_FILE)}" if output_dir else ""
    logging.info("%d persons in %d files%s", len(results), len(jobs) - failed, place)
    if failed:
        raise InputError(f"{failed} of {len(jobs)} files could not be read (named above); the others are done")
    return results


@dataclasses.dataclass
class _Job:
    """One file to process.

    Attributes:
        path: the file.
        number: its position among the files, from 1.
        stem: path of its overlay without the suffix; None: no overlay.
        boxes: list of `boxes.PersonBox`; []: there is no file of boxes.
        places: positions of the boxes in the file of boxes.
    """

    path: str
    number: int
    stem: str | None
    boxes: list = dataclasses.field(default_factory=list)
    places: list = dataclasses.field(default_factory=list)


def _add_boxes(jobs, file, min_score, skeleton):
    """Adds the boxes of a file to the jobs; returns the jobs that have boxes.

    Raises:
        InputError: one of the files is a video, or as for `boxes.read_boxes`.
    """
    for job in jobs:
        if videos.is_video(job.path):
            raise InputError(f"{job.path}: --boxes are for images: give the video's frames, or leave --boxes out")
    by_path = {job.path: job for job in jobs}
    for place, box in enumerate(box_files.read_boxes(file, list(by_path), min_score, skeleton)):
        by_path[box.path].boxes.append(box)
        by_path[box.path].places.append(place)
    return [job for job in jobs if job.boxes]


def _choose_detector(detector, min_score, skeleton):
    """Returns a detector by its name, or a callable as it is; None for "none". Logs the choice.

    Raises:
        InputError: a detector of persons for a skeleton that is not a person's, or as
            `detectors.get`.
    """
    if not isinstance(detector, str):
        return detector
    if not skeleton.is_person and detectors.for_skeleton(detector, skeleton) == "none":
        logging.info(
            "the model predicts %r, for which there is no detector: each whole image is one box; give others with "
            "--boxes",
            skeleton.name,
        )
        return None
    found = detectors.get(detector, min_score)
    if found is not None:
        logging.info("person detector: %s, minimum score %g", type(found).__name__, min_score)
    elif detector == "auto":
        logging.info(
            "no --boxes, and no person detector is installed (%s): each whole image is one person's box",
            detectors.INSTALL,
        )
    else:
        logging.info("no --boxes and no person detector: each whole image is one person's box")
    return found


def _overlay_stems(paths, output_dir):
    """Returns {path: path of its overlay without the suffix}, all different.

    Raises:
        InputError: an overlay would replace one of the files.
    """
    stems = {}
    for path in paths:
        name = os.path.splitext(os.path.basename(path))[0]
        stem, copy = os.path.join(output_dir, name), 1
        while stem in stems.values():
            copy += 1
            stem = os.path.join(output_dir, f"{name}_{copy}")
        overlay = stem + (".mp4" if videos.is_video(path) else ".png")
        if os.path.exists(overlay) and any(os.path.samefile(overlay, other) for other in paths):
            raise InputError(f"{overlay}: the overlay would replace an input file: choose another --output_dir")
        stems[path] = stem
    return stems


def _predict_jobs(model, jobs, detector, every):
    """Returns the results of all files, in order, and the number of unreadable files."""
    answers, failed = [], 0
    with Progress(len(jobs), "files", shown=len(jobs) > 1) as progress:
        for job in jobs:
            try:
                if videos.is_video(job.path):
                    results = _predict_video(model, job, detector, every)
                else:
                    results = _predict_image(model, job, detector)
            except InputError as error:
                if len(jobs) == 1:
                    raise
                logging.error("skipped: %s", error)
                failed += 1
            else:
                places = job.places or range(len(answers), len(answers) + len(results))
                answers += zip(places, results, strict=True)
            progress.add(1)
    return [result for _, result in sorted(answers, key=lambda answer: answer[0])], failed


def _predict_image(model, job, detector):
    """Returns the results of one image, and writes its overlay."""
    # Boxes of a file are for the pixels as stored.
    image = InputImage.read(job.path, upright=not job.boxes)
    boxes = [box.box for box in job.boxes] or None
    people = model.predict(image, boxes, detector)
    scores = [box.score for box in job.boxes]
    if any(score is not None for score in scores):
        scores = np.float32([1.0 if score is None else score for score in scores])
        people = dataclasses.replace(people, scores=people.scores * scores, box_scores=scores)
    if job.stem:
        persons.save_image(f"{job.stem}.png", persons.draw_people(image.pixels, people, model.skeleton))
    image_ids = [box.image_id for box in job.boxes] or [job.number] * len(people.scores)
    return _results(image_ids, people, job.path, boxes)


def _predict_video(model, job, detector, every):
    """Returns the results of one video, and writes its overlay."""
    results, add = [], None
    with contextlib.ExitStack() as stack:
        video = stack.enter_context(videos.Video(job.path))
        total = -(-video.length // every) if video.length else None
        progress = stack.enter_context(Progress(total, "frames", name=os.path.basename(job.path)))
        for number, pixels in video.frames(every):
            people = model.predict(InputImage(pixels, f"frame {number} of {job.path}"), detector=detector)
            results += _results([number] * len(people.scores), people, job.path)
            if job.stem:
                if add is None:
                    add = stack.enter_context(videos.writing(job.stem, pixels.shape[1::-1], video.rate / every))
                add(number, persons.draw_people(pixels, people, model.skeleton))
            progress.add(1)
    return results


def _results(image_ids, people, path, boxes=None):
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


def _write(results, output_dir, stream):
    """Writes the results to keypoints.json and to a text file, where these are given."""
    if output_dir:
        files.write_json(os.path.join(output_dir, KEYPOINTS_FILE), results, indent=None)
    if stream:
        json.dump(results, stream)
        stream.write("\n")


def find_images(images):
    """Returns the paths of images and videos, each once; those of a folder or glob are sorted.

    Args:
        images: a file, a folder or a glob, or a list of these.

    Raises:
        InputError: one of them has no image or video.
    """
    paths = [path for some in ([images] if isinstance(images, str) else images) for path in _find_some(some)]
    return list(dict.fromkeys(paths))


def _find_some(images):
    suffixes = (*IMAGE_SUFFIXES, *videos.SUFFIXES)
    if os.path.isfile(images):
        return [images]
    if os.path.isdir(images):
        found = [os.path.join(images, name) for name in os.listdir(images)]
        paths = sorted(path for path in found if path.lower().endswith(suffixes) and os.path.isfile(path))
    else:
        paths = sorted(path for path in glob.glob(images) if os.path.isfile(path))
    if not paths:
        raise InputError(f"{images}: no image or video there ({', '.join(suffixes)})")
    return paths
