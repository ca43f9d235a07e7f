"""Pictures of persons with their skeletons.

Left limbs are orange, right limbs are blue, limbs in the middle are green; `colours` has the colours
of skeletons without left and right. Each person of a crowd has one colour. An occluded joint is
drawn as a ring. A joint of low confidence is drawn faint. Images are uint8 [H, W, 3] RGB, grey
[H, W] or floats in 0..255. All functions return a new uint8 [H, W, 3] array and do not change their
arguments.

Points are [x, y] in continuous pixel coordinates: pixel i covers [i, i + 1).
"""

import math
import os

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from kpose.core import files
from kpose.drawing import colours

OUTLINE = (15, 15, 20)
HOLLOW = (255, 255, 255)
BOX = (255, 255, 255)

# A person is painted enlarged by this factor and then reduced, for smooth edges. The factor is
# smaller if the enlarged layer would have more pixels than the limit.
SUPERSAMPLING = 4
LAYER_PIXELS = 16_000_000

# Width of a bone as a fraction of the person's size, and its limits in pixels.
BONE_WIDTH = 0.017
BONE_LIMITS = (1.4, 40.0)
# In a large image, which is viewed reduced, the bones of a small person have at least this fraction
# of the image's longer side, but at most that fraction of the person's size. The upper limit grows.
BONE_OF_IMAGE, BONE_OF_SMALL, MOST_OF_IMAGE = 1 / 900, 0.04, 1 / 100
# Skeletons of more joints have thinner bones and smaller joints, as the root of the number.
DENSE = 40

# Opacity of a bone with an occluded joint, relative to other bones, and the opacity at confidence
# 0.
OCCLUDED_STRENGTH = 0.6
FAINTEST = 0.08

# `draw_people` does not draw joints with lower scores. Calibrated scores are probabilities, and
# higher than others; BUILD.md has the shares of joints that each value leaves out.
CALIBRATED_JOINT, JOINT_THRESHOLD = 0.4, 0.15

# Font size of a label as a fraction of the image's shorter side, and its least value in pixels. In
# images with a shorter side below the limit, a label would hide the person.
LABEL_SIZE, LABEL_LEAST = 1 / 40, 10
SMALLEST_WITH_LABELS = 120
# A box and its label are opaque from this score of the person on, calibrated or not, and fainter
# below it.
CALIBRATED_OPAQUE, OPAQUE_SCORE, FAINTEST_BOX = 0.4, 0.2, 0.35
# With more people than this, each person has a colour, and the sides have none.
MOST_WITH_SIDES = 3
JPEG_QUALITY = 90


def draw_skeleton(image, keypoints, skeleton, visibility=None, *, confidence=None, scale=None, threshold=None):
    """Draws the bones and joints of one person.

    Args:
        image: [H, W, 3] or [H, W], uint8 or float in 0..255.
        keypoints: [K, 2] in pixels of the image. Joints are left out if they are not finite, or
            outside the image by more than its longer side.
        skeleton: the `Skeleton`.
        visibility: [K] flags: 0 is left out, 1 (occluded) is a ring, 2 is a disc; None: all
            visible.
        confidence: [K] floats in 0..1: lower is fainter, NaN is left out; None: 1 for all joints.
        scale: the person's size in pixels, which sets the line width; None: from the extent of the
            joints.
        threshold: joints with a lower confidence are left out; None: no joint. It has no effect
            without `confidence`.

    Returns:
        [H, W, 3] uint8.

    Raises:
        ValueError: an array does not have the shape above.
    """
    picture = Image.fromarray(as_rgb(image))
    _add_skeleton(picture, keypoints, skeleton, visibility, confidence, scale, threshold)
    return np.array(picture)


def _add_skeleton(picture, keypoints, skeleton, visibility, confidence, scale, threshold, colour=None):
    """As `draw_skeleton`, on a PIL image that it changes; `colour` is that of the whole person."""
    count, shape = skeleton.num_joints, (picture.height, picture.width)
    keypoints = _checked("keypoints", keypoints, (count, 2))
    visibility = _checked("visibility", np.full(count, 2) if visibility is None else visibility, (count,))
    confidence = _checked("confidence", np.ones(count) if confidence is None else confidence, (count,))
    drawn = (visibility > 0) & _near(keypoints, shape) & np.isfinite(confidence)
    if threshold is not None:
        drawn &= confidence >= threshold
    if not drawn.any() or not min(shape):
        return
    width = _bone_width(keypoints[drawn], shape, scale, min(1.0, math.sqrt(DENSE / count)))
    box = _layer_box(keypoints[drawn], shape, margin=math.ceil(3 * width + 2))
    if box is None:
        return
    hollow = visibility == 1
    # A joint that is drawn stays visible, even at confidence 0.
    strength = FAINTEST + (1 - FAINTEST) * _eased(np.clip(np.where(drawn, confidence, 0), 0, 1))
    layer = _paint(keypoints, skeleton, drawn, hollow, strength, width, box, colour)
    picture.paste(layer, box[:2], mask=layer.getchannel("A"))


def _eased(share):
    """Smoothstep, an S-curve from 0 to 1: low confidence looks like 0, high confidence like 1."""
    return share**2 * (3 - 2 * share)


def as_rgb(image):
    """A new uint8 [H, W, 3] array of an image: [H, W, 3] or [H, W], uint8 or float in 0..255."""
    image = np.asarray(image)
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=2)
    if image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"an image is [H, W, 3] or [H, W], not {list(image.shape)}")
    if image.dtype != np.uint8:
        image = np.rint(np.clip(np.nan_to_num(image.astype(np.float32)), 0, 255))
    return np.array(image, np.uint8)


def _checked(name, values, shape):
    """`values` as a float64 array; `ValueError` if it has another shape."""
    values = np.asarray(values, np.float64)
    if values.shape != shape:
        raise ValueError(f"{name} are {list(shape)}, not {list(values.shape)}")
    return values


def _near(points, shape):
    """[K] bool: the points that are finite and outside the image by less than its longer side.

    Points further away would make the layer very large.
    """
    height, width = shape[:2]
    reach = max(height, width)
    points = np.nan_to_num(points, nan=np.inf)
    return ((points > -reach) & (points < np.array([width, height]) + reach)).all(1)


def _bone_width(points, shape, scale, share):
    """Width of a bone in pixels, from the person's size `scale` (None: the points' extent).

    `share` is the factor for skeletons of many joints.
    """
    if scale is None or not math.isfinite(scale):
        # A person with few labelled joints stays visible.
        scale = max(np.ptp(points, axis=0).max(), 0.1 * min(shape[:2]))
    longer = max(shape)
    width = max(share * BONE_WIDTH * scale, min(longer * BONE_OF_IMAGE, BONE_OF_SMALL * scale))
    return float(np.clip(width, BONE_LIMITS[0], max(BONE_LIMITS[1], longer * MOST_OF_IMAGE)))


def _layer_box(points, shape, margin):
    """(left, top, right, bottom) of the image part within `margin` of the points; None if empty."""
    left, top = np.maximum(np.floor(points.min(0)) - margin, 0).astype(int).tolist()
    right, bottom = np.minimum(np.ceil(points.max(0)) + margin, shape[1::-1]).astype(int).tolist()
    return (left, top, right, bottom) if left < right and top < bottom else None


def _paint(keypoints, skeleton, drawn, hollow, strength, width, box, colour):
    """The RGBA layer of `box` with one person, anti-aliased; `colour` None: those of the skeleton."""
    size = (box[2] - box[0], box[3] - box[1])
    factor = max(1, min(SUPERSAMPLING, math.isqrt(LAYER_PIXELS // (size[0] * size[1]))))
    layer = Image.new("RGBA", (size[0] * factor, size[1] * factor))
    brush = ImageDraw.Draw(layer)
    # Pillow's integer coordinates are at the centres of pixels.
    points = (np.where(drawn[:, None], keypoints, 0) - box[:2]) * factor - 0.5
    bones = [(a, b) for a, b in skeleton.bones if drawn[a] and drawn[b]]
    widths = [_narrowed(width, np.hypot(*(keypoints[a] - keypoints[b]))) for a, b in bones]
    strengths = [min(strength[[a, b]]) * (OCCLUDED_STRENGTH if hollow[[a, b]].any() else 1) for a, b in bones]
    edge = max(0.6, 0.28 * width)
    # The brush replaces the pixels below it, alpha too. So faint bones are painted first.
    order = np.argsort(strengths, kind="stable")
    for i in order:
        _line(brush, points[list(bones[i])], (widths[i] + 2 * edge) * factor, OUTLINE, 0.6 * strengths[i])
    for i in order:
        of_bone = colour or colours.of_bone(skeleton, bones[i])
        _line(brush, points[list(bones[i])], widths[i] * factor, of_bone, strengths[i])
    radii = _radii(keypoints, drawn, bones, width)
    of_joints = [colours.lighter(colour)] * len(keypoints) if colour else colours.of_joints(skeleton)
    for joint in sorted(np.flatnonzero(drawn), key=lambda k: strength[k]):
        radius, opacity = radii[joint], strength[joint]
        _disc(brush, points[joint], (radius + edge) * factor, OUTLINE, 0.75 * opacity)
        _disc(brush, points[joint], radius * factor, of_joints[joint], opacity)
        if hollow[joint]:
            _disc(brush, points[joint], 0.55 * radius * factor, HOLLOW, opacity)
    return layer.resize(size, Image.Resampling.BOX)


def _narrowed(width, length):
    """Width of a bone in pixels; short bones, as in a face, are narrower, and stay separate."""
    return float(np.clip(0.3 * length, 0.55 * width, width))


def _radii(keypoints, drawn, bones, width):
    """[K] radii of the joints in pixels. A joint with a short bone has a smaller radius."""
    radii = np.full(len(keypoints), 1.35 * width)
    for a, b in bones:
        length = np.hypot(*(keypoints[a] - keypoints[b]))
        for joint in (a, b):
            radii[joint] = min(radii[joint], max(0.75 * width, 0.3 * length))
    return radii


def _line(brush, ends, width, colour, opacity):
    """Paints a line with round ends; `ends` are [2, 2] in pixels of the layer."""
    fill = (*colour, round(255 * opacity))
    brush.line([tuple(end) for end in ends.tolist()], fill=fill, width=max(1, round(width)))
    for end in ends:
        _disc(brush, end, width / 2, colour, opacity)


def _disc(brush, centre, radius, colour, opacity):
    """Paints a disc; `centre` is [2] in pixels of the layer."""
    x, y = centre.tolist()
    brush.ellipse([x - radius, y - radius, x + radius, y + radius], fill=(*colour, round(255 * opacity)))


def draw_box(image, box, colour=BOX, width=None, label=None):
    """Draws a box as a thin rectangle with a dark rim.

    Args:
        image: [H, W, 3] or [H, W], uint8 or float in 0..255.
        box: [4] xywh in pixels. A box that is empty, not finite or outside the image is not drawn.
        colour: (red, green, blue) in 0..255.
        width: line width in pixels; None: from the size of the image.
        label: a short text at the box's top left, such as its score; None: no text.

    Returns:
        [H, W, 3] uint8.
    """
    picture = Image.fromarray(as_rgb(image))
    corner = _add_box(picture, box, colour, width)
    if label and corner:
        _add_label(picture, corner, label, colour)
    return np.array(picture)


def _add_box(picture, box, colour, width=None, opacity=1.0):
    """As `draw_box`, on a PIL image that it changes; returns the (left, top) for a label, or None."""
    length, height = picture.size
    width = max(1, round(min(height, length) / 400)) if width is None else width
    x, y, w, h = (float(value) for value in box)
    if not all(math.isfinite(value) for value in (x, y, w, h)) or w <= 0 or h <= 0:
        return None
    # Clipped to just beyond the image: sides outside it are not drawn, and the coordinates stay
    # small.
    beyond = width + 2
    left, top = round(max(x, -beyond)), round(max(y, -beyond))
    right, bottom = round(min(x + w, length + beyond)) - 1, round(min(y + h, height + beyond)) - 1
    if left > right or top > bottom:
        return None
    # In the mode "RGBA" the brush blends with the picture instead of replacing its pixels.
    brush = ImageDraw.Draw(picture, "RGBA")
    for grown in (1, -width):
        rim = (left - grown, top - grown, right + grown, bottom + grown)
        if rim[0] <= rim[2] and rim[1] <= rim[3]:
            brush.rectangle(rim, outline=(*OUTLINE, round(110 * opacity)))
    brush.rectangle((left, top, right, bottom), outline=(*colour, round(255 * opacity)), width=width)
    return left, top


def _add_label(picture, corner, text, colour, opacity=1.0):
    """Writes a text in a dark field above a box's corner, or below it at the top of the image."""
    brush = ImageDraw.Draw(picture, "RGBA")
    font = ImageFont.load_default(max(LABEL_LEAST, int(min(picture.size) * LABEL_SIZE)))
    low, high = np.reshape(font.getbbox(text), (2, 2)).tolist()
    pad = max(1, round(font.size / 5))
    size = (high[0] - low[0] + 2 * pad, high[1] - low[1] + 2 * pad)
    x = min(max(corner[0], 0), max(picture.width - size[0], 0))
    y = corner[1] - size[1] if corner[1] >= size[1] else max(corner[1], 0)
    brush.rectangle((x, y, x + size[0] - 1, y + size[1] - 1), fill=(*OUTLINE, round(170 * opacity)))
    brush.text((x + pad - low[0], y + pad - low[1]), text, (*colour, round(255 * opacity)), font)


def save_image(path, array):
    """Writes an image file: JPEG if the name ends in .jpg or .jpeg, otherwise PNG.

    An existing file is replaced only when the new one is complete. Missing folders are created.

    Args:
        path: the file.
        array: [H, W, 3] or [H, W], uint8 or float in 0..255.
    """
    save_picture(path, Image.fromarray(as_rgb(array)))


def save_picture(path, picture):
    """As `save_image`, for a PIL image."""
    jpeg = os.path.splitext(path)[1].lower() in (".jpg", ".jpeg")
    with files.replacing(path, "wb") as file:
        picture.save(file, "JPEG" if jpeg else "PNG", **({"quality": JPEG_QUALITY} if jpeg else {}))


def joint_threshold(calibrated):
    """The score from which on joints of a prediction are drawn.

    Args:
        calibrated: whether the network's scores are calibrated (`kpose.models.calibration`).
    """
    return CALIBRATED_JOINT if calibrated else JOINT_THRESHOLD


def draw_people(pixels, people, skeleton, ids=None):
    """As `picture_of_people`; returns uint8 [H, W, 3]."""
    return np.array(picture_of_people(pixels, people, skeleton, ids))


def picture_of_people(pixels, people, skeleton, ids=None):
    """Draws the boxes, the scores and the skeletons of all people in an image.

    Up to `MOST_WITH_SIDES` people have the colours of left and right, and white boxes. More people
    have a colour each, which neighbours do not share.

    Args:
        pixels: uint8 [H, W, 3].
        people: `kpose.predict.people.People`, in pixels of the image.
        skeleton: their `Skeleton`.
        ids: [N] integers, the persons' tracks: each has its colour and is in its label. None: no
            tracks; the colours of many people are by position, from left to right.

    Returns:
        A PIL image in RGB.
    """
    # The constructor copies the pixels.
    picture = Image.fromarray(np.asarray(pixels, np.uint8))
    boxes = np.asarray(people.boxes, np.float64).reshape(-1, 4)
    of_persons = _person_colours(boxes, ids)
    opaque, least = CALIBRATED_OPAQUE if people.calibrated else OPAQUE_SCORE, joint_threshold(people.calibrated)
    opacities = np.clip(np.asarray(people.scores, float) / opaque, FAINTEST_BOX, 1)
    corners = [_add_box(picture, box, of_persons[k] or BOX, None, opacities[k]) for k, box in enumerate(boxes)]
    # Large persons are usually nearest to the camera. They are drawn last, in front of the others.
    for index in np.argsort(boxes[:, 2:].prod(1), kind="stable"):
        person = people.keypoints[index]
        # A model without scores for joints has the same score for all of them
        # (`decoding.resolution_score`). This score depends on the person's size only, and
        # gives no information about the joints.
        confidence = person[:, 2] if np.ptp(person[:, 2]) else None
        scale = boxes[index, 2:].max()
        _add_skeleton(picture, person[:, :2], skeleton, None, confidence, scale, least, of_persons[index])
    for k, corner in enumerate(corners):
        if corner and min(picture.size) >= SMALLEST_WITH_LABELS:
            text = f"{people.scores[k]:.2f}" if ids is None else f"#{ids[k]}  {people.scores[k]:.2f}"
            _add_label(picture, corner, text, of_persons[k] or BOX, opacities[k])
    return picture


def _person_colours(boxes, ids):
    """The colour of each person; None: those of the skeleton."""
    if ids is None:
        if len(boxes) <= MOST_WITH_SIDES:
            return [None] * len(boxes)
        # Neighbours have colours that follow each other, and those differ most.
        ids = np.argsort(np.argsort(boxes[:, 0] + boxes[:, 2] / 2, kind="stable"))
    return [colours.of_person(int(number)) for number in ids]
