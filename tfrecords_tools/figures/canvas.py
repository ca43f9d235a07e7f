"""Draws shaded solids on an image with a depth buffer, and numbers the body parts."""

import dataclasses
import math

import numpy as np

# Body parts that a pixel can show. Parts of limbs have two numbers: base + 0 left, base + 1 right.
HEAD, HAIR, NOSE, MOUTH, NECK, CHEST, PELVIS, SKIRT, PACK = range(9)
EYE, EAR, UPPER_ARM, LOWER_ARM, HAND, UPPER_LEG, LOWER_LEG, FOOT = range(10, 26, 2)
# The owner of a pixel is PERSON_STRIDE * (person + 1) + part, or NOTHING or OBJECT.
PERSON_STRIDE = 32
NOTHING, OBJECT = 0, 1
# Distance in depth between persons, in pixels; much more than the depth of a person.
PERSON_DEPTH = 1e4


@dataclasses.dataclass
class Solid:
    """A tapered, rounded solid around an axis.

    Attributes:
        start, end: [3] ends of the axis: x, y and depth in pixels, depth towards the viewer.
        radius: (at start, at end) half width across the axis in pixels.
        colour: RGB, 0..255.
        part: the body part.
        bulge: pixels added to the half width in the middle.
        thick: half depth as a multiple of the half width.
        cap: factor by which the ends are flatter than a circle.
        trim: second colour, used where `cut` and `bands` place it.
        cut: fraction of the axis where the second colour starts.
        bands: number of bands of alternating colours along the axis; 0: none.
    """

    start: np.ndarray
    end: np.ndarray
    radius: tuple
    colour: tuple
    part: int = 0
    bulge: float = 0.0
    thick: float = 1.0
    cap: float = 1.0
    trim: tuple | None = None
    cut: float = 2.0
    bands: int = 0


@dataclasses.dataclass
class Light:
    """One distant lamp and ambient light.

    Attributes:
        direction: unit vector towards the lamp (x right, y down, depth to the viewer).
        ambient, diffuse: brightness of the ambient light and of the lamp.
    """

    direction: tuple
    ambient: float
    diffuse: float


class Canvas:
    """The image that is being drawn.

    Attributes:
        rgb: float32 [3, H, W], 0..255.
        depth: float32 [H, W] in pixels; larger is nearer.
        owner: int16 [H, W]: NOTHING, OBJECT, or PERSON_STRIDE * (person + 1) + part.
    """

    def __init__(self, rgb, light):
        self.rgb = rgb
        self.depth = np.full(rgb.shape[1:], -1e9, np.float32)
        self.owner = np.full(rgb.shape[1:], NOTHING, np.int16)
        self.light = light

    def _window(self, x0, y0, x1, y1):
        height, width = self.depth.shape
        x0, y0 = max(int(x0), 0), max(int(y0), 0)
        x1, y1 = min(int(x1) + 1, width), min(int(y1) + 1, height)
        return None if x0 >= x1 or y0 >= y1 else (slice(y0, y1), slice(x0, x1))

    def _grid(self, window):
        rows, columns = window
        x = np.arange(columns.start, columns.stop, dtype=np.float32) + 0.5
        y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] + 0.5
        return x, y

    def solid(self, solid, owner):
        """Draws a `Solid` where nothing is nearer, with smooth edges."""
        (ax, ay, az), (bx, by, bz) = solid.start.tolist(), solid.end.tolist()
        ra, rb = solid.radius
        reach = max(ra, rb) + abs(solid.bulge) + 1
        window = self._window(min(ax, bx) - reach, min(ay, by) - reach, max(ax, bx) + reach, max(ay, by) + reach)
        if window is None:
            return
        length = math.hypot(bx - ax, by - ay)
        # An axis along the line of sight has no direction in the image: use any.
        ux, uy = ((bx - ax) / length, (by - ay) / length) if length > 1e-3 else (0.0, 1.0)
        length = max(length, 1e-3)
        x, y = self._grid(window)
        x, y = x - ax, y - ay
        along = x * ux + y * uy
        across = y * ux - x * uy
        t = np.clip(along * (1 / length), 0, 1)
        radius = ra + (rb - ra) * t
        if solid.bulge:
            radius += (4 * solid.bulge) * t * (1 - t)
        beyond = (along - t * length) * solid.cap
        distance = np.sqrt(across * across + beyond * beyond)
        s = np.minimum(distance / radius, 1)
        facing = np.sqrt(1 - s * s)
        lx, ly, lz = self.light.direction
        lit = (across * (ly * ux - lx * uy) + beyond * (lx * ux + ly * uy)) / np.maximum(radius, distance) + facing * lz
        shade = self.light.ambient + self.light.diffuse * np.maximum(lit, 0)
        surface = az + (bz - az) * t + radius * solid.thick * facing
        colour = np.array(solid.colour, np.float32)[:, None, None]
        if solid.trim is not None:
            trim = np.array(solid.trim, np.float32)[:, None, None]
            colour = np.where((t > solid.cut) | ((t * solid.bands).astype(np.int8) % 2 == 1), trim, colour)
        self._blend(window, np.clip(radius - distance + 0.5, 0, 1), surface, colour * shade, owner)

    def slab(self, box, depth, colour, owner):
        """Draws an upright board, shaded across its width.

        Args:
            box: (x0, y0, x1, y1) in pixels.
            depth: depth of the board in pixels.
            colour: RGB, 0..255.
            owner: number for the owner buffer.
        """
        x0, y0, x1, y1 = box
        window = self._window(x0 - 1, y0 - 1, x1 + 1, y1 + 1)
        if window is None:
            return
        x, y = self._grid(window)
        inside = np.clip(np.minimum(x - x0, x1 - x) + 0.5, 0, 1) * np.clip(np.minimum(y - y0, y1 - y) + 0.5, 0, 1)
        side = (x - (x0 + x1) / 2) / max(x1 - x0, 1) * self.light.direction[0]
        shade = np.broadcast_to(self.light.ambient + self.light.diffuse * (0.7 + 0.5 * side), inside.shape)
        surface = np.full_like(inside, depth)
        self._blend(window, inside, surface, np.array(colour, np.float32)[:, None, None] * shade, owner)

    def shadow(self, x, y, width, height, strength):
        """Darkens the image in a soft ellipse.

        Args:
            x, y: the middle in pixels.
            width, height: half axes in pixels.
            strength: part of the light that the middle loses, 0..1.
        """
        window = self._window(x - 2 * width, y - 2 * height, x + 2 * width, y + 2 * height)
        if window is not None:
            gx, gy = self._grid(window)
            dark = np.exp(-(((gx - x) / width) ** 2)) * np.exp(-(((gy - y) / height) ** 2))
            self.rgb[(slice(None), *window)] *= 1 - strength * dark

    def _blend(self, window, cover, surface, colour, owner):
        depth = self.depth[window]
        # A transition of one pixel in depth makes the seams between solids smooth.
        cover = cover * np.clip((surface - depth) * 0.5 + 0.5, 0, 1)
        rgb = self.rgb[(slice(None), *window)]
        rgb += cover * (colour - rgb)
        shown = cover > 0.5
        np.copyto(depth, surface, where=shown)
        np.copyto(self.owner[window], np.int16(owner), where=shown)
