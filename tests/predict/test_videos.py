"""Prediction for videos: reading, writing and results."""

import fractions
import os
import shutil
import sys

import numpy as np
import pytest

from kpose.core.errors import InputError
from kpose.predict import files, videos

FRAMES, RATE = 7, fractions.Fraction(10)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """A video of 7 frames of 64 x 48 pixels, each a little brighter."""
    pytest.importorskip("av", reason="videos need the package av")
    stem = str(tmp_path_factory.mktemp("film") / "film")
    with videos.writing(stem, (64, 48), RATE) as add:
        for number in range(1, FRAMES + 1):
            add(number, np.full((48, 64, 3), 30 * number, np.uint8))
    return f"{stem}.mp4"


def test_every_n_th_frame_has_its_number_and_its_pixels(film):
    with videos.Video(film) as video:
        assert video.rate == RATE and video.length == FRAMES
        frames = list(video.frames(every=3))
    assert [frame.number for frame in frames] == [1, 4, 7]
    assert [frame.time for frame in frames] == pytest.approx([0, 0.3, 0.6])
    for number, _, picture in frames:
        assert picture.shape == (48, 64, 3) and abs(int(picture.mean()) - 30 * number) < 4


def test_frames_are_rotated_as_the_file_says(tmp_path):
    pytest.importorskip("av", reason="videos need the package av")
    path = tmp_path / "upright.mp4"
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:, 32:] = 200
    with videos.writing(str(path.with_suffix("")), (64, 48), RATE) as add:
        add(1, picture)
    # The header of the track holds a rotation matrix: replace the identity by 90 degrees clockwise.
    one, minus_one, last = b"\0\1\0\0", b"\xff\xff\0\0", b"\x40\0\0\0"
    none, right = (one, 0, 0, 0, one, 0, 0, 0, last), (0, one, 0, minus_one, 0, 0, 0, 0, last)
    data = path.read_bytes()
    start = data.index(b"tkhd")
    none, right = (b"".join(number or bytes(4) for number in matrix) for matrix in (none, right))
    path.write_bytes(data[:start] + data[start:].replace(none, right, 1))
    with videos.Video(str(path)) as video:
        turned = next(video.frames()).pixels
    assert turned.shape == (64, 48, 3) and turned[:24].mean() < 20 and turned[-24:].mean() > 180


def test_a_video_that_is_cut_short_ends_there(tmp_path):
    av = pytest.importorskip("av", reason="videos need the package av")
    path = tmp_path / "short.mkv"
    random = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(40):
            frame = av.VideoFrame.from_ndarray(random.integers(0, 256, (48, 64, 3), np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    data = path.read_bytes()
    # The end is missing, and there are zeros in the middle.
    path.write_bytes(data[: len(data) // 2] + bytes(200) + data[len(data) // 2 + 200 : len(data) * 3 // 4])
    with videos.Video(str(path)) as video:
        numbers = [frame.number for frame in video.frames()]
    assert 10 <= len(numbers) < 40 and numbers == list(range(1, len(numbers) + 1))


def test_the_results_of_a_video_are_a_video_and_keypoints_by_frame(model_dir, film, tmp_path, left_half):
    results = files.predict(model_dir, film, output_dir=str(tmp_path), every=2, detector=left_half)
    assert [r["image_id"] for r in results] == [1, 1, 3, 3, 5, 5, 7, 7] and results[0]["file_name"] == film
    assert sorted(os.listdir(tmp_path)) == ["film.mp4", "keypoints.json"]
    with videos.Video(str(tmp_path / "film.mp4")) as overlay:
        assert overlay.rate == RATE / 2
        pictures = [frame.pixels for frame in overlay.frames()]
    assert len(pictures) == 4 and pictures[0].shape == (48, 64, 3)
    assert np.ptp(pictures[0].astype(int), axis=(0, 1)).max() > 50, "something is drawn"


def test_without_an_encoder_the_frames_are_written_as_images(model_dir, film, tmp_path, monkeypatch):
    monkeypatch.setattr(videos, "ENCODERS", {"no_such_encoder": {}})
    files.predict(model_dir, film, output_dir=str(tmp_path), every=3)
    assert sorted(os.listdir(tmp_path / "film")) == ["000001.png", "000004.png", "000007.png"]
    assert not os.path.exists(tmp_path / "film.mp4")


def test_videos_with_odd_sides_can_be_written(tmp_path):
    pytest.importorskip("av", reason="videos need the package av")
    with videos.writing(str(tmp_path / "odd"), (65, 49), RATE) as add:
        add(1, np.zeros((49, 65, 3), np.uint8))
    with videos.Video(str(tmp_path / "odd.mp4")) as video:
        assert next(video.frames()).pixels.shape == (48, 64, 3)


def test_an_error_in_a_video_leaves_no_incomplete_overlay(model_dir, film, tmp_path, left_half):
    seen = []

    def fails_later(image):
        seen.append(image)
        return left_half(image) if len(seen) < 3 else None

    with pytest.raises(InputError, match="must return boxes"):
        files.predict(model_dir, film, output_dir=str(tmp_path), detector=fails_later)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "text",
    [
        "ffconcat version 1.0\nfile film.mp4\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfilm.mp4\n#EXT-X-ENDLIST\n",
    ],
)
def test_a_playlist_with_the_name_of_a_film_does_not_open_other_files(film, tmp_path, text):
    shutil.copy(film, tmp_path / "film.mp4")
    (tmp_path / "list.mp4").write_text(text)
    with pytest.raises(InputError, match="list.mp4: cannot be read as a video"):
        videos.Video(str(tmp_path / "list.mp4"))


def test_bad_videos_are_one_clear_error(model_dir, film, photos, tmp_path, monkeypatch):
    broken = tmp_path / "broken.mp4"
    broken.write_text("no video")
    boxes = tmp_path / "boxes.json"
    boxes.write_text("[]")
    for path, box_file, message in (
        (str(broken), None, "broken.mp4: cannot be read as a video"),
        (film, str(boxes), "--boxes are for images"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            files.predict(model_dir, path, box_file, str(tmp_path / "o"))
        assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match=r"pip install av \(or pip install '.\[video\]' in a checkout\)"):
        files.predict(model_dir, film, output_dir=str(tmp_path / "o"))
