"""Figures of a run: its learning curve, and its limbs against the mean pose."""

from kpose import files

MODEL_COLOUR = "#1f6fb4"
FLOOR_COLOUR = "#b0b0b0"


def learning_curve(rows, path, mean_pose_pcp=None):
    """Draws loss and PCP over the steps of a run.

    Args:
        rows: dicts with `step` and any of `loss`, `val_loss`, `pcp_strict`, `val_pcp_strict`, `val_pcp_mean`
            (fractions).
        path: the PNG file.
        mean_pose_pcp: strict PCP of the mean pose, the floor that is drawn dashed.
    """
    figure, (loss_axes, pcp_axes) = _figure(2)
    curves = {
        loss_axes: {"loss": "training", "val_loss": "validation"},
        pcp_axes: {
            "pcp_strict": "training, strict",
            "val_pcp_strict": "validation, strict",
            "val_pcp_mean": "validation, mean rule",
        },
    }
    for axes, names in curves.items():
        for name, label in names.items():
            points = [(row["step"], row[name] * (1 if axes is loss_axes else 100)) for row in rows if name in row]
            if points:
                axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=label)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
    losses = [row[name] for row in rows for name in ("loss", "val_loss") if row.get(name, 0) > 0]
    if losses and max(losses) > 10 * min(losses):
        loss_axes.set_yscale("log")
    loss_axes.set_title("loss")
    pcp_axes.set_title("PCP in percent")
    if mean_pose_pcp is not None:
        pcp_axes.axhline(100 * mean_pose_pcp, color="grey", linestyle="--", label="mean pose, strict")
    for axes in (loss_axes, pcp_axes):
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    _save(figure, path)


def pcp_bars(metrics, path):
    """Draws PCP by limb group beside the mean pose's.

    Args:
        metrics: the dict of metrics.json: `pcp` and `mean_pose_pcp` by rule and group, as fractions or None.
        path: the PNG file.
    """
    figure, panels = _figure(2)
    for axes, rule in zip(panels, ("strict", "mean"), strict=True):
        groups = list(metrics["pcp"][rule])
        series = (("pcp", "model", MODEL_COLOUR, -0.2), ("mean_pose_pcp", "mean pose", FLOOR_COLOUR, 0.2))
        for key, label, colour, offset in series:
            values = [metrics[key][rule][group] for group in groups]
            heights = [0 if value is None else 100 * value for value in values]
            bars = axes.bar([i + offset for i in range(len(groups))], heights, 0.38, label=label, color=colour)
            texts = ["none" if value is None else f"{100 * value:.0f}" for value in values]
            axes.bar_label(bars, texts, fontsize=8)
        axes.set_xticks(range(len(groups)), [group.replace("_", "\n") for group in groups])
        axes.set_ylim(0, 105)
        axes.set_title(f"PCP@0.5 in percent, {'strict' if rule == 'strict' else 'mean rule'}")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend()
    _save(figure, path)


def _figure(panels):
    # The object interface: pyplot keeps state and may look for a screen.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5 * panels, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, panels)


def _save(figure, path):
    with files.replacing(path, "wb") as file:
        figure.savefig(file, format="png", dpi=110)
