"""Preprocessing of backbones: it is saved, so that a network is the same function after loading."""

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest

from kpose import config as config_lib
from kpose.core import skeletons
from kpose.core.errors import InputError
from kpose.export import shipped_model, tflite
from kpose.models import backbones
from kpose.models.weights import sources
from kpose.runs import shipped_files, workdir
from kpose.train import trainer
from tests import helpers, tiny
from tests.models.pytorch_files import add_torch_modules, resnet_state, tensors, write_zip

SIDE = 64
WIDTHS = (2, 3, 4, 5)


@pytest.fixture(scope="module", autouse=True)
def small_resnet():
    """A small network with bottlenecks in place of resnet18, so that a run takes seconds."""
    changes = {"stackwise_filters": list(WIDTHS), "stackwise_blocks": [1, 1, 1, 1], "block_type": "block"}
    spec = backbones.BACKBONES["resnet18"]
    with pytest.MonkeyPatch.context() as monkeypatch:
        small = dataclasses.replace(spec, options=spec.options | changes)
        monkeypatch.setitem(backbones.BACKBONES, "resnet18", small)
        yield


@pytest.fixture(scope="module")
def pytorch_file(tmp_path_factory):
    """A .pth file of the small network, with convolutions that keep the scale of their input."""
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    state = resnet_state((1, 1, 1, 1), bottleneck=True, widths=WIDTHS)
    for name, array in state.items():
        if array.ndim == 4:
            state[name] = array / np.sqrt(np.prod(array.shape[1:]), dtype=np.float32)
    with pytest.MonkeyPatch.context() as monkeypatch:
        add_torch_modules(monkeypatch)
        write_zip(path, *tensors(state))
    return str(path)


def recipe(data, weights, **fields):
    given = {"model__name": "backbone", "model__input_size": (SIDE, SIDE), "model__weights": weights, "steps": 1}
    return tiny.make_recipe(data["train"], **given | fields)


@pytest.fixture(scope="module")
def run(tiny_data, pytorch_file, tmp_path_factory):
    """Folder of a run that started from the .pth file, with a checkpoint of these weights."""
    folder = str(tmp_path_factory.mktemp("run") / "run")
    config = recipe(tiny_data, pytorch_file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "_fit", lambda run, *_: run.saver.save(1, 1))
        trainer.train(config, folder)
    assert config.model.preprocessing == "auto"
    return folder


def keypoints(network):
    images = np.random.default_rng(0).integers(0, 256, (4, SIDE, SIDE, 3)).astype(np.float32)
    return np.asarray(network(images, training=False)["keypoints"])


def initial(config):
    """The keypoints of a recipe's network before the first step."""
    return keypoints(workdir.build_network(config, skeletons.COCO, initial_weights=True))


def make_old(path, key=None, **fields):
    """Removes the field from a saved recipe, as older versions wrote it, and changes others of `model`."""
    saved = json.loads(path.read_text())
    model = (saved[key] if key else saved)["model"]
    del model["preprocessing"]
    model.update(fields)
    path.write_text(json.dumps(saved))


def test_a_run_saves_the_choice(run):
    saved = json.loads(open(os.path.join(run, "config.json")).read())
    assert saved["model"]["preprocessing"] == "torchvision"


def test_fine_tuning_starts_as_the_function_of_its_source_run(run, tiny_data):
    source = keypoints(workdir.load_trained(run).network)
    assert np.abs(initial(recipe(tiny_data, run)) - source).max() < 1e-5
    # The test can see a difference: this is the function with the preprocessing of Keras weights.
    config = workdir.load_config(run)
    network = workdir.load_trained(run).network
    config.model.preprocessing = "keras"
    other = workdir.build_network(config, skeletons.COCO)
    other.set_weights(network.get_weights())
    assert np.abs(keypoints(other) - source).max() > 1e-3


def test_fine_tuning_starts_as_the_function_of_a_shipped_model(run, tiny_data, tmp_path, monkeypatch):
    monkeypatch.setattr(tflite, "convert", lambda *arguments: b"")
    monkeypatch.setattr(shipped_files, "FOLDER", str(tmp_path))
    shipped_model.ship(run, "resnet_v1", output_dir=str(tmp_path))
    source = keypoints(workdir.load_trained("resnet_v1").network)
    # The weights are stored in float16.
    np.testing.assert_allclose(source, keypoints(workdir.load_trained(run).network), atol=5e-3)
    assert np.abs(initial(recipe(tiny_data, "resnet_v1")) - source).max() < 1e-5
    make_old(tmp_path / "resnet_v1.json", "recipe")
    np.testing.assert_array_equal(keypoints(workdir.load_trained("resnet_v1").network), source)


@pytest.mark.slow
def test_a_run_of_an_older_version_loads_and_continues(run, tiny_data, pytorch_file, tmp_path):
    old = str(tmp_path / "old")
    shutil.copytree(run, old)
    make_old(tmp_path / "old" / "config.json")
    source = keypoints(workdir.load_trained(run).network)
    np.testing.assert_array_equal(keypoints(workdir.load_trained(old).network), source)
    assert np.abs(initial(recipe(tiny_data, old)) - source).max() < 1e-5
    assert trainer.train(recipe(tiny_data, pytorch_file, steps=2), old)["step"] == 2


def test_a_cascade_starts_as_the_function_of_its_base(run, tiny_data, tmp_path):
    source = keypoints(workdir.load_trained(run).network)
    fields = {"model__name": "cascade", "model__weights": "", "model__hidden": (8,), "model__sub_image": 16}
    config = recipe(tiny_data, "", **fields, model__base=run)
    workdir.copy_base(config, str(tmp_path))
    saved = json.loads((tmp_path / "base" / "config.json").read_text())
    assert saved["model"]["preprocessing"] == "torchvision"
    # An untrained stage does not change the keypoints of its base.
    network = workdir.build_network(config, skeletons.COCO, str(tmp_path), initial_weights=True)
    assert np.abs(keypoints(network) - source).max() < 1e-5


@pytest.mark.slow
def test_an_older_run_that_started_from_a_run_keeps_its_own_function(run, tiny_data, tmp_path):
    """It was trained with the preprocessing of Keras, because its weights were a folder."""
    old = tmp_path / "old"
    trainer.train(recipe(tiny_data, ""), str(old))
    make_old(old / "config.json", weights=run)
    assert workdir.load_config(str(old)).model.preprocessing == "keras"
    assert trainer.train(recipe(tiny_data, run, steps=2), str(old))["step"] == 2
    assert workdir.load_config(str(old)).model.preprocessing == "keras"


@pytest.mark.slow
def test_the_source_run_is_not_needed_to_continue(run, tiny_data, tmp_path):
    source, folder = str(tmp_path / "source"), str(tmp_path / "run")
    shutil.copytree(run, source)
    trainer.train(recipe(tiny_data, source), folder)
    shutil.rmtree(source)
    trainer.train(recipe(tiny_data, source, steps=2), folder)
    assert workdir.load_config(folder).model.preprocessing == "torchvision"


def test_an_explicit_choice_other_than_that_of_the_source_run_is_refused(run, tiny_data, tmp_path):
    config = recipe(tiny_data, run, model__preprocessing="keras")
    with pytest.raises(InputError, match="preprocessing is 'keras', but .* was trained with 'torchvision'") as error:
        trainer.train(config, str(tmp_path / "new"))
    helpers.one_line(error)
    assert not (tmp_path / "new").exists()
    initial(recipe(tiny_data, run, model__preprocessing="torchvision"))


@pytest.mark.parametrize(
    "name, weights, choice",
    [
        ("backbone", "", "keras"),
        ("backbone", "resnet50_imagenet", "keras"),
        ("backbone", "w.weights.h5", "keras"),
        ("backbone", "w.pth", "torchvision"),
        ("backbone", "w.pt", "torchvision"),
        ("backbone", "package:some-package", "torchvision"),
        ("backbone", shipped_files.DEFAULT, "keras"),
        ("movenet", shipped_files.DEFAULT, "keras"),
        ("deeppose", "", "keras"),
    ],
)
def test_auto_follows_from_the_initial_weights(name, weights, choice):
    config = config_lib.default()
    config.model.name, config.model.weights = name, weights
    assert workdir.resolve_preprocessing(config).model.preprocessing == choice
    assert config.model.preprocessing == "auto"
    for explicit in ("keras", "torchvision"):
        config.model.preprocessing = explicit
        assert workdir.resolve_preprocessing(config).model.preprocessing == explicit


def test_every_recipe_that_kpose_ships_keeps_the_function_that_its_weights_name_gave():
    for name in config_lib.shipped():
        config = config_lib.load_recipe(name)
        resolved = workdir.resolve_preprocessing(config).model.preprocessing
        assert resolved == ("keras" if config.model.name != "backbone" else sources.preprocessing(config.model.weights))
