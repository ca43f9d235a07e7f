"""Predicts the keypoints of people in photographs and draws them.

kpose-predict photo.jpg
python -m kpose.predict --model=run/serving --images='photos/*.jpg' --boxes=boxes.json --output_dir=predictions

writes predictions/<image>.png with the skeletons drawn and predictions/keypoints.json, COCO keypoint results in the
order of the boxes. --boxes takes COCO annotations or detection results; without it a person detector finds them
(pip install 'kpose[detector]'), or each whole image is taken as one person's box. Without --model, the model that kpose
ships answers. --json prints the results, for pipes.
"""

from absl import flags

from kpose import cli

FLAGS = cli.flag_set()
_MODEL = flags.DEFINE_string(
    "model",
    None,
    "Folder that kpose.export wrote, its newest version is taken; or the name of a model that kpose ships (default).",
    flag_values=FLAGS,
)
_IMAGES = flags.DEFINE_string(
    "images", None, "A photograph, a folder of them, or a glob (quoted); or name them as arguments.", flag_values=FLAGS
)
_BOXES = flags.DEFINE_string(
    "boxes", None, "COCO annotations or detection results (JSON) with the persons' boxes.", flag_values=FLAGS
)
_OUTPUT_DIR = flags.DEFINE_string(
    "output_dir",
    None,
    "Folder for keypoints.json and overlays (default: predictions; with --json: none).",
    flag_values=FLAGS,
)
_DETECTOR = flags.DEFINE_string(
    "detector",
    "auto",
    "Without --boxes: ssdlite (extra 'detector'), keras_cv:PRESET, none (each image is one person), or auto.",
    flag_values=FLAGS,
)
_JSON = flags.DEFINE_bool("json", False, "Print the COCO results to stdout, and nothing else there.", flag_values=FLAGS)
_OVERLAYS = flags.DEFINE_bool("overlays", True, "Draw the skeletons.", flag_values=FLAGS)


def main(*images):
    from kpose import predictor

    images = [*([_IMAGES.value] if _IMAGES.value else []), *images]
    if not images:
        raise cli.InputError(f"--images is missing: {FLAGS['images'].help}")
    output_dir = _OUTPUT_DIR.value or (None if _JSON.value else "predictions")
    predictor.predict(
        _MODEL.value, images, _BOXES.value, output_dir, _OVERLAYS.value, _DETECTOR.value, to_stdout=_JSON.value
    )


def console():
    cli.run(main, FLAGS, __doc__, arguments=True)


if __name__ == "__main__":
    console()
