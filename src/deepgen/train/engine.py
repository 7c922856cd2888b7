"""Supervised training: alignment and fine-tuning by one loop, which never asks which of the two it is.

Samples follow from their order, noise from the sample, dropout from the micro-batch: see `run` for why.
"""

import dataclasses
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch

from deepgen.checkpoints import GenerationDefaults
from deepgen.data.batch import TrainBatch
from deepgen.data.loader import MixtureLoader
from deepgen.pipeline.inputs import check_length
from deepgen.train.build import Built, build_empty
from deepgen.train.features import Caches, open_caches
from deepgen.train.flops import FlopCounter, matmul_rate
from deepgen.train.metrics import MetricsWriter, missing_packages
from deepgen.train.monitor import LossMeter, check_sheet, check_validation, validate
from deepgen.train.parallel import Ranks, computing
from deepgen.train.report import BatchPlan, describe_batches, estimate_memory, plan_batches, print_report
from deepgen.train.run import Run, execute, prepare_device
from deepgen.train.run_config import SupervisedConfig
from deepgen.train.supervised import Objective, batch_loss

log = logging.getLogger("deepgen.train")
RATE_SIZE = 8192


@dataclass
class Window:
    """Measurements since the last record: seconds of updates, validation, sheets and saves aside, and of these those
    that data was waited for; samples and operations of this process."""

    seconds: float = 0.0
    waited: float = 0.0
    samples: int = 0
    flops: float = 0.0


class SupervisedRun(Run[SupervisedConfig]):
    """Micro-batches of data, their loss, an update."""

    def __init__(self, config: SupervisedConfig, ranks: Ranks) -> None:
        self.plan: BatchPlan = plan_batches(config, ranks.world_size)
        check_validation(config)
        super().__init__(config, ranks)
        self.defaults = sampling_defaults(self.built.defaults, config)
        self.objective = Objective(
            config.seed, self.defaults.shift, config.padding or self.built.defaults.padding
        )
        self.caches = Caches()
        if config.cache_dir is not None:
            self.caches = open_caches(config.cache_dir, self.model, config.parallel.compute_dtype)
        self.loader = MixtureLoader(
            config.data,
            config.batch_size,
            ranks.rank,
            ranks.world_size,
            config.workers,
            partial(check_length, tokenizer=self.model.vlm.tokenizer),
        )
        self.state["data"] = self.loader
        self.meter, self.window = LossMeter(ranks), Window()
        self.costs = FlopCounter(self.model)
        self.peak: float | None = None
        self._batches: Iterator[TrainBatch] | None = None

    def report(self) -> None:
        if self.ranks.first:
            _report(self.built, self.plan, self.config, self.ranks)

    def advance(self, metrics: MetricsWriter) -> float | None:
        config = self.config
        if self._batches is None:
            self._batches = iter(self.loader)
            if self.ranks.device.type == "cuda":
                self.peak = matmul_rate(self.ranks.device, size=RATE_SIZE)
        start = time.perf_counter()
        self._accumulate(self._batches)
        norm, rate = self.apply_update()
        self.count_replaced(self.loader)
        self.window.seconds += time.perf_counter() - start
        step = self.counters.step
        if step % config.log_every_steps == 0 or step == config.steps:
            metrics.write(step, **self._record(), gradient_norm=norm, learning_rate=rate)
            self.window = Window()
        return self._validate(metrics, step)

    def _accumulate(self, batches: Iterator[TrainBatch]) -> None:
        """The gradient of one update."""
        config, plan, window = self.config, self.plan, self.window
        set_training(self.model)
        for turn in range(plan.accumulation):
            micro = plan.micro_batch(self.counters.step, turn, self.ranks.rank)
            start = time.perf_counter()
            batch = next(batches)
            window.waited += time.perf_counter() - start
            # Dropout of adapters draws from the global generator.
            torch.manual_seed(dropout_seed(config.seed, micro))
            with computing(config.parallel, self.ranks):
                numbers = plan.sample_numbers(micro, len(batch.targets))
                result = batch_loss(self.model, batch, self.objective, numbers, self.caches)
            (result.losses.sum() / (config.batch_size * plan.accumulation)).backward()
            self.meter.add(result)
            window.samples += len(batch.targets)
            window.flops += self.costs.batch(batch)

    def _record(self) -> dict[str, float]:
        window, seconds = self.window, self.window.seconds
        record = {
            **self.meter.read(),
            "images_per_second": window.samples * self.ranks.world_size / seconds,
            "data_wait": window.waited / seconds,
            "skipped_updates": float(self.counters.skipped),
            **self.replaced(),
            "tflops": window.flops / seconds / 1e12,
        }
        if self.peak is not None:
            record["mfu"] = window.flops / seconds / self.peak
            record["memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
        return record

    def _validate(self, metrics: MetricsWriter, step: int) -> float | None:
        """The validation loss, when it is time."""
        checks = self.config.validation
        if checks.data is None or step % checks.every_steps:
            return None
        with self.averaged():
            values = validate(self.model, self.config, self.objective, self.ranks)
        metrics.write(step, **values)
        return values["validation"]


def sampling_defaults(defaults: GenerationDefaults, config: SupervisedConfig) -> GenerationDefaults:
    """How the result likes to be sampled: a checkpoint's defaults, and what this training changes of them."""
    padding = config.padding or defaults.padding
    return dataclasses.replace(
        defaults,
        area=config.data.area,
        shift=config.shift or defaults.shift,
        # A single picture sees pads up to its negative prompt, as the published sampling of such a model does.
        padding="pair" if padding == "batch" else padding,
    )


def dropout_seed(seed: int, micro_batch: int) -> int:
    """A seed for the global generators, of a micro-batch's number in the run."""
    generator = torch.Generator().manual_seed(seed)
    offset = int(torch.randint(2**31, (), generator=generator))
    return (offset + micro_batch) % 2**63


def set_training(model: torch.nn.Module) -> None:
    """Training mode, in which adapters drop; the VAE and everything frozen have nothing that differs."""
    model.train()


def _report(built: Built, plan: BatchPlan, config: SupervisedConfig, ranks: Ranks) -> None:
    memory = estimate_memory(
        built.model, config, built.parts, ranks.world_size, config.data.area, config.batch_size
    )
    print_report(built.parts, [describe_batches(plan, config.steps)], memory, config, ranks)


def train_supervised(config: SupervisedConfig) -> bool:
    """Train as configured, from what `output_dir` holds; returns whether the run is complete.

    Raises:
        DeepGenError: of the configuration, the data, the checkpoints or the run.
    """
    ranks = prepare_device(config)
    return execute(SupervisedRun(config, ranks))


def dry_run(config: SupervisedConfig) -> None:
    """The report of `train_supervised` without reading a weight or starting anything.

    Under torchrun's variables the report is of that many processes. The sheet and the sets of the validation, which
    a run needs late, are looked at; the sets that are trained on need not be here.

    Raises:
        DeepGenError: the configuration or the model cannot be used.
    """
    ranks = Ranks(
        int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)), 0, torch.device(config.device)
    )
    plan = plan_batches(config, ranks.world_size)
    for name in missing_packages(config.metrics):
        log.warning("metrics asks for %s, which is not installed here", name)
    check_validation(config)
    built = build_empty(config)
    check_sheet(config.samples, built.defaults)
    if ranks.first:
        _report(built, plan, config, ranks)
