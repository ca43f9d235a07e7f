"""The metrics of an evaluation agree with each other."""

import numpy as np

from kpose.core.skeletons import COCO
from kpose.evaluate import summary
from kpose.metrics import bootstrap, tables
from tests.metrics.test_keras_metrics import persons


def metrics_of(truth, prediction, mean_points, box=(10.0, 10.0, 50.0, 120.0)):
    """`summary.compute_metrics` for persons with the same box, two in each image."""
    boxes, areas = np.tile(box, (len(truth), 1)), np.full(len(truth), 50.0**2)
    arrays = {"truth": truth, "keypoints": prediction, "box": boxes, "area": areas}
    arrays["image"] = np.arange(len(truth)) // 2
    counts = bootstrap.person_counts(truth, prediction, COCO)
    return summary.compute_metrics(arrays, mean_points, counts, COCO), arrays


def test_every_interval_holds_its_metric():
    truth, prediction = persons(5, count=60)
    table, arrays = metrics_of(truth, prediction, 0.5 * prediction)
    found, errors = table["intervals"], table["joint_errors"]
    pairs = [(found["pdj"][name], value) for name, value in table["pdj"].items()]
    pairs += [(found["pck"][name], table["pck"][name]) for name in ("average", *COCO.joints)]
    pairs += [(found["joint_errors"][name], value["mean"]) for name, value in errors.items()]
    for rule in ("strict", "mean"):
        for key in ("pcp", "pcp_by_limb"):
            pairs += [(found[key][rule][name], value) for name, value in table[key][rule].items()]
    assert len(pairs) == 2 + 18 + 17 + 2 * (5 + 8)
    for (low, high), value in pairs:
        assert low <= value <= high
    assert table["mean_pose_joint_errors"] == tables.joint_error_table(truth, 0.5 * prediction, COCO)
    assert table["mean_pose_pck"] == tables.pck_table(truth, 0.5 * prediction, arrays["box"], COCO)
    (medium,) = (subset for subset in table["subsets"] if subset["name"].startswith("medium"))
    assert table["bootstrap"] == {"unit": "image", "num_images": 30, "resamples": 1000, "level": 0.95}
    assert medium["num_images"] == 30
    assert medium["mean_pose_pdj"] == table["mean_pose_pdj"] and medium["intervals"]["pdj"] == found["pdj"]
