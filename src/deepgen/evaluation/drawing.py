"""The model as a benchmark's draughtsman, on one GPU or several."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from PIL import Image

from deepgen.evaluation.data import Shard
from deepgen.evaluation.runner import Drawn, Job
from deepgen.pipeline.intake import open_picture
from deepgen.pipeline.pipeline import DeepGenPipeline


@dataclass(frozen=True)
class DrawSettings:
    """size: (width, height) of text-to-image; None leaves it to the checkpoint. squash: side in pixels of the square
    that the sources of edits are stretched to, and that the edit is; None keeps the source's shape. call: further
    arguments of the pipeline's call."""

    size: tuple[int, int] | None = None
    squash: int | None = None
    call: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Generated:
    """Pictures by the model."""

    pipe: DeepGenPipeline
    settings: DrawSettings

    def __call__(self, jobs: Sequence[Job]) -> Drawn:
        """See runner.Draw."""
        item = jobs[0].item
        width, height = item.size or self.settings.size or (None, None)
        if item.sources:
            side = self.settings.squash
            width, height = item.size or (side, side)
        references = [[self._source(path) for path in job.item.sources] for job in jobs]
        try:
            result = self.pipe(
                [job.item.prompt for job in jobs],
                image=references if item.sources else None,
                width=width,
                height=height,
                seed=[job.seed for job in jobs],
                **self.settings.call,
            )
        except torch.OutOfMemoryError as error:
            raise MemoryError(str(error)) from error
        return list(zip(result.images, result.metadata, strict=True))

    def _source(self, path: Path) -> Image.Image:
        picture = open_picture(path)
        side = self.settings.squash
        return picture if side is None else picture.convert("RGB").resize((side, side))


def torchrun_shard() -> Shard | None:
    """This process's part where torchrun started it, None where it did not."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return None
    return Shard(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))


def use_own_device() -> None:
    """Under torchrun: have this process draw on the GPU of its local rank."""
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))


def wait_for_all() -> None:
    """Under torchrun: return when every process has drawn its part."""
    dist.init_process_group("gloo")
    try:
        dist.barrier()
    finally:
        dist.destroy_process_group()
