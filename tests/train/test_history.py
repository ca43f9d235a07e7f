"""The log lines of a training: nearly constant predictions, start and memory."""

import keras
import numpy as np
import pytest

from kpose.train.history import History
from tests.train.test_regressor import BATCH, JOINTS, SAMPLES, SIDE, make_data, make_regressor, train


@pytest.mark.parametrize(
    "slope, replicas",
    [
        pytest.param(0.0, 1, marks=pytest.mark.slow),
        (0.1, 1),
        (1.0, 1),
        pytest.param(0.1, 2, marks=pytest.mark.slow),
    ],
)
def test_a_model_that_predicts_one_pose_for_everyone_is_reported_at_each_evaluation(tmp_path, capsys, slope, replicas):
    # The first pixels hold the label. The network predicts it with this slope around 0.1.
    data = make_data()
    data["image"] = np.zeros((SAMPLES, SIDE, SIDE, 3), np.uint8)
    data["image"].reshape(SAMPLES, -1)[:, : 2 * JOINTS] = np.random.default_rng(0).integers(
        0, 256, (SAMPLES, 2 * JOINTS)
    )
    data["keypoints"][..., :2] = data["image"].reshape(SAMPLES, -1)[:, : 2 * JOINTS].reshape(-1, JOINTS, 2) / 255 - 0.5

    def network():
        images = keras.Input((SIDE, SIDE, 3))
        x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255.0, -0.5)(images))
        kernel = slope * np.eye(SIDE * SIDE * 3, 2 * JOINTS, dtype=np.float32)
        bias = keras.initializers.Constant(0.1 * (slope < 1))
        x = keras.layers.Dense(2 * JOINTS, kernel_initializer=lambda *_, **__: kernel, bias_initializer=bias)(x)
        return keras.Model(images, {"keypoints": keras.layers.Reshape((JOINTS, 2))(x)})

    regressor = make_regressor(replicas, network=network, optimizer=lambda: keras.optimizers.SGD(0.0))
    history = History(str(tmp_path), floors={}, total_steps=6, batch_size=BATCH, log_every=10)
    logs = train(regressor, data, callbacks=[history])
    np.testing.assert_allclose(logs["spread"] + logs["val_spread"], slope, atol=1e-3)
    lines = [line for line in capsys.readouterr().err.splitlines() if "the mean pose for every person" in line]
    assert len(lines) == (2 if slope < 0.2 else 0)
    assert all(
        line.startswith("warning: ") and f"{100 * slope:.0f}% of the spread of the labels" in line for line in lines
    )


def test_on_a_terminal_the_start_and_the_memory_are_printed(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    history = History(str(tmp_path), floors={}, total_steps=2, batch_size=BATCH, log_every=10)
    train(make_regressor(), make_data(), steps=2, steps_per_epoch=2, validation=False, callbacks=[history])
    history.close()
    said = capsys.readouterr().err
    assert "first step after " in said and "peak memory " in said
