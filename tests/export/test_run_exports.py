"""The newest export of a run is the one that was written last, whatever the file times say."""

import json
import os
import shutil
import time

import pytest

from kpose.export import converted, run_exports, saved_model
from kpose.predict import networks
from kpose.runs import checkpoints


def _set_times(folder, when):
    for parent, _, names in os.walk(folder):
        for path in (parent, *(os.path.join(parent, name) for name in names)):
            os.utime(path, (when, when))


@pytest.mark.parametrize("years", [-30, 30], ids=["clock set back", "clock set forward"])
def test_exports_are_ordered_without_the_clock(years, tiny_run, no_conversion, quick_exports, tmp_path, caplog):
    """The first export is written at the right time, the second at a wrong one."""
    run, there = str(tmp_path / "run"), time.time()
    shutil.copytree(tiny_run, run)
    first = converted.export(run, None, "tflite")["path"]
    _set_times(run, there)
    # The clock of each file of the second export is wrong.
    with quick_exports():
        second = saved_model.export(run)
    _set_times(second, there + years * 365.25 * 86400)
    with caplog.at_level("WARNING", logger="absl"):
        assert networks.open_network(run).name == second
    assert "newer checkpoints" not in caplog.text
    # Written again, the first is the newest.
    converted.export(run, None, "tflite")
    _set_times(first, there)
    assert networks.open_network(run).name == first
    # Newer checkpoints are found by their step.
    newest = checkpoints.latest(run)
    for part in os.listdir(os.path.dirname(newest)):
        if part.startswith("step-6"):
            path = os.path.join(os.path.dirname(newest), part)
            shutil.copy(path, path.replace("step-6", "step-7"))
    _set_times(os.path.join(run, "checkpoints"), there - 1e9)
    caplog.clear()
    with caplog.at_level("WARNING", logger="absl"):
        networks.open_network(run)
    assert "the run has newer checkpoints than this export" in caplog.text


@pytest.mark.parametrize("content", [b"", b"\xff garbled", b"{}", b'[{"path": 1}]'])
def test_a_damaged_list_is_begun_anew(content, tmp_path, caplog):
    (tmp_path / "exports.json").write_bytes(content)
    (tmp_path / "model.tflite").touch()
    with caplog.at_level("WARNING", logger="absl"):
        run_exports.add(str(tmp_path), str(tmp_path / "model.tflite"))
    assert "renamed to exports.json.damaged: begun anew" in caplog.text
    assert json.loads((tmp_path / "exports.json").read_text()) == [{"path": "model.tflite", "step": 0}]


def test_exports_elsewhere_are_not_listed(tmp_path):
    run_exports.add(str(tmp_path / "run"), str(tmp_path / "run-2" / "model.tflite"))
    run_exports.add(None, str(tmp_path / "model.tflite"))
    assert not list(tmp_path.iterdir())
