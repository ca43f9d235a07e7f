"""Converts the labels of other tools to a COCO keypoint file, which write_coco reads.

python -m tfrecords_tools.convert --from=yolo --input=data.yaml --output=annotations.json

--from        --input
yolo          data.yaml of a pose data set of Ultralytics YOLO, with a text file an image. --split is train, val or
              test. Joints: kpt_names, left and right: flip_idx; boxes: those of the text files.
labelstudio   an export as JSON or JSON-MIN, with KeyPointLabels and perhaps RectangleLabels. Points that are children
              of a rectangle, or related to it, are a person; without rectangles and relations, an image has one
              person. The first annotation of a task counts, or the one marked as ground truth. Predictions do not.
labelme       a folder of JSON files, one an image, with points and perhaps rectangles. Points and a rectangle with one
              group_id are a person; without groups and rectangles, an image has one person. The flag "occluded" of a
              point makes it occluded.
cvat          annotations.xml of "CVAT for images 1.1" with skeletons, or with points and boxes that are grouped.
deeplabcut    CollectedData_*.csv, a folder of these files, or a project; one or several animals.
csv           a table with a person a line: file_name, NAME_x, NAME_y, NAME_v ... (convert_csv --help)
lsp           joints.mat of Leeds Sports Pose (convert_lsp --help)

The names of the joints, their order and the bones are those of the source; --joints sets names and order. A person
without a box gets that of its joints with a margin. What was left out is counted and named at the end.
"""

from absl import flags

from kpose.core import cli
from tfrecords_tools.convert import formats
from tfrecords_tools.convert.options import FORMATS, ON_MISSING, ConvertOptions, joint_names

FLAGS = cli.flag_set()
_FROM = flags.DEFINE_enum("from", None, list(FORMATS), "Format of the labels.", required=True, flag_values=FLAGS)
_INPUT = flags.DEFINE_string("input", None, "File or folder of the labels.", required=True, flag_values=FLAGS)
_OUTPUT = flags.DEFINE_string("output", None, "The COCO file to write, .json.", required=True, flag_values=FLAGS)
_IMAGES = flags.DEFINE_string(
    "images",
    "",
    "Folder or .zip file with the images (default: where the labels say; not for csv, lsp).",
    flag_values=FLAGS,
)
_CATEGORY = flags.DEFINE_string(
    "category",
    "",
    "Name of the persons' category (default: that of the source, or person). It chooses one of several.",
    flag_values=FLAGS,
)
_MARGIN = flags.DEFINE_float(
    "margin",
    0.12,
    "Margin around the joints of a person without a box, as a share of the longer side of the joints' box.",
    flag_values=FLAGS,
)
_ON_MISSING = flags.DEFINE_enum(
    "on_missing", "stop", list(ON_MISSING), "What to do if an image is missing: stop, or skip it.", flag_values=FLAGS
)
_JOINTS = flags.DEFINE_list(
    "joints",
    [],
    "Names of the joints in order, separated by commas; or coco, lsp or a skeleton file (.json, .yaml); or a .txt "
    "with a name a line, or Label Studio's configuration .xml (default: those of the source).",
    flag_values=FLAGS,
)
_PIXEL_OFFSET = flags.DEFINE_float(
    "pixel_offset",
    None,
    "0: the coordinates count from the corner of the image; 0.5: they are pixel indices (default: 0.5 for deeplabcut, "
    "0 for yolo, labelstudio, labelme, cvat).",
    flag_values=FLAGS,
)
_SPLIT = flags.DEFINE_enum(
    "split", "", ["", "train", "val", "test"], "yolo: the split (default: train).", flag_values=FLAGS
)
_FIRST = flags.DEFINE_integer("first", None, "lsp: number of the first image (default: 1).", flag_values=FLAGS)
_LAST = flags.DEFINE_integer("last", None, "lsp: number of the last image (default: the last).", flag_values=FLAGS)
_FORM = flags.DEFINE_enum(
    "form", "", ["", "auto", "lsp", "lspet"], "lsp: which of the two data sets (default: auto).", flag_values=FLAGS
)


def main():
    options = ConvertOptions(
        format=_FROM.value,
        input=_INPUT.value,
        output=_OUTPUT.value,
        images=_IMAGES.value,
        category=_CATEGORY.value,
        margin=_MARGIN.value,
        on_missing=_ON_MISSING.value,
        joints=joint_names(_JOINTS.value),
        split=_SPLIT.value,
        pixel_offset=_PIXEL_OFFSET.value,
        first=_FIRST.value,
        last=_LAST.value,
        form=_FORM.value,
    )
    print("\n".join(formats.convert(options)))


def console():
    cli.run(main, FLAGS, __doc__, tensorflow=False)


if __name__ == "__main__":
    console()
