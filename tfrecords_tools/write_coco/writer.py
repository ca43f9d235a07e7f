"""Writes the record shards of the selected persons, and their manifest.

A write has three steps: `plan.prepare` reads the labels and distributes the persons over shards,
`shards.write_shard` writes one shard, `manifest.finish` moves the shards into place and writes the
manifest. The second step runs in local processes or in a Beam pipeline (`beam`).
"""

from absl import logging

from kpose.core import files
from kpose.core.errors import InputError
from kpose.data import records
from tfrecords_tools.write_coco import processes, staging
from tfrecords_tools.write_coco.manifest import finish, inputs_of, shards_agree
from tfrecords_tools.write_coco.plan import prepare
from tfrecords_tools.write_coco.shards import write_shard


def write_records(options):
    """Writes the shards and then the manifest.

    The shards are written to a staging folder and moved when all are complete, so a write that
    fails does not change earlier records. An interrupted write continues; a finished write with the
    same inputs is not repeated.

    Args:
        options: `WriteOptions`.

    Returns:
        The manifest, as written.

    Raises:
        InputError: bad annotations, a missing or damaged image, no person selected, a full disk.
    """
    return carry_out(options, lambda jobs, total: processes.run(write_shard, jobs, options.workers, total))


def carry_out(options, run):
    """Writes the shards and the manifest, as `write_records`, with another way to run the jobs.

    Args:
        options: `WriteOptions`.
        run: function of (argument tuples of `write_shard`, one for each missing shard; number of
            persons in them) -> iterable of (index of the job, summary of its shard).

    Returns:
        The manifest, as written.
    """
    files.check_folder_for_output(options.output_dir)
    plan = prepare(options)
    options = plan.options
    existing = _existing_manifest(options)
    same = existing and inputs_of(existing) == plan.inputs and not staging.exists(options)
    if same and shards_agree(existing, options):
        logging.info("%s already contains these records", options.output_dir)
        return existing
    with staging.open_staging(options, plan.inputs) as stage:
        names = [plan.file_name(index) for index in range(len(plan.shards))]
        summaries = {name: stage.summary(name) for name in names}
        missing = [index for index, name in enumerate(names) if summaries[name] is None]
        if len(missing) < len(names):
            logging.info("continuing: %d of %d shards are complete", len(names) - len(missing), len(names))
        jobs = [(*plan.shards[index], options, stage.path(names[index])) for index in missing]
        for index, summary in run(jobs, sum(len(job[0]) for job in jobs)):
            name = names[missing[index]]
            stage.keep(name, summary)
            summaries[name] = summary
        return finish(plan, list(summaries.values()), stage)


def _existing_manifest(options):
    """The manifest of an earlier write; None if there is none, or if it is damaged."""
    try:
        found = records.read_manifest(options.output_dir, options.split)
    except InputError as error:
        logging.warning("%s: the records are written again", error)
        return None
    return found if isinstance(found, dict) and isinstance(found.get("shards"), list) else None
