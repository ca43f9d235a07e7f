"""Statistics and contact sheets of records: the counts are right, the sheet shows the persons."""

import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kpose import config as config_lib
from kpose.core import skeletons
from kpose.core.errors import InputError
from kpose.data import records
from kpose.drawing.sheets import CAPTION_HEIGHT, GUTTER, TITLE_HEIGHT, legend
from tests import hands, helpers
from tests.core.test_cli import run
from tfrecords_tools.inspect.sheets import inspect, inspect_augmentation
from tfrecords_tools.write_coco import writer

TILE = 192  # side of a place on the sheet


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Glob of 2 shards with 5 persons in 3 images: box heights 20 to 60, some joints occluded."""
    folder = tmp_path_factory.mktemp("made")
    photos = folder / "photos"
    photos.mkdir()
    images, people = [], []
    for number in (1, 2, 3):
        Image.new("RGB", (120, 90), (200, 0, 0)).save(photos / f"{number}.png")
        images.append(helpers.image_entry(number, f"{number}.png", (90, 120)))
    for index, image_id in enumerate((1, 1, 2, 2, 3)):
        box = (10, 10, 18, 20 + 10 * index)  # all higher than wide
        joints = helpers.keypoints_in(box, seed=index)
        if index < 2:
            joints[0, 2] = 1  # the nose, occluded for two
        if index == 4:
            joints[16] = 0  # the right ankle, unlabelled for one
        people.append(helpers.annotation(50 + index, image_id, box, joints))
    annotations = helpers.write_coco(folder / "labels.json", images, people)
    writer.write_records(helpers.options(annotations, photos, folder / "records", padding=1.25, crop_size=(40, 32)))
    return str(folder / "records" / "train-*")


def _tiles(path, columns, persons):
    """The number of places of a contact sheet that show a red image."""
    with Image.open(path) as sheet:
        assert sheet.format == "PNG" and sheet.mode == "RGB"
        pixels = np.asarray(sheet).astype(int)
    gap, caption, title = 6, CAPTION_HEIGHT, 2 * CAPTION_HEIGHT
    rows = -(-persons // columns)
    width = gap + columns * (TILE + gap)
    below = len(legend(skeletons.COCO, width))
    assert pixels.shape == (title + gap + rows * (TILE + caption + gap) + below, width, 3)
    shown = 0
    for row in range(rows):
        for column in range(columns):
            top, left = title + gap + row * (TILE + caption + gap), gap + column * (TILE + gap)
            place = pixels[top : top + TILE, left : left + TILE]
            shown += ((place[..., 0] > 150) & (place[..., 1:].max(-1) < 60)).mean() > 0.05
    return shown


def test_the_lines_describe_the_records(made, tmp_path):
    lines = inspect(made, str(tmp_path / "sheet.png"))
    text = "\n".join(lines)
    assert f"{made}: 5 persons of 3 images in 2 shards" in lines[0]
    assert "skeleton coco (17 joints), crops 40 x 32 pixels of the box times 1.25" in text
    assert "box height in pixels: 30 / 40 / 50 (quartiles); width: 18 / 18 / 18 (quartiles)" in text
    assert "fully visible: 2 persons" in text
    table = {line.split()[0]: line.split()[1:] for line in lines}
    assert table["nose"] == ["60.0%", "40.0%", "0.0%"]
    assert table["right_ankle"] == ["80.0%", "0.0%", "20.0%"]
    assert table["left_ankle"] == ["100.0%", "0.0%", "0.0%"]
    assert set(skeletons.COCO.joints) <= set(table)
    shards = {name: int(table[f"{name}:"][0]) for name in ("train-00000-of-00002", "train-00001-of-00002")}
    assert sum(shards.values()) == 5
    folder = os.path.dirname(made)
    manifest = records.read_manifest(folder, "train")
    assert shards == {shard["file"]: shard["persons"] for shard in manifest["shards"]}
    assert lines[-1] == f"contact sheet: {tmp_path / 'sheet.png'}"


def test_a_joint_that_nobody_labels_is_a_dash_and_a_warning(tmp_path):
    pattern, _, _ = hands.make_records(str(tmp_path), "train", 3, unlabelled=[2])
    lines = inspect(pattern, str(tmp_path / "sheet.png"))
    table = {line.split()[0]: line.split()[1:] for line in lines}
    assert table["thumb2"] == ["-", "-", "100.0%"] and table["thumb1"] == ["100.0%", "0.0%", "0.0%"]
    assert "warning: no record labels thumb2" in lines


@pytest.mark.parametrize(("wanted", "shown"), [(40, 5), (3, 3), (1, 1)])
def test_the_sheet_shows_the_wanted_number_of_persons(wanted, shown, made, tmp_path):
    path = str(tmp_path / "sheet.png")
    inspect(made, path, persons=wanted)
    assert _tiles(path, columns=shown, persons=shown) == shown
    assert os.listdir(tmp_path) == ["sheet.png"]


def test_seeds_choose_other_persons(made, tmp_path):
    sheets = []
    for index, seed in enumerate((0, 0, 1)):
        path = tmp_path / f"{index}.png"
        inspect(made, str(path), persons=2, seed=seed)
        sheets.append(path.read_bytes())
    assert sheets[0] == sheets[1]
    assert len(set(sheets)) > 1


def test_no_records_are_an_error_and_no_sheet(tmp_path):
    with pytest.raises(InputError, match="no records match"):
        inspect(str(tmp_path / "train-*"), str(tmp_path / "sheet.png"))
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_shard_is_named(damage, made, tmp_path):
    source = os.path.join(os.path.dirname(made), "train-00000-of-00002")
    with open(source, "rb") as file:
        data = bytearray(file.read())
    first = next(iter(tf.data.TFRecordDataset(source))).numpy()
    if damage == "cut":
        del data[-20:]
    else:
        data[len(first) + 16 + 40] ^= 0xFF  # in the second record
    path = tmp_path / "train-00000-of-00001"
    path.write_bytes(data)
    with pytest.raises(InputError, match="damaged or cut short") as error:
        inspect(str(tmp_path / "train-*"), str(tmp_path / "sheet.png"))
    assert helpers.one_line(error).startswith(f"{path}: ")
    assert os.listdir(tmp_path) == [path.name]


def _run(*arguments):
    command = [sys.executable, "-m", "tfrecords_tools.inspect", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_command_prints_and_writes_beside_the_records(made):
    done = _run(f"--records={made}", "--persons=4")
    sheet = os.path.join(os.path.dirname(made), "contact_sheet.png")
    try:
        assert done.returncode == 0 and done.stderr == ""
        assert "5 persons of 3 images" in done.stdout and done.stdout.rstrip().endswith(f"contact sheet: {sheet}")
        assert _tiles(sheet, columns=4, persons=4) == 4
    finally:
        if os.path.exists(sheet):
            os.remove(sheet)


def test_command_without_records_is_one_line(tmp_path, monkeypatch, capfd):
    status, out, err = run(monkeypatch, capfd, "tfrecords_tools.inspect", f"--records={tmp_path}/train-*")
    assert status == 1 and out == ""
    assert len(err.splitlines()) == 1 and "no records match" in err


def test_a_sheet_of_what_the_network_sees_in_training(made, tmp_path):
    """A row per person: the stored crop, then seven different augmented crops."""
    config = config_lib.load_recipe("deeppose_geometric")
    config.data.padding, config.model.input_size = 1.0, (64, 64)
    lines = inspect_augmentation(made, config, str(tmp_path / "sheet.png"), persons=3, seed=1)
    assert "rotation" in lines[0] and lines[-1].endswith("sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        pixels = np.asarray(sheet).astype(int)
    top, step = TITLE_HEIGHT + GUTTER, TILE + GUTTER
    below = len(legend(skeletons.COCO, GUTTER + 8 * step))
    assert pixels.shape == (top + 3 * step + below, GUTTER + 8 * step, 3)
    for row in range(3):
        tiles = [pixels[top + row * step :][:TILE, GUTTER + column * step :][:, :TILE] for column in range(8)]
        assert all((tile[..., 0] > 150).mean() > 0.02 for tile in tiles)
        assert len({tile.tobytes() for tile in tiles}) == 8


@pytest.mark.slow
def test_command_draws_augmented_crops_beside_the_records(made):
    command = [sys.executable, "-m", "tfrecords_tools.inspect", f"--records={made}"]
    done = subprocess.run([*command, "--augment=coco_integral"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert os.path.exists(os.path.join(os.path.dirname(made), "augmented_coco_integral.png"))
    done = subprocess.run([*command, "--augment=deeppose"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "has no augmentation" in done.stderr and len(done.stderr.splitlines()) == 1
