"""Pictures of several persons: contact sheets, and truth beside prediction."""

import numpy as np
from PIL import Image, ImageDraw

from kpose.core import geometry
from kpose.drawing import colours
from kpose.drawing.fonts import font_for
from kpose.drawing.persons import OUTLINE, as_rgb, draw_skeleton

BACKGROUND = (245, 245, 245)
INK = (40, 40, 40)

# Pixels: between pictures, and the fields of captions and titles.
GUTTER = 6
CAPTION_HEIGHT = 16
TITLE_HEIGHT = 32

# Font sizes.
CAPTION_SIZE = 11
TITLE_SIZE = 16

# Pixels: the height of a row of a legend, and the radius of its discs.
LEGEND_ROW = 16
LEGEND_DISC = 4
# Most joints that a legend names.
LEGEND_ENTRIES = 120


def unstretch(image, normalised, region, longest=256):
    """A crop with the aspect ratio of its region, and the person's points in its pixels.

    Args:
        image: [H, W, 3] uint8, the stretched crop.
        normalised: [K, 2] normalised points.
        region: [4] xywh, what the crop shows.
        longest: the longer side of the result in pixels.

    Returns:
        ([h, w, 3] uint8, [K, 2] points in its pixels).
    """
    width, height = (max(1, round(side)) for side in np.asarray(region[2:]) * longest / max(region[2:]))
    return _resized(as_rgb(image), (width, height)), geometry.to_crop(np.asarray(normalised), (height, width))


def _resized(image, size):
    """`image` as [h, w, 3] with `size` = (w, h)."""
    return np.array(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def side_by_side(images, labels=None, height=None):
    """Joins images horizontally.

    Args:
        images: one or more images of any size. Each is centred and padded to the height of the
            tallest one.
        labels: a text below each image; None: no texts, and no space for them.
        height: resize all images to this height in pixels instead of padding.

    Returns:
        [H, W, 3] uint8.

    Raises:
        ValueError: no images, or another number of labels than of images.
    """
    images = [as_rgb(image) for image in images]
    if not images:
        raise ValueError("side_by_side needs an image")
    labels = _one_each("labels", labels, images)
    if height is not None:
        images = [_resized(i, (max(1, round(i.shape[1] * height / i.shape[0])), height)) for i in images]
    tallest = max(len(image) for image in images)
    total = sum(image.shape[1] for image in images) + GUTTER * (len(images) - 1)
    joined = Image.new("RGB", (total, tallest + (CAPTION_HEIGHT if labels else 0)), BACKGROUND)
    x = 0
    for index, image in enumerate(images):
        joined.paste(Image.fromarray(image), (x, (tallest - len(image)) // 2))
        if labels:
            _write(joined, (x, tallest), labels[index], image.shape[1], CAPTION_HEIGHT, CAPTION_SIZE)
        x += image.shape[1] + GUTTER
    return np.array(joined)


def _one_each(name, texts, images):
    """The texts as a list, or None; `ValueError` if there are not as many as images."""
    texts = None if texts is None else list(texts)
    if texts and len(texts) != len(images):
        raise ValueError(f"{len(texts)} {name} for {len(images)} images")
    return texts


def _write(picture, corner, text, width, height, size, left=False):
    """Writes one line, centred in a field of this size; text that is too long ends in "...".

    `left`: the text starts at the left of the field.
    """
    text = " ".join(str(text).split())
    font = font_for(text, size)
    if font.getlength(text) > width:
        while text and font.getlength(text + "...") > width:
            text = text[:-1]
        text += "..." if text else ""
    place = (corner[0] if left else corner[0] + width / 2, corner[1] + height / 2)
    ImageDraw.Draw(picture).text(place, text, INK, font, anchor="lm" if left else "mm")


def contact_sheet(tiles, columns, tile_size, captions=None, title=None, skeleton=None):
    """Pictures in a grid, row by row.

    Each picture is resized to fit into a square of `tile_size`, with its own aspect ratio, and
    centred. The height of all rows is that of the tallest resized picture. Tile i starts GUTTER +
    (i % columns) * (tile_size + GUTTER) pixels from the left. A title adds TITLE_HEIGHT at the top,
    captions add CAPTION_HEIGHT below each row.

    Args:
        tiles: images of any size.
        columns: pictures in a row.
        tile_size: width and largest height of a tile in pixels.
        captions: a text below each picture; None: no texts.
        title: a text above the grid; None: no text.
        skeleton: the `Skeleton` whose `legend` is below the grid; None: no legend.

    Returns:
        [H, W, 3] uint8.

    Raises:
        ValueError: less than one column or one pixel for a tile, or another number of captions than
            of tiles.
    """
    if columns < 1 or tile_size < 1:
        raise ValueError(f"a contact sheet needs columns and a tile size of 1 or more, not {columns} and {tile_size}")
    tiles = [_fitted(as_rgb(tile), tile_size) for tile in tiles]
    captions = _one_each("captions", captions, tiles)
    rows = -(-len(tiles) // columns)
    top = TITLE_HEIGHT if title else 0
    row_height = max((len(tile) for tile in tiles), default=0)
    step_x, step_y = tile_size + GUTTER, row_height + GUTTER + (CAPTION_HEIGHT if captions else 0)
    sheet = Image.new("RGB", (columns * step_x + GUTTER, top + rows * step_y + GUTTER), BACKGROUND)
    if title:
        size = _fitting(title, sheet.width - 2 * GUTTER, TITLE_SIZE, CAPTION_SIZE)
        _write(sheet, (GUTTER, 0), title, sheet.width - 2 * GUTTER, TITLE_HEIGHT + GUTTER, size)
    for index, tile in enumerate(tiles):
        x, y = GUTTER + index % columns * step_x, top + GUTTER + index // columns * step_y
        height, width = tile.shape[:2]
        sheet.paste(Image.fromarray(tile), (x + (tile_size - width) // 2, y + (row_height - height) // 2))
        if captions:
            _write(sheet, (x, y + row_height), captions[index], tile_size, CAPTION_HEIGHT, CAPTION_SIZE)
    sheet = np.array(sheet)
    return sheet if skeleton is None else np.concatenate([sheet, legend(skeleton, sheet.shape[1])])


def legend(skeleton, width):
    """The colours and names of the joints of a skeleton, with their numbers from 0, in columns.

    Args:
        skeleton: the `Skeleton`. At most `LEGEND_ENTRIES` joints are named.
        width: of the picture in pixels.

    Returns:
        [H, width, 3] uint8.
    """
    entries = colours.entries(skeleton, LEGEND_ENTRIES)
    before = 2 * LEGEND_DISC + 2 * GUTTER
    longest = max(font_for(text, CAPTION_SIZE).getlength(text) for _, text in entries)
    columns = int(max(1, min(len(entries), (width - GUTTER) // (longest + before + GUTTER))))
    rows = -(-len(entries) // columns)
    picture = Image.new("RGB", (width, rows * LEGEND_ROW + GUTTER), BACKGROUND)
    brush, step = ImageDraw.Draw(picture), (width - GUTTER) // columns
    for index, (colour, text) in enumerate(entries):
        x, y = GUTTER + index // rows * step, index % rows * LEGEND_ROW
        if colour is not None:
            disc = (x, y + LEGEND_ROW // 2 - LEGEND_DISC, x + 2 * LEGEND_DISC, y + LEGEND_ROW // 2 + LEGEND_DISC)
            brush.ellipse(disc, fill=colour, outline=OUTLINE)
        _write(picture, (x + before - GUTTER, y), text, step - before, LEGEND_ROW, CAPTION_SIZE, left=True)
    return np.array(picture)


def _fitted(image, side):
    """`image` with the same aspect ratio, its longer side `side` pixels."""
    factor = side / max(image.shape[:2])
    return _resized(image, tuple(max(1, round(length * factor)) for length in image.shape[1::-1]))


def _fitting(text, width, largest, smallest):
    """The largest font size at which a text fits into `width` pixels; `smallest` if none fits."""
    sizes = range(largest, smallest, -1)
    return next((size for size in sizes if font_for(text, size).getlength(text) <= width), smallest)


def truth_and_prediction(
    image, truth, prediction, skeleton, truth_visibility=None, confidence=None, threshold=None, scale=None, labels=None
):
    """One person twice: the truth at the left, the prediction at the right.

    Args:
        image: [H, W, 3] or [H, W], uint8 or float in 0..255.
        truth, prediction: [K, 2] in pixels of the image.
        skeleton: the `Skeleton`.
        truth_visibility: [K] flags 0, 1 or 2 of the truth.
        confidence, threshold: of the prediction, as for `draw_skeleton`.
        scale: the person's size in pixels; None: from the extent of the true joints.
        labels: two texts below the pictures; None: no texts.

    Returns:
        [H, 2 W + GUTTER, 3] uint8; with labels [H + CAPTION_HEIGHT, 2 W + GUTTER, 3].

    Raises:
        ValueError: an array of another shape, or another number of labels than two.
    """
    if scale is None:
        scale = _extent(truth, truth_visibility)
    left = draw_skeleton(image, truth, skeleton, truth_visibility, scale=scale)
    right = draw_skeleton(image, prediction, skeleton, confidence=confidence, threshold=threshold, scale=scale)
    return side_by_side([left, right], labels)


def _extent(points, visibility):
    """The longer side of the labelled points' bounding box; None for less than two such points."""
    points = np.asarray(points, np.float64)
    labelled = np.isfinite(points).all(1)
    if visibility is not None:
        labelled &= np.asarray(visibility) > 0
    return float(np.ptp(points[labelled], axis=0).max()) if labelled.sum() > 1 else None


def prediction_grid(images, truth, prediction, skeleton, regions, columns=6):
    """A grid of persons, each with the truth at the left and the prediction at the right.

    Args:
        images: [N, H, W, 3] uint8 stretched crops.
        truth: [N, K, 3] normalised, with the visibility flag.
        prediction: [N, K, 2] normalised.
        skeleton: the `Skeleton`.
        regions: [N, 4] xywh, what the crops show: each picture gets the aspect ratio of its region.
        columns: persons in a row.

    Returns:
        [H, W, 3] uint8.
    """
    tiles = []
    for image, true, predicted, region in zip(images, truth, prediction, regions, strict=True):
        picture, points = unstretch(image, true[:, :2], region)
        guess = geometry.to_crop(np.asarray(predicted), picture.shape[:2])
        tiles.append(truth_and_prediction(picture, points, guess, skeleton, truth_visibility=true[:, 2]))
    columns = max(1, min(columns, len(tiles)))
    return contact_sheet(tiles, columns, 256, title="left: ground truth, right: prediction")
