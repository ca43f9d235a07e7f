"""Keypoints of the people in photographs and videos, by an exported model or a shipped one: overlays, COCO results."""

import contextlib
import dataclasses
import glob
import json
import os

import numpy as np
from absl import logging
from tqdm import tqdm

from kpose.core import files
from kpose.core.errors import InputError
from kpose.drawing import persons
from kpose.drawing.persons import draw_people
from kpose.metrics import coco
from kpose.predict import detectors, videos
from kpose.predict.boxes import read_boxes
from kpose.predict.model import Model, Photograph

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
KEYPOINTS_FILE = "keypoints.json"


def predict(
    model_dir,
    images,
    boxes=None,
    output_dir=".",
    overlays=True,
    detector="none",
    min_score=None,
    every=1,
    stream=None,
):
    """Predicts keypoints for each person of some photographs and videos.

    Writes `output_dir/keypoints.json`, COCO keypoint results, each repeating the `image_id` and `bbox` it answers and
    naming its file, and, with `overlays`, `output_dir/<image>.png` and `output_dir/<video>.mp4`. The results stand in
    the order of the boxes, or of the files. Without boxes, the `image_id` of a photograph is its place among the files,
    from 1, and that of a video's frame the frame's number, from 1.

    Args:
        model_dir: as for `Model`.
        images: a file, a folder or a glob, or a list of these.
        boxes: JSON file with COCO annotations or detection results (`read_boxes`), whose scores count as a detector's;
            None: `detector` finds them.
        output_dir: where the results go; None: they are not written.
        overlays: draw the skeletons.
        detector: one of `detectors.NAMES`, or a callable as `kpose.predict.detectors` describes. "none": each image is one
            person's box.
        min_score: what the detector, or the file of boxes, is less sure of is left out. None: `detectors.MIN_SCORE` of
            a detector, nothing of a file.
        every: of a video, each so many frames one is taken.
        stream: text file that the results are also written to, as soon as all are there.

    Returns:
        The list of COCO results.

    Raises:
        InputError: no model, no images, a damaged image, or boxes that do not fit the images. Of several files, those
            that cannot be read are told and skipped, and the error comes when the others' results are written.
    """
    paths = find_images(images)
    stems = _overlay_stems(paths, output_dir) if overlays and output_dir else {}
    model = Model(model_dir)
    if boxes is None:
        detector = _choose_detector(detector, detectors.MIN_SCORE if min_score is None else min_score)
        jobs = {path: [] for path in paths}
    else:
        detector = None
        jobs = _jobs_of_boxes(boxes, paths, min_score or 0.0)
    answers, failed = [], 0
    for number, (path, asked) in enumerate(
        tqdm(jobs.items(), unit="file", disable=len(jobs) < 2 or not os.isatty(2)), 1
    ):
        try:
            if videos.is_video(path):
                results = _predict_video(model, path, detector, every, stems.get(path))
            else:
                results = _predict_photograph(model, path, number, asked, detector, stems.get(path))
        except InputError as error:
            if len(jobs) == 1:
                raise
            logging.error("skipped: %s", error)
            failed += 1
            continue
        places = [place for place, *_ in asked] or range(len(answers), len(answers) + len(results))
        answers += zip(places, results, strict=True)
    results = [result for _, result in sorted(answers, key=lambda answer: answer[0])]
    if output_dir:
        files.write_json(os.path.join(output_dir, KEYPOINTS_FILE), results, indent=None)
    if stream:
        json.dump(results, stream)
        stream.write("\n")
    place = f": {os.path.join(output_dir, KEYPOINTS_FILE)}" if output_dir else ""
    logging.info("%d persons in %d files%s", len(results), len(jobs) - failed, place)
    if failed:
        raise InputError(f"{failed} of {len(jobs)} files could not be read (named above); the others are done")
    return results


def _choose_detector(detector, min_score):
    """The detector itself, and a line in the log that says which it is."""
    if not isinstance(detector, str):
        return detector
    found = detectors.get(detector, min_score)
    if found is not None:
        logging.info("the detector %s finds the persons (scores from %g)", type(found).__name__, min_score)
    elif detector == "auto":
        logging.info(
            "no --boxes, and no person detector is installed (pip install 'kpose[detector]'): each whole image is "
            "taken as one person's box"
        )
    else:
        logging.info("no --boxes and no person detector: each whole image is taken as one person's box")
    return found


def _jobs_of_boxes(boxes, paths, min_score):
    """{path: [(place in the file of boxes, image_id, box, score or None)]}, for the paths that have boxes."""
    for path in paths:
        if videos.is_video(path):
            raise InputError(f"{path}: --boxes are for photographs: give the video's frames, or leave --boxes out")
    jobs = {}
    for place, (image_id, path, box, score) in enumerate(read_boxes(boxes, paths, min_score)):
        jobs.setdefault(path, []).append((place, image_id, box, score))
    return jobs


def _overlay_stems(paths, output_dir):
    """{path: path of its overlay without the suffix}: no two the same, and none that is one of the inputs."""
    stems = {}
    for path in paths:
        name = os.path.splitext(os.path.basename(path))[0]
        stem, copy = os.path.join(output_dir, name), 1
        while stem in stems.values():
            copy += 1
            stem = os.path.join(output_dir, f"{name}_{copy}")
        overlay = stem + (".mp4" if videos.is_video(path) else ".png")
        if os.path.exists(overlay) and any(os.path.samefile(overlay, other) for other in paths):
            raise InputError(
                f"{overlay}: the overlay would replace a picture that was given: choose another --output_dir"
            )
        stems[path] = stem
    return stems


def _predict_photograph(model, path, number, asked, detector, stem):
    """The results of one photograph; its overlay goes to `stem`.png, unless that is None."""
    photograph = Photograph.read(path, upright=not asked)
    boxes = [box for _, _, box, _ in asked] or None
    people = model.predict(photograph, boxes, detector)
    scores = [score for *_, score in asked]
    if any(score is not None for score in scores):
        scores = np.float32([1.0 if score is None else score for score in scores])
        people = dataclasses.replace(people, scores=people.scores * scores, box_scores=scores)
    if stem:
        persons.save_image(f"{stem}.png", draw_people(photograph.pixels, people, model.skeleton))
    return _results([image_id for _, image_id, *_ in asked] or [number] * len(people.scores), people, path, boxes)


def _predict_video(model, path, detector, every, stem):
    """The results of one video; its overlays go to `stem`.mp4, unless that is None."""
    results = []
    with contextlib.ExitStack() as stack:
        video = stack.enter_context(videos.Video(path))
        total = -(-video.length // every) if video.length else None
        add = None
        for number, picture in tqdm(video.frames(every), total=total, unit="frame", disable=not os.isatty(2)):
            people = model.predict(Photograph(picture, f"frame {number} of {path}"), detector=detector)
            results += _results([number] * len(people.scores), people, path)
            if stem:
                if add is None:
                    add = stack.enter_context(videos.writing(stem, picture.shape[1::-1], video.rate / every))
                add(number, draw_people(picture, people, model.skeleton))
    return results


def _results(image_ids, people, path, boxes=None):
    """COCO results that also name their file; `boxes` as they were given, before they became float32."""
    boxes = people.boxes if boxes is None else boxes
    results = coco.coco_results(image_ids, boxes, people.keypoints, people.scores)
    return [result | {"file_name": path} for result in results]


def find_images(images):
    """The photographs and videos that file names, folders or globs stand for: each once, those of a folder sorted."""
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
