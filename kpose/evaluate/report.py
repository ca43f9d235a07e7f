"""The report of an evaluation: one HTML file that opens without a network.

This module prepares the values. The template report.html.jinja holds the page.
"""

import base64
import io
import os
from typing import NamedTuple

import jinja2
from PIL import Image

from kpose import config as config_lib
from kpose.core import files, validation_sets
from kpose.drawing import charts
from kpose.evaluate.summary import describe_pixels, has_limbs, note_on_sigmas, pdj_unit, percent
from kpose.metrics import pose
from kpose.runs.workdir import read_history

TEMPLATE = "report.html.jinja"


class Cell(NamedTuple):
    """A cell of a table: its text, and the interval to print below it ("": none)."""

    text: str
    interval: str = ""


class Table(NamedTuple):
    """A table: the names of its columns, and its rows of `Cell`s."""

    columns: list
    rows: list


class Run(NamedTuple):
    """What the report says about the training: the recipe, and the rows of history.csv."""

    recipe: object
    history: list


def run_of(trained):
    """The `Run` of a `workdir.Trained`; a shipped model has no history."""
    return Run(trained.config, read_history(trained.folder) if trained.folder else [])


def write(output_dir, metrics, persons, pictures, run=None):
    """Writes report.html, and the chart pcp.png if the skeleton has limbs.

    Args:
        output_dir: the folder.
        metrics: the dict of metrics.json.
        persons: arrays over all persons: `truth` [N, K, 3], `keypoints` [N, K, 2 or 3] and `box`
            [N, 4] in original pixels.
        pictures: {title: picture [H, W, 3] uint8}, shown at the end.
        run: `Run`; None: the report has no recipe and no learning curve.
    """
    errors, labelled = pose.joint_errors(persons["truth"], persons["keypoints"][..., :2])
    relative_errors = (errors / pose.longer_sides(persons["box"])[:, None])[labelled]
    pngs = {
        "pdj_curve": _chart(charts.pdj_curves, metrics),
        "errors": _chart(charts.error_histogram, relative_errors, metrics["num_persons"]),
    }
    if metrics.get("calibration"):
        pngs["reliability"] = _chart(charts.reliability_curves, metrics["calibration"])
    if run and run.history:
        pngs["learning_curve"] = _chart(_learning_curve, run, note_on_sigmas(metrics))
    if has_limbs(metrics):
        pngs |= {"pcp_by_group": _chart(charts.pcp_bars, metrics), "pcp_by_limb": _chart(charts.limb_bars, metrics)}
        with files.replacing(os.path.join(output_dir, "pcp.png"), "wb") as file:
            file.write(pngs["pcp_by_group"])
    values = _values(metrics) | {
        "recipe_fields": _recipe_table(run.recipe) if run else None,
        "validation_sets": _validation_table(run, note_on_sigmas(metrics)) if run else None,
        "charts": {name: _base64(png) for name, png in pngs.items()},
        "pictures": {title: _base64(_png(picture)) for title, picture in pictures.items()},
    }
    with files.replacing(os.path.join(output_dir, "report.html")) as file:
        file.write(_template().render(values))


def _template():
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(os.path.dirname(__file__)),
        # Names of recipes, files and records are not trusted.
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE)


def _values(metrics):
    """The values of the template that are text or tables."""
    ap, intervals, limbs = metrics["oks_ap"], metrics["intervals"], has_limbs(metrics)
    if limbs:
        name, value, edges = "strict PCP", metrics["pcp"]["strict"]["average"], intervals["pcp"]["strict"]["average"]
        floor = metrics["mean_pose_pcp"]["strict"]["average"]
    else:
        name, value, edges = "PDJ@0.2", metrics["pdj"]["0.2"], intervals["pdj"]["0.2"]
        floor = metrics["mean_pose_pdj"]["0.2"]
    headline = f"{name} {percent(value)} {_interval(edges)}".rstrip()
    if ap:
        edges = _interval(intervals["oks_ap"]["AP"])
        headline += f", OKS AP {percent(ap['AP'])} {edges}".rstrip() + note_on_sigmas(metrics)
    return {
        "recipe": metrics["recipe"],
        "headline": headline,
        "mean_pose": f"{name} {percent(floor)}",
        "resampled": f"{metrics['bootstrap']['num_images']} images",
        "facts": _facts(metrics),
        "unit": pdj_unit(metrics),
        "sigmas": _sigmas(metrics),
        "pcp": _pcp_table(metrics) if limbs else None,
        "pdj": _pdj_table(metrics),
        "joints": _joint_table(metrics),
        "scores": _score_table(metrics.get("calibration")),
        "oks": _row_of_percents(ap, intervals["oks_ap"]),
        "visibility": _row_of_percents(metrics["visibility"]),
        "subsets": _subset_table(metrics),
    }


def _facts(metrics):
    """{name: value}: what was evaluated; facts that are not known are left out."""
    facts = {
        "checkpoint": metrics["checkpoint"],
        "records": metrics["records"],
        "pixels": describe_pixels(metrics["pixels"]) if metrics.get("pixels") else None,
        "persons": metrics["num_persons"],
        "images with these persons": metrics["bootstrap"]["num_images"],
        "boxes": metrics["box_source"],
        "flip test": {True: "yes", False: "no"}.get(metrics["flip_test"]),
    }
    if "pcp_of_all" in metrics:
        facts["labelled persons"] = metrics["num_labelled_persons"]
    if "pcp_of_all" in metrics and has_limbs(metrics):
        facts["strict PCP, persons not found counted as wrong"] = percent(metrics["pcp_of_all"]["strict"]["average"])
    return {name: value for name, value in facts.items() if value is not None}


def _recipe_table(recipe):
    """The fields of a recipe that differ from the default, with both values."""
    default = config_lib.flatten(config_lib.default())
    rows = [
        [Cell(field), Cell(str(value)), Cell(str(default.get(field, "")))]
        for field, value in config_lib.flatten(recipe).items()
        if field != "name" and value != default.get(field)
    ]
    return Table(["field", "value", "default"], rows)


def _pcp_table(metrics):
    groups = list(metrics["pcp"]["strict"])
    rows = []
    for rule, values in metrics["pcp"].items():
        intervals, floor = metrics["intervals"]["pcp"][rule], metrics["mean_pose_pcp"][rule]
        rows.append([Cell(f"{rule} rule"), *(_measured(values[group], intervals[group]) for group in groups)])
        rows.append([Cell(f"mean pose, {rule} rule"), *(Cell(percent(floor[group])) for group in groups)])
    return Table(["", *(group.replace("_", " ") for group in groups)], rows)


def _pdj_table(metrics):
    intervals, floor = metrics["intervals"]["pdj"], metrics["mean_pose_pdj"]
    rows = [
        [Cell(f"PDJ@{threshold}"), _measured(value, intervals[threshold]), Cell(percent(floor[threshold]))]
        for threshold, value in metrics["pdj"].items()
    ]
    return Table(["", "model", "mean pose"], rows)


def _joint_table(metrics):
    intervals, floor = metrics["intervals"], metrics["mean_pose_joint_errors"]
    columns = [
        "joint",
        "PCK@0.2",
        "PCK@0.2, mean pose",
        "mean error, pixels",
        "mean error, mean pose",
        "median error, pixels",
    ]
    in_torsos = pdj_unit(metrics) == pose.TORSOS
    columns += ["mean error, torso diameters"] if in_torsos else []
    rows = [
        [
            Cell(joint.replace("_", " ")),
            _measured(metrics["pck"][joint], intervals["pck"][joint]),
            Cell(percent(metrics["mean_pose_pck"][joint])),
            Cell(_number(errors["mean"], ".1f"), _interval(intervals["joint_errors"][joint], factor=1)),
            Cell(_number(floor[joint]["mean"], ".1f")),
            Cell(_number(errors["median"], ".1f")),
            *([Cell(_number(errors["mean_of_torso"], ".2f"))] if in_torsos else []),
        ]
        for joint, errors in metrics["joint_errors"].items()
    ]
    return Table(columns, rows)


def _score_table(found):
    """The ECE and the Brier score of both kinds of scores; None without scores."""
    if not found:
        return None
    name = f"calibrated on {found['fitted_on']}" if found["calibrated"] else "uncalibrated, no probabilities"
    parts = [(name, found)] + ([("uncalibrated", found["uncalibrated"])] if found["uncalibrated"] else [])
    rows = [
        [
            Cell(f"{what}, {label}"),
            Cell(str(part[what]["count"])),
            Cell(percent(part[what]["ece"])),
            Cell(_number(part[what]["brier"], ".3f")),
        ]
        for what in ("joints", "persons")
        for label, part in parts
    ]
    return Table(["scores of", "number", "ECE", "Brier score"], rows)


def _subset_table(metrics):
    limbs = has_limbs(metrics)
    columns = [
        "persons",
        "number",
        *(["PCP strict", "PCP strict, mean pose", "PCP mean rule"] if limbs else []),
        "PDJ@0.2",
        "PDJ@0.2, mean pose",
        f"OKS AP{note_on_sigmas(metrics)}",
    ]

    def pcp_cells(subset):
        return [
            _measured(subset["pcp"]["strict"]["average"], subset["intervals"]["pcp"]["strict"]["average"]),
            Cell(percent(subset["mean_pose_pcp"]["strict"]["average"])),
            _measured(subset["pcp"]["mean"]["average"], subset["intervals"]["pcp"]["mean"]["average"]),
        ]

    rows = [
        [
            Cell(subset["name"]),
            Cell(str(subset["num_persons"])),
            *(pcp_cells(subset) if limbs else []),
            _measured(subset["pdj"]["0.2"], subset["intervals"]["pdj"]["0.2"]),
            Cell(percent(subset["mean_pose_pdj"]["0.2"])),
            Cell(percent(subset["oks_ap"]["AP"] if subset["oks_ap"] else None)),
        ]
        for subset in metrics["subsets"]
    ]
    return Table(columns, rows)


def _sigmas(metrics):
    """A sentence about the sigmas of OKS; "" for a file of an older kpose."""
    sigmas = metrics.get("oks_sigmas")
    if isinstance(sigmas, str):
        return f"Sigma of every joint: {sigmas}, because the skeleton has no sigmas of its own."
    joints = metrics["joint_errors"]
    named = (f"{joint.replace('_', ' ')} {sigma:g}" for joint, sigma in zip(joints, sigmas or (), strict=bool(sigmas)))
    return f"Sigmas: {', '.join(named)}." if sigmas else ""


def _row_of_percents(fractions, intervals=None):
    """A `Table` with one row of named fractions, and their intervals where there are any; None without any."""
    if fractions is None:
        return None
    cells = [_measured(value, (intervals or {}).get(name)) for name, value in fractions.items()]
    return Table(list(fractions), [cells])


def _measured(value, interval):
    """The `Cell` of a fraction and its interval."""
    return Cell(percent(value), _interval(interval))


def _interval(interval, factor=100):
    """An interval as text, such as "[12.3, 45.6]"; "" for None."""
    return "" if interval is None else f"[{factor * interval[0]:.1f}, {factor * interval[1]:.1f}]"


def _number(value, form):
    return "-" if value is None else format(value, form)


def _learning_curve(run, note, file):
    further = [name for name, _ in validation_sets.parse(run.recipe.data.val)[1:]]
    charts.learning_curve(run.history, file, note_on_oks=note, further=further)


def _validation_table(run, note):
    """The last evaluation of the training on each validation set; None unless there are several."""
    sets = validation_sets.parse(run.recipe.data.val)
    last = next((row for row in reversed(run.history) if "val_loss" in row), None)
    if len(sets) < 2 or last is None:
        return None
    found = list(validation_sets.split(last, [name for name, _ in sets[1:]]).values())
    titles = {"loss": "loss", "pcp_strict": "PCP strict", "pcp_mean": "PCP mean rule", "pdj_0.2": "PDJ@0.2"}
    titles |= {"oks_ap": f"OKS AP{note}"}
    titles = {metric: title for metric, title in titles.items() if any(metric in of_set for of_set in found)}
    rows = [
        [
            Cell(name),
            Cell(pattern),
            *(
                Cell(_number(of_set.get(metric), ".4g") if metric == "loss" else percent(of_set.get(metric)))
                for metric in titles
            ),
        ]
        for (name, pattern), of_set in zip(sets, found, strict=True)
    ]
    return Table(["validation set", "records", *titles.values()], rows)


def _chart(draw, *arguments):
    """The PNG file, as bytes, that a function of `charts` draws."""
    file = io.BytesIO()
    draw(*arguments, file)
    return file.getvalue()


def _png(picture):
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", optimize=True)
    return file.getvalue()


def _base64(data):
    return base64.b64encode(data).decode()
