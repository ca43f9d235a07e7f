"""Records that changed since a run began: their checksums are kept in the run's records.json.

{"data.train": [data set, ...], "data.val": {name: data set}}, where a data set has the glob and, for
each shard, its name, its size, and its SHA-256 in the manifest (null without a manifest).
"""

import itertools
import os

from absl import logging

from kpose.core import files
from kpose.core.errors import InputError
from kpose.data import records
from kpose.runs import checkpoints

RECORDS_FILE = "records.json"


def _describe(training, validation):
    """The content of records.json; arguments as for `check`."""
    return {
        "data.train": [_data_set(found) for found in training],
        "data.val": {name: _data_set(found) for name, found in validation.items()},
    }


def _data_set(found):
    manifests, shards = {}, []
    for path in found.originals or found.paths:
        stem = path[: -len("-00000-of-00000")]
        if stem not in manifests:
            manifests[stem] = _checksums(*os.path.split(stem))
        name = os.path.basename(path)
        shards.append({"file": name, "bytes": files.size(path), "sha256": manifests[stem].get(name)})
    return {"glob": found.pattern, "shards": shards}


def _checksums(folder, split):
    """{shard: SHA-256} of a manifest; {} without one."""
    manifest = records.read_manifest(folder, split)
    shards = manifest.get("shards") if isinstance(manifest, dict) else None
    listed = [shard for shard in shards or () if isinstance(shard, dict)]
    return {shard.get("file"): shard.get("sha256") for shard in listed}


def check(config, workdir, training, validation):
    """Compares the records with those with which the run in the folder was trained before.

    Sets of records are equal if all their shards are, wherever they are. A validation set that is
    new, or was left out, is not compared. Runs of older versions have no checksums.

    Args:
        config: the recipe.
        workdir: the run's folder.
        training: list of the `records.RecordFiles` of data.train.
        validation: {name: `records.RecordFiles`} of data.val.

    Raises:
        InputError: the records are others, and `config.data.changed` is not "accept".
    """
    path = os.path.join(workdir, RECORDS_FILE)
    if not checkpoints.exist(workdir):
        return
    saved = files.read_json_or_set_aside(path, "list of records", _is_list_of_records)
    if saved is None:
        return
    reason = _first_change(saved, _describe(training, validation))
    if reason is None:
        return
    if config.data.changed == "accept":
        logging.warning("the records are not those with which %s began: %s; accepted", workdir, reason)
        return
    raise InputError(
        f"{workdir}: the records are not those with which the run began: {reason}: give the same records, or use "
        "another --workdir, or continue with these records by --config.data.changed=accept"
    )


def save(folder, training, validation):
    """Writes records.json into the folder of a run; other arguments as for `check`."""
    files.write_json(os.path.join(folder, RECORDS_FILE), _describe(training, validation))


def _first_change(saved, described):
    """The first difference of two contents of records.json as text; None if they are equal."""
    before, now = saved["data.train"], described["data.train"]
    if len(before) != len(now):
        return f"data.train had {len(before)} data sets, and now {len(now)}"
    pairs = list(zip(before, now, strict=True))
    kept = saved["data.val"].keys() & described["data.val"].keys()
    pairs += [(saved["data.val"][name], described["data.val"][name]) for name in sorted(kept)]
    return next(filter(None, itertools.starmap(_change, pairs)), None)


def _change(before, now):
    if len(before["shards"]) != len(now["shards"]):
        return f"{now['glob']!r} had {len(before['shards'])} shards, and now {len(now['shards'])}"
    for old, new in zip(before["shards"], now["shards"], strict=True):
        if old["bytes"] != new["bytes"]:
            return f"{new['file']} of {now['glob']!r} had {old['bytes']:,} bytes, and now {new['bytes']:,}"
        # Without a manifest the sizes alone are compared.
        if None not in (old["sha256"], new["sha256"]) and old["sha256"] != new["sha256"]:
            return f"{new['file']} of {now['glob']!r} has another checksum in its manifest"
    return None


def _is_list_of_records(data):
    """Whether the data of a JSON file have the form that `_describe` returns."""
    return (
        isinstance(data, dict)
        and isinstance(data.get("data.train"), list)
        and isinstance(data.get("data.val"), dict)
        and all(map(_is_data_set, [*data["data.train"], *data["data.val"].values()]))
    )


def _is_data_set(data):
    shards = data.get("shards") if isinstance(data, dict) else None
    return isinstance(shards, list) and all(
        isinstance(shard, dict) and isinstance(shard.get("bytes"), int) and "sha256" in shard for shard in shards
    )
