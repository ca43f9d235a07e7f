"""Converts a CSV table of persons and their images to a COCO keypoint file, which write_coco reads.

python -m tfrecords_tools.convert_csv --csv=people.csv --images=photos --output=person_keypoints.json

The first line names the columns, in any order. Each other line is a person:

    file_name                           its image; an image may have several persons
    x, y, width, height                 its box in pixels (optional; default: the labelled joints with a margin)
    nose_x, nose_y, left_eye_x, ...     the pixel of each joint of the skeleton, as in COCO: the top left pixel of the
                                        image is 0, 0; the cells of an unlabelled joint are empty
    nose_v, left_eye_v, ...             2: visible, 1: occluded, 0: unlabelled (optional; default: 2)

Labelled joints outside their image become unlabelled and are counted.
"""

import csv
import dataclasses
import difflib
import math

import numpy as np
from absl import flags

from kpose.core import cli, geometry, skeletons
from kpose.core.errors import InputError
from kpose.data.image_files import ImageFolder
from tfrecords_tools import coco_builder

BOX = ("x", "y", "width", "height")


@dataclasses.dataclass(frozen=True)
class CsvOptions:
    """What to convert. The fields are the flags of `tfrecords_tools.convert_csv`.

    Attributes:
        csv: the table in UTF-8, with commas; the docstring of this module describes its columns.
        images: folder or .zip file with the images.
        output: the COCO file to write.
        skeleton: the `Skeleton` whose joints the columns name; None: the columns with the endings _x
            and _y name the joints.
        margin: see `coco_builder.box_of_joints`; used for persons without a box.
        on_missing: "stop" or "skip": what to do if an image is missing.
        category: name of the persons' category.

    Raises:
        InputError: a bad output name or margin.
    """

    csv: str
    images: str
    output: str
    skeleton: object
    margin: float = 0.12
    on_missing: str = "stop"
    category: str = "person"

    def __post_init__(self):
        coco_builder.check_options(self.output, self.margin)


@dataclasses.dataclass(frozen=True)
class Line:
    """One person of the table.

    Attributes:
        where: the file and line, for error messages.
        cells: column -> text without spaces around it; "" is an empty cell.
    """

    where: str
    cells: dict

    def number(self, column):
        """The finite number in a column; None if the cell is empty or the column does not exist.

        Raises:
            InputError: the cell is not a finite number.
        """
        text = self.cells.get(column, "")
        if not text:
            return None
        try:
            value = math.nan if "_" in text else float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise InputError(
                f"{self.where}, column {column}: {text!r} is not a number: leave the cell empty if the value is unknown"
            )
        return value

    def fail(self, column, complaint):
        """Raises `InputError` with the file, line and column."""
        raise InputError(f"{self.where}, column {column}: {complaint}")

    def joint(self, name):
        """(x, y, visibility flag) of a joint, pixel indices; (0, 0, 0) if it is not labelled.

        Raises:
            InputError: a cell of the joint is missing, or the flag is not 0, 1 or 2.
        """
        x, y, v = (self.number(f"{name}_{part}") for part in "xyv")
        if v is not None and v not in (0, 1, 2):
            self.fail(f"{name}_v", f"{v:g} is not a visibility flag: 0 is unlabelled, 1 occluded, 2 visible")
        for column, value, other in ((f"{name}_x", x, y), (f"{name}_y", y, x)):
            if value is None and (other is not None or v):
                self.fail(
                    column, "it is empty, but other cells of the joint are not: fill this cell or empty the others"
                )
        labelled = x is not None and v != 0
        return (x, y, 2 if v is None else int(v)) if labelled else (0.0, 0.0, 0)

    def box(self):
        """[x, y, width, height] in pixels; None if all four cells are empty.

        Raises:
            InputError: some of the cells are empty, or the box has no area.
        """
        box = [self.number(column) for column in BOX]
        if box == [None] * 4:
            return None
        for column, value in zip(BOX, box, strict=True):
            if value is None:
                self.fail(column, "it is empty, but other cells of the box are not: fill this cell or empty the others")
            if value <= 0 and column in ("width", "height"):
                self.fail(column, f"the box's {column} is {value:g}: it must be more than 0 pixels")
        return box


def read_lines(path, skeleton):
    """The persons of a table.

    Args:
        path: the .csv file.
        skeleton: the `Skeleton` whose joints the columns name; None: the columns with the endings _x
            and _y name the joints.

    Returns:
        (list of `Line`, in order, without empty lines; the `Skeleton`).

    Raises:
        InputError: the file is missing, is not CSV in UTF-8, has no persons or has wrong columns.
    """
    try:
        # utf-8-sig: spreadsheet programs write a byte order mark.
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            header = [cell.strip() for cell in next(reader, [])]
            skeleton = skeleton or _joints_of(path, header)
            _check_header(path, header, skeleton)
            lines = []
            for cells in reader:
                cells = [cell.strip() for cell in cells]
                if not any(cells):
                    continue
                where = f"{path}: line {reader.line_num}"
                if len(cells) != len(header):
                    raise InputError(
                        f"{where}: it has {len(cells)} cells, but the first line has {len(header)} columns"
                    )
                lines.append(Line(where, dict(zip(header, cells, strict=True))))
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"{path}: no such .csv file") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not text in UTF-8 ({error.reason}): save it as CSV in UTF-8") from None
    except csv.Error as error:
        raise InputError(f"{path}: line {reader.line_num}: not CSV ({error})") from None
    if not lines:
        raise InputError(f"{path}: it has a first line with columns, but no persons")
    return lines, skeleton


def _joints_of(path, header):
    """The `Skeleton` whose joints a first line names, in its order."""
    joints = tuple(dict.fromkeys(cell.removesuffix("_x") for cell in header if cell.endswith("_x") and cell != "_x"))
    if any(header) and not joints:
        raise InputError(f"{path}: line 1: no column names a joint: its columns are NAME_x, NAME_y and perhaps NAME_v")
    return skeletons.Skeleton("of the table", joints) if joints else None


def _check_header(path, header, skeleton):
    """Raises `InputError` if the first line has too many, too few or repeated columns, or none."""
    if not any(header):
        raise InputError(f"{path}: empty: the first line must name the columns, file_name and others")
    needed = ["file_name", *(f"{joint}_{part}" for joint in skeleton.joints for part in "xy")]
    known = [*needed, *BOX, *(f"{joint}_v" for joint in skeleton.joints)]
    where = f"{path}: line 1"
    for column in header:
        if header.count(column) > 1:
            raise InputError(f"{where}: the column {column!r} is repeated: it occurs {header.count(column)} times")
        if column not in known:
            near = difflib.get_close_matches(column, known, n=1)
            hint = f": did you mean {near[0]!r}?" if near else ""
            if any(mark in column for mark in ";\t"):
                hint = ": separate the cells with commas"
            raise InputError(f"{where}: skeleton {skeleton.name!r} has no column {column[:60]!r}{hint}")
    # A table has all columns of the box, or none.
    if set(BOX) & set(header):
        needed += BOX
    missing = [column for column in needed if column not in header]
    if missing:
        more = f" and {len(missing) - 4} more" if len(missing) > 4 else ""
        raise InputError(f"{where}: these columns are missing: {', '.join(missing[:4])}{more}")


def convert(options):
    """Writes the COCO file.

    Persons have the ids 1 to N in the order of the lines. Images have the ids 1 to M in the order
    in which they first appear. Labelled joints outside their image become unlabelled and are
    counted.

    Args:
        options: `CsvOptions`.

    Returns:
        Lines of text: what was written.

    Raises:
        InputError: a bad table, a missing image, a file that is not an image, a person without a
            box and with too few joints for a box.
    """
    lines, skeleton = read_lines(options.csv, options.skeleton)
    collection = coco_builder.Collection(skeleton, options.category)
    folder = ImageFolder(options.images)
    lines, missing = _with_image(lines, folder, options)
    images = {}
    for number, line in enumerate(lines, 1):
        name = line.cells["file_name"]
        if not name:
            line.fail("file_name", "it is empty: give the file name of the image")
        if name not in images:
            images[name] = len(images) + 1, _size(folder, line)
            collection.add_image(images[name][0], name, images[name][1])
        image_id, size = images[name]
        joints = np.array([line.joint(joint) for joint in skeleton.joints])
        indices = joints[:, :2]
        points = geometry.from_indices(indices)
        flags = collection.usable_flags(indices, joints[:, 2], size)
        box = line.box() or coco_builder.box_of_joints(points, flags, size, options.margin)
        if box is None:
            raise InputError(
                f"{line.where}: the person has no box, and too few joints in the image to compute it: fill the columns "
                f"{', '.join(BOX)}"
            )
        if box[0] >= size[0] or box[1] >= size[1] or box[0] + box[2] <= 0 or box[1] + box[3] <= 0:
            raise InputError(f"{line.where}: the box {box} is outside {name} of {size[0]} x {size[1]} pixels")
        collection.add_person(number, image_id, indices, flags, box)
    written = collection.write(options.output, f"{len(lines):,} persons of a table, {skeleton.name} joints")
    return written + ([f"left out: {len(missing):,} persons whose image is missing; {missing[0]}"] if missing else [])


def _with_image(lines, folder, options):
    """(lines to convert, names of missing images): the lines whose image exists, if the others are to be skipped."""
    if options.on_missing == "stop":
        return lines, []
    there = [not line.cells["file_name"] or line.cells["file_name"] in folder for line in lines]
    kept = [line for line, found in zip(lines, there, strict=True) if found]
    if not kept:
        raise InputError(f"{options.images}: all images are missing; the first is {lines[0].cells['file_name']}")
    return kept, [line.cells["file_name"] for line, found in zip(lines, there, strict=True) if not found]


def _size(folder, line):
    try:
        return folder.size(line.cells["file_name"])
    except InputError as error:
        raise InputError(f"{line.where}, column file_name: {error}") from None


FLAGS = cli.flag_set()
_CSV = flags.DEFINE_string("csv", None, "The table: UTF-8, with commas.", required=True, flag_values=FLAGS)
_IMAGES = flags.DEFINE_string("images", None, "Folder or .zip file with the images.", required=True, flag_values=FLAGS)
_OUTPUT = flags.DEFINE_string("output", None, "The COCO file to write, .json.", required=True, flag_values=FLAGS)
_SKELETON = flags.DEFINE_string(
    "skeleton", "coco", "Name of the skeleton whose joints the columns name.", flag_values=FLAGS
)
_MARGIN = flags.DEFINE_float(
    "margin",
    0.12,
    "Margin around the joints of a person without a box, as a share of the longer side of the joints' box.",
    flag_values=FLAGS,
)


def main():
    skeleton = skeletons.get(_SKELETON.value)
    options = CsvOptions(_CSV.value, _IMAGES.value, _OUTPUT.value, skeleton, _MARGIN.value)
    print("\n".join(convert(options)))


def console():
    cli.run(main, FLAGS, __doc__, tensorflow=False)


if __name__ == "__main__":
    console()
