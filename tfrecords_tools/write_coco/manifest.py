"""The manifest of a write: its inputs, its command, and the checksums of the shards."""

import collections
import glob
import hashlib
import importlib.metadata
import os
import platform

import kpose
from kpose.core import files
from kpose.core.errors import InputError
from kpose.data import records


def inputs(options):
    return {
        "schema_version": records.SCHEMA_VERSION,
        "kpose_version": kpose.__version__,
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in ("numpy", "pillow", "cykooz.resizer")},
        "command": _command(options),
        "skeleton": options.skeleton.name,
        "annotations": os.path.basename(options.annotations),
        "annotations_sha256": hashlib.sha256(files.read_bytes(options.annotations)).hexdigest(),
        "images": options.images,
        "select": options.select,
        "category": options.category,
        "padding": options.padding,
        "aspect": options.aspect,
        "context": options.stored[1] / options.padding,
        "crop_size": list(options.crop_size),
        "stored_size": list(options.stored[0]),
        "seed": options.seed,
        "on_error": options.on_error,
        "shard_count": options.shards,
    }


def _command(options):
    flags = {
        "annotations": options.annotations,
        "images": options.images,
        "split": options.split,
        "select": options.select,
        "category": options.category,
        "padding": f"{options.padding:g}",
        "aspect": f"{options.aspect:g}" if options.aspect else "",
        "context": f"{options.context:g}",
        "crop_size": ",".join(map(str, options.crop_size)),
        "shards": options.shards,
        "seed": options.seed,
        "skeleton": options.skeleton.name,
        "on_error": options.on_error,
    }
    given = " ".join(f"--{name}={value}" for name, value in flags.items() if value != "")
    return f"python -m tfrecords_tools.write_coco {given}"


def inputs_of(manifest):
    return {key: value for key, value in manifest.items() if key not in RESULTS}


# What a manifest tells beside the inputs.
RESULTS = ("persons", "images_used", "dropped", "skipped", "skipped_examples", "kinds", "shards")


def sizes_agree(manifest, options):
    sizes = (
        (files.size(os.path.join(options.output_dir, shard["file"])), shard["bytes"]) for shard in manifest["shards"]
    )
    return all(there == written for there, written in sizes)


def finish(plan, summaries, stage):
    """Puts the shards in place and writes the manifest; returns it.

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
        raise InputError(f"{options.annotations}: all of its selected persons were skipped: nothing is written")
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
    # Until all shards are in place, none of them is vouched for.
    if files.is_file(path):
        files.remove(path)
    stage.move_into_place([shard["file"] for shard in shards])
    _remove_earlier(options, {shard["file"] for shard in shards})
    files.write_json(path, manifest)
    stage.clear()
    return manifest


def _remove_earlier(options, written):
    """Removes what an earlier write of this split left: shards of another count, which a glob would read too."""
    for path in files.matching(glob.escape(os.path.join(options.output_dir, options.split)) + "-?????-of-?????"):
        if os.path.basename(path) not in written:
            files.remove(path)
