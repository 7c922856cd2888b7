"""Sheets of pictures for the eye: what was asked, what came, and whether it is right."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont


@dataclass(frozen=True)
class Panel:
    """A picture of a sheet: files shown side by side, what was asked, and what came of it."""

    pictures: tuple[Path, ...]
    prompt: str
    right: bool
    faults: tuple[str, ...]


_THUMB, _TEXT, _GAP = 160, 57, 8
_TALL = _THUMB + _TEXT + _GAP
_GREEN, _RED = (30, 150, 60), (210, 40, 40)


def draw_sheet(panels: Sequence[Panel], path: Path, columns: int = 6) -> None:
    """A PNG of the panels: each picture under a bar and a mark, green where right, with prompt and faults.

    `columns` is how many panels of one picture fit beside each other.
    """
    places = _flow([len(panel.pictures) for panel in panels], columns)
    wide = max(left + _THUMB * len(panel.pictures) for panel, (left, _) in zip(panels, places, strict=True))
    sheet = Image.new("RGB", (wide + _GAP, places[-1][1] + _TALL), "white")
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(10)
    for panel, (left, top) in zip(panels, places, strict=True):
        colour = _GREEN if panel.right else _RED
        wide = _THUMB * len(panel.pictures)
        pen.rectangle((left, top, left + wide - 1, top + 4), fill=colour)
        for place, file in enumerate(panel.pictures):
            with Image.open(file) as picture:
                picture.thumbnail((_THUMB - 2, _THUMB - 8))
                sheet.paste(picture, (left + place * _THUMB, top + 6))
        _mark(pen, (left, top + _THUMB + 2), panel.right)
        words = [*_wrap(panel.prompt, 5.0, wide - 18), "; ".join(panel.faults)]
        for line, text in enumerate(words[:5]):
            fill = _RED if line == len(words) - 1 else (0, 0, 0)
            pen.text((left + 16, top + _THUMB + 11 * line), text[: int(wide / 5.0)], fill=fill, font=font)
    sheet.save(path)


def _flow(pictures: Sequence[int], columns: int) -> list[tuple[int, int]]:
    """Left and top of panels of so many pictures each, set like words of a text."""
    places, left, top, room = [], _GAP, _GAP, columns * (_THUMB + _GAP)
    for many in pictures:
        wide = _THUMB * many
        if left > _GAP and left + wide > room:
            left, top = _GAP, top + _TALL
        places.append((left, top))
        left += wide + _GAP
    return places


def _mark(pen: ImageDraw.ImageDraw, corner: tuple[int, int], right: bool) -> None:
    """A tick or a cross of 11 pixels, drawn: the font that PIL carries has neither."""
    x, y = corner
    if right:
        pen.line([(x, y + 6), (x + 4, y + 10), (x + 11, y)], fill=_GREEN, width=2)
    else:
        pen.line([(x, y), (x + 10, y + 10)], fill=_RED, width=2)
        pen.line([(x, y + 10), (x + 10, y)], fill=_RED, width=2)


def _wrap(text: str, letter: float, width: int) -> list[str]:
    """The text in at most four lines of about `width` pixels."""
    lines = [""]
    for word in text.split():
        if lines[-1] and (len(lines[-1]) + 1 + len(word)) * letter > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines[:4]
