"""The runner of `kpose.benchmark gpu`: a part that fails loses only what it has not written."""

import json

import pytest

from kpose.benchmark import gpu, gpu_worker

_FAKE = """
import os, time
from kpose.benchmark import workers

def handle(request):
    if request["do"] == "crash":
        print("last words", flush=True)
        os.abort()
    if request["do"] == "hang":
        time.sleep(60)
    if request["do"] == "profile":
        return {"seconds": 0.1, "busy": 0.5, "operations": [("Conv2D", 1.5, 20.0)]}
    if request["do"] == "raise":
        raise ValueError("no such kernel")
    return {"images_per_second": 7.0}

workers.serve(handle)
"""


def test_results_before_a_crash_a_hang_and_an_error_are_kept(tmp_path, monkeypatch):
    (tmp_path / "fake_worker.py").write_text(_FAKE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    parts = [
        gpu.Part("crashes", "fake_worker", [{"do": "work"}, {"do": "crash"}, {"do": "work"}]),
        gpu.Part("hangs", "fake_worker", [{"do": "work"}, {"do": "hang"}, {"do": "work"}]),
        gpu.Part("raises", "fake_worker", [{"do": "raise"}, {"do": "work"}]),
    ]
    out = tmp_path / "out"
    gpu.measure(parts, str(out), None, None, limit=60, part_limit=6, images=1)
    rows = [json.loads(line) for line in (out / "gpu.jsonl").read_text().splitlines()]
    assert [(row["part"], row.get("images_per_second")) for row in rows] == [
        ("crashes", 7.0),
        ("crashes", None),
        ("hangs", 7.0),
        ("hangs", None),
        ("raises", None),
        ("raises", 7.0),
    ]
    assert "last words" in rows[1]["error"] and "no answer after" in rows[3]["error"]
    assert "no such kernel" in rows[4]["error"]
    assert (out / "gpu.md").read_text().count("| 7 |") == 3


def test_a_profile_lists_its_operations(tmp_path, monkeypatch):
    (tmp_path / "fake_worker.py").write_text(_FAKE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    parts = [gpu.Part("first", "fake_worker", [{"do": "profile", "batch_size": 4}])]
    out = tmp_path / "out"
    (row,) = gpu.measure(parts, str(out), None, None, limit=60, part_limit=30, images=1)
    assert row["operations"] == [["Conv2D", 1.5, 20.0]]
    # The time of a profiled step is no rate.
    assert "images_per_second" not in row
    assert "  - 1.500 ms, 20 x Conv2D" in (out / "gpu.md").read_text()


@pytest.mark.slow
def test_the_profile_of_training_steps_names_their_operations():
    request = {"network": "deeppose", "precision": "float32", "xla": "off", "batch_size": 1}
    found = gpu_worker.profile(request | {"steps": 1, "rows": 1000})
    names = " ".join(name for name, _, _ in found["operations"])
    assert "Conv2D" in names and "MatMul" in names
    assert found["seconds"] > 0 and all(milliseconds >= 0 for _, milliseconds, _ in found["operations"])
    times = [milliseconds for _, milliseconds, _ in found["operations"]]
    assert times == sorted(times, reverse=True)
