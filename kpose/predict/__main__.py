"""Predicts the keypoints of people in photographs and videos and draws them.

kpose-predict photo.jpg
python -m kpose.predict --model=run/serving --output_dir=predictions photos/ 'more/*.jpg' film.mp4
python -m kpose.predict --model=run/serving --images='photos/*.jpg' --boxes=boxes.json
python -m kpose.predict --json photo.jpg | jq '.[].score'

writes predictions/<image>.png with the skeletons drawn, predictions/<video>.mp4 likewise, and
predictions/keypoints.json: COCO keypoint results in the order of the boxes or files. A person detector finds the people
where one is installed (pip install 'kpose[detector]'); --boxes takes COCO annotations or another detector's results
instead; without either, each whole image is taken as one person's box. Videos need pip install 'kpose[video]'. Of
several files, those that cannot be read are told and skipped, and the exit status is then 1.
"""

import sys

from absl import flags

from kpose.core import cli

FLAGS = cli.flag_set()
_MODEL = flags.DEFINE_string(
    "model",
    None,
    "Folder that kpose.export wrote, its newest version is taken; or the name of a model that kpose ships (default).",
    flag_values=FLAGS,
)
_IMAGES = flags.DEFINE_multi_string(
    "images",
    None,
    "A photograph, a video, a folder of them, or a glob (quoted); several may be given, also without the flag's name.",
    flag_values=FLAGS,
)
_BOXES = flags.DEFINE_string(
    "boxes",
    None,
    "COCO annotations or detection results (JSON) with the persons' boxes; scores, if any, count as a detector's.",
    flag_values=FLAGS,
)
_DETECTOR = flags.DEFINE_string(
    "detector",
    "auto",
    "What finds the persons where no --boxes are given: ssdlite (pip install 'kpose[detector]'); keras_cv:PRESET, such "
    "as keras_cv:yolo_v8_m_pascalvoc (downloaded once); none: each whole image is one person's box; auto: ssdlite if "
    "it is installed, else none.",
    flag_values=FLAGS,
)
_MIN_SCORE = flags.DEFINE_float(
    "min_score",
    0.3,
    "Persons of whom the detector is less sure are left out; those of --boxes only if this flag is given.",
    0,
    1,
    flag_values=FLAGS,
)
_OUTPUT_DIR = flags.DEFINE_string(
    "output_dir", "predictions", "Folder for keypoints.json and overlays.", flag_values=FLAGS
)
_OVERLAYS = flags.DEFINE_bool("overlays", True, "Draw the skeletons.", flag_values=FLAGS)
_JSON = flags.DEFINE_bool(
    "json",
    False,
    "Print the COCO results, and nothing else, to stdout; files are then written only if --output_dir is given.",
    flag_values=FLAGS,
)
_EVERY = flags.DEFINE_integer("every", 1, "Of a video, take each so many frames one.", lower_bound=1, flag_values=FLAGS)


def main():
    from kpose.predict import files

    written = FLAGS["output_dir"].present or not _JSON.value
    files.predict(
        _MODEL.value,
        _IMAGES.value,
        _BOXES.value,
        _OUTPUT_DIR.value if written else None,
        _OVERLAYS.value,
        detector=_DETECTOR.value,
        min_score=_MIN_SCORE.value if FLAGS["min_score"].present else None,
        every=_EVERY.value,
        stream=sys.stdout if _JSON.value else None,
    )


def console():
    cli.run(main, FLAGS, __doc__, arguments="images")


if __name__ == "__main__":
    console()
