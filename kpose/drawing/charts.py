"""Figures of a run: its learning curve, and its limbs against the mean pose."""

import math

import numpy as np

from kpose.core import files

MODEL_COLOUR = "#1f6fb4"
SECOND_COLOUR = "#e8833a"
THIRD_COLOUR = "#59a869"
FLOOR_COLOUR = "#b4b8bd"
INK = "#33373d"

LOSSES = {"loss": ("training", FLOOR_COLOUR), "val_loss": ("validation", MODEL_COLOUR)}
SCORES = {
    "pcp_strict": ("training, strict", FLOOR_COLOUR),
    "val_pcp_strict": ("validation, strict", MODEL_COLOUR),
    "val_pcp_mean": ("validation, mean rule", THIRD_COLOUR),
}


def learning_curve(rows, path, mean_pose_pcp=None):
    """Draws loss and PCP over the steps of a run.

    Args:
        rows: dicts with `step` and any of `loss`, `val_loss` and, as fractions, `pcp_strict`, `val_pcp_strict`,
            `val_pcp_mean`; a value that is None or not finite is a gap, other keys are ignored.
        path: the PNG file; written aside and renamed into place.
        mean_pose_pcp: strict PCP of the mean pose as a fraction, the floor that is drawn dashed.
    """
    figure, (loss_axes, pcp_axes) = _figure(2)
    losses = _curves(loss_axes, rows, LOSSES, 1, "{:.3g}")
    scores = _curves(pcp_axes, rows, SCORES, 100, "{:.1f}")
    loss_axes.set_title("loss", loc="left")
    pcp_axes.set_title("PCP@0.5 in percent", loc="left")
    if losses and min(losses) > 0 and max(losses) > 10 * min(losses):
        _make_logarithmic(loss_axes)
    if _is_number(mean_pose_pcp):
        floor = 100 * mean_pose_pcp
        pcp_axes.axhline(floor, color=SECOND_COLOUR, linestyle="--", linewidth=1.2, label="mean pose, strict")
        scores.append(floor)
    # From zero, and no higher than there is something to see.
    pcp_axes.set_ylim(0, min(102, 1.15 * max(scores)) if scores and max(scores) > 0 else 102)
    for axes, values in ((loss_axes, losses), (pcp_axes, scores)):
        if values:
            axes.legend(frameon=False, fontsize=9)
        else:
            axes.text(0.5, 0.5, "nothing measured", transform=axes.transAxes, ha="center", color=INK)
    _save(figure, path)


def _curves(axes, rows, curves, factor, form):
    """Draws the curves that `rows` have, with the last value written at the end; the list of all values drawn."""
    drawn = []
    validated = any(_is_number(row.get(name)) for row in rows for name in curves if name.startswith("val_"))
    for name, (label, colour) in curves.items():
        points = sorted((row["step"], factor * row[name]) for row in rows if _is_number(row.get(name)))
        if not points:
            continue
        steps, values = zip(*points, strict=True)
        # Dots tell single evaluations apart; of many they would make a thick line.
        marker = "o" if len(points) <= 40 else None
        axes.plot(steps, values, color=colour, marker=marker, markersize=3.5, linewidth=1.6, label=label)
        drawn += values
        # The training figure is close to the validation's at first: the two numbers would lie on each other.
        if name.startswith("val_") or not validated:
            text, place = form.format(values[-1]), {"xytext": (6, 0), "textcoords": "offset points", "va": "center"}
            axes.annotate(text, points[-1], fontsize=8, color=INK, **place)
    axes.set_xlabel("step")
    axes.grid(alpha=0.25, linewidth=0.7)
    # Room for the numbers at the curves' ends.
    axes.margins(x=0.1)
    axes.xaxis.get_major_locator().set_params(integer=True)
    return drawn


def _make_logarithmic(axes):
    """A logarithmic y axis whose ticks are plain numbers, 0.2 and not 2 x 10^-1."""
    from matplotlib import ticker

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    axes.yaxis.set_minor_formatter(ticker.NullFormatter())


def pcp_bars(metrics, path):
    """Draws PCP by limb group beside the mean pose's, one panel a rule.

    Args:
        metrics: the dict of metrics.json: `pcp` and `mean_pose_pcp`, each rule ("strict", "mean") -> group ->
            fraction, or None where there was no such limb.
        path: the PNG file; written aside and renamed into place.
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
            # The average is of another kind than its neighbours.
            axes.axvline(groups.index("average") - 0.5, color=FLOOR_COLOUR, linewidth=0.8, linestyle=":")
        axes.set_xticks(range(len(groups)), [group.replace("_", "\n") for group in groups])
        axes.tick_params(axis="x", length=0)
        axes.set_ylim(0, 108)
        axes.set_yticks(range(0, 101, 20))
        axes.grid(axis="y", alpha=0.25, linewidth=0.7)
        axes.set_title(f"PCP@0.5 in percent, {'strict' if rule == 'strict' else 'mean rule'}", loc="left")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=2, frameon=False, fontsize=9)
    _save(figure, path)


def limb_bars(metrics, file):
    """Draws strict PCP of every limb beside the mean pose's, with 95% intervals, as PNG into an open file.

    Args:
        metrics: the dict of metrics.json: `pcp_by_limb`, `mean_pose_pcp_by_limb` and `intervals`.
        file: where to.
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
    axes.set_xticks(range(len(limbs)), [limb.replace("_", "\n", 1).replace("_", " ") for limb in limbs])
    axes.tick_params(axis="x", length=0)
    axes.set_ylim(0, 102)
    axes.grid(axis="y", alpha=0.25, linewidth=0.7)
    figure.legend(loc="outside upper right", ncols=2, frameon=False, fontsize=9)
    axes.set_title("PCP@0.5 of every limb in percent, strict", loc="left")
    figure.savefig(file, format="png", dpi=100)


def pdj_curves(metrics, file):
    """Draws PDJ over the threshold, the model's and the mean pose's, as PNG into an open file.

    Args:
        metrics: the dict of metrics.json: `pdj_curve` and `mean_pose_pdj_curve`.
        file: where to.
    """
    figure, (axes,) = _figure(1)
    for key, label, colour in (
        ("pdj_curve", "model", MODEL_COLOUR),
        ("mean_pose_pdj_curve", "mean pose", FLOOR_COLOUR),
    ):
        values = [100 * value if _is_number(value) else math.nan for value in metrics[key]["pdj"]]
        axes.plot(metrics[key]["thresholds"], values, color=colour, marker="o", markersize=3.5, label=label)
    axes.set_ylim(0, 102)
    axes.set_xlabel("threshold, torso diameters")
    axes.grid(alpha=0.25, linewidth=0.7)
    axes.legend(frameon=False, fontsize=9)
    axes.set_title("PDJ in percent", loc="left")
    figure.savefig(file, format="png", dpi=100)


def error_histogram(metrics, persons, file):
    """Draws how large the errors of labelled joints are, in sides of the person's box, as PNG into an open file.

    Args:
        metrics: the dict of metrics.json.
        persons: `truth` [N, K, 3] and `keypoints` [N, K, 3] in original pixels, `box` [N, 4].
        file: where to.
    """
    truth, sides = persons["truth"], persons["box"][:, 2:].max(-1)
    errors = np.linalg.norm(persons["keypoints"][..., :2] - truth[..., :2], axis=-1) / sides[:, None]
    errors = errors[truth[..., 2] > 0]
    figure, (axes,) = _figure(1)
    if len(errors):
        shares = np.full(len(errors), 100 / len(errors))
        axes.hist(errors.clip(0, 0.5), np.linspace(0, 0.5, 51), color=MODEL_COLOUR, weights=shares)
    axes.set_xlabel("error, sides of the box (its longer side; 0.5 and more in the last bar)")
    axes.set_title(f"Joints in percent, {metrics['num_persons']} persons", loc="left")
    axes.grid(axis="y", alpha=0.25, linewidth=0.7)
    figure.savefig(file, format="png", dpi=100)


def _is_number(value):
    return value is not None and math.isfinite(value)


def _figure(panels, width=5.5):
    """A figure and its panels, side by side, each of a width in inches."""
    # The object interface: pyplot keeps state and may look for a screen.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * panels, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
        panel.set_axisbelow(True)
    return figure, axes


def _save(figure, path):
    with files.replacing(path, "wb") as file:
        figure.savefig(file, format="png", dpi=120)
