"""What a run will do, told before it starts: parameters, batches, memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console
from rich.table import Table

from deepgen.errors import ConfigError
from deepgen.model.deepgen import DeepGenModel
from deepgen.train.parallel import ParallelConfig, Ranks
from deepgen.train.run_config import RunConfig
from deepgen.train.trainable import TrainedPart

GIB = 2**30
WHOLE = ("vision", "vae")
"""Parts that every process holds whole, however the others are sharded."""


@dataclass(frozen=True)
class BatchPlan:
    """How an update's samples come about: micro-batches of `batch_size` on each of `world_size` processes,
    `accumulation` times."""

    batch_size: int
    world_size: int
    accumulation: int

    @property
    def micro_batches(self) -> int:
        """Micro-batches of an update over all processes."""
        return self.world_size * self.accumulation

    @property
    def samples(self) -> int:
        return self.batch_size * self.micro_batches

    def micro_batch(self, step: int, turn: int, rank: int) -> int:
        """Number, in the whole run, of the micro-batch that a process takes in one turn of an update."""
        return step * self.micro_batches + turn * self.world_size + rank

    def sample_numbers(self, micro_batch: int, count: int) -> list[int]:
        """Numbers of a micro-batch's samples in the whole run."""
        return [micro_batch * self.batch_size + i for i in range(count)]


class Batched(Protocol):
    """What says how large batches are: `batch_size` samples on a device at once, `global_batch_size` an update."""

    @property
    def batch_size(self) -> int: ...

    @property
    def global_batch_size(self) -> int: ...


def describe_batches(plan: BatchPlan, steps: int) -> str:
    """A line of the report."""
    return (
        f"{steps} updates of {plan.samples} samples = {plan.batch_size} a device x {plan.world_size} "
        f"process(es) x {plan.accumulation} accumulated"
    )


def plan_batches(config: Batched, world_size: int) -> BatchPlan:
    """The plan of a configuration.

    Raises:
        ConfigError: the global batch is no multiple of what all devices take at once.
    """
    at_once = config.batch_size * world_size
    if config.global_batch_size % at_once:
        raise ConfigError(
            f"global_batch_size is {config.global_batch_size}, no multiple of batch_size {config.batch_size} times "
            f"{world_size} processes; change one of them"
        )
    return BatchPlan(config.batch_size, world_size, config.global_batch_size // at_once)


@dataclass(frozen=True)
class Memory:
    """Bytes on one device, estimated."""

    weights: float
    gradients: float
    optimizer: float
    average: float
    activations: float

    @property
    def total(self) -> float:
        return self.weights + self.gradients + self.optimizer + self.average + self.activations


def estimate_memory(
    model: DeepGenModel,
    config: RunConfig,
    parts: Sequence[TrainedPart],
    world_size: int,
    pixels: int,
    batch_size: int,
) -> Memory:
    """Bytes on a device: weights and states exactly, activations roughly (a factor of 1.5 either way).

    Args:
        model: not sharded yet, or on the meta device.
        config: of the run.
        parts: of the model.
        world_size: processes.
        pixels: of a picture.
        batch_size: pictures that are trained at once.
    """
    shards = _shards(config.parallel, world_size)
    trained = sum(p.trained for p in parts)
    frozen = sum(
        (p.parameters - p.trained) * _bytes(config) / (1 if p.name in WHOLE else shards) for p in parts
    )
    moved = trained * (config.parallel.dtype.itemsize if config.parallel.shard == "none" else 0)
    masters = trained * 4 / shards + (moved if config.parallel.compute_dtype != "float32" else 0)
    average = trained * 4 / shards if config.ema_decay else 0.0
    return Memory(
        weights=frozen + masters,
        gradients=trained * 4 / shards,
        optimizer=trained * 8 / shards,
        average=average,
        activations=_activations(model, config, pixels, batch_size),
    )


def _shards(parallel: ParallelConfig, world_size: int) -> int:
    if parallel.shard == "none":
        return 1
    return world_size if parallel.shard == "fsdp" else max(1, world_size // parallel.replicas)


def _bytes(config: RunConfig) -> int:
    return 2 if config.frozen_dtype == "bfloat16" else 4


def _activations(model: DeepGenModel, config: RunConfig, pixels: int, batch_size: int) -> float:
    """Values that the backward pass needs: per token and block 2 widths with recomputation, else about 34 (Korthikanti
    et al. 2022, without attention's square), of which one block's at a time is needed in either case. For an edit of
    one source picture."""
    dit, text, bridge = model.dit.config, model.vlm.model.language_model.config, model.bridge.config
    side = model.latent_scale * dit.patch_size
    prompt = 60 + bridge.num_queries + pixels // 32**2
    streams = [
        (2 * pixels // side**2 + prompt, dit.num_attention_heads * dit.attention_head_dim, dit.num_layers),
        (prompt, text.hidden_size, max(model.vlm.indices)),
        (prompt, bridge.hidden_size, bridge.num_layers),
    ]
    again = config.parallel.recomputed
    kept = 2 * again + 34 * (1 - again)
    item = config.parallel.dtype.itemsize
    blocks = sum(tokens * width * (depth * kept + 34) for tokens, width, depth in streams)
    return float(batch_size * item * blocks)


def print_report(
    parts: Sequence[TrainedPart],
    lines: Sequence[str],
    memory: Memory,
    config: RunConfig,
    ranks: Ranks,
    console: Console | None = None,
) -> None:
    """The report on the terminal; `lines` tell what an update is made of."""
    console = console or Console(soft_wrap=True)
    table = Table("part", "how", "parameters", "trained", "type", "held", box=None, pad_edge=False)
    shards = _shards(config.parallel, ranks.world_size)
    for part in parts:
        held = "whole" if shards == 1 or part.name in WHOLE else f"1/{shards}"
        numbers = (_millions(part.parameters), _millions(part.trained))
        table.add_row(part.name, part.how, *numbers, part.dtype, held)
    table.add_row(
        "all", "", *(_millions(sum(x)) for x in zip(*((p.parameters, p.trained) for p in parts), strict=True))
    )
    console.print(table)
    parallel = config.parallel
    console.print(
        f"{ranks.world_size} process(es) on {ranks.device.type}, sharding {parallel.shard}, computing in "
        f"{parallel.compute_dtype}, {parallel.recomputed:.0%} of blocks recomputed, "
        f"compilation {'on' if parallel.compile else 'off'}"
    )
    for line in lines:
        console.print(line)
    kinds = ("weights", "gradients", "optimizer", "average", "activations", "total")
    shown = ", ".join(f"{name} {getattr(memory, name) / GIB:.2f}" for name in kinds)
    console.print(f"memory of a device, estimated, GiB: {shown}")


def _millions(count: int) -> str:
    return f"{count / 1e6:.3f} M"
