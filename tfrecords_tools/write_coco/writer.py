"""Selected persons -> crops -> record shards and their manifest.

A write is three steps, so that processes or a cluster (`beam_writer`) can share the second one: `prepare` reads the
labels and deals persons out to shards, `write_shard` makes one of them, `finish` puts the shards in place and writes
the manifest.
"""

from absl import logging

from kpose.data import records
from tfrecords_tools.write_coco import processes, staging
from tfrecords_tools.write_coco.manifest import finish, inputs_of, sizes_agree
from tfrecords_tools.write_coco.plan import prepare
from tfrecords_tools.write_coco.shards import write_shard


def write_records(options):
    """Writes the shards and, last of all, the manifest.

    Shards are made in a folder beside the records and move into place when all are whole, so a write that fails leaves
    earlier records as they were. One that was interrupted goes on where it was; one that is done already is left alone.

    Args:
        options: `WriteOptions`.

    Returns:
        The manifest, as written.

    Raises:
        InputError: bad annotations, a missing or damaged image, nothing selected, a full disk.
    """
    return carry_out(options, lambda jobs, total: processes.run(write_shard, jobs, options.workers, total))


def carry_out(options, run):
    """As `write_records`, the shards being made by `run`.

    Args:
        options: `WriteOptions`.
        run: (arguments of `write_shard` for each shard that is missing, persons in all of them) -> iterable of (index
            of the shard among them, its summary).
    """
    plan = prepare(options)
    there = records.read_manifest(options.output_dir, options.split)
    if there and inputs_of(there) == plan.inputs and not staging.exists(options) and sizes_agree(there, options):
        logging.info("%s holds these records already", options.output_dir)
        return there
    with staging.open_staging(options, plan.inputs) as stage:
        missing = [index for index in range(len(plan.shards)) if not stage.summary(plan.file_name(index))]
        if len(missing) < len(plan.shards):
            logging.info("going on: %d of %d shards are there", len(plan.shards) - len(missing), len(plan.shards))
        jobs = [(*plan.shards[index], options, stage.path(plan.file_name(index))) for index in missing]
        for index, summary in run(jobs, sum(len(job[0]) for job in jobs)):
            stage.keep(plan.file_name(missing[index]), summary)
        return finish(plan, [stage.summary(plan.file_name(index)) for index in range(len(plan.shards))], stage)
