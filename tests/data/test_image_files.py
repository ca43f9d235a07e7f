"""Image files of all kinds: each gives the right RGB pixels, or a one-line error."""

import io
import struct
import zipfile
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kpose.core.errors import InputError
from kpose.data import image_files
from tests import helpers


def _photo(height=96, width=128, seed=0):
    """A smooth colour image, which JPEG changes little."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def _encoded(image, kind="JPEG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _difference(image, expected):
    return np.abs(np.asarray(image, int) - np.asarray(expected, int)).mean()


KINDS = {
    "grey-scale": (lambda: _encoded(_photo().convert("L"), quality=95), {"grey-scale"}),
    "CMYK": (lambda: _encoded(_photo().convert("CMYK"), quality=95), {"CMYK"}),
    "PNG": (lambda: _encoded(_photo(), "PNG"), {"PNG format"}),
    "palette": (lambda: _encoded(_photo().quantize(256), "PNG"), {"PNG format", "palette"}),
    "alpha": (lambda: _encoded(_photo().convert("RGBA"), "PNG"), {"PNG format", "alpha"}),
    "progressive": (lambda: _encoded(_photo(), quality=95, progressive=True), set()),
    "GIF": (lambda: _encoded(_photo().quantize(256), "GIF"), {"GIF format", "palette"}),
    "WebP": (lambda: _encoded(_photo(), "WEBP", quality=95), {"WEBP format"}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_any_kind_becomes_rgb_and_is_reported(kind):
    make, reported = KINDS[kind]
    image = image_files.EncodedImage(make(), "photo.jpg")
    picture = image.decode()
    expected = _photo().convert("L").convert("RGB") if kind == "grey-scale" else _photo()
    assert picture.mode == "RGB" and picture.size == (128, 96) == (image.width, image.height)
    assert _difference(picture, expected) < 9
    assert image.kinds == reported


def test_of_sixteen_bits_the_highest_eight_are_kept():
    levels = np.linspace(0, 65535, 64 * 32).reshape(32, 64).astype(np.uint16)
    picture = image_files.EncodedImage(_encoded(Image.fromarray(levels), "PNG"), "deep.png").decode()
    assert _difference(picture, np.repeat((levels // 256)[..., None], 3, -1)) < 1


def _turned(orientation, image):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return _encoded(image, quality=95, exif=exif)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_labels_decide_whether_exif_turns_the_image(orientation):
    data = _turned(orientation, _photo())
    stored, turned, neither = (image_files.EncodedImage(data, "a.jpg") for _ in range(3))
    assert stored.fit(128, 96) and stored.decode().size == (128, 96)
    assert _difference(stored.decode(), _photo()) < 4
    assert turned.fit(96, 128) and (turned.width, turned.height) == turned.decode().size == (96, 128)
    ways = {5: "TRANSPOSE", 6: "ROTATE_270", 7: "TRANSVERSE", 8: "ROTATE_90"}
    assert _difference(turned.decode(), _photo().transpose(Image.Transpose[ways[orientation]])) < 4
    assert any("EXIF" in kind for kind in turned.kinds) and any("EXIF" in kind for kind in stored.kinds)
    assert not neither.fit(100, 100)


def test_an_upside_down_image_is_read_as_stored():
    """The size is the same before and after turning; labels of COCO are for the stored pixels."""
    image = image_files.EncodedImage(_turned(3, _photo()), "a.jpg")
    assert image.fit(128, 96)
    assert _difference(image.decode(), _photo()) < 4


@settings(max_examples=40, deadline=None)
@given(st.integers(8, 300), st.integers(8, 200), st.floats(-5, 320), st.floats(1, 9))
def test_the_scale_of_decoding_is_at_most_the_one_asked_for(height, width, bottom, shrink):
    data = _encoded(_photo(height, width), quality=80)
    image = image_files.EncodedImage(data, "a.jpg").decode(bottom=bottom, shrink=shrink)
    scales = [scale for scale in (1, 2, 4, 8) if image.size == (-(-width // scale), -(-height // scale))]
    assert scales and min(scales) <= shrink


def test_rows_that_are_not_needed_do_not_prevent_a_smaller_scale():
    """99 rows cannot be halved. Row 20 needs 64 rows, which can."""
    data = _encoded(_photo(99, 128), quality=80)
    assert image_files.EncodedImage(data, "a.jpg").decode(shrink=2).size == (128, 99)
    assert image_files.EncodedImage(data, "a.jpg").decode(bottom=20, shrink=2).size == (64, 50)


def test_a_file_that_is_cut_short_is_one_line():
    data = _encoded(_photo(2000, 100), quality=80)
    for bottom in (None, 300):
        with pytest.raises(InputError, match="a.jpg: cannot be decoded") as error:
            image_files.EncodedImage(data[: len(data) // 2], "a.jpg").decode(bottom=bottom)
        helpers.one_line(error)


@pytest.mark.parametrize("options", [{"progressive": True}, {"restart_marker_blocks": 3}])
def test_other_jpegs_are_decoded_as_well(options):
    photo = _photo(300, 80)
    assert _difference(image_files.EncodedImage(_encoded(photo, quality=95, **options), "a.jpg").decode(), photo) < 4


def test_much_larger_images_are_shrunk_while_decoding():
    photo = _photo(1600, 2400)
    image = image_files.EncodedImage(_encoded(photo, quality=95), "a.jpg")
    shrunk = image.decode(shrink=4.7)
    assert shrunk.size == (600, 400)
    assert _difference(shrunk, photo.resize((600, 400), Image.Resampling.BOX)) < 2
    assert image_files.EncodedImage(_encoded(photo, quality=95), "a.jpg").decode(shrink=1.9).size == (2400, 1600)


def _png_header(width, height):
    """A PNG with this size in its header, and without pixels."""
    chunks = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT"
    framed = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def test_a_decompression_bomb_is_refused_by_its_header():
    with pytest.raises(InputError, match="bomb.png: rejected because of its header.*3600000000 pixels") as error:
        image_files.EncodedImage(_png_header(60_000, 60_000), "bomb.png")
    helpers.one_line(error)


def test_a_long_image_and_the_smallest_one():
    line = Image.fromarray(np.full((3, 20_000, 3), 200, np.uint8))
    assert image_files.EncodedImage(_encoded(line, quality=95), "line.jpg").decode().size == (20_000, 3)
    dot = Image.new("RGB", (1, 1), (10, 200, 30))
    assert _difference(image_files.EncodedImage(_encoded(dot, "PNG"), "dot.png").decode(), dot) == 0


@pytest.mark.parametrize("data", [b"", b"<html>", b"\xff\xd8\xff", b"GIF89a", _png_header(10, 10)])
def test_a_file_that_is_not_an_image_is_one_line(data):
    with pytest.raises(InputError, match="^bad.jpg: ") as error:
        image_files.EncodedImage(data, "bad.jpg").decode()
    helpers.one_line(error)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_bytes_raise_at_most_an_input_error(data):
    encoded = bytearray(_encoded(_photo(40, 50), quality=60))
    for _ in range(data.draw(st.integers(1, 6))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert image_files.EncodedImage(bytes(encoded), "a.jpg").decode(bottom=20).mode == "RGB"
    except InputError as error:
        assert str(error).startswith("a.jpg: ")


def test_sizes_are_read_from_headers_in_a_folder_and_in_a_zip_file(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    data = _encoded(_photo(480, 640))
    (folder / "whole.jpg").write_bytes(data)
    # It has a header but no pixels.
    (folder / "cut.jpg").write_bytes(data[:700])
    (folder / "text.jpg").write_text("not an image")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, f"images/{path.name}")
    for source in (folder, tmp_path / "photos.zip"):
        images = image_files.ImageFolder(str(source))
        assert images.size("whole.jpg") == images.size("cut.jpg") == (640, 480)
        with pytest.raises(InputError, match="cannot be decoded"):
            images.open("cut.jpg").decode()
        assert "whole.jpg" in images and "none.jpg" not in images
        with pytest.raises(InputError, match="text.jpg: not an image"):
            images.size("text.jpg")
        with pytest.raises(InputError, match="none.jpg: no such image"):
            images.size("none.jpg")


def test_a_name_in_two_folders_of_a_zip_file_is_an_error(tmp_path):
    """The published lsp_dataset.zip has each image twice, once with its skeleton drawn on it."""
    with zipfile.ZipFile(tmp_path / "lsp.zip", "w") as archive:
        for name in ("images/im0001.jpg", "images/im0002.jpg", "visualized/im0001.jpg"):
            archive.writestr(name, _encoded(_photo()))
    images = image_files.ImageFolder(str(tmp_path / "lsp.zip"))
    assert images.size("im0002.jpg") == images.size("visualized/im0001.jpg") == (128, 96)
    for read in (images.size, images.open):
        with pytest.raises(InputError, match="lsp.zip/im0001.jpg: several folders") as error:
            read("im0001.jpg")
        helpers.one_line(error)
