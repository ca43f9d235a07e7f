"""Predictions as a Beam pipeline: the answers of the command, two processes of Dask, a killed run."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from kpose.core.errors import InputError
from kpose.predict import files
from tests import dask_cluster, helpers

pytest.importorskip("apache_beam", reason="no Apache Beam: pip install apache-beam")
# Beam's own runner in one process; "DirectRunner" first looks for another on the network.
LOCAL = "--beam=--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"


@pytest.fixture(scope="module")
def listed(tmp_path_factory):
    """A file with the paths of 13 images, of which the fourth is damaged."""
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for number in range(13):
        pixels = random.integers(0, 256, (9, 12, 3), np.uint8).repeat(10, 0).repeat(10, 1)
        Image.fromarray(pixels).save(folder / f"{number:012d}.jpg")
    (folder / "000000000003.jpg").write_text("<html>404</html>")
    names = folder / "list.txt"
    names.write_text("\n".join(str(path) for path in sorted(folder.glob("*.jpg"))) + "\n\n")
    return names


@pytest.fixture(scope="module")
def expected(listed, tmp_path_factory):
    """The results of the command without Beam."""
    folder = tmp_path_factory.mktemp("plain")
    with pytest.raises(InputError, match="1 of 13 files could not be read"):
        files.predict(None, str(listed), output_dir=str(folder), overlays=False, detector="none")
    return json.loads((folder / "keypoints.json").read_text())


def _command(listed, output, *more):
    flags = [f"--images={listed}", f"--output_dir={output}", "--detector=none", *more]
    return [sys.executable, "-m", "kpose.predict", *flags]


def _lines(output):
    shards = sorted(pathlib.Path(output).glob("predictions-*.jsonl"))
    return [json.loads(line) for shard in shards for line in shard.read_text().splitlines()]


def _check(output, expected):
    lines = _lines(output)
    assert [line["image_id"] for line in lines] == list(range(13))
    assert [line["image_id"] for line in lines if "error" in line] == [3]
    assert [result for line in lines for result in line.get("results", [])] == expected
    counts = json.loads((output / "predictions.json").read_text())
    assert (counts["persons"], counts["failed"], len(counts["files"])) == (12, 1, 5)


def test_two_processes_give_the_answers_of_the_command(listed, expected, tmp_path):
    pytest.importorskip("distributed", reason="no Dask: pip install '.[dask]'")
    with dask_cluster.running(env=dict(os.environ)) as address:
        beam = ["--shards=5", "--beam=--runner=DaskRunner", f"--beam=--dask_client_address={address}"]
        done = subprocess.run(_command(listed, tmp_path, *beam), capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "1 of 13 files could not be read" in done.stderr.splitlines()[-1]
    assert "000000000003.jpg: not an image" in done.stderr
    _check(tmp_path, expected)


def test_a_killed_run_continues_and_other_inputs_are_refused(listed, expected, tmp_path):
    command = _command(listed, tmp_path, "--shards=5", LOCAL)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    summaries = tmp_path / "predictions.shards"
    while process.poll() is None and not list(summaries.glob("*.jsonl.json")):
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    kept = {path.with_suffix("").name for path in summaries.glob("*.jsonl.json")}
    assert 1 <= len(kept) < 5
    before = {name: (tmp_path / name).stat().st_mtime_ns for name in kept}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and f"continuing: {len(kept)} of 5 shards are complete" in done.stderr
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in kept} == before
    _check(tmp_path, expected)
    assert not list(tmp_path.glob("**/*.tmp")) and not list(summaries.glob("*.job"))

    from kpose.predict import beam

    other = {"detector": "multipose"}
    with pytest.raises(InputError, match="predictions of other images or settings") as error:
        beam.predict(None, str(listed), str(tmp_path), 5, [LOCAL.removeprefix("--beam=")], **other)
    helpers.one_line(error)
    _check(tmp_path, expected)


def test_a_list_of_images_that_is_empty_is_one_line(tmp_path):
    (tmp_path / "list.txt").write_text("\n\n")
    with pytest.raises(InputError, match="the list of images is empty") as error:
        files.find_images(str(tmp_path / "list.txt"))
    helpers.one_line(error)


def test_flags_that_a_pipeline_ignores_are_refused(listed, tmp_path):
    for flag in ("--json", "--track", "--every=2"):
        done = subprocess.run(_command(listed, tmp_path, LOCAL, flag), capture_output=True, text=True, timeout=60)
        assert done.returncode == 1 and "cannot be used with --beam" in done.stderr.splitlines()[-1]
