"""Random backgrounds, light, and objects that hide parts of people."""

import colorsys
import math

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from tfrecords_tools.figures.canvas import OBJECT, Light, Solid


def _tint(rng, value, saturation=0.45):
    """A random colour with a brightness of about `value` (0..1), as a tuple of ints."""
    value = float(np.clip(value + rng.normal(0, 0.08), 0.05, 1))
    return tuple(int(255 * c) for c in colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.05, saturation), value))


def _gradient(size, top, bottom):
    width, height = size
    ramp = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    rows = np.array(top) * (1 - ramp) + np.array(bottom) * ramp
    return Image.fromarray(rows.astype(np.uint8)).resize((width, height))


def _outdoors(rng, size, horizon):
    """An image of sky, ground, and buildings or trees."""
    width, height = size
    sky = colorsys.hsv_to_rgb(rng.uniform(0.52, 0.64), rng.uniform(0.05, 0.5), rng.uniform(0.65, 1))
    image = _gradient(size, [255 * c for c in sky], [235, 232, 225])
    draw = ImageDraw.Draw(image)
    ground = colorsys.hsv_to_rgb(rng.uniform(0.06, 0.36), rng.uniform(0.1, 0.55), rng.uniform(0.35, 0.75))
    buildings = rng.random() < 0.5
    x = -rng.uniform(0, 40)
    while x < width:
        span = rng.uniform(18, 75)
        top = horizon - rng.uniform(0.1, 0.9) * horizon
        if buildings:
            colour = _tint(rng, 0.6)
            draw.rectangle((x, top, x + span, horizon), fill=colour)
            pane = tuple(int(c * rng.uniform(0.5, 0.75)) for c in colour)
            for wy in np.arange(top + 5, horizon - 6, 13):
                for wx in np.arange(x + 4, x + span - 6, 11):
                    draw.rectangle((wx, wy, wx + 5, wy + 7), fill=pane)
        else:
            leaf = tuple(int(255 * c) for c in colorsys.hsv_to_rgb(rng.uniform(0.2, 0.4), 0.5, rng.uniform(0.25, 0.6)))
            draw.rectangle((x + span * 0.45, top, x + span * 0.55, horizon), fill=(92, 70, 52))
            for dx, dy, share in rng.uniform(-0.35, 0.35, (4, 3)):
                r = span * (0.45 + share / 3)
                cx, cy = x + span * (0.5 + dx), top + span * (0.3 + dy)
                draw.ellipse((cx - r, cy - r, cx + r, cy + r), fill=leaf)
        x += span * rng.uniform(0.8, 1.9)
    near, far = [254 * c for c in ground], [215 * c for c in ground]
    image.paste(_gradient((width, height - horizon), far, near), (0, horizon))
    if rng.random() < 0.3:
        left, right = np.sort(rng.uniform(0, width, 2))
        road = [(left, horizon), (right, horizon), (width, height), (0, height)]
        draw.polygon(road, fill=_tint(rng, 0.55, 0.1))
    return image


def _indoors(rng, size, horizon):
    """An image of a wall with wallpaper or pictures, and a floor."""
    width, height = size
    wall = _tint(rng, 0.7, 0.5)
    image = _gradient(size, wall, [0.85 * c for c in wall])
    draw = ImageDraw.Draw(image)
    pattern = rng.random()
    other = _tint(rng, 0.65, 0.5)
    if pattern < 0.35:
        step = int(rng.integers(10, 36))
        for x in range(0, width, 2 * step):
            draw.rectangle((x, 0, x + step - 1, horizon), fill=other)
    elif pattern < 0.8:
        for _ in range(rng.integers(1, 5)):
            x, y, w, h = rng.uniform(0, width), rng.uniform(0, horizon * 0.7), rng.uniform(20, 80), rng.uniform(20, 80)
            frame = (x, y, x + w, min(y + h, horizon))
            draw.rectangle(frame, fill=_tint(rng, 0.6, 0.7), outline=_tint(rng, 0.3), width=2)
    floor = _tint(rng, 0.5, 0.5)
    image.paste(_gradient((width, height - horizon), [0.8 * c for c in floor], floor), (0, horizon))
    if rng.random() < 0.5:
        line = tuple(int(0.75 * c) for c in floor)
        for x in np.arange(-width, 2 * width, rng.uniform(25, 60)):
            draw.line((width / 2 + (x - width / 2) * 0.5, horizon, x, height), fill=line)
    draw.line((0, horizon, width, horizon), fill=_tint(rng, 0.35), width=3)
    return image


def _blobs(rng, size):
    """An image of random shapes, without ground."""
    image = _gradient(size, _tint(rng, 0.6, 0.6), _tint(rng, 0.6, 0.6))
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(5, 30)):
        x, y = rng.uniform(0, size[0]), rng.uniform(0, size[1])
        r, q = rng.uniform(8, 60, 2)
        shape = draw.ellipse if rng.random() < 0.6 else draw.rectangle
        shape((x - r, y - q, x + r, y + q), fill=_tint(rng, 0.55, 0.6))
    return image


def make_background(rng, size):
    """float32 [3, H, W] background, 0..255; size is (width, height) in pixels."""
    horizon = int(size[1] * rng.uniform(0.35, 0.75))
    draw = rng.random()
    if draw < 0.45:
        image = _outdoors(rng, size, horizon)
    elif draw < 0.75:
        image = _indoors(rng, size, horizon)
    elif draw < 0.9:
        image = _blobs(rng, size)
    else:
        image = _gradient(size, _tint(rng, 0.7), _tint(rng, 0.5))
    image = image.filter(ImageFilter.BoxBlur(rng.uniform(0.5, 1.8)))
    rgb = np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1), dtype=np.float32)
    grain = rng.uniform(0.5, 4)
    coarse = rng.normal(128, 50, (size[1] // 5, size[0] // 5)).clip(0, 255).astype(np.uint8)
    texture = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BILINEAR), np.float32)
    rgb += (texture - 128) * (grain / 30)
    return rgb


def choose_light(rng):
    """A random `Light`."""
    angle = math.radians(rng.uniform(-70, 70))
    flat = rng.uniform(0.5, 0.85)
    ambient = rng.uniform(0.4, 0.65)
    direction = (flat * math.sin(angle), -flat * math.cos(angle), math.sqrt(1 - flat * flat))
    return Light(direction, ambient, 1.12 - ambient)


def draw_object(canvas, rng, x, y, size, depth):
    """Draws furniture, a pole, a bush or a ball.

    Args:
        canvas: `Canvas`.
        rng: NumPy generator, which chooses kind, colour and shape.
        x, y: the middle in pixels.
        size: approximate size in pixels.
        depth: depth in pixels.
    """
    kind = rng.integers(4)
    colour = np.array(_tint(rng, 0.55, 0.8))
    if kind == 0:
        w, h = size * rng.uniform(0.5, 1.1), size * rng.uniform(0.4, 0.9)
        canvas.slab((x - w / 2, y - h / 2, x + w / 2, y + h / 2), depth, colour, OBJECT)
        canvas.slab((x - w / 2 - 3, y - h / 2 - 4, x + w / 2 + 3, y - h / 2 + 2), depth + 5, colour * 1.15, OBJECT)
    elif kind == 1:
        slant, r = rng.uniform(-12, 12), size * rng.uniform(0.05, 0.1)
        height = canvas.depth.shape[0]
        ends = np.array([x - slant, -9, depth]), np.array([x + slant, height + 9, depth])
        canvas.solid(Solid(*ends, (r, r), colour), OBJECT)
    elif kind == 2:
        leaf = 255 * np.array(colorsys.hsv_to_rgb(rng.uniform(0.2, 0.4), 0.55, rng.uniform(0.35, 0.65)))
        for dx, dy, shade in rng.uniform(-1, 1, (9, 3)):
            centre = np.array([x + dx * size * 0.35, y + dy * size * 0.25, depth + 10 * dy])
            r = size * (0.18 + 0.05 * shade)
            canvas.solid(Solid(centre, centre, (r, r), leaf * (1 + 0.15 * shade), thick=0.5), OBJECT)
    else:
        centre = np.array([x, y, depth])
        r = size * rng.uniform(0.15, 0.3)
        canvas.solid(Solid(centre, centre, (r, r), colour * 1.2), OBJECT)
