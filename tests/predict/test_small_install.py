"""The small install of docs/serving.md: a virtual environment without TensorFlow."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from tests import docs_data

ROOT = docs_data.REPOSITORY


@pytest.mark.slow
def test_a_machine_that_only_predicts_needs_no_tensorflow(photos, tmp_path):
    source, folder = tmp_path / "source", tmp_path / "venv"
    # pip builds beside setup.py.
    for name in ("kpose", "tfrecords_tools", "configs"):
        shutil.copytree(os.path.join(ROOT, name), source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "requirements-predict.txt", "constraints.txt"):
        shutil.copy(os.path.join(ROOT, name), source)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip, environment = folder / "bin" / "pip", {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    (block,) = (b.text for b in docs_data.blocks("docs/serving.md") if "requirements-predict.txt" in b.text)
    for line in block.splitlines():
        words = line.split()
        assert words[0] == "pip"
        done = subprocess.run([pip, *words[1:]], cwd=source, env=environment, capture_output=True, text=True)
        if done.returncode and "requirements-predict.txt" in line:
            pytest.skip(f"the packages cannot be installed: {done.stderr.strip().splitlines()[-1]}")
        assert done.returncode == 0, done.stderr
    installed = subprocess.run([pip, "list"], env=environment, capture_output=True, text=True).stdout.lower()
    assert "tensorflow" not in installed and "keras" not in installed
    command = [folder / "bin" / "kpose-predict", "--detector=none", f"--output_dir={tmp_path}/found", photos / "a.jpg"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (result,) = json.loads((tmp_path / "found" / "keypoints.json").read_text())
    assert len(result["keypoints"]) == 51
    command = [folder / "bin" / "python", "-c", "import kpose; print(kpose.load().skeleton.num_joints)"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "17", done.stderr
