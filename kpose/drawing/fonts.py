"""Fonts for texts in pictures."""

import functools

from PIL import ImageFont

# Fonts with Chinese, Japanese and Korean signs, as systems name their files. The font of Pillow
# lacks these signs.
CANDIDATES = (
    "NotoSansCJK-Regular.ttc",
    "NotoSansCJKsc-Regular.otf",
    "wqy-microhei.ttc",
    "wqy-zenhei.ttc",
    "DroidSansFallbackFull.ttf",
    "PingFang.ttc",
    "msyh.ttc",
    "Arial Unicode.ttf",
    "DejaVuSans.ttf",
)
# The font of Pillow has the signs of European languages, up to this code.
_LAST_COVERED = 0x24F


def font_for(text, size):
    """A font of a size for a text: that of Pillow, or one of the system for signs that it lacks.

    If the system has no such font, the missing signs are drawn as boxes.

    Args:
        text: the text.
        size: in pixels.
    """
    other = max(map(ord, text), default=0) > _LAST_COVERED
    return (_of_system(size) if other else None) or ImageFont.load_default(size)


@functools.lru_cache(maxsize=32)
def _of_system(size):
    for name in CANDIDATES:
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return None
