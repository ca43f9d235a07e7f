"""Measures speed beside baselines; the last line that it prints is one JSON object.

python -m kpose.benchmark input    training batches with full augmentation, beside torch and keras_cv
python -m kpose.benchmark train    training steps, beside a bare TensorFlow loop and PyTorch
python -m kpose.benchmark serve    an exported model: latency, throughput, share of preprocessing; beside ONNX Runtime
python -m kpose.benchmark write    writing records, beside a simple writer with cv2

input and write use a COCO data set (--annotations and --images), or synthetic images without these
flags. The baselines need further packages: pip install '.[benchmark]' in a checkout. A baseline
without its packages is skipped, and the packages are logged.
"""

import json

from absl import flags

from kpose.core import cli

FLAGS = cli.flag_set()
_RUNS = flags.DEFINE_integer(
    "runs", 5, "How often each compared function is timed; medians are printed.", lower_bound=1, flag_values=FLAGS
)
_ANNOTATIONS = flags.DEFINE_string(
    "annotations", None, "For input and write: COCO keypoint annotations.", flag_values=FLAGS
)
_IMAGES = flags.DEFINE_string("images", None, "For input and write: folder of the images.", flag_values=FLAGS)


def main(name):
    from kpose.benchmark import measure

    if bool(_ANNOTATIONS.value) != bool(_IMAGES.value):
        raise cli.InputError("--annotations and --images must be given together: give both or neither")
    measurements = measure.measure(name, _RUNS.value, _ANNOTATIONS.value, _IMAGES.value)
    print(
        json.dumps({key: round(value, 3) if isinstance(value, float) else value for key, value in measurements.items()})
    )


def console():
    cli.run(main, FLAGS, __doc__, choices=("input", "train", "serve", "write"))


if __name__ == "__main__":
    console()
