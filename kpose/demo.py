"""The whole chain on drawn people: render, write records, train, measure, export, serve, and leave pictures.

python -m kpose.demo --output_dir=demo

needs no download. It runs the same commands as a real training does (each is printed before it runs), then asks the
exported model about one image, and ends with a summary that says where to look.
"""

import os
import shlex
import subprocess
import sys
import time

from absl import flags

from kpose.core import cli
from kpose.core.errors import InputError

FLAGS = cli.flag_set()
_OUTPUT_DIR = flags.DEFINE_string("output_dir", "demo", "Where everything goes.", flag_values=FLAGS)
_CONFIG = flags.DEFINE_string("config", "demo", "The recipe.", flag_values=FLAGS)
_TRAIN_IMAGES = flags.DEFINE_integer("train_images", 3000, "Images to train on.", lower_bound=1, flag_values=FLAGS)
_VAL_IMAGES = flags.DEFINE_integer("val_images", 500, "Unseen images to measure on.", lower_bound=1, flag_values=FLAGS)
_STEPS = flags.DEFINE_integer("steps", 0, "Training steps instead of the recipe's epochs.", flag_values=FLAGS)

CROP_SIZE = 96


def run_demo(output_dir, config="demo", train_images=3000, val_images=500, steps=0):
    """Runs the chain; returns the dict of metrics.json.

    Args:
        output_dir: where everything goes; what an earlier demo left there is used again or replaced.
        config: the recipe.
        train_images, val_images: images to render.
        steps: training steps instead of the recipe's epochs (0: the recipe's).

    Raises:
        InputError: a step of the chain failed.
    """
    started = time.monotonic()
    figures, records, run = (os.path.join(output_dir, name) for name in ("figures", "records", "run"))
    seconds = {}
    for split, count in (("train", train_images), ("val", val_images)):
        _step(seconds, "render", "tfrecords_tools.figures", output_dir=figures, num_images=count, split=split)
        _step(
            seconds,
            "write records",
            "tfrecords_tools.write_coco",
            annotations=_annotations(figures, split),
            images=os.path.join(figures, "images", split),
            output_dir=records,
            split=split,
            select="labelled",
            crop_size=CROP_SIZE,
        )
    val_records = os.path.join(records, "val-*")
    sheet = os.path.join(output_dir, "contact_sheet.png")
    _step(seconds, "inspect", "tfrecords_tools.inspect", records=val_records, sheet=sheet)
    training = {"config": config, "workdir": run}
    training |= {"config.data.train": os.path.join(records, "train-*"), "config.data.val": val_records}
    if steps:
        training["config.steps"] = steps
    _step(seconds, "train", "kpose.train", **training)
    _step(
        seconds,
        "evaluate",
        "kpose.evaluate",
        workdir=run,
        records=val_records,
        annotations=_annotations(figures, "val"),
        output_dir=os.path.join(output_dir, "evaluation"),
    )
    _step(seconds, "export", "kpose.export", workdir=run, output_dir=os.path.join(run, "serving"))
    _step(
        seconds,
        "predict",
        "kpose.predict",
        model=os.path.join(run, "serving"),
        images=os.path.join(figures, "images", "val", "00000000000[1-8].jpg"),
        boxes=_annotations(figures, "val"),
        output_dir=os.path.join(output_dir, "predictions"),
    )
    return _summary(output_dir, run, figures, seconds, time.monotonic() - started)


def _annotations(figures, split):
    return os.path.join(figures, "annotations", f"person_keypoints_{split}.json")


def _step(seconds, name, module, **arguments):
    """Runs a binary of ours, and adds its time to `seconds[name]`."""
    command = ["-m", module, *(f"--{key}={value}" for key, value in arguments.items())]
    print(f"\n$ python {' '.join(shlex.quote(word) for word in command)}", flush=True)
    started = time.monotonic()
    status = subprocess.run([sys.executable, *command], check=False).returncode
    if status:
        raise InputError(f"the demo stopped: python -m {module} ended with status {status} (see above)")
    seconds[name] = seconds.get(name, 0.0) + time.monotonic() - started


def serve_one(model_dir, figures):
    """One request through the exported signature, as a client of TF Serving would make it.

    Returns:
        (the first validation image's file, its box, keypoints [K, 3]).
    """
    import tensorflow as tf

    from kpose.core import files
    from kpose.predict.model import load_model

    truth = files.read_json(_annotations(figures, "val"), "annotation file")
    person = truth["annotations"][0]
    name = next(image["file_name"] for image in truth["images"] if image["id"] == person["image_id"])
    path = os.path.join(figures, "images", "val", name)
    model, _ = load_model(model_dir)
    answer = model.signatures["serving_default"](
        image_bytes=tf.constant([tf.io.read_file(path).numpy()]), boxes=tf.constant([person["bbox"]], tf.float32)
    )
    return path, person["bbox"], answer["keypoints"][0].numpy()


def _summary(output_dir, run, figures, seconds, total):
    from kpose.core import files, skeletons
    from kpose.evaluate.figures import describe

    path, box, keypoints = serve_one(os.path.join(run, "serving"), figures)
    table = files.read_json(os.path.join(output_dir, "evaluation", "metrics.json"), "metrics file")
    pictures = {
        "contact sheet of the records": os.path.join(output_dir, "contact_sheet.png"),
        "learning curve": os.path.join(run, "learning_curve.png"),
        "predictions beside truth": os.path.join(output_dir, "evaluation", "predictions.png"),
        "limbs against the mean pose": os.path.join(output_dir, "evaluation", "pcp.png"),
        "skeletons drawn into images": os.path.join(output_dir, "predictions"),
    }
    joints = ", ".join(
        f"{joint} ({x:.0f}, {y:.0f})"
        for joint, (x, y, _) in zip(skeletons.COCO.joints, keypoints, strict=True)
        if joint in ("nose", "left_wrist", "right_ankle")
    )
    box = ", ".join(f"{value:.0f}" for value in box)
    print("\n=== kpose demo: people it has never seen ===")
    print("\n".join(describe(table)))
    print(f"\none request served: {os.path.basename(path)}, box ({box}) -> {joints}, ...")
    print("time: " + ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items()) + f"; in all {total:.0f} s")
    print("\nlook at:")
    for name, place in pictures.items():
        print(f"  {name:<30}{place}")
    print(f"  {'figures of the run':<30}tensorboard --logdir {run}")
    print("next: train on COCO itself, as README.md says under 'Train on COCO'")
    return table


def main():
    run_demo(_OUTPUT_DIR.value, _CONFIG.value, _TRAIN_IMAGES.value, _VAL_IMAGES.value, _STEPS.value)


def console():
    cli.run(main, FLAGS, __doc__)


if __name__ == "__main__":
    console()
