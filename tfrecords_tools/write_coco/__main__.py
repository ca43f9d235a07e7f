"""Writes the persons of a COCO keypoint file as TFRecord shards.

python -m tfrecords_tools.write_coco --annotations=person_keypoints_train2017.json --images=train2017 \\
    --output_dir=records --split=train --select=fully_visible

Selected persons are cropped to their boxes and written, shuffled, to OUTPUT_DIR/SPLIT-00000-of-00008 ... with
OUTPUT_DIR/SPLIT.manifest.json beside them. Interrupted, the same command goes on with the shards that are not whole
yet. With --dry_run it only says how many persons would be written, and why the others would not; that needs no
images. With --verify it tests records that are there against their manifest.
"""

from absl import flags, logging

from kpose.core import cli, skeletons
from tfrecords_tools.write_coco import annotations, problems

FLAGS = cli.flag_set()
_ANNOTATIONS = flags.DEFINE_string(
    "annotations", None, "COCO keypoint annotations, .json or .json.gz.", flag_values=FLAGS
)
_IMAGES = flags.DEFINE_string(
    "images", None, "Folder or .zip file with the images; a URL such as gs://bucket/train2017 too.", flag_values=FLAGS
)
_OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "Folder for the shards.", flag_values=FLAGS)
_SPLIT = flags.DEFINE_string("split", "train", "The shards' name.", flag_values=FLAGS)
_SELECT = flags.DEFINE_enum(
    "select",
    "fully_visible",
    annotations.SELECTIONS,
    "Which persons: fully_visible (every joint labelled visible) or labelled (at least one joint labelled).",
    flag_values=FLAGS,
)
_PADDING = flags.DEFINE_float(
    "padding", 1.0, "What the network is to see: the box enlarged by this factor.", flag_values=FLAGS
)
_ASPECT = flags.DEFINE_float(
    "aspect",
    0.0,
    "Show the rectangle of this width over height round the box, so that people are not stretched (0: the box itself). "
    "Give --crop_size the same shape.",
    flag_values=FLAGS,
)
_CROP_SIZE = flags.DEFINE_list("crop_size", ["224"], "Side of that in pixels, or HEIGHT,WIDTH.", flag_values=FLAGS)
_CONTEXT = flags.DEFINE_float(
    "context",
    1.0,
    "Store a margin round it: crops larger by this factor at the same scale, whose middle stays exactly what it was. "
    "Turns, shifts and scales then move real pixels into view.",
    flag_values=FLAGS,
)
_SHARDS = flags.DEFINE_integer("shards", 8, "Number of files.", flag_values=FLAGS)
_WORKERS = flags.DEFINE_integer("workers", 0, "Processes; 0: one a core.", flag_values=FLAGS)
_SEED = flags.DEFINE_integer("seed", 0, "Shuffles the order of the images.", flag_values=FLAGS)
_SKELETON = flags.DEFINE_string("skeleton", "coco", "The skeleton table of the labels.", flag_values=FLAGS)
_CATEGORY = flags.DEFINE_string(
    "category",
    "",
    "Name of the category whose annotations are the persons (none: all with keypoints).",
    flag_values=FLAGS,
)
_ON_ERROR = flags.DEFINE_enum(
    "on_error",
    "stop",
    problems.POLICIES,
    "What to do about bad input (a missing or damaged image, a box outside its image, keypoints of a wrong length): "
    "stop, or skip it and count it in the manifest.",
    flag_values=FLAGS,
)
_BEAM = flags.DEFINE_multi_string(
    "beam",
    [],
    "Share the shards out by an Apache Beam pipeline with this option, such as --runner=FlinkRunner; once for each "
    "option. Wants the extra 'beam', and many --shards.",
    flag_values=FLAGS,
)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Only count.", flag_values=FLAGS)
_VERIFY = flags.DEFINE_bool("verify", False, "Only test the records of OUTPUT_DIR and SPLIT.", flag_values=FLAGS)


def main():
    if _VERIFY.value:
        _require(_OUTPUT_DIR)
        from tfrecords_tools.write_coco import verification

        print("\n".join(verification.verify(_OUTPUT_DIR.value, _SPLIT.value)))
        return
    from tfrecords_tools.write_coco import plan, writer

    _require(_ANNOTATIONS)
    skeleton = skeletons.get(_SKELETON.value)
    if _DRY_RUN.value:
        labels = plan.select(_ANNOTATIONS.value, skeleton, _SELECT.value, _ON_ERROR.value, _CATEGORY.value)
        print("\n".join(plan.describe_selection(*labels)))
        return
    _require(_IMAGES)
    _require(_OUTPUT_DIR)
    if _BEAM.value:
        from tfrecords_tools.write_coco import beam

        manifest = beam.write_records(options(), _BEAM.value)
    else:
        manifest = writer.write_records(options())
    logging.info("%s: %d persons in %d shards", _OUTPUT_DIR.value, manifest["persons"], len(manifest["shards"]))


def _require(flag):
    if not flag.value:
        raise cli.InputError(f"--{flag.name} is missing: {FLAGS[flag.name].help}")


def options():
    """The flags as `plan.WriteOptions`."""
    from tfrecords_tools.write_coco import plan

    return plan.WriteOptions(
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
        skeleton=skeletons.get(_SKELETON.value),
        context=_CONTEXT.value,
        on_error=_ON_ERROR.value,
        category=_CATEGORY.value,
        aspect=_ASPECT.value,
    )


def console():
    # Neither labels nor crops need TensorFlow, and each process starts in a fraction of the time without it.
    cli.run(main, FLAGS, __doc__, tensorflow=False)


if __name__ == "__main__":
    console()
