"""Converts Leeds Sports Pose (LSP) or LSP Extended to a COCO keypoint file, which write_coco reads.

python -m tfrecords_tools.convert_lsp --joints=joints.mat --images=images --first=1 --last=1000 \\
    --output=person_keypoints_lsp_train.json

The first 1,000 images of Leeds Sports Pose are the training set, the last 1,000 are the test set.
Occluded joints get v=1. In LSP Extended, joints that are not marked as labelled get v=0. Labelled
joints outside their image get v=0 and are counted. The box is that of the labelled joints with a
margin. Coordinates in joints.mat count from the corner of the image (docs/data.md); the COCO file
has pixel indices. Needs scipy: pip install scipy, or from a checkout pip install '.[lsp]'.
"""

import dataclasses

import numpy as np
from absl import flags

from kpose.core import cli, geometry, skeletons
from kpose.core.errors import InputError
from kpose.data.image_files import ImageFolder
from tfrecords_tools import coco_builder

# The forms of the data: meaning of a joint's third number if it is 1, and name of the first image.
LSP = "lsp"  # 1: occluded; every joint is labelled. im0001.jpg
LSPET = "lspet"  # 1: labelled. im00001.jpg
FORMS = ("auto", LSP, LSPET)
DIGITS = {LSP: 4, LSPET: 5}
ON_MISSING = ("stop", "skip")
# Decimals of the coordinates in the COCO file. Labels are not more exact than 0.1 pixels.
DECIMALS = 1


@dataclasses.dataclass(frozen=True)
class LspOptions:
    """What to convert. The fields are the flags of `tfrecords_tools.convert_lsp`.

    Attributes:
        joints: the file joints.mat.
        images: folder or .zip file with the images.
        output: the COCO file to write.
        skeleton: `skeletons.LSP`; or `skeletons.COCO`, whose five joints of the face are then
            unlabelled, and which has no neck and no top of the head.
        form: one of `FORMS`.
        first: number of the first image, from 1.
        last: number of the last image; None: the last of the set.
        margin: see `coco_builder.box_of_joints`. The box is that of all 14 joints with either
            skeleton.
        on_missing: "stop" or "skip": what to do if an image is missing.
        category: name of the persons' category.

    Raises:
        InputError: an option is not one of the allowed values.
    """

    joints: str
    images: str
    output: str
    skeleton: object = skeletons.LSP
    form: str = "auto"
    first: int = 1
    last: int | None = None
    margin: float = 0.12
    on_missing: str = "stop"
    category: str = "person"

    def __post_init__(self):
        coco_builder.check_options(self.output, self.margin)
        if self.form not in FORMS or self.on_missing not in ON_MISSING:
            raise InputError(
                f"form is {self.form!r} and on_missing is {self.on_missing!r}: form is one of {', '.join(FORMS)}, and "
                f"on_missing is one of {', '.join(ON_MISSING)}"
            )
        if self.skeleton.name not in ("lsp", "coco"):
            raise InputError(f"skeleton is {self.skeleton.name!r}: Leeds Sports Pose can be converted to lsp or coco")


def read_joints(path, form="auto"):
    """The joints in a file joints.mat.

    Args:
        path: MATLAB file with `joints` of shape [3, 14, N] (LSP) or [14, 3, N] (LSP Extended).
        form: one of `FORMS`: the meaning of the third number; "auto": the shape decides.

    Returns:
        ([N, 14, 2] float64 x, y in pixels, [N, 14] visibility flags 0, 1 or 2, the form).

    Raises:
        InputError: scipy is not installed; the file is missing, is not a MATLAB file, or has no
            such joints.
    """
    joints = _load(path)
    # MATLAB drops the last axis if the set has one image.
    cube = joints[..., None] if joints.ndim == 2 else joints
    if cube.ndim == 3 and cube.shape[:2] == (3, 14):
        cube, found = cube.transpose(2, 1, 0), LSP
    elif cube.ndim == 3 and cube.shape[:2] == (14, 3):
        cube, found = cube.transpose(2, 0, 1), LSPET
    else:
        raise InputError(
            f"{path}: its joints have the shape {list(joints.shape)}: it must be [3, 14, N] as in LSP or [14, 3, N] as "
            "in LSP Extended"
        )
    form = found if form == "auto" else form
    marks = cube[..., 2]
    if not np.isin(marks, (0, 1)).all():
        odd = marks[~np.isin(marks, (0, 1))][0]
        raise InputError(f"{path}: the third number of a joint is {odd:g}: it must be 0 or 1")
    flags = np.where(marks == 1, 1, 2) if form == LSP else np.where(marks == 1, 2, 0)
    return cube[..., :2].astype(np.float64), flags, form


def _load(path):
    """The variable `joints` of a MATLAB file."""
    try:
        import scipy.io
    except ImportError:
        raise InputError(
            f"{path}: scipy is not installed: pip install scipy, or from a checkout pip install '.[lsp]'"
        ) from None
    try:
        with open(path, "rb") as file:
            variables = scipy.io.loadmat(file, variable_names=["joints"])
    except FileNotFoundError:
        raise InputError(f"{path}: no such file: joints.mat is in the .zip file of the data set") from None
    except NotImplementedError:
        raise InputError(f"{path}: a MATLAB 7.3 file, which scipy does not read: save it with -v7") from None
    except Exception as error:  # For damaged files, scipy raises exceptions of many classes.
        reason = " ".join(str(error).split())
        raise InputError(
            f"{path}: cannot be read as a MATLAB file ({reason}): it may be damaged or cut short"
        ) from None
    joints = variables.get("joints")
    if joints is None:
        raise InputError(f"{path}: it has no variable named joints")
    if joints.dtype.kind not in "fiu":
        raise InputError(f"{path}: its joints are not numbers")
    return joints


def convert(options):
    """Writes the COCO file. The ids of images and persons are the numbers of the images in the set.

    Labelled joints that are not finite or outside their image become unlabelled. A person with too
    few joints for a box is left out, with its image. Both are counted.

    Args:
        options: `LspOptions`.

    Returns:
        Lines of text: what was written and what was left out.

    Raises:
        InputError: bad joints or images; a missing image, unless such images are skipped; the set
            has no images `first` to `last`.
    """
    points, flags, form = read_joints(options.joints, options.form)
    last = len(points) if options.last is None else options.last
    if not 1 <= options.first <= last <= len(points):
        raise InputError(
            f"{options.joints}: images {options.first} to {last} were requested, but it has images 1 to {len(points)}: "
            "change --first or --last"
        )
    names = {number: f"im{number:0{DIGITS[form]}d}.jpg" for number in range(options.first, last + 1)}
    folder = ImageFolder(options.images)
    missing = {number: name for number, name in names.items() if name not in folder}
    _check_missing(list(missing.values()), names, options)

    collection, no_box = coco_builder.Collection(options.skeleton, options.category), 0
    # For each joint of the skeleton, its index among the 14 joints of the file; None: the file does
    # not have it.
    sources_of = [skeletons.LSP.joints.index(j) if j in skeletons.LSP.joints else None for j in options.skeleton.joints]
    for number, name in names.items():
        if number in missing:
            continue
        size = folder.size(name)
        exact = points[number - 1]
        rounded = np.round(exact, DECIMALS)
        usable = collection.usable_flags(rounded, flags[number - 1], size)
        box = coco_builder.box_of_joints(exact, usable, size, options.margin)
        if box is None:
            no_box += 1
            continue
        collection.add_image(number, name, size)
        # + 0.0 turns -0.0 into 0.0.
        indices = np.round(geometry.to_indices(rounded), DECIMALS) + 0.0
        own_indices = [np.zeros(2) if j is None else indices[j] for j in sources_of]
        own_flags = [0 if j is None else usable[j] for j in sources_of]
        collection.add_person(number, number, own_indices, own_flags, box)
    title = "Leeds Sports Pose" + (" Extended" if form == LSPET else "")
    lines = collection.write(
        options.output,
        f"{title}, images {options.first} to {last}, {options.skeleton.name} joints; "
        f"box: the labelled joints and {options.margin:g} of its longer side on each side",
    )
    if missing:
        first = min(missing.values())
        lines.append(f"left out: {len(missing):,} of {len(names):,} images, which are missing; the first is {first}")
    if no_box:
        lines.append(f"left out: {no_box:,} persons with too few labelled joints for a box")
    return lines


def _check_missing(missing, names, options):
    if len(missing) == len(names):
        raise InputError(
            f"{options.images}: all {len(names):,} images are missing; the first is {missing[0]}: check the folder; "
            "LSP numbers its images with 4 digits, LSP Extended with 5 (--form)"
        )
    if missing and options.on_missing == "stop":
        raise InputError(
            f"{options.images}: {len(missing):,} of {len(names):,} images are missing; the first is {missing[0]}: "
            "unpack them, or select fewer with --first and --last, or leave them out with --on_missing=skip"
        )


FLAGS = cli.flag_set()
_JOINTS = flags.DEFINE_string("joints", None, "The file joints.mat of the data set.", required=True, flag_values=FLAGS)
_IMAGES = flags.DEFINE_string(
    "images", None, "Folder or .zip file with im0001.jpg ...", required=True, flag_values=FLAGS
)
_OUTPUT = flags.DEFINE_string("output", None, "The COCO file to write, .json.", required=True, flag_values=FLAGS)
_SKELETON = flags.DEFINE_enum(
    "skeleton",
    "lsp",
    ["lsp", "coco"],
    "lsp: the 14 joints; coco: 17 joints, without neck and top of the head, those of the face unlabelled.",
    flag_values=FLAGS,
)
_FORM = flags.DEFINE_enum(
    "form",
    "auto",
    ["auto", "lsp", "lspet"],
    "Meaning of a joint's third number, and digits of the image numbers: lsp (occluded, 4), lspet (labelled, 5), or "
    "auto (by the shape of the joints: [3, 14, N] is lsp, [14, 3, N] is lspet).",
    flag_values=FLAGS,
)
_FIRST = flags.DEFINE_integer("first", 1, "Number of the first image.", flag_values=FLAGS)
_LAST = flags.DEFINE_integer(
    "last", None, "Number of the last image (default: the last of the set).", flag_values=FLAGS
)
_MARGIN = flags.DEFINE_float(
    "margin", 0.12, "Margin around the joints, as a share of the longer side of their box.", flag_values=FLAGS
)
_ON_MISSING = flags.DEFINE_enum(
    "on_missing", "stop", ["stop", "skip"], "What to do if an image is missing: stop, or skip it.", flag_values=FLAGS
)


def main():
    options = LspOptions(
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
    print("\n".join(convert(options)))


def console():
    cli.run(main, FLAGS, __doc__, tensorflow=False)


if __name__ == "__main__":
    console()
