"""Prints what is in record shards and draws a contact sheet with the skeletons.

python -m tfrecords_tools.inspect --records='records/train-*'

The sheet goes to RECORDS' folder as contact_sheet.png; occluded joints are drawn hollow. Crops are shown in the shape
of their boxes, with the annotation's id and the box's size in pixels.
"""

import os

from absl import flags

from kpose import cli

FLAGS = cli.flag_set()
_RECORDS = flags.DEFINE_string("records", None, "Glob of the record files, quoted.", required=True, flag_values=FLAGS)
_SHEET = flags.DEFINE_string(
    "sheet", None, "The contact sheet (default: contact_sheet.png beside the records).", flag_values=FLAGS
)
_PERSONS = flags.DEFINE_integer("persons", 40, "Persons on the sheet.", lower_bound=1, flag_values=FLAGS)
_SEED = flags.DEFINE_integer("seed", 0, "Which persons.", lower_bound=0, flag_values=FLAGS)


def main():
    from tfrecords_tools import inspection

    sheet = _SHEET.value or os.path.join(os.path.dirname(_RECORDS.value), "contact_sheet.png")
    print("\n".join(inspection.inspect(_RECORDS.value, sheet, _PERSONS.value, _SEED.value)))


def console():
    cli.run(main, FLAGS, __doc__)


if __name__ == "__main__":
    console()
