"""Results of a benchmark as a JSON file, a Markdown table and sheets of pictures."""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from deepgen.errors import DataError
from deepgen.evaluation.stats import Interval, cluster_bootstrap

SCORES_FILE, RESULTS_FILE, TABLE_FILE = "scores.jsonl", "results.json", "results.md"


@dataclass(frozen=True)
class Score:
    """The verdict on one picture. `psnr` in dB, where the category measures it."""

    id: str
    category: str
    take: int
    seed: int
    right: bool
    faults: tuple[str, ...]
    psnr: float | None = None


@dataclass(frozen=True)
class CategoryResult:
    """The share of right pictures of a category; no interval where the model was not trained for it."""

    category: str
    right: Interval | None
    psnr: Interval | None


def write_scores(scores: Iterable[Score], folder: Path) -> None:
    lines = [json.dumps(asdict(score), ensure_ascii=False) + "\n" for score in scores]
    (folder / SCORES_FILE).write_text("".join(lines), encoding="utf-8")


def read_scores(folder: Path) -> list[Score]:
    """Raises DataError where the folder was not scored."""
    path = folder / SCORES_FILE
    if not path.is_file():
        raise DataError(f"{path}: missing; run the benchmark's scoring first")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [Score(**{**row, "faults": tuple(row["faults"])}) for row in rows]


def summarise(scores: Sequence[Score], categories: Sequence[str]) -> list[CategoryResult]:
    """Each category with its bootstrap over prompts, in the order given; without scores, untrained."""
    right: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    psnr: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for score in scores:
        right[score.category][score.id].append(float(score.right))
        if score.psnr is not None:
            psnr[score.category][score.id].append(score.psnr)

    def interval(values: dict[str, dict[str, list[float]]], category: str) -> Interval | None:
        clusters = list(values[category].values())
        return cluster_bootstrap(clusters) if clusters else None

    return [CategoryResult(name, interval(right, name), interval(psnr, name)) for name in categories]


def write_results(folder: Path, header: dict[str, Any], results: Sequence[CategoryResult]) -> None:
    """`results.json` (the header and the categories) and the table as `results.md`."""
    data = header | {
        "categories": {r.category: {"right": _plain(r.right), "psnr": _plain(r.psnr)} for r in results}
    }
    (folder / RESULTS_FILE).write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    (folder / TABLE_FILE).write_text(table(results), encoding="utf-8")


def _plain(interval: Interval | None) -> dict[str, Any] | None:
    return None if interval is None else asdict(interval)


def table(results: Sequence[CategoryResult]) -> str:
    """A Markdown table: shares in percent with 95% intervals."""
    rows = [("category", "right %", "95% interval", "prompts", "pictures", "PSNR dB")]
    for result in results:
        right, psnr = result.right, result.psnr
        if right is None:
            rows.append((result.category, "not trained yet", "", "", "", ""))
            continue
        interval = f"{100 * right.low:.1f}–{100 * right.high:.1f}"
        quality = "" if psnr is None else f"{psnr.mean:.1f}"
        rows.append(
            (
                result.category,
                f"{100 * right.mean:.1f}",
                interval,
                str(right.clusters),
                str(right.values),
                quality,
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    rule = "|" + "|".join("-" * (w + 2) for w in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]]) + "\n"


@dataclass(frozen=True)
class Panel:
    """A picture of a sheet: files shown side by side, what was asked, and what came of it."""

    pictures: tuple[Path, ...]
    prompt: str
    right: bool
    faults: tuple[str, ...]


_THUMB, _TEXT, _GAP = 160, 57, 8
_GREEN, _RED = (30, 150, 60), (210, 40, 40)


def draw_sheet(panels: Sequence[Panel], path: Path, columns: int = 6) -> None:
    """A PNG of the panels: each picture under a bar and a mark, green where right, with prompt and faults."""
    most = max(len(panel.pictures) for panel in panels)
    columns = max(1, columns // most)
    wide, tall = _THUMB * most + _GAP, _THUMB + _TEXT + _GAP
    sheet = Image.new("RGB", (columns * wide + _GAP, math.ceil(len(panels) / columns) * tall + _GAP), "white")
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(10)
    for number, panel in enumerate(panels):
        left, top = _GAP + number % columns * wide, _GAP + number // columns * tall
        colour = _GREEN if panel.right else _RED
        pen.rectangle((left, top, left + wide - _GAP - 1, top + 4), fill=colour)
        for place, file in enumerate(panel.pictures):
            with Image.open(file) as picture:
                picture.thumbnail((_THUMB - 2, _THUMB - 8))
                sheet.paste(picture, (left + place * _THUMB, top + 6))
        _mark(pen, (left, top + _THUMB + 2), panel.right)
        words = [*_wrap(panel.prompt, 5.0, wide - 26), "; ".join(panel.faults)]
        for line, text in enumerate(words[:5]):
            fill = _RED if line == len(words) - 1 else (0, 0, 0)
            pen.text((left + 16, top + _THUMB + 11 * line), text[: int(wide / 5.2)], fill=fill, font=font)
    sheet.save(path)


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
