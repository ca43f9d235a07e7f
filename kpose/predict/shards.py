"""Predictions for many images as shards of JSON lines: the plan, one shard, and the counts of all.

In the output folder are `predictions-00000-of-00008.jsonl` ..., `predictions.json` with the inputs
and the counts, and `predictions.shards/` with a summary of each complete shard and, until the end,
the jobs. A shard is written aside and renamed, and then its summary is written.
"""

import contextlib
import hashlib
import json
import os

from absl import logging

import kpose
from kpose.core import files, locks
from kpose.core.errors import InputError
from kpose.predict import files as prediction
from kpose.predict import inputs, videos

NAME, SUMMARY = "predictions", "predictions.json"
# Errors of images that are logged.
_NAMED = 10


def plan(images, output_dir, shards):
    """The images of each shard, in their order.

    Args:
        images: as for `files.find_images`.
        output_dir: the output folder.
        shards: number of shards; fewer if there are fewer images.

    Returns:
        List of lists of (image id, name, path), as `kpose.predict` has the ids and names.

    Raises:
        InputError: there is no image, or a video.
    """
    paths = prediction.find_images(images, output_dir)
    for path in paths:
        if videos.is_stream(path) or path.lower().endswith(videos.SUFFIXES):
            raise InputError(f"{path}: --beam is for images: leave --beam out for videos")
    rows = [
        (number, path, path if "://" in path else os.path.abspath(path))
        for number, path in zip(prediction.image_ids(paths), paths, strict=True)
    ]
    count = min(shards, len(rows))
    return [rows[len(rows) * k // count : len(rows) * (k + 1) // count] for k in range(count)]


def carry_out(planned, settings, output_dir, overwrite, run):
    """Writes the shards that are missing, and the counts of all.

    Args:
        planned: what `plan` returned.
        settings: dict of JSON values on which the results depend.
        output_dir: the output folder.
        overwrite: replace the results of another command.
        run: function of {path of a job: its number of images}, which calls `write_shard` for each.

    Returns:
        The counts, as written to `predictions.json`.

    Raises:
        InputError: the folder holds results of other inputs and `overwrite` is not set, it cannot be
            written, or some images could not be read (at the end, after all is written).
    """
    files.check_folder_for_output(output_dir)
    given = {"version": kpose.__version__, **settings, "images": sum(map(len, planned)), "shards": len(planned)}
    given["sha256"] = _digest(planned)
    stage, result = os.path.join(output_dir, f"{NAME}.shards"), os.path.join(output_dir, SUMMARY)
    with locks.locked(stage, "predicting into this folder"):
        known = os.path.join(stage, "inputs.json")
        earlier = next(
            (files.read_json(path, "inputs of predictions") for path in (known, result) if files.is_file(path)), None
        )
        earlier = earlier.get("inputs") if isinstance(earlier, dict) else earlier
        if earlier is not None and earlier != given:
            _remove_earlier(output_dir, stage, overwrite)
        if not files.is_file(known):
            files.write_json(known, {"inputs": given})
        jobs = _jobs(planned, output_dir, stage)
        todo = {job: len(rows) for job, (shard, rows) in jobs.items() if not _summary(job, shard)}
        if len(todo) < len(jobs):
            logging.info("continuing: %d of %d shards are complete", len(jobs) - len(todo), len(jobs))
        for job in todo:
            shard, rows = jobs[job]
            files.write_json(
                job, {"shard": os.path.abspath(shard) if "://" not in shard else shard, "images": rows}, indent=None
            )
        if todo:
            run(todo)
        summaries = [files.read_json(summary_path(job), "summary of a shard") for job in jobs]
        counts = {key: sum(one[key] for one in summaries) for key in ("persons", "failed", "empty")}
        files.write_json(result, {"inputs": given, **counts, "files": summaries})
    # The summaries stay: the same command keeps the complete shards. A killed worker leaves its file.
    for folder in (stage, output_dir):
        for name in files.names_in(folder) if files.is_folder(folder) else ():
            if name.startswith(f"{NAME}-") and name.endswith((".job", ".tmp")):
                files.remove(os.path.join(folder, name))
    _report(given["images"], counts, summaries, output_dir)
    return counts


def _digest(planned):
    digest = hashlib.sha256()
    for rows in planned:
        digest.update(json.dumps(rows).encode())
    return digest.hexdigest()


def _remove_earlier(output_dir, stage, overwrite):
    """Removes the shards of other inputs."""
    if not overwrite:
        raise InputError(
            f"{output_dir}: it has predictions of other images or settings: choose another --output_dir, or give "
            "--overwrite"
        )
    for folder in (output_dir, stage):
        for name in files.names_in(folder):
            shard = name.startswith(f"{NAME}-") and ("-of-" in name)
            if shard or name in (SUMMARY, "inputs.json"):
                files.remove(os.path.join(folder, name))


def _jobs(planned, output_dir, stage):
    """{path of a job: (path of its shard, its images)}."""
    names = [f"{NAME}-{index:05d}-of-{len(planned):05d}.jsonl" for index in range(len(planned))]
    return {
        os.path.join(stage, f"{name}.job"): (os.path.join(output_dir, name), rows)
        for name, rows in zip(names, planned, strict=True)
    }


def summary_path(job):
    """The path of the summary of a shard, which is written last."""
    return f"{job.removesuffix('.job')}.json"


def _summary(job, shard):
    """Whether a shard is complete."""
    path = summary_path(job)
    if not files.is_file(path):
        return False
    with contextlib.suppress(InputError, KeyError, TypeError):
        if files.read_json(path, "summary of a shard")["bytes"] == files.size(shard):
            return True
    files.remove(path)
    return False


def write_shard(job, model, detector):
    """Predicts the images of a job, writes their shard and then its summary.

    Each line is the JSON of an image: `image_id`, `file_name` and `results`, the COCO results of its
    persons as in `keypoints.json`; or `error` in place of the results.

    Args:
        job: path of the job.
        model: `kpose.predict.model.Model`.
        detector: as for `Model.predict_image`.

    Returns:
        The summary: dict of `file`, `images`, `persons`, `failed`, `empty`, `bytes`, `errors`.
    """
    data = files.read_json(job, "job of a shard")
    shard = data["shard"]
    summary = {"file": os.path.basename(shard), "images": len(data["images"]), "persons": 0, "failed": 0, "empty": 0}
    errors = []
    with files.replacing(shard, "wb") as file:
        size = 0
        for (image_id, name, _), image, error in inputs.read_ahead(data["images"], _read):
            line = {"image_id": image_id, "file_name": name}
            try:
                if error is not None:
                    raise error
                people = model.predict_image(image, None, detector)
                line["results"] = prediction.coco_results([image_id] * len(people), people, name)
                summary["persons"] += len(people)
                summary["empty"] += not people
            except InputError as problem:
                line["error"] = str(problem)
                summary["failed"] += 1
                errors.append(str(problem))
            text = json.dumps(line).encode() + b"\n"
            file.write(text)
            size += len(text)
    summary |= {"bytes": size, "errors": errors[:_NAMED]}
    files.write_json(summary_path(job), summary)
    return summary


def _read(row):
    _, name, path = row
    return inputs.Source(path, name).read()


def _report(images, counts, summaries, output_dir):
    errors = [text for one in summaries for text in one["errors"]]
    for text in errors[:_NAMED]:
        logging.error("skipped: %s", text)
    pattern = os.path.join(output_dir, f"{NAME}-*.jsonl")
    logging.info("%d persons in %d files: %s", counts["persons"], images - counts["failed"], pattern)
    if counts["empty"]:
        logging.info("nobody found in %d of %d files", counts["empty"], images)
    if counts["failed"]:
        raise InputError(
            f"{counts['failed']} of {images} files could not be read (the first are named above, all have an error in "
            "the results); the others are done"
        )
