"""Runs independent jobs as an Apache Beam pipeline, on any of its runners, and shows their progress."""

import contextlib
import logging as std_logging
import os
import threading

from kpose.core import files
from kpose.core.errors import InputError
from kpose.core.progress import Progress

# Beam does not list this runner among its short names.
DASK = "DaskRunner"
_DASK_RUNNER = "apache_beam.runners.dask.dask_runner.DaskRunner"
# Seconds between two looks at the finished jobs.
_INTERVAL = 1.0


def import_beam():
    """The module apache_beam; `InputError` if it is not installed."""
    try:
        import apache_beam
    except ImportError:
        raise InputError(
            "apache-beam is not installed: pip install apache-beam, or from a checkout pip install '.[beam]'"
        ) from None
    return apache_beam


def read_options(arguments):
    """Beam's `PipelineOptions` of a command line, with what kpose needs on a runner.

    Args:
        arguments: list of str such as "--runner=FlinkRunner". "--runner=DaskRunner" is Beam's
            runner for Dask.

    Raises:
        InputError: Beam is not installed, or Dask is not and its runner is given.
    """
    import_beam()
    from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

    runner = PipelineOptions(arguments).view_as(StandardOptions).runner or ""
    if runner.rpartition(".")[2] != DASK:
        return PipelineOptions(arguments)
    try:
        import distributed  # noqa: F401
        from apache_beam.runners.dask.dask_runner import DaskOptions
    except ImportError:
        raise InputError(
            "dask is not installed: pip install 'apache-beam[dask]', or from a checkout pip install '.[dask]'"
        ) from None
    std_logging.getLogger("distributed").setLevel(std_logging.WARNING)
    options = PipelineOptions(arguments)
    options.view_as(StandardOptions).runner = _DASK_RUNNER
    dask = options.view_as(DaskOptions)
    if dask.npartitions is None and dask.partition_size is None:
        # The runner's default is 128 jobs for a worker, which are lost together if it is killed.
        dask.partition_size = 1
    return options


def run(step, elements, outputs, unit, pipeline_options):
    """Applies a step to each element in a pipeline's workers; returns when all are done.

    Args:
        step: a Beam `PTransform`; for each element it leaves a complete file or none, because a runner
            may repeat it.
        elements: list of small values that Beam can encode, such as paths: a runner may limit the
            pipeline's size.
        outputs: dict of the file that the step writes last for an element -> number of units in it, for the progress.
        unit: name of the units in the plural.
        pipeline_options: what `read_options` returned.

    Raises:
        InputError: a call failed, or the pipeline.
    """
    beam = import_beam()
    try:
        with _shown(outputs, unit), beam.Pipeline(options=pipeline_options) as pipeline:
            # Without Reshuffle, Beam fuses the steps and one worker does everything.
            jobs = pipeline | beam.Create(elements) | beam.Reshuffle()
            jobs | "Run" >> step
    except Exception as error:
        raise InputError(f"the Beam pipeline failed: {_cause(error)}") from None


def counter(unit):
    """A function that adds to the counter `unit` of the pipeline, which a runner may show."""
    beam = import_beam()
    return beam.metrics.Metrics.counter("kpose", unit).inc


@contextlib.contextmanager
def _shown(outputs, unit):
    """Shows the progress of a pipeline by the files that its workers write.

    Not every runner gives counters while it runs; that for Dask gives none.
    """
    ended = threading.Event()
    waiting = dict(outputs)
    folders = sorted({os.path.dirname(path) for path in outputs})

    def look(progress):
        there = {
            os.path.join(folder, name)
            for folder in folders
            if files.is_folder(folder)
            for name in files.names_in(folder)
        }
        finished = [path for path in waiting if path in there]
        progress.add(sum(waiting.pop(path) for path in finished))

    def watch(progress):
        while not ended.wait(_INTERVAL):
            # A look that fails is repeated; the pipeline does not depend on it.
            with contextlib.suppress(OSError):
                look(progress)

    with Progress(sum(outputs.values()), unit) as progress:
        thread = threading.Thread(target=watch, args=(progress,), daemon=True, name="kpose-progress")
        thread.start()
        try:
            yield
            ended.set()
            thread.join()
            look(progress)
        finally:
            ended.set()
            thread.join()


def _cause(error):
    """The message of the exception that Beam wrapped, without its place in the pipeline."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).split(" [while running")[0]
