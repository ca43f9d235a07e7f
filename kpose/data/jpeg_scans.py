"""The number of scans of a JPEG (ITU-T T.81, B.1), found in its bytes before it is decoded.

Each scan of a progressive JPEG visits all pixels. A file of some hundred KB that repeats a scan
would keep its decoder busy for minutes.
"""

import re

_SCAN, _END = 0xDA, 0xD9
# A byte of 255 and the code of a marker. Other codes are entropy-coded data or restart markers.
_MARKER = re.compile(rb"\xff([\xc0-\xcf\xd8-\xfe])")


def more_than(data, most):
    """Whether a JPEG has more scans than `most`.

    Args:
        data: bytes of the file. Its thumbnails, and what follows its end marker, do not count.
        most: the number of scans.
    """
    # Entropy-coded data never have these two bytes. Most files need no more than this.
    if data.count(b"\xff\xda") <= most:
        return False
    place, scans = 2, 0
    while (found := _MARKER.search(data, place)) and found[1][0] != _END:
        scans += found[1][0] == _SCAN
        if scans > most:
            return True
        # The length of the segment, in the two bytes behind the marker, includes themselves.
        place = found.end() + max(int.from_bytes(data[found.end() : found.end() + 2], "big"), 2)
    return False
