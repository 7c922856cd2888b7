"""Latents of drawn scenes, made once and kept on the device: what the diffusion transformer trains on.

One shelf holds samples of one kind (text→image or edit) and one picture size, as a few large tensors. Drawing
happens in worker processes, encoding on the device; both finish before training starts.
"""

import logging
import random
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from deepgen.model.prompts import edit_prompt, text_to_image_prompt, tokenize
from deepgen.model.vision import vision_embeds
from deepgen.train.feeds import Batch, start_feed
from deepgen.train.vae import to_signed
from deepgen.world.draw import draw
from deepgen.world.sampling import EditSample, Sample, draw_edit, draw_sample
from deepgen.world.scenes import Box, Scene
from deepgen.world.sprites import Sprites

log = logging.getLogger("deepgen.train")
TOKEN_SIDE = 16  # pixels of a picture token's side: latents / 8, patches of 2
OBJECT_WEIGHT = 2.0  # added to the loss weight of a token inside an object or a changed region


@dataclass
class Shelf:
    """Samples of one kind and picture size on one device.

    `ids` [n, L] int16 right-filled with 0, `lengths` [n], `latents` [n, C, h, w] bf16 standardised,
    `weights` [n, N] bf16 loss weights of the picture tokens; for edits also `sources` (as latents) and
    `vision` [n, tokens, D], the vision tower's embeddings of the source.
    """

    ids: Tensor
    lengths: Tensor
    latents: Tensor
    weights: Tensor
    sources: Tensor | None = None
    vision: Tensor | None = None

    def __len__(self) -> int:
        return len(self.lengths)

    @classmethod
    def join(cls, parts: list["Shelf"]) -> "Shelf":
        joined = {}
        for field in fields(cls):
            values = [getattr(part, field.name) for part in parts]
            joined[field.name] = None if values[0] is None else torch.cat(values)
        return cls(**joined)


ShelfKey = tuple[str, int, int]
"""(kind, height, width) in pixels."""


def token_weights(scene: Scene, changed: Sequence[Box] = ()) -> Tensor:
    """Loss weight [N] of each picture token: 1, more where an object, a word or a changed region touches it."""
    weights = torch.ones(scene.height // TOKEN_SIDE, scene.width // TOKEN_SIDE)
    for left, top, right, bottom in (*(item.box for item in (*scene.objects, *scene.words)), *changed):
        rows = slice(top // TOKEN_SIDE, -(-bottom // TOKEN_SIDE))
        weights[rows, left // TOKEN_SIDE : -(-right // TOKEN_SIDE)] = 1 + OBJECT_WEIGHT
    return weights.flatten()


class PairMaker:
    """Batches of drawn samples: {"key", "ids", "lengths", "weights", "target", optional "source"} (pictures uint8)."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, edit_share: float, batch_size: int, max_length: int
    ) -> None:
        self.tokenizer = tokenizer
        self.edit_share = edit_share
        self.batch_size = batch_size
        self.max_length = max_length

    def __call__(self, rng: random.Random, sprites: Sprites) -> Iterator[Batch]:
        waiting: dict[ShelfKey, list[tuple[Sample | EditSample, list[int]]]] = defaultdict(list)
        while True:
            sample: Sample | EditSample
            if rng.random() < self.edit_share:
                sample = draw_edit(rng, "train", None)
                picture_tokens = (sample.source.height // 32) * (sample.source.width // 32)
                prompt, scene = edit_prompt(sample.instruction, [picture_tokens]), sample.target
            else:
                sample = draw_sample(rng, "train", None)
                prompt, scene = text_to_image_prompt(sample.prompt), sample.scene
            ids = tokenize(self.tokenizer, prompt)
            kind = "edit" if isinstance(sample, EditSample) else "text"
            if len(ids) > self.max_length + (100 if kind == "edit" else 0):
                continue
            key = (kind, scene.height, scene.width)
            waiting[key].append((sample, ids))
            if len(waiting[key]) == self.batch_size:
                yield draw_batch_of(key, waiting.pop(key), sprites)


def _picture(scene: Scene, sprites: Sprites) -> Tensor:
    return torch.from_numpy(draw(scene, sprites)).permute(2, 0, 1)


def draw_batch_of(
    key: ShelfKey, items: list[tuple[Sample | EditSample, list[int]]], sprites: Sprites
) -> Batch:
    longest = max(len(ids) for _, ids in items)
    batch: Batch = {"key": key, "ids": torch.zeros(len(items), longest, dtype=torch.int16)}
    batch["lengths"] = torch.tensor([len(ids) for _, ids in items])
    for row, (_, ids) in enumerate(items):
        batch["ids"][row, : len(ids)] = torch.tensor(ids, dtype=torch.int16)
    edits = [sample for sample, _ in items if isinstance(sample, EditSample)]
    if edits:
        batch["target"] = torch.stack([_picture(edit.target, sprites) for edit in edits])
        batch["source"] = torch.stack([_picture(edit.source, sprites) for edit in edits])
        batch["weights"] = torch.stack([token_weights(edit.target, edit.region) for edit in edits])
    else:
        samples = [sample for sample, _ in items if isinstance(sample, Sample)]
        batch["target"] = torch.stack([_picture(sample.scene, sprites) for sample in samples])
        batch["weights"] = torch.stack([token_weights(sample.scene) for sample in samples])
    return batch


class Encoder:
    """Pictures → standardised latents and vision embeddings, in bf16 on one device."""

    def __init__(self, vae: AutoencoderKL, visual: nn.Module, device: torch.device) -> None:
        self.vae, self.visual, self.device = vae, visual, device
        self.mean = torch.tensor(vae.config.latents_mean, device=device).view(1, -1, 1, 1)
        self.std = torch.tensor(vae.config.latents_std, device=device).view(1, -1, 1, 1)

    @torch.no_grad()
    def latents(self, pictures: Tensor) -> Tensor:
        """uint8 [n, 3, H, W] → standardised posterior modes [n, C, H/8, W/8] bf16."""
        pixels = to_signed(pictures, self.device).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            moments = self.vae.encoder(pixels)
        mode = moments.float().chunk(2, dim=1)[0]
        return ((mode - self.mean) / self.std).bfloat16().contiguous()

    @torch.no_grad()
    def vision(self, pictures: Tensor) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            return vision_embeds(self.visual, to_signed(pictures, self.device)).bfloat16()


def build_cache(
    maker: PairMaker, encoder: Encoder, sprites: Path | None, counts: dict[str, int], seed: int, workers: int
) -> dict[ShelfKey, Shelf]:
    """Draws and encodes `counts["text"]` + `counts["edit"]` samples (a batch more at most)."""
    parts: dict[ShelfKey, list[Shelf]] = defaultdict(list)
    made = dict.fromkeys(counts, 0)
    width = {"text": maker.max_length, "edit": maker.max_length + 100}
    start = time.monotonic()
    feed = start_feed(maker, sprites, seed, workers)
    while any(made[kind] < counts[kind] for kind in counts):
        batch = next(feed)
        key = tuple(batch["key"])
        if made[key[0]] >= counts[key[0]]:
            continue
        made[key[0]] += len(batch["lengths"])
        ids = nn.functional.pad(batch["ids"], (0, width[key[0]] - batch["ids"].shape[1]))
        shelf = Shelf(
            ids.to(encoder.device),
            batch["lengths"].to(encoder.device),
            encoder.latents(batch["target"]),
            batch["weights"].to(encoder.device).bfloat16(),
        )
        if "source" in batch:
            shelf.sources, shelf.vision = encoder.latents(batch["source"]), encoder.vision(batch["source"])
        parts[key].append(shelf)
    total = sum(made.values())
    log.info("cached %d samples in %.0f s", total, time.monotonic() - start)
    shelves = {key: Shelf.join(parts[key]) for key in sorted(parts)}
    for kind in counts:
        # one length a kind, so that a compiled model sees two shapes and not ten
        longest = max(
            (int(shelf.lengths.max()) for key, shelf in shelves.items() if key[0] == kind), default=0
        )
        for key, shelf in shelves.items():
            if key[0] == kind:
                shelf.ids = shelf.ids[:, : -(-longest // 8) * 8].contiguous()
                log.info("shelf %s: %d samples, prompts up to %d tokens", key, len(shelf), longest)
    return shelves
