"""Renders synthetic images, writes records, trains, evaluates, exports and predicts.

python -m kpose.demo --output_dir=demo

The demo needs no download. It runs the commands of a real training and prints each command before
it runs. Then it sends one request to the exported model, and prints the metrics and the paths of
the results.
"""

import os
import time

from absl import flags

from kpose.core import cli, commands, files
from kpose.core.errors import InputError

FLAGS = cli.flag_set()
_OUTPUT_DIR = flags.DEFINE_string("output_dir", "demo", "Folder for all results.", flag_values=FLAGS)
_CONFIG = flags.DEFINE_string("config", "demo", "Name or file of the recipe.", flag_values=FLAGS)
_TRAIN_IMAGES = flags.DEFINE_integer(
    "train_images", 3000, "Number of training images.", lower_bound=1, flag_values=FLAGS
)
_VAL_IMAGES = flags.DEFINE_integer("val_images", 500, "Number of validation images.", lower_bound=1, flag_values=FLAGS)
_STEPS = flags.DEFINE_integer("steps", 0, "Training steps; 0: the number in the recipe.", flag_values=FLAGS)

CROP_SIZE = 96
# Joints that the summary prints.
PRINTED_JOINTS = ("nose", "left_wrist", "right_ankle")


def run_demo(output_dir, config="demo", train_images=3000, val_images=500, steps=0):
    """Runs all steps and prints a summary.

    Args:
        output_dir: folder for all results. Results of an earlier demo are reused or replaced.
        config: the recipe.
        train_images, val_images: numbers of images.
        steps: training steps; 0: the number in the recipe.

    Returns:
        The contents of metrics.json, a dict.

    Raises:
        InputError: a command failed.
    """
    files.check_folder_for_output(output_dir)
    started = time.monotonic()
    figures, run = os.path.join(output_dir, "figures"), os.path.join(output_dir, "run")
    seconds = {}
    train_records, val_records = _make_records(output_dir, figures, train_images, val_images, seconds)
    training = {"config": config, "workdir": run, "config.data.train": train_records, "config.data.val": val_records}
    if steps:
        training["config.steps"] = steps
    _run(seconds, "train", "kpose.train", **training)
    _run(
        seconds,
        "evaluate",
        "kpose.evaluate",
        workdir=run,
        records=val_records,
        annotations=_annotations(figures, "val"),
        output_dir=os.path.join(output_dir, "evaluation"),
    )
    serving = os.path.join(run, "serving")
    _run(seconds, "export", "kpose.export", workdir=run, output_dir=serving)
    _run(
        seconds,
        "predict",
        "kpose.predict",
        model=serving,
        images=os.path.join(figures, "images", "val", "00000000000[1-8].jpg"),
        boxes=_annotations(figures, "val"),
        output_dir=os.path.join(output_dir, "predictions"),
        overwrite=True,
    )
    return _summary(output_dir, run, figures, seconds, time.monotonic() - started)


def _make_records(output_dir, figures, train_images, val_images, seconds):
    """The globs of the records of both splits; makes them, their images and a contact sheet."""
    records = os.path.join(output_dir, "records")
    for split, count in (("train", train_images), ("val", val_images)):
        _run(seconds, "render", "tfrecords_tools.figures", output_dir=figures, num_images=count, split=split)
        _run(
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
    train_records, val_records = (os.path.join(records, f"{split}-*") for split in ("train", "val"))
    sheet = os.path.join(output_dir, "contact_sheet.png")
    _run(seconds, "inspect", "tfrecords_tools.inspect", records=val_records, sheet=sheet)
    return train_records, val_records


def _annotations(figures, split):
    return os.path.join(figures, "annotations", f"person_keypoints_{split}.json")


def _run(seconds, name, module, **arguments):
    """Runs a command and adds its time to `seconds[name]`."""
    started = time.monotonic()
    try:
        commands.run(module, **arguments)
    except InputError as error:
        raise InputError(f"the demo stopped: {error}") from None
    seconds[name] = seconds.get(name, 0.0) + time.monotonic() - started


def serve_one(model_dir, figures):
    """Calls the exported signature `serving_default`, as a client of TF Serving does.

    Args:
        model_dir: folder of the exported model.
        figures: folder of the synthetic images.

    Returns:
        Path of the first validation image with a person, the person's box [4] xywh, and the
        predicted keypoints [K, 3].
    """
    import tensorflow as tf

    from kpose.export import model_folder

    truth = files.read_json(_annotations(figures, "val"), "annotation file")
    person = truth["annotations"][0]
    name = next(image["file_name"] for image in truth["images"] if image["id"] == person["image_id"])
    path = os.path.join(figures, "images", "val", name)
    model = tf.saved_model.load(model_folder.version_folder(model_dir))
    answer = model.signatures["serving_default"](
        image_bytes=tf.constant([tf.io.read_file(path).numpy()]), boxes=tf.constant([person["bbox"]], tf.float32)
    )
    return path, person["bbox"], answer["keypoints"][0].numpy()


def _summary(output_dir, run, figures, seconds, total):
    """Prints metrics, one served request, times and paths; returns the contents of metrics.json."""
    from kpose.core import skeletons
    from kpose.evaluate.summary import describe

    path, box, keypoints = serve_one(os.path.join(run, "serving"), figures)
    table = files.read_json(os.path.join(output_dir, "evaluation", "metrics.json"), "metrics file")
    joints = ", ".join(
        f"{joint} ({x:.0f}, {y:.0f})"
        for joint, (x, y, _) in zip(skeletons.COCO.joints, keypoints, strict=True)
        if joint in PRINTED_JOINTS
    )
    box = ", ".join(f"{value:.0f}" for value in box)
    print("\n=== kpose demo: results on the validation images ===")
    print("\n".join(describe(table)))
    print(f"\none request to the exported model: {os.path.basename(path)}, box ({box}) -> {joints}, ...")
    print("time: " + ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items()) + f"; total {total:.0f} s")
    print("\nresults:")
    places = {
        "contact sheet of the records": os.path.join(output_dir, "contact_sheet.png"),
        "learning curve": os.path.join(run, "learning_curve.png"),
        "predictions and ground truth": os.path.join(output_dir, "evaluation", "predictions.png"),
        "PCP by limb, with the mean pose": os.path.join(output_dir, "evaluation", "pcp.png"),
        "images with skeletons": os.path.join(output_dir, "predictions"),
        "TensorBoard": f"tensorboard --logdir {run}",
    }
    for name, place in places.items():
        print(f"  {name:<33}{place}")
    print("next: train on COCO, see 'Train on COCO' in README.md")
    return table


def main():
    run_demo(_OUTPUT_DIR.value, _CONFIG.value, _TRAIN_IMAGES.value, _VAL_IMAGES.value, _STEPS.value)


def console():
    cli.run(main, FLAGS, __doc__)


if __name__ == "__main__":
    console()
