"""Measures speed beside baselines; the last line that it prints is one JSON object.

python -m kpose.benchmark input    training batches with full augmentation, beside torch and keras_cv
python -m kpose.benchmark train    training steps, beside a bare TensorFlow loop and PyTorch
python -m kpose.benchmark serve    an exported model: latency, throughput, share of preprocessing; beside ONNX Runtime
python -m kpose.benchmark write    writing records, beside a simple writer with cv2
python -m kpose.benchmark gpu      kpose on a GPU, in parts; each result is a line of OUTPUT_DIR/gpu.jsonl

input and write use a COCO data set (--annotations and --images), or synthetic images without these
flags. The baselines need further packages: pip install '.[benchmark]' in a checkout. A baseline
without its packages is skipped, and the packages are logged.
"""

import json

from absl import flags

from kpose.core import cli, startup

FLAGS = cli.flag_set()
_RUNS = flags.DEFINE_integer(
    "runs", 5, "How often each compared function is timed; medians are printed.", lower_bound=1, flag_values=FLAGS
)
_ANNOTATIONS = flags.DEFINE_string(
    "annotations", None, "For input and write: COCO keypoint annotations.", flag_values=FLAGS
)
_IMAGES = flags.DEFINE_string("images", None, "For input and write: folder of the images.", flag_values=FLAGS)
_OUTPUT_DIR = flags.DEFINE_string("output_dir", "gpu", "For gpu: folder of results and logs.", flag_values=FLAGS)
_LIMIT = flags.DEFINE_float("limit", 480, "For gpu: seconds of all parts together.", flag_values=FLAGS)
_PART_LIMIT = flags.DEFINE_float("part_limit", 120, "For gpu: seconds of one part.", flag_values=FLAGS)
_PARTS = flags.DEFINE_string("parts", ".", "For gpu: regular expression of the parts' names.", flag_values=FLAGS)
_TORCH_COMMAND = flags.DEFINE_string(
    "torch_command", None, "For gpu: words that start the Python with PyTorch; default: this Python.", flag_values=FLAGS
)
_BATCH_SIZES = flags.DEFINE_list(
    "batch_sizes",
    None,
    "Batch sizes of the training steps. For gpu: default 512,64. For train: one, default 64.",
    flag_values=FLAGS,
)
_STEPS = flags.DEFINE_integer("steps", None, "For gpu: largest number of timed steps.", flag_values=FLAGS)
_STEPS_PER_EXECUTION = flags.DEFINE_integer(
    "steps_per_execution", 16, "For gpu: steps in a call from Python, beside 1.", flag_values=FLAGS
)
_RECIPE_STEPS = flags.DEFINE_integer("recipe_steps", 50, "For gpu: steps of the demo's recipe.", flag_values=FLAGS)
_MATRIX = flags.DEFINE_integer("matrix", 8192, "For gpu: side of the multiplied matrices.", flag_values=FLAGS)
_NUM_IMAGES = flags.DEFINE_integer("num_images", 800, "For gpu: number of drawn images.", flag_values=FLAGS)


def main(name):
    if name == "gpu":
        return _gpu()
    if bool(_ANNOTATIONS.value) != bool(_IMAGES.value):
        raise cli.InputError("--annotations and --images must be given together: give both or neither")
    batch_sizes = _batch_sizes()
    if len(batch_sizes) > (name == "train"):
        raise cli.InputError(
            f"--batch_sizes={','.join(_BATCH_SIZES.value)}: give one size for train, several only for gpu"
        )
    startup.keep_freed_memory()
    startup.import_tensorflow()
    from kpose.benchmark import measure

    measurements = measure.measure(name, _RUNS.value, _ANNOTATIONS.value, _IMAGES.value, *batch_sizes)
    print(
        json.dumps({key: round(value, 3) if isinstance(value, float) else value for key, value in measurements.items()})
    )


def _batch_sizes():
    """Values of --batch_sizes; empty if the flag is not given."""
    values = _BATCH_SIZES.value or []
    if not all(value.isdecimal() and int(value) > 0 for value in values):
        raise cli.InputError(f"--batch_sizes={','.join(values)}: give positive integers, as in 512,64")
    return tuple(int(value) for value in values)


def _gpu():
    from kpose.benchmark import gpu

    sizes = gpu.Sizes(
        batches=_batch_sizes() or (512, 64),
        steps=_STEPS.value,
        matrix=_MATRIX.value,
        images=_NUM_IMAGES.value,
        recipe_steps=_RECIPE_STEPS.value,
        together=_STEPS_PER_EXECUTION.value,
    )
    gpu.run(_OUTPUT_DIR.value, _PARTS.value, _LIMIT.value, _PART_LIMIT.value, _TORCH_COMMAND.value, sizes)


def console():
    # The process that starts the parts of gpu must not take the card's memory.
    cli.run(main, FLAGS, __doc__, tensorflow=False, choices=("input", "train", "serve", "write", "gpu"))


if __name__ == "__main__":
    console()
