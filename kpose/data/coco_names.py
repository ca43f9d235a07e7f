"""File names of other tools and systems: compared from the end, part by part."""

import collections
import posixpath
import urllib.parse

from kpose.core.errors import InputError
from kpose.data import coco_values


def match_by_name(names, wanted):
    """The one of some file names that is meant by another, whatever folders both have in front.

    Args:
        names: iterable of (file name, value).
        wanted: a file name.

    Returns:
        The values whose names share the most parts of the path with it, counted from the end; []
        if no name has the same last part.
    """
    parts, best, found = parts_of(wanted), 0, []
    for name, value in names:
        shared = 0
        for one, other in zip(reversed(parts_of(name)), reversed(parts), strict=False):
            if one != other:
                break
            shared += 1
        if shared > best:
            best, found = shared, []
        if shared and shared == best:
            found.append(value)
    return found


class NamedFiles:
    """Files by the last part of their names, for many calls of `match_by_name`.

    Args:
        pairs: iterable of (file name, value).
    """

    def __init__(self, pairs):
        self._by_base = collections.defaultdict(list)
        for name, value in pairs:
            self._by_base[base_name(name)].append((name, value))

    def match(self, wanted):
        """The values that `match_by_name` finds among all files."""
        return match_by_name(self._by_base.get(base_name(wanted), ()), wanted)


def match_images(labels, rows, names):
    """The `coco_files.Image.id` of each row of results.

    A row that names a file belongs to the image of this name. If several images have it, the one
    with the row's image id is meant. A row without a file name, and one whose name no image has
    although its image has no name, belongs to the image with its id.

    Args:
        labels: `coco_files.Labels`.
        rows, names: from `coco_files.read_results`.

    Returns:
        List of ids; None for a row whose image is not in the labels.

    Raises:
        InputError: a name that several images fit.
    """
    named = NamedFiles((image.file_name, image) for image in labels.images.values() if image.file_name)
    by_key = {coco_values.key_of(image.source_id): image for image in labels.images.values()}
    ids = []
    for row, name in zip(rows, names, strict=True):
        by_id = by_key.get(coco_values.key_of(row.image_id))
        candidates = named.match(name) if name else []
        if by_id is not None and (by_id in candidates or not name or not by_id.file_name):
            ids.append(by_id.id)
        elif len(candidates) > 1:
            raise InputError(
                f"{labels.path}: result {row.place} of {name} fits both {candidates[0].file_name} and "
                f"{candidates[1].file_name}: name the files with their folders"
            )
        else:
            ids.append(candidates[0].id if candidates else None)
    return ids


def base_name(name):
    """The last part of a path, with slashes either way and URL escapes decoded."""
    return parts_of(name)[-1]


def parts_of(name):
    """The parts of a path: with slashes either way, and URL escapes decoded."""
    parts = posixpath.normpath(urllib.parse.unquote(name).replace("\\", "/")).split("/")
    return [part for part in parts if part not in ("", ".")] or [name]
