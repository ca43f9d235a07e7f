"""Image files of all kinds: each gives the right RGB pixels, or a one-line error."""

import io
import struct
import time
import zipfile
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kpose.core.errors import InputError
from kpose.data import image_files, image_modes, jpeg_scans
from tests import attack_files, helpers


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


def test_an_image_of_169_million_pixels_is_refused_unread():
    """It took up to 81 s and 3.4 GB."""
    with pytest.raises(InputError, match="big.png: rejected because of its header: 13000 x 13000 pixels, at most 120"):
        image_files.EncodedImage(_png_header(13_000, 13_000), "big.png")


def test_a_jpeg_of_very_many_scans_is_refused_before_it_is_decoded():
    data = attack_files.jpeg_of_scans(2048, 1000)
    start = time.process_time()
    with pytest.raises(InputError, match="a.jpg: rejected: a JPEG of .* bytes that would be decoded in more than 1"):
        image_files.EncodedImage(data, "a.jpg")
    assert time.process_time() - start < 1
    # With few pixels, many scans cost little.
    assert image_files.EncodedImage(attack_files.jpeg_of_scans(64, 300), "a.jpg").pixels().shape == (64, 64, 3)


def test_scans_of_thumbnails_and_of_appended_images_do_not_count():
    data = attack_files.progressive_jpeg()
    count = data.count(b"\xff\xda")
    with_thumbnail = data[:2] + b"\xff\xe1" + (len(data) + 2).to_bytes(2, "big") + data + data[2:]
    for file in (data, data + data, with_thumbnail, data.replace(b"\xff\xda", b"\xff\xff\xda")):
        assert jpeg_scans.more_than(file, count - 1) and not jpeg_scans.more_than(file, count)


def test_compressed_texts_of_a_png_end_in_one_line():
    start = time.process_time()
    with pytest.raises(InputError, match="a.png: cannot be decoded") as error:
        image_files.EncodedImage(attack_files.png_of_texts(300), "a.png").pixels()
    assert time.process_time() - start < 2
    helpers.one_line(error)


def test_transparency_of_a_large_image_is_white_in_every_strip(monkeypatch):
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (37, 20, 4), np.uint8), "RGBA")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    expected = Image.alpha_composite(white, image).convert("RGB")
    monkeypatch.setattr(image_modes, "_STRIP_PIXELS", 100)
    np.testing.assert_array_equal(image_modes.upright_rgb(image), expected)


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


def _exif(value):
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def _chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def test_the_exif_data_of_a_png_turns_it_without_decoding_its_pixels():
    turned = _photo().transpose(Image.Transpose.ROTATE_270)
    data = _encoded(_photo(), "PNG", exif=_exif(6))
    bare = _encoded(_photo(), "PNG")
    end = bare.index(b"IEND") - 4
    behind = bare[:end] + _chunk(b"eXIf", _exif(6).tobytes().removeprefix(b"Exif\0\0")) + bare[end:]
    for encoded in (data, behind):
        image = image_files.EncodedImage(encoded, "a.png")
        image.turn_upright()
        assert (image.width, image.height) == (96, 128)
        np.testing.assert_array_equal(image.pixels(), turned)
    # The pixels are cut off; the orientation is known.
    image = image_files.EncodedImage(data[: data.index(b"IDAT") + 20], "a.png")
    image.turn_upright()
    assert (image.width, image.height) == (96, 128)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "JPEG2000", "GIF"])
def test_transparent_pixels_are_white(kind):
    pixels = np.zeros((20, 30, 4), np.uint8)
    pixels[:, :15] = (200, 30, 40, 255)
    options = {"lossless": True} if kind == "WEBP" else {}
    data = _encoded(Image.fromarray(pixels), kind, **options)
    expected = np.full((20, 30, 3), 255, np.uint8)
    expected[:, :15] = (200, 30, 40)
    assert _difference(image_files.EncodedImage(data, "a").pixels(), expected) < 1


def test_half_transparent_pixels_are_mixed_with_white():
    pixels = np.full((4, 4, 4), (0, 100, 200, 128), np.uint8)
    found = image_files.EncodedImage(_encoded(Image.fromarray(pixels), "PNG"), "a.png").pixels()
    assert np.abs(found.astype(int) - np.round(255 + (np.array([0, 100, 200]) - 255) * 128 / 255)).max() <= 1


@pytest.mark.parametrize("scale", [1.0, 255.0])
def test_float_tiffs_are_scaled(scale):
    levels = np.linspace(0, scale, 64 * 32, dtype=np.float32).reshape(32, 64)
    data = _encoded(Image.fromarray(levels), "TIFF")
    expected = np.repeat(np.round(levels / scale * 255)[..., None], 3, -1)
    assert _difference(image_files.EncodedImage(data, "a.tif").pixels(), expected) == 0


@pytest.mark.parametrize("values", [(0, 300), (-5, 200), (np.nan, np.nan), (0, np.inf)])
def test_float_tiffs_of_another_range_are_refused(values):
    levels = np.resize(np.float32(values), (8, 8))
    with pytest.raises(InputError, match="a.tif: pixels of 32 bits from .* 0 to 1 or 0 to 255") as error:
        image_files.EncodedImage(_encoded(Image.fromarray(levels), "TIFF"), "a.tif").pixels()
    helpers.one_line(error)


@pytest.mark.parametrize(("kind", "type_"), [("PNG", np.uint16), ("TIFF", np.uint16), ("TIFF", np.int32)])
def test_sixteen_bits_of_any_format_keep_their_highest_eight(kind, type_):
    levels = np.linspace(0, 65535, 64 * 32).reshape(32, 64).astype(type_)
    found = image_files.EncodedImage(_encoded(Image.fromarray(levels), kind), "a").pixels()
    np.testing.assert_array_equal(found[..., 1], levels // 256)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "AVIF"])
def test_of_an_animation_the_first_frame_is_used_and_reported(kind):
    first, second = _photo(seed=1), _photo(seed=2)
    data = _encoded(first, kind, save_all=True, append_images=[second])
    image = image_files.EncodedImage(data, "a")
    assert image_files.ANIMATION in image.kinds
    assert _difference(image.pixels(), first) < 12 < _difference(image.pixels(), second)
    assert image_files.ANIMATION not in image_files.EncodedImage(_encoded(first, kind), "a").kinds


def test_a_tiff_is_turned_once():
    data = _encoded(_photo(), "TIFF", exif=_exif(6))
    image = image_files.EncodedImage(data, "a.tif")
    image.turn_upright()
    assert image.pixels().shape == (image.height, image.width, 3) == (128, 96, 3)


@pytest.mark.parametrize("kind", ["EPS", "TGA", "PCX", "ICO"])
def test_only_the_formats_of_the_list_are_decoded(kind, tmp_path):
    data = _encoded(_photo(), kind)
    # Pillow alone would decode it: an EPS by running its program.
    assert Image.open(io.BytesIO(data)).format == kind
    with pytest.raises(InputError, match="a.jpg: not an image, or its format is not known"):
        image_files.EncodedImage(data, "a.jpg")
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as file:
        file.writestr("a.jpg", data)
    with pytest.raises(InputError, match="a.jpg: not an image, or its format is not known"):
        image_files.ImageFolder(str(tmp_path / "images.zip")).open("a.jpg")


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 1}, {"exif": _exif(8)}, {"L": True}]
)
def test_a_jpeg_has_the_same_pixels_by_both_decoders(options):
    options = dict(options)
    photo = _photo(91, 133).convert("L" if options.pop("L", False) else "RGB")
    image = image_files.EncodedImage(_encoded(photo, quality=85, **options), "a.jpg")
    image.turn_upright()
    np.testing.assert_array_equal(image.pixels(), image.decode())


def _damaged(random, data):
    """A file with its end cut off, with changed bytes, with inserted bytes or with zeros at its end."""
    place = int(random.integers(1, len(data)))
    changed = bytearray(data)
    for _ in range(random.integers(1, 8)):
        changed[random.integers(len(changed))] = random.integers(256)
    inserted = data[:place] + random.bytes(50) + data[place:]
    return (data[:place], bytes(changed), inserted, data[:place] + bytes(1000))[random.integers(4)]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "JPEG2000", "MPO"])
def test_a_damaged_file_of_any_format_is_one_line(kind, recwarn):
    random = np.random.default_rng(0)
    options = {"MPO": {"save_all": True, "append_images": [_photo(40, 50)]}, "TIFF": {"compression": "tiff_lzw"}}
    data = _encoded(_photo(40, 50), kind, **options.get(kind, {}))
    refused = 0
    for damaged in (b"", b"\0", *(_damaged(random, data) for _ in range(30))):
        try:
            image = image_files.EncodedImage(damaged, "a.jpg")
            image.turn_upright()
            assert image.pixels().shape == (image.height, image.width, 3)
        except InputError as error:
            refused += 1
            assert str(error).startswith("a.jpg: ") and "\n" not in str(error)
    assert refused >= 5 and not recwarn.list


def test_heic_needs_its_package(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    with pytest.raises(InputError, match="a.heic: HEIC images need the package pillow-heif"):
        image_files.EncodedImage(b"\0\0\0\x18ftypheic" + bytes(40), "a.heic")
    # An AVIF file with the general brand needs no package.
    data = _encoded(_photo(), "AVIF")
    assert image_files.EncodedImage(data.replace(b"ftypavif", b"ftypmif1"), "a").pixels().shape == (96, 128, 3)


def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(image_files, "MAX_BYTES", 1_000_000)
    content = _encoded(_photo()) + bytes(2_000_000)
    (tmp_path / "a.jpg").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "images.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.jpg", content)
    assert (tmp_path / "images.zip").stat().st_size < 100_000
    monkeypatch.setattr(zipfile.ZipFile, "read", None)
    for folder in (tmp_path, tmp_path / "images.zip"):
        with pytest.raises(InputError, match="a.jpg: 0.0 GB, too large for an image"):
            image_files.ImageFolder(str(folder)).open("a.jpg")
