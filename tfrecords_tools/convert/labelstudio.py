"""Reads the exports JSON and JSON-MIN of Label Studio, with keypoints and perhaps rectangles.

Formats: https://labelstud.io/guide/export and https://labelstud.io/tags/keypointlabels. Lengths are
percent of the image's size. A point belongs to the rectangle that is its parent (`parentID`) or that
a relation connects it to.
"""

import base64
import binascii
import math
import os
import re
import urllib.parse

from kpose.core import files
from kpose.core.errors import InputError
from tfrecords_tools.convert import grouping, labels

ADVICE = "in Label Studio, put each person's points into a rectangle (drag them onto it in the outliner) or relate them"
IMAGE = re.compile(r"\.(bmp|gif|jpe?g|png|tiff?|webp)$", re.IGNORECASE)


def read(options):
    """The `Source` of an export.

    Args:
        options: `ConvertOptions`; `input` is the .json file.

    Raises:
        InputError: not such an export, or a bad task.
    """
    path = options.input
    tasks = files.read_json(path, "export of Label Studio")
    tasks = [tasks] if isinstance(tasks, dict) else tasks
    if not isinstance(tasks, list) or not tasks or not all(isinstance(task, dict) for task in tasks):
        raise InputError(
            f"{path}: not an export of Label Studio: it must be a list of tasks: export as JSON or JSON-MIN"
        )
    source, seen = labels.Source(images=os.path.dirname(path) or "."), set()
    for place, task in enumerate(tasks, 1):
        number = task.get("id", place)
        where = f"{path}: task {number}"
        if "data" in task or "annotations" in task or "completions" in task:
            data, results = task.get("data"), _results(task, where, source)
        else:
            # JSON-MIN has an entry for each annotation.
            data, results = task, _results_of_minimal(task)
            if "id" in task and str(number) in seen:
                source.left_out["annotations of a task after its first"] += 1
                continue
            seen.add(str(number))
        if results is not None:
            source.photos.append(_photo(data, results, task.get("file_upload"), where, source))
    source.use_labels_in_order()
    return source


def _results(task, where, source):
    """The results of the annotation to use; None if the task has none."""
    annotations = task.get("annotations", task.get("completions")) or []
    if not isinstance(annotations, list) or not all(isinstance(one, dict) for one in annotations):
        raise InputError(f"{where}: its annotations are not complete: export as JSON, not as a snapshot of ids")
    # Predictions are the work of a model, not labels.
    if isinstance(task.get("predictions"), list) and task["predictions"]:
        source.left_out["tasks' predictions"] += len(task["predictions"])
    kept = [one for one in annotations if not (one.get("was_cancelled") or one.get("skipped"))]
    if len(kept) < len(annotations):
        source.left_out["annotations that were skipped or cancelled"] += len(annotations) - len(kept)
    if not kept:
        source.left_out["tasks without an annotation"] += 1
        return None
    if len(kept) > 1:
        source.left_out["annotations of a task after its first"] += len(kept) - 1
    # The annotation that the project's owner marked as right comes first.
    chosen = next((one for one in kept if one.get("ground_truth")), kept[0])
    results = chosen.get("result")
    if not isinstance(results, list) or not all(isinstance(one, dict) for one in results):
        raise InputError(f"{where}: an annotation has no list 'result'")
    return results


def _results_of_minimal(task):
    """The results of an entry of JSON-MIN, in the form of JSON; they have no ids."""
    results = []
    for values in task.values():
        for value in values if isinstance(values, list) else ():
            kind = next((key for key in value if key.endswith("labels")), None) if isinstance(value, dict) else None
            if kind:
                sizes = {key: value[key] for key in ("original_width", "original_height") if key in value}
                results.append({"type": kind, "value": value, "image_rotation": value.get("image_rotation"), **sizes})
    return results


def _photo(data, results, upload, where, source):
    size, owner, points, boxes = None, _owners(results), [], []
    turned = [one for one in results if labels.finite(one.get("image_rotation") or 0)]
    if turned:
        source.left_out["regions of images that were rotated in Label Studio"] += len(turned)
        results = [one for one in results if one not in turned]
    for number, one in enumerate(results):
        kind, value = one.get("type"), one.get("value")
        if kind == "relation":
            continue
        if kind not in ("keypointlabels", "rectanglelabels"):
            source.left_out[f"results of type {kind!r}"] += 1
            continue
        here = f"{where}, result {one.get('id', number + 1)}"
        size = size or labels.size_of(one.get("original_width"), one.get("original_height"), here)
        group = owner(str(one.get("id")))
        label, numbers = _values(value, kind, here, source)
        if label is None:
            source.left_out[f"regions of type {kind!r} without a label"] += 1
        elif kind == "keypointlabels":
            points.append(grouping.Point(label, numbers[0], numbers[1], 2, group))
        else:
            box = _upright(numbers, labels.finite(value.get("rotation") or 0), size, source)
            boxes.append(grouping.Box(label, box, group))
    persons = grouping.persons_of(points, boxes, where, source, ADVICE)
    return labels.Photo(where, _names(data, upload, where), size, persons, True)


def _values(value, kind, where, source):
    """(label or None, [x, y] or [x, y, width, height] as shares of the image) of a region."""
    names = value.get(kind) if isinstance(value, dict) else None
    keys = ("x", "y") if kind == "keypointlabels" else ("x", "y", "width", "height")
    numbers = [labels.finite(value.get(key)) for key in keys] if isinstance(value, dict) else [None]
    if None in numbers:
        raise InputError(f"{where}: {', '.join(keys)} must be numbers, in percent of the image")
    if not isinstance(names, list) or not names:
        return None, None
    if len(names) > 1:
        source.changed["regions with several labels: the first is used"] += 1
    return str(names[0]), [number / 100 for number in numbers]


def _upright(box, rotation, size, source):
    """The upright box around a rectangle that is turned clockwise about its top left corner, in degrees."""
    if not rotation:
        return box
    source.changed["rotated boxes: the upright box around them"] += 1
    x, y, width, height = box
    # Angles are those in pixels.
    aspect = size[0] / size[1] if size else 1
    cos, sin = math.cos(math.radians(rotation)), math.sin(math.radians(rotation))
    ends = [(0, 0), (width * aspect, 0), (0, height), (width * aspect, height)]
    return labels.box_around([(x + (a * cos - b * sin) / aspect, y + a * sin + b * cos) for a, b in ends])


def _owners(results):
    """Function from a region's id to its group: regions that parents or relations connect.

    It returns None for a region that nothing connects.
    """
    links = [(one.get("id"), one.get("parentID")) for one in results if one.get("parentID")]
    links += [(one.get("from_id"), one.get("to_id")) for one in results if one.get("type") == "relation"]
    group = {}
    for first, second in (map(str, link) for link in links):
        old = {group.get(first, first), group.get(second, second)}
        new = min(old)
        group |= {first: new, second: new} | {key: new for key, value in group.items() if value in old}
    return group.get


def _names(data, upload, where):
    """Paths that the image of a task may have."""
    data = data if isinstance(data, dict) else {}
    texts = {key: value for key, value in data.items() if isinstance(value, str)}
    found = [texts[key] for key in ("image", "img", "photo") if key in texts]
    found = found or [text for text in texts.values() if IMAGE.search(_path(text))]
    if not found or found[0].startswith("data:"):
        raise InputError(f"{where}: its data name no image file")
    names = [_path(found[0])] + ([upload] if isinstance(upload, str) and upload else [])
    # An uploaded file gets eight digits before its name.
    bare = [re.sub(r"(^|/)[0-9a-f]{8}-([^/]+)$", r"\1\2", name) for name in names]
    return list(dict.fromkeys(names + bare))


def _path(text):
    """The path of an image in a URL: of uploads, local files, clouds and their proxy."""
    parsed = urllib.parse.urlsplit(text)
    query = urllib.parse.parse_qs(parsed.query)
    if "fileuri" in query:
        try:
            return _path(base64.urlsafe_b64decode(query["fileuri"][0] + "==").decode())
        except (binascii.Error, UnicodeDecodeError):
            return text
    if "d" in query and parsed.path.rstrip("/").endswith("local-files"):
        return query["d"][0]
    return urllib.parse.unquote(parsed.path) if parsed.scheme or parsed.query or "%" in text else text
