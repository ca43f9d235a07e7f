"""Downloads from a server that misbehaves: nothing is fetched twice, and nothing wrong gets a name."""

import hashlib
import http.server
import io
import json
import os
import shutil
import subprocess
import sys
import threading
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
        cuts: after how many bytes each coming answer is cut; none: not at all.
        ranges: whether it knows of ranges.
        tag: the ETag of everything; None: no tag and no date.
        served: bytes of bodies sent.
        asked: (path, Range) of the requests.
        status: what it answers instead of a file.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files, self.cuts, self.ranges, self.tag = {"/data": DATA}, [], True, '"one"'
        self.served, self.asked, self.status = 0, [], []


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
        same = self.headers.get("If-Range") in (None, server.tag)
        if wanted and server.ranges and same:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(data):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(data)}")
                self.end_headers()
                return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        if server.tag:
            self.send_header("ETag", server.tag)
        self.end_headers()
        body = data[start:]
        cut = server.cuts.pop(0) if server.cuts else len(body)
        self.wfile.write(body[:cut])
        server.served += len(body[:cut])
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


def test_a_file_comes_whole_and_is_not_fetched_again(server, tmp_path):
    path = tmp_path / "folder" / "data"
    for _ in range(2):
        download_coco.download(_address(server), str(path), _md5(DATA))
    assert path.read_bytes() == DATA and len(server.asked) == 1
    assert os.listdir(path.parent) == ["data"]


@pytest.mark.parametrize("cuts", [[1], [100_000, 0, 0, 150_000, 7], [399_999]])
def test_cut_connections_cost_nothing_but_the_rest(cuts, server, tmp_path):
    server.cuts = list(cuts)
    download_coco.download(_address(server), str(tmp_path / "data"), _md5(DATA))
    assert (tmp_path / "data").read_bytes() == DATA
    assert server.served == len(DATA)
    assert [wanted for _, wanted in server.asked][1] == f"bytes={cuts[0]}-"


def test_after_too_many_cuts_it_stops_and_the_next_one_goes_on(server, tmp_path):
    server.cuts = [250_000] + [0] * download_coco.TRIES
    with pytest.raises(InputError, match="250,000 bytes are kept in .*data.part; give the same command again") as error:
        download_coco.download(_address(server), str(tmp_path / "data"))
    helpers.one_line(error)
    assert not (tmp_path / "data").exists() and (tmp_path / "data.part").read_bytes() == DATA[:250_000]
    server.cuts = []
    download_coco.download(_address(server), str(tmp_path / "data"), _md5(DATA))
    assert (tmp_path / "data").read_bytes() == DATA and server.served == len(DATA)
    assert os.listdir(tmp_path) == ["data"]


def test_a_server_without_ranges_sends_it_anew(server, tmp_path):
    server.ranges, server.cuts = False, [123_456]
    download_coco.download(_address(server), str(tmp_path / "data"), _md5(DATA))
    assert (tmp_path / "data").read_bytes() == DATA


def test_a_file_that_changes_meanwhile_is_not_glued_together(server, tmp_path):
    server.cuts = [200_000] + [0] * download_coco.TRIES
    with pytest.raises(InputError, match="are kept"):
        download_coco.download(_address(server), str(tmp_path / "data"))
    other = DATA[::-1][:300_000]
    server.files["/data"], server.tag, server.cuts = other, '"two"', []
    download_coco.download(_address(server), str(tmp_path / "data"), _md5(other))
    assert (tmp_path / "data").read_bytes() == other


def test_a_server_without_tags_is_asked_for_all_of_it(server, tmp_path):
    """Nothing would tell whether the rest is of the same file."""
    server.tag, server.cuts = None, [200_000]
    download_coco.download(_address(server), str(tmp_path / "data"), _md5(DATA))
    assert (tmp_path / "data").read_bytes() == DATA
    assert [wanted for _, wanted in server.asked] == [None, None]


def test_a_part_that_is_whole_already_is_finished(server, tmp_path):
    server.cuts = [399_999] + [0] * download_coco.TRIES
    with pytest.raises(InputError):
        download_coco.download(_address(server), str(tmp_path / "data"))
    (tmp_path / "data.part").write_bytes(DATA)
    download_coco.download(_address(server), str(tmp_path / "data"), _md5(DATA))
    assert (tmp_path / "data").read_bytes() == DATA and server.served == 399_999


def test_a_wrong_checksum_gets_no_name(server, tmp_path):
    with pytest.raises(InputError, match=f"another checksum than {'0' * 32}: .*data.bad") as error:
        download_coco.download(_address(server), str(tmp_path / "data"), "0" * 32)
    helpers.one_line(error)
    assert os.listdir(tmp_path) == ["data.bad"]
    (tmp_path / "data").write_bytes(b"another file")
    with pytest.raises(InputError, match="another checksum.*remove it"):
        download_coco.download(_address(server), str(tmp_path / "data"), _md5(DATA))
    assert (tmp_path / "data").read_bytes() == b"another file"


def test_a_busy_server_is_asked_again_and_a_refusal_is_final(server, tmp_path):
    server.status = [503, 429]
    download_coco.download(_address(server), str(tmp_path / "data"))
    assert len(server.asked) == 3
    with pytest.raises(InputError, match="answers 404 Not Found: check the address") as error:
        download_coco.download(_address(server, "/none"), str(tmp_path / "none"))
    helpers.one_line(error)
    assert len(server.asked) == 4


def test_no_server_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(download_coco, "FIRST_WAIT", 0.001)
    with pytest.raises(InputError, match="refused, 8 times in a row") as error:
        download_coco.download("http://127.0.0.1:9/data", str(tmp_path / "data"))
    helpers.one_line(error)


def test_a_disk_too_small_is_told_before_it_is_full(server, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100_000))
    with pytest.raises(InputError, match="cannot be written .*0.0 GB are to come.*make room") as error:
        download_coco.download(_address(server), str(tmp_path / "data"))
    helpers.one_line(error)


def _archive(**members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, contents in members.items():
            archive.writestr(f"annotations/{name}.json", contents)
    return buffer.getvalue()


def test_command_fetches_coco_and_says_what_comes_next(server, tmp_path):
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
    assert done.returncode == 1 and "no archive is called 'test'" in done.stderr


def test_an_archive_of_something_else_is_one_line(tmp_path):
    (tmp_path / "a.zip").write_bytes(_archive(captions="{}"))
    with pytest.raises(InputError, match="holds no annotations/person_keypoints_train2017.json"):
        download_coco.unpack(str(tmp_path / "a.zip"), download_coco.LABELS[0], str(tmp_path))
    (tmp_path / "b.zip").write_bytes(DATA)
    with pytest.raises(InputError, match="damaged"):
        download_coco.unpack(str(tmp_path / "b.zip"), download_coco.LABELS[0], str(tmp_path))
