"""How fast training goes and what it needs: whole updates on random weights at the published sizes.

MFU is the operations that the model needs (`train.flops`, nothing counted twice) over the time of an update times the
rate of a matrix product measured in the same run.
"""

import gc
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import torch

from deepgen.data.batch import TrainBatch
from deepgen.flow.noise import key_generator
from deepgen.model.deepgen import DeepGenModel
from deepgen.speed.models import measured_model
from deepgen.speed.profile import profile
from deepgen.train.flops import FlopCounter, matmul_rate
from deepgen.train.optimizer import OptimizerConfig, build_optimizer, update
from deepgen.train.parallel import ParallelConfig, Ranks, computing, parallelize, recompute
from deepgen.train.supervised import Objective, batch_loss
from deepgen.train.trainable import TrainableConfig, make_trainable

STAGES: dict[str, TrainableConfig] = {
    "align": TrainableConfig(),
    "sft_lora": TrainableConfig(dit="lora", vlm="lora"),
    "sft": TrainableConfig(dit="full", vlm="lora"),
}
"""Alignment; fine-tuning with adapters only; fine-tuning as published."""

PROMPT = "a boat with a red sail on the lake"
"""40 tokens with its template, as in the measurements of the published code."""


@dataclass(frozen=True)
class Work:
    """One thing to measure: updates of `batch_size` samples a process of one task, of side × side pixels."""

    stage: str
    task: str
    batch_size: int
    side: int = 512


@dataclass(frozen=True)
class Setting:
    """How it is run."""

    parallel: ParallelConfig
    shares: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    """Of recomputed blocks: the first that fits in memory counts."""
    warmup: int = 2
    repeats: int = 5
    profile: bool = False


@dataclass(frozen=True)
class Measurement:
    """What came out; `seconds` of an update, bytes in GiB; `first_seconds` of the first one, compilation included.
    Not finished: `failure` says why, numbers are zero."""

    stage: str
    task: str
    batch_size: int
    seconds: float = 0.0
    images_per_second: float = 0.0
    tflops: float = 0.0
    mfu: float = 0.0
    peak_gib: float = 0.0
    recomputed: float = 0.0
    first_seconds: float = 0.0
    profile: str = ""
    failure: str = ""

    def as_dict(self) -> dict[str, float | int | str]:
        return asdict(self)


def random_batch(work: Work) -> TrainBatch:
    """Random pixels under one prompt; for edits one source picture of the same size."""
    generator = key_generator(0, "speed")

    def picture() -> torch.Tensor:
        return torch.rand(3, work.side, work.side, generator=generator) * 2 - 1

    size, edit = work.batch_size, work.task == "edit"
    return TrainBatch(
        prompts=[PROMPT] * size,
        targets=[picture() for _ in range(size)],
        references=[[picture()] if edit else [] for _ in range(size)],
        tasks=[work.task] * size,
        sources=["random"] * size,
        keys=[str(i) for i in range(size)],
    )


def measure_stage(
    sizes: str, works: Sequence[Work], setting: Setting, ranks: Ranks, peak: float
) -> Iterator[Measurement]:
    """Measure works of one stage on one model, in order; each comes out when it is done.

    Args:
        sizes: see `measured_model`.
        works: of one stage.
        setting: of all.
        ranks: the device.
        peak: FLOP/s of a matrix product there.
    """
    trainer = make_trainer(sizes, works[0].stage, setting.parallel, ranks)
    for work in works:
        yield _fitting(trainer, work, setting, peak)


@dataclass(frozen=True)
class Trainer:
    """What an update needs beside its batch."""

    model: DeepGenModel
    optimizer: torch.optim.Optimizer
    config: OptimizerConfig
    parallel: ParallelConfig
    ranks: Ranks

    def update(self, batch: TrainBatch, objective: Objective) -> None:
        """One whole update."""
        with computing(self.parallel, self.ranks):
            losses = batch_loss(self.model, batch, objective, range(len(batch))).losses
        losses.mean().backward()
        update(self.optimizer, self.config, self.config.learning_rate, self.ranks)


def make_trainer(sizes: str, stage: str, parallel: ParallelConfig, ranks: Ranks) -> Trainer:
    """A model with what a stage trains, and its optimizer; see `measured_model` for its sizes."""
    model = measured_model(sizes, ranks.device)
    make_trainable(model, STAGES[stage], parallel.dtype)
    parallelize(model, parallel, ranks)
    config = OptimizerConfig(learning_rate=1e-6)
    return Trainer(model, build_optimizer(model, config), config, parallel, ranks)


def _fitting(trainer: Trainer, work: Work, setting: Setting, peak: float) -> Measurement:
    """With the least recomputation that fits in memory."""
    for share in setting.shares:
        recompute(trainer.model, share)
        try:
            return replace(measure(trainer, work, setting, peak), recomputed=share)
        except torch.OutOfMemoryError:
            trainer.optimizer.zero_grad(set_to_none=True)
        finally:
            release(trainer.ranks)
    return Measurement(work.stage, work.task, work.batch_size, failure="out of memory")


def peak_gib(ranks: Ranks) -> float:
    """The most memory that tensors took since the peak was reset; 0 on a CPU."""
    return torch.cuda.max_memory_allocated() / 2**30 if ranks.device.type == "cuda" else 0.0


def wait_for(ranks: Ranks) -> None:
    """Until the device has done all."""
    if ranks.device.type == "cuda":
        torch.cuda.synchronize()


def release(ranks: Ranks) -> None:
    """Give back what is no longer used."""
    gc.collect()
    if ranks.device.type == "cuda":
        torch.cuda.empty_cache()


def measure(trainer: Trainer, work: Work, setting: Setting, peak: float) -> Measurement:
    """Updates of one kind as the trainer stands. Every process calls. Raises OutOfMemoryError."""
    batch, objective = random_batch(work), Objective(0, 3.0, "none")
    flops = FlopCounter(trainer.model).batch(batch)
    cuda = trainer.ranks.device.type == "cuda"
    if cuda:
        batch = batch.pin_memory()
        torch.cuda.reset_peak_memory_stats()
    times = []
    trainer.model.train()
    for _ in range(setting.warmup + setting.repeats):
        wait_for(trainer.ranks)
        start = time.perf_counter()
        trainer.update(batch, objective)
        wait_for(trainer.ranks)
        times.append(time.perf_counter() - start)
    seconds = statistics.median(times[setting.warmup :])
    return Measurement(
        stage=work.stage,
        task=work.task,
        batch_size=work.batch_size,
        seconds=seconds,
        images_per_second=work.batch_size * trainer.ranks.world_size / seconds,
        tflops=flops / 1e12,
        mfu=flops / seconds / peak,
        peak_gib=peak_gib(trainer.ranks),
        first_seconds=times[0],
        profile=profile(lambda: trainer.update(batch, objective), lambda: wait_for(trainer.ranks))
        if setting.profile
        else "",
    )


def measured_rate(parallel: ParallelConfig, ranks: Ranks) -> float:
    """FLOP/s of a matrix product on the device, in the type that updates compute in."""
    return matmul_rate(ranks.device, parallel.dtype, 8192 if ranks.device.type == "cuda" else 512)


def measure_training(
    sizes: str, works: Sequence[Work], setting: Setting, ranks: Ranks, peak: float
) -> Iterator[Measurement]:
    """All works, by stage, each stage with a fresh model; see `measure_stage`."""
    for stage in dict.fromkeys(work.stage for work in works):
        yield from measure_stage(sizes, [w for w in works if w.stage == stage], setting, ranks, peak)
        release(ranks)
