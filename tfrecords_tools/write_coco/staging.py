"""The folder OUTPUT_DIR/SPLIT.partial, where the shards of a write are until all are complete.

It holds `inputs.json` (the inputs of the write), the complete shards, and beside each shard a
summary that is written after it. A write with the same inputs continues with these shards; a write
with other inputs starts again.
"""

import contextlib
import os

from kpose.core import files, locks
from kpose.core.errors import InputError

INPUTS_FILE = "inputs.json"


def folder(options):
    """The path of the staging folder of a write."""
    return os.path.join(options.output_dir, f"{options.split}.partial")


def exists(options):
    """Whether an unfinished write left its staging folder."""
    return files.is_folder(folder(options))


@contextlib.contextmanager
def open_staging(options, inputs):
    """A context with the `Staging` of a write. The folder is removed when the write is finished.

    Args:
        options: `WriteOptions`.
        inputs: the manifest's entries on which the bytes depend.

    Raises:
        InputError: another process is writing this split.
    """
    path = folder(options)
    stage = Staging(path, options.output_dir)
    with locks.locked(path, "writing this split"):
        stage.claim(inputs)
        try:
            yield stage
        finally:
            if stage.is_empty():
                files.remove(path)


class Staging:
    """The complete shards of one write.

    Args:
        path: the staging folder.
        output_dir: the folder to which the shards are moved.
    """

    def __init__(self, path, output_dir):
        self._path = path
        self._output_dir = output_dir

    def claim(self, inputs):
        """Removes the files of a write with other inputs, and incomplete files."""
        path = os.path.join(self._path, INPUTS_FILE)
        same = False
        if files.is_file(path):
            with contextlib.suppress(InputError):
                same = files.read_json(path, "staging file") == inputs
        for name in files.names_in(self._path):
            if name != locks.LOCK_FILE and (not same or name.endswith(".tmp")):
                files.remove(os.path.join(self._path, name))
        if not same:
            files.write_json(path, inputs)

    def path(self, name):
        """The path of a shard in the folder."""
        return os.path.join(self._path, name)

    def keep(self, name, summary):
        """Records that a shard is complete."""
        files.write_json(self.path(f"{name}.json"), summary)

    def summary(self, name):
        """The summary of a shard that exists, here or in the output folder; otherwise None."""
        path = self.path(f"{name}.json")
        if not files.is_file(path):
            return None
        summary = files.read_json(path, "summary of a shard")
        for place in (self.path(name), os.path.join(self._output_dir, name)):
            if files.size(place) == summary["bytes"]:
                return summary
        return None

    def move_into_place(self, names):
        """Moves shards to the output folder."""
        for name in names:
            if files.is_file(self.path(name)):
                files.move(self.path(name), os.path.join(self._output_dir, name))

    def clear(self):
        """Removes all files except the lock."""
        for name in files.names_in(self._path):
            if name != locks.LOCK_FILE:
                files.remove(self.path(name))

    def is_empty(self):
        """Whether the folder holds no shard and no summary."""
        return not set(files.names_in(self._path)) - {locks.LOCK_FILE, INPUTS_FILE}
