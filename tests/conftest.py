"""Options, devices and fixtures of all tests."""

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
