"""The options of a conversion."""

import dataclasses
import os
import xml.etree.ElementTree

from kpose.core import skeleton_files, skeletons
from kpose.core.errors import InputError
from tfrecords_tools import coco_builder
from tfrecords_tools.convert import labels

FORMATS = ("yolo", "labelstudio", "labelme", "cvat", "deeplabcut", "csv", "lsp")
ON_MISSING = ("stop", "skip")
# Option -> the formats that have it. The other options are for all formats.
ONLY_FOR = {
    "split": ("yolo",),
    "joints": FORMATS[:5],
    "pixel_offset": FORMATS[:5],
    "first": ("lsp",),
    "last": ("lsp",),
    "form": ("lsp",),
}


@dataclasses.dataclass(frozen=True)
class ConvertOptions:
    """What to convert. The fields are the flags of `tfrecords_tools.convert`.

    Attributes:
        format: one of `FORMATS`; the flag is --from.
        input: file or folder of the labels.
        output: the COCO file to write.
        images: folder or .zip file with the images; "": where the labels say.
        category: name of the persons' category; "": that of the source, or "person".
        margin: see `coco_builder.box_of_joints`; used for persons without a box.
        on_missing: "stop" or "skip": what to do if an image is missing.
        joints: joint names in the order of the COCO file; (): those of the source.
        split: of `yolo`: a split of data.yaml; "": "train".
        pixel_offset: 0: coordinates count from the corner, 0.5: they are pixel indices; None: as
            the format has them.
        first: of `lsp`: number of the first image; None: 1.
        last: of `lsp`: number of the last image; None: the last.
        form: of `lsp`: see `convert_lsp.LspOptions`; "": "auto".

    Raises:
        InputError: an option is not one of the allowed values, or is not one of the format's.
    """

    format: str
    input: str
    output: str
    images: str = ""
    category: str = ""
    margin: float = 0.12
    on_missing: str = "stop"
    joints: tuple = ()
    split: str = ""
    pixel_offset: float | None = None
    first: int | None = None
    last: int | None = None
    form: str = ""

    def __post_init__(self):
        coco_builder.check_options(self.output, self.margin)
        if self.format not in FORMATS or self.on_missing not in ON_MISSING:
            raise InputError(
                f"--from={self.format} --on_missing={self.on_missing}: --from is one of {', '.join(FORMATS)}, and "
                f"--on_missing is one of {', '.join(ON_MISSING)}"
            )
        for name, formats in ONLY_FOR.items():
            if getattr(self, name) not in (None, "", ()) and self.format not in formats:
                raise InputError(f"--{name} is for --from={' or '.join(formats)}, not for --from={self.format}")
        if self.format in ("csv", "lsp") and not self.images:
            raise InputError(f"--images is missing: --from={self.format} needs the folder or .zip file with the images")
        if self.pixel_offset not in (None, 0, 0.5):
            raise InputError(
                f"--pixel_offset={self.pixel_offset:g}: give 0 (coordinates count from the corner) or 0.5 (pixel "
                "indices)"
            )


def joint_names(values):
    """The joint names that the flag --joints names.

    Args:
        values: names; or the name or file of a skeleton (`skeleton_files.find`); or one file: a
            labelling configuration of Label Studio (.xml), or a text file (.txt) with a name a line.

    Returns:
        Tuple of names.

    Raises:
        InputError: the file is missing, is not XML, or names no joints.
    """
    if len(values) == 1 and (values[0] in skeletons.SKELETONS or skeleton_files.is_file(values[0])):
        return skeleton_files.find(values[0]).joints
    if len(values) != 1 or os.path.splitext(values[0])[1].lower() not in (".xml", ".txt"):
        return tuple(values)
    path = values[0]
    text = labels.read_text(path, "file of joint names")
    if path.lower().endswith(".txt"):
        # LabelMe's own file of labels begins with these two.
        names = [line.strip() for line in text.splitlines()]
        names = [name for name in names if name and name not in ("__ignore__", "_background_")]
    else:
        try:
            root = xml.etree.ElementTree.fromstring(text)
        except xml.etree.ElementTree.ParseError as error:
            raise InputError(f"{path}: not XML ({error})") from None
        names = [label.get("value", "") for tag in root.iter("KeyPointLabels") for label in tag.iter("Label")]
    if not names:
        raise InputError(f"{path}: it names no joints")
    return tuple(names)
