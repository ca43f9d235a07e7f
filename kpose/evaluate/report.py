"""An evaluation as one HTML file that opens without a network."""

import base64
import html
import io
import os

import numpy as np
from PIL import Image

from kpose.core import files, geometry
from kpose.drawing import charts, sheets
from kpose.metrics import tables

SHOWN = 8
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #33373d; max-width: 72rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem; margin-bottom: 0 } h2 { font-size: 1.15rem; margin-top: 2.2rem }
table { border-collapse: collapse; display: block; overflow-x: auto; margin: .6rem 0 }
th, td { padding: .25rem .8rem .25rem 0; text-align: right; white-space: nowrap; border-bottom: 1px solid #e3e5e8 }
th:first-child, td:first-child { text-align: left } thead th { border-bottom: 2px solid #b4b8bd }
img { max-width: 100%; height: auto } .quiet { color: #6c727a } small { color: #6c727a }
"""


def write(path, metrics, persons, pictures, skeleton):
    """Writes the report.

    Args:
        path: the HTML file.
        metrics: the dict of metrics.json.
        persons: arrays over all persons: `truth` and `keypoints` [N, K, 3] in original pixels, `box` [N, 4].
        pictures: title -> [H, W, 3] uint8.
        skeleton: the `Skeleton`.
    """
    folder = os.path.dirname(os.path.abspath(path))
    with open(os.path.join(folder, "pcp.png"), "rb") as file:
        bars = file.read()
    limbs, curve = _figure_bytes(charts.limb_bars, metrics), _figure_bytes(charts.pdj_curves, metrics)
    histogram = _figure_bytes(charts.error_histogram, metrics, persons)
    parts = [
        _heading(metrics),
        "<h2>Percentage of correct parts</h2>",
        _pcp_table(metrics),
        _image(bars, "PCP by limb group, the model's beside the mean pose's"),
        _image(limbs, "PCP of every limb, the model's beside the mean pose's"),
        "<h2>Detected joints</h2>",
        _pdj_table(metrics),
        _image(curve, "PDJ by threshold"),
        _image(histogram, "Histogram of the joints' errors"),
        _joint_table(metrics),
        *_section("COCO's figures (object keypoint similarity)", _plain_table(metrics["oks_ap"])),
        *_section("Visibility", _plain_table(metrics["visibility"])),
        "<h2>Kinds of persons</h2>",
        _subset_table(metrics),
        *(f"<h2>{html.escape(title)}</h2>{_image(_png(picture), title)}" for title, picture in pictures.items()),
    ]
    title = html.escape(f"kpose: {metrics['recipe']}")
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>'
        f"<body>{''.join(parts)}</body></html>\n"
    )
    with files.replacing(path) as file:
        file.write(page)


def extremes(persons, images_of, skeleton):
    """Pictures of the best, the median and the worst persons, truth beside prediction: title -> [H, W, 3] uint8.

    Args:
        persons: as for `write`, with `labels` [N, K, 3] normalised and `region` [N, 4].
        images_of: function from person numbers to their crops [n, H, W, 3].
        skeleton: the `Skeleton`.
    """
    errors = tables.person_errors(persons["truth"], persons["keypoints"][..., :2], persons["box"])
    order = np.argsort(errors)[: int(np.isfinite(errors).sum())]
    count = min(SHOWN, len(order))
    middle = max(0, len(order) // 2 - count // 2)
    chosen = {"best": order[:count], "median": order[middle : middle + count], "worst": order[::-1][:count]}
    pictures = {}
    for name, numbers in chosen.items():
        if len(numbers):
            regions = persons["region"][numbers]
            points = geometry.normalise(persons["keypoints"][numbers, :, :2], regions)
            labels, images = persons["labels"][numbers], images_of(numbers)
            title = f"The {name} persons, by mean error over the box's longer side: truth beside prediction"
            pictures[title] = sheets.prediction_grid(images, labels, points, skeleton, regions, columns=4)
    return pictures


def _heading(metrics):
    facts = {
        "checkpoint": metrics["checkpoint"],
        "records": metrics["records"],
        "persons": metrics["num_persons"],
        "boxes": metrics["box_source"],
        "flip test": {True: "yes", False: "no"}.get(metrics["flip_test"]),
    }
    if "pcp_of_all" in metrics:
        facts["labelled persons"] = metrics["num_labelled_persons"]
        facts["strict PCP, those not found counted as wrong"] = _percent(metrics["pcp_of_all"]["strict"]["average"])
    known = {name: html.escape(str(value)) for name, value in facts.items() if value is not None}
    rows = "".join(f"<tr><td>{name}</td><td>{value}</td></tr>" for name, value in known.items())
    pcp, ap = metrics["pcp"]["strict"]["average"], metrics["oks_ap"]
    found = f"strict PCP {_percent(pcp)}{_range(metrics['intervals']['pcp']['strict']['average'])}"
    if ap:
        found += f", OKS AP {_percent(ap['AP'])}"
    floor = _percent(metrics["mean_pose_pcp"]["strict"]["average"])
    return (
        f"<h1>{html.escape(metrics['recipe'])}</h1><p>{found} <span class=quiet>(the mean pose: {floor})</span></p>"
        f"<table>{rows}</table>"
    )


def _pcp_table(metrics):
    groups = list(metrics["pcp"]["strict"])
    rows = []
    for rule in metrics["pcp"]:
        intervals = metrics["intervals"]["pcp"][rule]
        cells = [_measured(metrics["pcp"][rule][g], intervals[g]) for g in groups]
        rows.append([f"{rule} rule", *cells])
        rows.append([f"mean pose, {rule} rule", *(_percent(metrics["mean_pose_pcp"][rule][g]) for g in groups)])
    note = "<p class=quiet>Below each figure, in brackets, its 95% interval over persons drawn anew (bootstrap).</p>"
    return note + _table(["", *(g.replace("_", " ") for g in groups)], rows)


def _pdj_table(metrics):
    rows = [
        [f"PDJ@{name}", _measured(value, metrics["intervals"]["pdj"][name]), _percent(metrics["mean_pose_pdj"][name])]
        for name, value in metrics["pdj"].items()
    ]
    return _table(["", "model", "mean pose"], rows)


def _joint_table(metrics):
    intervals, floor = metrics["intervals"], metrics["mean_pose_joint_errors"]
    rows = [
        [
            joint.replace("_", " "),
            _measured(metrics["pck"][joint], intervals["pck"][joint]),
            _percent(metrics["mean_pose_pck"][joint]),
            _number(errors["mean"], ".1f") + _small(_range(intervals["joint_errors"][joint], 1)),
            _number(floor[joint]["mean"], ".1f"),
            _number(errors["median"], ".1f"),
            _number(errors["mean_of_torso"], ".2f"),
        ]
        for joint, errors in metrics["joint_errors"].items()
    ]
    names = ["PCK@0.2 of the box", "of the mean pose", "mean error, pixels", "of the mean pose", "median"]
    return _table(["joint", *names, "mean, torso diameters"], rows)


def _subset_table(metrics):
    rows = [
        [
            subset["name"],
            str(subset["num_persons"]),
            _measured(subset["pcp"]["strict"]["average"], subset["intervals"]["pcp"]["strict"]["average"]),
            _percent(subset["mean_pose_pcp"]["strict"]["average"]),
            _measured(subset["pcp"]["mean"]["average"], subset["intervals"]["pcp"]["mean"]["average"]),
            _measured(subset["pdj"]["0.2"], subset["intervals"]["pdj"]["0.2"]),
            _percent(subset["mean_pose_pdj"]["0.2"]),
            _percent(subset["oks_ap"]["AP"] if subset["oks_ap"] else None),
        ]
        for subset in metrics["subsets"]
    ]
    names = [
        "persons",
        "number",
        "PCP strict",
        "of the mean pose",
        "PCP mean rule",
        "PDJ@0.2",
        "of the mean pose",
        "OKS AP",
    ]
    return _table(names, rows)


def _table(names, rows):
    head = "".join(f"<th>{name}</th>" for name in names)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _plain_table(figures):
    """A row of named fractions; None for none."""
    if figures is None:
        return None
    return _table(list(figures), [[_percent(value) for value in figures.values()]])


def _section(title, table):
    """The parts of a section; nothing where there is no table."""
    return [f"<h2>{html.escape(title)}</h2>", table] if table else []


def _measured(value, interval):
    """A fraction with its interval below."""
    return _percent(value) + _small(_range(interval))


def _small(text):
    return f"<br><small>{text}</small>" if text else ""


def _percent(value):
    return "-" if value is None else f"{100 * value:.1f}%"


def _number(value, form):
    return "-" if value is None else format(value, form)


def _range(interval, factor=100):
    return "" if interval is None else f" [{factor * interval[0]:.1f}, {factor * interval[1]:.1f}]"


def _image(png, title):
    return f'<img alt="{html.escape(title)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def _png(picture):
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", optimize=True)
    return file.getvalue()


def _figure_bytes(draw, *arguments):
    file = io.BytesIO()
    draw(*arguments, file)
    return file.getvalue()
