"""Keypoints for photographs, through an exported model: overlays and COCO results."""

import glob
import os
import re

import numpy as np
import tensorflow as tf
from absl import logging
from tqdm import tqdm

from kpose import drawing, exporter, files, scoring, skeletons
from kpose.errors import InputError
from kpose.images import read_image

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
KEYPOINTS_FILE = "keypoints.json"


def predict(model_dir, images, boxes=None, output_dir=".", overlays=True):
    """Predicts keypoints for each person of some photographs.

    Writes `output_dir/keypoints.json`, COCO keypoint results in the order of the boxes, each repeating the `image_id`
    and `bbox` it answers, and, with `overlays`, `output_dir/<image>.png`.

    Args:
        model_dir: folder that `kpose.export` wrote: the base folder (its newest version is taken) or a version.
        images: a file, a folder or a glob.
        boxes: JSON file with COCO annotations or detection results; None: each image is one person's box.
        output_dir: where the results go.
        overlays: draw the skeletons.

    Returns:
        The list of COCO results.

    Raises:
        InputError: no model, no images, a damaged image, or boxes that do not fit the images.
    """
    paths = find_images(images)
    model, skeleton = load_model(model_dir)
    if boxes is None:
        logging.info("no --boxes and no person detector: each whole image is taken as one person's box")
        requests = [(index + 1, path, None) for index, path in enumerate(paths)]
    else:
        requests = read_boxes(boxes, paths)
    answers = {}
    by_path = {}
    for index, (_, path, box) in enumerate(requests):
        by_path.setdefault(path, []).append((index, box))
    for path, persons in tqdm(by_path.items(), unit="image", disable=not os.isatty(2)):
        image = read_image(path)
        with open(path, "rb") as file:
            image_bytes = file.read()
        whole = [0.0, 0.0, float(image.width), float(image.height)]
        asked = [whole if box is None else box for _, box in persons]
        keypoints, scores = serve(model, image_bytes, asked, path)
        for (index, _), box, person, score in zip(persons, asked, keypoints, scores, strict=True):
            answers[index] = (requests[index][0], box, person, score)
        if overlays:
            _draw(image, asked, keypoints, skeleton, _overlay_path(output_dir, path))
    ordered = [answers[index] for index in range(len(requests))]
    results = scoring.coco_results(*zip(*ordered, strict=True)) if ordered else []
    files.write_json(os.path.join(output_dir, KEYPOINTS_FILE), results, indent=None)
    logging.info("%d persons in %d images: %s", len(results), len(by_path), os.path.join(output_dir, KEYPOINTS_FILE))
    return results


def load_model(model_dir):
    """An exported model's `serving_default` signature and its `Skeleton`."""
    folder = model_dir
    if not os.path.exists(os.path.join(folder, "saved_model.pb")):
        versions = [name for name in (os.listdir(folder) if os.path.isdir(folder) else ()) if name.isdigit()]
        if not versions:
            raise InputError(f"{model_dir}: no exported model: write one with python -m kpose.export")
        folder = os.path.join(folder, max(versions, key=int))
    description = files.read_json(os.path.join(folder, exporter.DESCRIPTION_FILE), "description of a kpose model")
    # The signature alone does not keep the variables alive; its object does.
    loaded = tf.saved_model.load(folder)
    return loaded, skeletons.get(description["skeleton"])


def serve(model, image_bytes, boxes, path):
    """Asks the signature for the persons of one image: [N, K, 3] keypoints and [N] scores as NumPy arrays."""
    answer = {"keypoints": [], "scores": []}
    # In portions: the signature decodes the image anew for each person and holds all crops at once.
    for start in range(0, len(boxes), 32):
        part = np.asarray(boxes[start : start + 32], np.float32).reshape(-1, 4)
        try:
            outputs = model.signatures["serving_default"](
                image_bytes=tf.constant([image_bytes] * len(part)), boxes=tf.constant(part)
            )
        except tf.errors.InvalidArgumentError as error:
            raise InputError(f"{path}: {_reason(error)}") from None
        for name in answer:
            answer[name].append(outputs[name].numpy())
    return np.concatenate(answer["keypoints"]), np.concatenate(answer["scores"])


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


def _draw(image, boxes, keypoints, skeleton, path):
    picture = np.asarray(image)
    for box, person in zip(boxes, keypoints, strict=True):
        picture = drawing.draw_box(picture, box)
        picture = drawing.draw_skeleton(picture, person[:, :2], skeleton)
    drawing.save_image(path, picture)
