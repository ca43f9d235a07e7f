"""The exports of a run, in the order in which they were written.

RUN/exports.json    list of {"path": relative to the run, "step": newest step of the run at that time}

The order of the list decides which export is the newest. File times do not: they depend on the
clock, and copies of a run have others.
"""

import glob
import os
import re

from kpose.core import files

EXPORTS_FILE = "exports.json"


def add(workdir, path):
    """Adds an export to the list of its run.

    Args:
        workdir: folder of the run; None: a shipped model, which has no list.
        path: folder of a version, or file. Nothing is added if it is outside the run's folder.
    """
    if workdir is None:
        return
    relative = os.path.relpath(os.path.realpath(path), os.path.realpath(workdir))
    if relative.split(os.sep)[0] == os.pardir:
        return
    earlier = [entry for entry in _read(workdir) if entry["path"] != relative]
    entry = {"path": relative, "step": newest_step(workdir)}
    files.write_json(os.path.join(workdir, EXPORTS_FILE), [*earlier, entry])


def newest(workdir, exports):
    """The newest export of a run, and whether the run has newer checkpoints.

    Older versions of kpose wrote no list: if it holds none of the exports, file times decide.

    Args:
        workdir: folder of the run.
        exports: paths of exports that exist, in the run's folder; not empty.

    Returns:
        (path, bool).
    """
    listed = {os.path.join(workdir, entry["path"]): entry["step"] for entry in _read(workdir)}
    known = [path for path in listed if path in exports]
    if known:
        return known[-1], newest_step(workdir) > listed[known[-1]]
    path, state = max(exports, key=os.path.getmtime), os.path.join(workdir, "checkpoints", "checkpoint")
    return path, os.path.exists(state) and os.path.getmtime(state) > os.path.getmtime(path)


def newest_step(workdir):
    """The newest step of which a run has a checkpoint; 0 without checkpoints."""
    names = glob.glob(os.path.join(glob.escape(workdir), "checkpoints", "step-*.index"))
    matches = (re.search(r"step-(\d+)\.index$", name) for name in names)
    return max((int(match[1]) for match in matches if match), default=0)


def _read(workdir):
    return files.read_json_or_set_aside(os.path.join(workdir, EXPORTS_FILE), "list of exports", _is_list) or []


def _is_list(data):
    return isinstance(data, list) and all(
        isinstance(entry, dict) and isinstance(entry.get("path"), str) and isinstance(entry.get("step"), int)
        for entry in data
    )
