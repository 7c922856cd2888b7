"""What a call returns, and how a picture reaches the disk with the record of how it was made."""

import contextlib
import io
import json
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.utils import BaseOutput
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch.nn import functional

from deepgen.errors import InputError, OutputError
from deepgen.pipeline.intake import DECODING_ERRORS, check_file
from deepgen.pipeline.sizes import Size

METADATA_KEY = "deepgen"
OUTPUT_TYPES = ("pil", "np", "pt", "latent")
SURROGATES = re.compile("[\ud800-\udfff]")


@dataclass
class DeepGenOutput(BaseOutput):
    """The pictures of one call, and for each how to draw it again."""

    images: Any
    """pil: list of PIL images; np: float32 [n, H, W, 3] in [0, 1]; pt: float32 [n, 3, H, W] in [0, 1];
    latent: float32 [n, C, h, w]. Pictures of different sizes come as a list instead of one array."""
    metadata: list[dict[str, Any]]
    """Prompt, seed and every setting of each picture; JSON-ready."""


def to_output(pixels: list[torch.Tensor], output_type: str) -> Any:
    """Decoded pictures, each [3, H, W] in about [-1, 1], as `output_type` asks; latents are only gathered.

    All arithmetic is in float32 and rounds to the nearest level: doing it in bf16 brightens a picture.
    """
    if output_type == "latent":
        # Copies made outside inference mode are ordinary tensors, which autograd accepts.
        return stack_if_same([p.clone() for p in pixels])
    unit = [p.float().mul(0.5).add_(0.5).clamp_(0.0, 1.0).cpu() for p in pixels]
    if output_type == "pt":
        return stack_if_same(unit)
    arrays = [np.ascontiguousarray(p.permute(1, 2, 0).numpy()) for p in unit]
    if output_type == "np":
        return np.stack(arrays) if len({a.shape for a in arrays}) == 1 else arrays
    return [Image.fromarray((a * 255.0).round().astype(np.uint8)) for a in arrays]


def resize_back(pixels: torch.Tensor, size: Size) -> torch.Tensor:
    """A drawn picture [3, H, W] at exactly `size`, (width, height); float32, bicubic, antialiased.

    The inverse of how `to_pixels` brought the source here: both scale each axis linearly about pixel centres, edge
    onto edge, so that what the model left in place comes back to where it was.
    """
    if (pixels.shape[2], pixels.shape[1]) == size:
        return pixels
    batch = pixels.float().cpu()[None]
    return functional.interpolate(batch, size[::-1], mode="bicubic", antialias=True, align_corners=False)[0]


def stack_if_same(tensors: list[torch.Tensor]) -> torch.Tensor | list[torch.Tensor]:
    """One tensor where all shapes agree, otherwise the list as it is."""
    return torch.stack(tensors) if len({t.shape for t in tensors}) == 1 else tensors


def save_png(image: Image.Image, path: Path, metadata: dict[str, Any]) -> None:
    """Write the PNG with `metadata` as JSON in the iTXt chunk `deepgen`, and the folders above it.

    The file appears whole or not at all: it is encoded in memory, written under a temporary name in the same
    folder and renamed. Raises OutputError where that fails.
    """
    # The name of a file need not be UTF-8; Python holds such bytes as surrogates, and JSON can spell those.
    text = SURROGATES.sub(lambda m: f"\\u{ord(m[0]):04x}", json.dumps(metadata, ensure_ascii=False))
    info = PngInfo()
    info.add_itxt(METADATA_KEY, text)
    encoded = io.BytesIO()
    image.save(encoded, format="PNG", pnginfo=info)
    write_whole(path, encoded.getvalue())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that appears whole or not at all, and the folders above it. Raises OutputError."""
    # Not derived from the name, which may be as long as the file system allows.
    temporary = path.parent / f".{secrets.token_hex(8)}.part"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # a full disk may show only here
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        with contextlib.suppress(OSError):  # renamed, or never made
            temporary.unlink()


def check_writable(path: Path) -> None:
    """Raise OutputError where a file at `path` could not be made; called before the time of drawing is spent."""
    try:
        folder = next(parent for parent in path.absolute().parents if parent.exists())
    except OSError as error:  # such as a name that is too long
        raise OutputError(f"{path}: {error.strerror}") from None
    if not folder.is_dir():
        raise OutputError(f"{path}: {folder} is a file, not a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{path}: the folder {folder} cannot be written to; choose another output")


def read_metadata(path: Path) -> dict[str, Any]:
    """The record that `save_png` left in a picture.

    Raises InputError where the file is no picture, or there is no record in it.
    """
    try:
        with Image.open(check_file(path), formats=("PNG",)) as image:
            text = image.info.get(METADATA_KEY)
    except DECODING_ERRORS:
        raise InputError(f"{path}: not a PNG that can be read, and only those hold a record") from None
    if text is None:
        raise InputError(
            f"{path}: holds no {METADATA_KEY!r} metadata; it was not drawn here, or saved anew since"
        )
    try:
        record = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise InputError(f"{path}: its {METADATA_KEY!r} metadata is damaged")
    return record
