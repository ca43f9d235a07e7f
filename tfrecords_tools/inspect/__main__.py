"""Prints statistics of record shards and draws a contact sheet with the skeletons.

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

from kpose.core import cli

FLAGS = cli.flag_set()
_RECORDS = flags.DEFINE_string(
    "records", None, "Glob of the record files, in quotes.", required=True, flag_values=FLAGS
)
_SHEET = flags.DEFINE_string(
    "sheet",
    None,
    "File of the sheet (default: contact_sheet.png or augmented_RECIPE.png in the folder of the records).",
    flag_values=FLAGS,
)
_AUGMENT = flags.DEFINE_string(
    "augment", None, "Name or path of a recipe: draw its augmented training samples instead.", flag_values=FLAGS
)
_PERSONS = flags.DEFINE_integer(
    "persons", 0, "Number of persons on the sheet (0: 40, or 8 with --augment).", lower_bound=0, flag_values=FLAGS
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the choice of persons.", lower_bound=0, flag_values=FLAGS)


def main():
    from kpose import config as config_lib
    from tfrecords_tools.inspect import sheets

    folder = os.path.dirname(_RECORDS.value)
    if _AUGMENT.value:
        config = config_lib.load_recipe(_AUGMENT.value)
        sheet = _SHEET.value or os.path.join(folder, f"augmented_{config.name}.png")
        lines = sheets.inspect_augmentation(_RECORDS.value, config, sheet, _PERSONS.value or 8, _SEED.value)
    else:
        sheet = _SHEET.value or os.path.join(folder, "contact_sheet.png")
        lines = sheets.inspect(_RECORDS.value, sheet, _PERSONS.value or 40, _SEED.value)
    print("\n".join(lines))


def console():
    cli.run(main, FLAGS, __doc__)


if __name__ == "__main__":
    console()
