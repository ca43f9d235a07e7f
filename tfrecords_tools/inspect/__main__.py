"""Prints what is in record shards and draws a contact sheet with the skeletons.

python -m tfrecords_tools.inspect --records='records/train-*'

The sheet goes to RECORDS' folder as contact_sheet.png; occluded joints are drawn hollow. Crops are shown in the shape
of their boxes, with the annotation's id and the box's size in pixels.

python -m tfrecords_tools.inspect --records='records/train-*' --augment=configs/deeppose_geometric.py

draws what the network of that recipe sees in training, to augmented_RECIPE.png: a person a line, as stored and then
augmented again and again.
"""

import os

from absl import flags

from kpose.core import cli

FLAGS = cli.flag_set()
_RECORDS = flags.DEFINE_string("records", None, "Glob of the record files, quoted.", required=True, flag_values=FLAGS)
_SHEET = flags.DEFINE_string(
    "sheet",
    None,
    "The sheet (default: contact_sheet.png or augmented_RECIPE.png beside the records).",
    flag_values=FLAGS,
)
_AUGMENT = flags.DEFINE_string(
    "augment", None, "A recipe: draw what its network sees in training, instead.", flag_values=FLAGS
)
_PERSONS = flags.DEFINE_integer(
    "persons", 0, "Persons on the sheet (0: 40, or 8 augmented ones).", lower_bound=0, flag_values=FLAGS
)
_SEED = flags.DEFINE_integer("seed", 0, "Which persons.", lower_bound=0, flag_values=FLAGS)


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
