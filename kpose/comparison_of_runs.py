"""Two evaluations of the same persons, side by side."""

import os

import numpy as np

from kpose import files, intervals
from kpose.errors import InputError

# Beside metrics.json: what each person adds to the figures.
PERSONS_FILE = "persons.npz"
NAMES = {"pcp_strict": "PCP strict", "pcp_mean": "PCP mean rule", "pdj": "PDJ@0.2"}


def compare(first, second):
    """How the second of two evaluations differs from the first, over the persons that both measured.

    Args:
        first, second: folders that `kpose.evaluate` wrote.

    Returns:
        {"first", "second": the folders, "num_persons", figure: {"first", "second", "difference", "interval"}}, the
        figures being those of `NAMES`, the interval of 95% that of the paired difference.

    Raises:
        InputError: a folder without an evaluation, or evaluations of other persons.
    """
    counts = [_read(folder) for folder in (first, second)]
    ids = [part.pop("annotation_id") for part in counts]
    orders = [np.argsort(part, kind="stable") for part in ids]
    if len(ids[0]) != len(ids[1]) or (ids[0][orders[0]] != ids[1][orders[1]]).any():
        raise InputError(
            f"{first} and {second} measured other persons ({len(ids[0])} and {len(ids[1])}): evaluate both on the same "
            "records"
        )
    ordered = [{name: part[name][order] for name in NAMES} for part, order in zip(counts, orders, strict=True)]
    table = {"first": first, "second": second, "num_persons": len(ids[0])}
    for name, found in intervals.paired(*ordered).items():
        values = {
            k: float(intervals.average(part[name].sum(0))) for k, part in zip(("first", "second"), ordered, strict=True)
        }
        table[name] = values | found
    return table


def describe(table):
    """The lines that a comparison prints."""
    lines = [f"{table['num_persons']} persons; first: {table['first']}, second: {table['second']}"]
    lines.append(f"{'':<16}{'first':>9}{'second':>9}{'difference':>13}   95% interval")
    for name, title in NAMES.items():
        row = table[name]
        low, high = (f"{100 * edge:+.1f}" for edge in row["interval"] or (float("nan"),) * 2)
        first, second, gap = (100 * row[key] for key in ("first", "second", "difference"))
        lines.append(f"{title:<16}{first:>8.1f}%{second:>8.1f}%{gap:>+13.1f}   [{low}, {high}]")
    return lines


def _read(folder):
    path = os.path.join(folder, PERSONS_FILE)
    if not files.is_file(path):
        raise InputError(f"{path}: no such file: name a folder that python -m kpose.evaluate wrote")
    with np.load(path) as arrays:
        return dict(arrays)
