"""Charts of a training run and of an evaluation, as PNG.

Each function takes `file`: the path of the PNG file, which is replaced only when it is complete, or
a binary file that is open for writing.
"""

import math
import warnings

import numpy as np

from kpose.core import files, validation_sets

MODEL_COLOUR = "#1f6fb4"
SECOND_COLOUR = "#e8833a"
THIRD_COLOUR = "#59a869"
FLOOR_COLOUR = "#b4b8bd"
INK = "#33373d"

FURTHER_COLOURS = ("#8e5ea2", "#c0504d", "#3aa6a6", "#8a6d3b")

LOSSES = {"loss": ("training", FLOOR_COLOUR), "val_loss": ("validation", MODEL_COLOUR)}
SCORES = {
    "pcp_strict": ("training, strict PCP", FLOOR_COLOUR),
    "val_pcp_strict": ("validation, strict PCP", MODEL_COLOUR),
    "val_pcp_mean": ("validation, mean rule PCP", THIRD_COLOUR),
}
RATES = {"learning_rate": ("learning rate", MODEL_COLOUR)}
# Columns that are no shares of limbs, joints or persons.
NO_SCORES = ("val_loss", "val_spread")


def learning_curve(rows, file, mean_pose_pcp=None, note_on_oks="", further=()):
    """Draws loss, validation metrics and learning rate over the steps of a run.

    Args:
        rows: dicts with `step` and any of `loss`, `val_loss`, `learning_rate` and, as fractions,
            `pcp_strict`, `val_pcp_strict`, `val_pcp_mean` and further metrics `val_...`. A value
            that is None or not finite leaves a gap. Other keys are ignored. Without a learning
            rate, its panel is left out.
        file: where to write the PNG.
        mean_pose_pcp: strict PCP of the mean pose as a fraction; drawn as a dashed line.
        further: names of the validation sets after the first (`core.validation_sets`); their losses
            and their most important metrics are drawn.
        note_on_oks: text behind the labels of OKS AP, such as " (sigmas: default 0.067)".
    """
    has_rate = any(_is_number(row.get("learning_rate")) for row in rows)
    figure, (loss_axes, pcp_axes, *rate_axes) = _figure(3, width=4.8) if has_rate else _figure(2)
    of_sets = _further_sets(rows, further)
    losses = _curves(loss_axes, rows, LOSSES | of_sets["loss"], 1, "{:.3g}")
    scores = SCORES | _further_scores(rows, note_on_oks, further) | of_sets["score"]
    scores = _curves(pcp_axes, rows, scores, 100, "{:.1f}")
    loss_axes.set_title("loss", loc="left")
    pcp_axes.set_title("metrics in percent", loc="left")
    for axes in rate_axes:
        _curves(axes, rows, RATES, 1, "{:.2g}")
        axes.set_title("learning rate", loc="left")
        axes.set_ylim(bottom=0)
    if losses and min(losses) > 0 and max(losses) > 10 * min(losses):
        _make_logarithmic(loss_axes)
    if _is_number(mean_pose_pcp):
        floor = 100 * mean_pose_pcp
        pcp_axes.axhline(floor, color=SECOND_COLOUR, linestyle="--", linewidth=1.2, label="mean pose, strict PCP")
        scores.append(floor)
    # The axis starts at zero and ends a little above the highest value.
    pcp_axes.set_ylim(0, min(102, 1.15 * max(scores)) if scores and max(scores) > 0 else 102)
    for axes, values in ((loss_axes, losses), (pcp_axes, scores)):
        if values and len(axes.lines) <= 4:
            axes.legend(frameon=False, fontsize=9)
        elif values:
            # A long legend would hide curves.
            axes.legend(frameon=False, fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.16))
        else:
            axes.text(0.5, 0.5, "no values", transform=axes.transAxes, ha="center", color=INK)
    _save(figure, file)


def _further_sets(rows, names):
    """The curves of the validation sets after the first: {"loss": curves, "score": curves}.

    The score is strict PCP; without it OKS AP, or PDJ.
    """
    columns, found = {name for row in rows for name in row}, {"loss": {}, "score": {}}
    for number, name in enumerate(names):
        colour = FURTHER_COLOURS[-1 - number % len(FURTHER_COLOURS)]
        for kind, metrics in (("loss", ("loss",)), ("score", ("pcp_strict", "oks_ap", "pdj_0.2"))):
            metric = next((m for m in metrics if validation_sets.column(name, m) in columns), None)
            if metric:
                label = f"validation {name}" if kind == "loss" else _label(metric, f"validation {name}")
                found[kind][validation_sets.column(name, metric)] = (label, colour)
    return found


def _further_scores(rows, note_on_oks, sets):
    """The curves of the validation metrics that `SCORES` lacks, in the order of the columns."""
    of_first = dict.fromkeys(metric for row in rows for metric in validation_sets.split(row, sets)[""])
    names = [validation_sets.column("", metric) for metric in of_first]
    further = [name for name in names if name not in SCORES and name not in NO_SCORES]
    colours = (FURTHER_COLOURS[number % len(FURTHER_COLOURS)] for number in range(len(further)))
    labels = (_label(name) + (note_on_oks if name.endswith("_oks_ap") else "") for name in further)
    return dict(zip(further, zip(labels, colours, strict=True), strict=True))


def _label(name, set_name="validation"):
    """The label of a validation metric: "val_pdj_0.2" -> "validation, PDJ@0.2"."""
    words = [word if word in ("mean", "strict") else word.upper() for word in name.removeprefix("val_").split("_")]
    return f"{set_name}, {' '.join(words)}".replace(" 0.", "@0.")


def _curves(axes, rows, curves, factor, form):
    """Draws the curves for which `rows` have values, over the steps.

    Args:
        axes: the panel.
        rows: as for `learning_curve`.
        curves: {key of the rows: (label, colour)}.
        factor: multiplies the values.
        form: format of the last value, which is written at the end of the curve.

    Returns:
        The list of all values drawn.
    """
    drawn = []
    validated = any(_is_number(row.get(name)) for row in rows for name in curves if name.startswith("val_"))
    for name, (label, colour) in curves.items():
        points = sorted((row["step"], factor * row[name]) for row in rows if _is_number(row.get(name)))
        if not points:
            continue
        steps, values = zip(*points, strict=True)
        # Dots show single evaluations. With many of them, the line would look thick.
        marker = "o" if len(points) <= 40 else None
        axes.plot(steps, values, color=colour, marker=marker, markersize=3.5, linewidth=1.6, label=label)
        drawn += values
        # Only one of training and validation gets a number: the two are often close, and would
        # overlap.
        if name.startswith("val_") or not validated:
            # The learning rate ends at the axis: its number is above.
            place = {"xytext": (-4, 6)} if curves is RATES else {"xytext": (6, 0), "va": "center"}
            text = form.format(values[-1])
            axes.annotate(text, points[-1], textcoords="offset points", fontsize=8, color=INK, **place)
    axes.set_xlabel("step")
    axes.grid(alpha=0.25, linewidth=0.7)
    # Space for the numbers at the ends of the curves.
    axes.margins(x=0.1)
    axes.xaxis.get_major_locator().set_params(integer=True)
    return drawn


def _make_logarithmic(axes):
    """Makes the y axis logarithmic, with plain numbers at the ticks: 0.2, not 2 x 10^-1."""
    from matplotlib import ticker

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    axes.yaxis.set_minor_formatter(ticker.NullFormatter())


def pcp_bars(metrics, file):
    """Draws PCP by limb group, of the model and of the mean pose, with one panel for each rule.

    Args:
        metrics: the dict of metrics.json, of which `pcp` and `mean_pose_pcp` are used: {rule:
            {group: fraction}}, with None for a group without a counted limb.
        file: where to write the PNG.
    """
    figure, panels = _figure(2)
    series = (("pcp", "model", MODEL_COLOUR, -0.2), ("mean_pose_pcp", "mean pose", FLOOR_COLOUR, 0.2))
    for axes, rule in zip(panels, ("strict", "mean"), strict=True):
        groups = list(metrics["pcp"][rule])
        for key, label, colour, offset in series:
            values = [metrics[key][rule].get(group) for group in groups]
            heights = [100 * value if _is_number(value) else 0 for value in values]
            bars = axes.bar([i + offset for i in range(len(groups))], heights, 0.38, label=label, color=colour)
            texts = [f"{100 * value:.1f}" if _is_number(value) else "none" for value in values]
            axes.bar_label(bars, texts, fontsize=8, padding=2, color=INK)
        if "average" in groups[1:]:
            # A line separates the average from the groups.
            axes.axvline(groups.index("average") - 0.5, color=FLOOR_COLOUR, linewidth=0.8, linestyle=":")
        axes.set_xticks(range(len(groups)), [group.replace("_", "\n") for group in groups], parse_math=False)
        axes.tick_params(axis="x", length=0)
        axes.set_ylim(0, 108)
        axes.set_yticks(range(0, 101, 20))
        axes.grid(axis="y", alpha=0.25, linewidth=0.7)
        axes.set_title(f"PCP@0.5 in percent, {'strict' if rule == 'strict' else 'mean rule'}", loc="left")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=2, frameon=False, fontsize=9)
    _save(figure, file)


def limb_bars(metrics, file):
    """Draws strict PCP of each limb, of model and mean pose, with the model's 95% intervals.

    Args:
        metrics: the dict of metrics.json, of which `pcp_by_limb`, `mean_pose_pcp_by_limb` and
            `intervals` are used.
        file: where to write the PNG.
    """
    figure, (axes,) = _figure(1, width=11)
    limbs = list(metrics["pcp_by_limb"]["strict"])
    edges = metrics["intervals"]["pcp_by_limb"]["strict"]
    series = (("pcp_by_limb", "model", MODEL_COLOUR, -0.2), ("mean_pose_pcp_by_limb", "mean pose", FLOOR_COLOUR, 0.2))
    for key, label, colour, offset in series:
        heights = [100 * (metrics[key]["strict"][limb] or 0) for limb in limbs]
        axes.bar([i + offset for i in range(len(limbs))], heights, 0.38, label=label, color=colour)
    for i, limb in enumerate(limbs):
        if edges[limb]:
            axes.vlines(i - 0.2, *(100 * edge for edge in edges[limb]), color=INK, linewidth=1.4)
        if metrics["pcp_by_limb"]["strict"][limb] is None:
            # Nobody has labels of both ends: this is no PCP of 0.
            axes.text(i, 1, "-", ha="center", color=INK)
    names = [limb.replace("_", "\n", 1).replace("_", " ") for limb in limbs]
    axes.set_xticks(range(len(limbs)), names, parse_math=False)
    axes.tick_params(axis="x", length=0)
    axes.set_ylim(0, 102)
    axes.grid(axis="y", alpha=0.25, linewidth=0.7)
    figure.legend(loc="outside upper right", ncols=2, frameon=False, fontsize=9)
    axes.set_title("PCP@0.5 of every limb in percent, strict", loc="left")
    _save(figure, file, dpi=100)


def pdj_curves(metrics, file):
    """Draws PDJ over the threshold, of the model and of the mean pose.

    Args:
        metrics: the dict of metrics.json, of which `pdj_curve`, `mean_pose_pdj_curve` and `pdj_unit`
            are used.
        file: where to write the PNG.
    """
    figure, (axes,) = _figure(1)
    for key, label, colour in (
        ("pdj_curve", "model", MODEL_COLOUR),
        ("mean_pose_pdj_curve", "mean pose", FLOOR_COLOUR),
    ):
        values = [100 * value if _is_number(value) else math.nan for value in metrics[key]["pdj"]]
        axes.plot(metrics[key]["thresholds"], values, color=colour, marker="o", markersize=3.5, label=label)
    axes.set_ylim(0, 102)
    axes.set_xlabel(f"threshold, {metrics.get('pdj_unit', 'torso diameters')}")
    axes.grid(alpha=0.25, linewidth=0.7)
    axes.legend(frameon=False, fontsize=9)
    axes.set_title("PDJ in percent", loc="left")
    _save(figure, file, dpi=100)


def reliability_curves(found, file):
    """Draws a reliability diagram of the scores of joints and of persons: mean outcome by mean score.

    Args:
        found: the entry `calibration` of metrics.json.
        file: where to write the PNG.
    """
    figure, panels = _figure(2)
    titles = {"joints": "Joints: share that is right (OKS >= 0.5)", "persons": "Persons: mean OKS"}
    name = "calibrated" if found["calibrated"] else "uncalibrated"
    for axes, (what, title) in zip(panels, titles.items(), strict=True):
        axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=":", label="score = outcome")
        series = [(found["uncalibrated"], "uncalibrated", FLOOR_COLOUR), (found, name, MODEL_COLOUR)]
        for part, label, colour in series:
            if part:
                bins = part[what]["bins"]
                points = [row["score"] for row in bins], [row["outcome"] for row in bins]
                text = f"{label}, ECE {100 * part[what]['ece']:.1f}%"
                axes.plot(*points, color=colour, marker="o", markersize=3.5, linewidth=1.2, label=text)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.02)
        axes.set_xlabel(f"mean score of a bin ({len(found[what]['bins'])} bins of equal size)")
        axes.grid(alpha=0.25, linewidth=0.7)
        axes.legend(frameon=False, fontsize=9, loc="lower right")
        axes.set_title(title, loc="left")
    _save(figure, file)


def error_histogram(errors, num_persons, file):
    """Draws a histogram of joint errors.

    Args:
        errors: [M] errors of the labelled joints, relative to the longer side of the person's box.
        num_persons: the number of persons; part of the title.
        file: where to write the PNG.
    """
    figure, (axes,) = _figure(1)
    if len(errors):
        shares = np.full(len(errors), 100 / len(errors))
        axes.hist(errors.clip(0, 0.5), np.linspace(0, 0.5, 51), color=MODEL_COLOUR, weights=shares)
    axes.set_xlabel("error / longer side of the box (last bar: 0.5 and more)")
    axes.set_title(f"Joints in percent, {num_persons} persons", loc="left")
    axes.grid(axis="y", alpha=0.25, linewidth=0.7)
    _save(figure, file, dpi=100)


def _is_number(value):
    return value is not None and math.isfinite(value)


def _figure(panels, width=5.5):
    """A matplotlib figure and the list of its panels, side by side, each `width` inches wide."""
    # The object interface is used, because pyplot keeps global state and may open a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * panels, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
        panel.set_axisbelow(True)
    return figure, axes


def _save(figure, file, dpi=120):
    """Writes a figure as PNG to a path or to an open binary file."""
    if isinstance(file, str):
        with files.replacing(file, "wb") as opened:
            _write(figure, opened, dpi)
    else:
        _write(figure, file, dpi)


def _write(figure, file, dpi):
    with warnings.catch_warnings():
        # Names may have signs that the font lacks. They are drawn as boxes.
        warnings.filterwarnings("ignore", message=r"Glyph \d+")
        figure.savefig(file, format="png", dpi=dpi)
