"""Conversion of the published weights of MoveNet MultiPose to the detector's file."""

import keras
import numpy as np
import pytest

from kpose.core import files, litert
from kpose.core.errors import InputError
from kpose.export import shipped_detector
from kpose.models.movenet import multipose
from tests.models.test_movenet import graph_model


def test_the_file_has_the_maps_of_keras_at_any_size(tmp_path):
    keras.utils.set_random_seed(2)
    network = multipose(width=0.25)
    path = shipped_detector.ship(graph_model(network, tmp_path), str(tmp_path / "shipped"), width=0.25)
    lite = litert.LiteModel(files.read_bytes(path))
    for size in ((32, 64), (96, 32)):
        images = np.random.default_rng(1).uniform(0, 255, (1, *size, 3)).astype(np.float32)
        expected, found = network(images), lite(images=images)
        assert sorted(found) == sorted(expected)
        for name, value in found.items():
            assert value.shape == (1, size[0] // 4, size[1] // 4, expected[name].shape[-1])
            np.testing.assert_allclose(value, expected[name], atol=5e-3 * np.abs(expected[name]).max())


def test_weights_of_another_network_are_refused(tmp_path):
    with pytest.raises(InputError, match="do not fit the network"):
        shipped_detector.ship(graph_model(multipose(width=0.5), tmp_path), str(tmp_path / "shipped"), width=0.25)
    assert not (tmp_path / "shipped").exists()
