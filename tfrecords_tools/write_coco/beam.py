"""Writes records on Dataflow, Flink or Spark: each shard is an element of an Apache Beam pipeline.

The labels are read and the persons selected where the pipeline is started; its workers cut and write, by the same code
and with the same bytes as the processes of one machine do. They must reach the images and the output folder, so
beyond one machine both are URLs, and kpose must be installed on them (Beam's --setup_file or --sdk_container_image).
"""

from kpose.core import files
from kpose.core.errors import InputError
from tfrecords_tools.write_coco import writer
from tfrecords_tools.write_coco.shards import write_shard

try:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
except ImportError:
    raise InputError("apache-beam is not installed: pip install 'kpose[beam]'") from None


def write_records(options, pipeline_options):
    """As `writer.write_records`, by a pipeline.

    Args:
        options: `plan.WriteOptions`; `workers` is the runner's affair.
        pipeline_options: Beam's own options, as on a command line.

    Returns:
        The manifest, as written.

    Raises:
        InputError: as `writer.write_records`, or a pipeline that failed.
    """

    def run(jobs, total):
        stage = [(*job, f"{job[-1]}.json") for job in jobs]
        try:
            with beam.Pipeline(options=PipelineOptions(pipeline_options)) as pipeline:
                # Fusion would otherwise make all shards on the worker that made the list.
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
    """Beam appends where in the pipeline it was to a message, and wraps the exception in others."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).split(" [while running")[0]
