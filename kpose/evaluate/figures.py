"""The metrics of a set of predictions, as metrics.json holds them, and the lines that print them."""

from kpose.metrics import bootstrap, tables

VISIBILITY_NAMES = {"auc": "AUC", "f1": "F1", "accuracy": "accuracy"}


def figures(truth, points, mean_points, boxes, areas, skeleton, ap_of=None):
    """What metrics.json says of predictions for N persons, wherever they are from.

    Args:
        truth: [N, K, 3] in original pixels.
        points: [N, K, 2] the prediction.
        mean_points: [N, K, 2] the mean pose in each person's place.
        boxes: [N, 4] the persons' boxes, xywh.
        areas: [N] their areas in square pixels.
        skeleton: the `Skeleton`.
        ap_of: function from [N] whether a person is meant to the OKS figures of these; None: there are none by subset.

    Returns:
        dict of the figures, those of the mean pose under `mean_pose_...`, their intervals, and the subsets.
    """

    def of(points):
        return {
            "pcp": tables.pcp_table(truth, points, skeleton),
            "pcp_by_limb": tables.limb_table(truth, points, skeleton),
            "pdj": tables.pdj_table(truth, points, skeleton),
            "pdj_curve": tables.pdj_curve(truth, points, skeleton),
            "pck": tables.pck_table(truth, points, boxes, skeleton),
            "joint_errors": tables.joint_errors(truth, points, skeleton),
        }

    counts = bootstrap.person_counts(truth, points, skeleton)
    subsets = [
        {
            "name": name,
            "num_persons": int(chosen.sum()),
            "pcp": tables.pcp_table(truth[chosen], points[chosen], skeleton),
            "mean_pose_pcp": tables.pcp_table(truth[chosen], mean_points[chosen], skeleton),
            "pdj": tables.pdj_table(truth[chosen], points[chosen], skeleton),
            "mean_pose_pdj": tables.pdj_table(truth[chosen], mean_points[chosen], skeleton),
            "intervals": bootstrap.table({key: value[chosen] for key, value in counts.items()}, skeleton),
            "oks_ap": ap_of(chosen) if ap_of else None,
        }
        for name, chosen in tables.subsets(truth, areas).items()
        if chosen.any()
    ]
    mean_pose = {f"mean_pose_{name}": value for name, value in of(mean_points).items()}
    found = bootstrap.table(counts | bootstrap.joint_counts(truth, points, boxes), skeleton)
    return of(points) | mean_pose | {"intervals": found, "subsets": subsets}


def describe(table):
    """The lines that an evaluation prints: PCP by group beside the mean pose, PDJ, AP."""
    groups = list(table["pcp"]["strict"])
    lines = [f"{table['num_persons']} persons, boxes: {table['box_source']}, checkpoint {table['checkpoint']}"]
    lines.append(" " * 24 + "".join(f"{group.replace('_', ' '):>12}" for group in groups))
    for rule in table["pcp"]:
        for key, name in (("pcp", "PCP"), ("mean_pose_pcp", "mean pose PCP")):
            figures = "".join(f"{_percent(table[key][rule][group]):>12}" for group in groups)
            lines.append(f"{f'{name}, {rule}':<24}{figures}")
    pdj = ", ".join(f"PDJ@{threshold} {_percent(value)}" for threshold, value in table["pdj"].items())
    ap, visibility = table["oks_ap"], table["visibility"]
    lines.append(pdj + (f", OKS AP {_percent(ap['AP'])}" if ap else ""))
    if visibility:
        figures = ", ".join(f"{name} {_percent(visibility[key])}" for key, name in VISIBILITY_NAMES.items())
        lines.append(f"visibility: {figures} ({_percent(visibility['labelled'])} of the joints are labelled)")
    return lines


def _percent(value):
    return "-" if value is None else f"{100 * value:.1f}%"
