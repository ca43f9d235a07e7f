"""Turns a table of people and their images into a COCO keypoint file that write_coco reads.

python -m tfrecords_tools.convert_csv --csv=people.csv --images=photos --output=person_keypoints.json

The first line names the columns, in any order; every other line is a person:

    file_name                           its image; several persons may be of one
    x, y, width, height                 its box in pixels (optional: without, the labelled joints with a margin)
    nose_x, nose_y, left_eye_x, ...     each joint of the skeleton in pixels, from the image's top left corner; an
                                        unlabelled joint has empty cells
    nose_v, left_eye_v, ...             whether it is visible, 2, or occluded, 1 (optional: without, 2; 0: unlabelled)

Labelled joints outside their image become unlabelled and are counted.
"""

from absl import flags

from kpose import cli, skeletons

FLAGS = cli.flag_set()
_CSV = flags.DEFINE_string("csv", None, "The table, UTF-8 with commas.", required=True, flag_values=FLAGS)
_IMAGES = flags.DEFINE_string("images", None, "Folder or .zip file with the images.", required=True, flag_values=FLAGS)
_OUTPUT = flags.DEFINE_string("output", None, "The COCO file to write, .json.", required=True, flag_values=FLAGS)
_SKELETON = flags.DEFINE_string("skeleton", "coco", "The skeleton table of the joints.", flag_values=FLAGS)
_MARGIN = flags.DEFINE_float(
    "margin",
    0.12,
    "Room around the joints of a person without a box, as a share of the longer side of their box.",
    flag_values=FLAGS,
)


def main():
    from tfrecords_tools import csv_source

    skeleton = skeletons.get(_SKELETON.value)
    options = csv_source.CsvOptions(_CSV.value, _IMAGES.value, _OUTPUT.value, skeleton, _MARGIN.value)
    print("\n".join(csv_source.convert(options)))


def console():
    cli.run(main, FLAGS, __doc__, tensorflow=False)


if __name__ == "__main__":
    console()
