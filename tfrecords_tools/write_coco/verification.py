"""Checks shards against their manifest."""

import glob
import os

from kpose.core import files
from kpose.core.errors import InputError
from kpose.data import records, tfrecord


def verify(directory, split):
    """Checks that the shards of a split are complete and have the bytes that were written.

    Args:
        directory: folder of the records.
        split: name of the shards.

    Returns:
        Lines of text.

    Raises:
        InputError: there is no manifest; or the first shard that is missing, changed, or not in the
            manifest.
    """
    path = records.manifest_path(directory, split)
    manifest = files.read_json(path, "manifest")
    if not isinstance(manifest, dict) or not isinstance(manifest.get("shards"), list):
        raise InputError(f"{path}: not the manifest of a write")
    total = 0
    for shard in manifest["shards"]:
        total += _verify_shard(os.path.join(directory, shard["file"]), shard)
    if total != manifest["persons"]:
        raise InputError(f"{path}: the shards hold {total} persons, but the manifest lists {manifest['persons']}")
    known = {shard["file"] for shard in manifest["shards"]}
    found = files.matching(glob.escape(os.path.join(directory, split)) + "-?????-of-?????")
    for name in sorted(os.path.basename(shard) for shard in found):
        if name not in known:
            raise InputError(f"{os.path.join(directory, name)}: not in {path}: a shard of another write: remove it")
    size = sum(shard["bytes"] for shard in manifest["shards"])
    return [
        f"{directory}: {total:,} persons in {len(known)} shards of {split}, {size / 1e6:.1f} MB: all as written by",
        f"  {manifest.get('command', 'an unknown command')}",
    ]


def _verify_shard(path, shard):
    """The number of records in a shard; `InputError` if the manifest lists another number."""
    size = files.size(path)
    if size is None:
        raise InputError(f"{path}: missing: write the records again")
    if size != shard["bytes"]:
        raise InputError(f"{path}: {size:,} bytes, but {shard['bytes']:,} were written: write the records again")
    if files.sha256(path) != shard["sha256"]:
        raise InputError(f"{path}: changed after it was written (another SHA-256): write the records again")
    persons = sum(1 for _ in tfrecord.read(path))
    if persons != shard["persons"]:
        raise InputError(f"{path}: {persons} records, but the manifest lists {shard['persons']}")
    return persons
