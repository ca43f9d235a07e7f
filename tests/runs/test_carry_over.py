"""Initial weights from networks with other joints, another input size or another head."""

import json

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kpose import config as config_lib
from kpose import models
from kpose.core import skeletons
from kpose.core.errors import InputError
from kpose.runs import carry_over, workdir
from kpose.runs.shipped_files import DEFAULT
from kpose.train import trainer
from tests import helpers, tiny

COCO, LSP = skeletons.COCO, skeletons.LSP
SHARED = [joint for joint in LSP.joints if joint in COCO.joints]


def images(side, count=2):
    return np.random.default_rng(0).uniform(0, 255, (count, side, side, 3)).astype(np.float32)


def section(name, size, **fields):
    """The `model` section of a small network."""
    config = config_lib.default().model
    config.update({"name": name, "input_size": (size, size), "preprocessing": "keras"} | fields)
    return config


def trained(config, skeleton, outputs=(), seed=1):
    """A `Trained` network with random weights."""
    keras.utils.set_random_seed(seed)
    network = models.build(config, skeleton, outputs)
    for variable in network.variables:
        if "moving" in variable.path or "sharpness" in variable.path:
            variable.assign(variable + 0.3)
    recipe = config_lib.default()
    recipe.model = config
    return workdir.Trained(recipe, skeleton, network, np.zeros((skeleton.num_joints, 2)), "somewhere", None)


def carried(old, config, skeleton, outputs=()):
    """A new network that has taken weights, and what they are."""
    keras.utils.set_random_seed(2)
    network = models.build(config, skeleton, outputs)
    return network, carry_over.carry_over(network, old, skeleton, config, "somewhere")


def predict(network, side):
    return {name: np.asarray(value) for name, value in network(images(side), training=False).items()}


def test_the_shipped_model_gives_the_same_points_for_the_joints_of_another_skeleton(caplog):
    config = config_lib.load_recipe("movenet")
    config.model.weights, config.data.aspect = DEFAULT, 0.0
    with caplog.at_level("INFO", logger="absl"):
        network = workdir.build_network(config, LSP, initial_weights=True)
    assert "136 of 143 arrays are taken" in caplog.text and "begin anew: the joints neck, head_top" in caplog.text
    assert "trained on crops without stretching, but the crops of the records are stretched" in caplog.text
    found, expected = predict(network, 192), predict(workdir.load_trained(DEFAULT).network, 192)
    assert len(SHARED) == 12
    for joint in SHARED:
        for output in ("keypoints", "visibility"):
            ours, theirs = found[output][:, LSP.joints.index(joint)], expected[output][:, COCO.joints.index(joint)]
            np.testing.assert_allclose(ours, theirs, atol=1e-5, err_msg=joint)


NETWORKS = {
    "integral": {"filters": (8, 12), "head_filters": 8},
    "deeppose": tiny.make_recipe("", **tiny.DEEPPOSE).model.to_dict() | {"weights": "", "input_size": (48, 48)},
    "movenet": {"width": 0.25},
}


@pytest.mark.parametrize(
    "name, side, outputs",
    [("integral", 16, ("scale",)), ("deeppose", 48, ("visibility", "scale")), ("movenet", 64, ("scale",))],
)
def test_every_output_of_a_shared_joint_stays(name, side, outputs):
    config = section(name, side, **{k: v for k, v in NETWORKS[name].items() if k not in ("name", "input_size")})
    old = trained(config, COCO, outputs)
    network, taken = carried(old, config, LSP, outputs)
    found, expected = predict(network, side), predict(old.network, side)
    assert found.keys() == expected.keys() >= {"keypoints", *outputs}
    ours, theirs = ([table.joints.index(joint) for joint in SHARED] for table in (LSP, COCO))
    for output in found:
        np.testing.assert_allclose(found[output][:, ours], expected[output][:, theirs], atol=1e-5, err_msg=output)
    assert set(taken.joints) == set(SHARED) and taken.new_joints == ("neck", "head_top")
    assert not taken.anew and not taken.unused


def test_joints_are_matched_by_name_and_not_by_their_number():
    """A skeleton with as many joints, of other names or in another order, has arrays of the same shapes."""
    config = section("integral", 16, **NETWORKS["integral"])
    old = trained(config, COCO)
    other = skeletons.Skeleton("other", tuple(f"point {k}" for k in range(17)))
    network, taken = carried(old, config, other)
    fresh = trained(config, other, seed=2).network
    np.testing.assert_array_equal(network.get_layer("maps").kernel, fresh.get_layer("maps").kernel)
    assert taken.anew == taken.unused == ("maps/kernel", "maps/bias") and not taken.joints
    turned = skeletons.Skeleton("turned", tuple(name.replace("_", " ").title() for name in COCO.joints[::-1]))
    network, taken = carried(old, config, turned)
    found, expected = predict(network, 16)["keypoints"], predict(old.network, 16)["keypoints"]
    np.testing.assert_allclose(found, expected[:, ::-1], atol=1e-6)
    assert taken.new_joints == () and "taken by joint: all 17 joints" in " ".join(taken.lines())


@settings(max_examples=40, deadline=None)
@given(
    ours=st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=8, unique=True),
    theirs=st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=8, unique=True),
    numbers=st.tuples(st.integers(1, 3), st.integers(1, 3)),
)
def test_numbers_of_a_joint_go_to_that_joint(ours, theirs, numbers):
    first, second = skeletons.Skeleton("x", tuple(ours)), skeletons.Skeleton("y", tuple(theirs))
    rng = np.random.default_rng(0)
    new, old = (rng.normal(size=(3, n * len(t))) for n, t in zip(numbers, (ours, theirs), strict=True))
    places = carry_over.shared_joints(first, second)
    found = carry_over._with_joints(new, old, first, second, places)
    if not set(ours) & set(theirs):
        assert found is None
        return
    for row in range(3):
        for k, joint in enumerate(ours):
            for i in range(numbers[0]):
                taken = joint in theirs and i < numbers[1]
                expected = old[row, theirs.index(joint) * numbers[1] + i] if taken else new[row, k * numbers[0] + i]
                assert found[row, k * numbers[0] + i] == expected


def test_another_input_size_changes_only_layers_that_depend_on_it():
    small = {k: v for k, v in NETWORKS["deeppose"].items() if k not in ("name", "input_size")}
    old = trained(section("deeppose", 48, **small), COCO)
    network, taken = carried(old, section("deeppose", 64, **small), COCO)
    assert taken.anew == ("fc1/kernel",) and taken.unused == ("fc1/kernel",)
    assert "begin anew: the layers fc1" in taken.lines()
    for name in ("conv1", "batch_norm5", "regressor"):
        ours, theirs = (n.get_layer(name).get_weights() for n in (network, old.network))
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b, err_msg=name)
    config = section("integral", 32, **NETWORKS["integral"])
    _, taken = carried(trained(section("integral", 16, **NETWORKS["integral"]), COCO), config, COCO)
    assert taken.lines() == [f"all {len(taken.arrays)} arrays are taken"]


def test_another_head_keeps_the_backbone():
    fields = {"backbone": "resnet18", "head_filters": 8}
    old = trained(section("backbone", 32, head="pooled", **fields), COCO)
    network, taken = carried(old, section("backbone", 32, head="spatial", **fields), LSP)
    ours, theirs = (n.get_layer("backbone").get_weights() for n in (network, old.network))
    assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert len(taken.arrays) == len(ours) and all(name.startswith("backbone/") for name in taken.arrays)
    *_, anew, unused = taken.lines()
    assert anew.startswith("begin anew: the layers ") and "top" in anew and "maps" in anew
    assert unused == "not used: the layers regressor of the initial weights"


@pytest.mark.parametrize(
    "theirs, ours, message",
    [
        (
            ("integral", 16, "integral"),
            ("movenet", 32, "movenet"),
            "network is integral, but.*movenet: another network",
        ),
        (("integral", 16, "integral"), ("integral", 16, None), r"first layer, down1, differs.*model.filters=\(8, 12\)"),
    ],
)
def test_another_network_is_one_clear_line(theirs, ours, message):
    old = trained(section(*theirs[:2], **NETWORKS[theirs[2]]), COCO)
    with pytest.raises(InputError, match=message) as error:
        carried(old, section(*ours[:2], **NETWORKS.get(ours[2], {"filters": (6, 12)})), COCO)
    helpers.one_line(error)


def test_another_backbone_is_one_clear_line():
    theirs, ours = (section("backbone", 32, backbone=name) for name in ("resnet18", "efficientnet_lite0"))
    with pytest.raises(InputError, match="resnet18, but.*efficientnet_lite0.*model.backbone=resnet18") as error:
        carry_over.check_kind(ours, theirs, "somewhere")
    helpers.one_line(error)


@pytest.mark.parametrize("name", ["integral", "deeppose"])
def test_a_run_that_does_not_exist_is_named_before_anything_is_built(name, tmp_path):
    config = tiny.make_recipe("", model__name=name, model__weights=str(tmp_path / "gone"))
    with pytest.raises(InputError, match="gone': no such run"):
        workdir.resolve_recipe(config, str(tmp_path / "new"))
    config.model.preprocessing = "keras"
    with pytest.raises(InputError, match="gone': no such run"):
        models.load_weights(None, config.model)


def test_a_training_starts_from_a_run_with_other_joints_and_logs_what_begins_anew(
    tiny_data, tiny_run, tmp_path, monkeypatch, caplog
):
    """The records' own joints: half of COCO's, one with another name."""
    joints = tuple("snout" if joint == "nose" else joint for joint in COCO.joints[:8])
    annotations, photos, points = helpers.painted_dataset(str(tmp_path), [[20, 10, 60, 70]] * 8)
    table = skeletons.Skeleton("half", joints, limbs={"arms": ((5, 7),)}, torso=(5, 6))
    with open(annotations) as file:
        content = json.load(file)
    for annotation in content["annotations"]:
        annotation["keypoints"] = annotation["keypoints"][:24]
    content["categories"][0] |= {"keypoints": list(joints), "limbs": table.limbs, "torso": table.torso}
    helpers.write_json(annotations, content)
    from tfrecords_tools.write_coco import writer

    writer.write_records(
        helpers.options(annotations, photos, str(tmp_path / "records"), skeleton="auto", crop_size=(48, 48))
    )
    config = tiny.make_recipe(str(tmp_path / "records" / "train-*"), model__weights=tiny_run, steps=1)
    # What is asked for is done before the first step.
    monkeypatch.setattr(trainer, "_fit", lambda *_: {})
    with caplog.at_level("INFO", logger="absl"):
        trainer.train(config, str(tmp_path / "run"))
    log = caplog.text
    assert "taken by joint: left_eye, right_eye, left_ear" in log and "(7 of 8 joints), in the layers maps" in log
    assert "begin anew: the joints snout, in the layers maps" in log and "may suit" not in log
    assert workdir.load_skeleton(str(tmp_path / "run")).joints == joints
