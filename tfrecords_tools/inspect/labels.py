"""Statistics and a contact sheet of an annotation file, before any record is written."""

import numpy as np

from kpose.core import geometry, skeleton_files
from kpose.core.errors import InputError
from kpose.data import coco_files, problems
from kpose.data.image_files import ImageFolder
from kpose.drawing import sheets
from kpose.drawing.persons import draw_skeleton, save_image

# Factor of the box on the sheet, so that joints outside the box are seen.
SHOWN = 1.25
TILE = 192


def inspect_labels(path, images=None, sheet_path=None, persons=10, seed=0, skeleton="auto", category=""):
    """Statistics of the labels in a COCO file, and a contact sheet of some persons.

    Args:
        path: the annotation file.
        images: folder or .zip file of the images; None: no sheet.
        sheet_path: the PNG file of the sheet.
        persons: number of persons on the sheet.
        seed: seed of the choice of persons.
        skeleton: "auto", the name of a skeleton or the file of one, as for `write_coco`.
        category: as for `write_coco`.

    Returns:
        Lines of text. A line that starts with "warning" is a likely mistake in the labels.

    Raises:
        InputError: not an annotation file, no labelled person, or an image of the sheet is missing.
    """
    table = skeleton if skeleton == "auto" else skeleton_files.find(skeleton)
    found = problems.Problems("skip")
    labels = coco_files.read_labels(path, table, found, category)
    labelled = [p for p in labels.persons if p.num_labelled and not p.crowd]
    if not labelled:
        raise InputError(f"{path}: no person with a labelled joint")
    flags = np.array([person.keypoints[:, 2] for person in labelled])
    boxes = np.array([person.box for person in labelled if person.box is not None]).reshape(-1, 4)
    lines = [
        f"{path}: {len(labels.images):,} images, {len(labels.persons):,} persons, {len(labelled):,} of them with a "
        f"labelled joint, {sum(p.crowd for p in labels.persons):,} crowds",
        *skeleton_files.describe(labels.skeleton),
        *[f"skipped as bad input: {count:,} x {kind}" for kind, count in found.counts.items()],
        *[f"{what}: {count:,}" for what, count in labels.counts.items()],
        _sizes(boxes, len(labelled)),
        f"labelled joints of a person: {quartiles((flags > 0).sum(1))}; fully visible: "
        f"{(flags == 2).all(1).sum():,} persons",
        "joint               labelled   of these occluded",
        *_joints(labels.skeleton, flags),
    ]
    if images is None:
        return [*lines, "no sheet: give the images with --images"]
    save_image(sheet_path, _sheet(labels, labelled, images, persons, seed))
    return [*lines, f"contact sheet: {sheet_path}"]


def _sizes(boxes, count):
    missing = f"; {count - len(boxes):,} persons without a box" if count > len(boxes) else ""
    if not len(boxes):
        return "no person has a box"
    return f"box height in pixels: {quartiles(boxes[:, 3])}; width: {quartiles(boxes[:, 2])}{missing}"


def quartiles(values):
    """Quartiles of numbers as text."""
    low, middle, high = np.percentile(values, [25, 50, 75])
    return f"{low:.0f} / {middle:.0f} / {high:.0f} (quartiles)"


def _joints(skeleton, flags):
    """A line for each joint, and warnings."""
    lines, warnings = [], []
    for index, joint in enumerate(skeleton.joints):
        given = flags[:, index] > 0
        occluded = f"{100 * (flags[given, index] == 1).mean():17.1f}%" if given.any() else f"{'-':>18}"
        share = f"{100 * given.mean():9.1f}%" if given.any() else f"{'-':>10}"
        lines.append(f"  {joint:<16}{share}{occluded}")
        if not given.any():
            warnings.append(f"warning: nobody labels {joint!r}: a network cannot learn it")
    return lines + warnings


def _sheet(labels, labelled, images, count, seed):
    folder = ImageFolder(images)
    with_box = [p for p in labelled if p.box is not None and labels.images[p.image_id].file_name]
    if not with_box:
        raise InputError(f"{labels.path}: no person has a box and an image with a file name: nothing can be drawn")
    count = min(count, len(with_box))
    chosen = sorted(np.random.default_rng(seed).choice(len(with_box), count, replace=False).tolist())
    tiles, captions = [], []
    for person in (with_box[index] for index in chosen):
        image = folder.open(labels.images[person.image_id].file_name)
        size = labels.images[person.image_id].size
        if size:
            image.check_size(*size)
        region = geometry.pad_box(person.box, SHOWN)
        pixels = np.asarray(_part(image.decode(), region))
        tile, points = sheets.unstretch(pixels, geometry.normalise(person.keypoints[:, :2], region), region)
        tiles.append(draw_skeleton(tile, points, labels.skeleton, visibility=person.keypoints[:, 2]))
        captions.append(f"{person.id}: {person.box[2]:.0f} x {person.box[3]:.0f}")
    title = f"{count} of {len(with_box):,} persons"
    return sheets.contact_sheet(tiles, min(5, count), TILE, captions, title, labels.skeleton)


def _part(image, region):
    """The pixels of a region of a PIL image, at most four tiles large; black outside the image."""
    x, y, w, h = (round(float(value)) for value in region)
    part = image.crop((x, y, x + max(w, 1), y + max(h, 1)))
    part.thumbnail((4 * TILE, 4 * TILE))
    return part
