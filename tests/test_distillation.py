"""A teacher's answers beside the labels: where they go, what they weigh, and that figures stay the labels'."""

import numpy as np
import pytest
import tensorflow as tf

from kpose import config as config_lib
from kpose import distillation, engine, losses, models, runs, skeletons, trainer
from kpose.errors import InputError
from kpose.models import tfjs
from kpose.models.movenet import movenet
from tests import helpers, tiny
from tests.test_movenet import graph_model


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
    return {
        "image": tf.constant(rng.integers(0, 256, (size, 32, 32, 3)), tf.uint8),
        "keypoints": tf.constant(keypoints, tf.float32),
        "weight": tf.constant([1.0] * (size - 1) + [0.0]),
    }


@pytest.mark.parametrize("everywhere", [False, True])
def test_it_teaches_the_joints_without_labels_or_all(everywhere, teacher_file):
    config = tiny.make_recipe("", **_fields(teacher_file, everywhere=everywhere))
    batch = _batch()
    taught = distillation.build(config, skeletons.COCO)(batch)["taught"].numpy()
    labelled = batch["keypoints"][..., 2].numpy() > 0
    expected = np.ones_like(labelled) if everywhere else ~labelled
    expected[-1] = False  # Of no person.
    np.testing.assert_array_equal(taught[..., 2] > 0, expected)
    network = models.movenet((64, 64), width=0.25)
    tfjs.assign(network, teacher_file)
    found = network(tf.image.resize(tf.cast(batch["image"], tf.float32), (64, 64)))["keypoints"].numpy()
    np.testing.assert_allclose(taught[expected][:, :2], found[expected], atol=1e-5)
    assert not taught[~expected].any()


def test_what_it_is_unsure_of_is_not_taught(teacher_file):
    config = tiny.make_recipe("", **_fields(teacher_file, min_score=1.0))
    assert not distillation.build(config, skeletons.COCO)(_batch())["taught"].numpy().any()


def test_its_share_of_the_loss_is_added_to_the_labels():
    network = models.movenet((32, 32), width=0.25)
    loss = losses.L1Loss()
    batch = _batch() | {"taught": tf.constant(np.random.default_rng(1).uniform(-0.4, 0.4, (4, 17, 3)), tf.float32)}
    outputs = network(tf.cast(batch["image"], tf.float32))
    regressor = engine.Regressor(network, loss, taught_share=0.5)
    points = outputs["keypoints"].numpy()
    expected = np.zeros(4)
    for name, share in (("keypoints", 1.0), ("taught", 0.5)):
        truth = batch[name].numpy()
        for person in range(4):
            for joint in range(17):
                if truth[person, joint, 2] > 0:
                    expected[person] += share * np.abs(points[person, joint] - truth[person, joint, :2]).sum()
    np.testing.assert_allclose(regressor._loss_values([], batch, outputs), expected, rtol=1e-5)


def test_a_recipe_trains_with_it_and_leaves_nothing_of_it(teacher_file, tiny_data, tmp_path):
    """Alone it changes the weights; the same metrics are told, and evaluation needs no teacher."""
    for name, fields in (("without", {}), ("taught", _fields(teacher_file))):
        trainer.train(tiny.make_recipe(tiny_data["train"], tiny_data["val"], steps=2, **fields), str(tmp_path / name))
    networks = [runs.load_trained(str(tmp_path / name)).network for name in ("without", "taught")]
    assert [v.shape for v in networks[0].variables] == [v.shape for v in networks[1].variables]
    differences = [np.abs(a - b).max() for a, b in zip(*(n.get_weights() for n in networks), strict=True)]
    assert max(differences) > 1e-6


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"teacher__weights": "thunder.h5"}, "teacher.weights is 'thunder.h5'"),
        ({"augment__on": "device"}, "augment.on is 'device'"),
        ({"teacher__input_size": (60, 64)}, "teacher.input_size is .60, 64.: .* multiples of 32"),
        ({"loss__name": "masked_l2"}, "loss.name is 'masked_l2'"),
        ({"skeleton": "lsp"}, "skeleton is 'lsp'"),
    ],
)
def test_a_recipe_that_no_teacher_suits_is_refused(fields, message):
    config = tiny.make_recipe("", **({"teacher__weights": "thunder.json"} | fields))
    with pytest.raises(InputError, match=message) as error:
        config_lib.check(config)
    helpers.one_line(error)


def test_a_run_begins_with_another_s_weights(tiny_run, tiny_data, tmp_path):
    config = tiny.make_recipe(tiny_data["train"], model__name="movenet", model__width=0.25, steps=1)
    trainer.train(config, str(tmp_path / "first"))
    config.model.weights, config.model.frozen_blocks = str(tmp_path / "first"), 3
    config.model.input_size = (64, 32)
    trainer.train(config, str(tmp_path / "second"))
    first, second = (runs.load_trained(str(tmp_path / name)).network for name in ("first", "second"))
    changed = {
        old.path: not np.array_equal(old.numpy(), new.numpy())
        for old, new in zip(first.variables, second.variables, strict=True)
    }
    frozen = [name for name in changed if name.startswith(("Conv1/", "expanded_conv", "block_1_", "block_2_"))]
    assert len(frozen) == 22 and not any(changed[name] for name in frozen)
    assert changed["block_3_expand/kernel"] and changed["heatmap/kernel"]
    config.model.weights = tiny_run
    with pytest.raises(InputError, match="which are not those of this recipe's movenet"):
        trainer.train(config, str(tmp_path / "third"))
