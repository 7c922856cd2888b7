"""The record of how a picture was made: kept in its file, and enough to draw it again."""

import hashlib
from typing import Any

import torch
from PIL import Image
from torch import nn

from deepgen.pipeline.inputs import Request

HASHED_VALUES = 64


def weights_hash(model: nn.Module) -> str:
    """A short hash that tells checkpoints apart: of every tensor's name, shape and first 64 values."""
    state = sorted(model.state_dict().items())
    digest = hashlib.sha256("".join(f"{name} {tuple(value.shape)}\n" for name, value in state).encode())
    # Those of one device come over together: a copy of each would wait for an accelerator a thousand times.
    by_device: dict[torch.device, list[int]] = {}
    for i, (_, value) in enumerate(state):
        if not value.is_meta:
            by_device.setdefault(value.device, []).append(i)
    heads: dict[int, torch.Tensor] = {}
    for places in by_device.values():
        parts = [state[i][1].flatten()[:HASHED_VALUES].float() for i in places]
        together = torch.cat(parts).cpu()
        heads.update(zip(places, together.split([len(part) for part in parts]), strict=True))
    for i in sorted(heads):
        digest.update(heads[i].numpy().tobytes())
    return digest.hexdigest()[:16]


def picture_hash(picture: Image.Image) -> str:
    """SHA-256 of an RGB picture's size and pixels, whatever file it came from."""
    return hashlib.sha256(f"{picture.width}x{picture.height} ".encode() + picture.tobytes()).hexdigest()


def record_of(request: Request, with_negative: bool) -> dict[str, Any]:
    """What is particular to the pictures of one request, but for the seed."""
    return {
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt if with_negative else None,
        "width": request.width,
        "height": request.height,
        "reference_sizes": [list(picture.size) for picture in request.references],
        "reference_sha256": [picture_hash(picture) for picture in request.references],
    }
