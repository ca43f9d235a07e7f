"""Measures speed beside a baseline; the last line printed is one JSON object.

python -m kpose.benchmark input    training batches with full augmentation, against torch and keras_cv
python -m kpose.benchmark train    the training engine, against a bare loop and PyTorch
python -m kpose.benchmark serve    the exported signature: latency, throughput, share of preprocessing
python -m kpose.benchmark write    writing records, against the plain way with cv2

input and write take --annotations and --images of a COCO data set; without, people are drawn. The packages of the
baselines are the extra 'benchmark': pip install 'kpose[benchmark]'. What is not installed is skipped, and said.
"""

import json

from absl import flags

from kpose.core import cli

FLAGS = cli.flag_set()
_RUNS = flags.DEFINE_integer(
    "runs", 5, "How often each of the compared things is timed, in turn.", lower_bound=1, flag_values=FLAGS
)
_ANNOTATIONS = flags.DEFINE_string("annotations", None, "Of input and write: COCO annotations.", flag_values=FLAGS)
_IMAGES = flags.DEFINE_string("images", None, "Of input and write: their image folder.", flag_values=FLAGS)


def main(name):
    from kpose.benchmark import measure

    if bool(_ANNOTATIONS.value) != bool(_IMAGES.value):
        raise cli.InputError("--annotations and --images belong together: give both or neither")
    figures = measure.measure(name, _RUNS.value, _ANNOTATIONS.value, _IMAGES.value)
    print(json.dumps({key: round(value, 3) if isinstance(value, float) else value for key, value in figures.items()}))


def console():
    cli.run(main, FLAGS, __doc__, choices=("input", "train", "serve", "write"))


if __name__ == "__main__":
    console()
