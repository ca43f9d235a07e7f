"""The writer: each person once, the same bytes for any number of workers, no incomplete files."""

import glob
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kpose.core import geometry, skeleton_files, skeletons
from kpose.core.errors import InputError
from kpose.data import records, resampling
from kpose.data.coco_files import Person, read_labels
from kpose.export import requests
from tests import helpers
from tfrecords_tools.figures.dataset import render_dataset
from tfrecords_tools.write_coco import writer
from tfrecords_tools.write_coco.annotations import SELECTIONS, select_persons
from tfrecords_tools.write_coco.plan import plan_shards


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Annotation file and image folder of a few synthetic images."""
    folder = str(tmp_path_factory.mktemp("drawn"))
    annotations = render_dataset(folder, 10, seed=1, split="train", workers=1)
    return annotations, os.path.join(folder, "images", "train")


def _read(pattern):
    """All records of a glob, parsed, in order."""
    dataset = tf.data.TFRecordDataset(sorted(glob.glob(str(pattern))))
    return [{name: value.numpy() for name, value in records.parse(one, skeletons.COCO).items()} for one in dataset]


def _files(folder):
    """{name: bytes} of the files directly in a folder."""
    return {path.name: path.read_bytes() for path in pathlib.Path(folder).iterdir() if path.is_file()}


def _selected(annotations, select="labelled"):
    return select_persons(read_labels(annotations, skeletons.COCO), select)


def _one_photo(tmp_path, image, box=(10, 10, 40, 60), name="photo.png", **save):
    """A data set of one image; returns its annotation file and folder."""
    photos = tmp_path / "photos"
    photos.mkdir(exist_ok=True)
    image.save(photos / name, **save)
    people = [helpers.annotation(77, 1, box, helpers.keypoints_in(box))]
    entry = helpers.image_entry(1, name, image.size[::-1])
    return helpers.write_coco(tmp_path / "labels.json", [entry], people), photos


def test_bytes_do_not_depend_on_the_workers(drawn, tmp_path):
    one = writer.write_records(helpers.options(*drawn, tmp_path / "one", shards=3, workers=1))
    two = writer.write_records(helpers.options(*drawn, tmp_path / "two", shards=3, workers=2))
    assert one == two
    contents = _files(tmp_path / "one")
    assert len(contents) == 4
    assert contents == _files(tmp_path / "two")


def test_seeds_change_the_order_and_nothing_else(drawn, tmp_path):
    for seed in (0, 1):
        writer.write_records(helpers.options(*drawn, tmp_path / str(seed), shards=1, seed=seed))
    first, second = (_read(tmp_path / str(seed) / "train-*") for seed in (0, 1))
    ids = [[int(person["annotation_id"]) for person in people] for people in (first, second)]
    assert ids[0] != ids[1] and sorted(ids[0]) == sorted(ids[1])
    assert ids[0] != sorted(ids[0])
    jpegs = [{int(person["annotation_id"]): person["jpeg"] for person in people} for people in (first, second)]
    assert jpegs[0] == jpegs[1]


@pytest.mark.parametrize("select", SELECTIONS)
def test_every_selected_person_is_written_once(select, drawn, tmp_path):
    writer.write_records(helpers.options(*drawn, tmp_path, select=select, shards=4))
    selected, _ = _selected(drawn[0], select)
    by_id = {person.id: person for person in selected}
    written = _read(tmp_path / "train-*")
    assert sorted(int(person["annotation_id"]) for person in written) == sorted(by_id)
    for person in written:
        annotation = by_id[int(person["annotation_id"])]
        labels = np.column_stack([person["keypoints"], person["visibility"]])
        np.testing.assert_allclose(labels.ravel(), annotation.keypoints.ravel(), rtol=1e-6)
        np.testing.assert_allclose(person["box"], annotation.box, rtol=1e-6)
        np.testing.assert_allclose(person["area"], annotation.area, rtol=1e-6)
        assert int(person["image_id"]) == annotation.image_id
        with Image.open(os.path.join(drawn[1], person["file_name"].decode())) as image:
            assert tuple(person["image_size"]) == (image.height, image.width)


def test_people_are_dealt_evenly_and_images_stay_together():
    people = [Person(id=index, image_id=index // 2) for index in range(46)]
    plan = plan_shards(people, 5, seed=3)
    images = [{person.image_id for person in shard} for shard in plan]
    assert sorted(len(shard) for shard in plan) == [8, 8, 10, 10, 10]
    assert sum(len(shard) for shard in images) == len(set().union(*images)) == 23
    assert sorted(person.id for shard in plan for person in shard) == list(range(46))


def test_the_manifest_agrees_with_the_files(drawn, tmp_path):
    manifest = writer.write_records(
        helpers.options(*drawn, tmp_path, select="fully_visible", shards=3, padding=1.5, crop_size=(40, 24), seed=9)
    )
    assert records.read_manifest(str(tmp_path), "train") == manifest
    selected, dropped = _selected(drawn[0], "fully_visible")
    assert manifest["persons"] == len(selected) > 0
    assert manifest["images_used"] == len({person.image_id for person in selected})
    assert manifest["dropped"] == dict(dropped) and sum(dropped.values()) > 0
    assert manifest["schema_version"] == records.SCHEMA_VERSION
    settings = {name: manifest[name] for name in ("select", "padding", "crop_size", "seed", "skeleton", "annotations")}
    assert settings == {
        "select": "fully_visible",
        "padding": 1.5,
        "crop_size": [40, 24],
        "seed": 9,
        "skeleton": skeleton_files.to_fields(skeletons.COCO),
        "annotations": "person_keypoints_train.json",
    }
    names = {f"train-{index:05d}-of-00003" for index in range(3)}
    assert {shard["file"] for shard in manifest["shards"]} == names
    assert set(os.listdir(tmp_path)) == names | {"train.manifest.json"}
    for shard in manifest["shards"]:
        path = tmp_path / shard["file"]
        assert shard["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert shard["persons"] == len(_read(path))
    found = records.find(str(tmp_path / "train-*"))
    assert (found.padding, found.crop_size) == (1.5, (40, 24))


def test_the_region_is_the_padded_box_and_the_crop_shows_it(tmp_path):
    box = (30, 20, 40, 50)
    pattern, keypoints = helpers.painted_records(tmp_path, [box], padding=1.5, crop_size=(96, 80), shards=1)
    (person,) = _read(pattern)
    np.testing.assert_allclose(person["box"], box)
    np.testing.assert_allclose(person["region"], [20, 7.5, 60, 75])
    crop = records.decode_jpeg(person["jpeg"]).numpy()
    assert crop.shape == (96, 80, 3)
    for channel, joint in enumerate(helpers.PAINTED):
        x, y = keypoints[0, joint, :2]
        expected = [(x - 20) / 60 * 80, (y - 7.5) / 75 * 96]
        assert np.abs(helpers.find_dot(crop[..., channel]) - expected).max() < 0.6


def test_more_shards_than_images(tmp_path):
    pattern, _ = helpers.painted_records(tmp_path, [(20, 20, 50, 50)] * 3, shards=8)
    assert len(glob.glob(pattern)) == 3
    assert len(_read(pattern)) == 3
    assert len(records.find(pattern).paths) == 3


def test_an_earlier_write_of_another_shard_count_is_removed(tmp_path):
    pattern, _ = helpers.painted_records(tmp_path, [(20, 20, 50, 50)] * 3, shards=3)
    other = tmp_path / "records" / "train-small-00000-of-00001"
    other.write_bytes(b"another split")
    helpers.painted_records(tmp_path, [(20, 20, 50, 50)] * 3, shards=2)
    shards = {"train-00000-of-00002", "train-00001-of-00002"}
    assert set(os.listdir(tmp_path / "records")) == shards | {other.name, "train.manifest.json"}


def test_a_split_named_like_a_glob_touches_no_other(tmp_path):
    annotations, photos, _ = helpers.painted_dataset(str(tmp_path), [(20, 20, 50, 50)] * 2)
    for split in ("train", "trai?"):
        writer.write_records(helpers.options(annotations, photos, tmp_path / "records", split=split, shards=2))
        writer.write_records(helpers.options(annotations, photos, tmp_path / "records", split=split, shards=1))
    assert "train-00000-of-00001" in os.listdir(tmp_path / "records")


def _break_one_image(drawn, tmp_path, damage):
    """(copy of the images in which the image that is written last cannot be read, its path)."""
    photos = tmp_path / "photos"
    shutil.copytree(drawn[1], photos)
    annotations = read_labels(drawn[0], skeletons.COCO)
    plan = plan_shards(select_persons(annotations, "labelled")[0], 3, seed=0)
    path = photos / annotations.images[plan[-1][-1].image_id].file_name
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:-2000])
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        path.write_text("<html>404</html>")
    return photos, path


@pytest.mark.parametrize(
    ("damage", "complaint", "workers"),
    [
        ("missing", "no such image file", 1),
        ("truncated", "cannot be decoded.*cut short", 2),
        ("truncated", "cannot be decoded.*cut short", 1),
        ("empty", "not an image", 1),
        ("text", "not an image", 1),
    ],
)
def test_an_unreadable_image_stops_the_write_and_leaves_nothing_half_done(damage, complaint, workers, drawn, tmp_path):
    photos, path = _break_one_image(drawn, tmp_path, damage)
    output = tmp_path / "records"
    with pytest.raises(InputError, match=complaint) as error:
        writer.write_records(helpers.options(drawn[0], photos, output, shards=3, workers=workers))
    assert helpers.one_line(error).startswith(f"{path}: ")
    assert not [name for name in os.listdir(output) if name.endswith(".tmp")]
    assert not (output / "train.manifest.json").exists()
    with pytest.raises(InputError):
        records.find(str(output / "train-*"))


def test_a_failed_write_leaves_the_earlier_records_as_they_were(drawn, tmp_path):
    output = tmp_path / "records"
    writer.write_records(helpers.options(*drawn, output, shards=3))
    before = _files(output)
    photos, _ = _break_one_image(drawn, tmp_path, "missing")
    with pytest.raises(InputError):
        writer.write_records(helpers.options(drawn[0], photos, output, shards=3, padding=1.2))
    assert _files(output) == before


@pytest.mark.parametrize("box", [(120, 10, 20, 20), (10, 90, 20, 20), (-30, 10, 30, 20), (10, -25, 20, 20)])
def test_a_box_outside_its_image_names_the_annotation(box, tmp_path):
    annotations, photos = _one_photo(tmp_path, Image.new("RGB", (120, 90)), box)
    with pytest.raises(InputError, match=r"annotation 77: .*photo.png of 120 x 90") as error:
        writer.write_records(helpers.options(annotations, photos, tmp_path / "records"))
    helpers.one_line(error)
    assert not (tmp_path / "records").exists()


def test_a_box_partly_outside_is_cut_with_black(tmp_path):
    white = Image.new("RGB", (120, 90), "white")
    annotations, photos = _one_photo(tmp_path, white, (-20, 30, 40, 120))
    writer.write_records(helpers.options(annotations, photos, tmp_path / "records"))
    (person,) = _read(tmp_path / "records" / "train-*")
    crop = records.decode_jpeg(person["jpeg"]).numpy()
    assert crop[:30, 34:].min() > 245 and crop[:, :30].max() < 10 and crop[34:].max() < 10


def _dots():
    return helpers.paint_dots((90, 120), [(40, 30)] * 3, sigma=6)


@pytest.mark.parametrize(
    ("name", "convert"),
    [
        ("grey.jpg", lambda image: image.convert("L")),
        ("colour.png", lambda image: image),
        ("palette.png", lambda image: image.quantize(256)),
        ("alpha.png", lambda image: image.convert("RGBA")),
        ("deep.tif", lambda image: image.convert("L")),
        ("ink.jpg", lambda image: image.convert("CMYK")),
    ],
)
def test_images_of_any_kind_become_rgb_crops(name, convert, tmp_path):
    annotations, photos = _one_photo(tmp_path, convert(Image.fromarray(_dots())), (10, 10, 64, 64), name)
    writer.write_records(helpers.options(annotations, photos, tmp_path / "records"))
    (person,) = _read(tmp_path / "records" / "train-*")
    crop = records.decode_jpeg(person["jpeg"]).numpy()
    assert np.abs(crop.astype(int) - _dots()[10:74, 10:74]).max() < 24


def test_the_stored_crop_is_what_the_exported_model_cuts(drawn, tmp_path):
    """Training and serving use the same crop, except for the loss of its JPEG."""
    writer.write_records(helpers.options(*drawn, tmp_path, shards=1, padding=1.25))
    for person in _read(tmp_path / "train-*")[:6]:
        with open(os.path.join(drawn[1], person["file_name"].decode()), "rb") as file:
            cut = resampling.crop_image(requests.decode(file.read()), tf.constant(person["region"]), (64, 64)).numpy()
        stored = records.decode_jpeg(person["jpeg"]).numpy()
        assert np.abs(stored.astype(int) - cut).mean() < 4
        region = geometry.pad_box(person["box"].astype(float), 1.25)
        np.testing.assert_allclose(person["region"], region, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("area", [None, 0, float("nan"), "large"])
def test_a_person_without_area_gets_the_boxs(area, tmp_path):
    box = (10, 10, 40, 60)
    person = helpers.annotation(1, 1, box, helpers.keypoints_in(box), area=area)
    Image.new("RGB", (120, 90)).save(tmp_path / "a.png")
    path = helpers.write_coco(tmp_path / "labels.json", [helpers.image_entry(1, "a.png", (90, 120))], [person])
    writer.write_records(helpers.options(path, tmp_path, tmp_path / "records"))
    assert _read(tmp_path / "records" / "train-*")[0]["area"] == 2400


def test_nothing_selected_and_no_image_folder(drawn, tmp_path):
    box = (10, 10, 40, 60)
    people = [helpers.annotation(1, 1, box, helpers.keypoints_in(box, flag=1))]
    path = helpers.write_coco(tmp_path / "labels.json", [helpers.image_entry(1, "a.png", (90, 120))], people)
    output = tmp_path / "records"
    with pytest.raises(InputError, match="--select=fully_visible selects no person"):
        writer.write_records(helpers.options(path, tmp_path, output, select="fully_visible"))
    with pytest.raises(InputError, match="nowhere: no such image folder"):
        writer.write_records(helpers.options(path, tmp_path / "nowhere", output))
    assert not output.exists()


def _run(*arguments):
    command = [sys.executable, "-m", "tfrecords_tools.write_coco", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_command_dry_run(drawn):
    done = _run(f"--annotations={drawn[0]}", "--select=fully_visible", "--dry_run")
    assert done.returncode == 0 and done.stderr == ""
    selected, dropped = _selected(drawn[0], "fully_visible")
    assert f"selected: {len(selected)} persons" in done.stdout
    assert f"dropped: {sum(dropped.values())} persons" in done.stdout
    for reason, count in dropped.items():
        assert any(line.split(maxsplit=1) == [str(count), reason] for line in done.stdout.splitlines())


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--annotations=none.json", "--dry_run"], "none.json"),
        (["--annotations=none.json"], "--images is missing"),
        (["--annotations=none.json", "--select=best"], "select"),
        (["--annotations=none.json", "--shard=3"], "shard"),
    ],
)
def test_command_bad_flags(arguments, complaint):
    done = _run(*arguments)
    assert done.returncode == 1 and done.stdout == ""
    assert complaint in done.stderr and "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_images_in_a_zip_file_give_the_same_records_as_in_a_folder(tmp_path):
    annotations = render_dataset(str(tmp_path), 6, seed=9, split="train", workers=1)
    folder = tmp_path / "images" / "train"
    with zipfile.ZipFile(tmp_path / "train.zip", "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, f"train2017/{path.name}")
    written = {}
    for source in (str(folder), str(tmp_path / "train.zip")):
        out = str(tmp_path / f"records{len(written)}")
        written[source] = writer.write_records(helpers.options(annotations, source, out))["shards"]
    first, second = written.values()
    assert first == second

    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    (tmp_path / "text.zip").write_text("no archive")
    for source, message in (("empty.zip", "no such image in the .zip"), ("text.zip", "neither a folder nor a .zip")):
        with pytest.raises(InputError, match=message):
            writer.write_records(helpers.options(annotations, str(tmp_path / source), str(tmp_path / "none")))


def test_images_of_another_size_than_their_labels_are_refused(tmp_path):
    annotations = render_dataset(str(tmp_path), 2, seed=9, split="train", workers=1)
    folder = tmp_path / "images" / "train"
    path = sorted(folder.iterdir())[0]
    with Image.open(path) as image:
        image.resize((image.width // 2, image.height // 2)).save(path)
    with pytest.raises(InputError, match=f"{path.name}: the image has .* but its labels are for"):
        writer.write_records(helpers.options(annotations, str(folder), str(tmp_path / "records")))
