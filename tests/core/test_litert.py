"""TensorFlow Lite files run without TensorFlow: names, shapes, threads, damaged files, silence."""

import concurrent.futures

import numpy as np
import pytest
import tensorflow as tf

from kpose.core.errors import InputError
from kpose.core.litert import LiteModel
from tests import helpers


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """A file: images [N, 4, 4, 1] and factors [N] -> "sums" [N] and "scaled" [N, 16]."""
    module = tf.Module()

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 4, 4, 1], tf.float32, name="images"),
            tf.TensorSpec([None], tf.float32, name="factors"),
        ]
    )
    def serve(images, factors):
        flat = tf.reshape(images, [-1, 16])
        return {"sums": tf.reduce_sum(flat, -1), "scaled": flat * factors[:, None]}

    module.serve = serve
    folder = str(tmp_path_factory.mktemp("lite"))
    tf.saved_model.save(module, folder, signatures={"serving_default": serve})
    return tf.lite.TFLiteConverter.from_saved_model(folder).convert()


def inputs(count, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "images": rng.random((count, 4, 4, 1), np.float32),
        "factors": rng.random(count, np.float32),
    }


def test_outputs_have_their_names_and_any_batch_size_is_right(content, capfd):
    model = LiteModel(content)
    assert set(model.inputs) == {"images", "factors"} and set(model.outputs) == {"sums", "scaled"}
    for count in (1, 4, 2, 2, 0, 7):
        given = inputs(count, count)
        answer = model(**given)
        flat = given["images"].reshape(count, 16)
        np.testing.assert_allclose(answer["sums"], flat.sum(1), rtol=1e-5)
        np.testing.assert_allclose(answer["scaled"], flat * given["factors"][:, None], rtol=1e-6)
    out, err = capfd.readouterr()
    assert out == err == ""


def test_answers_stay_after_later_calls(content):
    model = LiteModel(content)
    first = model(**inputs(2, 1))["sums"]
    kept = first.copy()
    model(**inputs(2, 2))
    np.testing.assert_array_equal(first, kept)


def test_several_threads_get_their_own_answers(content):
    model = LiteModel(content)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda seed: model(**inputs(seed % 3 + 1, seed))["sums"], range(60)))
    for seed, sums in enumerate(found):
        np.testing.assert_allclose(sums, inputs(seed % 3 + 1, seed)["images"].sum((1, 2, 3)), rtol=1e-5)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"images": np.zeros((2, 5, 4, 1))}, r"images must be \[any, 4, 4, 1\], not \[2, 5, 4, 1\]"),
        ({"images": np.zeros((4, 4, 1))}, r"images must be \[any, 4, 4, 1\], not \[4, 4, 1\]"),
        ({"other": np.zeros(2)}, "takes .*images.*, not images, factors, other"),
    ],
)
def test_wrong_inputs_are_refused_and_the_model_still_works(content, change, message):
    model = LiteModel(content, name="a.tflite")
    with pytest.raises(InputError, match=message) as error:
        model(**inputs(2) | change)
    assert "a.tflite" in helpers.one_line(error)
    np.testing.assert_allclose(model(**inputs(3))["sums"], inputs(3)["images"].sum((1, 2, 3)), rtol=1e-5)


@pytest.mark.parametrize("damage", [b"", b"no model", b"x" * 5000])
def test_a_file_of_another_kind_is_refused(damage):
    with pytest.raises(InputError, match="a.tflite: not a TensorFlow Lite file, or damaged") as error:
        LiteModel(damage, name="a.tflite")
    helpers.one_line(error)
