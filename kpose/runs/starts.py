"""The starts of a training run: RUN/starts.json has a list with an entry for each."""

import datetime
import importlib.metadata
import os
import platform
import subprocess
import sys

import kpose
from kpose.core import files

STARTS_FILE = "starts.json"
# Packages that can change the results of a run; starts.json holds their versions.
PACKAGES = ("tensorflow", "keras", "keras-cv", "numpy", "numba", "ml_collections")


def note_start(workdir):
    """Adds this start to starts.json: time, command, code and package versions."""
    path = os.path.join(workdir, STARTS_FILE)
    starts = files.read_json_or_set_aside(path, "list of starts", lambda data: isinstance(data, list)) or []
    versions = {"python": platform.python_version(), "kpose": kpose.__version__, "commit": _commit()}
    versions |= {name: importlib.metadata.version(name) for name in PACKAGES}
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    files.write_json(path, [*starts, {"time": now, "command": sys.argv, "versions": versions}])


def _commit():
    """The commit of the code, with a + if files were changed; None if it is not a git checkout."""
    folder = os.path.dirname(os.path.dirname(os.path.abspath(kpose.__file__)))
    commit = _git(folder, "describe", "--always", "--abbrev=40", "--exclude=*")
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return commit + "+" * bool(changes) if commit else None


def _git(folder, *command):
    """What a git command prints; "" if it fails.

    Without locks: `describe --dirty` would leave index.lock in the checkout if a full disk ends it.
    """
    try:
        words = ["git", "--no-optional-locks", "-C", folder, *command]
        return subprocess.run(words, capture_output=True, text=True, timeout=10).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""
