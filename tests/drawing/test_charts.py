"""Charts: PNG files that can be opened, from complete and incomplete metrics."""

import os
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from kpose.drawing import charts

GROUPS = ("upper_arms", "lower_arms", "upper_legs", "lower_legs", "average")


def _opened(path):
    """The pixels of a PNG file, the only one in its folder."""
    assert os.listdir(os.path.dirname(path)) == [os.path.basename(path)]
    with Image.open(path) as picture:
        assert picture.format == "PNG" and picture.width > 1.5 * picture.height > 300
        return np.asarray(picture.convert("RGB"))


def _painted(pixels, colour):
    """Number of pixels of a colour."""
    return (np.abs(pixels / 255 - to_rgb(colour)).max(-1) < 0.02).sum()


def _table(strict, mean):
    return {"strict": dict(zip(GROUPS, strict, strict=True)), "mean": dict(zip(GROUPS, mean, strict=True))}


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "new" / "figure.png")


@pytest.fixture
def saved_axes(monkeypatch):
    """The axes of the last figure saved."""
    kept = []
    save = charts._save
    monkeypatch.setattr(charts, "_save", lambda figure, file: (kept.extend(figure.axes), save(figure, file)))
    return kept


def test_learning_curve(path, saved_axes):
    rows = [
        {"step": step, "loss": 50 / step, "val_loss": 60 / step, "val_pcp_strict": step / 200, "learning_rate": 1e-3}
        for step in (10, 50, 100)
    ]
    charts.learning_curve(rows, path, mean_pose_pcp=0.15)
    pixels = _opened(path)
    assert _painted(pixels, charts.MODEL_COLOUR) > 200 and _painted(pixels, charts.SECOND_COLOUR) > 50
    losses, scores, rates = saved_axes
    assert losses.get_yscale() == "log" and scores.get_yscale() == "linear"
    labels = [text.get_text() for text in scores.get_legend().get_texts()]
    assert labels == ["validation, strict PCP", "mean pose, strict PCP"]
    assert rates.lines[0].get_ydata() == pytest.approx([1e-3] * 3) and rates.get_ylim()[0] == 0
    assert [axes.get_xlabel() for axes in saved_axes] == ["step"] * 3
    assert [axes.get_title("left") for axes in saved_axes] == ["loss", "metrics in percent", "learning rate"]
    assert scores.lines[0].get_ydata() == pytest.approx([5, 25, 50])
    assert scores.lines[1].get_ydata() == pytest.approx([15, 15]) and scores.lines[1].get_linestyle() == "--"


def test_all_validation_metrics_are_drawn(path, saved_axes):
    """Whatever columns the history has; the spread is no share, and has another scale."""
    names = ("val_loss", "val_pcp_strict", "val_pcp_mean", "val_pdj_0.2", "val_oks_ap", "val_spread", "val_new_one")
    charts.learning_curve([{"step": s, "loss": 9.0} | dict.fromkeys(names, 0.1 * s) for s in (1, 2)], path)
    _, scores = saved_axes
    labels = [line.get_label() for line in scores.lines]
    assert labels[:2] == ["validation, strict PCP", "validation, mean rule PCP"]
    assert labels[2:] == ["validation, PDJ@0.2", "validation, OKS AP", "validation, NEW ONE"]
    assert scores.lines[3].get_ydata() == pytest.approx([10, 20])
    assert len({line.get_color() for line in scores.lines}) == 5
    _opened(path)


def test_similar_losses_are_on_a_linear_scale(path, saved_axes):
    charts.learning_curve([{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}], path)
    assert saved_axes[0].get_yscale() == "linear"
    _opened(path)


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{"step": 7}],
        [{"step": 7, "loss": 0.5}],
        [{"step": 7, "loss": 0.5, "val_pcp_strict": 0.0}],
        [{"step": 1, "loss": 0.5}, {"step": 2, "val_pcp_mean": 0.4}, {"step": 3, "val_loss": 1.0}],
        [{"step": 1, "loss": float("nan")}, {"step": 2, "loss": None}, {"step": 3, "loss": float("inf")}],
        [{"step": 1, "loss": -2.0}, {"step": 2, "loss": 0.0}, {"step": 3, "loss": 500.0}],
    ],
)
def test_learning_curve_of_little(path, rows):
    for mean_pose_pcp in (None, 0.0, 0.2):
        charts.learning_curve(rows, path, mean_pose_pcp=mean_pose_pcp)
        _opened(path)


def test_gaps_and_order_of_rows(path, saved_axes):
    rows = [{"step": 3, "val_loss": 1.0}, {"step": 1, "val_loss": 3.0}, {"step": 2, "val_loss": None}]
    charts.learning_curve(rows, path)
    assert saved_axes[0].lines[0].get_xydata().tolist() == [[1, 3], [3, 1]]


def test_pcp_bars(path, saved_axes):
    model = _table([0.6, 0.4, 0.8, 0.7, 0.625], [0.7, 0.5, 0.9, 0.8, 1.0])
    floor = _table([0.1, 0.0, 0.2, 0.1, 0.1], [0.2] * 5)
    charts.pcp_bars({"pcp": model, "mean_pose_pcp": floor}, path)
    pixels = _opened(path)
    assert _painted(pixels, charts.MODEL_COLOUR) > 3 * _painted(pixels, charts.FLOOR_COLOUR) > 3000
    strict, mean = saved_axes
    assert [bar.get_height() for bar in strict.containers[0]] == pytest.approx([60, 40, 80, 70, 62.5])
    assert [bar.get_height() for bar in mean.containers[1]] == pytest.approx([20] * 5)
    assert {"62.5", "0.0"} <= {text.get_text() for text in strict.texts}
    assert [label.get_text() for label in strict.get_xticklabels()] == [group.replace("_", "\n") for group in GROUPS]


def test_pcp_bars_of_limbs_that_were_not_there(path, saved_axes):
    model, nothing = _table([0.6, None, 0.8, None, 0.7], [None] * 5), _table([None] * 5, [None] * 5)
    charts.pcp_bars({"pcp": model, "mean_pose_pcp": nothing}, path)
    _opened(path)
    assert [text.get_text() for text in saved_axes[0].texts] == ["60.0", "none", "80.0", "none", "70.0"] + ["none"] * 5


def test_an_older_file_is_replaced(path):
    os.makedirs(os.path.dirname(path))
    with open(path, "w") as file:
        file.write("old")
    charts.learning_curve([{"step": 1, "loss": 1.0}], path)
    _opened(path)


def test_no_global_state(path):
    code = (
        "import sys\n"
        "from kpose.drawing import charts\n"
        "charts.learning_curve([{'step': 1, 'loss': 1.0}], sys.argv[1])\n"
        "assert 'matplotlib.pyplot' not in sys.modules and 'tensorflow' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, path], check=True)
    _opened(path)


def _reliability(shift):
    rows = [{"score": x / 10, "outcome": min(1.0, x / 10 + shift), "count": 10} for x in range(1, 10)]
    return {"ece": shift, "brier": 0.1, "count": 90, "bins": rows}


def test_reliability_curves(path, saved_axes):
    near, far = ({name: _reliability(shift) for name in ("joints", "persons")} for shift in (0.01, 0.3))
    charts.reliability_curves({"calibrated": True, "uncalibrated": far, **near}, path)
    for axes in saved_axes[:2]:
        labels = [text.get_text() for text in axes.get_legend().get_texts()]
        assert labels == ["score = outcome", "uncalibrated, ECE 30.0%", "calibrated, ECE 1.0%"]
        np.testing.assert_allclose(axes.lines[2].get_xydata()[0], (0.1, 0.11))
    assert _painted(_opened(path), charts.MODEL_COLOUR) > 100


def test_reliability_curves_of_an_uncalibrated_model(path, saved_axes):
    found = {name: _reliability(0.2) for name in ("joints", "persons")}
    charts.reliability_curves({"calibrated": False, "uncalibrated": None, **found}, path)
    labels = [text.get_text() for text in saved_axes[0].get_legend().get_texts()]
    assert labels == ["score = outcome", "uncalibrated, ECE 20.0%"]
