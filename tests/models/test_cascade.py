"""The cascade: places of sub-images, measured displacements, and one exported model."""

import os
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kpose import config as config_lib
from kpose.core import devices, skeletons
from kpose.core.errors import InputError
from kpose.evaluate import on_records
from kpose.export import saved_model
from kpose.metrics import keras_metrics
from kpose.models.cascade import SubImages, cascade, resized
from kpose.runs import workdir
from kpose.train import cascade_inputs, losses, trainer
from kpose.train.regressor import Regressor
from tests import tiny

COCO = skeletons.COCO


def picture(height=40, width=60, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, 3)).astype(np.float32)


def sub_image(image, box, size):
    """The sub-image of `SubImages` for one box, (left, top, right, bottom) in pixels."""
    height, width = image.shape[:2]
    left, top, right, bottom = box
    centre = np.float32([(left + right) / 2 / width - 0.5, (top + bottom) / 2 / height - 0.5])
    side = np.float32([(right - left) / width, (bottom - top) / height])
    return np.asarray(SubImages(size)(image[None], centre[None, None], side[None, None]))[0, 0]


def test_a_sub_image_at_its_own_size_is_the_pixels_themselves():
    image = picture()
    np.testing.assert_allclose(sub_image(image, (10, 5, 26, 21), 16), image[5:21, 10:26], atol=0.01)


@pytest.mark.parametrize("box, size", [((8, 4, 40, 36), 8), ((12.5, 3.25, 20.5, 11.25), 16), ((10, 10, 25, 30), 10)])
def test_sub_images_agree_with_pillow(box, size):
    image = picture(seed=1)
    channels = [
        Image.fromarray(image[..., c]).resize((size, size), Image.Resampling.BILINEAR, box=box) for c in range(3)
    ]
    expected = np.stack([np.asarray(channel) for channel in channels], -1)
    found = sub_image(image, box, size)
    # Pillow does not read pixels outside the box, so its kernel differs at the edges.
    np.testing.assert_allclose(found[2:-2, 2:-2], expected[2:-2, 2:-2], atol=3.0)


def test_sub_images_are_black_beyond_the_image():
    found = sub_image(np.full((40, 60, 3), 200, np.float32), (-16, -16, 16, 16), 8)
    np.testing.assert_allclose(found[5:, 5:], 200, atol=0.5)
    assert (found[:3] == 0).all() and (found[:, :3] == 0).all()


def test_the_stage_before_sees_the_image_as_pillow_shrinks_it():
    image = picture(48, 96, seed=2)
    expected = np.asarray(Image.fromarray(image.astype(np.uint8)).resize((40, 16), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(np.asarray(resized(image[None], (16, 40)))[0], expected, atol=1.0)


def constant_base(points, size=(32, 32)):
    """A network that returns the same points for every image."""
    images = keras.Input((*size, 3))
    x = keras.layers.GlobalAveragePooling2D()(images)
    x = keras.layers.Dense(34, kernel_initializer="zeros", name="points")(x)
    network = keras.Model(images, {"keypoints": keras.layers.Reshape((17, 2), dtype="float32")(x)})
    network.get_layer("points").bias.assign(points.ravel())
    return network


def small_cascade(points, **options):
    options = {"sub_image": 16, "filters": (8, 16), "hidden": (32,)} | options
    return cascade(constant_base(points), (48, 48), 17, COCO.torso, **options)


def constant_cascade():
    """A cascade whose base answers POINTS."""
    return small_cascade(POINTS)


POINTS = np.random.default_rng(0).uniform(-0.4, 0.4, (17, 2)).astype(np.float32)


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_an_untrained_stage_leaves_the_estimate_as_it_is(precision):
    with devices.dtype_policy(precision):
        network = small_cascade(POINTS, outputs=("scale", "visibility"))
    images = picture(48, 48)[None]
    np.testing.assert_allclose(network(images)["keypoints"][0], POINTS, atol=1e-6 if precision == "float32" else 2e-3)
    estimate = POINTS[None] + 0.0123
    answer = network(images, estimate=estimate)
    # Not rounded to bfloat16.
    np.testing.assert_array_equal(answer["keypoints"], estimate)
    assert tuple(answer["scale"].shape) == (1, 17, 2) and tuple(answer["visibility"].shape) == (1, 17)
    assert all(value.dtype == "float32" for value in answer.values())


def test_a_cascade_saves_and_loads_without_custom_objects(tmp_path):
    network = small_cascade(POINTS, outputs=("scale",))
    for variable in network.trainable_variables:
        variable.assign(np.random.default_rng(1).normal(0, 0.1, variable.shape))
    network.save(str(tmp_path / "network.keras"))
    again = keras.models.load_model(str(tmp_path / "network.keras"))
    images = picture(48, 48)[None]
    for name, value in network(images).items():
        np.testing.assert_allclose(again(images)[name], value, atol=1e-5, err_msg=name)


def dots(count, seed):
    """Persons as coloured dots on black, [N, 48, 48, 3], and their labels [N, 17, 3]."""
    rng = np.random.default_rng(seed)
    keypoints = np.concatenate([rng.uniform(-0.4, 0.4, (count, 17, 2)), np.full((count, 17, 1), 2.0)], -1)
    keypoints[:, COCO.torso[0], :2], keypoints[:, COCO.torso[1], :2] = (-0.2, -0.2), (0.2, 0.1)
    images = np.zeros((count, 48, 48, 3), np.uint8)
    for image, person in zip(images, keypoints, strict=True):
        for x, y, _ in person[:8]:
            row, column = int((y + 0.5) * 48), int((x + 0.5) * 48)
            image[row - 1 : row + 2, column - 1 : column + 2] = 255
    # Half of the joints have a dot; the others have no label.
    keypoints[:, [j for j in range(8, 17) if j != COCO.torso[1]]] = 0
    return images, keypoints.astype(np.float32)


def dot_batches(count, seed, batch):
    images, keypoints = dots(count, seed)
    rng = np.random.default_rng(seed)
    data = {
        "image": images,
        "keypoints": keypoints,
        "region": np.tile(np.float32([0, 0, 48, 48]), (count, 1)),
        "weight": np.ones(count, np.float32),
        "normals": rng.normal(0, 1, (count, 17, 2)).astype(np.float32),
    }
    return tf.data.Dataset.from_tensor_slices(data).batch(batch, drop_remainder=True)


def some_errors(seed=0):
    rng = np.random.default_rng(seed)
    factor = rng.uniform(-0.2, 0.2, (17, 2, 2))
    return cascade_inputs.Errors(rng.uniform(-0.1, 0.1, (17, 2)), factor @ factor.swapaxes(1, 2), POINTS)


def test_displacements_have_the_measured_mean_and_covariance():
    batch = next(iter(dot_batches(4000, 1, 4000)))
    errors = some_errors()
    estimate = np.asarray(cascade_inputs.Displacements(errors, COCO.torso)(batch)["estimate"])
    truth = batch["keypoints"].numpy()
    diameter = np.linalg.norm(truth[:, COCO.torso[0], :2] - truth[:, COCO.torso[1], :2], axis=1)
    for joint in range(8):
        moved = (estimate[:, joint] - truth[:, joint, :2]) / diameter[:, None]
        np.testing.assert_allclose(moved.mean(0), errors.mean[joint], atol=0.02)
        np.testing.assert_allclose(np.cov(moved.T), errors.covariance[joint], atol=0.01)
    # The estimate of a joint without a label is near the mean prediction.
    np.testing.assert_allclose(np.median(estimate[:, 16], axis=0), POINTS[16], atol=0.15)


def test_measured_errors_are_those_of_the_network(tmp_path):
    batches = dot_batches(64, 2, 16)
    truth = np.concatenate([b["keypoints"] for b in batches])
    found = cascade_inputs.measure(constant_cascade(), [(1.0, batches)], COCO.torso)
    diameter = np.linalg.norm(truth[:, COCO.torso[0], :2] - truth[:, COCO.torso[1], :2], axis=1)
    errors = (POINTS - truth[..., :2]) / diameter[:, None, None]
    for joint in range(8):
        np.testing.assert_allclose(found.mean[joint], errors[:, joint].mean(0), atol=1e-4)
        np.testing.assert_allclose(found.covariance[joint], np.cov(errors[:, joint].T, bias=True), atol=1e-4)
    cascade_inputs.save(found, str(tmp_path / "errors.json"))
    again = cascade_inputs.load(str(tmp_path / "errors.json"))
    np.testing.assert_array_equal(again.covariance, found.covariance)


def test_errors_cannot_be_measured_without_a_torso():
    batches = dot_batches(8, 2, 8).map(lambda b: b | {"keypoints": tf.zeros_like(b["keypoints"])})
    with pytest.raises(InputError, match="torso"):
        cascade_inputs.measure(constant_cascade(), [(1.0, batches)], COCO.torso)


@pytest.mark.slow
@pytest.mark.parametrize("replicas, xla", [(1, False), (2, True)])
def test_a_stage_learns_to_find_what_it_sees(replicas, xla):
    errors = cascade_inputs.Errors(np.zeros((17, 2)), np.tile(0.03 * np.eye(2), (17, 1, 1)), POINTS)
    keras.utils.set_random_seed(0)
    with devices.make_strategy(replicas).scope():
        network = small_cascade(POINTS)
        regressor = Regressor(
            network,
            losses.L1Loss(),
            [keras_metrics.PCP(COCO)],
            augmentation=cascade_inputs.Displacements(errors, COCO.torso),
            xla=xla,
        )
        regressor.compile(keras.optimizers.Adam(3e-3))
    base_before = [v.numpy() for v in network.base.variables]
    history = regressor.fit(dot_batches(512, 3, 64).repeat(), steps_per_epoch=8, total_steps=96, verbose=0)
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(base_before, network.base.variables, strict=True))

    batch = next(iter(dot_batches(128, 4, 128)))
    estimate = cascade_inputs.Displacements(errors, COCO.torso)(batch)["estimate"].numpy()
    answer = network(tf.cast(batch["image"], tf.float32), estimate=estimate)["keypoints"].numpy()
    truth = batch["keypoints"].numpy()[:, :8, :2]
    before, after = (np.linalg.norm(p[:, :8] - truth, axis=-1).mean() for p in (estimate, answer))
    assert after < 0.65 * before
    assert history.history["loss"][-1] < history.history["loss"][0]


@pytest.fixture(scope="module")
def cascade_run(tiny_data, tiny_run, tmp_path_factory):
    """A second stage after the tiny run, whose folder is removed after the training."""
    folder = tmp_path_factory.mktemp("cascade")
    base = str(folder / "base_run")
    shutil.copytree(tiny_run, base)
    config = stage_recipe(tiny_data, base)
    trainer.train(config, str(folder / "run"))
    shutil.move(base, str(folder / "elsewhere"))
    return str(folder / "run"), config


def stage_recipe(tiny_data, base, **fields):
    fields = {"model__filters": (4, 8), "model__hidden": (8,), "model__sub_image": 16} | fields
    return tiny.make_recipe(
        tiny_data["train"],
        tiny_data["val"],
        model__name="cascade",
        model__base=base,
        **{"model__input_size": (48, 48)} | fields,
    )


def test_a_cascade_is_evaluated_and_exported_as_one_model(cascade_run, tiny_data, tmp_path):
    run, config = cascade_run
    table = on_records.evaluate(run, tiny_data["val"], output_dir=str(tmp_path / "evaluation"))
    assert table["pcp"]["strict"]["average"] is not None and table["recipe"] == config.name
    network = workdir.load_trained(run).network
    folder = saved_model.export(run, str(tmp_path / "serving"))
    served = tf.saved_model.load(folder).signatures["serving_default"]
    image = tf.io.encode_png(tf.cast(picture(48, 48), tf.uint8))
    answer = served(image_bytes=image[None], boxes=tf.constant([[0.0, 0.0, 48.0, 48.0]]))["keypoints"].numpy()
    expected = (network(picture(48, 48)[None])["keypoints"].numpy() + 0.5) * 48
    np.testing.assert_allclose(answer[..., :2], expected, atol=0.05)


@pytest.mark.slow
def test_a_cascade_goes_on_without_the_folder_of_the_stage_before(cascade_run):
    run, config = cascade_run
    longer = config_lib.ConfigDict(config.to_dict())
    longer.steps = 8
    logs = trainer.train(longer, run)
    assert logs["step"] == 8 and np.isfinite(logs["val_loss"])


@pytest.mark.slow
def test_a_third_stage_follows_a_second(cascade_run, tiny_data, tmp_path):
    run, _ = cascade_run
    config = stage_recipe(tiny_data, run, loss__name="rle", steps=2)
    trainer.train(config, str(tmp_path / "third"))
    assert os.path.exists(tmp_path / "third" / "base" / "base" / "config.json")
    network = workdir.load_trained(str(tmp_path / "third")).network
    second = workdir.load_trained(run).network
    images = picture(48, 48)[None]
    np.testing.assert_allclose(network.base(images)["keypoints"], second(images)["keypoints"], atol=1e-5)
    assert set(network(images)) == {"keypoints", "unit", "scale"}


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"model__base": ""}, "model.base is empty"),
        ({"model__sub_image": 18}, "multiple of 4"),
        ({"data__padding": 1.25}, "data.padding is 1.25"),
        ({"model__base": "nowhere"}, "nowhere"),
    ],
)
def test_impossible_cascades_are_refused(tiny_data, tiny_run, tmp_path, fields, message):
    config = stage_recipe(tiny_data, tiny_run)
    for name, value in fields.items():
        section, _, key = name.partition("__")
        config[section][key] = value
    with pytest.raises(InputError, match=message):
        trainer.train(config, str(tmp_path / "run"))
