"""Pictures of persons with their skeletons.

Left limbs are drawn orange, right ones blue, the middle green; an occluded joint is hollow. All functions take and
give uint8 [H, W, 3] RGB arrays and leave their arguments as they are.
"""

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from kpose import files, geometry

COLOURS = {"left": (255, 140, 40), "right": (50, 150, 255), "middle": (90, 220, 130)}
OUTLINE = (20, 20, 20)
BACKGROUND = (245, 245, 245)
INK = (40, 40, 40)
SUPERSAMPLING = 3
CAPTION_HEIGHT = 16


def draw_skeleton(image, keypoints, skeleton, visibility=None):
    """Draws one person.

    Args:
        image: [H, W, 3] uint8.
        keypoints: [K, 2] in pixels of the image; joints that are not finite are left out.
        skeleton: the `Skeleton`.
        visibility: [K] flags: 0 is left out, 1 (occluded) drawn hollow; None: all visible.

    Returns:
        [H, W, 3] uint8.
    """
    keypoints = np.asarray(keypoints, np.float64)
    height, width = image.shape[:2]
    visibility = np.full(len(keypoints), 2) if visibility is None else np.asarray(visibility)
    # Far outside there is nothing to see, and a line to there can overflow the drawing code.
    near = (np.abs(keypoints) < 10 * max(height, width)).all(1) & np.isfinite(keypoints).all(1)
    drawn = (visibility > 0) & near
    if not drawn.any():
        return image.copy()
    thickness = _thickness(keypoints[drawn], min(height, width))
    picture = Image.fromarray(image)
    layer = Image.new("RGBA", (width * SUPERSAMPLING, height * SUPERSAMPLING))
    brush = ImageDraw.Draw(layer)
    points = keypoints * SUPERSAMPLING
    for a, b in skeleton.bones:
        if drawn[a] and drawn[b]:
            side = skeleton.sides[a] if skeleton.sides[a] == skeleton.sides[b] else "middle"
            ends = [tuple(points[a]), tuple(points[b])]
            brush.line(ends, fill=(*OUTLINE, 150), width=round((thickness + 1) * SUPERSAMPLING))
            brush.line(ends, fill=(*COLOURS[side], 235), width=round(thickness * SUPERSAMPLING))
    for joint in np.flatnonzero(drawn):
        radius = 1.1 * thickness * SUPERSAMPLING
        x, y = points[joint]
        colour = (*COLOURS[skeleton.sides[joint]], 255)
        fill = colour if visibility[joint] == 2 else (255, 255, 255, 200)
        ring = OUTLINE if visibility[joint] == 2 else colour
        brush.ellipse([x - radius, y - radius, x + radius, y + radius], fill, ring, round(0.4 * radius))
    small = layer.resize((width, height), Image.Resampling.BOX)
    picture.paste(small, mask=small.getchannel("A"))
    return np.asarray(picture)


def _thickness(points, shorter_side):
    """Width of a bone in pixels: by the person's size, and visible in any image."""
    extent = np.ptp(points, axis=0).max()
    return float(np.clip(0.015 * max(extent, 0.25 * shorter_side), 1.2, 12))


def draw_box(image, box, colour=(255, 255, 255)):
    """Draws a box, [4] xywh in pixels."""
    picture = Image.fromarray(image)
    height, width = image.shape[:2]
    x, y, w, h = (float(value) for value in box)
    if all(math.isfinite(value) for value in (x, y, w, h)) and w > 0 and h > 0:
        corners = [max(x, -1), max(y, -1), min(x + w, width), min(y + h, height)]
        if corners[0] < corners[2] and corners[1] < corners[3]:
            ImageDraw.Draw(picture).rectangle(corners, outline=colour, width=max(1, round(min(height, width) / 300)))
    return np.asarray(picture)


def unstretch(image, normalised, region, longest=256):
    """A crop in its region's own shape, with the person's points in its pixels.

    Args:
        image: [H, W, 3] uint8, the stretched crop.
        normalised: [K, 2] normalised points.
        region: [4] xywh that the crop shows.
        longest: the longer side of the result in pixels.

    Returns:
        ([h, w, 3] uint8, [K, 2] points in its pixels).
    """
    width, height = (max(1, round(side)) for side in np.asarray(region[2:]) * longest / max(region[2:]))
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized), geometry.to_crop(np.asarray(normalised), (height, width))


def contact_sheet(tiles, columns, tile_size, captions=None, title=None):
    """Pictures side by side.

    Args:
        tiles: arrays [h, w, 3] of any size; each is shrunk or enlarged to fit its place.
        columns: pictures a row.
        tile_size: side of a place in pixels.
        captions: a text below each picture.
        title: a text above all.

    Returns:
        [H, W, 3] uint8.
    """
    gap, caption = 6, CAPTION_HEIGHT if captions else 0
    top = 2 * CAPTION_HEIGHT if title else 0
    rows = -(-len(tiles) // columns)
    place = (tile_size + gap, tile_size + caption + gap)
    sheet = Image.new("RGB", (columns * place[0] + gap, top + rows * place[1] + gap), BACKGROUND)
    brush = ImageDraw.Draw(sheet)
    if title:
        brush.text((gap, gap), title, INK, ImageFont.load_default(16))
    for index, tile in enumerate(tiles):
        x, y = gap + index % columns * place[0], top + gap + index // columns * place[1]
        scale = tile_size / max(tile.shape[:2])
        size = tuple(max(1, round(side * scale)) for side in tile.shape[1::-1])
        picture = Image.fromarray(tile).resize(size, Image.Resampling.BICUBIC)
        sheet.paste(picture, (x + (tile_size - size[0]) // 2, y + (tile_size - size[1]) // 2))
        if captions:
            brush.text((x, y + tile_size), captions[index], INK, ImageFont.load_default(11))
    return np.asarray(sheet)


def prediction_grid(images, truth, prediction, skeleton, regions, columns=6):
    """Persons with the truth at the left and the prediction at the right of each picture.

    Args:
        images: [N, H, W, 3] uint8 stretched crops.
        truth: [N, K, 3] normalised, with the visibility flag.
        prediction: [N, K, 2] normalised.
        skeleton: the `Skeleton`.
        regions: [N, 4] what the crops show; gives each picture its person's shape.
        columns: persons a row.

    Returns:
        [H, W, 3] uint8.
    """
    tiles = []
    for image, true, predicted, region in zip(images, truth, prediction, regions, strict=True):
        picture, points = unstretch(image, true[:, :2], region)
        left = draw_skeleton(picture, points, skeleton, visibility=true[:, 2])
        right = draw_skeleton(picture, unstretch(image, predicted, region)[1], skeleton)
        tiles.append(np.concatenate([left, np.full((len(left), 4, 3), BACKGROUND, np.uint8), right], axis=1))
    columns = min(columns, len(tiles))
    return contact_sheet(tiles, columns, 256, title="left: ground truth, right: prediction")


def save_image(path, image):
    """Writes a PNG file."""
    with files.replacing(path, "wb") as file:
        Image.fromarray(image).save(file, "PNG")
