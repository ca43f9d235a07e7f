"""Renders a data set of synthetic images in COCO's format."""

import functools
import multiprocessing
import os

from absl import logging
from PIL import Image

from kpose.core import files, skeletons
from kpose.core.errors import InputError
from kpose.core.progress import Progress
from tfrecords_tools import coco_builder
from tfrecords_tools.figures.scenes import render_image


def _render_file(index, folder, seed, split):
    """Writes image number `index` to `folder`; returns its COCO entry and its annotations."""
    pixels, annotations = render_image(seed, split, index)
    name = f"{index + 1:012d}.jpg"
    with files.replacing(os.path.join(folder, name), "wb") as file:
        Image.fromarray(pixels).save(file, "JPEG", quality=int(72 + 24 * ((index * 0.618034) % 1)))
    height, width = pixels.shape[:2]
    return {"id": index + 1, "file_name": name, "width": width, "height": height}, annotations


def _check(output_dir, num_images, seed, split, workers):
    if not output_dir:
        raise InputError("output_dir is empty: give the folder to write to")
    if num_images < 1:
        raise InputError(f"num_images is {num_images}: it must be at least 1")
    if seed < 0:
        raise InputError(f"seed is {seed}: it must be at least 0")
    if not split or any(c in split for c in "/\\") or split in (".", ".."):
        raise InputError(f"split is {split!r}: it must be a plain name such as train, without slashes")
    if workers < 0:
        raise InputError(f"workers is {workers}: it must be at least 0 (0: one per core)")
    files.check_folder_for_output(output_dir)


def render_dataset(output_dir, num_images, seed=0, split="train", workers=0):
    """Writes a split: `images/<split>/*.jpg` and `annotations/person_keypoints_<split>.json`.

    The JSON file is removed first and written last, so it exists only if all of its images do.

    Args:
        output_dir: folder to write to; created if it does not exist.
        num_images: number of images, at least 1.
        seed: integer, at least 0.
        split: a plain name.
        workers: number of processes; 0: one per core; 1: this process. Several processes are
            spawned, so a script needs `if __name__ == "__main__"`.

    Returns:
        The path of the JSON file.

    Raises:
        InputError: an argument is out of range.
    """
    _check(output_dir, num_images, seed, split, workers)
    folder = os.path.join(output_dir, "images", split)
    path = os.path.join(output_dir, "annotations", f"person_keypoints_{split}.json")
    os.makedirs(folder, exist_ok=True)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if os.path.exists(path):
        os.remove(path)

    render = functools.partial(_render_file, folder=folder, seed=seed, split=split)
    workers = min(workers or os.cpu_count() or 1, num_images)
    if workers == 1:
        images, annotations = _gather(map(render, range(num_images)), num_images)
    else:
        # Spawned, not forked: the caller may have threads and locks, such as TensorFlow's.
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            images, annotations = _gather(pool.imap(render, range(num_images), chunksize=8), num_images)

    dataset = {
        "info": {"description": f"Drawn figures, seed {seed}, split {split}", "version": "1.0"},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": [coco_builder.category(skeletons.COCO)],
    }
    files.write_json(path, dataset, indent=None)
    logging.info("%s: %d images, %d persons", path, num_images, len(annotations))
    return path


def _gather(results, num_images):
    images, annotations = [], []
    with Progress(num_images, "images") as progress:
        for image, people in results:
            images.append(image)
            annotations += people
            progress.add(1)
    return images, annotations
