"""The demo on a small data set."""

import json
import os

import pytest

from kpose import demo


@pytest.mark.slow
def test_the_demo_runs_end_to_end(tmp_path, capfd):
    folder = str(tmp_path / "demo")
    table = demo.run_demo(folder, train_images=40, val_images=10, steps=3)
    out = capfd.readouterr().out
    assert table["num_persons"] > 8 and "strict" in table["pcp"]
    for path in (
        "contact_sheet.png",
        "run/learning_curve.png",
        "evaluation/predictions.png",
        "evaluation/pcp.png",
        "predictions/000000000001.jpg",
        "run/serving/1/saved_model.pb",
        "records/train.manifest.json",
    ):
        assert os.path.getsize(os.path.join(folder, path)) > 100
        assert "serving" in path or "records" in path or os.path.dirname(path).split("/")[0] in out
    assert "one request to the exported model" in out and "mean pose PCP" in out
    with open(os.path.join(folder, "evaluation", "metrics.json")) as file:
        assert json.load(file) == table
