"""Networks on backbones of keras_cv: outputs, freezing, initial weights."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from kpose import config as config_lib
from kpose import models
from kpose.core import devices, skeletons
from kpose.core.errors import InputError
from kpose.metrics import keras_metrics
from kpose.models import backbones
from kpose.models.backbones import backbone_regressor
from kpose.runs import checkpoints
from kpose.train import callbacks, losses, trainer
from kpose.train.regressor import Regressor
from tests import tiny
from tests.train.test_trainer import assert_same_weights

JOINTS = skeletons.COCO.num_joints
SAMPLES, BATCH = 8, 4


@pytest.fixture
def small_resnet(monkeypatch):
    """A small network in place of resnet18, so that trainings take a second."""
    options = backbones.BACKBONES["resnet18"].options | {
        "stackwise_filters": [2, 2, 3, 4],
        "stackwise_blocks": [1, 1, 1, 1],
        # With the other block type, the stem has 64 channels.
        "block_type": "block",
    }
    spec = backbones.dataclasses.replace(backbones.BACKBONES["resnet18"], options=options)
    monkeypatch.setitem(backbones.BACKBONES, "resnet18", spec)


@pytest.fixture
def tiny_backbone(monkeypatch):
    """Five convolutions in place of any backbone: freezing and weights use only its name."""

    def features(name, input_size, preprocessing, batch_norm_momentum, synchronized):
        inputs = keras.Input((*input_size, 3))
        x, outputs = inputs, []
        for index in range(5):
            x = keras.layers.Conv2D(4, 3, strides=2, padding="same", activation="relu", name=f"conv{index}")(x)
            if index in (0, 3):
                x = keras.layers.BatchNormalization(
                    momentum=batch_norm_momentum, synchronized=synchronized, name=f"bn{index}"
                )(x)
            outputs.append(x)
        return keras.Model(inputs, outputs[1:], name="backbone")

    monkeypatch.setattr(backbones, "features", features)


def images(count, side=64):
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3)).astype(np.float32)


@pytest.mark.parametrize(
    "backbone, head, precision, parameters",
    [
        ("resnet18", "pooled", "float32", 11_186_112),
        # In float32: on maps of 2 x 1, bfloat16 kernels of TensorFlow sometimes read uninitialised memory.
        ("resnet18", "spatial", "float32", 11_186_112),
        ("resnet50", "pooled", "mixed_bfloat16", 23_561_152),
        ("efficientnet_lite0", "spatial", "float32", 3_413_024),
    ],
)
def test_backbones_give_normalised_float32_keypoints(backbone, head, precision, parameters):
    with devices.dtype_policy(precision):
        network = backbone_regressor(backbone, head, (64, 32), head_filters=8)
    keypoints = network(images(3)[:, :, :32])["keypoints"]
    assert keypoints.dtype == "float32" and tuple(keypoints.shape) == (3, JOINTS, 2)
    assert np.isfinite(keypoints).all() and np.abs(keypoints).max() < 1
    inner = network.get_layer("backbone")
    # The numbers of keras_cv and of the papers, without classifiers.
    assert inner.count_params() == parameters
    assert [tuple(o.shape[1:3]) for o in inner.outputs] == [(16, 8), (8, 4), (4, 2), (2, 1)]
    assert inner.compute_dtype == ("float32" if precision == "float32" else "bfloat16")
    assert all(v.dtype == "float32" for v in network.trainable_variables)
    norms = [layer for layer in inner.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert norms and all(layer.momentum == 0.9 and not layer.synchronized for layer in norms)


@pytest.mark.parametrize("level, side", [(1, 16), (2, 8), (4, 2)])
def test_the_spatial_head_ends_at_its_level(small_resnet, level, side):
    network = backbone_regressor("resnet18", "spatial", (64, 64), head_level=level, head_filters=4)
    assert tuple(network.get_layer("maps").output.shape[1:]) == (side, side, JOINTS)


@pytest.mark.parametrize("head", backbones.HEADS)
def test_heads_give_what_losses_ask_for(tiny_backbone, head):
    network = backbone_regressor("resnet18", head, (32, 32), outputs=("scale", "visibility"), head_filters=4)
    answer = network(images(2, 32))
    assert {name: tuple(value.shape) for name, value in answer.items()} == {
        "keypoints": (2, JOINTS, 2),
        "scale": (2, JOINTS, 2),
        "visibility": (2, JOINTS),
    }
    assert all(value.dtype == "float32" for value in answer.values())


@pytest.mark.parametrize(
    "backbone, preprocessing, black, white",
    [
        ("resnet18", "keras", 0.0, 1.0),
        ("resnet18", "torchvision", -np.divide((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), None),
        ("efficientnet_lite0", "keras", -127 / 128, 1.0),
        ("efficientnet_lite0", "torchvision", -127 / 128, 1.0),
    ],
)
def test_images_are_scaled_as_the_weights_want_them(small_resnet, backbone, preprocessing, black, white):
    rescale = backbone_regressor(backbone, "pooled", (32, 32), preprocessing=preprocessing).get_layer("rescale")
    ends = np.asarray(rescale(np.stack([np.zeros((1, 1, 3)), np.full((1, 1, 3), 255.0)])))[:, 0, 0]
    np.testing.assert_allclose(ends[0], np.broadcast_to(black, 3), rtol=1e-5)
    if white is not None:
        np.testing.assert_allclose(ends[1], np.broadcast_to(white, 3), rtol=1e-5)


@pytest.mark.parametrize("preprocessing", ["keras", pytest.param("torchvision", marks=pytest.mark.slow)])
def test_saved_networks_load_without_custom_objects_and_keras_cv_is_imported_only_for_a_new_backbone(
    small_resnet, tmp_path, preprocessing
):
    network = backbone_regressor("resnet18", "spatial", (32, 32), head_filters=4, preprocessing=preprocessing)
    path, inputs, outputs = (str(tmp_path / name) for name in ("n.keras", "x.npy", "y.npy"))
    network.save(path)
    np.save(inputs, images(2, 32))
    script = (
        "import sys\nfrom kpose.core import cli, startup\nstartup.import_tensorflow()\n"
        "import numpy as np, keras, kpose.models.integral\n"
        f"network = keras.models.load_model({path!r})\n"
        f"np.save({outputs!r}, network(np.load({inputs!r}))['keypoints'])\n"
        "assert network.get_layer('backbone')\n"
        "from kpose import config, models\nconfig.check(config.default())\n"
        "assert 'keras_cv' not in sys.modules\n"
        "models.backbones.features('resnet18', (32, 32))\nassert 'keras_cv' in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", ""), "keras_cv is imported quietly"
    np.testing.assert_allclose(np.load(outputs), network(images(2, 32))["keypoints"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["resnet18", pytest.param("resnet50", marks=pytest.mark.slow)])
def test_weights_of_torchvision_meet_its_strides_and_padding(name):
    plain, other = (backbones.features(name, (64, 64), choice) for choice in ("keras", "torchvision"))
    assert [v.path for v in other.variables] == [v.path for v in plain.variables]
    assert [v.shape for v in other.variables] == [v.shape for v in plain.variables]
    assert [o.shape for o in other.outputs] == [o.shape for o in plain.outputs]
    assert other.name == "backbone"
    strided = [layer for layer in other.layers if getattr(layer, "strides", None) == (2, 2)]
    windows = {layer.name: getattr(layer, "kernel_size", None) or layer.pool_size for layer in strided}
    # The stem and its pool; then a 3x3 convolution and a shortcut of each of three stages.
    assert sorted(windows.values()) == [(1, 1)] * 3 + [(3, 3)] * 4 + [(7, 7)]
    assert all(name.endswith("_0_conv") for name, window in windows.items() if window == (1, 1))
    for layer in strided:
        if windows[layer.name] != (1, 1):
            padding = other.get_layer(f"{layer.name}_pad")
            assert layer.padding == "valid" and padding.padding == ((windows[layer.name][0] // 2,) * 2,) * 2


def test_lite_saves_and_loads(tmp_path):
    network = backbone_regressor("efficientnet_lite0", "pooled", (32, 32))
    network.save(str(tmp_path / "n.keras"))
    again = keras.models.load_model(str(tmp_path / "n.keras"))
    np.testing.assert_array_equal(again(images(2, 32))["keypoints"], network(images(2, 32))["keypoints"])


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"input_size": (224, 200)}, r"\(224, 200\).*multiples of 32"),
        ({"backbone": "resnet19"}, "resnet19.*resnet18, resnet50, efficientnet_lite0"),
        ({"head": "round"}, "'round'.*pooled, spatial"),
        ({"head": "spatial", "head_level": 0}, "head_level is 0.*levels 1 to 4"),
        ({"name": "deeppose", "freeze_epochs": 1}, "freeze_epochs is 1.*deeppose has no backbone"),
        ({"name": "deeppose", "weights": "resnet50.pth"}, "weights is 'resnet50.pth'.*no backbone"),
        ({"name": "movenet", "input_size": (32, 32), "preprocessing": "torchvision"}, "'torchvision'.*no backbone"),
    ],
)
def test_impossible_sections_are_refused_before_anything_is_built(changes, message):
    config = config_lib.default().model
    config.update({"name": "backbone"} | changes)
    with pytest.raises(InputError, match=message):
        models.check(config)


# Training.


def make_data(side):
    rng = np.random.default_rng(0)
    keypoints = rng.uniform(-0.5, 0.5, (SAMPLES, JOINTS, 3)).astype(np.float32)
    keypoints[..., 2] = 2
    return {
        "image": images(SAMPLES, side).astype(np.uint8),
        "keypoints": keypoints,
        "region": np.tile(np.float32([0, 0, 100, 100]), (SAMPLES, 1)),
        "weight": np.ones(SAMPLES, np.float32),
    }


def make_regressor(
    backbone="resnet18", head="pooled", precision="float32", replicas=1, xla=False, optimizer=None, side=32, ema=0.0
):
    keras.utils.set_random_seed(1)
    with devices.make_strategy(replicas).scope(), devices.dtype_policy(precision):
        regressor = Regressor(
            backbone_regressor(backbone, head, (side, side), head_filters=8, synchronized=replicas > 1 and not xla),
            losses.L2Loss(),
            pixel_metrics=[keras_metrics.PCP("coco", "strict")],
            crop_metrics=[keras_metrics.SpreadRatio(JOINTS)],
            xla=xla,
            ema=ema,
        )
        regressor.compile(optimizer() if optimizer else keras.optimizers.SGD(1e-3))
    return regressor


def train(regressor, epochs, side=32, **options):
    # Two batches: one epoch.
    batches = tf.data.Dataset.from_tensor_slices(make_data(side)).batch(BATCH).repeat()
    options = {"steps_per_epoch": 2, "total_steps": 2 * epochs} | options
    return regressor.fit(batches.skip(options.get("start_step", 0)), verbose=0, **options).history


@pytest.mark.parametrize(
    "backbone, head, precision",
    [
        pytest.param("resnet18", "spatial", "float32", marks=pytest.mark.slow),
        pytest.param("resnet18", "pooled", "mixed_bfloat16", marks=pytest.mark.slow),
        pytest.param("efficientnet_lite0", "pooled", "float32", marks=pytest.mark.slow),
        pytest.param("efficientnet_lite0", "pooled", "mixed_bfloat16", marks=pytest.mark.slow),
    ],
)
def test_a_step_lowers_the_loss(backbone, head, precision):
    check_that_a_step_lowers_the_loss(backbone, head, precision)


@pytest.mark.parametrize("head, xla", [("spatial", False), pytest.param("pooled", True, marks=pytest.mark.slow)])
def test_a_step_of_a_small_network_lowers_the_loss(small_resnet, head, xla):
    # Not efficientnet_lite0: XLA has no fast depthwise convolution on CPUs.
    check_that_a_step_lowers_the_loss("resnet18", head, "float32", xla=xla)


def check_that_a_step_lowers_the_loss(backbone, head, precision, xla=False):
    # The curvature of the summed loss in the pooled head is several thousand.
    regressor = make_regressor(backbone, head, precision, xla=xla, optimizer=lambda: keras.optimizers.SGD(1e-4))
    batch = {name: value[:BATCH] for name, value in make_data(32).items()}
    batches = tf.data.Dataset.from_tensors(batch).repeat()
    history = regressor.fit(batches, steps_per_epoch=1, total_steps=2, verbose=0).history
    assert history["loss"][1] < history["loss"][0]


def arrays(layer):
    return {v.path: v.numpy() for v in layer.variables}


@pytest.mark.parametrize(
    "replicas, xla",
    [
        # The averages of a frozen backbone, below, are tested without XLA.
        pytest.param(1, False, marks=pytest.mark.slow),
        pytest.param(2, False, marks=pytest.mark.slow),
        (1, True),
        pytest.param(2, True, marks=pytest.mark.slow),
    ],
)
def test_a_frozen_backbone_stays_bit_for_bit_and_then_moves(tiny_backbone, replicas, xla):
    # Weight decay changes every weight to which it is applied.
    regressor = make_regressor(
        replicas=replicas, xla=xla, optimizer=lambda: keras.optimizers.AdamW(1e-3, weight_decay=0.1)
    )
    backbone = regressor.network.get_layer("backbone")
    seen = [arrays(backbone)]
    head = [arrays(regressor.network.get_layer("regressor"))]

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(arrays(backbone))
            head.append(arrays(regressor.network.get_layer("regressor")))

    train(regressor, epochs=3, callbacks=[callbacks.FreezeBackbone(2), Watch()])
    for name, value in seen[0].items():
        np.testing.assert_array_equal(seen[1][name], value, err_msg=name)
        np.testing.assert_array_equal(seen[2][name], value, err_msg=name)
        assert not np.array_equal(seen[3][name], value), name
    for before, after in zip(head[:-1], head[1:], strict=True):
        assert all(not np.array_equal(before[name], after[name]) for name in before)


@pytest.mark.slow
def test_one_replica_and_two_freeze_and_train_alike(tiny_backbone):
    histories = []
    for replicas in (1, 2):
        regressor = make_regressor(replicas=replicas)
        histories.append(train(regressor, epochs=2, callbacks=[callbacks.FreezeBackbone(1)]))
    for name in ("loss", "gradient_norm", "spread"):
        np.testing.assert_allclose(histories[1][name], histories[0][name], rtol=1e-3, err_msg=name)


@pytest.mark.parametrize("replicas", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_averages_of_a_frozen_backbone_are_its_weights_and_then_follow(tiny_backbone, replicas):
    regressor = make_regressor(replicas=replicas, ema=0.9, optimizer=lambda: keras.optimizers.SGD(1e-2))
    batches = tf.data.Dataset.from_tensor_slices(make_data(32)).batch(BATCH)
    kernel = regressor.network.get_layer("backbone").get_layer("conv1").kernel
    before, average = (
        kernel.numpy(),
        dict(zip(map(id, regressor.averaged), regressor.averages, strict=True))[id(kernel)],
    )
    freeze = callbacks.FreezeBackbone(1)
    train(regressor, epochs=1, callbacks=[freeze], validation_data=batches)
    np.testing.assert_allclose(average.numpy(), before, rtol=1e-6)
    train(regressor, epochs=2, start_step=2, callbacks=[freeze], validation_data=batches)
    assert not np.allclose(average.numpy(), before, rtol=1e-4)
    assert np.isfinite(regressor.predict_crops(images(2, 32))["keypoints"]).all()


def test_checkpoints_hold_the_same_variables_frozen_or_not(tiny_backbone, tmp_path):
    regressor = make_regressor(optimizer=lambda: keras.optimizers.AdamW(1e-3))
    backbone = regressor.network.get_layer("backbone")
    saver = checkpoints.Checkpoints(str(tmp_path), regressor, keep=3)
    shapes = []
    for step, frozen in enumerate((True, False, True), 1):
        regressor.freeze(backbone, frozen)
        saver.save(step, step)
        shapes.append(tf.train.load_checkpoint(checkpoints.latest(str(tmp_path))).get_variable_to_shape_map())
    assert shapes[0] == shapes[1] == shapes[2] and len(shapes[0]) > 3 * len(backbone.trainable_variables)


def recipe(data, **fields):
    fields = {"model__name": "backbone", "checkpoint_every": 1000, "augment__flip": 0.5} | fields
    return tiny.make_recipe(data["train"], **fields)


@pytest.mark.slow
def test_a_run_resumed_frozen_and_unfrozen_ends_bit_for_bit_as_the_uninterrupted_one(
    tiny_backbone, tiny_data, tmp_path
):
    # Three steps per epoch: interrupted during the frozen epoch and during a later one.
    whole, parts = str(tmp_path / "whole"), str(tmp_path / "parts")
    trainer.train(recipe(tiny_data, steps=8, model__freeze_epochs=1), whole)
    for steps in (2, 5, 8):
        trainer.train(recipe(tiny_data, steps=steps, model__freeze_epochs=1), parts)
    assert_same_weights(whole, parts)


@pytest.mark.slow
def test_a_run_begins_with_its_weights_and_needs_them_no_more_afterwards(tiny_backbone, tiny_data, tmp_path):
    # Numbers that differ from those of the run.
    keras.utils.set_random_seed(99)
    source = backbone_regressor("resnet18", "pooled", (32, 32)).get_layer("backbone")
    path, workdir = tmp_path / "backbone.weights.h5", str(tmp_path / "run")
    source.save_weights(str(path))
    fields = {"model__weights": str(path), "model__freeze_epochs": 2, "model__head": "spatial"}
    trainer.train(recipe(tiny_data, steps=2, replicas=2, **fields), workdir)
    network = models.build(recipe(tiny_data, **fields).model, skeletons.COCO)
    checkpoints.restore_network(network, checkpoints.latest(workdir))
    for got, wanted in zip(network.get_layer("backbone").variables, source.variables, strict=True):
        np.testing.assert_array_equal(got.numpy(), wanted.numpy(), err_msg=got.path)
    path.unlink()
    assert trainer.train(recipe(tiny_data, steps=4, **fields), workdir)["step"] == 4
    with pytest.raises(InputError, match="backbone.weights.h5"):
        trainer.train(recipe(tiny_data, steps=4, **fields), str(tmp_path / "other"))
    assert not (tmp_path / "other").exists()
