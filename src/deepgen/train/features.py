"""What the frozen networks make of pictures, computed or taken from the cache: latents and VLM embeddings."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from deepgen.data.cache import FeatureCache, weights_digest
from deepgen.model.deepgen import DeepGenModel

ENCODED_AT_ONCE = 2**22
"""Pixels; bounds the VAE's memory."""


@dataclass(frozen=True)
class Caches:
    """Kept features; None where they are computed each time.

    Attributes:
        latents: of the VAE.
        embeds: of the VLM's picture tower, where it is frozen.
    """

    latents: FeatureCache | None = None
    embeds: FeatureCache | None = None


def open_caches(folder: Path, model: DeepGenModel, compute_dtype: str) -> Caches:
    """Caches in a folder, which belong to these weights, number types and kind of device.

    Raises:
        DataError: the folder holds what other networks made.
    """
    vae, visual = model.vae, model.vlm.model.visual

    def cache(name: str, module: torch.nn.Module) -> FeatureCache:
        producer = {"network": name, "weights": weights_digest(module)}
        return FeatureCache(
            folder / name, {**producer, "device": model.device.type, "compute_dtype": compute_dtype}
        )

    folder.mkdir(parents=True, exist_ok=True)
    frozen = not any(p.requires_grad for p in visual.parameters())
    return Caches(cache("latents", vae), cache("embeds", visual) if frozen else None)


@torch.no_grad()
def encode_all(
    model: DeepGenModel, pictures: Sequence[Tensor], cache: FeatureCache | None = None
) -> list[Tensor]:
    """Latents [C, h, w] fp32, at the mode, of pictures [3, H, W] of any sizes; those of one size in one call."""
    if cache is not None:
        return cache.of_pictures(pictures, lambda new: encode_all(model, new), model.vae.device)
    places: dict[torch.Size, list[int]] = {}
    for i, picture in enumerate(pictures):
        places.setdefault(picture.shape, []).append(i)
    found: dict[int, Tensor] = {}
    # The VAE runs in its own type, whatever the networks around it compute in.
    with torch.autocast(model.vae.device.type, enabled=False):
        for shape, rows in places.items():
            at_once = max(1, ENCODED_AT_ONCE // (shape[-2] * shape[-1]))
            for start in range(0, len(rows), at_once):
                some = rows[start : start + at_once]
                batch = torch.stack([pictures[i] for i in some])
                found.update(zip(some, model.encode(batch), strict=True))
    return [found[i] for i in range(len(pictures))]


def embed_all(
    model: DeepGenModel, references: Sequence[Sequence[Tensor]], cache: FeatureCache | None = None
) -> list[list[Tensor]]:
    """VLM embeddings [H/32, W/32, D] of each sample's pictures."""
    if cache is None:
        return model.embed_references(references)
    flat = [picture for row in references for picture in row]

    def make(new: list[Tensor]) -> list[Tensor]:
        return model.embed_references([new])[0]

    values = iter(cache.of_pictures(flat, make, model.device))
    return [[next(values) for _ in row] for row in references]
