"""Pictures, prompts and dialogues of the world, drawn by worker processes while the model trains.

Each worker has its own random stream, keyed by (seed, worker), draws whole batches of one picture size and hands
them over as tensors.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from deepgen.world.draw import draw
from deepgen.world.scenes import Scene
from deepgen.world.sprites import Sprites

Batch = dict[str, Any]
Maker = Callable[[random.Random, Sprites], Iterator[Batch]]


class Feed(IterableDataset[Batch]):
    """An endless stream of batches from `maker(rng, sprites)`, one stream a worker."""

    def __init__(self, maker: Maker, sprites: Path | None, seed: int | str) -> None:
        self.maker = maker
        self.sprites = sprites
        self.seed = seed

    def __iter__(self) -> Iterator[Batch]:
        torch.set_num_threads(1)
        info = get_worker_info()
        worker = info.id if info is not None else 0
        return self.maker(random.Random(f"{self.seed}/{worker}"), load_sprites(self.sprites))


def load_sprites(path: Path | None) -> Sprites:
    """The real art where a path is given, else the procedural sprites that tests use."""
    return Sprites.load(path) if path is not None else Sprites.procedural()


def draw_stacked(scenes: Sequence[Scene], sprites: Sprites) -> Tensor:
    """uint8 [n, 3, H, W] of scenes of one size, drawn one by one on the CPU."""
    return torch.stack([torch.from_numpy(draw(scene, sprites)).permute(2, 0, 1) for scene in scenes])


def start_feed(maker: Maker, sprites: Path | None, seed: int | str, workers: int) -> Iterator[Batch]:
    """Starts the workers (0: in this process) and returns the endless iterator of batches."""
    options: dict[str, Any] = {"prefetch_factor": 8, "persistent_workers": True} if workers else {}
    pin = torch.cuda.is_available()
    return iter(
        DataLoader(
            Feed(maker, sprites, seed), batch_size=None, num_workers=workers, pin_memory=pin, **options
        )
    )
