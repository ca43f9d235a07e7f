"""Prints statistics of labels or of record shards, and draws a contact sheet with the skeletons.

python -m tfrecords_tools.inspect --annotations=person_keypoints.json --images=photos

reads an annotation file before any record is written: how many persons, their sizes, the labelled
share of each joint, left and right, and ten persons on a sheet.

python -m tfrecords_tools.inspect --records='records/train-*'

The sheet is contact_sheet.png in the folder of the records. Occluded joints are hollow circles.
Crops have the shape of their boxes; the captions are the annotation's id and the box's size in
pixels.

python -m tfrecords_tools.inspect --records='records/train-*' --augment=configs/deeppose_geometric.py

draws the training samples of a recipe to augmented_RECIPE.png. Each row is one person: the stored
crop, then several augmented versions.
"""

import os

from absl import flags

from kpose.core import cli, files

FLAGS = cli.flag_set()
_RECORDS = flags.DEFINE_string("records", None, "Glob of the record files, in quotes.", flag_values=FLAGS)
_ANNOTATIONS = flags.DEFINE_string("annotations", None, "COCO annotation file, instead of records.", flag_values=FLAGS)
_IMAGES = flags.DEFINE_string(
    "images",
    None,
    "With --annotations: folder or .zip file of the images; without it there is no sheet.",
    flag_values=FLAGS,
)
_SKELETON = flags.DEFINE_string("skeleton", "auto", "With --annotations: as for write_coco.", flag_values=FLAGS)
_CATEGORY = flags.DEFINE_string("category", "", "With --annotations: as for write_coco.", flag_values=FLAGS)
_SHEET = flags.DEFINE_string(
    "sheet",
    None,
    "File of the sheet (default: contact_sheet.png or augmented_RECIPE.png in the folder of the records, or "
    "labels.png beside the annotations).",
    flag_values=FLAGS,
)
_AUGMENT = flags.DEFINE_string(
    "augment", None, "Name or path of a recipe: draw its augmented training samples instead.", flag_values=FLAGS
)
_PERSONS = flags.DEFINE_integer(
    "persons",
    0,
    "Number of persons on the sheet (0: 40, 8 with --augment, 10 with --annotations).",
    lower_bound=0,
    flag_values=FLAGS,
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the choice of persons.", lower_bound=0, flag_values=FLAGS)


def main():
    if bool(_RECORDS.value) == bool(_ANNOTATIONS.value):
        raise cli.InputError("give --records, a glob of record files, or --annotations, a COCO file: one of the two")
    if _ANNOTATIONS.value:
        _inspect_annotations()
        return
    from kpose import config as config_lib
    from tfrecords_tools.inspect import sheets

    folder = os.path.dirname(_RECORDS.value)
    if _AUGMENT.value:
        config = config_lib.load_recipe(_AUGMENT.value)
        sheet = _SHEET.value or os.path.join(folder, f"augmented_{config.name}.png")
        files.check_file_for_output(sheet, "--sheet")
        lines = sheets.inspect_augmentation(_RECORDS.value, config, sheet, _PERSONS.value or 8, _SEED.value)
    else:
        sheet = _SHEET.value or os.path.join(folder, "contact_sheet.png")
        files.check_file_for_output(sheet, "--sheet")
        lines = sheets.inspect(_RECORDS.value, sheet, _PERSONS.value or 40, _SEED.value)
    print("\n".join(lines))


def _inspect_annotations():
    from tfrecords_tools.inspect import labels

    if _AUGMENT.value:
        raise cli.InputError("--augment draws the samples of records: write the records first, and give --records")
    sheet = _SHEET.value or os.path.join(os.path.dirname(_ANNOTATIONS.value), "labels.png")
    if _IMAGES.value:
        files.check_file_for_output(sheet, "--sheet")
    lines = labels.inspect_labels(
        _ANNOTATIONS.value,
        _IMAGES.value,
        sheet,
        _PERSONS.value or 10,
        _SEED.value,
        _SKELETON.value,
        _CATEGORY.value,
    )
    print("\n".join(lines))


def console():
    cli.run(main, FLAGS, __doc__)


if __name__ == "__main__":
    console()
