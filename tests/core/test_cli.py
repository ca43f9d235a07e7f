"""The binaries from the user's side: help, exit status, a one-line error on bad input."""

import importlib.util
import os
import subprocess
import sys

import pytest

from kpose.core import cli

BINARIES = {
    "kpose.train": {"config", "workdir"},
    "kpose.evaluate": {"workdir", "records", "annotations", "output_dir", "flip_test"},
    "kpose.export": {"workdir", "output_dir"},
    "kpose.export.shipped_model": {"workdir", "name", "facts", "output_dir", "best"},
    "kpose.predict": {
        *("model", "images", "boxes", "output_dir", "overlays", "detector", "min_score", "json", "every"),
    },
    "kpose.benchmark": {"runs"},
    "kpose.demo": {"output_dir"},
    "tfrecords_tools.write_coco": {
        *("annotations", "images", "output_dir", "split", "select", "padding", "workers", "shards", "dry_run"),
        *("context", "category", "on_error", "verify", "beam"),
    },
    "tfrecords_tools.download_coco": {"output_dir", "files"},
    "tfrecords_tools.inspect": {"records", "augment"},
    "tfrecords_tools.convert": {
        "from",
        "input",
        "output",
        "images",
        "category",
        "margin",
        "on_missing",
        "joints",
        "split",
    },
    "tfrecords_tools.convert_lsp": {"joints", "images", "output"},
    "tfrecords_tools.convert_csv": {"csv", "images", "output"},
    "tfrecords_tools.figures": {"output_dir", "num_images", "seed", "split", "workers"},
}


def binary_of(module):
    """The module that `python -m module` runs."""
    package = importlib.util.find_spec(module).submodule_search_locations is not None
    return importlib.import_module(f"{module}.__main__" if package else module)


def run(monkeypatch, capfd, module, *arguments):
    """Runs a binary in this process; returns (exit status, stdout, stderr)."""
    binary = binary_of(module)
    for name in list(binary.FLAGS):
        if name.startswith("config."):
            # Defined when an earlier command line was parsed.
            delattr(binary.FLAGS, name)
        else:
            binary.FLAGS[name].unparse()
    monkeypatch.setattr(sys, "argv", [module.replace(".", "-"), *arguments])
    with pytest.raises(SystemExit) as caught:
        binary.console()
    captured = capfd.readouterr()
    return caught.value.code or 0, captured.out, captured.err


@pytest.mark.parametrize("module", BINARIES)
def test_help_explains_every_flag(module, monkeypatch, capfd):
    status, out, _ = run(monkeypatch, capfd, module, "--help")
    binary = binary_of(module)
    assert status == 0 and binary.__doc__.strip() in out
    assert BINARIES[module] <= set(binary.FLAGS)
    for name in binary.FLAGS:
        assert f"--{name}\n      " in out and len(binary.FLAGS[name].help) > 8


BAD = [
    ("kpose.train", ["--workdir=w"], "--config is missing"),
    ("kpose.train", ["--config=deeppose"], "--workdir is missing: Folder of the run"),
    ("kpose.train", ["--config=deeposse", "--workdir=w"], "no recipe 'deeposse'"),
    (
        "kpose.train",
        ["--config=deeppose", "--workdir=w", "--config.batchsize=3"],
        "'batchsize': did you mean 'batch_size'",
    ),
    ("kpose.train", ["--config=deeppose", "--workdir=w", "--config.batch_size=many"], "batch_size"),
    ("kpose.train", ["--config=deeppose", "--workdir=w", "--config.batch_size=-1"], "batch_size is -1"),
    ("kpose.train", ["--config=deeppose", "--workdir=w"], "data.train is empty"),
    (
        "kpose.train",
        ["--config=deeppose", "--workdir=w", "--config.data.train=none/t-*"],
        "no records match 'none/t-*'",
    ),
    ("kpose.evaluate", ["--workdir=none", "--records=none-*"], "none/config.json: no such"),
    ("kpose.evaluate", ["--results=none.json"], "--annotations is missing"),
    ("kpose.evaluate", ["--results=none.json", "--annotations=none.json"], "none.json: no such"),
    ("kpose.evaluate", ["--results=none.json", "--annotations=a", "--skeleton=none.yaml"], "none.yaml: the skeleton"),
    ("kpose.evaluate", ["--workdir=w", "--records=none-*", "--skeleton=lsp"], "--skeleton is for --results"),
    ("kpose.export", ["--workdir=none"], "none/config.json: no such"),
    ("kpose.predict", ["--model=none", "--images=none.jpg", "--output_dir=o"], "none.jpg: no such file"),
    ("kpose.predict", ["--model=none", "none.jpg"], "none.jpg: no such file"),
    ("kpose.predict", ["--model=none"], "--images is missing: An image"),
    ("kpose.predict", ["none.jpg", "--model=none", "--every=0"], "every"),
    ("kpose.benchmark", ["--runs=1"], "the first argument must be one of input, train, serve, write"),
    ("kpose.benchmark", ["speed"], "the first argument must be one of"),
    ("tfrecords_tools.write_coco", ["--annotations=none.json", "--dry_run"], "none.json: no such annotation file"),
    ("tfrecords_tools.write_coco", ["--annotations=none.json"], "--images is missing"),
    ("tfrecords_tools.write_coco", ["--annotations=a", "--select=some"], "fully_visible|labelled"),
    ("tfrecords_tools.write_coco", ["--annotations=a", "surplus", "--dry_run"], "unexpected argument 'surplus'"),
    ("tfrecords_tools.write_coco", ["--annotation=a"], "unknown flag --annotation: did you mean --annotations?"),
    ("tfrecords_tools.inspect", ["--records=none-*"], "no records match 'none-*'"),
    ("tfrecords_tools.figures", ["--output_dir=", "--num_images=1"], "output_dir"),
]


@pytest.mark.parametrize("module, arguments, message", BAD)
def test_bad_input_is_one_line_and_a_status_that_is_not_0(module, arguments, message, monkeypatch, capfd, tmp_path):
    monkeypatch.chdir(tmp_path)
    status, _, err = run(monkeypatch, capfd, module, *arguments)
    assert status == 1
    assert message in err and "error: " in err
    assert len(err.strip().splitlines()) == 1 and "Traceback" not in err
    assert os.listdir(tmp_path) == []


def test_errors_that_are_not_the_input_s_keep_their_traceback(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["program"])

    def main():
        raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        cli.run(main, cli.flag_set(), "doc")


def test_installed_commands_and_recipes_work_outside_the_checkout(tmp_path):
    command = os.path.join(os.path.dirname(sys.executable), "kpose-train")
    if not os.path.exists(command):
        pytest.skip("kpose is not installed in this environment")
    done = subprocess.run([command, "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "--workdir" in done.stdout
    done = subprocess.run([command, "--config=deeppose", "--workdir=w"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and "kpose-train: error: config.data.train is empty" in done.stderr


def test_a_reader_that_has_enough_ends_it_quietly():
    script = (
        "from kpose.core import cli\n"
        "def main():\n"
        "    for _ in range(100_000): print('0123456789')\n"
        "cli.run(main, cli.flag_set(), 'Prints.', tensorflow=False)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "0123456789\n"
    process.stdout.close()
    said = process.stderr.read()
    assert process.wait(timeout=60) == 1 and said == ""
