"""Turns Leeds Sports Pose, or its extended training set, into a COCO keypoint file that write_coco reads.

python -m tfrecords_tools.convert_lsp --joints=joints.mat --images=images --first=1 --last=1000 \\
    --output=person_keypoints_lsp_train.json

The first 1,000 images of Leeds Sports Pose are for training, the last 1,000 are the test set. A joint that is marked
as occluded gets v=1. In LSP Extended, joints that are not marked as labelled get v=0. Labelled joints outside their
image get v=0 and are counted. The box is that of the labelled joints with a margin. Needs scipy: pip install
'kpose[lsp]'.
"""

from absl import flags

from kpose import cli, skeletons

FLAGS = cli.flag_set()
_JOINTS = flags.DEFINE_string("joints", None, "The data set's joints.mat.", required=True, flag_values=FLAGS)
_IMAGES = flags.DEFINE_string(
    "images", None, "Folder or .zip file with im0001.jpg ...", required=True, flag_values=FLAGS
)
_OUTPUT = flags.DEFINE_string("output", None, "The COCO file to write, .json.", required=True, flag_values=FLAGS)
_SKELETON = flags.DEFINE_enum(
    "skeleton",
    "lsp",
    ["lsp", "coco"],
    "lsp keeps the 14 joints; coco has its 17, those of the face unlabelled, without neck and top of the head.",
    flag_values=FLAGS,
)
_FORM = flags.DEFINE_enum(
    "form",
    "auto",
    ["auto", "lsp", "lspet"],
    "What a joint's third number means and how images are numbered: lsp (occluded, 4 digits), lspet (labelled, "
    "5 digits) or auto (by the shape of the joints: [3, 14, N] is lsp, [14, 3, N] lspet).",
    flag_values=FLAGS,
)
_FIRST = flags.DEFINE_integer("first", 1, "Number of the first image.", flag_values=FLAGS)
_LAST = flags.DEFINE_integer("last", None, "Number of the last image (default: all).", flag_values=FLAGS)
_MARGIN = flags.DEFINE_float(
    "margin", 0.12, "Room around the joints, as a share of the longer side of their box.", flag_values=FLAGS
)
_ON_MISSING = flags.DEFINE_enum(
    "on_missing", "stop", ["stop", "skip"], "Whether an absent image stops or is left out.", flag_values=FLAGS
)


def main():
    from tfrecords_tools import lsp_source

    options = lsp_source.LspOptions(
        joints=_JOINTS.value,
        images=_IMAGES.value,
        output=_OUTPUT.value,
        skeleton=skeletons.get(_SKELETON.value),
        form=_FORM.value,
        first=_FIRST.value,
        last=_LAST.value,
        margin=_MARGIN.value,
        on_missing=_ON_MISSING.value,
    )
    print("\n".join(lsp_source.convert(options)))


def console():
    cli.run(main, FLAGS, __doc__, tensorflow=False)


if __name__ == "__main__":
    console()
