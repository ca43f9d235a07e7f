"""Converts labels of a format to a COCO keypoint file."""

from tfrecords_tools import convert_csv, convert_lsp
from tfrecords_tools.convert import building, cvat, deeplabcut, labelme, labelstudio, yolo

READERS = {
    "yolo": yolo.read,
    "labelstudio": labelstudio.read,
    "labelme": labelme.read,
    "cvat": cvat.read,
    "deeplabcut": deeplabcut.read,
}


def convert(options):
    """Writes the COCO file.

    Args:
        options: `ConvertOptions`.

    Returns:
        Lines of text: what was written and what was left out.

    Raises:
        InputError: bad labels, missing images, or no persons.
    """
    if options.format == "csv":
        return convert_csv.convert(_csv_options(options))
    if options.format == "lsp":
        return convert_lsp.convert(_lsp_options(options))
    return building.write(READERS[options.format](options), options)


def _csv_options(options):
    return convert_csv.CsvOptions(
        csv=options.input,
        images=options.images,
        output=options.output,
        skeleton=None,
        margin=options.margin,
        on_missing=options.on_missing,
        category=options.category or "person",
    )


def _lsp_options(options):
    return convert_lsp.LspOptions(
        joints=options.input,
        images=options.images,
        output=options.output,
        form=options.form or "auto",
        first=options.first or 1,
        last=options.last,
        margin=options.margin,
        on_missing=options.on_missing,
        category=options.category or "person",
    )
