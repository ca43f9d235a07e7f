"""Writes the persons of a COCO keypoint file as TFRecord shards.

python -m tfrecords_tools.write_coco --annotations=person_keypoints_train2017.json --images=train2017 \\
    --output_dir=records --split=train --select=fully_visible

The command crops each selected person, shuffles the images, and writes
OUTPUT_DIR/SPLIT-00000-of-00008 ... and OUTPUT_DIR/SPLIT.manifest.json. If it is interrupted, the
same command continues with the missing shards.

--dry_run only prints how many persons are selected, and why the others are not; it needs no images.
--verify only checks existing shards against their manifest.
"""

from absl import flags, logging

from kpose.core import cli
from tfrecords_tools.write_coco.options import WriteOptions, define_flags

FLAGS = cli.flag_set()
define_flags(FLAGS)
_BEAM = flags.DEFINE_multi_string(
    "beam",
    [],
    "Write the shards with an Apache Beam pipeline that has this option, such as --beam=--runner=FlinkRunner. Repeat "
    "the flag for each option. Needs apache-beam; set --shards to at least the number of Beam workers.",
    flag_values=FLAGS,
)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Only count the persons.", flag_values=FLAGS)
_VERIFY = flags.DEFINE_bool("verify", False, "Only check the shards of SPLIT in OUTPUT_DIR.", flag_values=FLAGS)


def main():
    if _VERIFY.value:
        _require("output_dir")
        from tfrecords_tools.write_coco import verification

        print("\n".join(verification.verify(FLAGS["output_dir"].value, FLAGS["split"].value)))
        return
    from tfrecords_tools.write_coco import plan, writer

    _require("annotations")
    if _DRY_RUN.value:
        print("\n".join(plan.describe_selection(*plan.select(WriteOptions.from_flags(FLAGS)))))
        return
    _require("images")
    _require("output_dir")
    options = WriteOptions.from_flags(FLAGS)
    if _BEAM.value:
        from tfrecords_tools.write_coco import beam

        manifest = beam.write_records(options, _BEAM.value)
    else:
        manifest = writer.write_records(options)
    logging.info("%s: %d persons in %d shards", options.output_dir, manifest["persons"], len(manifest["shards"]))


def _require(name):
    if not FLAGS[name].value:
        raise cli.InputError(f"--{name} is missing: {FLAGS[name].help}")


def console():
    # The writer does not need TensorFlow; without it each process starts in a fraction of the time.
    cli.run(main, FLAGS, __doc__, tensorflow=False)


if __name__ == "__main__":
    console()
