"""An evaluation as one HTML file that opens without a network."""

import base64
import html
import io
import os

import numpy as np
from PIL import Image

from kpose import drawing, files, geometry, plots, scoring

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
    curve, histogram = _figure_bytes(plots.pdj_curves, metrics), _figure_bytes(plots.error_histogram, metrics, persons)
    parts = [
        _heading(metrics),
        "<h2>Percentage of correct parts</h2>",
        _pcp_table(metrics),
        _image(bars, "PCP by limb group, the model's beside the mean pose's"),
        "<h2>Detected joints</h2>",
        _image(curve, "PDJ by threshold"),
        _image(histogram, "Histogram of the joints' errors"),
        _joint_table(metrics),
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
    errors = scoring.person_errors(persons["truth"], persons["keypoints"][..., :2], persons["box"])
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
            pictures[title] = drawing.prediction_grid(images, labels, points, skeleton, regions, columns=4)
    return pictures


def _heading(metrics):
    facts = {
        "checkpoint": metrics["checkpoint"],
        "records": metrics["records"],
        "persons": metrics["num_persons"],
        "boxes": metrics["box_source"],
        "flip test": "yes" if metrics["flip_test"] else "no",
    }
    rows = "".join(f"<tr><td>{name}</td><td>{html.escape(str(value))}</td></tr>" for name, value in facts.items())
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
        cells = [f"{_percent(metrics['pcp'][rule][g])}<br><small>{_range(intervals[g])}</small>" for g in groups]
        rows.append([f"{rule} rule", *cells])
        rows.append([f"mean pose, {rule} rule", *(_percent(metrics["mean_pose_pcp"][rule][g]) for g in groups)])
    note = "<p class=quiet>Below each figure, in brackets, its 95% interval over persons drawn anew (bootstrap).</p>"
    return note + _table(["", *(g.replace("_", " ") for g in groups)], rows)


def _joint_table(metrics):
    rows = [
        [
            joint.replace("_", " "),
            _percent(metrics["pck"][joint]),
            *(
                _number(errors[key], form)
                for key, form in (("mean", ".1f"), ("median", ".1f"), ("mean_of_torso", ".2f"))
            ),
        ]
        for joint, errors in metrics["joint_errors"].items()
    ]
    return _table(["joint", "PCK@0.2 of the box", "mean error, pixels", "median", "mean, torso diameters"], rows)


def _subset_table(metrics):
    rows = [
        [
            subset["name"],
            str(subset["num_persons"]),
            _percent(subset["pcp"]["strict"]["average"]),
            _percent(subset["mean_pose_pcp"]["strict"]["average"]),
            _percent(subset["pcp"]["mean"]["average"]),
            _percent(subset["pdj"]["0.2"]),
            _percent(subset["oks_ap"]["AP"] if subset["oks_ap"] else None),
        ]
        for subset in metrics["subsets"]
    ]
    names = ["persons", "number", "PCP strict", "of the mean pose", "PCP mean rule", "PDJ@0.2", "OKS AP"]
    return _table(names, rows)


def _table(names, rows):
    head = "".join(f"<th>{name}</th>" for name in names)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _percent(value):
    return "-" if value is None else f"{100 * value:.1f}%"


def _number(value, form):
    return "-" if value is None else format(value, form)


def _range(interval):
    return "" if interval is None else f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


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
