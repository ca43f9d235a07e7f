"""The work of a request is bounded by its bytes: files and boxes that announce much more work."""

import time

import numpy as np
import pytest
import tensorflow as tf

from kpose.core import limits
from kpose.data import resampling
from kpose.export import image_work
from tests import attack_files
from tests.export.test_requests import _ask

BOX = [5.0, 4.0, 30.0, 40.0]


@pytest.fixture(scope="module")
def model(exported):
    return exported


def _cpu_seconds(ask):
    start = time.process_time()
    ask()
    return time.process_time() - start


@pytest.mark.parametrize("signature", ["serving_default", "serving_people"])
def test_a_jpeg_of_a_thousand_scans_is_refused_before_it_is_decoded(model, signature):
    """It took 4 to 256 s of CPU time, by its number of pixels."""
    good, bad = attack_files.progressive_jpeg(2048), attack_files.jpeg_of_scans(2048, 1000)
    _ask(model, [good], [BOX], signature)
    normal = _cpu_seconds(lambda: _ask(model, [good], [BOX], signature))

    def ask():
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"image_bytes item\] \[0\] \[announces more pixels"):
            _ask(model, [bad], [BOX], signature)

    assert _cpu_seconds(ask) < 20 * normal + 0.5


@pytest.mark.parametrize("signature", ["serving_default", "serving_people"])
def test_compressed_texts_of_a_png_are_not_unpacked(model, signature):
    """300 texts took 9 to 69 s of CPU time and up to 3.1 GB."""
    plain = attack_files.png()
    expected = _ask(model, [plain], [BOX], signature)
    bad = attack_files.png_of_texts(300)
    answer = []
    seconds = _cpu_seconds(lambda: answer.append(_ask(model, [bad], [BOX], signature)))
    for one, other in zip(answer[0], expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert seconds < 2


@pytest.mark.parametrize("signature", ["serving_default", "serving_people"])
def test_a_box_a_million_pixels_wide_costs_what_its_image_costs(model, signature):
    """It took up to 6.5 s of CPU time."""
    image = attack_files.png(5000, 4000)
    _ask(model, [image], [[0, 0, 5000, 4000]], signature)
    normal = _cpu_seconds(lambda: _ask(model, [image], [[0, 0, 5000, 4000]], signature))
    for box in ([0, 0, 1e6, 1e6], [-5e5, -5e5, 1e6, 1e6], [0, 0, 1e6, 10], [0, 0, 10, 1e6]):
        assert _cpu_seconds(lambda box=box: _ask(model, [image], [box], signature)) < 5 * normal + 0.5, box


def test_many_small_files_that_announce_many_pixels_are_refused_together(model):
    # Each is served alone. Its pixels are missing: 100 bytes would cost 0.3 s.
    image = attack_files.png(7000, 7000, rows=1)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"image_bytes item\] \[5\] \[announces more pixels"):
        _ask(model, [image] * 40, [BOX] * 40)


def test_boxes_that_cover_a_large_image_often_are_refused(model):
    image = attack_files.png(5000, 4000)
    most = (limits.WORK + limits.WORK_PER_BYTE * len(image)) // (5000 * 4000)
    with pytest.raises(tf.errors.InvalidArgumentError, match=rf"boxes item\] \[{most}\] \[and those before it cover"):
        _ask(model, [image], [[0, 0, 5000, 4000]] * 200, "serving_people")
    # Small boxes in a wide image took 0.1 s each.
    wide = attack_files.png(20_000, 2000)
    _ask(model, [wide], [BOX], "serving_people")
    normal = _cpu_seconds(lambda: _ask(model, [wide], [BOX], "serving_people"))
    assert _cpu_seconds(lambda: _ask(model, [wide], [[100, 0, 9, 2000]] * 100, "serving_people")) < 3 * normal + 1.5
    with pytest.raises(tf.errors.InvalidArgumentError, match="more boxes than are served"):
        _ask(model, [image], [BOX] * (limits.MAX_BOXES + 1), "serving_people")


def test_an_ordinary_progressive_jpeg_is_served(model):
    data = attack_files.progressive_jpeg(2048)
    assert np.isfinite(_ask(model, [data] * 5, [BOX] * 5)[0]).all()


def _scans(data):
    return int(image_work.scans_of_jpegs(tf.constant([data]), tf.constant([0], tf.int64))[0])


def test_scans_are_counted_as_the_decoder_reads_them():
    data = attack_files.progressive_jpeg()
    count = data.count(b"\xff\xda")
    assert count > 5 and _scans(data) == count
    # What follows the end marker, thumbnails and comments are no scans; padding before a marker is.
    assert _scans(data + data) == count
    thumbnail = b"\xff\xe1" + (len(data) + 2).to_bytes(2, "big") + data
    assert _scans(data[:2] + thumbnail + data[2:]) == count
    assert _scans(data.replace(b"\xff\xda", b"\xff\xff\xff\xda")) == count
    assert _scans(data + b"\xff\xda" * 9) == count
    for length in range(0, len(data), 37):
        assert 0 <= _scans(data[:length]) <= count


def test_the_scans_of_each_file_are_its_own():
    data, other = attack_files.progressive_jpeg(), attack_files.jpeg_of_scans(64, 300)
    thumbnail = b"\xff\xe1" + (len(data) + 2).to_bytes(2, "big") + data
    files = [data[:2] + thumbnail + data[2:], b"", other, data, other[:-2]]
    alone = [_scans(file) for file in files]
    found = image_work.scans_of_jpegs(tf.constant(files), tf.zeros(len(files), tf.int64))
    np.testing.assert_array_equal(found, alone)
    assert alone[1] == 0 < alone[0] == alone[3] < 300 <= alone[2]
    # An upper bound is enough for the first, and the exact number for one with many.
    bound = image_work.scans_of_jpegs(tf.constant(files), tf.fill(len(files), tf.constant(200, tf.int64)))
    np.testing.assert_array_equal(bound, [2 * alone[0], 0, alone[2], alone[3], alone[4]])


def test_chunks_that_do_not_change_the_pixels_are_left_out():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 50, 3), np.uint8)
    plain = tf.io.encode_png(pixels).numpy()
    start = plain.index(b"IDAT") - 4
    texts = [attack_files.chunk(name, rng.bytes(50)) for name in (b"tEXt", b"iTXt", b"zTXt", b"iCCP", b"vpAg")]
    data = plain[:start] + b"".join(texts) + plain[start:]
    cleaned = image_work.without_other_chunks(tf.constant(data)).numpy()
    np.testing.assert_array_equal(tf.io.decode_png(cleaned), pixels)
    assert len(cleaned) <= len(plain) and not any(name in cleaned for name in (b"tEXt", b"iTXt", b"zTXt", b"vpAg"))
    # Without compressed chunks, the file stays as it is.
    assert image_work.without_other_chunks(tf.constant(plain)).numpy() == plain
    for length in range(8, len(data), 211):
        part = image_work.without_other_chunks(tf.constant(data[:length])).numpy()
        assert part == data[:length] or cleaned.startswith(part)


def test_a_region_far_larger_than_its_image_gives_the_same_samples():
    rng = np.random.default_rng(0)
    for _ in range(30):
        image = rng.integers(0, 256, (*rng.integers(1, 40, 2), 3), np.uint8)
        length = 10 ** rng.uniform(1, 5, 2)
        region = np.float32([*(-length * rng.uniform(-0.2, 1.2, 2)), *length])
        scale = np.float32((24, 16)) / region[:1:-1]
        whole = resampling._sample_pixels(image[None], (24, 16), scale, -scale * region[1::-1])[0]
        found = resampling.crop_image(tf.constant(image), tf.constant(region), (24, 16))
        assert abs(np.int32(found) - np.int32(whole)).max() <= 1
