"""The comparison of recipes, and the shipped recipes."""

import importlib.util
import os

import keras
import numpy as np
import pytest

from kpose import config as config_lib
from kpose import models
from kpose.compare import recipes
from kpose.core import skeletons
from kpose.train import losses


def test_the_base_of_a_cascade_is_trained_before_it():
    assert recipes.with_bases(["deeppose_stage3", "deeppose"]) == [
        "deeppose_rle",
        "deeppose_stage2",
        "deeppose_stage3",
        "deeppose",
    ]
    assert recipes.with_bases(["deeppose_rle", "deeppose_stage2"]) == ["deeppose_rle", "deeppose_stage2"]


def test_the_table_has_a_row_for_each_recipe_and_the_mean_pose():
    row = {"recipe": "a", "pcp_strict": 0.5, "pcp_mean": 0.625, "oks_ap": 0.1, "mean_pose_pcp_strict": 0.125}
    row |= {"parameters": 2_500_000, "flops": 1_200_000_000, "images_per_second": None}
    lines = recipes.markdown([row, {"recipe": "b", "failed": "no weights"}]).splitlines()
    assert lines[2] == "| a | 50.0 | 62.5 | 10.0 | 2.5 | 1.20 | - |"
    assert lines[3].startswith("| b | did not run: no weights |")
    assert lines[4].startswith("| the mean pose | 12.5 |")
    assert {line.count("|") for line in lines} == {8}


@pytest.mark.slow
def test_recipes_are_compared(tmp_path):
    budget = recipes.Budget(steps=4, batch_size=8, input_size=64, train_images=24, val_images=8)
    table = recipes.compare(str(tmp_path), ["deeppose_stage2", "coco_integral"], budget)
    assert [row["recipe"] for row in table] == ["deeppose_rle", "deeppose_stage2", "coco_integral"]
    for row in table:
        assert "failed" not in row and row["parameters"] > 1e5 and row["flops"] > 1e6 and row["images_per_second"] > 0
    assert os.path.exists(tmp_path / "comparison.md")


@pytest.mark.parametrize("name", config_lib.shipped())
def test_every_shipped_recipe_is_documented_and_builds_its_network(name):
    spec = importlib.util.spec_from_file_location("recipe", config_lib.recipe_path(name))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for part in ("Paper: ", "Reaches", ("make demo" if name == "demo" else f"--config=configs/{name}.py")):
        assert part in module.__doc__, part
    assert "Time: " in module.__doc__ or "time: " in module.__doc__
    config = module.get_config()
    assert config.name == name
    config_lib.check(config)
    skeleton = skeletons.COCO
    # A small network, to save time.
    config.model.hidden = (8,) * len(config.model.hidden)
    config.model.input_size = (64, 64)
    outputs = losses.build(config.loss).outputs
    base = None
    if config.model.name == "cascade":
        images = keras.Input((64, 64, 3))
        points = keras.layers.Dense(2 * skeleton.num_joints)(keras.layers.Flatten()(images))
        base = keras.Model(images, {"keypoints": keras.layers.Reshape((skeleton.num_joints, 2))(points)})
    network = models.build(config.model, skeleton, outputs, base=base)
    answer = network(np.zeros((1, 64, 64, 3), np.float32))
    assert {"keypoints", *outputs} <= set(answer) and tuple(answer["keypoints"].shape) == (1, skeleton.num_joints, 2)


def test_recipes_for_unstretched_crops_are_not_comparable():
    names = recipes.comparable()
    assert "deeppose" in names and "coco_integral" in names
    assert "demo" not in names and "movenet" not in names
