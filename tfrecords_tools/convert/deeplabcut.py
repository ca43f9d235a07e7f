"""Reads the labels of DeepLabCut: CollectedData_*.csv, of one or of several animals.

Format: https://deeplabcut.github.io/DeepLabCut/docs/standardDeepLabCut_UserGuide.html. The first
rows name the scorer, the individuals (in projects of several animals), the bodyparts, and x or y.
The other rows are images; a bodypart with empty cells is not labelled. The bones are the `skeleton`
of the project's config.yaml.
"""

import csv
import dataclasses
import glob
import os

import yaml

from kpose.core.errors import InputError
from tfrecords_tools.convert import labels

HEADERS = ("scorer", "individuals", "bodyparts", "coords")
# The individual that has the bodyparts which exist once, such as the corners of a box.
UNIQUE = "single"


def read(options):
    """The `Source` of a project, of a folder of labels, or of one file.

    Args:
        options: `ConvertOptions`; `input` is the .csv file, or a folder whose files
            CollectedData_*.csv are read, with its folders.

    Raises:
        InputError: there is no such file, or one is bad.
    """
    paths = [options.input]
    if os.path.isdir(options.input):
        pattern = os.path.join(glob.escape(options.input), "**", "CollectedData_*.csv")
        # training-datasets has all labels of the project once more.
        paths = [p for p in sorted(glob.glob(pattern, recursive=True)) if f"{os.sep}training-datasets{os.sep}" not in p]
        if not paths:
            raise InputError(
                f"{options.input}: no file CollectedData_*.csv: give a project of DeepLabCut, or a .csv file"
            )
    project = _project(paths[0])
    source = labels.Source(images=project, pixel_offset=0.5)
    names = {}
    for path in paths:
        table = _Table(path)
        wanted = table.parts_of_animals()
        names |= dict.fromkeys(wanted)
        source.photos += [_photo(table, number, row, wanted, source) for number, row in table.rows]
    source.points[""] = labels.Points(tuple(names), _bones(project, names, source))
    return source


def _project(path):
    """The folder of the project: its labels are in labeled-data/VIDEO/."""
    folder = os.path.dirname(os.path.abspath(path))
    parent = os.path.dirname(folder)
    return os.path.dirname(parent) if os.path.basename(parent) == "labeled-data" else folder


def _bones(project, names, source):
    path = os.path.join(project, "config.yaml")
    if not os.path.isfile(path):
        return ()
    try:
        data = yaml.safe_load(labels.read_text(path, "config.yaml"))
    except (yaml.YAMLError, InputError):
        source.left_out[f"bones: {path} is not YAML"] += 1
        return ()
    lines = data.get("skeleton") if isinstance(data, dict) else None
    lines = {tuple(map(str, line)) for line in lines or () if isinstance(line, list) and len(line) == 2}
    bones = labels.bones_between(names, sorted(lines))
    # A new project has the bodyparts of an example here.
    if len(bones) < len(lines):
        source.left_out["bones of config.yaml between bodyparts that the labels do not have"] += len(lines) - len(bones)
    return bones


@dataclasses.dataclass(frozen=True)
class _Column:
    """A column of coordinates: the animal, its bodypart, and "x" or "y"."""

    individual: str
    part: str
    axis: str


class _Table:
    """A file of labels.

    Args:
        path: the .csv file.

    Attributes:
        path: the file.
        first: index of the first column of coordinates; the columns before it are the image's path.
        columns: list of `_Column`.
        rows: list of (number of the line, cells), one an image.

    Raises:
        InputError: not such a file.
    """

    def __init__(self, path):
        self.path = path
        lines = labels.read_text(path, ".csv file of DeepLabCut").splitlines()
        try:
            numbered = [(n, [c.strip() for c in cells]) for n, cells in enumerate(csv.reader(lines, strict=True), 1)]
        except csv.Error as error:
            raise InputError(f"{path}: not CSV ({error})") from None
        numbered = [(n, cells) for n, cells in numbered if any(cells)]
        header = {}
        while numbered and numbered[0][1][0] in HEADERS and numbered[0][1][0] not in header:
            cells = numbered.pop(0)[1]
            header[cells[0]] = cells
        if not {"scorer", "bodyparts", "coords"} <= set(header):
            raise InputError(
                f"{path}: not labels of DeepLabCut: its first rows must begin with scorer, bodyparts and coords"
            )
        width = len(header["coords"])
        for number, cells in [*((name, row) for name, row in header.items()), *numbered]:
            if len(cells) != width:
                raise InputError(f"{path}: row {number} has {len(cells)} cells, but the row coords has {width}")
        self.first = next((k for k, cell in enumerate(header["coords"]) if k and cell), width)
        self.columns = self._columns(header)
        self.rows = numbered

    def _columns(self, header):
        axes = header["coords"][self.first :]
        if "likelihood" in axes:
            raise InputError(
                f"{self.path}: it has likelihoods: these are predictions, not labels (CollectedData_*.csv)"
            )
        scorers = sorted(set(header["scorer"][self.first :]))
        if len(scorers) > 1:
            raise InputError(f"{self.path}: labels of {len(scorers)} scorers, {', '.join(scorers)}: give a file of one")
        individuals = header.get("individuals", [""] * len(header["coords"]))[self.first :]
        parts = header["bodyparts"][self.first :]
        columns = [_Column(*names) for names in zip(individuals, parts, axes, strict=True)]
        for column in columns:
            name = f"{column.individual} {column.part}".strip()
            if columns.count(column) > 1 or column.axis not in ("x", "y") or not column.part:
                raise InputError(f"{self.path}: the bodypart {name!r} needs one column x and one column y")
            if dataclasses.replace(column, axis="y" if column.axis == "x" else "x") not in columns:
                raise InputError(
                    f"{self.path}: the bodypart {name!r} has no column {'y' if column.axis == 'x' else 'x'}"
                )
        return columns

    def parts_of_animals(self):
        """The bodyparts in order, without those that exist once, unless there are no others."""
        parts = dict.fromkeys(column.part for column in self.columns if column.individual != UNIQUE)
        return tuple(parts or dict.fromkeys(column.part for column in self.columns))


def _photo(table, number, cells, wanted, source):
    where = f"{table.path}: line {number}"
    # Newer versions write the path in three cells: labeled-data, video, image.
    name = "/".join(part.replace("\\", "/") for part in cells[: table.first] if part)
    if not name:
        raise InputError(f"{where}: it names no image")
    values = {}
    for column, cell in zip(table.columns, cells[table.first :], strict=True):
        value = None if cell.lower() in ("", "nan") else labels.finite(cell)
        if value is None and cell.lower() not in ("", "nan"):
            raise InputError(f"{where}, {column.part} {column.axis}: {cell!r} is not a number")
        if value is not None:
            values.setdefault(column.individual, {}).setdefault(column.part, {})[column.axis] = value
    persons = []
    for individual, parts in values.items():
        for part, point in parts.items():
            if len(point) < 2:
                raise InputError(f"{where}, {part}: one of x and y is empty: fill both or none")
        joints = {part: (point["x"], point["y"], 2) for part, point in parts.items() if part in wanted}
        if len(joints) < len(parts):
            source.left_out[f"points of bodyparts that exist once (individual {UNIQUE!r})"] += len(parts) - len(joints)
        if joints:
            persons.append(labels.Person(f"{where} {individual}".strip(), "", joints))
    return labels.Photo(where, [name], None, persons)
