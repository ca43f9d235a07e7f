"""Writes the persons of a COCO keypoint file as TFRecord shards.

python -m tfrecords_tools.write_coco --annotations=person_keypoints_train2017.json --images=train2017 \\
    --output_dir=records --split=train --select=fully_visible

Selected persons are cropped to their boxes and written, shuffled, to OUTPUT_DIR/SPLIT-00000-of-00008 ... with
OUTPUT_DIR/SPLIT.manifest.json beside them. With --dry_run it only says how many persons would be written, and why
the others would not; that needs no images.
"""

from absl import flags, logging

from kpose import cli, skeletons
from tfrecords_tools import coco

FLAGS = cli.flag_set()
_ANNOTATIONS = flags.DEFINE_string(
    "annotations", None, "COCO keypoint annotations, .json or .json.gz.", required=True, flag_values=FLAGS
)
_IMAGES = flags.DEFINE_string("images", None, "Folder or .zip file with the images.", flag_values=FLAGS)
_OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "Folder for the shards.", flag_values=FLAGS)
_SPLIT = flags.DEFINE_string("split", "train", "The shards' name.", flag_values=FLAGS)
_SELECT = flags.DEFINE_enum(
    "select",
    "fully_visible",
    coco.SELECTIONS,
    "Which persons: fully_visible (every joint labelled visible) or labelled (at least one joint labelled).",
    flag_values=FLAGS,
)
_PADDING = flags.DEFINE_float("padding", 1.0, "The crop is the box enlarged by this factor.", flag_values=FLAGS)
_CROP_SIZE = flags.DEFINE_list(
    "crop_size", ["224"], "Side of the stored crops in pixels, or HEIGHT,WIDTH.", flag_values=FLAGS
)
_SHARDS = flags.DEFINE_integer("shards", 8, "Number of files.", flag_values=FLAGS)
_WORKERS = flags.DEFINE_integer("workers", 0, "Processes; 0: one a core.", flag_values=FLAGS)
_SEED = flags.DEFINE_integer("seed", 0, "Shuffles the order of the images.", flag_values=FLAGS)
_SKELETON = flags.DEFINE_string("skeleton", "coco", "The skeleton table of the labels.", flag_values=FLAGS)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Only count.", flag_values=FLAGS)


def main():
    from tfrecords_tools import writer

    skeleton = skeletons.get(_SKELETON.value)
    if _DRY_RUN.value:
        annotations = coco.read_annotations(_ANNOTATIONS.value, skeleton)
        selected, dropped = coco.select_persons(annotations, _SELECT.value)
        print("\n".join(writer.describe_selection(annotations, selected, dropped)))
        return
    for flag in (_IMAGES, _OUTPUT_DIR):
        if not flag.value:
            raise cli.InputError(f"--{flag.name} is missing (only a --dry_run does without)")
    options = writer.WriteOptions(
        annotations=_ANNOTATIONS.value,
        images=_IMAGES.value,
        output_dir=_OUTPUT_DIR.value,
        split=_SPLIT.value,
        select=_SELECT.value,
        padding=_PADDING.value,
        crop_size=cli.parse_size(_CROP_SIZE.value, "crop_size"),
        shards=_SHARDS.value,
        workers=_WORKERS.value,
        seed=_SEED.value,
        skeleton=skeleton,
    )
    manifest = writer.write_records(options)
    logging.info("wrote %d persons to %d shards in %s", manifest["persons"], len(manifest["shards"]), _OUTPUT_DIR.value)


def console():
    # A dry run does without TensorFlow, and the writer imports it when it comes to writing.
    cli.run(main, FLAGS, __doc__, tensorflow=False)


if __name__ == "__main__":
    console()
