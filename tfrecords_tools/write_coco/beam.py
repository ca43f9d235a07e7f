"""Writes records with Apache Beam (Dataflow, Flink, Spark): each shard is an element of a pipeline.

The process that starts the pipeline reads the labels and selects the persons. The workers cut the
crops and write the shards, with the code that local processes use, so the bytes are the same. The
workers must reach the images and the output folder: on more than one machine both must be URLs.
kpose must be installed on the workers (Beam's options --setup_file or --sdk_container_image).
"""

from kpose.core import files
from kpose.core.errors import InputError
from tfrecords_tools.write_coco import writer
from tfrecords_tools.write_coco.shards import write_shard

try:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
except ImportError:
    raise InputError(
        "apache-beam is not installed: pip install apache-beam, or from a checkout pip install '.[beam]'"
    ) from None


def write_records(options, pipeline_options):
    """Writes the shards and the manifest, as `writer.write_records`, with a Beam pipeline.

    Args:
        options: `WriteOptions`; `workers` is not used: the number of workers is handled by the Beam
            runner.
        pipeline_options: Beam's own options, as on a command line.

    Returns:
        The manifest, as written.

    Raises:
        InputError: as `writer.write_records`, or the pipeline failed.
    """

    def run(jobs, total):
        stage = [(*job, f"{job[-1]}.json") for job in jobs]
        try:
            with beam.Pipeline(options=PipelineOptions(pipeline_options)) as pipeline:
                # Without Reshuffle, Beam fuses the steps and one worker writes all shards.
                shards = pipeline | beam.Create(stage) | beam.Reshuffle()
                shards | "WriteShard" >> beam.Map(_write_shard)
        except Exception as error:
            raise InputError(f"the Beam pipeline failed: {_cause(error)}") from None
        for index, job in enumerate(stage):
            yield index, files.read_json(job[-1], "summary of a shard")

    return writer.carry_out(options, run)


def _write_shard(job):
    persons, images, options, path, summary_path = job
    counter = beam.metrics.Metrics.counter("kpose", "persons")
    files.write_json(summary_path, write_shard(persons, images, options, path, counter.inc))


def _cause(error):
    """The message of the exception that Beam wrapped, without its place in the pipeline."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).split(" [while running")[0]
