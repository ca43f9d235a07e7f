"""File operations: atomic writing, JSON, and local paths and URLs alike.

`replacing` writes to a temporary file and renames it, so that a file is either complete or absent.
Paths may be URLs (gs://, s3://, hdfs:// ...), which TensorFlow's file systems read and write.
"""

import contextlib
import errno
import glob
import gzip
import hashlib
import io
import itertools
import json
import os
import shutil
import tempfile
import uuid
import zlib

from absl import logging

from kpose.core.errors import InputError

# Error numbers: the disk is full, the quota is used up, the file is larger than allowed.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# Labels of 500 MB are common; all of a file is in memory while it is read.
MAX_JSON_BYTES = 2 * 2**30
# JSON of labels is 3 to 30 times as large as its gzip file, a file made to fill the memory 1,000 times.
_GZIP_START, _GZIP_RATIO = 2**26, 100


def is_url(path):
    """Whether a path is a URL, such as gs://bucket/file."""
    return "://" in path


def _gfile():
    from kpose.core import startup

    startup.import_tensorflow()
    import tensorflow as tf

    return tf.io.gfile


def is_file(path):
    """Whether a path is an existing file."""
    if is_url(path):
        return _gfile().exists(path) and not _gfile().isdir(path)
    return os.path.isfile(path)


def is_folder(path):
    """Whether a path is an existing folder."""
    return _gfile().isdir(path) if is_url(path) else os.path.isdir(path)


def size(path):
    """The size of a file in bytes; None if it does not exist."""
    if not is_file(path):
        return None
    return _gfile().stat(path).length if is_url(path) else os.path.getsize(path)


def matching(pattern):
    """The paths that match a glob, sorted."""
    return sorted(_gfile().glob(pattern) if is_url(pattern) else glob.glob(pattern))


def names_in(folder):
    """The names of the files and folders in a folder."""
    return [name.rstrip("/") for name in _gfile().listdir(folder)] if is_url(folder) else os.listdir(folder)


def make_folder(path):
    """Makes a folder and its parents, if they do not exist."""
    if is_url(path):
        _gfile().makedirs(path)
    else:
        os.makedirs(path, exist_ok=True)


def check_folder_for_output(folder, flag="--output_dir"):
    """Checks before the work that files can be written into a folder; the folder is not made.

    A folder at a URL is not checked.

    Args:
        folder: the folder; it need not exist.
        flag: what the user can change, for the error.

    Raises:
        InputError: nothing can be written there.
    """
    if is_url(folder):
        return
    place = os.path.abspath(folder)
    while not os.path.lexists(place):
        place = os.path.dirname(place)
    try:
        if not os.path.isdir(place):
            raise NotADirectoryError(errno.ENOTDIR, f"{place} is not a folder")
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise InputError(f"{folder}: nothing can be written there ({error.strerror}): choose another {flag}") from None


def check_file_for_output(path, flag):
    """As `check_folder_for_output`, for the file `path`."""
    if is_folder(path):
        raise InputError(f"{path}: is a folder, not a file: choose another {flag}")
    check_folder_for_output(os.path.dirname(path) or os.curdir, flag)


def move(source, target):
    """Renames a file; replaces an existing target."""
    if is_url(target):
        _gfile().rename(source, target, overwrite=True)
    else:
        os.replace(source, target)


def remove(path):
    """Removes a file, or a folder and its contents."""
    if is_url(path):
        (_gfile().rmtree if is_folder(path) else _gfile().remove)(path)
    elif os.path.isdir(path):
        shutil.rmtree(path)
    else:
        os.remove(path)


def set_aside(path, reason):
    """Renames a damaged file to PATH.damaged, or PATH.damaged-2 and so on, and logs it.

    The work does not depend on the file: if it cannot be renamed, it is ignored.

    Args:
        path: the file.
        reason: what is wrong with it.
    """
    names = itertools.chain([f"{path}.damaged"], (f"{path}.damaged-{n}" for n in itertools.count(2)))
    target = next(name for name in names if size(name) is None and not is_folder(name))
    try:
        move(path, target)
    except OSError as error:
        logging.warning("%s: damaged (%s), ignored: it cannot be renamed (%s)", path, reason, error.strerror)
        return
    logging.warning("%s: damaged (%s), renamed to %s: begun anew", path, reason, os.path.basename(target))


def read_json_or_set_aside(path, what, is_valid):
    """The data of a JSON file; None if there is no file, or if it is damaged and was set aside.

    Args:
        path: the file.
        what: a noun for its content, as for `read_json`.
        is_valid: function (data) -> whether the data have the form of such a file.
    """
    if not os.path.lexists(path):
        return None
    try:
        data = read_json(path, what)
    except InputError as error:
        set_aside(path, str(error).removeprefix(f"{path}: "))
        return None
    if is_valid(data):
        return data
    set_aside(path, f"it is not a {what}")
    return None


def open_file(path, mode="r"):
    """Opens a file like `open`, text as UTF-8; accepts URLs."""
    return _gfile().GFile(path, mode) if is_url(path) else open(path, mode, encoding=None if "b" in mode else "utf-8")


def read_bytes(path):
    """The contents of a file; accepts URLs.

    Raises:
        OSError: the file cannot be read.
    """
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


def sha256(path):
    """The SHA-256 of a file in hexadecimal; accepts URLs. It is read in parts."""
    digest = hashlib.sha256()
    with open_file(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def replacing(path, mode="w"):
    """Opens a temporary file for writing, in the folder of `path`; makes that folder.

    At the end of the block the file is renamed to `path`. If the block raises, it is removed. An
    `OSError` about the temporary file, or without a file, names `path`.
    """
    make_folder(os.path.dirname(path if is_url(path) else os.path.abspath(path)))
    # Several workers may write the same file.
    temporary = f"{path}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        with open_file(temporary, mode) as file:
            yield file
        move(temporary, path)
    except OSError as error:
        if error.errno and error.filename in (None, temporary):
            error.filename = path
        raise
    finally:
        if is_file(temporary):
            remove(temporary)


def write_json(path, data, indent=1):
    """Writes `data` as JSON; `indent=None` puts it on one line."""
    with replacing(path) as file:
        json.dump(data, file, indent=indent)
        file.write("\n")


def _unzipped(data, path, what):
    """The content of a .gz file in bytes; `InputError` if it is far larger than such files are."""
    limit = _GZIP_START + _GZIP_RATIO * len(data)
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise InputError(f"{path}: the {what} is more than {_GZIP_RATIO} times as large as its gzip file: not read")
    return content


def read_json(path, what, object_hook=None):
    """The data of a JSON file, plain or .gz.

    Args:
        path: the file.
        what: a noun for its content, for errors, such as "annotation file".
        object_hook: as for `json.load`.

    Raises:
        InputError: the file is missing, unreadable, empty, too large or not JSON.
    """
    if not is_file(path):
        raise InputError(f"{path}: no such {what}")
    if size(path) > MAX_JSON_BYTES:
        raise InputError(f"{path}: the {what} has {size(path):,} bytes: at most {MAX_JSON_BYTES:,} are read")
    try:
        data = read_bytes(path)
    except OSError as error:
        raise InputError(f"{path}: the {what} cannot be read ({error.strerror or error})") from None
    if not data:
        raise InputError(f"{path}: the {what} is empty")
    try:
        return json.loads(_unzipped(data, path, what) if path.endswith(".gz") else data, object_hook=object_hook)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path}: the {what} is not a complete gzip file ({error})") from None
    except InputError:
        raise
    except RecursionError:
        raise InputError(f"{path}: the {what} has too many levels of nesting") from None
    except ValueError as error:
        raise InputError(f"{path}: the {what} is not JSON ({error})") from None
