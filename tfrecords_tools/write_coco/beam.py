"""Writes records with Apache Beam (Dask, Dataflow, Flink, Spark): a shard is an element of a pipeline.

The process that starts the pipeline reads the labels, selects the persons, and writes the job of
each shard (its persons and images) to a file in the staging folder. The pipeline itself holds only
the paths of these files: a runner such as Dataflow accepts descriptions of at most 10 MB, and the
persons of COCO alone have 88 MB. The workers cut the crops and write the shards, with the code that
local processes use, so the bytes are the same.

The pipeline has no outputs, side inputs or groups, and each step leaves a complete file or none. So
it is correct on every runner, also on one that repeats the work of a worker that was killed.

The workers must reach the images and the output folder: on more than one machine both must be URLs,
or folders that all of them share. kpose must be installed on the workers (Beam's options
--setup_file or --sdk_container_image).
"""

import contextlib
import hashlib
import pickle

from kpose.core import beam_runs, files
from kpose.core.errors import InputError
from tfrecords_tools.write_coco import writer
from tfrecords_tools.write_coco.shards import write_shard


def write_records(options, pipeline_options):
    """Writes the shards and the manifest, as `writer.write_records`, with a Beam pipeline.

    Args:
        options: `WriteOptions`; `workers` is not used: the number of workers is handled by the Beam
            runner.
        pipeline_options: Beam's own options, as on a command line.

    Returns:
        The manifest, as written.

    Raises:
        InputError: as `writer.write_records`, Beam is not installed, or the pipeline failed.
    """
    pipeline_options = beam_runs.read_options(pipeline_options)

    def run(jobs, total):
        persons = {_summary_path(job[-1]): len(job[0]) for job in jobs}
        with _job_files(jobs) as elements:
            beam_runs.run(beam_runs.import_beam().Map(_write_shard), elements, persons, "persons", pipeline_options)
        for index, path in enumerate(persons):
            yield index, files.read_json(path, "summary of a shard")

    return writer.carry_out(options, run)


@contextlib.contextmanager
def _job_files(jobs):
    """Yields [(path, SHA-256)] of files with the pickled jobs, which are removed at the end."""
    elements = []
    try:
        for job in jobs:
            path, data = f"{job[-1]}.job", pickle.dumps(job)
            elements.append((path, hashlib.sha256(data).hexdigest()))
            with files.replacing(path, "wb") as file:
                file.write(data)
        yield elements
    finally:
        for path, _ in elements:
            if files.is_file(path):
                files.remove(path)


def _summary_path(shard_path):
    return f"{shard_path}.json"


def _write_shard(element):
    """Writes the shard of a job file, and then its summary."""
    path, digest = element
    data = files.read_bytes(path)
    # Only what the first process wrote is unpickled.
    if hashlib.sha256(data).hexdigest() != digest:
        raise InputError(f"{path}: another file than this pipeline wrote")
    persons, images, options, shard_path = pickle.loads(data)
    summary = write_shard(persons, images, options, shard_path, beam_runs.counter("persons"))
    files.write_json(_summary_path(shard_path), summary)
