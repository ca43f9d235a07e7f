"""Downloads from a server with faults: no byte twice, and no wrong file under the final name."""

import hashlib
import http.server
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import zipfile

import numpy as np
import pytest

from kpose.core.errors import InputError
from tests import helpers
from tfrecords_tools import download_coco

DATA = np.random.default_rng(0).integers(0, 256, 400_000, np.uint8).tobytes()


class _Server(http.server.ThreadingHTTPServer):
    """Serves `files` (path -> bytes).

    Attributes:
        cuts: number of bytes after which each of the next answers is cut; empty: answers are
            complete.
        ranges: whether it answers range requests.
        served: number of bytes sent in bodies.
        asked: (path, Range header) of each request.
        length: its Content-Length, if not "".
        drip: seconds after each byte; 0: it does not send them one by one.
        status: status codes of the next answers, instead of a file.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files, self.cuts, self.ranges = {"/data": DATA}, [], True
        self.served, self.asked, self.status = 0, [], []
        self.length, self.drip = "", 0


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):  # noqa: N802 (the library's name)
        server = self.server
        wanted = self.headers.get("Range")
        server.asked.append((self.path, wanted))
        data = server.files.get(self.path)
        if data is None or server.status:
            self.send_error(server.status.pop(0) if server.status else 404)
            return
        start = 0
        if wanted and server.ranges:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(data):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(data)}")
                self.end_headers()
                return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", server.length or str(len(data) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        body = data[start:]
        cut = server.cuts.pop(0) if server.cuts else len(body)
        # Before the client has the bytes: a test counts them when it has.
        server.served += len(body[:cut])
        for byte in range(0, cut if server.drip else 0):
            try:
                self.wfile.write(body[byte : byte + 1])
            except OSError:
                break
            time.sleep(server.drip)
        if not server.drip:
            self.wfile.write(body[:cut])
        self.close_connection = True

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download_coco, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(download_coco, "TIMEOUT", 5.0)
    running = _Server()
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()


def _address(server, path="/data"):
    return f"http://127.0.0.1:{server.server_address[1]}{path}"


def _md5(data):
    return hashlib.md5(data).hexdigest()


def test_a_complete_file_is_not_downloaded_again(server, tmp_path):
    path = tmp_path / "folder" / "data"
    for _ in range(2):
        download_coco.download(_address(server), str(path), _md5(DATA))
    assert path.read_bytes() == DATA and len(server.asked) == 1
    assert os.listdir(path.parent) == ["data"]


@pytest.mark.parametrize("cuts", [[1], [100_000, 0, 0, 150_000, 7], [399_999]])
def test_after_a_cut_only_the_rest_is_downloaded(cuts, server, tmp_path):
    server.cuts = list(cuts)
    download_coco.download(_address(server), str(tmp_path / "data"), _md5(DATA))
    assert (tmp_path / "data").read_bytes() == DATA
    assert server.served == len(DATA)
    assert [wanted for _, wanted in server.asked][1] == f"bytes={cuts[0]}-"


@pytest.mark.parametrize("length", [str(10**30), "9" * 6000])
def test_a_length_that_no_archive_has_ends_the_download(length, server, tmp_path):
    server.length = length
    with pytest.raises(InputError, match="announces more than 25 GB") as error:
        download_coco.download(_address(server), str(tmp_path / "data"), _md5(DATA))
    helpers.one_line(error)
    assert len(server.asked) == 1


def test_a_server_that_drips_bytes_is_given_up(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download_coco, "TIMEOUT", 0.2)
    monkeypatch.setattr(download_coco, "TRIES", 2)
    server.drip = 0.01
    with pytest.raises(InputError, match="slower than 1000 bytes per second, 2 times in a row"):
        download_coco.download(_address(server), str(tmp_path / "data"), _md5(DATA))
    server.drip = 0
    download_coco.download(_address(server), str(tmp_path / "data"), _md5(DATA))
    assert (tmp_path / "data").read_bytes() == DATA


def _fail_after(count, server, tmp_path):
    """Downloads `count` bytes to data.part; every later request fails."""
    server.cuts = [count] + [0] * download_coco.TRIES
    complaint = f"{count:,} bytes are in .*data.part; run the same command again"
    with pytest.raises(InputError, match=complaint) as error:
        download_coco.download(_address(server), str(tmp_path / "data"), _md5(DATA))
    helpers.one_line(error)
    assert not (tmp_path / "data").exists() and (tmp_path / "data.part").read_bytes() == DATA[:count]
    server.cuts = []


def test_after_too_many_cuts_it_stops_and_the_next_download_continues(server, tmp_path):
    _fail_after(250_000, server, tmp_path)
    download_coco.download(_address(server), str(tmp_path / "data"), _md5(DATA))
    assert (tmp_path / "data").read_bytes() == DATA and server.served == len(DATA)
    assert os.listdir(tmp_path) == ["data"]


def test_a_server_without_ranges_sends_the_whole_file_again(server, tmp_path):
    server.ranges, server.cuts = False, [123_456]
    download_coco.download(_address(server), str(tmp_path / "data"), _md5(DATA))
    assert (tmp_path / "data").read_bytes() == DATA
    assert [wanted for _, wanted in server.asked] == [None, "bytes=123456-"]


@pytest.mark.parametrize("length", [300_000, 150_000])
def test_a_file_that_changed_on_the_server_is_downloaded_again(length, server, tmp_path):
    """Old bytes followed by new ones have a wrong MD5; the next download starts again."""
    _fail_after(200_000, server, tmp_path)
    other = DATA[::-1][:length]
    server.files["/data"] = other
    with pytest.raises(InputError, match=f"MD5 of the downloaded file is not {_md5(other)}"):
        download_coco.download(_address(server), str(tmp_path / "data"), _md5(other))
    assert os.listdir(tmp_path) == ["data.bad"]
    download_coco.download(_address(server), str(tmp_path / "data"), _md5(other))
    assert (tmp_path / "data").read_bytes() == other


def test_a_part_that_is_complete_only_gets_its_name(server, tmp_path):
    (tmp_path / "data.part").write_bytes(DATA)
    download_coco.download(_address(server), str(tmp_path / "data"), _md5(DATA))
    assert (tmp_path / "data").read_bytes() == DATA and server.served == 0
    assert os.listdir(tmp_path) == ["data"]


def test_a_file_with_a_wrong_checksum_is_kept_as_bad(server, tmp_path):
    with pytest.raises(InputError, match=f"is not {'0' * 32}: the file is kept as .*data.bad; run") as error:
        download_coco.download(_address(server), str(tmp_path / "data"), "0" * 32)
    helpers.one_line(error)
    assert os.listdir(tmp_path) == ["data.bad"] and (tmp_path / "data.bad").read_bytes() == DATA
    (tmp_path / "data").write_bytes(b"another file")
    with pytest.raises(InputError, match="data: its MD5 is not .*: remove the file"):
        download_coco.download(_address(server), str(tmp_path / "data"), _md5(DATA))
    assert (tmp_path / "data").read_bytes() == b"another file"


def test_a_busy_server_is_asked_again_but_not_after_a_refusal(server, tmp_path):
    server.status = [503, 429]
    download_coco.download(_address(server), str(tmp_path / "data"), _md5(DATA))
    assert len(server.asked) == 3
    with pytest.raises(InputError, match="answers 404 Not Found: check the address") as error:
        download_coco.download(_address(server, "/none"), str(tmp_path / "none"), _md5(DATA))
    helpers.one_line(error)
    assert len(server.asked) == 4


def test_no_server_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(download_coco, "FIRST_WAIT", 0.001)
    with pytest.raises(InputError, match="refused, 8 times in a row") as error:
        download_coco.download("http://127.0.0.1:9/data", str(tmp_path / "data"), _md5(DATA))
    helpers.one_line(error)


def test_a_disk_that_is_too_small_is_an_error_before_it_is_full(server, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100_000))
    with pytest.raises(InputError, match="cannot be written .*0.0 GB are missing.*free some disk space") as error:
        download_coco.download(_address(server), str(tmp_path / "data"), _md5(DATA))
    helpers.one_line(error)
    assert len(server.asked) == 1 and not os.listdir(tmp_path)


def _archive(**members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, contents in members.items():
            archive.writestr(f"annotations/{name}.json", contents)
    return buffer.getvalue()


def test_command_downloads_coco_and_prints_the_next_command(server, tmp_path):
    splits = ("train", "val")
    labels = {f"person_keypoints_{split}2017": json.dumps({"split": split, "x": [1] * 5000}) for split in splits}
    server.files = {
        "/zips/val2017.zip": DATA,
        "/annotations/annotations_trainval2017.zip": _archive(instances_val2017="{}", **labels),
    }
    server.cuts = [300_000]
    md5 = [f"val={_md5(DATA)}", f"annotations={_md5(server.files['/annotations/annotations_trainval2017.zip'])}"]
    flags = [f"--output_dir={tmp_path}", f"--base={_address(server, '')}", f"--md5={','.join(md5)}"]
    command = [sys.executable, "-m", "tfrecords_tools.download_coco", *flags]
    done = subprocess.run([*command, "--files=val,annotations"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "write_coco --annotations=" in done.stdout and "val2017.zip" in done.stdout
    assert (tmp_path / "val2017.zip").read_bytes() == DATA
    assert sorted(os.listdir(tmp_path / "annotations")) == [f"person_keypoints_{s}2017.json" for s in ("train", "val")]
    assert json.loads((tmp_path / "annotations" / "person_keypoints_val2017.json").read_text())["split"] == "val"
    done = subprocess.run([*command, "--files=test"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "no archive is named 'test'" in done.stderr


def test_an_archive_of_something_else_is_one_line(tmp_path):
    (tmp_path / "a.zip").write_bytes(_archive(captions="{}"))
    with pytest.raises(InputError, match="has no annotations/person_keypoints_train2017.json"):
        download_coco.unpack(str(tmp_path / "a.zip"), download_coco.LABELS[0], str(tmp_path))
    (tmp_path / "b.zip").write_bytes(DATA)
    with pytest.raises(InputError, match="damaged"):
        download_coco.unpack(str(tmp_path / "b.zip"), download_coco.LABELS[0], str(tmp_path))
