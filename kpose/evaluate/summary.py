"""The metrics of a set of predictions, and the lines that an evaluation prints."""

import numpy as np

from kpose.core import geometry
from kpose.core.errors import InputError
from kpose.data import coco_files, problems
from kpose.metrics import bootstrap, coco, pose, tables

# Files that a comparison reads: the metrics, and the counts of each person.
METRICS_FILE = "metrics.json"
PERSONS_FILE = "persons.npz"

# The entry `pixels` of metrics.json for the crops of records. Otherwise it is the images' folder.
STORED = "stored crops"

VISIBILITY_NAMES = {"auc": "AUC", "f1": "F1", "accuracy": "accuracy"}


def read_labels(path, skeleton, pixel_offset=None, data=None):
    """The `coco_files.Labels` of an annotation file; bad entries are left out and logged.

    Args:
        path: the file.
        skeleton: the `Skeleton` of its keypoints.
        pixel_offset: as for `coco_files.read_labels`; None: that of COCO.
        data: as for `coco_files.read_labels`.

    Raises:
        InputError: there is no such file, or no person in it is of this skeleton.
    """
    found = problems.Problems("skip")
    offset = geometry.HALF_PIXEL if pixel_offset is None else pixel_offset
    labels = coco_files.read_labels(path, skeleton, found, data=data, pixel_offset=offset)
    if not labels.persons:
        (first, *_), *_ = found.examples.values()
        raise InputError(f"{first}; no other annotation can be used")
    found.log()
    return labels


def compute_metrics(persons, mean_points, counts, skeleton, ap_of=None):
    """The part of metrics.json that needs only truth and prediction.

    Args:
        persons: arrays over N persons: `truth` [N, K, 3], `keypoints` [N, K, 2 or 3] (the
            prediction) and `box` [N, 4] xywh in original pixels, `area` [N] in square pixels,
            `image` [N] the number of each person's image (`bootstrap.number_images`).
        mean_points: [N, K, 2] the mean pose placed in each person's box, in original pixels.
        counts: `bootstrap.person_counts` of truth and prediction.
        skeleton: the `Skeleton`.
        ap_of: function from [N] bool, the chosen persons, to their OKS metrics; None: the subsets
            get no OKS metrics.

    Returns:
        dict: the metrics of the prediction; those of the mean pose under `mean_pose_...`;
        `intervals` (that of `oks_ap` is None), what they resample (`bootstrap`), and `subsets`;
        `pdj_unit` and `oks_sigmas`.
        PCP has no groups and no limbs if the skeleton has no limbs.
    """
    truth, points, boxes, images = persons["truth"], persons["keypoints"][..., :2], persons["box"], persons["image"]

    def tables_of(points):
        return {
            "pcp": tables.pcp_table(truth, points, skeleton),
            "pcp_by_limb": tables.limb_table(truth, points, skeleton),
            "pdj": tables.pdj_table(truth, points, skeleton, boxes),
            "pdj_curve": tables.pdj_curve(truth, points, skeleton, boxes),
            "pck": tables.pck_table(truth, points, boxes, skeleton),
            "joint_errors": tables.joint_error_table(truth, points, skeleton),
        }

    def subset(name, chosen):
        chosen_counts = {key: value[chosen] for key, value in counts.items()}
        return {
            "name": name,
            "num_persons": int(chosen.sum()),
            "num_images": len(np.unique(images[chosen])),
            "pcp": tables.pcp_table(truth[chosen], points[chosen], skeleton),
            "mean_pose_pcp": tables.pcp_table(truth[chosen], mean_points[chosen], skeleton),
            "pdj": tables.pdj_table(truth[chosen], points[chosen], skeleton, boxes[chosen]),
            "mean_pose_pdj": tables.pdj_table(truth[chosen], mean_points[chosen], skeleton, boxes[chosen]),
            "intervals": bootstrap.intervals(chosen_counts, images[chosen], skeleton),
            "oks_ap": ap_of(chosen) if ap_of else None,
        }

    chosen_by_name = tables.subsets(truth, persons["area"])
    return (
        tables_of(points)
        | {f"mean_pose_{name}": table for name, table in tables_of(mean_points).items()}
        | {
            "intervals": bootstrap.intervals(counts | bootstrap.joint_counts(truth, points, boxes), images, skeleton)
            | {"oks_ap": None},
            "bootstrap": bootstrap.describe(images),
            "pdj_unit": pose.pdj_unit(skeleton),
            "oks_sigmas": coco.sigmas_of(skeleton),
            "subsets": [subset(name, chosen) for name, chosen in chosen_by_name.items() if chosen.any()],
        }
    )


def describe(metrics):
    """The lines that an evaluation prints: PCP of model and mean pose by limb group, PDJ, OKS AP.

    The lines of PCP are left out for a skeleton without limbs.

    Args:
        metrics: the dict of metrics.json.
    """
    groups = list(metrics["pcp"]["strict"])
    among = f" in {metrics['num_images']} images" if "num_images" in metrics else ""
    lines = [
        f"{metrics['num_persons']} persons{among}, boxes: {metrics['box_source']}, checkpoint {metrics['checkpoint']}"
    ]
    if has_limbs(metrics):
        lines.append(" " * 24 + "".join(f"{group.replace('_', ' '):>12}" for group in groups))
    for rule in metrics["pcp"] if has_limbs(metrics) else ():
        for key, name in (("pcp", "PCP"), ("mean_pose_pcp", "mean pose PCP")):
            cells = "".join(f"{percent(metrics[key][rule][group]):>12}" for group in groups)
            lines.append(f"{f'{name}, {rule}':<24}{cells}")
    pdj = ", ".join(f"PDJ@{threshold} {percent(value)}" for threshold, value in metrics["pdj"].items())
    if pdj_unit(metrics) == pose.BOX_SIDES:
        floor = percent(metrics["mean_pose_pdj"]["0.2"])
        pdj += f" (in {pose.BOX_SIDES}, as PCK; mean pose: PDJ@0.2 {floor})"
    ap, visibility = metrics["oks_ap"], metrics["visibility"]
    lines.append(pdj + (f", OKS AP {percent(ap['AP'])}{note_on_sigmas(metrics)}" if ap else ""))
    if visibility:
        values = ", ".join(f"{name} {percent(visibility[key])}" for key, name in VISIBILITY_NAMES.items())
        lines.append(f"visibility: {values} ({percent(visibility['labelled'])} of the joints are labelled)")
    lines += describe_scores(metrics.get("calibration"))
    if metrics.get("pixels"):
        lines.append(f"pixels: {describe_pixels(metrics['pixels'])}")
    return lines


def describe_scores(found):
    """The line about the scores, from the entry `calibration` of metrics.json; [] for None."""
    if not found:
        return []
    of_joints, of_persons = found["joints"], found["persons"]
    errors = f"ECE {percent(of_joints['ece'])} of joints, {percent(of_persons['ece'])} of persons"
    errors += f", Brier score {of_joints['brier']:.3f}"
    if found["calibrated"]:
        same = ", the same persons" if found["fitted_on_these_persons"] else ""
        return [f"scores: calibrated on {found['fitted_on']}{same}; {errors}"]
    return [f"scores: uncalibrated, so they are no probabilities; {errors}"]


def has_limbs(metrics):
    """Whether the skeleton of a metrics.json has limbs, and so PCP."""
    return any(group != "average" for group in metrics["pcp"]["strict"])


def pdj_unit(metrics):
    """The unit of PDJ in a metrics.json; older files lack it, their skeletons have a torso."""
    return metrics.get("pdj_unit", pose.TORSOS)


def note_on_sigmas(metrics):
    """What to say beside a figure of OKS in a metrics.json; "" if the skeleton has its own sigmas."""
    return coco.note_on_sigmas(metrics.get("oks_sigmas"))


def describe_pixels(pixels):
    """The entry `pixels` of metrics.json as text, with what it means for the metrics."""
    if pixels != STORED:
        return pixels
    # docs/training.md has the measurements.
    return (
        f"{STORED}, compressed once more than the images (OKS AP 0.5 to 0.9 lower on COCO); --images=DIR measures on "
        "the images"
    )


def percent(value):
    """A fraction as text, such as "12.3%"; "-" for None."""
    return "-" if value is None else f"{100 * value:.1f}%"
