"""Keypoints for photographs, by an exported model or the one that kpose ships: overlays and COCO results."""

import glob
import io
import json
import os
import re
import sys

import numpy as np
import tensorflow as tf
from absl import logging
from PIL import Image, ImageOps
from tqdm import tqdm

from kpose import detectors, drawing, exporter, files, pretrained, scoring, skeletons
from kpose.errors import InputError
from kpose.images import read_image

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
KEYPOINTS_FILE = "keypoints.json"
# Joints that are less sure are not drawn.
DRAWN_FROM = 0.15


class Model:
    """A network that answers for photographs: an exported one, or one that kpose ships.

    Args:
        source: folder that `kpose.export` wrote (its newest version is taken, or name a version), or the name of a
            model that kpose ships (`kpose.pretrained`); None: the default of those.

    Attributes:
        skeleton: the `Skeleton` of its keypoints.

    Raises:
        InputError: there is no such model, or it is damaged.

    Example:
        model = kpose.load("run/serving")
        people = model.predict("photo.jpg", [[10, 20, 200, 400]])
        people["keypoints"], people["scores"]
    """

    def __init__(self, source=None):
        if source is None or source in pretrained.names():
            server, self.skeleton = pretrained.load(source)
            self._serve, self._alive = server.serve_people, server
            return
        loaded, self.skeleton = load_model(source)
        # The signature alone does not keep the variables alive; its object does.
        self._serve, self._alive = loaded.signatures["serving_people"], loaded

    def predict(self, images, boxes=None, detector=None):
        """The persons of photographs.

        Args:
            images: a file name, the bytes of a JPEG or PNG file, or an array [H, W, 3] uint8 in RGB; or a list of them.
            boxes: [N, 4] xywh in pixels (of a list: one such for each image). None: what the detector finds.
            detector: a callable as in `kpose.detectors`; None, without boxes: the whole image is one person's box.

        Returns:
            For each image (of a list: a list of) a dict: `boxes` [N, 4], `keypoints` [N, K, 3] (x, y in pixels, score),
            `scores` [N], float32.

        Raises:
            InputError: an image that cannot be read, or boxes that are none.
        """
        if isinstance(images, list | tuple):
            every = boxes if boxes is not None else [None] * len(images)
            if len(every) != len(images):
                raise InputError(f"{len(images)} images, but boxes for {len(every)}: give as many")
            return [self.predict(image, box, detector) for image, box in zip(images, every, strict=True)]
        name, encoded, image = _opened(images)
        if boxes is None:
            whole = np.float32([[0, 0, image.width, image.height]])
            boxes = detector(np.asarray(image))[0] if detector else whole
        boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
        try:
            answer = self._serve(image_bytes=tf.constant([encoded]), boxes=tf.constant(boxes))
        except tf.errors.InvalidArgumentError as error:
            raise InputError(f"{name}: {_reason(error)}") from None
        return {"boxes": boxes} | {key: answer[key].numpy() for key in ("keypoints", "scores")}


def _opened(image):
    """(what to call it, the encoded file, the decoded `PIL.Image`) of a file name, a file's bytes or an array."""
    if isinstance(image, bytes):
        try:
            return "the image", image, Image.open(io.BytesIO(image))
        except OSError as error:
            raise InputError(f"the image: not an image ({error})") from None
    if isinstance(image, str | os.PathLike):
        decoded = ImageOps.exif_transpose(read_image(os.fspath(image)))
        with open(image, "rb") as file:
            encoded = file.read()
        # What the network is to see is what the overlay shows: upright, in RGB, and in a format that the graph takes.
        with Image.open(io.BytesIO(encoded)) as stored:
            as_stored = stored.format in ("JPEG", "PNG") and stored.mode in ("RGB", "L") and stored.size == decoded.size
            as_stored &= stored.getexif().get(0x0112, 1) == 1
        return os.fspath(image), encoded if as_stored else _png(decoded), decoded
    array = np.asarray(image)
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
        raise InputError(f"an image of shape {array.shape} and type {array.dtype}: give [H, W, 3] uint8 in RGB")
    decoded = Image.fromarray(array)
    return "an array", _png(decoded), decoded


def _png(image):
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def predict(model_dir, images, boxes=None, output_dir=None, overlays=True, detector="auto", to_stdout=False):
    """Predicts keypoints for each person of some photographs.

    Writes `output_dir/keypoints.json`, COCO keypoint results in the order of the boxes, each repeating the `image_id`
    and `bbox` it answers, and, with `overlays`, `output_dir/<image>.png`.

    Args:
        model_dir: as for `Model`.
        images: a file, a folder or a glob, or a list of them.
        boxes: JSON file with COCO annotations or detection results; None: the detector's.
        output_dir: where the results go; None: nowhere.
        overlays: draw the skeletons.
        detector: "auto" (the extra `detector` where it is installed), "none" (each image is one person's box), or a
            name in `kpose.detectors`, or a callable.
        to_stdout: print the results as JSON.

    Returns:
        The list of COCO results.

    Raises:
        InputError: no model, no images, a damaged image where there is but one, or boxes that do not fit the images.
            Damaged ones among others are told and left out, and in the end counted in an error.
    """
    paths = [path for name in ([images] if isinstance(images, str) else images) for path in find_images(name)]
    model = Model(model_dir)
    if boxes is None:
        detector = _detector(detector)
        requests = [(number, path, None) for number, path in enumerate(paths, start=1)]
    else:
        requests = read_boxes(boxes, paths)
    by_path = {}
    for index, (_, path, box) in enumerate(requests):
        by_path.setdefault(path, []).append((index, box))
    answers, failures = {}, []
    for path, persons in tqdm(by_path.items(), unit="image", disable=not os.isatty(2)):
        try:
            people = model.predict(path, None if boxes is None else [box for _, box in persons], detector)
        except InputError as error:
            if len(by_path) == 1:
                raise
            logging.warning("%s", error)
            failures.append(path)
            continue
        for number, person in enumerate(zip(people["boxes"], people["keypoints"], people["scores"], strict=True)):
            index = persons[number][0] if boxes is not None else persons[0][0]
            answers[index, number] = (requests[index][0], *person)
        if overlays and output_dir:
            _draw(_opened(path)[2], people, model.skeleton, _overlay_path(output_dir, path))
    ordered = [answers[key] for key in sorted(answers)]
    results = scoring.coco_results(*zip(*ordered, strict=True)) if ordered else []
    if output_dir:
        path = os.path.join(output_dir, KEYPOINTS_FILE)
        files.write_json(path, results, indent=None)
        logging.info("%d persons in %d images: %s", len(results), len(by_path) - len(failures), path)
    if to_stdout:
        json.dump(results, sys.stdout)
        print()
    if failures:
        raise InputError(f"{len(failures)} of {len(by_path)} images could not be used: see the warnings above")
    return results


def _detector(name):
    """The detector that a name asks for, None for whole images; says which."""
    if callable(name):
        return name
    if name == "auto":
        name = "ssdlite" if detectors.installed() else "none"
    if name == "none":
        logging.info(
            "no --boxes and no person detector: each whole image is taken as one person's box "
            "(pip install 'kpose[detector]' finds the persons)"
        )
        return None
    logging.info("persons are found by the detector %s", name)
    return detectors.find(name)


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
    """The image files that a file name, a folder or a glob stands for, sorted."""
    if os.path.isdir(images):
        found = [os.path.join(images, name) for name in os.listdir(images)]
        paths = sorted(path for path in found if path.lower().endswith(IMAGE_SUFFIXES))
    else:
        paths = sorted(path for path in glob.glob(images) if os.path.isfile(path))
        if os.path.isfile(images):
            paths = [images]
    if not paths:
        raise InputError(f"{images}: no image there ({', '.join(IMAGE_SUFFIXES)})")
    return paths


def read_boxes(path, image_paths):
    """The boxes of a JSON file that belong to the given images.

    Args:
        path: COCO annotations (a dict with "images" and "annotations") or detection results (a list of dicts with
            `image_id` and `bbox`). Results are matched with images by the number that the file name ends in, as in
            000000000139.jpg.
        image_paths: the images.

    Returns:
        List of (image_id, image path, box [4] xywh), in the order of the file.
    """
    data = files.read_json(path, "boxes file")
    annotated = isinstance(data, dict)
    entries = data.get("annotations") if annotated else data
    if not isinstance(entries, list):
        raise InputError(f"{path}: neither COCO annotations nor a list of detection results")
    by_name = {os.path.basename(image): image for image in image_paths}
    if annotated:
        named = {image["id"]: os.path.basename(image["file_name"]) for image in data.get("images", ())}
        by_id = {image_id: by_name[name] for image_id, name in named.items() if name in by_name}
    else:
        numbers = {name: re.search(r"(\d+)\.\w+$", name) for name in by_name}
        by_id = {int(number[1]): by_name[name] for name, number in numbers.items() if number}
    try:
        requests = [(e["image_id"], by_id[e["image_id"]], e["bbox"]) for e in entries if e["image_id"] in by_id]
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: an entry lacks the field {error}") from None
    if not requests:
        raise InputError(f"{path}: none of its {len(entries)} boxes is of one of the {len(image_paths)} images")
    return requests


def _overlay_path(output_dir, path):
    return os.path.join(output_dir, f"{os.path.splitext(os.path.basename(path))[0]}.png")


def _draw(image, people, skeleton, path):
    picture = np.asarray(image)
    for box, person in zip(people["boxes"], people["keypoints"], strict=True):
        picture = drawing.draw_box(picture, box)
        scores = person[:, 2]
        # A plain regressor scores all joints alike, by the person's size: that fades nothing.
        confidence = None if np.ptp(scores) == 0 else scores
        picture = drawing.draw_skeleton(
            picture,
            person[:, :2],
            skeleton,
            confidence=confidence,
            scale=float(max(box[2:])),
            threshold=DRAWN_FROM if confidence is not None else None,
        )
    drawing.save_image(path, picture)
