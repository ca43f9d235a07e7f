"""Files that are whole or not there: written aside and renamed into place."""

import contextlib
import gzip
import json
import os
import zlib

from kpose.errors import InputError


@contextlib.contextmanager
def replacing(path, mode="w"):
    """Opens a file beside `path` for writing; it becomes `path` when the block ends well, and vanishes otherwise."""
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    temporary = f"{path}.tmp"
    try:
        with open(temporary, mode) as file:
            yield file
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def write_json(path, data, indent=1):
    """Writes `data` as JSON; `indent=None` puts it on one line."""
    with replacing(path) as file:
        json.dump(data, file, indent=indent)
        file.write("\n")


def read_json(path, what):
    """The JSON of a file, plain or .gz; `what` names its meaning in the error.

    Raises:
        InputError: it is missing, empty or no JSON.
    """
    if not os.path.isfile(path):
        raise InputError(f"{path}: no such {what}")
    if os.path.getsize(path) == 0:
        raise InputError(f"{path}: the {what} is empty")
    try:
        with (gzip.open if path.endswith(".gz") else open)(path, "rb") as file:
            return json.load(file)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path}: the {what} is not a whole gzip file ({error})") from None
    except ValueError as error:
        raise InputError(f"{path}: the {what} is not JSON ({error})") from None
