"""The skeleton of a COCO annotation file, from its categories."""

from kpose.core import skeleton_files, skeletons
from kpose.core.errors import InputError
from kpose.data import coco_values


def skeleton_of(path, data, category=""):
    """The `Skeleton` of the keypoints in a COCO annotation file, from its categories.

    A category that lists COCO's or LSP's joints has the table of that name. If no category lists
    its joints, the keypoints are COCO's.

    Args:
        path: the file, for errors.
        data: what `load` returned for it.
        category: name of the category; "": those of the annotations that have keypoints.

    Raises:
        InputError: the joints of a category are wrong, several categories have different joints, or
            the joints have no names and are not 17.
    """
    entries = [e for e in data["annotations"] if isinstance(e, dict) and e.get("keypoints") is not None]
    used = {coco_values.key_of(entry.get("category_id")) for entry in entries}
    categories = data.get("categories")
    named = [
        c
        for c in (categories if isinstance(categories, list) else ())
        if isinstance(c, dict) and isinstance(c.get("keypoints"), list) and c["keypoints"]
    ]
    named = [c for c in named if (c.get("name") == category if category else coco_values.key_of(c.get("id")) in used)]
    try:
        tables = [skeleton_files.from_category(c) for c in named]
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if not tables:
        _check_unnamed(path, entries)
        return skeletons.COCO
    if skeletons.COCO in tables:
        return skeletons.COCO
    if any(table.joints != tables[0].joints for table in tables):
        names = ", ".join(repr(c.get("name")) for c in named)
        raise InputError(f"{path}: its categories {names} have different joints: choose one with --category")
    return tables[0]


def _check_unnamed(path, entries):
    """Raises `InputError` unless keypoints without names can be COCO's."""
    numbers = coco_values.numbers_of(entries[0]["keypoints"]) if entries else None
    if numbers is not None and numbers.size and numbers.size % 3 == 0 and numbers.size != 3 * skeletons.COCO.num_joints:
        raise InputError(
            f"{path}: no category lists the names of its {numbers.size // 3} joints: add them as 'keypoints' to the "
            "category, or give --skeleton=FILE.json"
        )
