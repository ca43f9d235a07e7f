"""Exports a trained run as a SavedModel that TF Serving loads: JPEG bytes and boxes in, keypoints out.

python -m kpose.export --workdir=run --output_dir=run/serving

writes run/serving/1/, the next time run/serving/2/. The signature serving_default takes image_bytes [N] (JPEG or PNG
files) and boxes [N, 4] (xywh in pixels) and returns keypoints [N, K, 3] (x, y in pixels, score) and scores [N].
"""

from absl import flags

from kpose.core import cli

FLAGS = cli.flag_set()
_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Folder of the training run, or the name of a model that kpose ships.",
    required=True,
    flag_values=FLAGS,
)
_OUTPUT_DIR = flags.DEFINE_string(
    "output_dir",
    None,
    "The model's base folder (default: WORKDIR/serving; of tflite and onnx: WORKDIR).",
    flag_values=FLAGS,
)
_FLIP_TEST = flags.DEFINE_bool(
    "flip_test", False, "Average each answer with that for the mirror image.", flag_values=FLAGS
)
_BEST = flags.DEFINE_bool(
    "best", False, "The checkpoint with the best validation score, instead of the newest.", flag_values=FLAGS
)


_FORMAT = flags.DEFINE_enum(
    "format",
    "saved_model",
    ("saved_model", "tflite", "onnx"),
    "saved_model for TF Serving; tflite or onnx: the network alone, crops in, keypoints out, checked against Keras.",
    flag_values=FLAGS,
)
_QUANTIZE = flags.DEFINE_enum(
    "quantize",
    "none",
    ("none", "float16", "int8"),
    "Of tflite, the weights; with --records, what PCP it costs is told.",
    flag_values=FLAGS,
)
_RECORDS = flags.DEFINE_string(
    "records", None, "Of tflite and onnx: records on which PCP is told beside Keras'.", flag_values=FLAGS
)


def main():
    if _FORMAT.value != "saved_model":
        from kpose.export import converted

        converted.export(
            _WORKDIR.value,
            _OUTPUT_DIR.value,
            _FORMAT.value,
            _QUANTIZE.value,
            _RECORDS.value,
            _FLIP_TEST.value,
            _BEST.value,
        )
        return
    from kpose.export import saved_model

    if _QUANTIZE.value != "none" or _RECORDS.value:
        raise cli.InputError("--quantize and --records belong to --format=tflite or onnx")
    saved_model.export(_WORKDIR.value, _OUTPUT_DIR.value, _FLIP_TEST.value, _BEST.value)


def console():
    cli.run(main, FLAGS, __doc__)


if __name__ == "__main__":
    console()
