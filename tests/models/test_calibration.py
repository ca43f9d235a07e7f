"""The maps of a calibration: formula, order, and what files hold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kpose.core.errors import InputError
from kpose.models import calibration

slopes = st.one_of(st.just(0.0), st.floats(0.2, 5))


@settings(deadline=None, max_examples=50)
@given(slopes, st.floats(0.2, 5), st.floats(-4, 4), st.lists(st.floats(0.001, 0.999), min_size=2, max_size=20))
def test_the_map_is_that_of_beta_calibration_and_keeps_the_order(one, other, c, scores):
    found = calibration.Calibration((one, other, c), (1.0, 1.0, 0.0))
    scores = np.float32(sorted(scores))
    mapped = np.asarray(found.of_joints(scores))
    # The odds are s ** a / (1 - s) ** b * e ** c.
    odds = scores.astype(float) ** one / (1 - scores.astype(float)) ** other * np.exp(c)
    np.testing.assert_allclose(mapped, odds / (1 + odds), atol=3e-6)
    # Equal scores may differ in the last bit: the ends of arrays are not vectorised.
    assert (np.diff(mapped) > -3e-7).all()
    apart = np.diff(scores) > 0.01
    assert (np.diff(mapped)[apart & (mapped[1:] < 0.999)] > 0).all()
    np.testing.assert_allclose(np.asarray(found.of_persons(scores)), scores, atol=1e-6)


def test_scores_of_0_and_1_are_finite():
    mapped = np.asarray(calibration.Calibration((2.0, 2.0, 1.0), (1.0, 1.0, 0.0)).of_joints(np.float32([0, 1])))
    assert np.isfinite(mapped).all() and 0 < mapped[0] < 1e-6 and 1 - 1e-6 < mapped[1] <= 1


def test_fields_are_read_again():
    found = calibration.Calibration((1.5, 0.0, -0.25), (2.0, 1.0, 0.5), {"records": "train-*"})
    assert calibration.of_fields(found.to_fields(), "x") == found
    assert calibration.of_fields(None, "x") is None


@pytest.mark.parametrize(
    "fields",
    [{}, [], "text", {"joints": {"a": 1}}, {"joints": {"a": 1, "b": 1, "c": 0}, "persons": None}]
    + [{name: {"a": a, "b": 0, "c": 0} for name in ("joints", "persons")} for a in (0, -1, "nan", "inf", 10**400)],
)
def test_damaged_fields_are_one_line(fields):
    with pytest.raises(InputError, match=r"run/calibration.json: damaged: it holds no calibration .*calibrate again"):
        calibration.of_fields(fields, "run/calibration.json")
