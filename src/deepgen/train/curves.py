"""Curves of a run's metrics as one picture, drawn with PIL."""

import math
from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT, MARGIN, LEFT = 480, 260, 28, 64
COLOURS = ((31, 90, 180), (210, 90, 20), (30, 140, 60), (150, 40, 150), (120, 120, 30), (60, 60, 60))
HIDDEN = ("step",)

Series = Mapping[str, Sequence[tuple[float, float]]]


def series_of(records: Sequence[Mapping[str, object]]) -> dict[str, list[tuple[float, float]]]:
    """(step, value) of every number in the records, by name."""
    found: dict[str, list[tuple[float, float]]] = {}
    for record in records:
        step = record.get("step")
        if not isinstance(step, int):
            continue
        for name, value in record.items():
            if name not in HIDDEN and isinstance(value, int | float) and not isinstance(value, bool):
                found.setdefault(name, []).append((float(step), float(value)))
    return found


def panels_of(series: Series) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Curves that belong together: those with the same name up to the first slash."""
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for name, points in series.items():
        panels.setdefault(name.split("/")[0], {})[name] = list(points)
    return panels


def draw_curves(series: Series) -> Image.Image:
    """One panel a group of curves, in two columns; a curve of one point is a dot."""
    panels = panels_of(series)
    rows = max(1, math.ceil(len(panels) / 2))
    sheet = Image.new("RGB", (2 * WIDTH, rows * HEIGHT), "white")
    for number, curves in enumerate(panels.values()):
        sheet.paste(_panel(curves), (number % 2 * WIDTH, number // 2 * HEIGHT))
    return sheet


def _panel(curves: Series) -> Image.Image:
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(10)
    points = [p for curve in curves.values() for p in curve]
    x_low, x_high = _range([x for x, _ in points])
    y_low, y_high = _range([y for _, y in points])
    box = (LEFT, MARGIN, WIDTH - MARGIN, HEIGHT - MARGIN)
    pen.rectangle(box, outline=(180, 180, 180))

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_low) / (x_high - x_low)
        up = (y - y_low) / (y_high - y_low)
        return box[0] + across * (box[2] - box[0]), box[3] - up * (box[3] - box[1])

    for share in (0.0, 0.5, 1.0):
        value = y_low + share * (y_high - y_low)
        pen.text((4, place(x_low, value)[1] - 6), f"{value:.4g}", fill=(0, 0, 0), font=font)
    pen.text((box[0], box[3] + 4), f"{x_low:.0f}", fill=(0, 0, 0), font=font)
    pen.text((box[2] - 30, box[3] + 4), f"{x_high:.0f}", fill=(0, 0, 0), font=font)
    left = LEFT
    for number, (name, curve) in enumerate(curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        pen.text((left, 8), name, fill=colour, font=font)
        left += 8 + int(font.getlength(name))
        places = [place(x, y) for x, y in curve]
        if len(places) > 1:
            pen.line(places, fill=colour, width=2)
        else:
            x, y = places[0]
            pen.ellipse((x - 2, y - 2, x + 2, y + 2), fill=colour)
    return image


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)
