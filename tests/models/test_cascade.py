"""The cascade: places of sub-images, measured displacements, and one exported model."""

import os
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kpose import config as config_lib
from kpose.core import devices, skeletons
from kpose.core.errors import InputError
from kpose.data import crops
from kpose.data.resampling import resample
from kpose.evaluate import on_records
from kpose.export import converted, saved_model
from kpose.metrics import keras_metrics
from kpose.models import decoding
from kpose.models.cascade import SubImages, cascade, resized
from kpose.runs import workdir
from kpose.train import cascade_inputs, losses, setup, trainer
from kpose.train.regressor import Regressor
from tests import tiny

COCO = skeletons.COCO


def picture(height=40, width=60, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, 3)).astype(np.float32)


def sub_image(image, box, size, **options):
    """The sub-image of `SubImages` for one box, (left, top, right, bottom) in pixels."""
    height, width = image.shape[:2]
    left, top, right, bottom = box
    centre = np.float32([(left + right) / 2 / width - 0.5, (top + bottom) / 2 / height - 0.5])
    side = np.float32([(right - left) / width, (bottom - top) / height])
    return np.asarray(SubImages(size, **options)(image[None], centre[None, None], side[None, None]))[0, 0]


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
    np.testing.assert_allclose(found[2:-2, 2:-2], expected[2:-2, 2:-2], atol=0.1)


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(st.floats(-25, 65), st.floats(-25, 45)),
    st.tuples(st.floats(4, 90), st.floats(4, 90)),
    st.sampled_from([8, 17]),
)
def test_sub_images_are_crops_as_write_coco_cuts_them(corner, sides, size):
    image = picture(seed=3).astype(np.uint8)
    box = (*corner, corner[0] + sides[0], corner[1] + sides[1])
    expected = np.asarray(crops.crop_image(Image.fromarray(image), (*corner, *sides), (size, size)), float)
    found = sub_image(image.astype(np.float32), box, size)
    # A sample whose centre is at the image's edge may be inside for one and outside for the other.
    rows, columns = (
        np.abs((start + (np.arange(size) + 0.5) * side / size)[:, None] - [0, end]).min(1) > 0.01
        for start, side, end in ((corner[1], sides[1], 40), (corner[0], sides[0], 60))
    )
    # crop_image rounds twice, and divides pixels near the edge, after rounding, by their share of
    # the kernel, which is 0.5 or more.
    np.testing.assert_allclose(found[rows][:, columns], expected[rows][:, columns], atol=3.0)


@settings(max_examples=60, deadline=None)
@given(st.tuples(st.floats(-30, 80), st.floats(-30, 60)), st.tuples(st.floats(1, 120), st.floats(1, 120)))
def test_a_constant_image_gives_constant_sub_images(centre, sides):
    (x, y), (w, h) = centre, sides
    found = sub_image(np.full((40, 60, 3), 200, np.float32), (x - w / 2, y - h / 2, x + w / 2, y + h / 2), 12)
    places = (np.arange(12) + 0.5) / 12 - 0.5
    across, down = x + w * places, y + h * places
    for distance, inside in ((0.01, True), (-0.01, False)):
        # Samples that are clearly inside, and samples that are not clearly outside.
        columns = (across > distance) & (across < 60 - distance)
        rows = (down > distance) & (down < 40 - distance)
        both = rows[:, None] & columns
        if inside:
            np.testing.assert_allclose(found[both], 200, rtol=1e-5)
        else:
            assert (found[~both] == 0).all()


def test_networks_of_release_0_1_keep_their_sub_images():
    image, box = np.full((40, 60, 3), 200, np.float32), (4, 4, 49, 31)
    found = sub_image(image, box, 8, normalised=False)
    # Bilinear samples, with a kernel as wide as the step between samples, divided by this width.
    expected = np.full((8, 8), 200.0)
    for axis, (start, step, length) in enumerate([(4, 27 / 8, 40), (4, 45 / 8, 60)]):
        sums = [
            sum(max(0.0, 1 - abs(start + (i + 0.5) * step - pixel - 0.5) / step) for pixel in range(length)) / step
            for i in range(8)
        ]
        expected *= np.array(sums).reshape((-1, 1) if axis == 0 else (1, -1))
    np.testing.assert_allclose(found[..., 0], expected, rtol=1e-4)
    assert np.ptp(found) > 0.5 and np.ptp(sub_image(image, box, 8)) < 1e-3


def test_the_stage_before_sees_the_image_as_pillow_shrinks_it():
    image = picture(48, 96, seed=2)
    expected = np.asarray(Image.fromarray(image.astype(np.uint8)).resize((40, 16), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(np.asarray(resized(image[None], (16, 40)))[0], expected, atol=1.0)


@pytest.mark.parametrize("size", [(24, 24), (28, 20)])
def test_the_stage_before_sees_the_pixels_that_it_was_trained_on(size):
    stored = np.stack([picture(60, 60, seed) for seed in (4, 5)]).astype(np.uint8)
    # Records with padding 1.5; a first stage with padding 1.0, its cascade with padding 1.25.
    expected = resample(tf.constant(stored), size, 1 / 1.5).numpy().astype(float)
    images = resample(tf.constant(stored), (50, 50), 1.25 / 1.5)
    np.testing.assert_array_equal(images, stored[:, 5:-5, 5:-5])
    found = np.asarray(resized(tf.cast(images, tf.float32), size, 1 / 1.25))
    # The stage before was trained on rounded pixels.
    np.testing.assert_allclose(found, expected, atol=0.51)


def test_a_cascade_can_show_more_than_the_stage_before_sees():
    network = cascade(constant_base(POINTS), (48, 48), 17, COCO.torso, share=0.75, sub_image=16, filters=(8, 16))
    np.testing.assert_allclose(network(picture(48, 48)[None])["keypoints"][0], 0.75 * POINTS, atol=1e-6)


def disc(width, height, centre, radius):
    """A white disc on black, [height, width, 3] float32."""
    y, x = np.mgrid[:height, :width] + 0.5
    inside = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2
    return np.repeat(255 * inside[..., None], 3, -1).astype(np.float32)


@pytest.mark.parametrize("width, height", [(240, 480), (480, 240), (300, 300)])
def test_sub_images_are_square_in_original_pixels(width, height, monkeypatch):
    seen = []
    cut = SubImages.call
    monkeypatch.setattr(SubImages, "call", lambda self, *args: seen.append(cut(self, *args)) or seen[-1])
    points = POINTS.copy()
    # A torso of 100 pixels of the original image, and joint 0 in the centre of the disc.
    one, other = COCO.torso
    points[one], points[other], points[0] = (0, 0), (60 / width, 80 / height), (0.1, -0.1)
    network = small_cascade(points, sigma=1.0)
    image = disc(width, height, (0.6 * width, 0.4 * height), 25)
    crop = np.asarray(Image.fromarray(image.astype(np.uint8)).resize((48, 48), Image.Resampling.BILINEAR), np.float32)
    network(crop[None], aspects=np.float32([width / height]))
    found = np.asarray(seen[-1])[0, 0, ..., 0] / 255
    # A side of one torso, so the disc covers pi / 16 of the square and is centred and round.
    places = (np.arange(16) + 0.5) / 16 - 0.5
    assert found.mean() == pytest.approx(np.pi / 16, rel=0.06)
    for axis in (0, 1):
        profile = found.sum(axis) / found.sum()
        assert profile @ places == pytest.approx(0, abs=0.02)
        # The second moment of a disc of radius r is r^2 / 4; the 48-pixel crop blurs it.
        pixel = 1 / 48 * (width, height)[axis] / 100
        assert profile @ places**2 == pytest.approx(1 / 64, abs=0.4 * pixel**2 + 0.001)


def test_the_aspect_of_images_that_are_not_stretched_need_not_be_given():
    network = cascade(constant_base(POINTS), (48, 24), 17, COCO.torso, sub_image=16, filters=(8, 16), hidden=(32,))
    for variable in network.trainable_variables:
        variable.assign(np.random.default_rng(2).normal(0, 0.1, variable.shape))
    image = picture(48, 24)[None]
    plain, given = (network(image, aspects=aspects)["keypoints"] for aspects in (None, np.float32([0.5])))
    np.testing.assert_array_equal(plain, given)
    assert np.abs(network(image, aspects=np.float32([1.0]))["keypoints"] - given).max() > 1e-3


def test_no_gradient_reaches_the_estimate():
    network = small_cascade(POINTS)
    for variable in network.trainable_variables:
        variable.assign(np.random.default_rng(2).normal(0, 0.1, variable.shape))
    estimate = tf.constant(POINTS[None])
    with tf.GradientTape() as tape:
        tape.watch(estimate)
        answer = network(picture(48, 48)[None], estimate=estimate)["keypoints"]
    assert tape.gradient(answer, estimate) is None


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


def dot_batches(count, seed, batch, region=(0, 0, 48, 48)):
    images, keypoints = dots(count, seed)
    rng = np.random.default_rng(seed)
    data = {
        "image": images,
        "keypoints": keypoints,
        "region": np.tile(np.float32(region), (count, 1)),
        "weight": np.ones(count, np.float32),
        "normals": rng.normal(0, 1, (count, 17, 2)).astype(np.float32),
    }
    return tf.data.Dataset.from_tensor_slices(data).batch(batch, drop_remainder=True)


def some_errors(seed=0):
    rng = np.random.default_rng(seed)
    factor = rng.uniform(-0.2, 0.2, (17, 2, 2))
    return cascade_inputs.Errors(rng.uniform(-0.1, 0.1, (17, 2)), factor @ factor.swapaxes(1, 2), POINTS)


@pytest.mark.parametrize("stretched", [False, True])
def test_displacements_have_the_measured_mean_and_covariance(stretched):
    batch = next(iter(dot_batches(4000, 1, 4000, region=(10, 20, 60, 150))))
    errors = some_errors()
    estimate = np.asarray(cascade_inputs.Displacements(errors, COCO.torso, stretched=stretched)(batch)["estimate"])
    truth = batch["keypoints"].numpy()
    # In torso diameters in pixels of the original image; in release 0.1, of the crop.
    sides = 1 if stretched else np.array([60, 150])
    diameter = np.linalg.norm((truth[:, COCO.torso[0], :2] - truth[:, COCO.torso[1], :2]) * sides, axis=1)
    for joint in range(8):
        moved = (estimate[:, joint] - truth[:, joint, :2]) * sides / diameter[:, None]
        np.testing.assert_allclose(moved.mean(0), errors.mean[joint], atol=0.02)
        np.testing.assert_allclose(np.cov(moved.T), errors.covariance[joint], atol=0.01)
    # The estimate of a joint without a label is near the mean prediction.
    np.testing.assert_allclose(np.median(estimate[:, 16], axis=0), POINTS[16], atol=0.15)


@pytest.mark.parametrize("stretched", [False, True])
def test_measured_errors_are_those_of_the_network(tmp_path, stretched):
    # Two data sets of a mixture, the smaller one with the larger share.
    data_sets = [(0.7, dot_batches(32, 2, 16, (5, 5, 40, 100))), (0.3, dot_batches(64, 3, 16, (0, 0, 90, 60)))]
    found = cascade_inputs.measure(constant_cascade(), data_sets, COCO.torso, stretched)
    errors, weights = [], []
    for share, batches in data_sets:
        truth = np.concatenate([b["keypoints"] for b in batches]).astype(np.float64)
        sides = 1 if stretched else next(iter(batches))["region"].numpy()[0, 2:]
        diameter = np.linalg.norm((truth[:, COCO.torso[0], :2] - truth[:, COCO.torso[1], :2]) * sides, axis=1)
        errors.append((POINTS - truth[..., :2]) * sides / diameter[:, None, None])
        weights.append(np.full(len(truth), share / len(truth)))
    errors, weights = np.concatenate(errors), np.concatenate(weights)
    for joint in range(8):
        np.testing.assert_allclose(found.mean[joint], weights @ errors[:, joint], atol=1e-4)
        expected = np.cov(errors[:, joint].T, bias=True, aweights=weights)
        np.testing.assert_allclose(found.covariance[joint], expected, atol=1e-4)
    cascade_inputs.save(found, str(tmp_path / "errors.json"))
    again = cascade_inputs.load(str(tmp_path / "errors.json"))
    np.testing.assert_array_equal(again.covariance, found.covariance)


def test_errors_cannot_be_measured_without_a_torso():
    batches = dot_batches(8, 2, 8).map(lambda b: b | {"keypoints": tf.zeros_like(b["keypoints"])})
    with pytest.raises(InputError, match="torso"):
        cascade_inputs.measure(constant_cascade(), [(1.0, batches)], COCO.torso)


def test_the_errors_are_measured_on_every_data_set_of_a_mixture(tiny_data):
    config = tiny.make_recipe(f"{tiny_data['train']},{tiny_data['val']}", data__weights=(1.0, 4.0))
    training_set = setup.training_set_of(config, COCO)

    def shares():
        return [(share, files.pattern) for share, files in setup._measured_sets(config, training_set)]

    assert shares() == [(0.2, tiny_data["train"]), (0.8, tiny_data["val"])]
    # Other records: with as many data sets the same shares, otherwise shares by number of records.
    config.data.errors = f"{tiny_data['val']},{tiny_data['train']}"
    assert shares() == [(0.2, tiny_data["val"]), (0.8, tiny_data["train"])]
    config.data.errors = tiny_data["val"]
    assert shares() == [(1.0, tiny_data["val"])]


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
    config = stage_recipe(tiny_data | {"val": ""}, base, steps=2)
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
    image = tf.io.encode_png(tf.cast(picture(48, 96), tf.uint8))
    answer = served(image_bytes=image[None], boxes=tf.constant([[0.0, 0.0, 96.0, 48.0]]))["keypoints"].numpy()
    crop = resample(tf.constant(picture(48, 96)[None].astype(np.uint8)), (48, 48)).numpy()
    aspects = tf.constant([2.0])
    normalised = network(crop.astype(np.float32), aspects=aspects)["keypoints"].numpy()
    np.testing.assert_allclose(answer[..., :2], (normalised + 0.5) * [96, 48], atol=0.05)
    # Crops alone do not say their aspect.
    crops_only = tf.saved_model.load(folder).signatures["serving_images"]
    answer = crops_only(images=tf.constant(crop, tf.float32), aspects=aspects)["keypoints"].numpy()
    np.testing.assert_allclose(answer[..., :2], (normalised + 0.5) * 48, atol=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tflite", "onnx"])
def test_a_cascade_is_converted_with_the_aspects_as_second_input(kind, cascade_run, tiny_data, tmp_path):
    if kind == "onnx":
        pytest.importorskip("tf2onnx")
    run, _ = cascade_run
    found = converted.export(run, str(tmp_path), kind, records_pattern=tiny_data["val"])
    assert found["largest_difference"] < 0.01 and found["pcp"] == pytest.approx(found["pcp_keras"], abs=1e-6)


def test_evaluation_gives_the_aspects_to_the_network(cascade_run):
    network = workdir.load_trained(cascade_run[0]).network
    images, regions = picture(48, 48)[None], np.float32([[3, 4, 80, 40]])
    found = decoding.predict(network, images, regions, COCO)[0].numpy()[..., :2]
    normalised = network(images, aspects=np.float32([2]))["keypoints"].numpy()
    np.testing.assert_allclose(found, (normalised + 0.5) * [80, 40] + [3, 4], atol=1e-3)


def test_a_cascade_of_release_0_1_is_loaded_as_it_was(cascade_run, tmp_path):
    run, config = cascade_run
    old = shutil.copytree(run, str(tmp_path / "old"))
    saved = config_lib.load(os.path.join(old, "config.json")).to_dict()
    del saved["model"]["sub_image_shape"]
    config_lib.save(config_lib.ConfigDict(saved), os.path.join(old, "config.json"))
    assert workdir.load_config(old).model.sub_image_shape == "stretched"
    assert workdir.load_config(run).model.sub_image_shape == "square"
    network = workdir.load_trained(old).network
    assert not network.needs_aspects and not network.stage.sub_images.normalised


@pytest.mark.slow
def test_a_cascade_goes_on_without_the_folder_of_the_stage_before(cascade_run):
    run, config = cascade_run
    longer = config_lib.ConfigDict(config.to_dict())
    longer.steps = 8
    logs = trainer.train(longer, run)
    assert logs["step"] == 8 and np.isfinite(logs["loss"])


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
        ({"model__sub_image_shape": "round"}, "sub_image_shape"),
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
