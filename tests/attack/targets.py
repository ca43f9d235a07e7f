"""What is attacked: for each kind, a function that prepares valid inputs and returns `one`.

`one(rng)` damages an input, uses it, and returns a `Result`. Errors that a user would see as one line
are results too; every other exception is a fault. TensorFlow is imported by those that need it.
"""

import enum
import fractions
import glob
import io
import json
import os
import shutil

import numpy as np
from PIL import Image

from kpose.core.errors import InputError
from tests import attack_files
from tests.attack import mutations


class Result(enum.Enum):
    """How the use of a damaged input ended."""

    ANSWERED = "answered"
    REFUSED = "refused"


def requests(folder):
    """Images and boxes for the exported model, between two valid ones."""
    import tensorflow as tf

    from kpose.export import saved_model

    model = tf.saved_model.load(saved_model.export(_run_folder(folder), os.path.join(folder, "serving")))
    images = [data for name, data in _images().items() if name in ("jpeg", "progressive", "png", "palette")]
    images += [attack_files.jpeg_of_scans(256, 50), attack_files.png_of_texts(5, 100_000)]
    box = [5.0, 4.0, 30.0, 40.0]
    valid = images[0]

    def ask(files, boxes, signature="serving_default"):
        answer = model.signatures[signature](
            image_bytes=tf.constant(files, tf.string), boxes=tf.constant(boxes, tf.float32)
        )
        return answer["keypoints"].numpy()

    expected = ask([valid], [box])

    def one(rng):
        data = mutations.of_bytes(rng, images[rng.integers(len(images))])
        damaged = rng.uniform([-100, -100, 0.5, 0.5], [100, 100, 200, 200])
        if rng.random() < 0.3:
            damaged[rng.integers(4)] = rng.choice([np.nan, np.inf, 0.0, -1.0, 1e9, -1e30, 1e6, -1e6, 1e-30])
        try:
            if rng.random() < 0.3:
                assert np.isfinite(ask([data], [damaged], "serving_people")).all()
            else:
                keypoints = ask([valid, data, valid], [box, damaged, box])
                assert np.isfinite(keypoints).all()
                np.testing.assert_allclose(keypoints[[0, 2]], expected[[0, 0]], atol=1e-2)
        except tf.errors.InvalidArgumentError:
            return Result.REFUSED
        return Result.ANSWERED

    return one


def records(folder):
    """A damaged shard of records, inspected and used for a training's batches."""
    from kpose.core import skeletons
    from kpose.data import tfrecord
    from kpose.data.training_set import find_training_set
    from tests import tiny
    from tfrecords_tools.inspect.sheets import inspect

    pattern, _ = tiny.make_records(os.path.join(folder, "data"), "train", 6)
    shard = glob.glob(pattern)[0]
    with open(shard, "rb") as file:
        valid = file.read()
    contents = list(tfrecord.read(shard))

    def one(rng):
        data = bytearray(valid)
        if rng.random() < 0.7:
            # With valid checksums, so that the damage is read.
            parts = list(contents)
            number = rng.integers(len(parts))
            parts[number] = mutations.of_bytes(rng, parts[number])
            data = b"".join(tfrecord.frame(part) for part in parts)
        else:
            data = mutations.of_bytes(rng, data)
        path = os.path.join(_fresh(folder), os.path.basename(shard))
        with open(path, "wb") as file:
            file.write(data)
        try:
            find_training_set(path, skeletons.COCO, 1.0)
            inspect(path, os.path.join(folder, "sheet.png"))
        except InputError:
            return Result.REFUSED
        return Result.ANSWERED

    return one


def annotations(folder):
    """Damaged annotation files for write_coco."""
    from tests import helpers
    from tfrecords_tools.figures import dataset
    from tfrecords_tools.write_coco import writer

    path = dataset.render_dataset(os.path.join(folder, "data"), 4, seed=5, split="train", workers=1)
    images = os.path.join(folder, "data", "images", "train")
    with open(path) as file:
        valid = json.load(file)

    def one(rng):
        damaged = os.path.join(_fresh(folder), "labels.json")
        with open(damaged, "wb") as file:
            file.write(mutations.of_json(rng, valid))
        fields = {"split": "train", "crop_size": (32, 32), "on_error": ["stop", "skip"][rng.integers(2)]}
        options = helpers.options(damaged, images, os.path.join(folder, "damaged", "records"), **fields)
        try:
            writer.write_records(options)
        except InputError:
            return Result.REFUSED
        return Result.ANSWERED

    return one


def runs(folder):
    """Folders of runs in which one file is damaged; the run is loaded and predicts."""
    import tensorflow as tf

    from kpose.predict import networks

    run = _run_folder(folder)
    files = sorted(
        os.path.relpath(os.path.join(place, name), run) for place, _, names in os.walk(run) for name in names
    )
    pixels, boxes = np.zeros((40, 40, 3), np.uint8), np.float32([[2, 3, 30, 30]])

    def one(rng):
        place = os.path.join(_fresh(folder), "run")
        shutil.copytree(run, place)
        path = os.path.join(place, files[rng.integers(len(files))])
        with open(path, "rb") as file:
            data = file.read()
        with open(path, "wb") as file:
            file.write(_damaged_file(rng, path, data))
        tf.keras.backend.clear_session()
        try:
            networks.open_network(place).predict(pixels, boxes)
        except InputError:
            return Result.REFUSED
        return Result.ANSWERED

    return one


def _damaged_file(rng, path, data):
    if path.endswith(".json") and rng.random() < 0.7:
        return mutations.of_json(rng, json.loads(data))
    return mutations.of_bytes(rng, data)


def images(folder):
    """Damaged images of every format, through prediction."""
    import kpose

    model = kpose.load(detector="none")
    valid = list(_images().values())

    def one(rng):
        data = mutations.of_bytes(rng, valid[rng.integers(len(valid))])
        try:
            people = model.predict(data)
        except InputError:
            return Result.REFUSED
        assert np.isfinite(people.keypoints).all() and np.isfinite(people.scores).all()
        return Result.ANSWERED

    return one


def videos(folder):
    """Damaged videos, through prediction."""
    import kpose
    from kpose.predict import files
    from kpose.predict import videos as videos_lib

    model = kpose.load(detector="none")
    stem = os.path.join(folder, "film")
    with videos_lib.writing(stem, (64, 48), fractions.Fraction(10)) as add:
        for number in range(1, 9):
            add(number, np.full((48, 64, 3), 25 * number, np.uint8))
    with open(f"{stem}.mp4", "rb") as file:
        valid = file.read()

    def one(rng):
        path = os.path.join(_fresh(folder), "film.mp4")
        with open(path, "wb") as file:
            file.write(mutations.of_bytes(rng, valid))
        try:
            files.predict(model, path, output_dir=os.path.join(folder, "damaged", "out"), overlays=False, every=4)
        except InputError:
            return Result.REFUSED
        return Result.ANSWERED

    return one


# Kind -> (function, number of items).
KINDS = {
    "requests": (requests, 10_000),
    "records": (records, 2_000),
    "annotations": (annotations, 1_000),
    "runs": (runs, 200),
    "images": (images, 12_000),
    "videos": (videos, 400),
}


def _run_folder(folder):
    """The folder of a finished tiny training."""
    from kpose.train import trainer
    from tests import tiny

    train, _ = tiny.make_records(os.path.join(folder, "data"), "train", 12)
    val, _ = tiny.make_records(os.path.join(folder, "data"), "val", 6)
    workdir = os.path.join(folder, "run")
    trainer.train(tiny.make_recipe(train, val), workdir)
    return workdir


def _fresh(folder):
    """An empty folder."""
    place = os.path.join(folder, "damaged")
    shutil.rmtree(place, ignore_errors=True)
    os.makedirs(place)
    return place


def _images():
    """Name -> bytes of a small valid image of each format."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    image = Image.fromarray(pixels)

    def encoded(kind, image=image, **options):
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        return buffer.getvalue()

    return {
        "jpeg": encoded("JPEG"),
        "progressive": encoded("JPEG", progressive=True),
        "cmyk": encoded("JPEG", image.convert("CMYK")),
        "png": encoded("PNG"),
        "palette": encoded("PNG", image.quantize(16)),
        "alpha": encoded("PNG", image.convert("RGBA")),
        "16 bits": encoded("PNG", Image.fromarray(pixels[..., 0].astype(np.uint16) * 256)),
        "webp": encoded("WEBP"),
        "bmp": encoded("BMP"),
        "tiff": encoded("TIFF"),
        "tiff of zlib": encoded("TIFF", compression="tiff_adobe_deflate"),
        "gif": encoded("GIF"),
        "jpeg 2000": encoded("JPEG2000"),
        "avif": encoded("AVIF"),
        "ppm": encoded("PPM"),
    }
