"""Videos of unusual kinds, URLs and cameras; tracks and times in the results; Ctrl-C."""

import contextlib
import fractions
import http.server
import io
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image

from kpose.core.errors import InputError
from kpose.predict import files, outputs, video_files, videos
from kpose.predict.video_files import Options, people_of_frames

av = pytest.importorskip("av", reason="videos need the package av")
ROOT = pathlib.Path(__file__).parents[2]
RATE = fractions.Fraction(10)


def _pixels(number):
    """A frame of 64 x 48 pixels with a bright field that moves."""
    pixels = np.full((48, 64, 3), 40, np.uint8)
    pixels[10:40, number % 40 : number % 40 + 20] = 200
    return pixels


def _film(path, times, pixels=_pixels):
    """Writes frames at times in seconds to a .mkv or .mp4 file."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.time_base = stream.codec_context.time_base = fractions.Fraction(1, 1000)
        for number, moment in enumerate(times, 1):
            frame = av.VideoFrame.from_ndarray(pixels(number), format="rgb24")
            frame.pts, frame.time_base = round(moment * 1000), fractions.Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return str(path)


def _moving(image):
    """A detector: the bright field of `_pixels`, and one person at the same place in each frame."""
    columns = np.flatnonzero(image[..., 0].max(0) > 120)
    return [[columns[0], 10, np.ptp(columns) + 1, 30], [0, 0, 10, 48]], [0.9, 0.5]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of a server with a video, an image and an endless stream of JPEG images."""
    folder = tmp_path_factory.mktemp("served")
    _film(folder / "film.mkv", [0, 0.1, 0.2, 0.3])
    Image.fromarray(_pixels(3)).save(folder / "photo.png")
    types = {"/film.mkv": "application/octet-stream", "/watch": "video/x-matroska", "/photo": "image/png"}

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            with contextlib.suppress(OSError):
                self._stream() if self.path == "/live" else self._file(self.path.partition("?")[0])

        def _file(self, name):
            data = (folder / ("photo.png" if name == "/photo" else "film.mkv")).read_bytes()
            self.send_response(200 if name in types else 404)
            self.send_header("Content-Type", types.get(name, "text/plain"))
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _stream(self):
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
            self.end_headers()
            for number in range(10_000):
                data = io.BytesIO()
                Image.fromarray(_pixels(number)).save(data, "JPEG")
                head = f"--next\r\nContent-Type: image/jpeg\r\nContent-Length: {data.tell()}\r\n\r\n"
                self.wfile.write(head.encode() + data.getvalue() + b"\r\n")
                time.sleep(0.02)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        serving.daemon_threads = True
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()


def test_tracked_results_have_ids_and_times(model_dir, tmp_path):
    film = _film(tmp_path / "film.mp4", np.arange(8) / 10)
    folder = tmp_path / "found"
    results = files.predict(model_dir, film, output_dir=str(folder), detector=_moving, every=2, track=True)
    assert json.loads((folder / "keypoints.json").read_text()) == results
    assert [r["frame"] for r in results[::2]] == [1, 3, 5, 7]
    assert [r["time"] for r in results[::2]] == pytest.approx([0, 0.2, 0.4, 0.6])
    still = {r["track_id"] for r in results if r["bbox"][0] == 0}
    assert still == {2} and {r["track_id"] for r in results} == {1, 2}
    assert "track_id" not in files.predict(model_dir, film, output_dir=None, detector=_moving)[0]
    assert files.predict(model_dir, film, output_dir=None, detector=_moving, returned=False) is None


def test_people_of_frames_are_tracked_and_smoothed(model_dir, tmp_path):
    import kpose

    model = kpose.load(model_dir)
    film = _film(tmp_path / "film.mp4", np.arange(6) / 10)
    with videos.Video(film) as video:
        plain = [people for _, people in people_of_frames(model, video, _moving)]
    with videos.Video(film) as video:
        smooth = [people for _, people in people_of_frames(model, video, _moving, Options(smooth=True))]
    assert plain[0].track_ids is None and plain[0][0].track_id is None
    assert [people[1].track_id for people in smooth] == [2] * 6 and "track 2" in repr(smooth[0][1])
    assert smooth[3].to_coco(1)[1]["track_id"] == 2 and smooth[3][::-1].track_ids.tolist() == [2, 1]
    np.testing.assert_array_equal(smooth[0].keypoints, plain[0].keypoints)
    assert not np.allclose(smooth[3].keypoints[0], plain[3].keypoints[0])


def test_times_and_the_overlay_follow_a_variable_frame_rate(model_dir, tmp_path):
    times = [0, 0.04, 0.5, 0.52, 1.4]
    film = _film(tmp_path / "film.mkv", times)
    results = files.predict(model_dir, film, output_dir=str(tmp_path / "found"), detector="none")
    assert [r["time"] for r in results] == pytest.approx(times, abs=0.002)
    with videos.Video(str(tmp_path / "found" / "film.mp4")) as overlay:
        assert [frame.time for frame in overlay.frames()] == pytest.approx(times, abs=0.002)


def test_times_begin_at_the_start_of_the_file(tmp_path):
    with videos.Video(_film(tmp_path / "late.mkv", [7, 7.1, 7.2])) as video:
        assert [frame.time for frame in video.frames()] == pytest.approx([0, 0.1, 0.2], abs=0.002)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_files_without_a_frame_are_one_line(tmp_path, suffix):
    sound, empty = tmp_path / f"sound{suffix}", tmp_path / f"empty{suffix}"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 44100), np.float32), format="flt", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    _film(empty, [])
    for path in (sound, empty):
        with pytest.raises(InputError, match=f"{path.name}: ") as caught, videos.Video(str(path)) as video:
            list(video.frames())
        assert "\n" not in str(caught.value)


def test_a_url_is_a_video_by_its_suffix_or_its_content_type(server, model_dir, tmp_path):
    assert videos.is_video(f"{server}/film.mkv?x=1.jpg") and videos.is_video(f"{server}/watch")
    assert not videos.is_video(f"{server}/photo") and not videos.is_video("http://127.0.0.1:9/a.jpg")
    sources = [f"{server}/{name}" for name in ("film.mkv?x=1", "watch", "photo")]
    results = files.predict(model_dir, sources, output_dir=str(tmp_path), detector="none")
    assert [r.get("frame") for r in results] == [1, 2, 3, 4, 1, 2, 3, 4, None]
    assert sorted(os.listdir(tmp_path)) == ["film.mp4", "keypoints.json", "photo.jpg", "watch.mp4"]


def test_what_cannot_be_opened_is_one_line_without_a_password(server, tmp_path):
    for path, message in (
        ("rtsp://me:secret@127.0.0.1:9/street", "rtsp://127.0.0.1:9/street: cannot be opened"),
        (f"{server}/none.mp4", "none.mp4: cannot be read as a video .*404"),
        ("7", "camera 7: cannot be opened"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            videos.Video(path)
        assert "\n" not in str(caught.value) and "secret" not in str(caught.value)
    names = {
        "7": "camera7",
        "rtsp://me:secret@h/street?a=b": "street",
        "udp://me:secret@10.0.0.1:5000": "10_0_0_1_5000",
    }
    assert outputs._stems(names, "o") == {path: os.path.join("o", name) for path, name in names.items()}


def test_a_file_with_the_name_of_a_number_is_no_camera(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert videos.is_camera("0") and not videos.is_camera("0.jpg")
    pathlib.Path("0").write_bytes(b"")
    assert not videos.is_camera("0")


def test_options_for_videos_need_a_video_and_a_screen(model_dir, photos, tmp_path, monkeypatch):
    for option in ("track", "smooth", "show"):
        with pytest.raises(InputError, match=f"--{option} is for videos"):
            files.predict(model_dir, str(photos), output_dir=None, **{option: True})
    pytest.importorskip("tkinter", reason="this Python has no tkinter")
    monkeypatch.delenv("DISPLAY", raising=False)
    if sys.platform.startswith("linux"):
        film = _film(tmp_path / "film.mkv", [0])
        with pytest.raises(InputError, match="--show needs a screen, and there is none: leave --show out"):
            files.predict(model_dir, film, output_dir=None, show=True)


def test_closing_the_window_ends_the_video(model_dir, tmp_path, monkeypatch):
    shown = []

    class Window:
        is_open = True

        def __init__(self, title):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def show(self, picture):
            shown.append(picture)
            self.is_open = len(shown) < 3

        def close(self):
            pass

    monkeypatch.setattr(video_files, "Window", Window)
    film = _film(tmp_path / "film.mkv", np.arange(8) / 10)
    results = files.predict(model_dir, film, output_dir=str(tmp_path / "found"), detector="none", show=True)
    assert [picture.size for picture in shown] == [(64, 48)] * 3
    assert [r["frame"] for r in results] == [1, 2, 3]
    with videos.Video(str(tmp_path / "found" / "film.mp4")) as overlay:
        assert len(list(overlay.frames())) == 3


def test_a_stream_that_stops_keeps_what_came(model_dir, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(videos, "TIMEOUT", 1.5)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        url = f"udp://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(InputError, match=r"cannot be opened \(nothing arrived for 1.5 seconds\)"):
        videos.Video(url)

    def send():
        with av.open(f"{url}?pkt_size=1316", "w", format="mpegts") as container:
            stream = container.add_stream("mpeg4", rate=20, options={"g": "5"})
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for number in range(100):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(_pixels(number), format="rgb24")))
                time.sleep(0.02)

    sender = threading.Thread(target=send)
    opening = videos._opening

    def opening_while_it_is_sent(path):
        # Not before: on a busy machine, loading the model takes longer than the stream.
        sender.start()
        return opening(path)

    monkeypatch.setattr(videos, "_opening", opening_while_it_is_sent)
    with caplog.at_level("WARNING", logger="absl"):
        results = files.predict(model_dir, url, output_dir=str(tmp_path), detector="none")
    sender.join()
    assert len(results) >= 10 and results[0]["time"] == 0 and "the stream ended after frame" in caplog.text
    assert np.diff([r["time"] for r in results]).min() > 0
    assert len(json.loads((tmp_path / "keypoints.json").read_text())) == len(results)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other signals")
@pytest.mark.parametrize(("number", "source"), [(signal.SIGINT, "file"), (signal.SIGTERM, "stream")])
def test_a_signal_keeps_the_results_and_the_overlay(number, source, server, tmp_path):
    path = f"{server}/live" if source == "stream" else _film(tmp_path / "long.mkv", np.arange(3000) / 10)
    folder = tmp_path / "found"
    command = [sys.executable, "-m", "kpose.predict", "--detector=none", "--track", f"--output_dir={folder}", path]
    running = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    # The overlay is written under another name until it is complete.
    while not list(folder.glob("*.tmp")) and running.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(0.7)
    running.send_signal(number)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 1 and "the results so far are kept" in errors, errors
    assert errors.rstrip().endswith("error: interrupted") and "Traceback" not in errors
    name = "live" if source == "stream" else "long"
    assert sorted(os.listdir(folder)) == ["keypoints.json", f"{name}.mp4"]
    results = json.loads((folder / "keypoints.json").read_text())
    with videos.Video(str(folder / f"{name}.mp4")) as overlay:
        frames = list(overlay.frames())
    assert 1 <= len(frames) < 3000 and [r["frame"] for r in results] == list(range(1, len(frames) + 1))
    assert {r["track_id"] for r in results} == {1}
    assert np.diff([r["time"] for r in results]).min(initial=1) > 0


def test_a_video_with_an_error_adds_nothing_and_the_others_stay(model_dir, tmp_path):
    paths = [_film(tmp_path / f"{name}.mkv", np.arange(4) / 10) for name in "abc"]
    seen = []

    def fails_in_the_second(image):
        seen.append(image)
        return None if len(seen) == 7 else _moving(image)

    folder = tmp_path / "found"
    with pytest.raises(InputError, match="1 of 3 files could not be read"):
        files.predict(model_dir, paths, output_dir=str(folder), detector=fails_in_the_second)
    results = json.loads((folder / "keypoints.json").read_text())
    assert [os.path.basename(r["file_name"]) for r in results] == ["a.mkv"] * 8 + ["c.mkv"] * 8
    assert sorted(os.listdir(folder)) == ["a.mp4", "c.mp4", "keypoints.json"]
