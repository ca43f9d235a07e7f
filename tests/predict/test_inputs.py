"""Images for prediction: everything that is accepted gives the right pixels, all else is one line."""

import contextlib
import http.server
import io
import pathlib
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kpose.core.errors import InputError
from kpose.predict import downloads, inputs
from tests import helpers

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)


def png(pixels=PIXELS, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", **options)
    return buffer.getvalue()


def turned():
    """EXIF data: turn by 90 degrees clockwise."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def read_all(images, **arguments):
    sources, single = inputs.gather(images, **arguments)
    return [source.read().pixels for source in sources], single


@pytest.fixture
def folder(tmp_path):
    """A folder with images of many names, other files and a folder inside."""
    below = tmp_path / "images" / "more"
    below.mkdir(parents=True)
    for name in ("b.PNG", "a.tif", "c.webp", "d.gif", "more/e.jp2", "more/f.png"):
        kind = {"tif": "TIFF", "webp": "WEBP", "gif": "GIF", "jp2": "JPEG2000"}.get(name[-3:].strip("."), "PNG")
        kind = "WEBP" if name.endswith("webp") else kind
        Image.fromarray(PIXELS).save(tmp_path / "images" / name, kind)
    (tmp_path / "images" / "notes.txt").write_text("no image")
    (tmp_path / "images" / "._b.png").write_text("no image")
    return tmp_path / "images"


def test_one_image_of_any_kind_has_its_pixels(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png())
    with open(path, "rb") as file:
        for image in (str(path), path, png(), bytearray(png()), memoryview(png()), file, io.BytesIO(png()), PIXELS):
            (pixels,), single = read_all(image)
            assert single
            np.testing.assert_array_equal(pixels, PIXELS)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "PA", "1", "CMYK", "YCbCr", "HSV", "I", "I;16", "F"])
def test_pil_images_of_any_mode(mode):
    if mode == "I;16":
        picture = Image.fromarray(np.arange(108, dtype=np.uint16).reshape(9, 12) * 600)
        expected = np.asarray(picture)[..., None] // 256
    elif mode == "I":
        picture = Image.fromarray(np.arange(108, dtype=np.int32).reshape(9, 12) * 600)
        expected = np.asarray(picture)[..., None] // 256
    elif mode == "LA":
        picture = Image.fromarray(PIXELS).convert("L").convert("LA")
        expected = np.asarray(Image.fromarray(PIXELS).convert("L"))[..., None]
    elif mode == "PA":
        picture = Image.fromarray(PIXELS).quantize().convert("PA")
        expected = np.asarray(Image.fromarray(PIXELS).quantize().convert("RGB"))
    else:
        picture = Image.fromarray(PIXELS).convert(mode)
        expected = np.asarray(picture.convert("RGB"))
    (pixels,), _ = read_all(picture)
    assert np.abs(pixels.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_the_exif_orientation_turns_files_bytes_and_pil_images_alike(kind):
    buffer = io.BytesIO()
    picture = Image.fromarray(PIXELS.repeat(8, 0).repeat(8, 1))
    picture.save(buffer, kind, exif=turned(), **({"lossless": True} if kind == "WEBP" else {"quality": 100}))
    expected = np.asarray(picture.transpose(Image.Transpose.ROTATE_270)).astype(int)
    for image in (buffer.getvalue(), Image.open(io.BytesIO(buffer.getvalue()))):
        (pixels,), _ = read_all(image)
        assert pixels.shape == expected.shape and np.abs(pixels - expected).mean() < 15
    stored = inputs.gather(buffer.getvalue())[0][0].read(upright=False).pixels
    assert stored.shape == (expected.shape if kind == "TIFF" else (72, 96, 3))


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([None, 1, 3, 4]), st.sampled_from([None, 1, 255]))
def test_arrays_of_any_shape(height, width, channels, float_max):
    random = np.random.default_rng(height * 100 + width)
    shape = (height, width) if channels is None else (height, width, channels)
    levels = random.integers(0, 256, shape).astype(np.uint8)
    given_ = levels if float_max is None else levels.astype(np.float32) * (float_max / 255)
    (pixels,), single = read_all(given_, float_max=float_max)
    assert single and pixels.dtype == np.uint8 and pixels.shape == (height, width, 3)
    if channels == 4:
        alpha = levels[..., 3:] / 255
        expected = levels[..., :3] * alpha + 255 * (1 - alpha)
    else:
        expected = np.broadcast_to(levels.reshape(height, width, -1), pixels.shape)
    assert np.abs(pixels - expected).max() <= (1 if channels == 4 else 0)


def test_several_images_are_a_list_of_any_kinds_or_a_batch(tmp_path, folder):
    path = tmp_path / "a.png"
    path.write_bytes(png())
    for images in ([path, PIXELS, png()], iter([path, str(path)]), np.stack([PIXELS] * 2), tmp_path.glob("a.*")):
        found, single = read_all(images)
        assert not single and all((pixels == PIXELS).all() for pixels in found)
    assert read_all([]) == ([], False)
    assert len(read_all([folder, np.stack([PIXELS] * 2)])[0]) == 6


def test_a_folder_has_all_formats_and_a_glob_is_recursive(folder):
    def names(path):
        sources, single = inputs.gather(path)
        assert not single
        return [pathlib.Path(source.path).name for source in sources]

    assert names(folder) == ["a.tif", "b.PNG", "c.webp", "d.gif"]
    assert names(str(folder / "**")) == ["a.tif", "b.PNG", "c.webp", "d.gif", "e.jp2", "f.png"]
    assert names(folder / "**" / "*.png") == ["f.png"]
    assert names(folder / "*.txt") == ["notes.txt"]
    assert len(read_all(folder / "**")[0]) == 6


def test_a_file_with_the_signs_of_a_glob_is_a_file(tmp_path):
    path = tmp_path / "a[1].png"
    path.write_bytes(png())
    assert read_all(path)[1]


def test_earlier_overlays_are_left_out_of_a_search_that_begins_outside(folder):
    found = inputs.find_files(str(folder / "**"), (".png", ".jp2"), apart=str(folder / "more"))
    assert [pathlib.Path(path).name for path in found] == ["b.PNG"]
    assert len(inputs.find_files(str(folder / "more" / "*"), (".png", ".jp2"), apart=str(folder / "more"))) == 2


BAD = {
    "float array": (np.zeros((4, 5)), r"the image is float64 \[4, 5\]: say float_max=1 or float_max=255"),
    "sixteen bits": (np.zeros((4, 5), np.uint16), r"uint16 \[4, 5\]: give uint8"),
    "booleans": (np.zeros((4, 5), bool), r"bool \[4, 5\]: give uint8"),
    "channels first": (np.zeros((3, 40, 50), np.uint8), r"\[3, 40, 50\]: the channels must be the last dimension"),
    "five channels": (np.zeros((40, 50, 5), np.uint8), r"uint8 \[40, 50, 5\]: give a path"),
    "a row": (np.zeros(5, np.uint8), r"uint8 \[5\]: give a path"),
    "no pixels": (np.zeros((0, 5, 3), np.uint8), "it has no pixels"),
    "number": (3, "the image has the type int: give a path"),
    "None": (None, "the image has the type NoneType: give a path"),
    "dict": ({"image": 1}, "the image has the type dict: give a path"),
    "nested list": ([[1, 2], [3, 4]], "image 1 has the type list: give a path"),
    "none.jpg": ("none.jpg", "none.jpg: no such image file"),
    "no path": ("", "the path of the image is empty"),
    "other URL": ("ftp://host/a.jpg", "ftp://host/a.jpg: cannot be read"),
    "glob": ("none*.jpg", r"none\*.jpg: no such file or folder"),
    "empty bytes": (b"", "the image: not an image: the file is empty"),
    "text": (b"hello", "the image: not an image"),
    "text file": (io.StringIO("hello"), "a file of text: open it in the mode 'rb'"),
    "objects": (np.array([[None, None]]), "object"),
}


@pytest.mark.parametrize("kind", BAD)
def test_all_else_is_one_line_that_says_what_was_received(kind):
    images, message = BAD[kind]
    with pytest.raises(InputError, match=message) as error:
        read_all(images)
    helpers.one_line(error)


@pytest.mark.parametrize(
    ("array", "float_max"), [([[0.0, 2.0]], 1), ([[-1.0, 0.5]], 1), ([[np.nan, 1]], 255), ([[0, 300.0]], 255)]
)
def test_floats_outside_their_range_are_refused(array, float_max):
    with pytest.raises(InputError, match=f"float_max={float_max} allows"):
        read_all(np.array(array), float_max=float_max)


def test_images_are_read_ahead_in_order_and_errors_come_with_their_image():
    reading = []

    def read(number):
        reading.append(number)
        if number % 3 == 0:
            raise InputError(f"bad {number}")
        return number * 10

    for number, image, error in inputs.read_ahead(list(range(1, 10)), read):
        assert (image, str(error)) == ((None, f"bad {number}") if number % 3 == 0 else (number * 10, "None"))
        assert max(reading) <= number + inputs.AHEAD
    assert reading == list(range(1, 10))


LENGTHS = {"/digits": 10**30, "/many_digits": "9" * 6000, "/no_number": -5}


class Server(http.server.BaseHTTPRequestHandler):
    """Answers /image.png, /long (more bytes than allowed), /cut (fewer than said) and /slow."""

    def do_GET(self):
        if self.path.startswith("/image.png"):
            self._answer(png())
        elif self.path == "/redirect":
            self.send_response(302)
            self.send_header("Location", "/image.png")
            self.end_headers()
        elif self.path == "/to_file":
            self.send_response(302)
            self.send_header("Location", "file:///etc/hostname")
            self.end_headers()
        elif self.path in LENGTHS:
            self._answer(b"", length=LENGTHS[self.path])
        elif self.path.startswith("/drips"):
            header = b"HTTP/1.1 200 OK\r\n"
            chunked = header + b"Transfer-Encoding: chunked\r\n\r\n"
            self._drip({"/drips": header + b"\r\n", "/drips_header": header, "/drips_chunk": chunked}[self.path])
        elif self.path == "/long":
            self._answer(bytes(3000), length=None)
        elif self.path == "/said":
            self._answer(b"", length=10**12)
        elif self.path == "/cut":
            self._answer(png(), length=1_500)
        elif self.path == "/slow":
            self.server.ended.wait(20)
        else:
            self.send_error(404)

    def _drip(self, data):
        """Sends a beginning, and then one byte after the other."""
        with contextlib.suppress(OSError):
            self.wfile.write(data)
            while not self.server.ended.wait(0.05):
                self.wfile.write(b"1")

    def _answer(self, data, length=0):
        self.send_response(200)
        if length is not None:
            self.send_header("Content-Length", str(length or len(data)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        running.ended = threading.Event()
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.ended.set()
        running.shutdown()


@pytest.mark.parametrize("path", ["/image.png", "/image.png?size=3", "/redirect"])
def test_an_image_at_a_url(server, path):
    (pixels,), single = read_all(server + path)
    assert single
    np.testing.assert_array_equal(pixels, PIXELS)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/none.jpg", "/none.jpg: the server answers 404"),
        ("/long", "/long: cannot be downloaded .larger than"),
        ("/said", "/said: cannot be downloaded .larger than"),
        ("/cut", r"/cut: cannot be downloaded \(it ended early, after"),
        ("/digits", "larger than"),
        ("/many_digits", "larger than"),
        ("/no_number", "it has the Content-Length '-5'"),
        ("/slow", r"/slow: cannot be downloaded \(.*timed out"),
    ],
)
def test_a_download_that_fails_is_one_line(server, path, message, monkeypatch):
    monkeypatch.setattr(downloads, "MAX_BYTES", 2000)
    monkeypatch.setattr(downloads, "TIMEOUT", 0.3)
    with pytest.raises(InputError, match=message) as error:
        read_all(server + path)
    helpers.one_line(error)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/drips", "slower than 1000 bytes per second"),
        ("/drips_header", "not complete after 0.8 seconds"),
        ("/drips_chunk", "not complete after 0.8 seconds"),
    ],
)
def test_a_server_that_drips_bytes_does_not_hold_up_a_prediction(server, path, message, monkeypatch):
    monkeypatch.setattr(downloads, "SLOW_AFTER", 0.4)
    monkeypatch.setattr(downloads, "MAX_SECONDS", 0.8)
    with pytest.raises(InputError, match=message) as error:
        read_all(server + path)
    helpers.one_line(error)


def test_a_redirect_does_not_lead_to_a_file(server):
    with pytest.raises(InputError, match="/to_file: "):
        read_all(server + "/to_file")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/a.jpg", "http://", "http://[", "https://no host/a.jpg"])
def test_a_url_without_a_server_is_one_line(url):
    with pytest.raises(InputError, match="cannot be downloaded") as error:
        read_all(url)
    helpers.one_line(error)


@pytest.mark.parametrize(
    ("path", "number"),
    [("val/000000000139.jpg", 139), ("IMG_2041.HEIC", 2041), ("photo.jp2", None), ("http://a/b/c7.png?x=1", 7)],
)
def test_the_number_of_a_file(path, number):
    assert inputs.number_of_file(path) == number


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a/b.jpg", "b.jpg"),
        ("http://host/a/b%20c.jpg?size=3#top", "b c.jpg"),
        ("http://host/%00%2F..%2Fx%3A.jpg", "x_.jpg"),
        ("https://host/", "host"),
        ("http://[", "_"),
    ],
)
def test_the_name_of_a_url_is_that_of_a_file(path, name):
    assert inputs.name_of_file(path) == name
