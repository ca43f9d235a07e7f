"""Predicts many images with Apache Beam: each shard of the results is an element of a pipeline.

The model is loaded once in each process, as Beam's RunInference does. RunInference itself is not
used: with it, a pipeline on Dask (Beam 2.77) ended without an error and without results. An element
is a shard and not an image, so that no results are gathered: a worker writes complete files, and a
runner may repeat its work. The workers must reach the images, the model and the output folder under
the same paths.
"""

import hashlib
import os

from kpose.core import beam_runs, files
from kpose.core.errors import InputError
from kpose.predict import detectors, shards
from kpose.predict.model import Model

try:
    import apache_beam as beam
    from apache_beam.utils import shared
except ImportError:
    raise InputError(
        "apache-beam is not installed: pip install apache-beam, or from a checkout pip install '.[beam]'"
    ) from None


class PredictShard(beam.DoFn):
    """A step of a pipeline: path of a job in, summary of its shard out.

    Args:
        source: as for `kpose.load`.
        detector: name of a detector, as for `kpose.load`.
        min_score: persons with a lower score of the detector are left out; None: its default.
    """

    def __init__(self, source=None, detector=detectors.AUTO, min_score=None):
        self._given = source, detector, min_score
        self._shared = shared.Shared()

    def load_model(self):
        """Returns the `Model`; it has loaded its detector."""
        model = Model(*self._given)
        model.find_detector()
        return model

    def setup(self):
        # Some runners call it for each element.
        self._model = self._shared.acquire(self.load_model)

    def process(self, job):
        """Yields the summary of a job; see `shards.write_shard`."""
        summary = shards.write_shard(job, self._model, self._model.find_detector())
        beam_runs.counter("images")(summary["images"])
        yield summary


def predict(model, images, output_dir, count, pipeline_options, detector="auto", min_score=None, overwrite=False):
    """Writes the predictions of many images as shards of JSON lines; see `shards`.

    Args:
        model: source of a model, as for `kpose.load`.
        images: as for `files.predict`.
        output_dir: the output folder.
        count: number of shards.
        pipeline_options: Beam's own options, as on a command line.
        detector, min_score: as for `PredictShard`.
        overwrite: replace the predictions of another command in the folder.

    Returns:
        Dict of the counts `persons`, `failed` and `empty`.

    Raises:
        InputError: as for `shards.plan` and `shards.carry_out`, there is no such model or detector,
            or the pipeline failed.
    """
    pipeline_options = beam_runs.read_options(pipeline_options)
    model = os.path.abspath(model) if model and os.path.exists(model) else model
    planned = shards.plan(images, output_dir, count)
    step = PredictShard(model, detector, min_score)
    # An error here is one line; in a pipeline it would come after the start of all workers.
    step.load_model()
    settings = {"model": model, "model_identity": _identity(model), "detector": detector, "min_score": min_score}

    def run(todo):
        outputs = {shards.summary_path(job): images for job, images in todo.items()}
        beam_runs.run(beam.ParDo(step), list(todo), outputs, "images", pipeline_options)

    return shards.carry_out(planned, settings, output_dir, overwrite, run)


def _identity(path):
    """SHA-256 of a model file; of a folder, that of its files' names, sizes and times of change."""
    if not path or not os.path.exists(path):
        return None
    if os.path.isfile(path):
        return files.sha256(path)
    digest = hashlib.sha256()
    for folder, folders, names in os.walk(path):
        folders.sort()
        for name in sorted(names):
            status = os.stat(os.path.join(folder, name))
            entry = os.path.relpath(os.path.join(folder, name), path), status.st_size, status.st_mtime_ns
            digest.update(repr(entry).encode())
    return digest.hexdigest()
