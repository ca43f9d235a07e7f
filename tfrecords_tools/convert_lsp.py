"""Turns Leeds Sports Pose, or its extended training set, into a COCO keypoint file that write_coco reads.

python -m tfrecords_tools.convert_lsp --joints=joints.mat --images=images --first=1 --last=1000 \\
    --output=person_keypoints_lsp_train.json

The first 1,000 images of Leeds Sports Pose are for training, the last 1,000 are the test set. A joint that is marked
as occluded gets v=1. In LSP Extended, joints that are not marked as labelled get v=0. Labelled joints outside their
image get v=0 and are counted. The box is that of the labelled joints with a margin. Needs scipy: pip install
'kpose[lsp]'.
"""

import dataclasses

import numpy as np
from absl import flags

from kpose.core import cli, skeletons
from kpose.core.errors import InputError
from kpose.data.image_files import ImageFolder
from tfrecords_tools import coco_builder

# What the third number of a joint says, and how the images are numbered.
LSP = "lsp"  # 1: occluded; every joint is labelled. im0001.jpg


LSPET = "lspet"  # 1: labelled. im00001.jpg


FORMS = ("auto", LSP, LSPET)


DIGITS = {LSP: 4, LSPET: 5}


ON_MISSING = ("stop", "skip")


# Labellers are not better than a tenth of a pixel.
DECIMALS = 1


@dataclasses.dataclass(frozen=True)
class LspOptions:
    """What to convert; the fields are the flags of `tfrecords_tools.convert_lsp`.

    Attributes:
        joints: the joints.mat.
        images: folder or .zip file of the images.
        output: the COCO file to write.
        skeleton: `skeletons.LSP`, or `skeletons.COCO`: its five joints of the face are unlabelled then, and the neck
            and the top of the head are left out.
        form: one of `FORMS`.
        first: number of the first image, from 1.
        last: number of the last; None: the set's last.
        margin: see `coco_builder.box_of_joints`. The box is that of all 14 joints, whatever the skeleton.
        on_missing: whether an absent image stops the conversion or is left out.
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

    def __post_init__(self):
        coco_builder.check_options(self.output, self.margin)
        if self.form not in FORMS or self.on_missing not in ON_MISSING:
            raise InputError(
                f"form {self.form!r}, on_missing {self.on_missing!r}: "
                f"the forms are {', '.join(FORMS)}, and an absent image may {' or '.join(ON_MISSING)}"
            )
        if self.skeleton.name not in ("lsp", "coco"):
            raise InputError(f"skeleton {self.skeleton.name!r}: Leeds Sports Pose becomes lsp or coco")


def read_joints(path, form="auto"):
    """The joints of a joints.mat.

    Args:
        path: the file: `joints` of shape [3, 14, N] (as LSP has it) or [14, 3, N] (as LSP Extended has it).
        form: what the third number means; "auto": what it means in the set that has this shape.

    Returns:
        (x, y in pixels [N, 14, 2] float64, visibility flags [N, 14] of 0, 1 and 2, the form).

    Raises:
        InputError: scipy is not installed; the file is missing, no MATLAB file, or does not hold such joints.
    """
    joints = _load(path)
    # MATLAB drops the last axis of a set of one image.
    cube = joints[..., None] if joints.ndim == 2 else joints
    if cube.ndim == 3 and cube.shape[:2] == (3, 14):
        cube, found = cube.transpose(2, 1, 0), LSP
    elif cube.ndim == 3 and cube.shape[:2] == (14, 3):
        cube, found = cube.transpose(2, 0, 1), LSPET
    else:
        raise InputError(
            f"{path}: its joints have the shape {list(joints.shape)}: neither [3, 14, N] as in LSP nor [14, 3, N] as "
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
        raise InputError(f"{path}: reading MATLAB files takes scipy: pip install 'kpose[lsp]'") from None
    try:
        with open(path, "rb") as file:
            variables = scipy.io.loadmat(file, variable_names=["joints"])
    except FileNotFoundError:
        raise InputError(f"{path}: no such file: joints.mat lies in the data set's own .zip file") from None
    except NotImplementedError:
        raise InputError(f"{path}: saved as MATLAB 7.3, which scipy does not read: save it with -v7") from None
    except Exception as error:  # Whatever a damaged file makes of scipy's parser: a dozen kinds of exception.
        reason = " ".join(str(error).split())
        raise InputError(
            f"{path}: cannot be read as a MATLAB file ({reason}): it may be damaged or cut short"
        ) from None
    joints = variables.get("joints")
    if joints is None:
        raise InputError(f"{path}: it holds no variable called joints")
    if joints.dtype.kind not in "fiu":
        raise InputError(f"{path}: its joints are no numbers")
    return joints


def convert(options):
    """Writes the COCO file. Ids of images and persons are the images' numbers in the set.

    Labelled joints that are not finite or lie outside their image become unlabelled, and a person whose joints make no
    box is left out with its image; both are counted.

    Args:
        options: `LspOptions`.

    Returns:
        Lines that say what was written and what was left out.

    Raises:
        InputError: bad joints or images, an image that is absent (unless such are skipped), numbers that the set does
            not have.
    """
    points, flags, form = read_joints(options.joints, options.form)
    last = len(points) if options.last is None else options.last
    if not 1 <= options.first <= last <= len(points):
        raise InputError(
            f"{options.joints}: images {options.first} to {last} are asked for, but it has 1 to {len(points)}"
        )
    names = {number: f"im{number:0{DIGITS[form]}d}.jpg" for number in range(options.first, last + 1)}
    folder = ImageFolder(options.images)
    absent = {number: name for number, name in names.items() if name not in folder}
    _check_absent(list(absent.values()), names, options)

    collection, no_box = coco_builder.Collection(options.skeleton), 0
    sources_of = [skeletons.LSP.joints.index(j) if j in skeletons.LSP.joints else None for j in options.skeleton.joints]
    for number, name in names.items():
        if number in absent:
            continue
        size = folder.size(name)
        exact = points[number - 1]
        rounded = np.round(exact, DECIMALS) + 0.0  # No -0.0.
        trusted = collection.trust(rounded, flags[number - 1], size)
        box = coco_builder.box_of_joints(exact, trusted, size, options.margin)
        if box is None:
            no_box += 1
            continue
        collection.add_image(number, name, size)
        own = [rounded[j] if j is not None else np.zeros(2) for j in sources_of]
        collection.add_person(number, number, own, [0 if j is None else trusted[j] for j in sources_of], box)
    title = "Leeds Sports Pose" + (" Extended" if form == LSPET else "")
    lines = collection.write(
        options.output,
        f"{title}, images {options.first} to {last}, {options.skeleton.name} joints; "
        f"box: the labelled joints and {options.margin:g} of its longer side on each side",
    )
    if absent:
        lines.append(
            f"left out: {len(absent):,} of {len(names):,} images that are absent, {min(absent.values())} the first"
        )
    if no_box:
        lines.append(f"left out: {no_box:,} persons whose labelled joints make no box")
    return lines


def _check_absent(absent, names, options):
    if len(absent) == len(names):
        raise InputError(
            f"{options.images}: none of the {len(names):,} images is there, {absent[0]} the first: check the folder; "
            "LSP numbers its images with 4 digits, LSP Extended with 5 (--form)"
        )
    if absent and options.on_missing == "stop":
        raise InputError(
            f"{options.images}: {len(absent):,} of {len(names):,} images are absent, {absent[0]} the first: unpack "
            "them, or ask for fewer with --first and --last, or leave them out with --on_missing=skip"
        )


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
    pass

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
