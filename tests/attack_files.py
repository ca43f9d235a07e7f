"""Small files that announce much work or memory, made by code."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

PNG_START = b"\x89PNG\r\n\x1a\n"


def chunk(name, content):
    """Returns a chunk of a PNG."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width=8, height=8, extra=b"", rows=None):
    """Returns a black PNG, with further chunks before its pixels; the pixels may be too few."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress((b"\0" * (1 + 3 * width)) * (height if rows is None else rows), 9)
    return PNG_START + chunk(b"IHDR", header) + extra + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def png_of_texts(count=300, size=7_000_000):
    """Returns a PNG of 8 x 8 pixels with compressed texts: 7 KB become 7 MB, each time."""
    return png(extra=chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b" " * size, 9)) * count)


def progressive_jpeg(side=64, **options):
    """Returns a progressive JPEG of random colours."""
    colours = np.random.default_rng(0).integers(0, 256, (side // 32, side // 32, 3), np.uint8)
    buffer = io.BytesIO()
    image = Image.fromarray(colours.repeat(32, 0).repeat(32, 1))
    image.save(buffer, "JPEG", progressive=True, quality=50, **options)
    return buffer.getvalue()


def jpeg_of_scans(side=2048, times=1000):
    """Returns a progressive JPEG whose last scan is repeated."""
    data = progressive_jpeg(side)
    scan = data.rindex(b"\xff\xda")
    table = data.rindex(b"\xff\xc4", 0, scan)
    return data[:-2] + data[table:-2] * times + b"\xff\xd9"
