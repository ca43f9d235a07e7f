"""The validation sets of a recipe (`config.data.val`), and their columns in a history."""

import re

from kpose.core import files
from kpose.core.errors import InputError

# Each set has these metrics: with the name of the set before them, they are its columns.
METRICS = ("loss", "spread", "pcp_strict", "pcp_mean", "pdj_0.2", "oks_ap")


def parse(text):
    """The validation sets of a recipe, in order: the first decides the best checkpoint.

    Args:
        text: "": none; a glob of records: one set without a name; or NAME=GLOB,NAME=GLOB.

    Returns:
        Tuple of (name, glob).

    Raises:
        InputError: two sets have the same name, or some have none.
    """
    if not text.strip():
        return ()
    parts = [re.fullmatch(r"\s*(?:([\w-]+)=)?(.*?)\s*", part, re.DOTALL).groups() for part in text.split(",")]
    # A folder may be named "lr=1": a glob with files is a glob.
    if not any(name for name, _ in parts) or files.matching(text):
        return (("", text),)
    unnamed = [glob for name, glob in parts if not name or not glob]
    if unnamed:
        raise InputError(
            f"config.data.val is {text!r}: give a name and a glob for each set, as in 'a=one/val-*,b=two/val-*'"
        )
    names = [name for name, _ in parts]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise InputError(f"config.data.val is {text!r}: two sets have the name {twice!r}")
    return tuple(parts)


def column(name, metric):
    """The column of a metric in the history: "val_loss" of the first set, "val_NAME_loss" of others.

    Args:
        name: of the set; "" for the first one.
        metric: such as "loss".
    """
    return f"val_{name}_{metric}" if name else f"val_{metric}"


def split(row, names):
    """The metrics of each validation set in a row of a history.

    Args:
        row: dict by column.
        names: names of the sets after the first.

    Returns:
        {name: {metric: value}}, with the name "" for the first set. Columns that are no metric of
        another set belong to the first.
    """
    theirs = {column(name, metric): (name, metric) for name in names for metric in METRICS}
    found = {name: {} for name in ("", *names)}
    for key, value in row.items():
        if key.startswith("val_"):
            name, metric = theirs.get(key, ("", key.removeprefix("val_")))
            found[name][metric] = value
    return found
