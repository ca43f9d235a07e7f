"""The writer's options: one table gives the flags, the manifest's entries and the command."""

import dataclasses
import math
import os
from collections.abc import Callable

from absl import flags

from kpose.core import cli, files, geometry, skeleton_files, skeletons
from kpose.core.errors import InputError
from kpose.data.problems import POLICIES
from tfrecords_tools.write_coco.annotations import SELECTIONS

# When the command that a manifest records has the flag.
ALWAYS, IF_SET, NEVER = "always", "if not empty or 0", "never"


@dataclasses.dataclass(frozen=True)
class Option:
    """How an option is given, checked and recorded.

    Attributes:
        define: absl's function that defines the flag.
        default: default value of the flag; None: the option has no default.
        help: help text of the flag.
        arguments: further arguments of `define`.
        parse: value of the flag -> value of the option; None: they are the same.
        low, high: bounds of a number, or of each number of a tuple; None: no bounds.
        command: `ALWAYS`, `IF_SET` or `NEVER`.
        manifest: entry of the manifest -> function of the `WriteOptions` that returns its value;
            None: the value of the option under its own name.
    """

    define: Callable
    default: object
    help: str
    arguments: dict = dataclasses.field(default_factory=dict)
    parse: Callable | None = None
    low: float | None = None
    high: float = math.inf
    command: str = ALWAYS
    manifest: dict | None = None

    def value(self, given):
        """The value of the option for a value of its flag."""
        return self.parse(given) if self.parse else given

    def check(self, name, value):
        """Raises `InputError` if a value is out of bounds."""
        numbers = value if isinstance(value, tuple) else (value,)
        if self.low is None or all(self.low <= number <= self.high for number in numbers):
            return
        bounds = f"at least {self.low}" if self.high == math.inf else f"between {self.low} and {self.high:,}"
        raise InputError(f"--{name}={_text(value)}: give {'numbers' if len(numbers) > 1 else 'a number'} {bounds}")


def _text(value):
    """A value as it is written on the command line."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple):
        return ",".join(f"{number:g}" for number in value)
    return value.name if isinstance(value, skeletons.Skeleton) else str(value)


def _option(define, default, text, **settings):
    option = Option(define, default, text, **settings)
    default = dataclasses.MISSING if default is None else option.value(default)
    return dataclasses.field(default=default, metadata={"option": option})


def parse_share(bounds):
    """(from, to) of the flag --share.

    Raises:
        InputError: not two numbers.
    """
    try:
        first, last = (float(bound) for bound in bounds)
    except ValueError:
        raise InputError(f"--share={','.join(bounds)}: give two numbers, such as 0,0.8") from None
    return first, last


def _annotations_sha256(options):
    return files.sha256(options.annotations)


@dataclasses.dataclass(frozen=True)
class WriteOptions:
    """What to write. Each field is a flag of write_coco, whose help text describes it.

    The fields hold the values of the flags, except `crop_size`, which is (height, width) in pixels,
    and `skeleton`, which is a `Skeleton` or "auto". `plan.prepare` replaces "auto".

    Raises:
        InputError: an option is out of bounds.
    """

    annotations: str = _option(
        flags.DEFINE_string,
        None,
        "COCO keypoint annotations, .json or .json.gz: a file or a URL.",
        manifest={"annotations": lambda o: os.path.basename(o.annotations), "annotations_sha256": _annotations_sha256},
    )
    images: str = _option(
        flags.DEFINE_string,
        None,
        "Folder or .zip file with the images; it may be a URL such as gs://bucket/train2017.",
    )
    output_dir: str = _option(
        flags.DEFINE_string, None, "Folder for the shards; it may be a URL.", command=NEVER, manifest={}
    )
    split: str = _option(flags.DEFINE_string, "train", "Name of the shards, such as train or val.", manifest={})
    select: str = _option(
        flags.DEFINE_enum,
        "fully_visible",
        "Which persons: fully_visible (every joint is labelled as visible) or labelled (at least one joint is "
        "labelled).",
        arguments={"enum_values": SELECTIONS},
    )
    share: tuple = _option(
        flags.DEFINE_list,
        ["0", "1"],
        "Use a part of the images: FROM,TO in 0..1. Training and validation records of one file of labels: "
        "--split=train --share=0,0.8 and --split=val --share=0.8,1. The names of the image files decide.",
        parse=parse_share,
        low=0,
        high=1,
        manifest={"share": lambda o: list(o.share)},
    )
    category: str = _option(
        flags.DEFINE_string,
        "",
        "Name of the COCO category whose annotations are the persons (empty: all that have keypoints).",
        command=IF_SET,
    )
    padding: float = _option(
        flags.DEFINE_float,
        1.0,
        "Factor by which the box is enlarged. The crop shows the enlarged box.",
        low=1,
        high=10,
    )
    aspect: float = _option(
        flags.DEFINE_float,
        0.0,
        "Crop the rectangle of this width / height around the box, so that persons are not stretched (0: crop the box "
        "itself). --crop_size must have the same shape.",
        command=IF_SET,
    )
    context: float = _option(
        flags.DEFINE_float,
        1.0,
        "Store a margin around the crop: the stored crop is larger by this factor, at the same scale, and its middle "
        "is the crop without the margin. Augmentation that rotates, shifts or scales then shows real pixels.",
        low=1,
        high=10,
        manifest={"context": lambda o: o.stored[1] / o.padding},
    )
    crop_size: tuple = _option(
        flags.DEFINE_list,
        ["224"],
        "Size of the crop without its margin, in pixels: SIDE, or HEIGHT,WIDTH.",
        parse=lambda sides: cli.parse_size(sides, "crop_size"),
        low=8,
        high=4096,
        manifest={"crop_size": lambda o: list(o.crop_size), "stored_size": lambda o: list(o.stored[0])},
    )
    shards: int = _option(
        flags.DEFINE_integer,
        8,
        "Number of shard files.",
        low=1,
        high=99_999,
        manifest={"shard_count": lambda o: o.shards},
    )
    workers: int = _option(
        flags.DEFINE_integer,
        0,
        "Number of processes (0: one per core). The shards do not depend on it.",
        low=0,
        command=NEVER,
        manifest={},
    )
    seed: int = _option(flags.DEFINE_integer, 0, "Seed for the order of the images.", low=0)
    skeleton: skeletons.Skeleton | str = _option(
        flags.DEFINE_string,
        skeletons.AUTO,
        "Skeleton of the labels: coco, lsp, or a .json or .yaml file with its joints. auto: that of the category in "
        "the annotations.",
        parse=lambda source: source if source == skeletons.AUTO else skeleton_files.find(source),
        manifest={"skeleton": lambda o: skeleton_files.to_fields(o.skeleton)},
    )
    pixel_offset: float = _option(
        flags.DEFINE_float,
        geometry.HALF_PIXEL,
        "Added to the joints' coordinates. 0.5: they are pixel indices, as in COCO. 0: the tool that wrote the file "
        "counts from the corner of the image, such as CVAT or Label Studio.",
        low=-1,
        high=1,
    )
    allow_outside: bool = _option(
        flags.DEFINE_bool,
        False,
        "Accept file names of images that leave the folder --images: absolute ones, and those with '..'.",
        command=IF_SET,
        manifest={},
    )
    on_error: str = _option(
        flags.DEFINE_enum,
        "stop",
        "What to do with bad input (a missing or damaged image, a box outside its image, keypoints of a wrong "
        "length): stop, or skip it and count it in the manifest.",
        arguments={"enum_values": POLICIES},
    )

    def __post_init__(self):
        if not self.split or os.sep in self.split:
            raise InputError(f"--split={self.split}: give a plain name such as train or val")
        if len(self.share) != 2 or not self.share[0] < self.share[1]:
            raise InputError(f"--share={_text(self.share)}: give FROM,TO with FROM below TO, such as 0,0.8")
        if len(self.crop_size) != 2:
            raise InputError(f"--crop_size={_text(self.crop_size)}: give a height and a width")
        for name, option in OPTIONS.items():
            option.check(name, getattr(self, name))
        geometry.check_aspect(self.aspect, self.crop_size)

    @classmethod
    def from_flags(cls, flag_values):
        """The options that a command line gives, after `define_flags` and parsing."""
        return cls(**{name: option.value(flag_values[name].value) for name, option in OPTIONS.items()})

    @property
    def stored(self):
        """((height, width), padding) of the stored crops.

        The margin of `context` is rounded to whole pixels, the same number on opposite sides.
        """
        height, width = self.crop_size
        step = math.gcd(height, width)
        steps = round((self.context - 1) * step / 2)
        size = height + 2 * steps * height // step, width + 2 * steps * width // step
        return size, self.padding * (1 + 2 * steps / step)

    def manifest_entries(self):
        """The manifest's entries that record the options: dict of JSON values."""
        entries = {}
        for name, option in OPTIONS.items():
            if option.manifest is None:
                entries[name] = getattr(self, name)
            else:
                entries |= {entry: value(self) for entry, value in option.manifest.items()}
        return entries

    def command(self):
        """The command line that writes the same shards; the caller adds --output_dir."""
        parts = ["python -m tfrecords_tools.write_coco"]
        for name, option in OPTIONS.items():
            value = getattr(self, name)
            if option.command == ALWAYS or (option.command == IF_SET and value):
                parts.append(f"--{name}={_text(value)}")
        return " ".join(parts)


OPTIONS = {field.name: field.metadata["option"] for field in dataclasses.fields(WriteOptions)}


def define_flags(flag_values):
    """Defines a flag for each option in a set of absl flags."""
    for name, option in OPTIONS.items():
        option.define(name=name, default=option.default, help=option.help, flag_values=flag_values, **option.arguments)
