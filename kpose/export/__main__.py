"""Exports a trained run for TensorFlow Serving, TensorFlow Lite or ONNX.

python -m kpose.export --workdir=run --output_dir=run/serving

writes a SavedModel to run/serving/1/, the next time to run/serving/2/. Its signature
serving_default takes image_bytes [N] (JPEG or PNG files) and boxes [N, 4] (xywh in pixels) and
returns keypoints [N, K, 3] (x, y in pixels, score) and scores [N].

python -m kpose.export --workdir=run --format=tflite

writes run/model.tflite: the network without decoding and cropping, from crops to keypoints.
"""

from absl import flags

from kpose.core import cli

FLAGS = cli.flag_set()
_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Folder of the training run, or the name of a shipped model.",
    required=True,
    flag_values=FLAGS,
)
_OUTPUT_DIR = flags.DEFINE_string(
    "output_dir",
    None,
    "Folder for the export (default: WORKDIR/serving; for tflite and onnx: WORKDIR).",
    flag_values=FLAGS,
)
_FLIP_TEST = flags.DEFINE_bool(
    "flip_test",
    False,
    "Average each prediction with the prediction for the mirrored image.",
    flag_values=FLAGS,
)
_BEST = flags.DEFINE_bool(
    "best",
    False,
    "Export the checkpoint with the best validation score, not the newest one.",
    flag_values=FLAGS,
)
_FORMAT = flags.DEFINE_enum(
    "format",
    "saved_model",
    ("saved_model", "tflite", "onnx"),
    "saved_model: for TF Serving. tflite, onnx: the network only, from crops to keypoints; the file is "
    "compared with Keras before it is written.",
    flag_values=FLAGS,
)
_QUANTIZE = flags.DEFINE_enum(
    "quantize",
    "none",
    ("none", "float16", "int8"),
    "For tflite: type of the weights. With --records, PCP is printed with these weights and with Keras.",
    flag_values=FLAGS,
)
_NAME = flags.DEFINE_string(
    "name",
    None,
    "For saved_model: name of the model in TF Serving. The versions are then in OUTPUT_DIR/NAME, and one server serves "
    "all models of OUTPUT_DIR. Default: kpose, with the versions in OUTPUT_DIR.",
    flag_values=FLAGS,
)
_LITE = flags.DEFINE_bool(
    "lite",
    True,
    "For saved_model: also write the network as TensorFlow Lite into the version, which then is about twice as large. "
    "kpose.load and kpose-predict run this file, without TensorFlow; TF Serving ignores it.",
    flag_values=FLAGS,
)
_RECORDS = flags.DEFINE_string(
    "records",
    None,
    "For tflite and onnx: glob of records, in quotes, to print PCP of the file and of Keras.",
    flag_values=FLAGS,
)


def main():
    if _FORMAT.value != "saved_model":
        if _NAME.value:
            raise cli.InputError("--name needs --format=saved_model")
        if not _LITE.value:
            raise cli.InputError("--nolite needs --format=saved_model")
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
        raise cli.InputError("--quantize needs --format=tflite; --records needs --format=tflite or --format=onnx")
    saved_model.export(_WORKDIR.value, _OUTPUT_DIR.value, _FLIP_TEST.value, _BEST.value, _NAME.value, _LITE.value)


def console():
    cli.run(main, FLAGS, __doc__)


if __name__ == "__main__":
    console()
