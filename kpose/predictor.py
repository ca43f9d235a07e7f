"""Keypoints of the people in photographs and videos, by an exported model or a shipped one: overlays, COCO results."""

import contextlib
import dataclasses
import glob
import json
import os
import re

import numpy as np
import tensorflow as tf
from absl import logging
from tqdm import tqdm

from kpose import detectors, drawing, exporter, files, pretrained, scoring, skeletons, videos
from kpose.errors import InputError
from kpose.images import open_image

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
KEYPOINTS_FILE = "keypoints.json"
# COCO's, and that of detections in its format.
PERSON_CATEGORY = 1
# Joints of lower scores are not drawn: the model does not know where they are.
JOINT_THRESHOLD = 0.15


@dataclasses.dataclass(frozen=True)
class People:
    """The people of one photograph.

    Attributes:
        keypoints: [N, K, 3] float32: x, y in pixels of the photograph and the joint's score.
        scores: [N] float32 the persons' scores in 0..1; those of detected persons hold the detector's as a factor.
        boxes: [N, 4] float32 xywh in pixels: the boxes asked for, in that order, or detected ones, best first.
        box_scores: [N] float32 the detector's scores; None where there are none.
    """

    keypoints: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray
    box_scores: np.ndarray | None = None


class Photograph:
    """One picture for a model.

    Args:
        pixels: uint8 [H, W, 3] RGB.
        name: what to call it in errors.
    """

    def __init__(self, pixels, name="the image"):
        self.pixels = np.asarray(pixels)
        self.name = name
        if self.pixels.dtype != np.uint8 or self.pixels.ndim != 3 or self.pixels.shape[2] != 3 or not self.pixels.size:
            raise InputError(
                f"{name} is {self.pixels.dtype} {list(self.pixels.shape)}: give a file name or uint8 [H, W, 3] in RGB"
            )

    @classmethod
    def read(cls, path, upright=True):
        """The photograph of a file.

        Args:
            path: the file.
            upright: turn it as EXIF says. COCO's labels, and boxes from a file, are for the stored pixels.

        Raises:
            InputError: the file is missing, no image, or cut short.
        """
        image = open_image(os.fspath(path))
        if upright:
            image.turn_upright()
        return cls(np.asarray(image.decode()), str(path))


class Model:
    """A model, ready to answer for photographs.

    Args:
        source: what `kpose.export` wrote, the base folder (its newest version is taken) or a version; or the name of a
            model that kpose ships (`kpose.pretrained`). None: the default of those.

    Attributes:
        skeleton: the `Skeleton` whose joints it predicts.

    Raises:
        InputError: no such model, or a damaged one.
    """

    def __init__(self, source=None):
        if source is None or source in pretrained.names():
            self._model, self.skeleton = pretrained.load(source)
            self._serve = self._model.serve_pixels
        else:
            # The signature alone does not keep the variables alive; its object does.
            self._model, self.skeleton = load_model(os.fspath(source))
            signatures = self._model.signatures
            if "serving_pixels" not in signatures:
                raise InputError(f"{source}: exported by an older kpose: export it again with python -m kpose.export")
            self._serve = signatures["serving_pixels"]

    def predict(self, images, boxes=None, detector=None):
        """The keypoints of the people in photographs.

        Args:
            images: a path, an array uint8 [H, W, 3] in RGB, a `Photograph`, or a list of these.
            boxes: [N, 4] xywh in pixels, for a list of images a list of these. Of a file, they are for the pixels as
                stored; without boxes, a file is turned as its EXIF data say.
            detector: finds the boxes instead: a callable as `kpose.detectors` describes, or one of its names. None,
                with no boxes either: the whole image is one person's box.

        Returns:
            `People`; for a list of images a list of them.

        Raises:
            InputError: a damaged image, boxes that are no boxes, or boxes and a detector.
        """
        if boxes is not None and detector is not None:
            raise InputError("boxes and a detector are given: leave one of them out")
        if isinstance(detector, str):
            detector = detectors.get(detector)
        if not isinstance(images, list | tuple):
            return self._predict_one(images, boxes, detector)
        boxes = [None] * len(images) if boxes is None else boxes
        if len(boxes) != len(images):
            raise InputError(f"there are boxes for {len(boxes)} images, and {len(images)} images")
        return [self._predict_one(image, some, detector) for image, some in zip(images, boxes, strict=True)]

    def _predict_one(self, image, boxes, detector):
        if isinstance(image, str | os.PathLike):
            image = Photograph.read(image, upright=boxes is None)
        elif not isinstance(image, Photograph):
            image = Photograph(image)
        box_scores = None
        if detector is not None:
            boxes, box_scores = detectors.checked(detector(image.pixels), image.pixels)
        elif boxes is None:
            boxes = [[0, 0, image.pixels.shape[1], image.pixels.shape[0]]]
        boxes = _as_boxes(boxes, image.name)
        if not len(boxes):
            keypoints, scores = np.zeros((0, self.skeleton.num_joints, 3), np.float32), np.zeros(0, np.float32)
        else:
            keypoints, scores = self._ask(image, boxes)
        return People(keypoints, scores if box_scores is None else scores * box_scores, boxes, box_scores)

    def _ask(self, image, boxes):
        """[N, K, 3] keypoints and [N] scores."""
        try:
            answer = self._serve(image=tf.constant(image.pixels), boxes=tf.constant(boxes))
        except tf.errors.InvalidArgumentError as error:
            raise InputError(f"{image.name}: {_reason(error)}") from None
        return answer["keypoints"].numpy(), answer["scores"].numpy()


def _as_boxes(boxes, name):
    try:
        boxes = np.asarray(boxes, np.float32)
        boxes = boxes.reshape(0, 4) if not boxes.size else boxes
    except (TypeError, ValueError):
        boxes = np.zeros(0)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise InputError(f"{name}: the boxes must be [N, 4]: x, y, width and height of each person, in pixels")
    return boxes


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
        detector: one of `detectors.NAMES`, or a callable as `kpose.detectors` describes. "none": each image is one
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
        drawing.save_image(f"{stem}.png", draw_people(photograph.pixels, people, model.skeleton))
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
    results = scoring.coco_results(image_ids, boxes, people.keypoints, people.scores)
    return [result | {"file_name": path} for result in results]


def draw_people(pixels, people, skeleton):
    """A picture with its people's boxes, the detector's scores and the skeletons, doubtful joints faint.

    Args:
        pixels: uint8 [H, W, 3].
        people: `People` in it.
        skeleton: their `Skeleton`.

    Returns:
        uint8 [H, W, 3].
    """
    for index, box in enumerate(people.boxes):
        label = None if people.box_scores is None else f"{people.box_scores[index]:.2f}"
        pixels = drawing.draw_box(pixels, box, label=label)
    # The largest last: they are nearest, and in front.
    for index in np.argsort(people.boxes[:, 2:].prod(1), kind="stable"):
        person = people.keypoints[index]
        # One score for all joints is that of the person's size (`inference.resolution_score`): no joint is in doubt.
        confidence = person[:, 2] if np.ptp(person[:, 2]) else None
        pixels = drawing.draw_skeleton(
            pixels,
            person[:, :2],
            skeleton,
            confidence=confidence,
            scale=people.boxes[index, 2:].max(),
            threshold=JOINT_THRESHOLD,
        )
    return pixels


def load_model(model_dir):
    """An exported model and its `Skeleton`."""
    folder = model_dir
    if not os.path.exists(os.path.join(folder, "saved_model.pb")):
        versions = [name for name in (os.listdir(folder) if os.path.isdir(folder) else ()) if name.isdigit()]
        if not versions:
            raise InputError(f"{model_dir}: no exported model: write one with python -m kpose.export")
        folder = os.path.join(folder, max(versions, key=int))
    description = files.read_json(os.path.join(folder, exporter.DESCRIPTION_FILE), "description of a kpose model")
    return tf.saved_model.load(folder), skeletons.get(description["skeleton"])


def _reason(error):
    """What an error of the graph says, without where in the graph it was said."""
    lines = error.message.splitlines()
    places = [index for index, line in enumerate(lines) if line.lstrip().startswith("[[{{node")]
    return lines[places[0] - 1] if places and places[0] else lines[0]


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


def read_boxes(path, image_paths, min_score=0.0):
    """The boxes of persons in a JSON file that belong to the given images.

    Args:
        path: COCO annotations (a dict with "images" and "annotations") or detection results (a list of dicts with
            `image_id` and `bbox`). Results are matched with images by the number that the file name ends in, as in
            000000000139.jpg. Entries of other categories than person (that of this name, else 1) are left out.
        image_paths: the images.
        min_score: entries of lower scores are left out.

    Returns:
        List of (image_id, image path, box [4] xywh, score or None), in the order of the file.

    Raises:
        InputError: no such file, one that is none of both, or boxes that are of none of the images or of either of two.
    """
    data = files.read_json(path, "boxes file")
    annotated = isinstance(data, dict)
    entries = data.get("annotations") if annotated else data
    if not isinstance(entries, list):
        raise InputError(f"{path}: neither COCO annotations nor a list of detection results")
    try:
        by_id = _images_of_annotations(data, image_paths) if annotated else _images_by_number(image_paths)
        person = _person_category(data.get("categories") or ()) if annotated else PERSON_CATEGORY
        here = [e for e in entries if e["image_id"] in by_id]
        persons = [e for e in here if e.get("category_id", person) == person]
        sure = [e for e in persons if e.get("score") is None or e["score"] >= min_score]
        requests = [(e["image_id"], by_id[e["image_id"]], e["bbox"], e.get("score")) for e in sure]
    except KeyError as error:
        raise InputError(f"{path}: an entry lacks the field {error}") from None
    except (AttributeError, TypeError) as error:
        raise InputError(f"{path}: neither COCO annotations nor detection results ({error})") from None
    if not here:
        raise InputError(f"{path}: none of its {len(entries)} boxes is of one of the {len(image_paths)} images")
    if not requests:
        raise InputError(
            f"{path}: of its {len(here)} boxes for these images, {len(persons)} are of persons (category {person}), "
            f"none of them with a score of {min_score:g} or more: lower --min_score"
        )
    if len(requests) < len(here):
        logging.info(
            "of %d boxes for these images, %d are not of persons and %d have a score under %g: left out",
            len(here),
            len(here) - len(persons),
            len(persons) - len(sure),
            min_score,
        )
    for _, image, _, _ in requests:
        if len(image) > 1:
            raise InputError(f"{path}: it does not tell {image[0]} from {image[1]}: predict for one folder at a time")
    return [(image_id, image, box, score) for image_id, (image,), box, score in requests]


def _images_of_annotations(data, image_paths):
    """{id: the given images that its file name may mean}."""
    by_name = {}
    for path in image_paths:
        by_name.setdefault(os.path.basename(path), []).append(path)
    by_id = {}
    for image in data.get("images", ()):
        found = by_name.get(os.path.basename(image["file_name"]), [])
        if len(found) > 1:
            # A folder in the file's name tells more.
            ending = os.sep + image["file_name"].lstrip(os.sep)
            found = [path for path in found if os.path.abspath(path).endswith(ending)] or found
        if found:
            by_id[image["id"]] = found
    return by_id


def _images_by_number(image_paths):
    """{number at the end of their names: images}."""
    by_id = {}
    for path in image_paths:
        number = re.search(r"(\d+)\.\w+$", os.path.basename(path))
        if number:
            by_id.setdefault(int(number[1]), []).append(path)
    return by_id


def _person_category(categories):
    return next((c["id"] for c in categories if c.get("name") == "person"), PERSON_CATEGORY)
