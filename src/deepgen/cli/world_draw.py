"""What `deepgen world draw` and `deepgen world sheet` do."""

import json
import random
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from deepgen.errors import InputError
from deepgen.world.draw import draw
from deepgen.world.sampling import EditSample, Sample, draw_edit, draw_sample
from deepgen.world.sprites import Sprites, default_path

_TILE, _TEXT = 200, 56


@dataclass(frozen=True)
class DrawOptions:
    """kinds: some of CATEGORIES (of EDIT_KINDS with `edits`), taken in turn; none means all, as often as they
    are trained on.

    sprites: the packed sprites; None for the file that `deepgen world fetch` writes.
    """

    count: int = 16
    seed: int = 0
    split: str = "train"
    kinds: Sequence[str] = ()
    edits: bool = False
    sprites: Path | None = None


def draw_world(destination: Path, options: DrawOptions) -> list[Path]:
    """Write numbered PNG files (sources and target of an edit side by side) and `prompts.jsonl`, a line each.

    Returns the paths of the pictures; raises InputError for an unknown kind or split, or without sprites.
    """
    sprites = _sprites(options)
    destination.mkdir(parents=True, exist_ok=True)
    paths, lines = [], []
    for number, sample in enumerate(_samples(options)):
        path = destination / f"{number:05d}.png"
        Image.fromarray(_picture(sample, sprites)).save(path)
        paths.append(path)
        scenes = {"scene": sample.scene.to_json()} if isinstance(sample, Sample) else _edit_scenes(sample)
        record = {
            "file": path.name,
            "category": sample.category,
            "split": sample.split,
            "prompt": _text(sample),
        }
        lines.append(json.dumps({**record, **scenes}))
    (destination / "prompts.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return paths


def draw_sheet(destination: Path, options: DrawOptions, columns: int = 6) -> Path:
    """Write one PNG with all samples in a grid, each above its prompt; edits take two tiles."""
    sprites = _sprites(options)
    tiles = [(_picture(sample, sprites), _text(sample)) for sample in _samples(options)]
    wide = max(picture.shape[1] for picture, _ in tiles) > 320
    span = 2 * _TILE if wide else _TILE
    columns = max(1, columns // (2 if wide else 1))
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (columns * (span + 8) + 8, rows * (_TILE + _TEXT) + 8), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for number, (picture, text) in enumerate(tiles):
        left, top = (number % columns) * (span + 8) + 8, (number // columns) * (_TILE + _TEXT) + 8
        image = Image.fromarray(picture)
        image.thumbnail((span, _TILE), Image.Resampling.LANCZOS)
        sheet.paste(image, (left, top))
        pen.rectangle((left - 1, top - 1, left + image.width, top + image.height), outline="#cccccc")
        lines = textwrap.wrap(text, span // 6)[:3]
        pen.multiline_text((left, top + _TILE + 3), "\n".join(lines), fill="black", font=font, spacing=2)
    destination.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(destination)
    return destination


def _sprites(options: DrawOptions) -> Sprites:
    return Sprites.load(options.sprites or default_path())


def _samples(options: DrawOptions) -> list[Sample | EditSample]:
    if options.count < 1:
        raise InputError(f"count must be at least 1, not {options.count}")
    rng = random.Random(options.seed)
    samples: list[Sample | EditSample] = []
    for number in range(options.count):
        kinds = (options.kinds[number % len(options.kinds)],) if options.kinds else None
        take = draw_edit if options.edits else draw_sample
        samples.append(take(rng, options.split, kinds))
    return samples


def _picture(sample: Sample | EditSample, sprites: Sprites) -> NDArray[np.uint8]:
    if isinstance(sample, Sample):
        return draw(sample.scene, sprites)
    first, *rest = (draw(scene, sprites) for scene in (*sample.pictures, sample.target))
    gap = np.full((first.shape[0], 8, 3), 255, dtype=np.uint8)
    return np.concatenate([first, *(part for picture in rest for part in (gap, picture))], axis=1)


def _edit_scenes(sample: EditSample) -> dict[str, object]:
    return {
        "references": [scene.to_json() for scene in sample.references],
        "source": sample.source.to_json(),
        "target": sample.target.to_json(),
        "region": [list(box) for box in sample.region],
    }


def _text(sample: Sample | EditSample) -> str:
    return sample.prompt if isinstance(sample, Sample) else sample.instruction
