"""Invalid requests to an exported model: each gets an answer or one error that names the item."""

import os
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf

from kpose.core.errors import InputError
from kpose.export import graph
from kpose.predict import networks
from kpose.runs import workdir

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
JPEG = tf.io.encode_jpeg(PIXELS).numpy()
PNG = tf.io.encode_png(PIXELS).numpy()
BOX = [5.0, 4.0, 30.0, 40.0]


@pytest.fixture(scope="module")
def model(exported):
    return exported


def _ask(model, image_bytes, boxes, signature="serving_default"):
    answer = model.signatures[signature](
        image_bytes=tf.constant(image_bytes, tf.string), boxes=tf.constant(boxes, tf.float32, (len(boxes), 4))
    )
    return answer["keypoints"].numpy(), answer["scores"].numpy()


def _png_of(width, height):
    """A PNG whose header declares a size, with data for a few pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    parts = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _jpeg_of(width, height):
    """A JPEG whose frame header declares a size."""
    place = JPEG.index(b"\xff\xc0") + 5
    return JPEG[:place] + struct.pack(">HH", height, width) + JPEG[place + 4 :]


@pytest.mark.parametrize(
    "image_bytes, message",
    [
        (b"", "is empty"),
        (b"hello, this is a text", "neither JPEG nor PNG"),
        (b"GIF89a" + b"\0" * 50, "neither JPEG nor PNG"),
        (tf.io.encode_jpeg(PIXELS).numpy()[:200], "is cut short"),
        (PNG[: len(PNG) // 2], "is cut short"),
        (JPEG[:3], "is cut short"),
        (_png_of(60_000, 60_000), "more pixels than are served"),
        (_png_of(2**31 - 1, 2**31 - 1), "more pixels than are served"),
        (_jpeg_of(60_000, 60_000), "more pixels than are served"),
        (_png_of(0, 10), "has no pixels"),
        # Few pixels, but cropping makes an intermediate image as wide as the image.
        (_png_of(1_000_000, 1), "has a side longer than is served:\\] \\[1000000"),
        (_png_of(1, 1_000_000), "has a side longer than is served:\\] \\[1000000"),
        (_jpeg_of(1, 65_000), "has a side longer than is served:\\] \\[65000"),
        (b"\x89PNG\r\n\x1a\nIEND", "has a damaged header"),
        (PNG.replace(b"IHDR", b"IHDX"), "has a damaged header"),
        (PNG[:16] + b"IEND", "has no pixels"),
    ],
)
def test_bytes_that_are_no_image_are_an_error_with_their_number(model, image_bytes, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=rf"image_bytes item\] \[2\] \[.*{message}"):
        _ask(model, [JPEG, PNG, image_bytes, JPEG], [BOX] * 4)
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        _ask(model, [image_bytes], [BOX] * 3, "serving_people")


@pytest.mark.parametrize(
    "box, message",
    [
        ([0, 0, float("nan"), 5], "NaN or an infinity"),
        ([0, float("inf"), 4, 5], "NaN or an infinity"),
        ([0, 0, 0, 5], "no width or no height"),
        ([0, 0, 5, -5], "no width or no height"),
        ([-1e30, 0, 5, 5], "beyond 1000000"),
    ],
)
@pytest.mark.parametrize("signature, images", [("serving_default", [JPEG] * 3), ("serving_people", [JPEG])])
def test_invalid_boxes_are_an_error_with_their_number(model, box, message, signature, images):
    with pytest.raises(tf.errors.InvalidArgumentError, match=rf"boxes item\] \[1\] \[.*{message}"):
        _ask(model, images, [BOX, box, BOX], signature)


def test_pixels_with_a_side_that_is_too_long_are_refused(model):
    for shape in ((1, 1_000_000, 3), (1_000_000, 1, 3)):
        with pytest.raises(tf.errors.InvalidArgumentError, match="has a side longer than is served"):
            model.signatures["serving_pixels"](image=tf.zeros(shape, tf.uint8), boxes=tf.constant([BOX]))


def test_different_numbers_of_boxes_and_images_are_refused(model):
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"differ in number:\] \[1\] \[2\]"):
        _ask(model, [JPEG], [BOX] * 2)


def test_a_box_outside_its_image_scores_0_and_does_not_change_the_others(model):
    alone = _ask(model, [JPEG], [BOX])
    keypoints, scores = _ask(model, [JPEG, JPEG, JPEG], [[-900, 0, 50, 50], BOX, [64, 0, 9, 9]])
    np.testing.assert_allclose(keypoints[1], alone[0][0], atol=1e-3)
    assert scores[1] == pytest.approx(alone[1][0], abs=1e-6) and scores[1] > 0
    assert scores[0] == scores[2] == 0 and not keypoints[[0, 2], :, 2].any()
    assert np.isfinite(keypoints).all()


def test_a_jpeg_with_damaged_data_is_decoded_as_far_as_possible(model):
    damaged = bytearray(JPEG)
    damaged[-40:-20] = b"\x55" * 20
    keypoints, scores = _ask(model, [JPEG, bytes(damaged)], [BOX] * 2)
    assert np.isfinite(keypoints).all()
    np.testing.assert_allclose(keypoints[0], _ask(model, [JPEG], [BOX])[0][0], atol=1e-3)


def test_one_image_with_many_boxes_equals_many_requests_for_it(model):
    """With more boxes than one batch of the network, and without boxes."""
    rng = np.random.default_rng(1)
    boxes = np.float32(rng.uniform([-5, -5, 3, 3], [40, 40, 40, 40], (graph.CHUNK + 6, 4)))
    many = _ask(model, [JPEG] * len(boxes), boxes)
    once = _ask(model, [JPEG], boxes, "serving_people")
    for one, other in zip(many, once, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-3)
    keypoints, scores = _ask(model, [JPEG], [], "serving_people")
    assert keypoints.shape == (0, 17, 3) and scores.shape == (0,)
    assert _ask(model, [], [])[0].shape == (0, 17, 3)


def test_keypoints_of_precomputed_crops_are_in_pixels_of_the_crop(model):
    crops = np.random.default_rng(0).uniform(0, 255, (3, 32, 32, 3)).astype(np.float32)
    answer = model.signatures["serving_images"](images=tf.constant(crops))
    assert answer["keypoints"].shape == (3, 17, 3) and answer["scores"].shape == (3,)
    png = [tf.io.encode_png(np.uint8(np.round(crop))).numpy() for crop in crops]
    keypoints, _ = _ask(model, png, [[0.0, 0.0, 32.0, 32.0]] * 3)
    np.testing.assert_allclose(answer["keypoints"].numpy()[..., :2], keypoints[..., :2], atol=0.1)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_crops_that_are_not_finite_are_an_error_with_their_number(model, bad):
    crops = np.zeros((3, 32, 32, 3), np.float32)
    crops[1, 5, 5, 0] = bad
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"images item\] \[1\] \[holds a NaN or an infinity"):
        model.signatures["serving_images"](images=tf.constant(crops))


def test_a_network_of_nan_weights_gives_an_error_and_no_answer(tiny_run):
    trained = workdir.load_trained(tiny_run)
    server = graph.KeypointServer.from_config(trained.network, trained.config, trained.skeleton)
    kernel = trained.network.trainable_variables[0]
    kernel.assign(np.full(kernel.shape, np.nan))
    message = r"item\] \[0\] \[gets no finite keypoints from this model"
    for ask in (
        lambda: server.serve([JPEG], [BOX]),
        lambda: server.serve_people([JPEG], [BOX, BOX]),
        lambda: server.serve_pixels(PIXELS, [BOX]),
        lambda: server.signatures["serving_images"](tf.zeros([1, 32, 32, 3])),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            ask()
    network = networks.GraphNetwork(server.serve_pixels, trained.skeleton, "run", server)
    with pytest.raises(InputError, match="gets no finite keypoints from this model"):
        network.predict(PIXELS, np.float32([BOX]))


def test_ten_thousand_boxes_take_no_more_memory_than_a_few(model):
    import resource

    _ask(model, [JPEG], [BOX] * graph.CHUNK, "serving_people")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    keypoints, _ = _ask(model, [JPEG], [BOX] * 10_000, "serving_people")
    assert keypoints.shape == (10_000, 17, 3)
    # 10,000 crops would take 120 MB in float32, their activations a gigabyte.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024


def _mutated(rng):
    """Returns (file, box), perhaps damaged: bytes changed, removed or repeated, numbers replaced."""
    data = bytearray([JPEG, PNG][rng.integers(2)])
    for _ in range(rng.integers(0, 4)):
        start, length = rng.integers(len(data)), int(rng.integers(1, 30))
        kind = rng.integers(5)
        if kind == 0:
            data[start : start + length] = rng.bytes(min(length, len(data) - start))
        elif kind == 1:
            del data[start : start + length]
        elif kind == 2:
            data[start:start] = data[start : start + length]
        elif kind == 3:
            del data[start:]
        else:
            data[start] ^= 1 << rng.integers(8)
        if not data:
            break
    box = rng.uniform([-100, -100, 0.5, 0.5], [100, 100, 200, 200])
    if rng.random() < 0.2:
        box[rng.integers(4)] = rng.choice([np.nan, np.inf, -np.inf, 0.0, -1.0, 1e9, -1e30, 1e-30, 3e38])
    return bytes(data), np.float32(box)


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_a_damaged_item_gets_an_answer_or_an_error_and_does_not_change_the_others(model, count):
    rng = np.random.default_rng(int.from_bytes(os.urandom(4), "little"))
    expected = _ask(model, [JPEG], [BOX])[0]
    answered = 0
    for index in range(count):
        data, box = _mutated(rng)
        # The items before and after it are valid.
        try:
            keypoints, scores = _ask(model, [JPEG, data, JPEG], [BOX, box, BOX])
        except tf.errors.InvalidArgumentError as error:
            assert "item" not in str(error) or " item] [1] [" in str(error), (index, data, box)
            continue
        assert np.isfinite(keypoints).all() and np.isfinite(scores).all(), (index, data, box)
        np.testing.assert_allclose(keypoints[[0, 2]], expected[[0, 0]], atol=1e-3)
        answered += 1
    print(f"{count} requests: {answered} answered, {count - answered} refused")
    assert 0.1 < answered / count < 0.95
    np.testing.assert_array_equal(_ask(model, [JPEG], [BOX])[0], expected)
