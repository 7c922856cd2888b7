"""Generated stand-ins for the sprites: a body of one colour and shape with a grey mark of another shape."""

import colorsys
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from deepgen.world.colours import COLOURS
from deepgen.world.concepts import CONCEPTS

_OVERSAMPLE = 2
_GOLDEN_ANGLE = 137.508  # degrees: successive concepts get hues far apart
_ORDER = {name: i for i, name in enumerate(CONCEPTS)}

Point = tuple[float, float]


def _star(points: int, inner: float, turn: float = -90.0) -> list[Point]:
    """A star's outline in the unit square, radius `inner` between its points; inner = 1 is a polygon."""
    n = 2 * points if inner < 1 else points
    radii = [1.0 if i % 2 == 0 or inner >= 1 else inner for i in range(n)]
    angles = [math.radians(turn + 360 * i / n) for i in range(n)]
    return [
        (0.5 + 0.5 * r * math.cos(a), 0.5 + 0.5 * r * math.sin(a)) for r, a in zip(radii, angles, strict=True)
    ]


def _heart() -> list[Point]:
    turns = [math.radians(6 * i) for i in range(60)]
    return [
        (
            0.5 + math.sin(t) ** 3 / 2,
            0.48 - (13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 34,
        )
        for t in turns
    ]


SHAPES: dict[str, list[Point]] = {
    "circle": _star(48, 1),
    "square": [(0, 0), (1, 0), (1, 1), (0, 1)],
    "triangle": [(0.5, 0), (1, 1), (0, 1)],
    "diamond": _star(4, 1),
    "star": _star(5, 0.42),
    "pentagon": _star(5, 1),
    "hexagon": _star(6, 1, 0),
    "burst": _star(12, 0.7),
    "cross": _star(4, 0.35, 45),
    "heart": _heart(),
    "bar": [(0.3, 0), (0.7, 0), (0.7, 1), (0.3, 1)],
    "arrow": [(0, 0.3), (0.5, 0.3), (0.5, 0), (1, 0.5), (0.5, 1), (0.5, 0.7), (0, 0.7)],
    "dome": [(x, 0.3 + y) for x, y in _star(48, 1, 180)[:25]],
    "wedge": [(0, 0), (1, 0), (0, 1)],
    "trapezium": [(0.25, 0), (0.75, 0), (1, 1), (0, 1)],
}


def shape_picture(concept: str, style: str, side: int) -> NDArray[np.uint8]:
    """The stand-in of a concept: uint8 [side, side, 4]; "3d" is shaded from top to bottom, "noto" from left to right,
    "cartoon" has a contour.

    No two concepts have the same body and mark. Its hue is the concept's natural colour where it has one.
    """
    index, natural = _ORDER[concept], CONCEPTS[concept].natural
    outlines = list(SHAPES.values())
    row, column = divmod(index, len(outlines))
    body, mark = outlines[column], outlines[row % len(outlines)]
    grey = 235 if row < len(outlines) else 70
    if natural is None:
        hue, saturation, value = (index * _GOLDEN_ANGLE) % 360, 0.8, 0.85
    else:
        hue, saturation, value = COLOURS[natural].hue, COLOURS[natural].saturation, COLOURS[natural].value
    rgb = [round(255 * c) for c in colorsys.hsv_to_rgb(hue / 360, saturation, value)]

    big = side * _OVERSAMPLE
    image = Image.new("RGBA", (big, big))
    draw = ImageDraw.Draw(image)
    corners = [(x * (big - 1), y * (big - 1)) for x, y in body]
    draw.polygon(corners, (*rgb, 255), (32, 32, 32, 255) if style == "cartoon" else None, max(1, big // 32))
    draw.polygon(
        [((0.36 + 0.28 * x) * big, (0.4 + 0.28 * y) * big) for x, y in mark], fill=(grey, grey, grey, 255)
    )
    picture = np.array(image.resize((side, side), Image.Resampling.BOX))
    if style in ("3d", "noto"):
        shade = np.linspace(1.1, 0.75, side, dtype=np.float32)
        across = shade[:, None, None] if style == "3d" else shade[None, :, None]
        picture[..., :3] = (picture[..., :3] * across).clip(0, 255)
    return picture
