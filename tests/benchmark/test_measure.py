"""The benchmarks on small data: the last line is one JSON object with rates."""

import glob
import json
import mmap
import os

import pytest
import tensorflow as tf

from kpose.benchmark import saved_model_worker, workers
from tests.core.test_cli import run


@pytest.mark.parametrize("name", ["write", *(pytest.param(n, marks=pytest.mark.slow) for n in ("input", "serve"))])
def test_a_benchmark_ends_with_one_json_object(name, monkeypatch, capfd):
    from kpose.benchmark import data, serving
    from tests import tiny

    monkeypatch.setattr(serving.config_lib, "load_recipe", lambda name: tiny.make_recipe("unused"))
    monkeypatch.setattr(serving, "BATCH_SIZE", 2)
    monkeypatch.setattr(serving, "REQUESTS", 2)
    monkeypatch.setattr(data, "NUM_IMAGES", 40)
    monkeypatch.setattr(data, "BATCHES", 1)
    monkeypatch.setattr(data, "WARM_UP", 0)
    status, out, _ = run(monkeypatch, capfd, "kpose.benchmark", name, "--runs=1")
    measured = json.loads(out.strip().splitlines()[-1])
    assert status == 0 and measured["benchmark"] == name and measured["cpu"]
    rates = {key: value for key, value in measured.items() if "second" in key or key.startswith("ratio")}
    # null if the package of the baseline is not installed.
    assert len(rates) >= 2 and all(value is None or value > 0 for value in rates.values())
    if name == "serve":
        for network in serving.NETWORKS:
            assert measured[f"{network}_whole_p95_ms"] >= measured[f"{network}_whole_p50_ms"] > 0
            for way in ("alone", "frozen", "lite"):
                assert measured[f"{network}_{way}_persons_per_second_at_2"] > 0
            assert (measured[f"{network}_latency_ratio_to_onnx"] is None) == (f"{network}_onnx_p50_ms" not in measured)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("train", "64,32", "give one size for train"),
        ("write", "64", "give one size for train, several only for gpu"),
        ("train", "0", "give positive integers"),
        ("gpu", "512,many", "give positive integers"),
    ],
)
def test_a_batch_size_that_a_benchmark_cannot_use_is_refused(name, value, message, monkeypatch, capfd):
    status, _, err = run(monkeypatch, capfd, "kpose.benchmark", name, f"--batch_sizes={value}")
    assert status != 0 and f"--batch_sizes={value}" in err and message in err and "Traceback" not in err


def test_train_measures_steps_of_the_given_size(monkeypatch, capfd):
    from kpose.benchmark import training
    from tests import tiny

    def tiny_recipe(name):
        recipe = tiny.make_recipe("unused")
        recipe.schedule.name, recipe.skeleton = "constant", "coco"
        return recipe

    monkeypatch.setattr(training.config_lib, "load_recipe", tiny_recipe)
    monkeypatch.setattr(training, "NETWORKS", ("resnet18",))
    monkeypatch.setattr(training, "MODES", {"plain": "off"})
    monkeypatch.setattr(training, "MATRIX", 64)
    monkeypatch.setattr(training, "STEPS", 1)
    # PyTorch has its own process, which takes long to start.
    monkeypatch.setattr(training, "skipped", lambda *packages: True)
    monkeypatch.setattr(training.devices, "choose_precision", lambda precision: "float32")
    status, out, err = run(monkeypatch, capfd, "kpose.benchmark", "train", "--runs=1", "--batch_sizes=3")
    assert status == 0, err
    measured = json.loads(out.strip().splitlines()[-1])
    assert measured["batch_size"] == 3 and measured["resnet18_float32_plain_images_per_second"] > 0
    assert measured["resnet18_float32_ratio_to_torch"] is None


def test_the_worker_with_frozen_weights_times_a_saved_model(tmp_path):
    module = tf.Module()
    module.serve = tf.function(
        lambda images: {"scores": tf.reduce_mean(images, axis=(1, 2, 3))},
        input_signature=[tf.TensorSpec([None, 8, 8, 3], name="images")],
    )
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_images": module.serve})
    request = {"path": str(tmp_path), "batch_size": 2, "size": [8, 8]}
    with workers.Worker(
        "kpose.benchmark.saved_model_worker", tmp_path / "log", environment=saved_model_worker.FROZEN, paused=True
    ) as worker:
        assert worker.ask(request, 60)["seconds"] > 0


def test_tensorflow_knows_the_setting_for_frozen_weights():
    """It is not documented: this fails if TensorFlow renames it, as docs/serving.md would then be wrong."""
    found = set()
    for library in glob.glob(os.path.join(tf.sysconfig.get_lib(), "libtensorflow_*.so.2")):
        with open(library, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            found |= {name for name in saved_model_worker.FROZEN if content.find(name.encode()) >= 0}
    assert found == set(saved_model_worker.FROZEN)
