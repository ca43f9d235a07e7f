"""Predicts the keypoints of people in photographs and draws them.

python -m kpose.predict --model=run/serving --images='photos/*.jpg' --boxes=boxes.json --output_dir=predictions

writes predictions/<image>.png with the skeletons drawn and predictions/keypoints.json, COCO keypoint results in the
order of the boxes. --boxes takes COCO annotations or detection results; without it, each whole image is taken as one
person's box.
"""

from absl import flags

from kpose import cli

FLAGS = cli.flag_set()
_MODEL = flags.DEFINE_string(
    "model", None, "Folder that kpose.export wrote: its newest version is taken.", required=True, flag_values=FLAGS
)
_IMAGES = flags.DEFINE_string(
    "images", None, "A photograph, a folder of them, or a glob (quoted).", required=True, flag_values=FLAGS
)
_BOXES = flags.DEFINE_string(
    "boxes", None, "COCO annotations or detection results (JSON) with the persons' boxes.", flag_values=FLAGS
)
_OUTPUT_DIR = flags.DEFINE_string(
    "output_dir", None, "Folder for keypoints.json and overlays.", required=True, flag_values=FLAGS
)
_OVERLAYS = flags.DEFINE_bool("overlays", True, "Draw the skeletons.", flag_values=FLAGS)


def main():
    from kpose import predictor

    predictor.predict(_MODEL.value, _IMAGES.value, _BOXES.value, _OUTPUT_DIR.value, _OVERLAYS.value)


def console():
    cli.run(main, FLAGS, __doc__)


if __name__ == "__main__":
    console()
