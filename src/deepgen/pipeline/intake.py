"""Pictures that users bring: opened, checked, upright, opaque RGB, and as the model's pixels."""

import functools
import os
import struct
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image

from deepgen.errors import InputError
from deepgen.pipeline.sizes import Size, check_aspect

MAX_PIXELS = 64_000_000
MAX_REFERENCES = 8

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
"""The only decoders that a user's file can reach: the others are rare, and some start other programs."""

DECODING_ERRORS = (
    *(OSError, ValueError, SyntaxError, RuntimeError, MemoryError, LookupError, struct.error),
    *(
        Image.DecompressionBombError,
        EOFError,
        zlib.error,
        TypeError,
        ArithmeticError,
        AttributeError,
        AssertionError,
    ),
)
"""What Pillow's decoders and its readers of metadata raise on broken files; they promise no type. Those of the first
row were met in 685,000 files broken at random; those of the second stand in its code."""

ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What puts a picture upright, by its EXIF orientation (EXIF 2.3, tag 0x0112)."""

Picture: TypeAlias = Image.Image | str | os.PathLike[str]
References: TypeAlias = Picture | Sequence["Picture | Sequence[Picture] | None"]


def open_picture(picture: Picture, name: str = "the image") -> Image.Image:
    """An upright, opaque RGB picture from a PIL image or a file.

    EXIF orientation is applied; 16-bit pictures keep their upper 8 bits; transparency is laid over white and of an
    animation the first frame is taken, and both are said in a warning. Raises InputError, which names the file,
    for what is missing, damaged or not a picture, for more than 64 megapixels (before anything is decoded), for
    sides beyond 8:1, and for 32-bit and floating-point pictures, whose range nobody knows.
    """
    if isinstance(picture, Image.Image):
        return _as_rgb(picture, name)
    if not isinstance(picture, str | os.PathLike):
        raise InputError(f"{name} must be a PIL image or a file's path, not {type(picture).__name__}")
    path = check_file(Path(picture))
    try:
        opened = Image.open(path, formats=_formats())
    except Image.DecompressionBombError:
        raise InputError(f"{path}: more than {MAX_PIXELS // 1_000_000} megapixels; scale it down") from None
    except Image.UnidentifiedImageError:
        raise InputError(f"{path}: not an image file that can be read ({', '.join(_formats())})") from None
    except DECODING_ERRORS as error:
        raise InputError(f"{path}: cannot be read ({_reason(error)})") from None
    with opened:
        return _as_rgb(opened, str(path))


@functools.cache
def _formats() -> tuple[str, ...]:
    """Those of FORMATS that this build of Pillow can read; asking it for another is an error."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def check_file(path: Path) -> Path:
    """The path itself. Raises InputError unless it is a file."""
    try:
        if path.is_file():
            return path
        found = path.exists()
    except OSError as error:  # such as a name that is too long
        raise InputError(f"{path}: {error.strerror}") from None
    raise InputError(f"{path}: not a file" if found else f"{path}: no such file")


def _reason(error: Exception) -> str:
    """One line on an exception of Pillow's, some of which have no words."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())


def _as_rgb(image: Image.Image, name: str) -> Image.Image:
    width, height = image.size
    if width * height == 0:
        raise InputError(f"{name}: an empty picture ({width}x{height})")
    # The size stands in the header: checked before anything is decoded.
    if width * height > MAX_PIXELS:
        raise InputError(
            f"{name}: {width}x{height} is more than {MAX_PIXELS // 1_000_000} megapixels; scale it down"
        )
    check_aspect(width, height, f"{name}:")
    try:
        image.load()
        # A photograph in MPO holds the same picture again, smaller or for the other eye.
        if getattr(image, "is_animated", False) and image.format != "MPO" and image.tell() == 0:
            _warn(f"{name}: has several frames; the first is taken")
        opaque = _over_white(_in_bytes(image, name), name)
    except InputError:
        raise
    except DECODING_ERRORS as error:
        raise InputError(f"{name}: the file is damaged or cut short ({_reason(error)})") from None
    turn = TURNS.get(_orientation(image, name))
    return opaque if turn is None else opaque.transpose(turn)


def _warn(text: str) -> None:
    """Say what was done to a picture, as coming from whoever opened it."""
    warnings.warn(text, stacklevel=5)


def _orientation(image: Image.Image, name: str) -> int:
    """The EXIF orientation, 1 to 8; 1 (upright) where there is none."""
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
    except DECODING_ERRORS as error:
        _warn(f"{name}: its EXIF data is damaged ({_reason(error)}); taken as upright")
        return 1
    return orientation if isinstance(orientation, int) else 1


def _in_bytes(image: Image.Image, name: str) -> Image.Image:
    """The picture with 8 bits a channel."""
    # Pillow scales what it reads from a PPM's "I" to 16 bits; nowhere else is the range known.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise InputError(f"{name}: 32 bits a value, in a range that is not known; save it with 8 or 16 bits")
    return image


def _over_white(image: Image.Image, name: str) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")
    if rgba.getchannel("A").getextrema()[0] == 255:
        return rgba.convert("RGB")
    _warn(f"{name}: its transparent parts are laid over white")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def references_of(image: References | None, prompts: int) -> list[list[Image.Image]]:
    """Each prompt's references, from the shapes that a call takes.

    One picture goes to every prompt. For one prompt a list holds all its references. For several prompts a
    list has one entry a prompt: a picture, a list of pictures, or None. Raises InputError.
    """
    if image is None:
        return [[] for _ in range(prompts)]
    if isinstance(image, Image.Image | str | os.PathLike):
        opened = open_picture(image)
        return [[opened] for _ in range(prompts)]
    if not isinstance(image, list | tuple):
        raise InputError(f"image must be a PIL image, a path or a list of them, not {type(image).__name__}")
    entries: list[Any] = list(image)
    nested = any(entry is None or isinstance(entry, list | tuple) for entry in entries)
    if prompts == 1 and not nested:
        entries = [entries]
    if len(entries) != prompts:
        raise InputError(
            f"{len(entries)} images for {prompts} prompts; give one entry a prompt "
            "(a picture, or a list of its pictures)"
        )
    return [_references_of_one(entry, i) for i, entry in enumerate(entries)]


def check_count(pictures: Sequence[object], name: str) -> None:
    """Raise InputError for more reference pictures than a prompt can have."""
    if len(pictures) > MAX_REFERENCES:
        raise InputError(f"{name} has {len(pictures)} reference images, at most {MAX_REFERENCES} work")


def _references_of_one(entry: Any, index: int) -> list[Image.Image]:
    if entry is None:
        return []
    pictures = list(entry) if isinstance(entry, list | tuple) else [entry]
    check_count(pictures, f"prompt {index + 1}")
    return [open_picture(p, f"image {i + 1} of prompt {index + 1}") for i, p in enumerate(pictures)]


def to_pixels(image: Image.Image, size: Size) -> torch.Tensor:
    """The RGB picture as float32 [3, H, W] in [-1, 1], resized (bicubic) to `size`, (width, height)."""
    resized = image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)
    array = np.array(resized, dtype=np.float32)
    return torch.from_numpy(array).permute(2, 0, 1).div_(127.5).sub_(1.0)
