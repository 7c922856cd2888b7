"""The drawings of the picture world: packing them, reading them, and giving them at any size and colour.

The art is Microsoft's Fluent emoji (MIT) and Google's Noto emoji (Apache 2.0), fetched by `deepgen world fetch`;
tests and examples can use `Sprites.procedural()` instead, which needs no files.
"""

import io
import re
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from deepgen.errors import DataError, InputError
from deepgen.world.colours import COLOURS, dominant_hue, nearest_colour, recolour
from deepgen.world.concepts import CONCEPTS, Concept
from deepgen.world.shapes import shape_picture

__all__ = ["COLOURS", "SIDE", "STYLES", "Sprites", "default_path", "drawings", "ink", "pack", "square"]

SIDE = 192
"""Width and height in pixels of a packed sprite."""
STYLES = ("3d", "flat", "cartoon", "noto")
"""The styles that scenes are drawn in. "cartoon" is the flat drawing with its contours inked. The order is that of
the classes of trained detectors: append, never insert."""

_MARGIN = 2  # pixels left free around the drawing in the packed square
_RENDER_SIDE = 384  # SVG drawings are rendered larger than needed, then cropped and scaled down
_OPAQUE = 8  # alpha values below this do not count as drawing when it is cropped
_INK = (
    'stroke="#202020" stroke-width="0.6" stroke-linejoin="round"'  # of 32 units; a grey, which keeps its hue
)
# The concepts' natural colours are those of Fluent's drawings; these styles are painted in them where they differ.
_REPAINTED = ("noto",)
# Larger drawings (soft shading, whose source is mostly lossy itself) are stored lossy: the file travels to training.
_LOSSLESS_BYTES = 12_000

Picture = NDArray[np.uint8]


class Sprites:
    """Drawings by concept, style, colour and size.

    Results of `get` are kept, the least recently used dropped beyond `cache_mb`, and are read-only.
    """

    def __init__(self, encoded: Mapping[tuple[str, str], bytes] | None, cache_mb: int = 1024):
        """encoded: WebP bytes by (concept, style), or None for procedural shapes."""
        self._encoded = encoded
        self._cache: OrderedDict[tuple[str, str, str | None, int], Picture] = OrderedDict()
        self._room = cache_mb * 2**20

    @classmethod
    def load(cls, path: str | Path, cache_mb: int = 1024) -> "Sprites":
        """Reads a file written by `pack`.

        Raises InputError if there is none, DataError if it is damaged or lacks a concept's drawing.
        """
        path = Path(path)
        if not path.is_file():
            raise InputError(f"no sprites at {path}: run `deepgen world fetch` first")
        try:
            with zipfile.ZipFile(path) as archive:
                wanted = {(c.name, style): _entry(style, c) for c in CONCEPTS.values() for style in STYLES}
                missing = sorted(set(wanted.values()) - set(archive.namelist()))
                if missing:
                    raise DataError(f"{path} lacks {_some(missing)}: run `deepgen world fetch` again")
                encoded = {key: archive.read(name) for key, name in wanted.items()}
        except (zipfile.BadZipFile, OSError) as error:
            raise DataError(f"{path} is damaged ({error}): run `deepgen world fetch` again") from error
        return cls(encoded, cache_mb)

    @classmethod
    def procedural(cls, cache_mb: int = 64) -> "Sprites":
        """Generated shapes that stand for the concepts, each concept with its own; they need no file."""
        return cls(None, cache_mb)

    def get(self, concept: str, style: str, colour: str | None = None, size: int = SIDE) -> Picture:
        """The drawing, uint8 [size, size, 4], RGBA not premultiplied, read-only.

        colour: a key of COLOURS; None, and the concept's natural colour, give the drawing as it is.
        Raises InputError for an unknown concept, style, colour or a size below 1.
        """
        key = (concept, style, colour, size)
        kept = self._cache.get(key)
        if kept is None:
            return self._make(key)
        self._cache.move_to_end(key)
        return kept

    def _make(self, key: tuple[str, str, str | None, int]) -> Picture:
        concept, style, colour, size = key
        if size < 1:
            raise InputError(f"sprite size must be at least 1, not {size}")
        if size == SIDE:
            picture = self._original(concept, style, colour)
        else:
            # PIL multiplies RGBA by alpha before it filters and divides afterwards: no dark fringes.
            original = Image.fromarray(self.get(concept, style, colour, SIDE))
            picture = np.array(original.resize((size, size), Image.Resampling.BICUBIC))
        picture.flags.writeable = False
        self._cache[key] = picture
        self._room -= picture.nbytes
        while self._room < 0 and len(self._cache) > 1:
            self._room += self._cache.popitem(last=False)[1].nbytes
        return picture

    def _original(self, concept: str, style: str, colour: str | None) -> Picture:
        if concept not in CONCEPTS:
            raise InputError(f"the world has no concept {concept!r}")
        if style not in STYLES:
            raise InputError(f"the world has no style {style!r}, only {', '.join(STYLES)}")
        if colour is None:
            return self._draw(concept, style)
        if colour not in COLOURS:
            raise InputError(f"unknown colour {colour!r}: one of {', '.join(COLOURS)}")
        plain = self.get(concept, style, None, SIDE)
        return plain if colour == CONCEPTS[concept].natural else recolour(plain, colour)

    def _draw(self, concept: str, style: str) -> Picture:
        if self._encoded is None:
            return shape_picture(concept, style, SIDE)
        try:
            image = Image.open(io.BytesIO(self._encoded[concept, style])).convert("RGBA")
        except (UnidentifiedImageError, OSError) as error:
            raise DataError(
                f"the drawing of {concept!r} in style {style!r} is damaged: run `deepgen world fetch` again"
            ) from error
        return np.array(image)


def default_path() -> Path:
    """Where `deepgen world fetch` puts the sprites unless told otherwise."""
    return Path.home() / ".cache" / "deepgen" / "sprites.zip"


def pack(folder: str | Path, destination: str | Path) -> Path:
    """Packs the concepts' drawings, `folder/STYLE/*.webp|svg|png` named by code points, into one zip.

    Each becomes `STYLE/CODE.webp`, 192×192 RGBA, cropped to what is drawn, and in the concept's natural colour.
    Equal input gives an equal file. Raises DataError naming the drawings that are missing.
    """
    destination = Path(destination)
    destination.parent.mkdir(parents=True, exist_ok=True)
    files = {style: drawings(Path(folder) / style) for style in STYLES}
    partial = destination.with_suffix(".partial")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:  # WebPs are compressed already
        for style, index in files.items():
            for concept in CONCEPTS.values():
                image = square(_read(index[concept.code]))
                if style in _REPAINTED:
                    image = _in_natural_colour(image, concept)
                entry = zipfile.ZipInfo(_entry(style, concept), (1980, 1, 1, 0, 0, 0))
                archive.writestr(entry, _encode(image))
    partial.replace(destination)
    return destination


def drawings(folder: Path) -> dict[str, Path]:
    """The file of each concept's code in a folder. Raises DataError naming those that are missing."""
    if not folder.is_dir():
        raise DataError(f"no folder of drawings at {folder}")
    found = {path.stem.lower().replace("-fe0f", ""): path for path in sorted(folder.iterdir())}
    codes = [concept.code for concept in CONCEPTS.values()]
    missing = [f"{folder.name}/{code}" for code in codes if code not in found]
    if missing:
        raise DataError(f"{folder.parent} lacks {_some(missing)}")
    return {code: found[code] for code in codes}


def ink(svg: str) -> str:
    """A Fluent flat drawing with a dark line around each of its shapes. Raises DataError for another form of file."""
    parts = re.fullmatch(r'(<svg )([^>]*viewBox=")0 0 32 (\d+)(".*)', svg, re.DOTALL)
    if parts is None:
        raise DataError("a flat drawing is not 32 units wide: is this the package that was expected?")
    start, before, height, rest = parts.groups()
    # One unit more on each side: room for the lines of shapes that touch the edge.
    return f"{start}{_INK} {before}-1 -1 34 {int(height) + 2}{rest}"


def square(image: Image.Image) -> Image.Image:
    """An RGBA drawing, cropped to what is drawn and centred in a SIDE×SIDE square with a small margin.

    So an object's size is the longer side of what is seen. Raises DataError for an empty drawing.
    """
    box = image.getchannel("A").point(lambda alpha: 255 if alpha >= _OPAQUE else 0).getbbox()
    if box is None:
        raise DataError("a drawing is empty")
    drawn = image.crop(box)
    scale = (SIDE - 2 * _MARGIN) / max(drawn.size)
    width, height = (max(1, round(side * scale)) for side in drawn.size)
    drawn = drawn.resize((width, height), Image.Resampling.BICUBIC)
    out = Image.new("RGBA", (SIDE, SIDE))
    out.paste(drawn, ((SIDE - width) // 2, (SIDE - height) // 2))
    return out


def _entry(style: str, concept: Concept) -> str:
    return f"{style}/{concept.code}.webp"


def _encode(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "WEBP", lossless=True, quality=60, method=3)
    if stream.tell() > _LOSSLESS_BYTES:
        stream = io.BytesIO()
        image.save(stream, "WEBP", quality=92, method=4)
    return stream.getvalue()


def _in_natural_colour(image: Image.Image, concept: Concept) -> Image.Image:
    picture = np.array(image)
    hue = dominant_hue(picture)
    if concept.natural is None or hue is None or nearest_colour(hue) == concept.natural:
        return image
    return Image.fromarray(recolour(picture, concept.natural))


def _read(path: Path) -> Image.Image:
    if path.suffix != ".svg":
        return Image.open(path).convert("RGBA")
    try:
        import resvg_py
    except ImportError as error:
        raise InputError("packing SVG drawings needs resvg-py: pip install 'deepgen[train]'") from error
    data = resvg_py.svg_to_bytes(svg_path=str(path), width=_RENDER_SIDE, height=_RENDER_SIDE)
    return Image.open(io.BytesIO(bytes(data))).convert("RGBA")


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown or "every drawing"
