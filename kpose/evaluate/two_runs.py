"""Compares two evaluations on the same persons."""

import os
import zipfile
import zlib

import numpy as np

from kpose.core import files
from kpose.core.errors import InputError, first_line
from kpose.evaluate import summary
from kpose.evaluate.summary import METRICS_FILE, PERSONS_FILE
from kpose.metrics import bootstrap, coco

# Bytes of the largest file with the metrics of persons, packed or unpacked: 1 KB per person.
MAX_BYTES = 2_000_000_000
SIDES = ("first", "second")
# The metrics that are compared, with the names to print; PCP also by limb group.
GROUPED = ("pcp_strict", "pcp_mean")
NAMES = {"pcp_strict": "PCP strict", "pcp_mean": "PCP mean rule", "pdj": "PDJ@0.2"}


def compare(first, second):
    """Compares two evaluations on the same persons.

    Args:
        first, second: folders that `kpose.evaluate` wrote, or workdirs that hold such a folder.

    Returns:
        A dict: "first" and "second", the folders; "num_persons"; "num_images", the number of images
        that the intervals resample, or None where they resample persons, because both evaluations
        are of a kpose that did not save the images; for each metric of `NAMES` a row
        {"first", "second", "difference", "interval"}, where the interval is the 95% interval of the
        paired difference; "pcp_strict_by_group" and "pcp_mean_by_group", such rows by limb group;
        "oks_ap", such a row, whose interval is None where an evaluation is of a kpose that did not
        save what COCOeval matched, or the sigmas differ; "pdj_units" and "oks_sigmas" of the two. Values are None
        where nothing counted. Without limbs there are no groups.

    Raises:
        InputError: a folder without an evaluation, or evaluations on different persons.
    """
    first, second = (_evaluation(folder) for folder in (first, second))
    counts = [_read(folder) for folder in (first, second)]
    ids = [part.pop("annotation_id") for part in counts]
    orders = [np.argsort(part, kind="stable") for part in ids]
    if len(ids[0]) != len(ids[1]) or (ids[0][orders[0]] != ids[1][orders[1]]).any():
        raise InputError(
            f"{first} and {second} are evaluations on different persons ({len(ids[0])} and {len(ids[1])}): evaluate "
            "both on the same records"
        )
    images = _images(counts, orders)
    num_images = None if images is None else len(np.unique(images))
    images = np.arange(len(ids[0])) if images is None else images
    ordered = [{name: part[name][order] for name in NAMES} for part, order in zip(counts, orders, strict=True)]
    tables = [files.read_json(os.path.join(folder, METRICS_FILE), "metrics") for folder in (first, second)]
    table = {"first": first, "second": second, "num_persons": len(ids[0]), "num_images": num_images}
    table |= _compared(ordered, images)
    for name in GROUPED:
        rule = name.removeprefix("pcp_")
        groups = [group for group in tables[0]["pcp"][rule] if group != "average"]
        by_group = [{group: part[name][:, i : i + 1] for i, group in enumerate(groups)} for part in ordered]
        table[f"{name}_by_group"] = _compared(by_group, images)
    table["pdj_units"] = [summary.pdj_unit(found) for found in tables]
    table["oks_sigmas"] = [found.get("oks_sigmas") for found in tables]
    aps = [found["oks_ap"]["AP"] if found["oks_ap"] else None for found in tables]
    gap = None if None in aps else aps[1] - aps[0]
    edges = None
    if gap is not None and table["oks_sigmas"][0] == table["oks_sigmas"][1]:
        edges = _ap_interval(*(coco.Matches.of_arrays(part) for part in counts))
    table["oks_ap"] = {"first": aps[0], "second": aps[1], "difference": gap, "interval": edges}
    return table


def _ap_interval(first, second):
    """The interval of the difference of AP; None unless both evaluations matched the persons of the same images."""
    if first is None or second is None or not np.array_equal(first.persons, second.persons):
        return None
    return bootstrap.ap_difference(first, second)


def _images(counts, orders):
    """[N] the number of each person's image, in order; None if neither evaluation has it."""
    for part, order in zip(counts, orders, strict=True):
        if "image" in part:
            return part["image"][order]
    return None


def _compared(parts, images):
    """{metric: row of `compare`}, from two dicts of counts of the same persons and their images."""
    table = {}
    for name, found in bootstrap.paired_differences(*parts, images).items():
        averages = {side: bootstrap.average(part[name].sum(0)) for side, part in zip(SIDES, parts, strict=True)}
        row = averages | {"difference": found["difference"]}
        table[name] = {key: float(value) if np.isfinite(value) else None for key, value in row.items()}
        table[name]["interval"] = found["interval"]
    return table


def describe(table):
    """The lines that a comparison prints."""
    among = "" if table["num_images"] is None else f" in {table['num_images']} images"
    lines = [f"{table['num_persons']} persons{among}; first: {table['first']}, second: {table['second']}"]
    if not among:
        lines.append(
            "both evaluations are of an older kpose, which did not save the images: the intervals resample persons and "
            "are too narrow; evaluate one of them again"
        )
    lines.append(f"{'':<16}{'first':>9}{'second':>9}{'difference':>13}   95% interval")
    if table["pdj_units"][0] != table["pdj_units"][1]:
        lines.append(f"the units of PDJ differ ({' and '.join(table['pdj_units'])}): its rows cannot be compared")
    for name, title in NAMES.items():
        if name in GROUPED and not table[f"{name}_by_group"]:
            continue
        lines.append(_line(title, table[name]))
        lines += [_line(f"  {key.replace('_', ' ')}", row) for key, row in table.get(f"{name}_by_group", {}).items()]
    lines.append(_line("OKS AP", table["oks_ap"]))
    notes = [coco.note_on_sigmas(sigmas) for sigmas in table["oks_sigmas"]]
    if table["oks_ap"]["first"] is not None and any(notes):
        lines.append(
            f"OKS AP with sigmas: {notes[0].strip(' ()').removeprefix('sigmas: ')}"
            if notes[0] == notes[1]
            else "the sigmas of OKS AP differ: its row cannot be compared"
        )
    return lines


def _line(title, row):
    first, second = ("-" if row[side] is None else f"{100 * row[side]:.1f}%" for side in SIDES)
    gap = "-" if row["difference"] is None else f"{100 * row['difference']:+.1f}"
    edges = "   [{:+.1f}, {:+.1f}]".format(*(100 * edge for edge in row["interval"])) if row["interval"] else ""
    return f"{title:<16}{first:>9}{second:>9}{gap:>13}{edges}"


def _evaluation(folder):
    """The folder of an evaluation: the given folder, or the folder "evaluation" in it."""
    inside = os.path.join(folder, "evaluation")
    here, there = (files.is_file(os.path.join(place, PERSONS_FILE)) for place in (folder, inside))
    return inside if there and not here else folder


def _read(folder):
    """{name: array} of the evaluation's persons.npz."""
    path = os.path.join(folder, PERSONS_FILE)
    if not files.is_file(path):
        raise InputError(f"{path}: no such file: give a folder that python -m kpose.evaluate wrote")
    if files.size(path) > MAX_BYTES:
        raise InputError(f"{path}: larger than {MAX_BYTES / 1e9:g} GB: not written by python -m kpose.evaluate")
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > MAX_BYTES:
            raise InputError(f"{path}: unpacks to {unpacked / 1e9:.1f} GB, at most {MAX_BYTES / 1e9:g} GB are read")
        with np.load(path) as arrays:
            return dict(arrays)
    # Of a damaged file: NumPy and zlib raise errors of many kinds.
    except (OSError, ValueError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error, SyntaxError) as error:
        raise InputError(f"{path}: cannot be read ({first_line(error)}): evaluate again") from None
