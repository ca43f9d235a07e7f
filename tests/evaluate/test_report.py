"""The report: it holds the metrics, opens offline, and shows any name as text."""

import html
import re
import shutil
import subprocess

import numpy as np
import pytest

from kpose import config
from kpose.evaluate import report
from tests.evaluate.test_summary import metrics_of
from tests.metrics.test_keras_metrics import persons

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FACTS = {
    "recipe": "tiny",
    "checkpoint": "c",
    "records": "r",
    "box_source": "b",
    "flip_test": True,
    "oks_ap": None,
    "visibility": None,
}


def write_report(folder, pictures, run=None, **facts):
    """Writes a report of a few persons; returns its text."""
    truth, prediction = persons(8)
    metrics, arrays = metrics_of(truth, prediction, prediction)
    report.write(str(folder), metrics | FACTS | {"num_persons": len(truth)} | facts, arrays, pictures, run)
    return (folder / "report.html").read_text()


def test_the_report_holds_the_metrics_and_opens_offline(evaluations):
    folders, metrics = evaluations
    with open(f"{folders[0]}/report.html") as file:
        page = file.read()
    average = metrics[0]["pcp"]["strict"]["average"]
    assert f"strict PCP {100 * average:.1f}%" in page and "The worst persons" in page
    assert page.count("<img ") >= 7 and page.count('src="data:image/png;base64,') == page.count("<img ")
    assert not re.search(r"""(?:src|href|action)\s*=\s*["']?(?!["']?(?:data:|#))|url\(|@import|<script|<link""", page)
    # The history of the run, and a field of its recipe.
    assert "Loss, metrics and learning rate by training step" in page and "model.head_filters" in page
    for subset in metrics[0]["subsets"]:
        assert subset["name"] in page
    for name, value in metrics[0]["oks_ap"].items():
        shown = "-" if value is None else f"{100 * value:.1f}%"
        assert f"<th>{name}</th>" in page and f"<td>{shown}<" in page
    low, high = (100 * edge for edge in metrics[0]["intervals"]["pdj"]["0.2"])
    assert f"[{low:.1f}, {high:.1f}]" in page


def test_the_report_shows_visibility_where_it_is_learned_and_no_ap_where_there_is_none(tmp_path):
    visibility = {"auc": 0.8125, "f1": None, "accuracy": 0.5, "labelled": 1.0}
    page = write_report(tmp_path, {}, visibility=visibility)
    assert "<h2>Visibility</h2>" in page and "<td>81.2%</td><td>-</td>" in page
    assert "object keypoint similarity" not in page


def test_the_report_says_what_was_resampled_and_where_the_pixels_come_from(tmp_path):
    page = write_report(tmp_path, {}, pixels="stored crops")
    assert "bootstrap resamples of the 20 images" in page and "compressed once more" in page
    page = write_report(tmp_path, {}, pixels="photos.zip")
    assert "<td>photos.zip</td>" in page and "compressed once more" not in page


def test_the_report_shows_the_recipe_and_the_learning_curve(tmp_path):
    recipe = config.default()
    recipe.data.train = "<b>mine</b>"
    recipe.optimizer.learning_rate = 0.125
    history = [{"step": step, "loss": 1 / step, "val_oks_ap": 0.01 * step} for step in (1, 2, 3)]
    page = write_report(tmp_path, {}, report.Run(recipe, history))
    default = config.default().optimizer.learning_rate
    assert f"<tr><td>optimizer.learning_rate</td><td>0.125</td><td>{default}</td></tr>" in page
    assert "&lt;b&gt;mine" in page and "<b>mine" not in page
    # Only the fields that differ.
    assert page.count("<td>optimizer.") == 1 and "batch_size" not in page
    curve = 'alt="Loss, metrics and learning rate by training step"'
    assert curve in page
    page = write_report(tmp_path, {}, report.Run(recipe, []))
    assert curve not in page and "optimizer.learning_rate" in page


@pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed")
def test_the_report_opens_in_a_browser_without_a_network(evaluations):
    arguments = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND"]
    url = f"file://{evaluations[0][0]}/report.html"
    page = subprocess.run([*arguments, "--dump-dom", url], capture_output=True, text=True, timeout=120, check=True)
    assert "Percentage of correct parts" in page.stdout and "The worst persons" in page.stdout


HOSTILE = """<script>alert("1")</script> 'q' "q" & {{ 7 * 7 }} {% raw %} </title></style> é\u202e"""


def test_hostile_names_are_shown_as_text(tmp_path):
    def page_with(name):
        facts = dict.fromkeys(("recipe", "checkpoint", "records", "box_source"), name)
        page = write_report(tmp_path, {name: np.zeros((2, 2, 3), np.uint8)}, **facts)
        return re.sub('base64,[^"]*', "", page)

    page = page_with(HOSTILE)
    plain_tags, tags = (re.findall(r"<[^>]*>", text) for text in (page_with("name"), page))
    # The picture's description is the only name inside a tag.
    *other_tags, described = (tag for tag in tags if tag not in plain_tags)
    assert len(tags) == len(plain_tags) and not other_tags
    assert html.unescape(re.fullmatch(r'<img alt="([^"<>]*)" src="data:image/png;">', described)[1]) == HOSTILE
    # In the page's title, the heading, three facts, and the heading and the description of the
    # picture.
    assert html.unescape(page).count(HOSTILE) == 7
