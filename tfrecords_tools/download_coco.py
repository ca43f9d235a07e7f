"""Fetches COCO 2017: the images of both splits and the keypoint labels.

python -m tfrecords_tools.download_coco --output_dir=coco

Interrupted, the same command goes on at the byte where it stopped. Sizes and MD5 checksums are tested. The images
stay in their .zip files, from which tfrecords_tools.write_coco reads them; the keypoint labels are unpacked.
"""

import hashlib
import http.client
import os
import shutil
import sys
import time
import urllib.error
import urllib.request
import zipfile

from absl import flags, logging
from tqdm import tqdm

from kpose.core import cli, files
from kpose.core.errors import InputError

BASE = "http://images.cocodataset.org"


# Of COCO 2017: where each archive lies, and its MD5, as the loaders of several frameworks have it.
ARCHIVES = {
    "train": ("zips/train2017.zip", "cced6f7f71b7629ddf16f17bbcfab6b2"),
    "val": ("zips/val2017.zip", "442b8da7639aecaf257c1dceb8ba8c80"),
    "annotations": ("annotations/annotations_trainval2017.zip", "f4bbac642086de4f52a3fdda2de5fa2c"),
}


LABELS = ("annotations/person_keypoints_train2017.json", "annotations/person_keypoints_val2017.json")


BLOCK = 1 << 20


TRIES = 8  # In a row without a byte more.


FIRST_WAIT = 1.0  # Seconds; doubled after each try.


TIMEOUT = 60.0


LOG_EVERY = 10.0


def download_coco(output_dir, names=tuple(ARCHIVES), base=BASE, checksums=None):
    """Fetches archives of COCO 2017 and unpacks the keypoint labels; images stay zipped, which the writer reads.

    Args:
        output_dir: where the archives go, and `annotations/` of the labels.
        names: of `ARCHIVES`.
        base: address above the archives' paths.
        checksums: name -> MD5 (None: those that are known).

    Returns:
        Paths of the archives, by name.

    Raises:
        InputError: no such archive, a server that does not give it, a wrong checksum, a full disk.
    """
    unknown = set(names) - set(ARCHIVES)
    if unknown:
        raise InputError(f"--files: no archive is called {sorted(unknown)[0]!r}: there are {', '.join(ARCHIVES)}")
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


def download(address, path, md5=None):
    """Fetches a file, or what is missing of it; one that is there already is only checked.

    Args:
        address: http or https.
        path: the file.
        md5: its checksum in hex (None: only the size is checked).

    Raises:
        InputError: the server does not give it, its checksum is wrong, or the disk is full.
    """
    if os.path.exists(path):
        if md5 is None or _md5(path) == md5:
            logging.info("%s is there already", path)
            return
        raise InputError(f"{path}: another checksum than {md5}: remove it, and give the same command again")
    files.make_folder(os.path.dirname(os.path.abspath(path)))
    part = _Part(path)
    waits, wait = 0, FIRST_WAIT
    while True:
        before = part.size
        try:
            if part.fetch(address):
                break
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            _give_up_on_refusal(address, error)
            waits, wait = (waits + 1, wait) if part.size == before else (0, FIRST_WAIT)
            if waits >= TRIES:
                raise InputError(
                    f"{address}: {_reason(error)}, {TRIES} times in a row: {part.size:,} bytes are kept in "
                    f"{part.path}; give the same command again to go on"
                ) from None
            logging.info("%s: %s at byte %d: trying again", address, _reason(error), part.size)
            time.sleep(wait)
            wait *= 2
        except OSError as error:
            raise InputError(
                f"{part.path}: cannot be written ({error.strerror or error}): {part.size:,} bytes are kept; make room "
                "and give the same command again to go on"
            ) from None
    if md5 is not None and _md5(part.path) != md5:
        os.replace(part.path, f"{path}.bad")
        part.forget()
        raise InputError(
            f"{address}: another checksum than {md5}: what came is kept as {path}.bad; give the same command again to "
            "fetch it anew"
        )
    os.replace(part.path, path)
    part.forget()
    logging.info("%s: %d bytes", path, os.path.getsize(path))


class _Part:
    """A file that has not come in full: NAME.part, and beside it which version of it the server had."""

    def __init__(self, path):
        self.path = f"{path}.part"
        self._version_path = f"{path}.part.version"

    @property
    def size(self):
        return os.path.getsize(self.path) if os.path.exists(self.path) else 0

    def forget(self):
        if os.path.exists(self._version_path):
            os.remove(self._version_path)

    def fetch(self, address):
        """Appends what comes; whether the file is whole then."""
        request = urllib.request.Request(address, headers={"User-Agent": "kpose", "Accept-Encoding": "identity"})
        start, version = self.size, self._version()
        if start and version:
            request.add_header("Range", f"bytes={start}-")
            # If it has changed meanwhile, all of it comes.
            request.add_header("If-Range", version)
        elif start:
            # Nothing tells whether what the server has now is what these bytes are of.
            start = 0
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
                if answer.status != 206:
                    start = 0
                total = _total(answer, start)
                self._remember(answer)
                return self._append(answer, start, total)
        except urllib.error.HTTPError as error:
            if error.code != 416:
                raise
            # Asked for bytes beyond the end: it is whole, or it has shrunk.
            total = error.headers.get("Content-Range", "").rpartition("/")[2]
            if total.isdigit() and int(total) == start:
                return True
            os.remove(self.path)
            self.forget()
            raise ConnectionError("the file has changed on the server") from None

    def _append(self, answer, start, total):
        if total is not None:
            free = shutil.disk_usage(os.path.dirname(os.path.abspath(self.path))).free
            if total - start > free:
                raise OSError(f"{(total - start) / 1e9:.1f} GB are to come, {free / 1e9:.1f} GB are free")
        name = os.path.basename(self.path).removesuffix(".part")
        with (
            open(self.path, "r+b" if os.path.exists(self.path) else "wb") as file,
            _Progress(name, start, total) as bar,
        ):
            file.truncate(start)
            file.seek(start)
            while block := answer.read(BLOCK):
                file.write(block)
                bar.add(len(block))
        if total is not None and self.size < total:
            raise ConnectionError("the connection was cut")
        return True

    def _version(self):
        if not os.path.exists(self._version_path):
            return None
        with open(self._version_path) as file:
            return file.read()

    def _remember(self, answer):
        tag = answer.headers.get("ETag", "")
        # A weak tag is of equal meaning, not of equal bytes.
        version = tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified")
        if version:
            with files.replacing(self._version_path) as file:
                file.write(version)
        else:
            self.forget()


def _total(answer, start):
    length = answer.headers.get("Content-Length")
    return start + int(length) if length and length.isdigit() else None


class _Progress:
    """A bar on a terminal, otherwise lines with MB, rate and time left."""

    def __init__(self, name, done, total):
        self.name, self.done, self.total, self.start = name, done, total, done
        self.started = self.logged = time.monotonic()

    def __enter__(self):
        self.bar = tqdm(
            total=self.total,
            initial=self.done,
            desc=self.name,
            unit="B",
            unit_scale=True,
            disable=not sys.stderr.isatty(),
        )
        return self

    def __exit__(self, *error):
        self.bar.close()

    def add(self, count):
        self.done += count
        self.bar.update(count)
        now = time.monotonic()
        if self.bar.disable and now - self.logged >= LOG_EVERY:
            self.logged = now
            rate = (self.done - self.start) / (now - self.started)
            left = "" if self.total is None else f", {(self.total - self.done) / max(rate, 1):.0f} s left"
            of = "" if self.total is None else f" of {self.total / 1e6:.0f}"
            logging.info("%s: %.0f%s MB (%.1f MB/s%s)", self.name, self.done / 1e6, of, rate / 1e6, left)


def _give_up_on_refusal(address, error):
    """An answer that will be the same next time is an error at once."""
    if isinstance(error, urllib.error.HTTPError) and error.code not in (408, 429) and error.code < 500:
        raise InputError(f"{address}: the server answers {error.code} {error.reason}: check the address") from None
    if isinstance(error, urllib.error.URLError) and "unknown url type" in str(error.reason):
        raise InputError(f"{address}: not an http address") from None


def _reason(error):
    return str(getattr(error, "reason", None) or error or type(error).__name__)


def _md5(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def unpack(archive, member, folder):
    """Unpacks one file of a .zip archive into `folder`, under the member's own path.

    Raises:
        InputError: the archive is damaged or lacks the member.
    """
    path = os.path.join(folder, member)
    try:
        with zipfile.ZipFile(archive) as opened:
            size = opened.getinfo(member).file_size
            if os.path.exists(path) and os.path.getsize(path) == size:
                return
            with opened.open(member) as source, files.replacing(path, "wb") as target:
                shutil.copyfileobj(source, target, BLOCK)
    except KeyError:
        raise InputError(f"{archive}: holds no {member}: not COCO's archive of annotations") from None
    except zipfile.BadZipFile as error:
        raise InputError(f"{archive}: damaged ({error}): remove it, and give the same command again") from None
    logging.info("unpacked %s", path)


FLAGS = cli.flag_set()
_OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "Folder for the files.", required=True, flag_values=FLAGS)
_FILES = flags.DEFINE_list(
    "files", list(ARCHIVES), "Which: train (19.3 GB), val (0.8 GB), annotations (0.3 GB).", flag_values=FLAGS
)
_BASE = flags.DEFINE_string("base", BASE, "Address above zips/ and annotations/.", flag_values=FLAGS)
_CHECKSUMS = flags.DEFINE_list(
    "md5", [], "Other checksums than COCO's, of a mirror's own files: val=442b8da7639a...", flag_values=FLAGS
)


def main():
    checksums = {}
    for entry in _CHECKSUMS.value:
        name, _, value = entry.partition("=")
        if name not in ARCHIVES or len(value) != 32:
            raise cli.InputError(f"--md5={entry}: give NAME=MD5 in 32 hexadecimal digits")
        checksums[name] = value.lower()
    paths = download_coco(_OUTPUT_DIR.value, _FILES.value, _BASE.value, checksums)
    for split in ("train", "val"):
        if split in paths:
            labels = os.path.join(_OUTPUT_DIR.value, "annotations", f"person_keypoints_{split}2017.json")
            print(
                f"python -m tfrecords_tools.write_coco --annotations={labels} --images={paths[split]} "
                f"--output_dir=records --split={split}"
            )


def console():
    cli.run(main, FLAGS, __doc__, tensorflow=False)


if __name__ == "__main__":
    console()
