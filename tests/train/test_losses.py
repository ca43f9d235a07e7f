"""Losses: comparison with NumPy and finite differences, unlabelled joints, extreme values."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kpose import config as config_lib
from kpose.core.errors import InputError
from kpose.train import losses

# Each loss, and each weighting of "rle".
NAMES = [*sorted(losses.LOSSES), "rle paper", "rle kpose_0.1"]


def build(name):
    config = config_lib.default().loss
    config.name, _, weighting = name.partition(" ")
    config.weighting, config.flow_units = weighting or "auto", 5
    keras.utils.set_random_seed(3)
    loss = losses.build(config)
    rng = np.random.default_rng(4)
    # Weights far from the initial ones, with which the flow is almost the identity.
    for variable in loss.trainable_variables:
        variable.assign(rng.normal(0, 0.4, variable.shape))
    return loss


def sample(seed=0, batch=5, joints=17):
    """(labels [B, K, 3], dict of all outputs that a loss can need)."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(-0.5, 0.5, (batch, joints, 3)).astype(np.float32)
    truth[..., 2] = rng.integers(-1, 3, (batch, joints))
    return truth, {
        "keypoints": rng.uniform(-0.5, 0.5, (batch, joints, 2)).astype(np.float32),
        "scale": rng.uniform(0.05, 0.9, (batch, joints, 2)).astype(np.float32),
        "visibility": rng.uniform(-0.2, 1.2, (batch, joints)).astype(np.float32),
    }


def log_flow(loss, point):
    """Log density of the flow at one point, computed from its weights in plain Python."""
    weights = [np.asarray(v, np.float64) for v in loss.trainable_variables]
    size = len(weights) // (2 * loss.flow.layers)

    def run(network, x, last):
        a, b, c, d, e, f = network
        for kernel, bias in ((a, b), (c, d)):
            x = x @ kernel + bias
            x = np.where(x > 0, x, 0.2 * x)
        return last(x @ e + f)

    networks = [weights[i : i + size] for i in range(0, len(weights), size)]
    z, total = np.array(point, np.float64), 0.0
    for layer in range(loss.flow.layers):
        kept = layer % 2
        s = run(networks[layer], z[[kept]], np.tanh)[0]
        t = run(networks[loss.flow.layers + layer], z[[kept]], lambda v: v)[0]
        z[1 - kept] = (z[1 - kept] - t) * np.exp(-s)
        total -= s
    return total - 0.5 * (z**2).sum() - np.log(2 * np.pi)


def rle_of_joint(loss, error, scale):
    """RLE of one joint, with each weighting written as the densities that its source multiplies."""
    log_flow_of_joint = log_flow(loss, error / scale)
    if loss.weighting == "paper":
        # -log Q(e) - log G(e) + log s, where e = d / s and Q is the standard Laplace density.
        standard = np.exp(-np.abs(error / scale)) / 2
        return -np.log(standard.prod()) - log_flow_of_joint + np.log(scale.prod())
    if loss.weighting == "kpose_0.1":
        # Two densities of d: Laplace, and the flow's with the Jacobian of d / s.
        laplace = np.exp(-np.abs(error) / scale) / (2 * scale)
        return -np.log(laplace.prod()) - (log_flow_of_joint - np.log(scale.prod()))
    # The authors' arrays [2]: nf_loss = log(sigma) - log_phi, and their log Q.
    nf_loss = np.log(scale) - np.array([log_flow_of_joint, log_flow_of_joint])
    log_q = np.log(scale * np.sqrt(2 * np.pi)) + np.abs(error) / (np.sqrt(2) * scale)
    return (nf_loss + log_q).sum()


def reference(loss, truth, outputs):
    """[B] losses from a loop over persons and joints, in float64."""
    outputs = {name: value.astype(np.float64) for name, value in outputs.items()}
    totals = []
    for person in range(len(truth)):
        total = 0.0
        for joint, (x, y, flag) in enumerate(truth[person].astype(np.float64)):
            error = outputs["keypoints"][person, joint] - (x, y)
            scale = outputs["scale"][person, joint]
            if loss.name == "masked_l2" and flag >= 0:
                total += (outputs["visibility"][person, joint] - (flag > 0)) ** 2
            if flag <= 0:
                continue
            for d, s in zip(np.abs(error), scale, strict=True):
                total += {
                    "l2": d * d,
                    "masked_l2": d * d,
                    "l1": d,
                    "smooth_l1": d * d / 0.04 if d < 0.02 else d - 0.01,
                    "laplace": np.log(2 * s) + d / s,
                    "rle": 0.0,
                }[loss.name]
            if loss.name == "rle":
                total += rle_of_joint(loss, error, scale)
        totals.append(total)
    return np.array(totals)


@pytest.mark.parametrize("name", NAMES)
def test_losses_agree_with_a_plain_loop(name):
    loss, (truth, outputs) = build(name), sample()
    outputs["keypoints"][0, :6] = truth[0, :6, :2] + 0.003
    value = keras.ops.convert_to_numpy(loss.call(truth, outputs))
    assert value.dtype == np.float32
    np.testing.assert_allclose(value, reference(loss, truth, outputs), rtol=1e-4)


def test_the_published_loss_is_the_sum_over_the_batch():
    truth, outputs = sample()
    truth[..., 2] = 2
    # Equation 3: the squared L2 distance of the 34-vectors, summed over the batch.
    difference = outputs["keypoints"].reshape(5, 34) - truth[..., :2].reshape(5, 34)
    expected = np.square(np.linalg.norm(difference, axis=1)).sum()
    np.testing.assert_allclose(float(losses.L2Loss()(truth, outputs)), expected, rtol=1e-5)


def test_the_published_masked_loss_weighs_the_51_numbers():
    truth, outputs = sample()
    # Equations 4 and 5, on vectors (x, y, v) of each joint.
    by_flag = {-1: [0.0, 0.0, 0.0], 0: [0.0, 0.0, 1.0], 1: [1.0, 1.0, 1.0], 2: [1.0, 1.0, 1.0]}
    weights = np.array([[by_flag[int(flag)] for flag in person] for person in truth[..., 2]])
    target = np.concatenate([truth[..., :2], np.minimum(truth[..., 2:], 1)], -1)
    predicted = np.concatenate([outputs["keypoints"], outputs["visibility"][..., None]], -1)
    expected = (weights * (predicted - target) ** 2).sum()
    np.testing.assert_allclose(float(losses.MaskedL2Loss()(truth, outputs)), expected, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_agree_with_finite_differences_and_vanish_for_unlabelled_joints(name):
    loss, (truth, outputs) = build(name), sample(1, batch=2, joints=4)
    watched = {key: tf.Variable(outputs[key]) for key in ("keypoints", *loss.outputs)}
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(loss.call(truth, watched))
    step = 1e-5
    for key, gradient in tape.gradient(total, watched).items():
        for index in np.ndindex(outputs[key].shape):
            sides = []
            for sign in (1, -1):
                moved = {name: value.astype(np.float64) for name, value in outputs.items()}
                moved[key][index] += sign * step
                sides.append(reference(loss, truth, moved).sum())
            slope = (sides[0] - sides[1]) / (2 * step)
            np.testing.assert_allclose(gradient.numpy()[index], slope, rtol=1e-3, atol=1e-3)
        untrained = truth[..., 2] < 0 if key == "visibility" else truth[..., 2] <= 0
        assert untrained.any() and (gradient.numpy()[untrained] == 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_what_is_predicted_for_an_unlabelled_joint_never_counts(name):
    loss, (truth, outputs) = build(name), sample()
    unlabelled = truth[..., 2] <= 0
    wild = {key: value.copy() for key, value in outputs.items()}
    wild["keypoints"][unlabelled] = wild["scale"][unlabelled] = np.nan
    wild["visibility"][truth[..., 2] < 0] = np.nan
    variables = {key: tf.Variable(value) for key, value in wild.items()}
    with tf.GradientTape() as tape:
        values = loss.call(truth, variables)
    np.testing.assert_array_equal(values, loss.call(truth, outputs))
    assert all(np.isfinite(g).all() for g in tape.gradient(values, variables).values() if g is not None)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("magnitude", [0.0, 1e-30, 1e8, 3e38])
def test_losses_and_gradients_are_finite_for_every_finite_input(name, magnitude):
    loss, (truth, outputs) = build(name), sample()
    variables = {key: tf.Variable(np.full_like(value, magnitude)) for key, value in outputs.items()}
    with tf.GradientTape() as tape:
        values = loss.call(truth, variables)
    gradients = tape.gradient(values, [*variables.values(), *loss.trainable_variables])
    assert np.isfinite(values).all()
    assert all(np.isfinite(g).all() for g in gradients if g is not None)


def test_the_flow_is_a_density():
    flow = build("rle").flow
    axis = np.linspace(-40, 40, 801, dtype=np.float32)
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    density = np.exp(np.asarray(flow.log_density(grid), np.float64))
    assert density.sum() * (axis[1] - axis[0]) ** 2 == pytest.approx(1, abs=0.01)


def test_the_best_scale_of_each_weighting_of_rle():
    """With the flow at the identity and |d| = 0.1, the best s solves a quadratic in |d| / s."""
    truth = np.array([[[0, 0, 2]]], np.float32)
    scales = np.linspace(0.05, 0.25, 2001, dtype=np.float32)
    found = {}
    for weighting in losses.RLE_WEIGHTS:
        loss = losses.RLELoss(weighting=weighting)
        for variable in loss.trainable_variables:
            variable.assign(np.zeros(variable.shape))
        outputs = {
            "keypoints": np.full((len(scales), 1, 2), 0.1, np.float32),
            "scale": np.tile(scales[:, None, None], (1, 1, 2)),
        }
        found[weighting] = scales[np.argmin(loss.call(np.tile(truth, (len(scales), 1, 1)), outputs))]
    # The derivative of each loss by log s is zero, with e = 0.1 / s:
    # 2 = e / sqrt(2) + 2 e^2; 1 = e + e^2; 2 = e + e^2.
    expected = {"authors": (-(0.5**0.5) + 16.5**0.5) / 4, "paper": (5**0.5 - 1) / 2, "kpose_0.1": 1.0}
    for weighting, ratio in expected.items():
        assert 0.1 / found[weighting] == pytest.approx(ratio, rel=0.005), weighting


@pytest.mark.parametrize("weighting, balanced", [("authors", True), ("paper", True), ("kpose_0.1", False)])
def test_the_scale_and_a_narrower_flow_cancel_where_both_count_equally(weighting, balanced):
    """Scales times 2 and a flow of half the width change only the Laplace term."""
    loss, (truth, outputs) = losses.RLELoss(weighting=weighting), sample()
    truth[..., 2] = 2
    ratio = np.abs(outputs["keypoints"] - truth[..., :2]) / outputs["scale"]
    before = loss.call(truth, outputs).numpy()
    log_density = loss.flow.log_density
    loss.flow.log_density = lambda x: log_density(2 * x) + 2 * np.log(2)
    wider = outputs | {"scale": 2 * outputs["scale"]}
    laplace = (ratio / 2).sum((1, 2)) / losses.RLE_WEIGHTS[weighting].laplace_scale
    difference = loss.call(truth, wider).numpy() - before + laplace
    # 17 joints: log s grows by 4 log 2 in two coordinates, the flow by 2 log 2 once.
    np.testing.assert_allclose(difference, 0.0 if balanced else 17 * 2 * np.log(2), atol=2e-3)


def test_the_authors_weighting_is_the_default_and_others_are_named():
    assert losses.RLELoss().weighting == build("rle").weighting == "authors"
    config = config_lib.default()
    config.loss.weighting = "twice"
    with pytest.raises(InputError, match="loss.weighting is 'twice'.*authors"):
        config_lib.check(config)


def test_the_best_laplace_scale_is_the_mean_absolute_error():
    rng = np.random.default_rng(0)
    truth = np.zeros((4000, 1, 3), np.float32)
    truth[..., 2] = 1
    errors = rng.laplace(0, 0.07, (4000, 1, 2)).astype(np.float32)
    scales = np.linspace(0.04, 0.12, 161, dtype=np.float32)
    totals = [
        float(losses.LaplaceLoss()(truth, {"keypoints": errors, "scale": np.full_like(errors, s)})) for s in scales
    ]
    assert scales[np.argmin(totals)] == pytest.approx(np.abs(errors).mean(), abs=0.001)


@pytest.mark.parametrize("name", NAMES)
def test_losses_survive_serialisation_without_custom_objects(name):
    loss = build(name)
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    for variable, value in zip(again.trainable_variables, loss.trainable_variables, strict=True):
        variable.assign(value)
    truth, outputs = sample()
    assert float(again(truth, outputs)) == float(loss(truth, outputs))


def test_an_unknown_loss_is_named():
    with pytest.raises(InputError, match="l17"):
        build("l17")
