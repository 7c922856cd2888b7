"""What a call returns, and how a picture reaches the disk with the record of how it was made."""

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.utils import BaseOutput
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from deepgen.errors import InputError

METADATA_KEY = "deepgen"
OUTPUT_TYPES = ("pil", "np", "pt", "latent")


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


def stack_if_same(tensors: list[torch.Tensor]) -> torch.Tensor | list[torch.Tensor]:
    """One tensor where all shapes agree, otherwise the list as it is."""
    return torch.stack(tensors) if len({t.shape for t in tensors}) == 1 else tensors


def save_png(image: Image.Image, path: Path, metadata: dict[str, Any]) -> None:
    """Write the PNG with `metadata` as JSON in the iTXt chunk `deepgen`.

    The file appears whole or not at all: it is written under a temporary name in the same folder and renamed.
    """
    info = PngInfo()
    info.add_itxt(METADATA_KEY, json.dumps(metadata, ensure_ascii=False))
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as file:
            image.save(file, format="PNG", pnginfo=info)
        # mkstemp makes the file private; give it what an ordinary new file would have.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def read_metadata(path: Path) -> dict[str, Any]:
    """The record that `save_png` left in a picture. Raises InputError where there is none."""
    with Image.open(path) as image:
        text = image.info.get(METADATA_KEY)
    if text is None:
        raise InputError(f"{path}: holds no {METADATA_KEY!r} metadata")
    return dict(json.loads(text))
