"""Shipped models: loaded by name, checked, and equal to the trained network."""

import hashlib
import json
import os
import shutil

import numpy as np
import pytest

import kpose
from kpose.core import skeletons
from kpose.core.errors import InputError
from kpose.evaluate import on_records
from kpose.export import converted, saved_model, shipped_model, tflite
from kpose.models import decoding
from kpose.predict import networks
from kpose.runs import shipped as shipped_lib
from kpose.runs import shipped_files, workdir
from kpose.train import trainer
from tests import helpers, tiny
from tests.core.test_cli import run
from tests.models.test_movenet import graph_model


def test_kpose_load_is_the_shipped_model(tiny_data):
    model = kpose.load()
    photo = os.path.join(tiny_data["folder"], "images", "val", "000000000001.jpg")
    people = model.predict(photo, [[10, 10, 80, 90], [0, 0, 40, 40]])
    assert model.skeleton is skeletons.COCO and people.keypoints.shape == (2, 17, 3)
    assert 0 < people.scores.min() and people.scores.max() < 1


def test_the_shipped_models_are_small_and_load_by_short_names():
    for size, largest in (("fast", 5e6), ("fast-research", 5e6), ("best", 13e6)):
        name = shipped_files.SIZES[size]
        assert name in shipped_files.names()
        files = [os.path.join(shipped_files.FOLDER, f"{name}.{suffix}") for suffix in ("npz", "tflite")]
        assert max(map(os.path.getsize, files)) < largest
        assert networks.open_network(size).name == name
        assert shipped_lib.read_card(size)[0]["name"] == name


def test_the_default_model_is_trained_on_coco_alone_and_all_short_names_are_calibrated():
    """Labels of LSP and MPII are for research; COCO's are CC BY 4.0."""
    card = shipped_files.read_card()
    assert card["recipe"]["data"]["train"] == "devtrain-*,small-*" and not card["recipe"]["teacher"]["weights"]
    assert not any(name in card["trained_on"] for name in ("LSP", "Leeds", "MPII"))
    for size in shipped_files.SIZES:
        assert shipped_files.read_card(size)["calibration"]["facts"]["num_persons"] == 5610


def test_notice_names_every_file_of_weights():
    with open(os.path.join(os.path.dirname(__file__), "..", "..", "NOTICE")) as file:
        notice = file.read()
    weights = [
        os.path.relpath(os.path.join(folder, name), shipped_files.FOLDER)
        for folder, _, names in os.walk(shipped_files.FOLDER)
        for name in names
        if name.endswith((".npz", ".tflite"))
    ]
    assert len(weights) >= 5
    for name in weights:
        assert name in notice, "NOTICE names the origin and the licence of all weights"


def test_the_shipped_model_is_refused_when_damaged(tmp_path, monkeypatch):
    shutil.copytree(shipped_files.FOLDER, tmp_path / "models")
    monkeypatch.setattr(shipped_files, "FOLDER", str(tmp_path / "models"))
    for suffix, load in (("npz", shipped_lib.load), ("tflite", networks.open_network)):
        path = tmp_path / "models" / f"{shipped_files.DEFAULT}.{suffix}"
        path.write_bytes(path.read_bytes()[:-1000])
        with pytest.raises(InputError, match="damaged .*install kpose again"):
            load()
        path.unlink()
        with pytest.raises(InputError, match="missing: install kpose again"):
            load()
    with pytest.raises(InputError, match=r"other: no such model: .* a shipped model .movenet"):
        networks.open_network("other")


@pytest.fixture(scope="module")
def shipped(tiny_run, tmp_path_factory):
    """Folder of the shipped model "tiny_v1"."""
    folder = tmp_path_factory.mktemp("shipped")
    shipped_model.ship(tiny_run, "tiny_v1", {"note": "of a test"}, str(folder))
    return folder


def test_a_shipped_model_predicts_as_its_run(shipped, tiny_run, tiny_data, monkeypatch):
    assert sorted(os.listdir(shipped)) == ["tiny_v1.json", "tiny_v1.npz", "tiny_v1.tflite"]
    monkeypatch.setattr(shipped_files, "FOLDER", str(shipped))
    trained = workdir.load_trained(tiny_run)
    card = json.loads((shipped / "tiny_v1.json").read_text())
    assert card["note"] == "of a test" and card["recipe"]["name"] == "tiny"
    _, skeleton, network, _ = shipped_lib.load("tiny_v1")
    assert skeleton is skeletons.COCO and len(card["skeleton"]["joints"]) == 17
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    # The weights are stored in float16.
    np.testing.assert_allclose(network(images)["keypoints"], trained.network(images)["keypoints"], atol=5e-3)
    photo, box = os.path.join(tiny_data["folder"], "images", "val", "000000000001.jpg"), [[10, 10, 80, 90]]
    found = kpose.load("tiny_v1").predict(photo, box)
    np.testing.assert_allclose(found.keypoints, kpose.load(tiny_run).predict(photo, box).keypoints, atol=0.05)


def test_the_command_averages_a_run_with_a_shipped_model(shipped, tiny_run, tmp_path, monkeypatch, capfd):
    folder, facts = tmp_path / "models", tmp_path / "facts.json"
    shutil.copytree(shipped, folder)
    monkeypatch.setattr(shipped_files, "FOLDER", str(folder))
    weights = dict(np.load(folder / "tiny_v1.npz"))
    # A shipped model whose weights are all zero.
    np.savez(folder / "tiny_v1.npz", **{name: np.zeros_like(array) for name, array in weights.items()})
    card = json.loads((folder / "tiny_v1.json").read_text())
    card["sha256"]["npz"] = hashlib.sha256((folder / "tiny_v1.npz").read_bytes()).hexdigest()
    (folder / "tiny_v1.json").write_text(json.dumps(card))
    facts.write_text('{"trained_on": "synthetic images"}')
    arguments = (f"--workdir={tiny_run}", "--name=mean", f"--output_dir={folder}", f"--facts={facts}", "--share=0.25")
    status, _, err = run(monkeypatch, capfd, "kpose.export.shipped_model", *arguments, "--average_with=tiny_v1")
    assert status == 0, err
    for name, array in np.load(folder / "mean.npz").items():
        np.testing.assert_allclose(array, weights[name] / 4, rtol=2e-3, atol=1e-6)
    card = json.loads((folder / "mean.json").read_text())
    assert (card["averaged_with"], card["share_of_run"]) == ("tiny_v1", 0.25)
    assert card["trained_on"] == "synthetic images" and networks.open_network("mean").name == "mean"
    assert card.keys() - {"trained_on"} <= shipped_model._ENTRIES
    status, _, err = run(monkeypatch, capfd, "kpose.export.shipped_model", *arguments, "--average_with=none")
    assert status != 0
    assert "--average_with=none: no run and no file of weights; the shipped models are mean, tiny_v1" in err


def test_the_mean_of_two_runs(tiny_run, tiny_data, tmp_path, monkeypatch):
    monkeypatch.setattr(tflite, "convert", lambda *arguments: b"")
    other = str(tmp_path / "other")
    trainer.train(tiny.make_recipe(tiny_data["train"], seed=1, steps=1), other)
    shipped_model.ship(tiny_run, "mean", output_dir=str(tmp_path), average_with=f"{other}/", share=0.75)
    card = json.loads((tmp_path / "mean.json").read_text())
    assert (card["averaged_with"], card["share_of_run"]) == ("other", 0.75)
    first, second = (workdir.load_trained(folder).network.get_weights() for folder in (tiny_run, other))
    for array, one, two in zip(np.load(tmp_path / "mean.npz").values(), first, second, strict=True):
        np.testing.assert_allclose(array, 0.75 * one + 0.25 * two, rtol=2e-3, atol=1e-4)


def test_the_mean_of_a_model_and_published_weights(tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr(tflite, "convert", lambda *arguments: b"")
    other = workdir.load_trained(shipped_files.DEFAULT).network
    arrays = other.get_weights()
    other.set_weights([3 * array for array in arrays])
    path = graph_model(other, tmp_path)
    shipped_model.ship(shipped_files.DEFAULT, "mean", output_dir=str(tmp_path), average_with=path, share=0.75)
    assert json.loads((tmp_path / "mean.json").read_text())["averaged_with"] == "model.json"
    means = list(np.load(tmp_path / "mean.npz").values())
    kernels = [k for k, array in enumerate(arrays) if array.ndim == 4]
    assert len(kernels) > 60
    for k in kernels:
        np.testing.assert_allclose(means[k], 1.5 * arrays[k], rtol=3e-3, atol=1e-5)
    with pytest.raises(InputError, match="model.json: a file is possible only for MoveNet") as error:
        shipped_model.ship(tiny_run, "other", output_dir=str(tmp_path), average_with=path)
    helpers.one_line(error)


@pytest.mark.parametrize(
    "name, facts, message",
    [
        ("folder/tiny", "{}", "without a folder"),
        ("tiny", '{"sha256": 1}', "has an entry 'sha256' already"),
        ("tiny", "[]", "holds no JSON object"),
    ],
)
def test_bad_names_and_facts_are_refused(name, facts, message, tiny_run, tmp_path, monkeypatch, capfd):
    (tmp_path / "facts.json").write_text(facts)
    monkeypatch.setattr(shipped_model, "_contents", lambda _: {"npz": b"", "tflite": b""})
    arguments = (
        f"--workdir={tiny_run}",
        f"--name={name}",
        f"--facts={tmp_path}/facts.json",
        f"--output_dir={tmp_path}",
    )
    status, _, err = run(monkeypatch, capfd, "kpose.export.shipped_model", *arguments)
    assert status == 1 and message in err and len(err.strip().splitlines()) == 1
    assert os.listdir(tmp_path) == ["facts.json"]


@pytest.mark.slow
def test_a_shipped_model_is_evaluated_and_exported_by_its_name(tiny_run, tiny_data, tmp_path, monkeypatch):
    folder = tmp_path / "models"
    folder.mkdir()
    shipped_model.ship(tiny_run, "tiny_v1", output_dir=str(folder))
    monkeypatch.setattr(shipped_files, "FOLDER", str(folder))
    found, expected = (
        on_records.evaluate(source, tiny_data["val"], output_dir=str(tmp_path / "evaluation"))
        for source in ("tiny_v1", tiny_run)
    )
    assert found["checkpoint"] == "tiny_v1" and found["recipe"] == "tiny"
    for name in ("pcp", "mean_pose_pcp"):
        assert found[name]["mean"]["average"] == pytest.approx(expected[name]["mean"]["average"], abs=0.03)
    with pytest.raises(InputError, match="--output_dir is missing") as error:
        on_records.evaluate("tiny_v1", tiny_data["val"])
    helpers.one_line(error)
    # The default folder must not be a folder in the working directory with the model's name.
    for export in (saved_model.export, lambda name: converted.export(name, None, "tflite")):
        with pytest.raises(InputError, match="--output_dir is missing") as error:
            export("tiny_v1")
        helpers.one_line(error)
    version = saved_model.export("tiny_v1", str(tmp_path / "serving"), lite=False)
    photo = os.path.join(tiny_data["folder"], "images", "val", "000000000001.jpg")
    box = [[10, 10, 80, 90]]
    served, shipped = (kpose.load(source).predict(photo, box).keypoints for source in (version, "tiny_v1"))
    # The shipped model runs in TensorFlow Lite, with float16 weights.
    np.testing.assert_allclose(served, shipped, atol=0.05)


def test_the_shipped_model_predicts_as_its_keras_network_does():
    trained = workdir.load_trained(shipped_files.DEFAULT)
    model = networks.open_network()
    pixels = np.random.default_rng(0).integers(0, 256, (192, 192, 3), np.uint8)
    region = np.float32([[0, 0, 192, 192]])
    keypoints, scores = decoding.predict(
        trained.network,
        pixels[None],
        region,
        model.skeleton,
        offset=decoding.label_offset(trained.config),
        calibration=trained.calibration,
    )
    found, found_scores = model.predict(pixels, region)
    np.testing.assert_allclose(found[..., :2], keypoints[..., :2], atol=0.1)
    np.testing.assert_allclose(found_scores, scores, atol=1e-3)
    assert model.predict(pixels, region[:0])[0].shape == (0, 17, 3)
