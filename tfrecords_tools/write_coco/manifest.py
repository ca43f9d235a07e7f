"""The manifest of a write: its inputs, its command, and the checksums of the shards."""

import collections
import glob
import importlib.metadata
import os
import platform

import kpose
from kpose.core import files
from kpose.core.errors import InputError
from kpose.data import records

# Entries of a manifest that are results; all others are inputs.
RESULTS = ("persons", "images_used", "dropped", "skipped", "skipped_examples", "kinds", "shards")


def inputs(options, command):
    """The part of the manifest on which the bytes of the shards depend: dict of JSON values.

    Args:
        options: `WriteOptions` with a `Skeleton`.
        command: the command line of the write.
    """
    packages = ("numpy", "pillow", "cykooz.resizer")
    return {
        "schema_version": records.SCHEMA_VERSION,
        "kpose_version": kpose.__version__,
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in packages},
        "command": command,
    } | options.manifest_entries()


def inputs_of(manifest):
    """The inputs in a manifest, as `inputs` returns them."""
    return {key: value for key, value in manifest.items() if key not in RESULTS}


def shards_agree(manifest, options):
    """Whether all shards of a manifest exist and have their recorded checksums."""
    return all(is_shard(os.path.join(options.output_dir, shard["file"]), shard) for shard in manifest["shards"])


def is_shard(path, entry):
    """Whether a file is the shard of an entry of a manifest, by size and SHA-256."""
    # Most other files have another size: they need not be read.
    return files.size(path) == entry["bytes"] and files.sha256(path) == entry["sha256"]


def finish(plan, summaries, stage):
    """Moves the shards into the output folder and writes the manifest.

    Args:
        plan: the `Plan` of the write.
        summaries: what `shards.write_shard` returned, one dict per shard.
        stage: the `Staging` folder with the shards.

    Returns:
        The manifest, a dict of JSON values.

    Raises:
        InputError: every person was skipped.
    """
    options = plan.options
    for summary in summaries:
        plan.found.add(summary["skipped"], summary["skipped_examples"])
    plan.found.log()
    shards = [{key: summary[key] for key in ("file", "persons", "bytes", "sha256")} for summary in summaries]
    persons = sum(shard["persons"] for shard in shards)
    if not persons:
        raise InputError(f"{options.annotations}: all selected persons were skipped: nothing was written")
    kinds = sum((collections.Counter(summary["kinds"]) for summary in summaries), collections.Counter())
    manifest = plan.inputs | {
        "persons": persons,
        "images_used": sum(summary["images"] for summary in summaries),
        "dropped": dict(plan.dropped.most_common()),
        "skipped": dict(plan.found.counts.most_common()),
        "skipped_examples": plan.found.examples,
        "kinds": dict(kinds.most_common()),
        "shards": shards,
    }
    path = records.manifest_path(options.output_dir, options.split)
    # A manifest exists only while all of its shards do: remove the old one before the shards
    # change.
    if files.is_file(path):
        files.remove(path)
    stage.move_into_place([shard["file"] for shard in shards])
    _remove_earlier(options, {shard["file"] for shard in shards})
    files.write_json(path, manifest)
    stage.clear()
    return manifest


def _remove_earlier(options, written):
    """Removes shards of an earlier write with another shard count, which a glob would also read."""
    for path in files.matching(glob.escape(os.path.join(options.output_dir, options.split)) + "-?????-of-?????"):
        if os.path.basename(path) not in written:
            files.remove(path)
