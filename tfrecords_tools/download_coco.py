"""Downloads COCO 2017: the images of both splits and the keypoint labels.

python -m tfrecords_tools.download_coco --output_dir=coco

If the download is interrupted, the same command continues at the byte where it stopped. The MD5 of
each file is checked. The images stay in their .zip files, which tfrecords_tools.write_coco reads;
the keypoint labels are unpacked.
"""

import hashlib
import http.client
import os
import shutil
import time
import urllib.error
import urllib.request
import zipfile

from absl import flags, logging

from kpose.core import cli, files
from kpose.core.errors import InputError
from kpose.core.progress import Progress

BASE = "http://images.cocodataset.org"
# The archives of COCO 2017: path below the base address, and MD5.
ARCHIVES = {
    "train": ("zips/train2017.zip", "cced6f7f71b7629ddf16f17bbcfab6b2"),
    "val": ("zips/val2017.zip", "442b8da7639aecaf257c1dceb8ba8c80"),
    "annotations": ("annotations/annotations_trainval2017.zip", "f4bbac642086de4f52a3fdda2de5fa2c"),
}
# Bytes of the largest archive, that of train; a mirror may pack it otherwise.
MAX_BYTES = 25_000_000_000
LABELS = ("annotations/person_keypoints_train2017.json", "annotations/person_keypoints_val2017.json")

# The download stops after this many failed requests in a row that added no byte, or too slowly.
TRIES = 8
FIRST_WAIT = 1.0  # Seconds before the second try; doubled before each further try.
TIMEOUT = 60.0  # Seconds without an answer after which a request fails.
BLOCK = 1 << 20  # Bytes that are read at once.
MIN_RATE = 1000  # Bytes per second, over `TIMEOUT` seconds: below it a request fails.
LENGTH_DIGITS = 15  # Python refuses numbers of thousands of digits.


def download_coco(output_dir, names=tuple(ARCHIVES), base=BASE, checksums=None):
    """Downloads archives of COCO 2017 and unpacks the keypoint labels.

    Args:
        output_dir: folder for the archives and for `annotations/` with the labels.
        names: which of `ARCHIVES`.
        base: address above the archives' paths.
        checksums: dict of name -> MD5, for archives that differ from COCO's; None: none do.

    Returns:
        Dict of name -> path of the archive.

    Raises:
        InputError: an unknown name, a server that does not send the file, a wrong MD5, a full disk.
    """
    unknown = set(names) - set(ARCHIVES)
    if unknown:
        raise InputError(f"--files: no archive is named {sorted(unknown)[0]!r}: the names are {', '.join(ARCHIVES)}")
    files.check_folder_for_output(output_dir)
    checksums = {name: md5 for name, (_, md5) in ARCHIVES.items()} | (checksums or {})
    paths = {}
    for name in names:
        address = f"{base.rstrip('/')}/{ARCHIVES[name][0]}"
        paths[name] = os.path.join(output_dir, os.path.basename(address))
        download(address, paths[name], checksums[name])
    if "annotations" in paths:
        for member in LABELS:
            unpack(paths["annotations"], member, output_dir)
    return paths


def download(address, path, md5):
    """Downloads a file, or the rest of it; a file that exists is only checked.

    The bytes are written to `path`.part, which is renamed when its MD5 is right.

    Args:
        address: http or https.
        path: the file.
        md5: its MD5 in hexadecimal.

    Raises:
        InputError: the server does not send the file, its MD5 is wrong, or it cannot be written.
    """
    if os.path.exists(path):
        if _md5(path) != md5:
            raise InputError(f"{path}: its MD5 is not {md5}: remove the file and run the same command again")
        logging.info("%s exists", path)
        return
    files.make_folder(os.path.dirname(os.path.abspath(path)))
    part = f"{path}.part"
    failures, wait = 0, FIRST_WAIT
    while True:
        before = _size(part)
        try:
            _fetch(address, part)
            break
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            if getattr(error, "code", None) == 416:
                break  # The server has no more bytes: the file is complete, or its MD5 is wrong.
            _raise_if_final(address, error)
            # A server that sends a few bytes each time would be asked for ever.
            useful = _size(part) > before and not isinstance(error, _SlowError)
            failures, wait = (0, FIRST_WAIT) if useful else (failures + 1, wait)
            if failures >= TRIES:
                raise InputError(
                    f"{address}: {_reason(error)}, {TRIES} times in a row: {_size(part):,} bytes are in {part}; run "
                    "the same command again to continue"
                ) from None
            logging.info("%s: %s at byte %d: trying again in %g s", address, _reason(error), _size(part), wait)
            time.sleep(wait)
            wait *= 2
        except OSError as error:
            raise InputError(
                f"{part}: cannot be written ({error.strerror or error}): free some disk space and run the same command "
                f"again to continue after {_size(part):,} bytes"
            ) from None
    if _md5(part) != md5:
        os.replace(part, f"{path}.bad")
        raise InputError(
            f"{address}: the MD5 of the downloaded file is not {md5}: the file is kept as {path}.bad; run the same "
            "command again to download it again"
        )
    os.replace(part, path)
    logging.info("%s: %d bytes", path, os.path.getsize(path))


def _fetch(address, part):
    """Appends the rest of a file to `part`; replaces it if the server sends the complete file."""
    start = _size(part)
    request = urllib.request.Request(address, headers={"User-Agent": "kpose", "Accept-Encoding": "identity"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        start = start if answer.status == 206 else 0
        length = _announced(address, answer.headers.get("Content-Length") or "")
        total = None if length is None else start + length
        free = shutil.disk_usage(os.path.dirname(os.path.abspath(part))).free
        if total is not None and total - start > free:
            raise OSError(f"{(total - start) / 1e9:.1f} GB are missing, {free / 1e9:.1f} GB are free")
        name = os.path.basename(part).removesuffix(".part")
        with open(part, "ab" if start else "wb") as file, Progress(total, "bytes", start, name) as progress:
            rate = _Rate()
            while block := answer.read1(BLOCK):
                rate.add(len(block))
                file.write(block)
                progress.add(len(block))
                if file.tell() > MAX_BYTES:
                    raise InputError(f"{address}: sends more than {MAX_BYTES / 1e9:g} GB: not an archive of COCO")
    if total is not None and _size(part) < total:
        raise ConnectionError("the connection was cut")


def _announced(address, text):
    """The number of bytes of a Content-Length; None without one.

    Raises:
        InputError: no archive of COCO is that large.
    """
    text = text.strip()
    if not (text.isascii() and text.isdigit()):
        return None
    if len(text) > LENGTH_DIGITS or int(text) > MAX_BYTES:
        raise InputError(f"{address}: announces more than {MAX_BYTES / 1e9:g} GB: not an archive of COCO")
    return int(text)


class _Rate:
    """Raises `ConnectionError` if fewer than `MIN_RATE` bytes per second come for `TIMEOUT` seconds."""

    def __init__(self):
        self._since, self._count = time.monotonic(), 0

    def add(self, count):
        """Counts bytes."""
        self._count += count
        seconds = time.monotonic() - self._since
        if seconds < TIMEOUT:
            return
        if self._count < MIN_RATE * seconds:
            raise _SlowError(f"slower than {MIN_RATE} bytes per second")
        self._since, self._count = time.monotonic(), 0


class _SlowError(ConnectionError):
    """An answer came too slowly."""


def _raise_if_final(address, error):
    """Raises `InputError` if another try would give the same error."""
    if isinstance(error, urllib.error.HTTPError) and error.code not in (408, 429) and error.code < 500:
        raise InputError(f"{address}: the server answers {error.code} {error.reason}: check the address") from None
    if isinstance(error, urllib.error.URLError) and "unknown url type" in str(error.reason):
        raise InputError(f"{address}: not an http address") from None


def _reason(error):
    return str(getattr(error, "reason", None) or error or type(error).__name__)


def _size(path):
    return os.path.getsize(path) if os.path.exists(path) else 0


def _md5(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def unpack(archive, member, folder):
    """Unpacks one file of a .zip archive to `folder`/`member`, unless it exists in its full size.

    Args:
        archive: the .zip file.
        member: path of the file in the archive.
        folder: where to unpack it.

    Raises:
        InputError: the archive is damaged or has no such file.
    """
    path = os.path.join(folder, member)
    try:
        with zipfile.ZipFile(archive) as opened:
            size = opened.getinfo(member).file_size
            if _size(path) == size:
                return
            with opened.open(member) as source, files.replacing(path, "wb") as target:
                shutil.copyfileobj(source, target, BLOCK)
    except KeyError:
        raise InputError(f"{archive}: it has no {member}: not COCO's archive of annotations") from None
    except zipfile.BadZipFile as error:
        raise InputError(f"{archive}: damaged ({error}): remove it and run the same command again") from None
    logging.info("unpacked %s", path)


FLAGS = cli.flag_set()
_OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "Folder for the files.", required=True, flag_values=FLAGS)
_FILES = flags.DEFINE_list(
    "files",
    list(ARCHIVES),
    "Which files, separated by commas: train (19.3 GB), val (0.8 GB), annotations (0.3 GB).",
    flag_values=FLAGS,
)
_BASE = flags.DEFINE_string("base", BASE, "Address of the folder with zips/ and annotations/.", flag_values=FLAGS)
_CHECKSUMS = flags.DEFINE_list(
    "md5", [], "MD5 of files that differ from COCO's, as on a mirror: val=442b8da7639a...", flag_values=FLAGS
)


def main():
    checksums = {}
    for entry in _CHECKSUMS.value:
        name, _, value = entry.partition("=")
        if name not in ARCHIVES or len(value) != 32:
            raise InputError(f"--md5={entry}: give NAME=MD5, with a name of --files and 32 hexadecimal digits")
        checksums[name] = value.lower()
    paths = download_coco(_OUTPUT_DIR.value, _FILES.value, _BASE.value, checksums)
    for split in [name for name in ("train", "val") if name in paths]:
        labels = os.path.join(_OUTPUT_DIR.value, "annotations", f"person_keypoints_{split}2017.json")
        print(
            f"python -m tfrecords_tools.write_coco --annotations={labels} --images={paths[split]} "
            f"--output_dir=records --split={split}"
        )


def console():
    cli.run(main, FLAGS, __doc__, tensorflow=False)


if __name__ == "__main__":
    console()
