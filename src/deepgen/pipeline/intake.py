"""Pictures that users bring: opened, checked, upright, opaque RGB, and as the model's pixels."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image, ImageOps

from deepgen.errors import InputError
from deepgen.pipeline.sizes import check_aspect

MAX_PIXELS = 64_000_000
MAX_REFERENCES = 8

Picture: TypeAlias = Image.Image | str | os.PathLike[str]
References: TypeAlias = Picture | Sequence["Picture | Sequence[Picture] | None"]


def open_picture(picture: Picture, name: str = "the image") -> Image.Image:
    """An upright, opaque RGB picture from a PIL image or a file.

    EXIF orientation is applied, transparency is laid over white, 16-bit greys keep their upper 8 bits, and of
    an animation the first frame is taken. Raises InputError, which names the file, for what is missing,
    damaged or not a picture, for more than 64 megapixels and for sides beyond 8:1.
    """
    if isinstance(picture, Image.Image):
        return _as_rgb(picture, name)
    if not isinstance(picture, str | os.PathLike):
        raise InputError(f"{name} must be a PIL image or a file's path, not {type(picture).__name__}")
    path = Path(picture)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        with Image.open(path) as opened:
            return _as_rgb(opened, str(path))
    except Image.DecompressionBombError:
        raise InputError(f"{path}: more than {MAX_PIXELS // 1_000_000} megapixels; scale it down") from None
    except Image.UnidentifiedImageError:
        raise InputError(f"{path}: not an image file that can be read (PNG, JPEG, WEBP, ...)") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None


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
        upright = ImageOps.exif_transpose(image)
    except (OSError, SyntaxError, ValueError) as error:  # what PIL's decoders raise on broken data
        raise InputError(f"{name}: the file is damaged or cut short ({error})") from None
    if upright.mode.startswith("I;16"):
        upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
    if upright.has_transparency_data:
        rgba = upright.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return upright.convert("RGB")


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


def _references_of_one(entry: Any, index: int) -> list[Image.Image]:
    if entry is None:
        return []
    pictures = list(entry) if isinstance(entry, list | tuple) else [entry]
    if len(pictures) > MAX_REFERENCES:
        raise InputError(
            f"prompt {index + 1} has {len(pictures)} reference images, at most {MAX_REFERENCES} work"
        )
    return [open_picture(p, f"image {i + 1} of prompt {index + 1}") for i, p in enumerate(pictures)]


def to_pixels(image: Image.Image, size: tuple[int, int]) -> torch.Tensor:
    """The RGB picture as float32 [3, H, W] in [-1, 1], resized (bicubic) to `size`, (width, height)."""
    resized = image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)
    array = np.array(resized, dtype=np.float32)
    return torch.from_numpy(array).permute(2, 0, 1).div_(127.5).sub_(1.0)
