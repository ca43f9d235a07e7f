"""Records that changed since a run began are refused; records that vanish are one line."""

import json
import os
import shutil

import pytest

from kpose.core.errors import InputError
from kpose.data import records
from kpose.runs import checkpoints
from kpose.train import changed_records, trainer
from tests import helpers, tiny


@pytest.fixture
def copied(tmp_path, tiny_data):
    """The folder of a copy of the records."""
    shutil.copytree(os.path.dirname(tiny_data["train"]), tmp_path / "records")
    return tmp_path / "records"


@pytest.fixture
def checked(copied, tmp_path, monkeypatch):
    """A function that compares the records of a folder with those with which a run began."""
    monkeypatch.setattr(checkpoints, "exist", lambda workdir: True)

    def found(folder=copied):
        return [records.find(str(folder / "train-*"))], {"": records.find(str(folder / "val-*"))}

    def check(folder=copied, changed="refuse", validation=True):
        training, of_validation = found(folder)
        recipe = tiny.make_recipe("", data__changed=changed)
        changed_records.check(recipe, str(tmp_path), training, of_validation if validation else {})

    changed_records.save(str(tmp_path), *found())
    return check


def _write_again(folder, split):
    """Other persons under the same names, as after another write_coco."""
    tiny.make_records(str(folder / "other"), split, 12)
    for path in (folder / "other" / "records").glob(f"{split}*"):
        shutil.copy(path, folder / path.name)


@pytest.mark.parametrize("split", ["train", "val"])
def test_other_records_under_the_same_names_are_a_change(split, checked, copied, caplog):
    checked()
    _write_again(copied, split)
    with pytest.raises(InputError, match=f"not those with which the run began: {split}-00000-of-00002") as error:
        checked()
    assert "--config.data.changed=accept" in helpers.one_line(error)
    with caplog.at_level("WARNING", logger="absl"):
        checked(changed="accept")
    assert "accepted" in caplog.text


def test_a_checksum_alone_is_a_change(checked, copied):
    """Another write of the same size: the manifest says so."""
    path = copied / "train.manifest.json"
    data = json.loads(path.read_text())
    data["shards"][1]["sha256"] = "0" * 64
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match="train-00001-of-00002 .* another checksum in its manifest"):
        checked()


def test_without_a_manifest_the_sizes_are_compared(checked, copied):
    (copied / "train.manifest.json").unlink()
    checked()
    _write_again(copied, "train")
    (copied / "train.manifest.json").unlink()
    with pytest.raises(InputError, match="train-00000-of-00002 .* had [0-9,]+ bytes, and now"):
        checked()


def test_the_same_records_elsewhere_are_no_change(checked, copied):
    copied.rename(copied.parent / "moved")
    checked(copied.parent / "moved")
    checked(copied.parent / "moved", validation=False)


@pytest.mark.parametrize("content", [None, b"\xff garbled", b"[]", b'{"data.train": [{}], "data.val": {}}'])
def test_a_run_without_checksums_goes_on(content, checked, copied, tmp_path, caplog):
    path = tmp_path / "records.json"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    _write_again(copied, "train")
    with caplog.at_level("WARNING", logger="absl"):
        checked()
    assert ("renamed to records.json.damaged" in caplog.text) == (content is not None)


def test_a_run_is_continued_with_its_own_records(tiny_run, copied, tmp_path, monkeypatch):
    workdir = str(tmp_path / "run")
    shutil.copytree(tiny_run, workdir)
    _write_again(copied, "train")
    recipe = tiny.make_recipe(str(copied / "train-*"), str(copied / "val-*"), steps=8)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").glob("*.json")}
    with pytest.raises(InputError, match="not those with which the run began"):
        trainer.train(recipe, workdir)
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "run").glob("*.json")}
    # After they were accepted, they are the records of the run. The steps do not matter here.
    fits = []
    monkeypatch.setattr(trainer, "_fit", lambda run, place, _: fits.append((place.step, run.total_steps)))
    for choice in ("accept", "refuse"):
        recipe.data.changed = choice
        trainer.train(recipe, workdir)
    assert fits == [(6, 8), (6, 8)]


def test_shards_that_are_removed_while_training_are_one_line(copied, tmp_path, monkeypatch):
    recipe = tiny.make_recipe(str(copied / "train-*"), steps=400, data__shuffle_buffer=1)
    save = checkpoints.Checkpoints.save

    def remove(*arguments):
        for path in copied.glob("train-*"):
            path.unlink()
        save(*arguments)

    monkeypatch.setattr(checkpoints.Checkpoints, "save", remove)
    with pytest.raises(InputError, match="train-00000-of-00002: removed while it was read: restore the file") as error:
        trainer.train(recipe, str(tmp_path / "run"))
    helpers.one_line(error)
