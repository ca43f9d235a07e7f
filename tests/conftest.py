"""Options, devices and fixtures of all tests."""

import contextlib
import functools
import os
import shutil

import pytest

from kpose.core import startup
from tests import matrix  # noqa: F401  (sets XLA's flags before TensorFlow is imported)

startup.keep_freed_memory()
startup.import_tensorflow()

import tensorflow as tf  # noqa: E402  (after the import without messages)

# Tests of several replicas need several devices. They must be set before TensorFlow is initialised.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)


def pytest_addoption(parser):
    parser.addoption("--runslow", action="store_true", help="also run the tests marked slow")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--runslow"):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="slow: run with --runslow"))


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory):
    """dict: record globs `train` and `val`, their annotation files, and their `folder`."""
    from tests import tiny

    folder = str(tmp_path_factory.mktemp("tiny"))
    train, train_annotations = tiny.make_records(folder, "train", 24)
    val, val_annotations = tiny.make_records(folder, "val", 8)
    return {
        "folder": folder,
        "train": train,
        "val": val,
        "train_annotations": train_annotations,
        "val_annotations": val_annotations,
    }


@pytest.fixture(scope="session")
def tiny_run(tiny_data, tmp_path_factory):
    """Workdir of a finished tiny training."""
    from kpose.train import trainer
    from tests import tiny

    workdir = str(tmp_path_factory.mktemp("run"))
    trainer.train(tiny.make_recipe(tiny_data["train"], tiny_data["val"]), workdir)
    return workdir


@pytest.fixture(scope="session")
def tiny_evaluation(tiny_run, tiny_data, tmp_path_factory):
    """(folder, metrics) of the evaluation of the tiny run on its validation records."""
    from kpose.evaluate import on_records

    folder = str(tmp_path_factory.mktemp("evaluation"))
    return folder, on_records.evaluate(tiny_run, tiny_data["val"], tiny_data["val_annotations"], folder)


@pytest.fixture(scope="session")
def model_dir(tiny_run, tmp_path_factory):
    """The folder of the tiny run's exported versions, of which there is one."""
    from kpose.export import saved_model

    folder = str(tmp_path_factory.mktemp("serving"))
    assert saved_model.export(tiny_run, folder) == os.path.join(folder, "1")
    return folder


@pytest.fixture(scope="session")
def graph_dir(model_dir, tmp_path_factory):
    """The same version without its .tflite file, so that predictions come from the graph.

    `Model` loads it once: the later ones share its network, because loading it takes seconds.
    """
    from kpose.predict import model, networks

    folder = str(tmp_path_factory.mktemp("graph") / "1")
    shutil.copytree(os.path.join(model_dir, "1"), folder, ignore=shutil.ignore_patterns("*.tflite"))
    opened = functools.cache(networks.open_network)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            model, "open_network", lambda source: (opened if source == folder else networks.open_network)(source)
        )
        yield folder


@pytest.fixture(scope="session")
def quick_exports(model_dir):
    """A context in which exports contain copies of the graph and of the .tflite file of `model_dir`.

    Tracing and writing them takes seconds. Everything else of an export is done.
    """
    from kpose.export import converted, saved_model

    def copy(_, folder):
        for name in ("saved_model.pb", "fingerprint.pb"):
            shutil.copyfile(os.path.join(model_dir, "1", name), os.path.join(folder, name))
        shutil.copytree(os.path.join(model_dir, "1", "variables"), os.path.join(folder, "variables"))

    def lite(*_):
        with open(os.path.join(model_dir, "1", "assets.extra", "model.tflite"), "rb") as file:
            return file.read()

    @contextlib.contextmanager
    def context():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(saved_model, "_save", copy)
            patch.setattr(converted, "lite", lite)
            yield
            # A later undo of a patch that was made meanwhile would bring it back for all other tests.
            assert saved_model._save is copy

    return context


@pytest.fixture(scope="session")
def lite_export(tiny_run, tiny_data, tmp_path_factory):
    """What `converted.export` returns for the tiny run as a .tflite file in float32."""
    from kpose.export import converted

    return converted.export(tiny_run, str(tmp_path_factory.mktemp("lite")), "tflite", "none", tiny_data["val"])


@pytest.fixture
def no_conversion(lite_export, monkeypatch):
    """The network of `lite_export` is the result of each conversion, which takes seconds."""
    from kpose.export import tflite

    with open(lite_export["path"], "rb") as file:
        content = file.read()
    # Without the description, an archive at the end.
    monkeypatch.setattr(tflite, "convert", lambda *_: content[: content.rindex(b"PK\x03\x04")])


@pytest.fixture
def without_report(monkeypatch):
    """Evaluations write neither a report nor pictures, which take half of their time."""
    import numpy as np

    from kpose.evaluate import pictures, report

    monkeypatch.setattr(report, "write", lambda *_, **__: None)
    monkeypatch.setattr(pictures, "draw", lambda *_: (np.zeros((1, 1, 3), np.uint8), {}))
