"""Options and devices that all tests share."""

import pytest

from kpose import quiet

quiet.import_tensorflow()

import tensorflow as tf  # noqa: E402  (quietly first)

# Before TensorFlow runs anything: tests of several replicas need several devices.
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
