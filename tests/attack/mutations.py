"""Damaged copies of valid bytes and of valid JSON."""

import json

# Numbers that programs do not expect.
NUMBERS = (0, -1, 1, 255, 2**31, 2**63, -(2**63), 10**30, 0.5, -1e30, 1e308, float("nan"), float("inf"))
VALUES = (*NUMBERS, None, True, "", "x", "../../etc/passwd", "/dev/zero", "\0", [], {}, [[]], {"a": None}, "9" * 50)


def of_bytes(rng, data, most=4):
    """Returns bytes, changed in up to `most` places: overwritten, removed, repeated, cut, bits flipped.

    Args:
        rng: `np.random.Generator`.
        data: the valid bytes.
        most: number of changes.
    """
    data = bytearray(data)
    for _ in range(rng.integers(1, most + 1)):
        if not data:
            break
        # Headers are small, and hold what decides.
        end = len(data) if rng.random() < 0.5 else min(len(data), 512)
        start, length = int(rng.integers(end)), int(rng.integers(1, 40))
        kind = rng.integers(7)
        if kind == 0:
            data[start : start + length] = rng.bytes(min(length, len(data) - start))
        elif kind == 1:
            del data[start : start + length]
        elif kind == 2:
            data[start:start] = data[start : start + length] * int(rng.integers(1, 50))
        elif kind == 3:
            del data[start:]
        elif kind == 4:
            data[start : start + 4] = bytes([[0, 255, 127, 128][rng.integers(4)]]) * 4
        else:
            data[start] ^= 1 << int(rng.integers(8))
    return bytes(data)


def of_json(rng, data, most=4):
    """Returns JSON text (bytes) of data, with values replaced, removed, repeated or nested.

    Args:
        rng: `np.random.Generator`.
        data: what `json.loads` returned; it is not changed.
        most: number of changes.
    """
    data = json.loads(json.dumps(data))
    for _ in range(rng.integers(1, most + 1)):
        holders = [holder for holder in _holders(data) if holder]
        if not holders:
            break
        # Lists of keypoints have most of the values: each dict and list has the same chance.
        holder = holders[rng.integers(len(holders))]
        key = _keys(holder)[rng.integers(len(holder))]
        kind = rng.integers(5)
        if kind <= 1:
            holder[key] = VALUES[rng.integers(len(VALUES))]
        elif kind == 2:
            del holder[key]
        elif kind == 3 and isinstance(holder, list):
            holder.extend([holder[key]] * int(rng.integers(1, 20)))
        else:
            for _ in range(int(rng.integers(1, 60))):
                holder[key] = [holder[key]]
    text = json.dumps(data).encode()
    return of_bytes(rng, text, 2) if rng.random() < 0.3 else text


def _holders(data):
    """The dicts and lists of JSON data, with those inside them."""
    found, todo = [], [data]
    while todo:
        one = todo.pop()
        if isinstance(one, dict | list):
            found.append(one)
            todo += one.values() if isinstance(one, dict) else one
    return found


def _keys(holder):
    return list(holder) if isinstance(holder, dict) else list(range(len(holder)))
