"""Loading the small networks that give rewards in the picture world, and showing them pictures of any sizes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from deepgen.errors import CheckpointError
from deepgen.rewards.protocol import Picture
from deepgen.scorers.identity import require_whole

AT_ONCE = 64
T = TypeVar("T")


def load_trained(kind: Any, folder: Path, stage: str, device: str) -> Any:
    """A network of a class of ours from its folder, in evaluation mode; stage: of `deepgen train` that makes it.

    Raises CheckpointError where there is none, or where tensors are missing.
    """
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"no {kind.__name__} in {folder}: train one with `deepgen train train/{stage}`")
    try:
        loaded = kind.from_pretrained(
            folder, torch_dtype=torch.float32, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{folder} holds no usable {kind.__name__}: {error}") from error
    return require_whole(loaded, folder).to(torch.device(device)).eval()


@torch.inference_mode()
def in_batches(look: Callable[[Tensor], Sequence[T]], pictures: Sequence[Picture]) -> list[T]:
    """What `look` says of uint8 [B, 3, H, W], a row each, for pictures of any sizes, in their order."""
    places: dict[tuple[int, ...], list[int]] = {}
    for place, picture in enumerate(pictures):
        places.setdefault(picture.shape, []).append(place)
    found: dict[int, T] = {}
    for same in places.values():
        for part in (same[start : start + AT_ONCE] for start in range(0, len(same), AT_ONCE)):
            batch = torch.from_numpy(np.stack([pictures[place] for place in part])).movedim(-1, 1)
            found |= dict(zip(part, look(batch), strict=True))
    return [found[place] for place in range(len(pictures))]
