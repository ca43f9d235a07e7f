"""The one-euro filter, against the paper's algorithm in scalars and against closed forms."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kpose.predict import smoothing

BOX = np.array([0.0, 0.0, 40.0, 90.0])
SIZE = 60.0


def _smoothed(points, times, box=BOX):
    """[T, K, 2] of one person's joints [T, K, 2]."""
    smoother = smoothing.Smoother()
    scores = np.full((len(points[0]), 1), 0.5)
    frames = [
        smoother.update([3], np.concatenate([some, scores], 1)[None], box[None], time)
        for some, time in zip(points, times, strict=True)
    ]
    assert all((frame[..., 2] == 0.5).all() for frame in frames)
    return np.concatenate(frames)[..., :2]


def _one_euro(values, times, min_cutoff, beta):
    """The filter of one coordinate as in the paper: one number after the other."""

    def alpha(cutoff, period):
        tau = 1.0 / (2 * math.pi * cutoff)
        return 1.0 / (1.0 + tau / period)

    answers, speed = [values[0]], 0.0
    for index in range(1, len(values)):
        period = times[index] - times[index - 1]
        slope = (values[index] - answers[-1]) / period
        share = alpha(smoothing.SPEED_CUTOFF, period)
        speed = share * slope + (1 - share) * speed
        share = alpha(min_cutoff + beta * abs(speed), period)
        answers.append(share * values[index] + (1 - share) * answers[-1])
    return answers


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_it_is_the_filter_of_the_paper_also_at_uneven_times(seed):
    random = np.random.default_rng(seed)
    times = np.cumsum(random.uniform(0.01, 0.3, 30))
    x = np.cumsum(random.normal(0, 8, 30))
    # Along one axis, the speed of a joint is that of the coordinate.
    found = _smoothed(np.stack([x, np.full(30, 7.0)], -1)[:, None], times)
    expected = _one_euro(x.tolist(), times.tolist(), smoothing.MIN_CUTOFF, smoothing.BETA / SIZE)
    np.testing.assert_allclose(found[:, 0, 0], expected, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(found[:, 0, 1], 7.0)


def test_a_step_without_beta_follows_the_closed_form(monkeypatch):
    monkeypatch.setattr(smoothing, "BETA", 0.0)
    points = np.zeros((20, 1, 2))
    points[1:] = 100.0
    period = 1 / 30
    found = _smoothed(points, np.arange(20) * period)
    share = 1 - 1 / (1 + 2 * math.pi * smoothing.MIN_CUTOFF * period)
    np.testing.assert_allclose(found[:, 0, 0], 100 * (1 - (1 - share) ** np.arange(20)), rtol=1e-5)


def test_twice_the_frames_give_the_same_curve():
    def curve(rate):
        times = np.arange(0, 2, 1 / rate)
        points = np.stack([30 * np.sin(3 * times), 20 * np.cos(2 * times)], -1)[:, None]
        return _smoothed(points, times)

    assert np.abs(curve(200)[::2] - curve(100)).max() < 1.0
    # A filter that ignored the time would be off by more.
    assert np.abs(curve(200)[::2] - np.stack([30 * np.sin(3 * np.arange(0, 2, 0.01))], -1)[:, None]).max() > 1.0


@given(st.floats(0, 2 * math.pi), st.floats(0.2, 10), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_a_rotated_and_scaled_person_is_smoothed_alike(angle, scale, seed):
    points = np.cumsum(np.random.default_rng(seed).normal(0, 5, (12, 4, 2)), 0)
    times = np.arange(12) / 25
    turn = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    found = _smoothed(points @ turn.T, times, BOX * scale)
    np.testing.assert_allclose(found, _smoothed(points, times) @ turn.T, rtol=1e-3, atol=1e-2 * scale)


def test_noise_at_rest_is_reduced_and_a_fast_joint_lags_little():
    random = np.random.default_rng(0)
    times = np.arange(200) / 25
    rest = random.normal(50, 1, (200, 1, 2))
    assert _smoothed(rest, times)[20:].std() < 0.6 * rest[20:].std()
    fast = np.stack([400 * times, 0 * times], -1)[:, None]
    assert np.abs(_smoothed(fast, times) - fast)[20:].max() < 0.1 * SIZE


def test_a_person_who_comes_back_later_begins_again():
    points = np.array([[[0.0, 0.0]], [[100.0, 0.0]]])
    near = _smoothed(points, [0.0, 0.9 * smoothing.LOST])
    far = _smoothed(points, [0.0, 1.1 * smoothing.LOST])
    assert near[1, 0, 0] < 100 and far[1, 0, 0] == pytest.approx(100)
