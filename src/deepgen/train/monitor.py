"""What is watched while a run goes on: losses by task and noise level, validation, a sheet of fixed prompts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from PIL import Image
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from deepgen.checkpoints import GenerationDefaults
from deepgen.data.loader import MixtureLoader
from deepgen.data.mixture import Mixture
from deepgen.errors import ConfigError, InputError
from deepgen.model.deepgen import DeepGenModel
from deepgen.pipeline.inputs import Sizing, check_lengths, requests_of
from deepgen.pipeline.pipeline import DeepGenPipeline
from deepgen.train.parallel import Ranks, computing
from deepgen.train.run_config import SampleSheetConfig, SupervisedConfig
from deepgen.train.supervised import BatchLoss, Objective, batch_loss

LEVELS = 5
TASKS = ("t2i", "edit")


@dataclass
class LossMeter:
    """Sums of losses since the last reading, over all processes when it is read."""

    ranks: Ranks
    held: list[tuple[Tensor, Tensor, list[str]]] = field(default_factory=list)

    def add(self, result: BatchLoss, count: int | None = None) -> None:
        """Take in a batch, or its first `count` samples. Does not wait for the device."""
        chosen = slice(count)
        self.held.append((result.losses.detach()[chosen], result.sigmas[chosen], result.tasks[chosen]))

    def read(self, prefix: str = "loss") -> dict[str, float]:
        """Means by name, of what occurred; forgets them. Collective."""
        names = [prefix, *(f"{prefix}/{task}" for task in TASKS)]
        names += [f"{prefix}/sigma_{i / LEVELS:.1f}" for i in range(LEVELS)]
        # Columns: sum, count.
        sums = dict.fromkeys(names, (0.0, 0))
        for losses, sigmas, tasks in self.held:
            for loss, sigma, task in zip(losses.tolist(), sigmas.tolist(), tasks, strict=True):
                level = min(LEVELS - 1, int(sigma * LEVELS))
                for name in (prefix, f"{prefix}/{task}", f"{prefix}/sigma_{level / LEVELS:.1f}"):
                    total, count = sums[name]
                    sums[name] = total + loss, count + 1
        self.held.clear()
        table = torch.tensor([sums[name] for name in names], dtype=torch.float64, device=self.ranks.device)
        if self.ranks.world_size > 1:
            dist.all_reduce(table)
        return {n: s / c for n, (s, c) in zip(names, table.tolist(), strict=True) if c}


def check_validation(config: SupervisedConfig) -> None:
    """Raises DataError or ConfigError where a set of the validation cannot be opened."""
    if config.validation.data is not None:
        Mixture(config.validation.data, config.batch_size)


def validate(
    model: DeepGenModel, config: SupervisedConfig, objective: Objective, ranks: Ranks
) -> dict[str, float]:
    """Validation losses by name: the same samples at the same noise and levels, whenever it is asked and however many
    processes there are. Collective."""
    assert config.validation.data is not None
    meter = LossMeter(ranks)
    at_once = config.batch_size * ranks.world_size
    loader = MixtureLoader(config.validation.data, config.batch_size, ranks.rank, ranks.world_size, 0)
    batches = iter(loader)
    fixed = Objective(objective.seed, objective.shift, objective.padding, "validation")
    model.eval()
    for turn in range(math.ceil(config.validation.samples / at_once)):
        batch = next(batches)
        first = (turn * ranks.world_size + ranks.rank) * config.batch_size
        numbers = [first + i for i in range(len(batch.targets))]
        # All processes compute in every turn, for sharded networks need all of them; what is too much is not counted.
        counted = max(0, min(len(numbers), config.validation.samples - first))
        with torch.no_grad(), computing(config.parallel, ranks):
            meter.add(batch_loss(model, batch, fixed, numbers), counted)
    return meter.read("validation")


def check_sheet(
    config: SampleSheetConfig, defaults: GenerationDefaults, tokenizer: PreTrainedTokenizerBase | None = None
) -> None:
    """Raises ConfigError for a sheet that could not be drawn: a size, a prompt, a missing picture.

    Args:
        config: what to draw.
        defaults: of sampling.
        tokenizer: the model's, to check the lengths of prompts; None: they are not checked.
    """
    own = Sizing(config.width, config.height)
    asked: list[tuple[str, str, Path | None, Sizing]] = [
        *((f"prompts.{i}", prompt, None, own) for i, prompt in enumerate(config.prompts)),
        *(
            (f"edits.{i}", instruction, source, Sizing())
            for i, (instruction, source) in enumerate(config.edits)
        ),
    ]
    for name, prompt, source, sizing in asked:
        try:
            requests = requests_of(prompt, source, None, sizing, defaults)
            if tokenizer is not None:
                check_lengths(requests, tokenizer)
        except InputError as error:
            raise ConfigError(f"samples.{name}: {error}") from None


class SheetPipeline(DeepGenPipeline):
    """Draws without records: nobody keeps those of a sheet, and sharded weights have no hash."""

    def _records(self, *_: Any) -> list[dict[str, Any]]:
        return []


def draw_sheet(
    model: DeepGenModel,
    defaults: GenerationDefaults,
    config: SampleSheetConfig,
    path: Path | None,
) -> None:
    """Draw the fixed prompts and edits from fixed noise, as one PNG. Every process must call it; one has a path.

    Args:
        model: in evaluation mode, as it stands.
        defaults: of sampling.
        config: what to draw.
        path: to write; None only draws.
    """
    model.eval()
    pipeline = SheetPipeline(model.vlm, model.bridge, model.dit, model.vae, defaults, "training")
    pipeline.set_progress_bar_config(disable=True)
    pictures: list[Image.Image] = []
    how: dict[str, Any] = {
        "num_inference_steps": config.num_inference_steps,
        "guidance_scale": config.guidance_scale,
    }
    for number, prompt in enumerate(config.prompts):
        drawn = pipeline(prompt, height=config.height, width=config.width, seed=number, **how)
        pictures += drawn.images
    for number, (instruction, source) in enumerate(config.edits):
        drawn = pipeline(instruction, image=source, seed=number, **how)
        pictures += drawn.images
    if path is not None and pictures:
        path.parent.mkdir(parents=True, exist_ok=True)
        tile(pictures).save(path)


def tile(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures in rows, on white; each keeps its size."""
    columns = math.ceil(math.sqrt(len(pictures)))
    wide, tall = max(p.width for p in pictures) + 4, max(p.height for p in pictures) + 4
    sheet = Image.new("RGB", (columns * wide, math.ceil(len(pictures) / columns) * tall), "white")
    for i, picture in enumerate(pictures):
        sheet.paste(picture, (i % columns * wide + 2, i // columns * tall + 2))
    return sheet
