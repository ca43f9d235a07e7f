"""Files that are whole or not there: written aside and renamed into place.

What is read may be a URL (gs://, s3://, hdfs:// ...): TensorFlow's file systems then read it.
"""

import contextlib
import gzip
import json
import os
import zlib

from kpose.errors import InputError


def is_url(path):
    return "://" in path


def _gfile():
    from kpose import quiet

    quiet.import_tensorflow()
    import tensorflow as tf

    return tf.io.gfile


def is_file(path):
    if is_url(path):
        return _gfile().exists(path) and not _gfile().isdir(path)
    return os.path.isfile(path)


def is_folder(path):
    return _gfile().isdir(path) if is_url(path) else os.path.isdir(path)


def open_file(path, mode="r"):
    """As `open`, also for URLs."""
    return _gfile().GFile(path, mode) if is_url(path) else open(path, mode)


def read_bytes(path):
    """A file's contents; `OSError` where it cannot be read, also for URLs."""
    if not is_url(path):
        with open(path, "rb") as file:
            return file.read()
    gfile = _gfile()
    import tensorflow as tf

    try:
        with gfile.GFile(path, "rb") as file:
            return file.read()
    except tf.errors.OpError as error:
        raise OSError(error.message) from None


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


def read_json(path, what, object_hook=None):
    """The JSON of a file, plain or .gz; `what` names its meaning in the error.

    Args:
        path: the file.
        what: the noun for it.
        object_hook: as for `json.load`: changes each object as soon as it is read.

    Raises:
        InputError: it is missing, empty or no JSON.
    """
    if not is_file(path):
        raise InputError(f"{path}: no such {what}")
    try:
        data = read_bytes(path)
    except OSError as error:
        raise InputError(f"{path}: the {what} cannot be read ({error.strerror or error})") from None
    if not data:
        raise InputError(f"{path}: the {what} is empty")
    try:
        return json.loads(gzip.decompress(data) if path.endswith(".gz") else data, object_hook=object_hook)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path}: the {what} is not a whole gzip file ({error})") from None
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{path}: the {what} is not JSON ({error})") from None
