"""Recipes under one budget, on the embedded data set, in one table."""

import csv
import dataclasses
import os
import subprocess
import sys

import numpy as np
import tensorflow as tf
from absl import logging
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from kpose import config as config_lib
from kpose.core import files
from kpose.core.errors import InputError
from kpose.runs.workdir import HISTORY_FILE, load_config, load_network

# Crops with context, for the recipes that turn and shift what they see.
PADDING = 1.5
NEVER = 10**9


@dataclasses.dataclass(frozen=True)
class Budget:
    """What every recipe gets; the fields are the flags of `kpose.compare`."""

    steps: int
    batch_size: int
    input_size: int
    train_images: int
    val_images: int


def compare(output_dir, recipes, budget):
    """Trains and measures recipes.

    Args:
        output_dir: folder for data, runs and table.
        recipes: names; None: all of `comparable`.
        budget: `Budget`.

    Returns:
        A dict for each recipe: "recipe", and either its figures or "failed", the reason in a line.

    Raises:
        InputError: no such recipe.
    """
    recipes = with_bases(recipes or comparable())
    os.makedirs(output_dir, exist_ok=True)
    data = _make_data(output_dir, budget)
    table = []
    for recipe in recipes:
        logging.info("%s", recipe)
        table.append({"recipe": recipe} | _train_and_measure(recipe, output_dir, data, budget))
        files.write_json(os.path.join(output_dir, "comparison.json"), {"budget": budget.__dict__, "recipes": table})
    with files.replacing(os.path.join(output_dir, "comparison.md")) as file:
        file.write(markdown(table) + "\n")
    return table


def comparable():
    """The recipes that the drawn records suit: all but the demo's and those of unstretched crops."""
    return [name for name in config_lib.shipped() if name != "demo" and not config_lib.load_recipe(name).data.aspect]


def with_bases(recipes):
    """Recipes in an order in which every cascade's base comes before it, added where it is missing."""
    ordered = []

    def add(name):
        base = os.path.basename(config_lib.load_recipe(name).model.base)
        if base and base not in ordered:
            add(base)
        if name not in ordered:
            ordered.append(name)

    for name in recipes:
        add(name)
    return ordered


def _make_data(output_dir, budget):
    figures, records = os.path.join(output_dir, "figures"), os.path.join(output_dir, "records")
    data = {}
    for split, images, seed in (("train", budget.train_images, 1), ("val", budget.val_images, 2)):
        annotations = os.path.join(figures, "annotations", f"person_keypoints_{split}.json")
        data[split], data[f"{split}_annotations"] = os.path.join(records, f"{split}-*"), annotations
        if os.path.exists(os.path.join(records, f"{split}.manifest.json")):
            continue
        _run("tfrecords_tools.figures", output_dir=figures, split=split, num_images=images, seed=seed)
        _run(
            "tfrecords_tools.write_coco",
            annotations=annotations,
            images=os.path.join(figures, "images", split),
            output_dir=records,
            split=split,
            select="labelled",
            padding=PADDING,
            crop_size=round(PADDING * budget.input_size),
        )
    return data


def _run(module, **arguments):
    """Runs a binary of ours; its last line is the reason where it fails."""
    command = [sys.executable, "-m", module, *(f"--{name}={value}" for name, value in arguments.items())]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise InputError(f"python -m {module}: {lines[-1]}")


def _train_and_measure(recipe, output_dir, data, budget):
    config = config_lib.load_recipe(recipe)
    workdir = os.path.join(output_dir, "runs", recipe)
    fields = {
        "data.train": data["train"],
        "data.val": data["val"],
        "steps": budget.steps,
        "batch_size": budget.batch_size,
        "model.input_size": (budget.input_size, budget.input_size),
        "schedule.warmup_steps": min(config.schedule.warmup_steps, budget.steps // 10),
        "evaluate_every": NEVER,
        "checkpoint_every": NEVER,
        "log_every": max(budget.steps // 4, 1),
    }
    if config.model.base:
        fields["model.base"] = os.path.join(output_dir, "runs", os.path.basename(config.model.base))
    try:
        _run(
            "kpose.train",
            config=recipe,
            workdir=workdir,
            **{f"config.{name}": value for name, value in fields.items()},
        )
        _run("kpose.evaluate", workdir=workdir, records=data["val"], annotations=data["val_annotations"])
    except InputError as error:
        logging.error("%s: %s", recipe, error)
        return {"failed": str(error)}
    metrics = files.read_json(os.path.join(workdir, "evaluation", "metrics.json"), "metrics file")
    network, _ = load_network(workdir, load_config(workdir))
    with open(os.path.join(workdir, HISTORY_FILE), newline="") as file:
        rate = [row["images_per_second"] for row in csv.DictReader(file)][-1]
    return {
        "pcp_strict": metrics["pcp"]["strict"]["average"],
        "pcp_mean": metrics["pcp"]["mean"]["average"],
        "mean_pose_pcp_strict": metrics["mean_pose_pcp"]["strict"]["average"],
        "oks_ap": metrics["oks_ap"]["AP"],
        "parameters": network.count_params(),
        "flops": count_flops(network, (budget.input_size, budget.input_size)),
        "images_per_second": float(rate) if rate else None,
    }


def count_flops(network, input_size):
    """Floating-point operations of one image's prediction, a multiplication and an addition counting as two."""

    @tf.function(autograph=False)
    def answer(images):
        return network(images, training=False)

    concrete = answer.get_concrete_function(tf.TensorSpec((1, *input_size, 3), tf.float32))
    # Constants and shapes known: the profiler counts what it knows the shape of.
    graph = convert_variables_to_constants_v2(concrete).graph
    builder = tf.compat.v1.profiler.ProfileOptionBuilder
    options = builder(builder.float_operation()).with_empty_output().build()
    logger, level = tf.get_logger(), tf.get_logger().level
    # The profiler complains of its own deprecated parts.
    logger.setLevel("ERROR")
    try:
        return int(tf.compat.v1.profiler.profile(graph, options=options).total_float_ops)
    finally:
        logger.setLevel(level)


COLUMNS = {
    "pcp_strict": ("PCP strict", lambda v: f"{100 * v:.1f}"),
    "pcp_mean": ("PCP mean rule", lambda v: f"{100 * v:.1f}"),
    "oks_ap": ("OKS AP", lambda v: f"{100 * v:.1f}"),
    "parameters": ("parameters, M", lambda v: f"{v / 1e6:.1f}"),
    "flops": ("GFLOP", lambda v: f"{v / 1e9:.2f}"),
    "images_per_second": ("images/s", lambda v: f"{v:.0f}"),
}


def markdown(table):
    """The table, with the mean pose in its last row."""
    lines = ["| recipe | " + " | ".join(title for title, _ in COLUMNS.values()) + " |"]
    lines.append("| --- " * (len(COLUMNS) + 1) + "|")
    for row in table:
        if "failed" in row:
            lines.append(f"| {row['recipe']} | did not run: {row['failed']} |" + " |" * (len(COLUMNS) - 1))
            continue
        figures = ["-" if row[name] is None else show(row[name]) for name, (_, show) in COLUMNS.items()]
        lines.append(f"| {row['recipe']} | " + " | ".join(figures) + " |")
    floors = [row["mean_pose_pcp_strict"] for row in table if "failed" not in row]
    if floors:
        lines.append(f"| the mean pose | {100 * np.mean(floors):.1f} |" + " |" * (len(COLUMNS) - 1))
    return "\n".join(lines)
