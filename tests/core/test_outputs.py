"""An output that cannot be written: one line, before the work where that can be known."""

import contextlib
import importlib
import os
import resource
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from kpose.core import cli, files
from kpose.core.errors import InputError
from tests import helpers
from tests.core.test_cli import run

# The other inputs do not exist: the output is checked before they are read.
COMMANDS = {
    "kpose.evaluate --results": ["--results=none.json", "--annotations=none.json", "--output_dir={}"],
    "kpose.evaluate --compare": ["--compare=none,none", "--output_dir={}"],
    "kpose.predict": ["a.jpg", "--model=none", "--output_dir={}"],
    "kpose.compare": ["--output_dir={}"],
    "kpose.demo": ["--output_dir={}"],
    "tfrecords_tools.write_coco": ["--annotations=none.json", "--images=none", "--output_dir={}"],
    "tfrecords_tools.convert": ["--from=yolo", "--input=none.yaml", "--output={}/a.json"],
    "tfrecords_tools.convert_csv": ["--csv=none.csv", "--images=none", "--output={}/a.json"],
    "tfrecords_tools.convert_lsp": ["--joints=none.mat", "--images=none", "--output={}/a.json"],
    "tfrecords_tools.download_coco": ["--output_dir={}"],
    "tfrecords_tools.figures": ["--output_dir={}"],
    "tfrecords_tools.inspect --records": ["--records=none-*", "--sheet={}/a.png"],
    "tfrecords_tools.inspect --annotations": ["--annotations=none.json", "--images=none", "--sheet={}/a.png"],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("place", ["file", "file/below", "/proc/kpose"])
def test_an_output_that_cannot_be_written_is_one_line(command, place, monkeypatch, capfd, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save("a.jpg")
    arguments = [argument.format(place) for argument in COMMANDS[command]]
    status, _, err = run(monkeypatch, capfd, command.split()[0], *arguments)
    assert status == 1 and len(err.strip().splitlines()) == 1, err
    assert f"{place}: nothing can be written there (" in err and "choose another --" in err
    assert sorted(os.listdir(tmp_path)) == ["a.jpg", "file"]


def test_a_run_that_cannot_be_written_is_one_line(tiny_run, tiny_data, tmp_path):
    from kpose.evaluate import on_records
    from kpose.export import converted, saved_model
    from kpose.train import setup
    from tests import tiny

    (tmp_path / "file").touch()
    output = str(tmp_path / "file" / "below")
    for work in (
        lambda: on_records.evaluate(tiny_run, "none-*", output_dir=output),
        lambda: saved_model.export(tiny_run, output),
        lambda: converted.export(tiny_run, output, "tflite"),
    ):
        with pytest.raises(
            InputError, match="below: nothing can be written there .*choose another --output_dir"
        ) as error:
            work()
        helpers.one_line(error)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tensorboard").touch()
    with pytest.raises(
        InputError, match="tensorboard: nothing can be written there .*choose another --workdir"
    ) as error:
        setup.claim_workdir(tiny.make_recipe(tiny_data["train"]), str(tmp_path / "run"), None)
    helpers.one_line(error)
    (tmp_path / "model.tflite").mkdir()
    with pytest.raises(InputError, match="model.tflite: is a folder, not a file"):
        converted.export(tiny_run, str(tmp_path), "tflite")


def test_a_folder_of_another_user_is_refused(tmp_path, monkeypatch):
    """Tests may run as root, who may write anywhere."""

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files.tempfile, "TemporaryFile", refuse)
    with pytest.raises(InputError, match="new: nothing can be written there .Permission denied.: choose another --x"):
        files.check_folder_for_output(str(tmp_path / "new"), "--x")
    assert not list(tmp_path.iterdir())


def test_a_new_folder_is_accepted_and_not_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("new", "new/newer", str(tmp_path / "new"), ".", "gs://bucket/new"):
        files.check_folder_for_output(folder)
    files.check_file_for_output("file", "--output")
    assert not list(tmp_path.iterdir())


@contextlib.contextmanager
def _limit(size):
    """A context in which files cannot grow beyond `size` bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_at_an_export_is_one_line(tiny_run, tmp_path):
    from kpose.export import saved_model

    with pytest.raises(InputError, match="cannot be written .*free some disk space") as error, _limit(3000):
        saved_model.export(tiny_run, str(tmp_path))
    helpers.one_line(error)
    assert not list(tmp_path.glob("writing-*")) and not list(tmp_path.glob("[0-9]*"))


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("kpose.predict", ["a.png", "--detector=none", "--nooverlays"]),
        ("kpose.predict", ["a.png", "--detector=none"]),
        ("tfrecords_tools.figures", ["--num_images=1", "--workers=1"]),
    ],
)
def test_a_full_disk_is_one_line(module, arguments, tmp_path):
    Image.fromarray(np.zeros((200, 200, 3), np.uint8)).save(tmp_path / "a.png")
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments, "--output_dir=out"],
        cwd=tmp_path,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "error: " in done.stderr.splitlines()[-1] and "cannot be written (File too large)" in done.stderr
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_an_error_while_writing_names_the_file(tmp_path, monkeypatch, capfd):
    path = str(tmp_path / "a.json")

    def main():
        with _limit(10):
            files.write_json(path, list(range(1000)))

    monkeypatch.setattr(sys, "argv", ["program"])
    with pytest.raises(SystemExit) as ended:
        cli.run(main, cli.flag_set(), "doc", tensorflow=False)
    assert ended.value.code == 1
    reason = "cannot be written (File too large): free some disk space and run the same command again"
    assert capfd.readouterr().err == f"program: error: {path}: {reason}\n"


def test_a_missing_package_is_one_line(tmp_path):
    """As on a machine that only predicts: neither TensorFlow nor what recipes need."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('tensorflow', 'keras', 'ml_collections', 'pycocotools'):\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
    )
    root = os.path.dirname(os.path.dirname(importlib.import_module("kpose").__file__))
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{root}"}
    for module, arguments in {
        "kpose.train": ["--config=demo", "--workdir=w"],
        "kpose.evaluate": ["--workdir=w", "--records=r"],
        "kpose.export": ["--workdir=w"],
    }.items():
        command = [sys.executable, "-m", module, *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
        assert "not installed" in done.stderr and "pip install" in done.stderr
