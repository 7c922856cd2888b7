"""Latents of drawn scenes, kept on the device: what the diffusion transformer trains on.

One shelf holds samples of one kind (text→image, edits, inserts from one picture into another) and one picture size,
as a few large tensors. Worker processes invent the samples; the device draws and encodes them, while training is under
way.
"""

import copy
import logging
import random
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence

import torch
from diffusers import AutoencoderKL
from pydantic import Field
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from deepgen.config import Config
from deepgen.model.prompts import edit_prompt, text_to_image_prompt, tokenize
from deepgen.model.vae import normalise
from deepgen.model.vision import vision_embeds
from deepgen.train.feeds import Batch, draw_stacked
from deepgen.train.vae import to_signed
from deepgen.train.vlm import picture_tokens
from deepgen.world.concepts import CONCEPTS
from deepgen.world.draw import draw_batch
from deepgen.world.sampling import EditSample, Sample, draw_edit, draw_sample
from deepgen.world.scenes import Box, Scene
from deepgen.world.sprites import Sprites

log = logging.getLogger("deepgen.train")
TOKEN_SIDE = 16  # pixels of a picture token's side: latents / 8, patches of 2
OBJECT_WEIGHT = 2.0  # added to the loss weight of a token inside an object or a changed region

CONCEPT_NUMBERS = {name: number for number, name in enumerate(CONCEPTS)}


class Shelf:
    """Samples of one kind and picture size on one device; when full, new ones take the places of the oldest.

    Rows: `ids` [L] int16 right-filled with 0, `lengths`, `latents` [C, h, w] bf16 standardised, `weights` [N] bf16
    loss weights of the picture tokens, `labels` [N] int16 what they show;
    for kinds with P source pictures also `sources` [P, C, h, w] as latents, and `vision` [P, tokens, D], the vision
    tower's embeddings of them.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.rows: dict[str, Tensor] = {}
        self._written = 0

    def __len__(self) -> int:
        return min(self._written, self.capacity)

    def write(self, **new: Tensor) -> None:
        """Adds as many rows as the tensors have."""
        count = len(new["lengths"])
        self._grow(new, min(self._written + count, self.capacity))
        places = (torch.arange(count, device=new["lengths"].device) + self._written) % self.capacity
        for name, values in new.items():
            self.rows[name].index_copy_(0, places, values)
        self._written += count

    def _grow(self, like: dict[str, Tensor], needed: int) -> None:
        room = len(self.rows["lengths"]) if self.rows else 0
        if room >= needed:
            return
        size = min(self.capacity, max(needed, 2 * room))
        for name, values in like.items():
            grown = values.new_zeros(size, *values.shape[1:])
            if room:
                grown[:room] = self.rows[name]
            self.rows[name] = grown

    def take(self, places: Tensor) -> dict[str, Tensor]:
        """The rows at these places."""
        return {name: values[places] for name, values in self.rows.items()}


ShelfKey = tuple[str, int, int]
"""(kind, height, width) in pixels; the kind is one of PICTURES."""

PICTURES = {"text": 0, "edit": 1, "insert": 2}
"""The kinds of samples, and how many source pictures each has."""

Lengths = dict[str, int]
"""Tokens that a prompt of each kind is filled up to: one length a kind, so that a compiled model sees few shapes."""


def token_weights(scene: Scene, changed: Sequence[Box] = ()) -> Tensor:
    """Loss weight [N] of each picture token: 1, more where an object, a word or a changed region touches it."""
    weights = torch.ones(scene.height // TOKEN_SIDE, scene.width // TOKEN_SIDE)
    for left, top, right, bottom in (*(item.box for item in scene.things), *changed):
        rows = slice(top // TOKEN_SIDE, -(-bottom // TOKEN_SIDE))
        weights[rows, left // TOKEN_SIDE : -(-right // TOKEN_SIDE)] = 1 + OBJECT_WEIGHT
    return weights.flatten()


def token_labels(scene: Scene) -> Tensor:
    """What each picture token shows [N] int16: 0 background, else 1 + the number of the frontmost object's concept."""
    labels = torch.zeros(scene.height // TOKEN_SIDE, scene.width // TOKEN_SIDE, dtype=torch.int16)
    middle = TOKEN_SIDE // 2
    for item in scene.objects:
        left, top, right, bottom = ((side + middle - 1) // TOKEN_SIDE for side in item.box)
        labels[max(top, 0) : bottom, max(left, 0) : right] = 1 + CONCEPT_NUMBERS[item.concept]
    return labels.flatten()


class Emphasis(Config):
    """For going on in a larger world: what a model knows already is drawn less often than what is new to it."""

    concepts: int = Field(gt=0, description="so many of the first concepts are known")
    styles: tuple[str, ...] = Field(description="in these styles")
    keep: float = Field(ge=0, le=1, description="share of the samples of known things alone that are kept")

    def knows(self, scene: Scene) -> bool:
        """Whether nothing in the scene is new. Words are never known."""
        known = all(CONCEPT_NUMBERS[thing.concept] < self.concepts for thing in scene.objects)
        return known and scene.style in self.styles and not scene.words


class PairMaker:
    """Batches of samples of one kind and size: "key", "ids", "lengths", "weights", "labels", "scenes", "sources" (those
    of all samples, one after another).

    `shares` says how often each kind is drawn, `emphasis` which samples are left out. Only sampling and tokenising
    happen in the workers: scenes are small, pictures are not, and the device draws faster.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        shares: dict[str, float],
        chunk: int,
        lengths: Lengths,
        emphasis: Emphasis | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.emphasis = emphasis
        self.shares = shares
        self.chunk = chunk
        self.lengths = lengths

    def __call__(self, rng: random.Random, sprites: Sprites) -> Iterator[Batch]:
        waiting: dict[ShelfKey, list[tuple[Sample | EditSample, list[int]]]] = defaultdict(list)
        while True:
            # A kind for a whole batch: a rare one does not wait for a hundred times as many of the others.
            (kind,) = rng.choices(tuple(self.shares), tuple(self.shares.values()))
            key = self.gather(rng, kind, waiting)
            yield self.collate(key, waiting.pop(key))

    def gather(
        self,
        rng: random.Random,
        kind: str,
        waiting: dict[ShelfKey, list[tuple[Sample | EditSample, list[int]]]],
    ) -> ShelfKey:
        """Draws samples of a kind until those of one size, which it returns, are a batch."""
        while True:
            sample: Sample | EditSample
            if kind == "text":
                sample = draw_sample(rng, "train", None)
                scene, prompt = sample.scene, text_to_image_prompt(sample.prompt)
            else:
                sample = draw_edit(rng, "train", None if kind == "edit" else (kind,))
                scene = sample.target
                prompt = edit_prompt(sample.instruction, [picture_tokens(each) for each in sample.pictures])
            if self.emphasis and self.emphasis.knows(scene) and rng.random() >= self.emphasis.keep:
                continue
            ids = tokenize(self.tokenizer, prompt)
            if len(ids) > self.lengths[kind]:
                continue
            key = (kind, scene.height, scene.width)
            waiting[key].append((sample, ids))
            if len(waiting[key]) == self.chunk:
                return key

    def collate(self, key: ShelfKey, items: list[tuple[Sample | EditSample, list[int]]]) -> Batch:
        ids = torch.zeros(len(items), self.lengths[key[0]], dtype=torch.int16)
        for row, (_, tokens) in enumerate(items):
            ids[row, : len(tokens)] = torch.tensor(tokens, dtype=torch.int16)
        edits = [sample for sample, _ in items if isinstance(sample, EditSample)]
        scenes = [sample.scene for sample, _ in items if isinstance(sample, Sample)] or [
            e.target for e in edits
        ]
        changed = [edit.region for edit in edits] or [()] * len(scenes)
        weights = [token_weights(scene, boxes) for scene, boxes in zip(scenes, changed, strict=True)]
        sources = [scene for edit in edits for scene in edit.pictures]
        batch: Batch = {"key": key, "ids": ids, "scenes": scenes, "sources": sources}
        batch["lengths"] = torch.tensor([len(tokens) for _, tokens in items])
        batch["weights"] = torch.stack(weights).bfloat16()
        batch["labels"] = torch.stack([token_labels(scene) for scene in scenes])
        return batch


def draw_pictures(scenes: list[Scene], sprites: Sprites, device: torch.device) -> Tensor:
    """uint8 [n, 3, H, W] on the device; a GPU draws the batch at once, a CPU is faster one by one."""
    if device.type == "cuda":
        return draw_batch(scenes, sprites, device)
    return draw_stacked(scenes, sprites)


class Encoder:
    """Pictures → standardised latents and vision embeddings, in bf16 on one device."""

    def __init__(self, vae: AutoencoderKL, visual: nn.Module, device: torch.device) -> None:
        self.vae, self.visual, self.device = vae, visual, device
        # A copy in bf16: autocast would run the norms, most of the encoder's time, in fp32.
        self.dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        self.encoder = copy.deepcopy(vae.encoder).to(device, self.dtype)

    @torch.no_grad()
    def latents(self, pictures: Tensor) -> Tensor:
        """uint8 [n, 3, H, W] → standardised posterior modes [n, C, H/8, W/8] bf16."""
        moments = self.encoder(to_signed(pictures, self.device).to(self.dtype))
        mode = moments.float().chunk(2, dim=1)[0]
        return normalise(self.vae, mode).bfloat16().contiguous()

    @torch.no_grad()
    def vision(self, pictures: Tensor) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            return vision_embeds(self.visual, to_signed(pictures, self.device)).bfloat16()


class Stream:
    """Shelves that fill from an endless feed: a part before training, the rest, and then fresh samples, during it."""

    def __init__(
        self, feed: Iterator[Batch], encoder: Encoder, sprites: Sprites, capacity: dict[str, int]
    ) -> None:
        self.feed, self.encoder, self.sprites, self.capacity = feed, encoder, sprites, capacity
        self.shelves: dict[ShelfKey, Shelf] = {}

    def add(self) -> None:
        """Draws, encodes and stores the next batch of the feed."""
        batch, device = next(self.feed), self.encoder.device
        kind, height, width = batch["key"]
        new = {
            name: batch[name].to(device, non_blocking=True)
            for name in ("ids", "lengths", "weights", "labels")
        }
        new["latents"] = self.encoder.latents(draw_pictures(batch["scenes"], self.sprites, device))
        if PICTURES[kind]:
            sources = draw_pictures(batch["sources"], self.sprites, device)
            each = (-1, PICTURES[kind])
            new["sources"] = self.encoder.latents(sources).unflatten(0, each)
            new["vision"] = self.encoder.vision(sources).unflatten(0, each)
        shelf = self.shelves.setdefault((kind, height, width), Shelf(self.capacity[kind]))
        shelf.write(**new)

    def fill(self, share: float) -> None:
        """Fills until every kind that has room at all holds `share` of it."""
        start = time.monotonic()
        while any(self.count(kind) < share * room for kind, room in self.capacity.items()):
            self.add()
        log.info(
            "%d samples drawn and encoded in %.0f s",
            sum(map(len, self.shelves.values())),
            time.monotonic() - start,
        )

    def count(self, kind: str) -> int:
        return sum(len(shelf) for key, shelf in self.shelves.items() if key[0] == kind)
