"""The folder OUTPUT_DIR/SPLIT.partial, where the shards of a write are until all are complete.

It holds `inputs.json` (the inputs of the write), the complete shards, and beside each shard a
summary that is written after it. A write with the same inputs continues with these shards; a write
with other inputs starts again.
"""

import contextlib
import os

from absl import logging

from kpose.core import files, locks
from kpose.core.errors import InputError
from tfrecords_tools.write_coco import manifest

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
        """The summary of a complete shard, which is here or in the output folder; otherwise None.

        The shard is complete if its checksum is that of the summary. A damaged summary is no
        summary: the shard is written again.
        """
        path = self.path(f"{name}.json")
        if not files.is_file(path):
            return None
        try:
            summary = files.read_json(path, "summary of a shard")
        except InputError as error:
            logging.warning("%s: its shard is written again", error)
            return None
        if not _is_summary(summary, name):
            logging.warning("%s: not the summary of a shard: its shard is written again", path)
            return None
        if manifest.is_shard(self.path(name), summary):
            return summary
        if files.is_file(self.path(name)):
            logging.warning("%s: changed after it was written: removed", self.path(name))
            files.remove(self.path(name))
        return summary if manifest.is_shard(os.path.join(self._output_dir, name), summary) else None

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


def _is_summary(data, name):
    """Whether the data of a JSON file are the summary of a shard (`shards.write_shard`)."""
    numbers, tables = ("persons", "images", "bytes"), ("skipped", "skipped_examples", "kinds")
    return (
        isinstance(data, dict)
        and (data.get("file"), type(data.get("sha256"))) == (name, str)
        and all(type(data.get(key)) is int for key in numbers)
        and all(isinstance(data.get(key), dict) for key in tables)
    )
