"""Trains recipes with the same budget on synthetic images and writes a table of their metrics."""

import dataclasses
import os

import numpy as np
from absl import logging

from kpose import config as config_lib
from kpose.core import commands, files
from kpose.core.errors import InputError
from kpose.models import flops
from kpose.runs.workdir import load_trained, read_history

# Crops show more than the box, for recipes that rotate and shift the image.
PADDING = 1.5
# Side of the images of a cascade in sides of the other recipes' input: a cascade needs more pixels
# than its first stage.
DETAIL = 2
# A number of steps that no run reaches.
NEVER = 10**9


@dataclasses.dataclass(frozen=True)
class Budget:
    """The budget of every recipe; the fields are flags of `kpose.compare`."""

    steps: int
    batch_size: int
    input_size: int
    train_images: int
    val_images: int


def compare(output_dir, recipes, budget):
    """Trains and evaluates recipes.

    Writes comparison.json after each recipe, and comparison.md at the end.

    Args:
        output_dir: folder for data, runs and table.
        recipes: names; None: all of `comparable`.
        budget: `Budget`.

    Returns:
        A list with a dict for each recipe: "recipe" and either its metrics or "failed", the reason
        in one line.

    Raises:
        InputError: a recipe does not exist, or the data cannot be made.
    """
    recipes = with_bases(recipes or comparable())
    files.check_folder_for_output(output_dir)
    with_cascade = any(config_lib.load_recipe(name).model.base for name in recipes)
    data = _make_data(output_dir, budget, round(PADDING * budget.input_size * (DETAIL if with_cascade else 1)))
    table = []
    for recipe in recipes:
        logging.info("%s", recipe)
        table.append({"recipe": recipe} | _train_and_evaluate(recipe, output_dir, data, budget))
        files.write_json(os.path.join(output_dir, "comparison.json"), {"budget": budget.__dict__, "recipes": table})
    with files.replacing(os.path.join(output_dir, "comparison.md")) as file:
        file.write(markdown(table) + "\n")
    return table


def comparable():
    """Returns the recipes for stretched crops, which the records here hold; without `demo`."""
    return [name for name in config_lib.shipped() if name != "demo" and not config_lib.load_recipe(name).data.aspect]


def with_bases(recipes):
    """Returns the recipes with the bases of cascades, each base before its cascade."""
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


def _make_data(output_dir, budget, crop_size):
    """Makes images and records, with crops of `crop_size` pixels, unless they exist.

    Returns:
        dict: for each split the glob of its records ("train", "val") and its annotation file
        ("train_annotations", "val_annotations").
    """
    figures, records = os.path.join(output_dir, "figures"), os.path.join(output_dir, "records")
    data = {}
    for split, images, seed in (("train", budget.train_images, 1), ("val", budget.val_images, 2)):
        annotations = os.path.join(figures, "annotations", f"person_keypoints_{split}.json")
        data[split], data[f"{split}_annotations"] = os.path.join(records, f"{split}-*"), annotations
        if os.path.exists(os.path.join(records, f"{split}.manifest.json")):
            continue
        commands.run(
            "tfrecords_tools.figures", quiet=True, output_dir=figures, split=split, num_images=images, seed=seed
        )
        commands.run(
            "tfrecords_tools.write_coco",
            quiet=True,
            annotations=annotations,
            images=os.path.join(figures, "images", split),
            output_dir=records,
            split=split,
            select="labelled",
            padding=PADDING,
            crop_size=crop_size,
        )
    return data


def _train_and_evaluate(recipe, output_dir, data, budget):
    """Returns the metrics of a recipe, or "failed", as a dict."""
    config = config_lib.load_recipe(recipe)
    workdir = os.path.join(output_dir, "runs", recipe)
    side = budget.input_size * (DETAIL if config.model.name == "cascade" else 1)
    fields = {
        "data.train": data["train"],
        "data.val": data["val"],
        "steps": budget.steps,
        "batch_size": budget.batch_size,
        "model.input_size": (side, side),
        "schedule.warmup_steps": min(config.schedule.warmup_steps, budget.steps // 10),
        "evaluate_every": NEVER,
        "checkpoint_every": NEVER,
        "log_every": max(budget.steps // 4, 1),
    }
    if config.model.base:
        # Recipes are for 224 pixels.
        smallest = 2 ** len(config.model.filters)
        fields["model.sub_image"] = smallest * max(1, round(config.model.sub_image * side / DETAIL / 224 / smallest))
        fields["model.base"] = os.path.join(output_dir, "runs", os.path.basename(config.model.base))
        # The same scale as the first stage: its pixels are those that it was trained on.
        fields["data.padding"] = 1.0
    changes = {f"config.{name}": value for name, value in fields.items()}
    try:
        commands.run("kpose.train", quiet=True, config=recipe, workdir=workdir, **changes)
        commands.run(
            "kpose.evaluate",
            quiet=True,
            workdir=workdir,
            records=data["val"],
            annotations=data["val_annotations"],
        )
    except InputError as error:
        logging.error("%s: %s", recipe, error)
        return {"failed": str(error)}
    metrics = files.read_json(os.path.join(workdir, "evaluation", "metrics.json"), "metrics file")
    network, rows = load_trained(workdir).network, read_history(workdir)
    return {
        "pcp_strict": metrics["pcp"]["strict"]["average"],
        "pcp_mean": metrics["pcp"]["mean"]["average"],
        "mean_pose_pcp_strict": metrics["mean_pose_pcp"]["strict"]["average"],
        "oks_ap": metrics["oks_ap"]["AP"],
        "parameters": network.count_params(),
        "flops": flops.forward(network, (side, side)),
        "images_per_second": rows[-1].get("images_per_second") if rows else None,
    }


# Key of the metrics -> (title, format) of the column.
COLUMNS = {
    "pcp_strict": ("PCP strict", lambda v: f"{100 * v:.1f}"),
    "pcp_mean": ("PCP mean rule", lambda v: f"{100 * v:.1f}"),
    "oks_ap": ("OKS AP", lambda v: f"{100 * v:.1f}"),
    "parameters": ("parameters, M", lambda v: f"{v / 1e6:.1f}"),
    "flops": ("GFLOP", lambda v: f"{v / 1e9:.2f}"),
    "images_per_second": ("images/s", lambda v: f"{v:.0f}"),
}


def markdown(table):
    """Returns the table of `compare` in Markdown; the mean pose is the last row."""
    lines = ["| recipe | " + " | ".join(title for title, _ in COLUMNS.values()) + " |"]
    lines.append("| --- " * (len(COLUMNS) + 1) + "|")
    for row in table:
        if "failed" in row:
            lines.append(f"| {row['recipe']} | did not run: {row['failed']} |" + " |" * (len(COLUMNS) - 1))
            continue
        cells = ["-" if row[name] is None else show(row[name]) for name, (_, show) in COLUMNS.items()]
        lines.append(f"| {row['recipe']} | " + " | ".join(cells) + " |")
    floors = [row["mean_pose_pcp_strict"] for row in table if "failed" not in row]
    floors = [value for value in floors if value is not None]
    if floors:
        lines.append(f"| the mean pose | {100 * np.mean(floors):.1f} |" + " |" * (len(COLUMNS) - 1))
    return "\n".join(lines)
