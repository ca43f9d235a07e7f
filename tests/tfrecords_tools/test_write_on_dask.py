"""write_coco on a real distributed engine: two worker processes of Dask, one of which is killed."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from tests import dask_cluster, dask_worker_dies
from tfrecords_tools.figures import dataset

pytest.importorskip("distributed", reason="no Dask: pip install '.[dask]'")


@pytest.fixture(scope="module")
def bad_image(tmp_path_factory):
    """(annotations, folder of images, one of which is damaged, that image undamaged)."""
    folder = str(tmp_path_factory.mktemp("drawn"))
    annotations = dataset.render_dataset(folder, 24, seed=1, split="train", workers=1)
    images = pathlib.Path(folder, "images", "train")
    broken = sorted(images.iterdir())[3]
    whole = shutil.copy(broken, folder)
    broken.write_text("<html>404</html>")
    return annotations, images, whole


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """(address of a cluster, folder with the process ids of its workers)."""
    folder = tmp_path_factory.mktemp("workers")
    env = {**os.environ, dask_worker_dies.FOLDER: str(folder)}
    with dask_cluster.running(dask_worker_dies.__name__, env=env) as address:
        yield address, folder


def _write(data, output, *more):
    flags = {"annotations": data[0], "images": data[1], "output_dir": output, "select": "labelled", "crop_size": 64}
    command = [sys.executable, "-m", "tfrecords_tools.write_coco", *(f"--{k}={v}" for k, v in flags.items()), *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def _on(address):
    return "--beam=--runner=DaskRunner", f"--beam=--dask_client_address={address}"


def test_a_worker_is_killed_and_the_records_are_the_same(bad_image, cluster, tmp_path):
    address, workers = cluster
    local, distributed = tmp_path / "local", tmp_path / "distributed"
    done = _write(bad_image, local, "--shards=8", "--on_error=skip")
    assert done.returncode == 0, done.stderr
    said = _lines(done, local)
    done = _write(bad_image, distributed, "--shards=8", "--on_error=skip", *_on(address))
    assert done.returncode == 0, done.stderr
    assert (workers / dask_worker_dies.KILLED).exists(), "no worker was killed"
    # Both that were there at the start, and perhaps the one that Dask started in place of the killed one.
    assert len([path for path in workers.iterdir() if path.name.isdigit()]) >= 2
    ours, theirs = ({p.name: p.read_bytes() for p in folder.iterdir()} for folder in (distributed, local))
    assert ours == theirs
    manifest = json.loads(ours["train.manifest.json"])
    assert len(manifest["shards"]) == 8 and manifest["skipped"]
    assert set(said) <= set(_lines(done, distributed)), "the counts of persons are other than those of a local write"


def _lines(done, folder):
    return [line.replace(str(folder), "") for line in done.stderr.splitlines()]


def test_an_error_is_one_line_and_the_same_command_continues(bad_image, cluster, tmp_path):
    """Complete shards of a pipeline are kept, here by a local write."""
    images = tmp_path / "images"
    shutil.copytree(bad_image[1], images)
    records = tmp_path / "records"
    done = _write((bad_image[0], images), records, "--shards=8", *_on(cluster[0]))
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert "pipeline failed" in last and "not an image" in last
    # Nothing looks like complete records, and no job stays.
    assert not list(records.glob("train-*")) and not list(records.glob("train.partial/*.job"))
    shutil.copy(bad_image[2], images)
    kept = {path: path.stat().st_mtime_ns for path in records.glob("train.partial/train-*-of-00008")}
    done = _write((bad_image[0], images), records, "--shards=8", "--workers=1")
    assert done.returncode == 0, done.stderr
    if kept:
        assert f"continuing: {len(kept)} of 8 shards are complete" in done.stderr
        assert all((records / path.name).stat().st_mtime_ns == time for path, time in kept.items())
