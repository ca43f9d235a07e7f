"""Teacher: its keypoints as targets, their weight in the loss, and metrics from the labels only."""

import numpy as np
import pytest
import tensorflow as tf

from kpose import config as config_lib
from kpose.core import devices, skeletons
from kpose.core.errors import InputError
from kpose.data import pipeline
from kpose.models.movenet import movenet
from kpose.models.weights import movenet_tfjs
from kpose.runs import checkpoints, workdir
from kpose.runs.shipped_files import DEFAULT
from kpose.train import losses, setup, teacher, trainer
from kpose.train.regressor import Regressor
from tests import helpers, tiny
from tests.models.test_movenet import graph_model


@pytest.fixture(scope="module")
def teacher_file(tmp_path_factory):
    return graph_model(movenet((64, 64), width=0.25), tmp_path_factory.mktemp("teacher"))


def _fields(path, **fields):
    given = {"weights": path, "width": 0.25, "input_size": (64, 64), "min_score": 0.0} | fields
    return {f"teacher__{name}": value for name, value in given.items()}


def _batch(size=4):
    rng = np.random.default_rng(0)
    keypoints = np.concatenate([rng.uniform(-0.4, 0.4, (size, 17, 2)), np.full((size, 17, 1), 2.0)], -1)
    keypoints[:, ::2] = 0
    keypoints[:, 0, 2] = -1  # Never labelled.
    return {
        "image": tf.constant(rng.integers(0, 256, (size, 32, 32, 3)), tf.uint8),
        "keypoints": tf.constant(keypoints, tf.float32),
        "weight": tf.constant([1.0] * (size - 1) + [0.0]),
    }


@pytest.mark.parametrize("everywhere", [False, True])
def test_it_teaches_the_joints_without_labels_or_all(everywhere, teacher_file):
    config = tiny.make_recipe("", **_fields(teacher_file, everywhere=everywhere))
    batch = _batch()
    taught = teacher.build(config, skeletons.COCO)(batch)["taught"].numpy()
    labelled = batch["keypoints"][..., 2].numpy() > 0
    expected = np.ones_like(labelled) if everywhere else ~labelled
    expected[-1] = False  # A padded sample, without a person.
    np.testing.assert_array_equal(taught[..., 2] > 0, expected)
    network = movenet((64, 64), width=0.25)
    movenet_tfjs.assign(network, teacher_file)
    found = network(tf.image.resize(tf.cast(batch["image"], tf.float32), (64, 64)))["keypoints"].numpy()
    np.testing.assert_allclose(taught[expected][:, :2], found[expected], atol=1e-5)
    assert not taught[~expected].any()


def test_what_it_is_unsure_of_is_not_taught(teacher_file):
    config = tiny.make_recipe("", **_fields(teacher_file, min_score=1.0))
    assert not teacher.build(config, skeletons.COCO)(_batch())["taught"].numpy().any()


def test_a_run_teaches_what_its_network_predicts(tiny_data, tmp_path):
    """In the training step, after the augmentation on the device."""
    folder = str(tmp_path / "teacher")
    fields = {"model__name": "movenet", "model__input_size": (64, 64), "model__width": 0.25, "loss__name": "l1"}
    # The folder of a run before its first step.
    config = tiny.make_recipe(tiny_data["train"], steps=1, **fields)
    setup.write_start(config, setup.training_set_of(config, skeletons.COCO), {}, folder)
    regressor = setup.build_regressor(config, skeletons.COCO, devices.start(config), total_steps=1)
    checkpoints.Checkpoints(folder, regressor, keep=1).save(1, 1)
    network = workdir.load_trained(folder).network
    augmentation = {"augment__on": "device", "augment__flip": 1.0}
    given = {"teacher__weights": folder, "teacher__min_score": 0.0, "teacher__everywhere": True}
    config = tiny.make_recipe(tiny_data["train"], steps=1, **(fields | augmentation | given))
    regressor = setup.build_regressor(config, skeletons.COCO, devices.start(config), total_steps=1)
    batch = next(iter(pipeline.training_batches(config, setup.training_set_of(config, skeletons.COCO))))
    trainable, state = (
        [v.value for v in group] for group in (regressor.trained_variables, regressor.network.non_trainable_variables)
    )
    _, _, batch, _, _ = regressor._compiled(regressor.gradients)(trainable, state, batch, 1.0)
    taught = batch["taught"].numpy()
    found = network(tf.cast(batch["image"], tf.float32))["keypoints"].numpy()
    used = taught[..., 2] > 0
    assert used.mean() > 0.9
    np.testing.assert_allclose(taught[used][:, :2], found[used], atol=1e-4)


def test_its_share_of_the_loss_is_added_to_the_labels():
    network = movenet((32, 32), width=0.25)
    loss = losses.L1Loss()
    batch = _batch() | {"taught": tf.constant(np.random.default_rng(1).uniform(-0.4, 0.4, (4, 17, 3)), tf.float32)}
    outputs = network(tf.cast(batch["image"], tf.float32))
    regressor = Regressor(network, loss, taught_share=0.5)
    points = outputs["keypoints"].numpy()
    expected = np.zeros(4)
    for name, share in (("keypoints", 1.0), ("taught", 0.5)):
        truth = batch[name].numpy()
        for person in range(4):
            for joint in range(17):
                if truth[person, joint, 2] > 0:
                    expected[person] += share * np.abs(points[person, joint] - truth[person, joint, :2]).sum()
    np.testing.assert_allclose(regressor._loss_values([], batch, outputs), expected, rtol=1e-5)


def test_a_recipe_trains_with_it_and_the_saved_network_does_not_contain_it(teacher_file, tiny_data, tiny_run, tmp_path):
    """The network and its metrics are the same, and evaluation needs no teacher."""
    logs = {}
    for name, share in (("with", 1.0), ("without", 0.0)):
        fields = _fields(teacher_file, share=share, everywhere=True)
        config = tiny.make_recipe(tiny_data["train"], steps=1, **fields)
        logs[name] = trainer.train(config, str(tmp_path / name))
    found, plain = (workdir.load_trained(folder).network for folder in (str(tmp_path / "with"), tiny_run))
    assert [v.shape for v in found.variables] == [v.shape for v in plain.variables]
    # The loss of the first step, before any update, differs by the teacher's part only. This part is
    # small: an untrained network and an untrained teacher both predict near the centre.
    assert logs["with"]["loss"] > 1.005 * logs["without"]["loss"]


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"teacher__weights": "thunder.h5"}, "teacher.weights is 'thunder.h5'"),
        ({"teacher__input_size": (60, 64)}, "teacher.input_size is .60, 64.: .* multiples of 32"),
        ({"loss__name": "masked_l2"}, "loss.name is 'masked_l2'"),
    ],
)
def test_a_recipe_without_a_possible_teacher_is_rejected(fields, message):
    config = tiny.make_recipe("", **({"teacher__weights": "thunder.json"} | fields))
    with pytest.raises(InputError, match=message) as error:
        config_lib.check(config)
    helpers.one_line(error)


def test_a_teacher_of_other_joints_is_rejected():
    config = tiny.make_recipe("", teacher__weights="thunder.json")
    with pytest.raises(InputError, match="the skeleton is 'lsp': the teacher, MoveNet, predicts") as error:
        teacher.build(config, skeletons.LSP)
    helpers.one_line(error)


def test_a_run_of_other_crops_does_not_teach(tiny_run, tiny_data):
    config = tiny.make_recipe(tiny_data["train"], teacher__weights=tiny_run, data__aspect=1.0)
    with pytest.raises(InputError, match="data.aspect 0 .* this recipe has 1") as error:
        teacher.build(config, skeletons.COCO)
    helpers.one_line(error)


def test_a_run_begins_with_another_s_weights(tiny_run):
    config = config_lib.load_recipe("movenet")
    config.model.weights, config.model.frozen_blocks = DEFAULT, 3
    config.model.input_size = (64, 32)
    network = workdir.build_network(config, skeletons.COCO, initial_weights=True)
    shipped = workdir.load_trained(DEFAULT).network
    for new, old in zip(network.variables, shipped.variables, strict=True):
        np.testing.assert_array_equal(new.numpy(), old.numpy(), err_msg=new.path)
    frozen = {v.path for v in network.variables} - {v.path for v in network.trainable_variables}
    assert len(frozen) == 18
    assert all(name.startswith(("Conv1/", "expanded_conv", "block_1_", "block_2_")) for name in frozen)
    config.model.weights = tiny_run
    with pytest.raises(InputError, match="whose network is integral, but that of this recipe is movenet"):
        workdir.build_network(config, skeletons.COCO, initial_weights=True)
