"""Writes that are killed, have a full disk or bad input: no data is lost, the error says why."""

import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kpose.core import skeletons
from kpose.core.errors import InputError
from kpose.data import problems, records
from tests import helpers
from tfrecords_tools.figures import dataset
from tfrecords_tools.write_coco import shards as shards_lib
from tfrecords_tools.write_coco import staging, verification, writer


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("drawn"))
    annotations = dataset.render_dataset(folder, 24, seed=1, split="train", workers=1)
    return annotations, os.path.join(folder, "images", "train")


def _files(folder):
    return {path.name: path.read_bytes() for path in pathlib.Path(folder).iterdir() if path.is_file()}


def _command(drawn, output, *more):
    flags = {"annotations": drawn[0], "images": drawn[1], "output_dir": output, "select": "labelled", "crop_size": 64}
    return [sys.executable, "-m", "tfrecords_tools.write_coco", *(f"--{k}={v}" for k, v in flags.items()), *more]


def _run(*arguments, **options):
    return subprocess.run(*arguments, capture_output=True, text=True, timeout=120, **options)


@pytest.mark.parametrize("workers", [1, 2])
def test_after_a_kill_the_same_command_continues(workers, drawn, tmp_path):
    """SIGKILL several times, each time with more shards; no incomplete shard has a final name."""
    whole, output = tmp_path / "whole", tmp_path / "records"
    writer.write_records(helpers.options(*drawn, whole, shards=12))
    command = _command(drawn, output, "--shards=12", f"--workers={workers}")
    staged, kills = output / "train.partial", 0
    while True:
        before = set(staged.glob("*.json")) if staged.exists() else set()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None:
            there = set(staged.glob("train-*.json")) if staged.exists() else set()
            if len(there - before) >= 3 and kills < 3:
                process.send_signal(signal.SIGKILL)
                kills += 1
            time.sleep(0.002)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
        assert not list(output.glob("train-*"))
        for path in before:
            assert path.exists(), "a complete shard was removed"
    assert kills >= 1
    assert not staged.exists()
    ours, theirs = _files(output), _files(whole)
    for contents in (ours, theirs):
        manifest = json.loads(contents.pop("train.manifest.json"))
        assert len(manifest["shards"]) == 12
    assert ours == theirs


def test_complete_shards_are_not_written_again(drawn, tmp_path, monkeypatch):
    options = helpers.options(*drawn, tmp_path, shards=4)
    made, write_shard = [], shards_lib.write_shard

    def failing(persons, images, options, path, progress):
        if len(made) == 2:
            raise InputError("the power is out")
        made.append(path)
        return write_shard(persons, images, options, path, progress)

    monkeypatch.setattr(writer, "write_shard", failing)
    with pytest.raises(InputError, match="power"):
        writer.write_records(options)
    assert not list(tmp_path.glob("train-*"))
    monkeypatch.setattr(writer, "write_shard", lambda *a, **k: made.append(a[3]) or write_shard(*a, **k))
    manifest = writer.write_records(options)
    assert len(made) == len(set(made)) == 4 == len(manifest["shards"])
    # A finished write is not repeated.
    assert writer.write_records(options) == manifest and len(made) == 4
    # It is if a shard was removed.
    os.remove(tmp_path / manifest["shards"][1]["file"])
    assert writer.write_records(options)["shards"] == manifest["shards"] and len(made) == 8


def test_a_write_killed_between_the_renames_continues(drawn, tmp_path, monkeypatch):
    options = helpers.options(*drawn, tmp_path, shards=4)
    replace, renamed = os.replace, []

    def dying(source, target):
        if os.path.dirname(target) == str(tmp_path) and "manifest" not in target:
            if len(renamed) == 2:
                raise KeyboardInterrupt
            renamed.append(target)
        replace(source, target)

    monkeypatch.setattr(os, "replace", dying)
    with pytest.raises(KeyboardInterrupt):
        writer.write_records(options)
    assert records.read_manifest(str(tmp_path), "train") is None
    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(writer, "write_shard", lambda *a, **k: pytest.fail("a complete shard is written again"))
    assert writer.write_records(options)["persons"] == sum(
        s["persons"] for s in writer.write_records(options)["shards"]
    )
    assert verification.verify(str(tmp_path), "train")


def test_other_inputs_start_again(drawn, tmp_path, monkeypatch):
    write_shard = shards_lib.write_shard
    calls = []

    def second_fails(*args, **named):
        calls.append(args)
        if len(calls) == 2:
            raise InputError("the power is out")
        return write_shard(*args, **named)

    monkeypatch.setattr(writer, "write_shard", second_fails)
    with pytest.raises(InputError, match="power"):
        writer.write_records(helpers.options(*drawn, tmp_path, shards=2))
    writer.write_records(helpers.options(*drawn, tmp_path, shards=2, padding=1.3))
    assert records.find(str(tmp_path / "train-*")).padding == pytest.approx(1.3)


def test_two_writes_of_one_split_at_once_are_refused(drawn, tmp_path, monkeypatch):
    options = helpers.options(*drawn, tmp_path, shards=2)
    write_shard = shards_lib.write_shard

    def meanwhile(*args, **named):
        with pytest.raises(InputError, match="another process is writing this split"):
            writer.write_records(options)
        return write_shard(*args, **named)

    monkeypatch.setattr(writer, "write_shard", meanwhile)
    writer.write_records(options)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_is_a_one_line_error_and_keeps_complete_shards(workers, drawn, tmp_path):
    """A limit on the size of files acts as a full disk: writing fails in the middle of a shard."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    command = _command(drawn, tmp_path, "--shards=3", f"--workers={workers}")
    done = _run(command, preexec_fn=limit)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert "cannot be written" in last and "run the same command again" in last
    assert not list(tmp_path.glob("train-*"))
    assert _run(command).returncode == 0
    assert _run(_command(drawn, tmp_path, "--verify")).returncode == 0


def _bad_data(tmp_path):
    """A COCO file with a problem of every kind, and one good person."""
    photos = tmp_path / "photos"
    photos.mkdir()
    pixels = helpers.paint_dots((90, 120), [(40, 30)] * 3, sigma=6)
    for name in ("good.jpg", "small.jpg"):
        Image.fromarray(pixels).save(photos / name, quality=95)
    (photos / "text.jpg").write_text("<html>404</html>")
    data = (photos / "good.jpg").read_bytes()
    (photos / "cut.jpg").write_bytes(data[: len(data) // 3])
    names = {1: "good.jpg", 2: "absent.jpg", 3: "text.jpg", 4: "cut.jpg", 5: "small.jpg"}
    images = [helpers.image_entry(number, name, (90, 120)) for number, name in names.items()]
    images[4] |= {"width": 60}
    images += [helpers.image_entry(1, "other.jpg", (90, 120)), {"id": 9}]
    box = (10, 10, 80, 70)
    sound = helpers.keypoints_in(box)
    people = [helpers.annotation(10 + number, number, box, sound) for number in names]
    people += [
        helpers.annotation(11, 1, box, sound),  # the id of another
        helpers.annotation(20, 77, box, sound),  # an image that is not listed
        helpers.annotation(21, 1, (200, 10, 20, 20), sound),  # outside
        helpers.annotation(22, 1, (-300, 10, 20, 20), sound),
        helpers.annotation(23, 1, box, sound[:14]),
        helpers.annotation(24, 1, box, sound) | {"keypoints": ["a"] * 51},
        helpers.annotation(25, 1, box, np.where(np.arange(3) == 1, np.inf, sound)),
        helpers.annotation(26, 1, box, np.where(np.arange(3) == 2, 7, sound)),
        {"image_id": 1, "keypoints": [0] * 51},
        helpers.annotation(30, 1, (10, 10, 0, 20), sound),  # no area: dropped by any selection
        helpers.annotation(31, 1, (10, float("nan"), 5, 20), sound),
    ]
    return helpers.write_coco(tmp_path / "bad.json", images, people), photos


def test_skipping_counts_every_kind(tmp_path):
    annotations, photos = _bad_data(tmp_path)
    options = helpers.options(annotations, photos, tmp_path / "records", on_error="skip", shards=3)
    manifest = writer.write_records(options)
    assert manifest["skipped"] == {
        problems.BAD_KEYPOINTS: 4,
        problems.BAD_IMAGE: 3,
        problems.OUTSIDE: 2,
        problems.BAD_ENTRY: 1,
        problems.DUPLICATE_IMAGE: 1,
        problems.DUPLICATE_PERSON: 1,
        problems.NO_IMAGE_ENTRY: 1,
        problems.OTHER_SIZE: 1,
    }
    assert manifest["dropped"] == {"no box, or one without area or not of numbers": 2}
    assert manifest["persons"] == manifest["images_used"] == 1
    assert any("text.jpg" in message for message in manifest["skipped_examples"][problems.BAD_IMAGE])
    (shard,) = [path for path in sorted((tmp_path / "records").glob("train-*")) if os.path.getsize(path)]
    (record,) = tf.data.TFRecordDataset(str(shard))
    assert int(records.parse(record, skeletons.COCO)["annotation_id"]) == 11
    assert verification.verify(str(tmp_path / "records"), "train")


def test_stop_is_the_default_and_the_error_names_skip(tmp_path):
    annotations, photos = _bad_data(tmp_path)
    with pytest.raises(InputError, match="--on_error=skip") as error:
        writer.write_records(helpers.options(annotations, photos, tmp_path / "records"))
    helpers.one_line(error)


def test_only_bad_input_writes_nothing(tmp_path):
    annotations, photos = _bad_data(tmp_path)
    os.remove(photos / "good.jpg")
    with pytest.raises(InputError, match="all selected persons were skipped"):
        writer.write_records(helpers.options(annotations, photos, tmp_path / "records", on_error="skip"))
    assert not list((tmp_path / "records").glob("train*manifest*"))


def test_unusual_images_are_counted(tmp_path):
    pixels = Image.fromarray(helpers.paint_dots((90, 120), [(40, 30)] * 3, sigma=6))
    pixels.convert("L").save(tmp_path / "1.jpg")
    pixels.save(tmp_path / "2.png")
    os.replace(tmp_path / "2.png", tmp_path / "2.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "3.jpg", exif=exif, quality=95)
    boxes = [(10, 10, 80, 70), (10, 10, 80, 70), (-20, 10, 80, 70)]
    people = [helpers.annotation(i, i, box, helpers.keypoints_in(box)) for i, box in enumerate(boxes, 1)]
    images = [helpers.image_entry(i, f"{i}.jpg", (90, 120)) for i in (1, 2, 3)]
    path = helpers.write_coco(tmp_path / "labels.json", images, people)
    manifest = writer.write_records(helpers.options(path, tmp_path, tmp_path / "records", shards=1))
    assert manifest["kinds"] == {
        "grey-scale": 1,
        "PNG format": 1,
        "turned by its EXIF orientation: the labels fit the turned pixels": 1,
        "crops that reach beyond the image": 1,
    }
    parsed = [
        records.parse(r, skeletons.COCO)
        for r in tf.data.TFRecordDataset(str(tmp_path / "records" / "train-00000-of-00001"))
    ]
    turned = next(one for one in parsed if int(one["annotation_id"]) == 3)
    assert turned["image_size"].numpy().tolist() == [90, 120]
    crop = records.decode_jpeg(turned["jpeg"]).numpy()
    # The dot at (40, 30) of the upright image, in the crop of the box at (-20, 10).
    expected = [(40 + 20) / 80 * 64, (30 - 10) / 70 * 64]
    assert np.abs(helpers.find_dot(crop[..., 0], 60) - expected).max() < 1.5


@pytest.mark.slow
def test_urls_go_through_tensorflow(drawn, tmp_path):
    writer.write_records(helpers.options(*drawn, tmp_path / "plain"))
    urls = [f"file://{path}" for path in (*drawn, tmp_path / "url")]
    for flags in (["--shards=2", "--workers=2"], ["--verify"]):
        done = _run(_command(urls[:2], urls[2], *flags))
        assert done.returncode == 0, done.stderr
    assert records.find(f"{urls[2]}/train-*").crop_size == (64, 64)
    plain, url = _files(tmp_path / "plain"), _files(tmp_path / "url")
    for contents in (plain, url):
        contents.pop("train.manifest.json")
    assert plain == url
    with pytest.raises(InputError, match="no such image folder"):
        writer.write_records(helpers.options(drawn[0], f"file://{tmp_path}/none", tmp_path / "none"))


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda shards: shards[1].unlink(), "missing"),
        (lambda shards: shards[1].write_bytes(shards[1].read_bytes()[:-7]), "bytes, but"),
        (lambda shards: shards[1].write_bytes(shards[1].read_bytes()[:-1] + b"x"), "another SHA-256"),
        (lambda shards: shutil.copy(shards[1], str(shards[1])[:-1] + "9"), "a shard of another write"),
    ],
)
def test_verify_finds_what_changed(damage, complaint, drawn, tmp_path):
    writer.write_records(helpers.options(*drawn, tmp_path, shards=3))
    done = _run(_command(drawn, tmp_path, "--verify"))
    assert done.returncode == 0 and "all as written by" in done.stdout
    shards = sorted(tmp_path.glob("train-*"))
    damage(shards)
    done = _run(_command(drawn, tmp_path, "--verify"))
    assert done.returncode == 1 and complaint in done.stderr and len(done.stderr.splitlines()) == 1
    assert "train-0000" in done.stderr


def test_verify_without_a_manifest(tmp_path):
    with pytest.raises(InputError, match="no such manifest"):
        verification.verify(str(tmp_path), "train")


def test_the_command_of_the_manifest_writes_the_same_files(drawn, tmp_path):
    manifest = writer.write_records(helpers.options(*drawn, tmp_path / "one", shards=2, context=1.25, padding=1.1))
    arguments = manifest["command"].split()
    assert arguments[:3] == ["python", "-m", "tfrecords_tools.write_coco"]
    done = _run([sys.executable, *arguments[1:], f"--output_dir={tmp_path / 'two'}"])
    assert done.returncode == 0, done.stderr
    assert _files(tmp_path / "one") == _files(tmp_path / "two")
    assert set(manifest["versions"]) == {"python", "numpy", "pillow", "cykooz.resizer"}


@pytest.mark.parametrize("context", [1.25, 1.3])
def test_the_middle_of_a_crop_with_margin_is_the_crop_without(context, tmp_path):
    """Before JPEG encoding, pixel by pixel."""
    from kpose.data import crops

    pixels = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8))
    box = np.array([100.25, 80.5, 111.3, 90.7])
    plain = helpers.options("", "", "", crop_size=(96, 64))
    wide = helpers.options("", "", "", crop_size=(96, 64), context=context)
    assert plain.stored == ((96, 64), 1.0)
    (height, width), padding = wide.stored
    assert abs(padding - context) < 0.04 and padding == pytest.approx(height / 96) == pytest.approx(width / 64)
    top, left = (height - 96) // 2, (width - 64) // 2
    assert (height - 96) % 2 == (width - 64) % 2 == 0
    from kpose.core import geometry

    cut = [
        np.asarray(crops.crop_image(pixels, geometry.pad_box(box, o.stored[1]), o.stored[0]), int)
        for o in (plain, wide)
    ]
    assert np.abs(cut[1][top : top + 96, left : left + 64] - cut[0]).max() <= 1


def test_a_beam_pipeline_writes_the_same_bytes(drawn, tmp_path):
    pytest.importorskip("apache_beam", reason="no Apache Beam: pip install apache-beam")
    writer.write_records(helpers.options(*drawn, tmp_path / "plain", shards=3, skeleton="auto"))
    command = _command(drawn, tmp_path / "beam", "--shards=3", "--beam=--runner=DirectRunner")
    done = _run(command)
    assert done.returncode == 0, done.stderr
    assert _files(tmp_path / "plain") == _files(tmp_path / "beam")
    assert not (tmp_path / "beam" / "train.partial").exists()


def test_an_error_in_a_beam_pipeline_is_one_line(drawn, tmp_path):
    pytest.importorskip("apache_beam", reason="no Apache Beam: pip install apache-beam")
    photos = tmp_path / "photos"
    shutil.copytree(drawn[1], photos)
    sorted(photos.iterdir())[3].write_text("<html>404</html>")
    done = _run(_command((drawn[0], photos), tmp_path / "beam", "--beam=--runner=DirectRunner"))
    # Beam logs more before it.
    assert done.returncode == 1
    assert "not an image" in done.stderr.splitlines()[-1] and "pipeline failed" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("absolute", [False, True])
def test_an_image_outside_the_folder_is_read_only_if_that_is_allowed(absolute, drawn, tmp_path):
    data = json.loads(pathlib.Path(drawn[0]).read_text())
    inside, outside = tmp_path / "images", tmp_path / "others"
    inside.mkdir()
    shutil.copytree(drawn[1], outside)
    for image in data["images"]:
        name = os.path.basename(image["file_name"])
        image["file_name"] = str(outside / name) if absolute else f"a/../../others/{name}"
    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps(data))
    with pytest.raises(InputError, match="the name of this image leaves the folder .*--allow_outside") as error:
        writer.write_records(helpers.options(labels, inside, tmp_path / "records"))
    helpers.one_line(error)
    (inside / "a").mkdir()
    options = helpers.options(labels, inside, tmp_path / "records", allow_outside=True)
    assert writer.write_records(options)["persons"] > 0
    assert "--allow_outside=True" in options.command()


@pytest.fixture
def interrupted(drawn, tmp_path, monkeypatch):
    """A write of four shards of which two are complete: (options, staging folder)."""
    options, write_shard = helpers.options(*drawn, tmp_path, shards=4), shards_lib.write_shard
    calls = []

    def third_fails(*args, **named):
        calls.append(args)
        if len(calls) == 3:
            raise InputError("the power is out")
        return write_shard(*args, **named)

    with monkeypatch.context() as patch:
        patch.setattr(writer, "write_shard", third_fails)
        with pytest.raises(InputError, match="power"):
            writer.write_records(options)
    return options, tmp_path / "train.partial"


def _flip(path):
    """Changes one byte, in the middle; the size stays."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("train-00000-of-00004", _flip),
        ("train-00000-of-00004.json", lambda path: path.write_bytes(b"")),
        ("train-00000-of-00004.json", lambda path: path.write_bytes(b"\xff\x00 garbled")),
        ("train-00000-of-00004.json", lambda path: path.write_text("[]")),
        ("train-00000-of-00004.json", lambda path: path.write_text('{"bytes": 1}')),
        ("train-00000-of-00004.json", lambda path: shutil.copy(str(path).replace("00000-", "00001-"), path)),
    ],
    ids=["shard", "empty", "garbled", "list", "missing fields", "of another shard"],
)
def test_a_damaged_staged_shard_or_summary_is_written_again(name, damage, interrupted, drawn, tmp_path, monkeypatch):
    options, staged = interrupted
    damage(staged / name)
    made, write_shard = [], shards_lib.write_shard
    monkeypatch.setattr(writer, "write_shard", lambda *a, **k: made.append(a[3]) or write_shard(*a, **k))
    writer.write_records(options)
    assert sorted(os.path.basename(path) for path in made) == [f"train-0000{number}-of-00004" for number in (0, 2, 3)]
    writer.write_records(helpers.options(*drawn, tmp_path / "whole", shards=4))
    written = {name: content for name, content in _files(tmp_path).items() if "manifest" not in name}
    assert written == {n: content for n, content in _files(tmp_path / "whole").items() if "manifest" not in n}
    assert verification.verify(str(tmp_path), "train")


def test_a_damaged_staged_shard_does_not_replace_the_good_one(drawn, tmp_path):
    """A kill came after the shard was moved; then its place in the staging folder got other bytes."""
    options = helpers.options(*drawn, tmp_path, shards=2)
    shard = writer.write_records(options)["shards"][0]
    stage = staging.Staging(str(tmp_path / "train.partial"), str(tmp_path))
    summary = shard | {"images": 1, "skipped": {}, "skipped_examples": {}, "kinds": {}}
    stage.keep(shard["file"], summary)
    (tmp_path / "train.partial" / shard["file"]).write_bytes(b"x" * shard["bytes"])
    assert stage.summary(shard["file"]) == summary
    stage.move_into_place([shard["file"]])
    assert verification.verify(str(tmp_path), "train")


@pytest.mark.parametrize("what", ["shard", "manifest"])
def test_a_finished_write_that_was_damaged_is_repeated(what, drawn, tmp_path):
    options = helpers.options(*drawn, tmp_path, shards=2)
    shards = writer.write_records(options)["shards"]
    if what == "shard":
        _flip(tmp_path / shards[1]["file"])
    else:
        (tmp_path / "train.manifest.json").write_bytes(b"\xff\x00 garbled")
    assert writer.write_records(options)["shards"] == shards
    assert verification.verify(str(tmp_path), "train")
