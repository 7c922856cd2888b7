"""Supervised training: alignment and fine-tuning by one loop, which never asks which of the two it is.

Everything random is a function of the seed and of how far the run is: samples by their order, noise by sample,
dropout by micro-batch. So a run that was killed goes on as if it had not been, and only weights, the optimizer, the
average and a few numbers need saving.
"""

import logging
import math
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from deepgen.config import dump_config
from deepgen.data.loader import MixtureLoader
from deepgen.errors import ConfigError, DeepGenError
from deepgen.train.build import Built, build, build_empty
from deepgen.train.checkpointing import Checkpointer, Stateful, TensorState
from deepgen.train.ema import ShardedEma
from deepgen.train.export import export, exported_step
from deepgen.train.flops import FlopCounter, matmul_rate
from deepgen.train.metrics import MetricsWriter
from deepgen.train.monitor import LossMeter, draw_sheet, validate
from deepgen.train.optimizer import build_optimizer, optimizer_tensors, schedule_rate, update
from deepgen.train.parallel import Ranks, any_rank, computing, start_ranks
from deepgen.train.report import BatchPlan, estimate_memory, plan_batches, print_report
from deepgen.train.run_config import RunConfig, SupervisedConfig
from deepgen.train.supervised import Objective, batch_loss
from deepgen.train.trainable import trained_parameters

log = logging.getLogger("deepgen.train")
RATE_SIZE = 8192


class RunError(DeepGenError):
    """A run cannot go on: its updates are not finite."""


@dataclass
class Counters:
    """Numbers of a run that are saved with it."""

    step: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0

    def state_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(state)


class StopRequest:
    """Set by SIGTERM or the first SIGINT; the run saves and leaves after the update under way."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self, _signal: int, _frame: FrameType | None) -> None:
        self.asked = True

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Both signals while inside; only the main thread may be told of signals, elsewhere nothing happens."""
        kinds = (signal.SIGTERM, signal.SIGINT)
        previous = {kind: signal.signal(kind, self) for kind in kinds}
        try:
            yield
        finally:
            for kind, handler in previous.items():
                signal.signal(kind, handler)


@dataclass
class Window:
    """Measurements since the last record."""

    started: float = field(default_factory=time.perf_counter)
    waited: float = 0.0
    samples: int = 0
    flops: float = 0.0


class SupervisedRun:
    """One run in one process.

    Args:
        config: of the run.
        ranks: this process.
    """

    def __init__(self, config: SupervisedConfig, ranks: Ranks) -> None:
        self.config, self.ranks = config, ranks
        self.plan: BatchPlan = plan_batches(config, ranks.world_size)
        self.built: Built = build(config, ranks)
        self.model = self.built.model
        defaults = self.built.defaults
        self.objective = Objective(
            config.seed, config.shift or defaults.shift, config.padding or defaults.padding
        )
        trained = trained_parameters(self.model)
        if not trained:
            raise ConfigError("trainable freezes everything; set one part to full or lora")
        self.optimizer = build_optimizer(self.model, config.optimizer)
        self.ema = ShardedEma(trained, config.ema_decay) if config.ema_decay else None
        self.loader = MixtureLoader(
            config.data, config.batch_size, ranks.rank, ranks.world_size, config.workers
        )
        self.counters = Counters()
        self.checkpointer = Checkpointer(config.output_dir / "checkpoints", config.checkpoint, ranks)
        self.state: dict[str, Stateful] = {
            "weights": TensorState(trained),
            "optimizer": TensorState(optimizer_tensors(self.optimizer, trained)),
            "counters": self.counters,
            "data": self.loader,
        }
        if self.ema is not None:
            self.state["ema"] = self.ema
        self.meter = LossMeter(ranks)
        self.stop = StopRequest()

    def report(self) -> None:
        """Tell what will be done."""
        area = self.built.defaults.area
        memory = estimate_memory(self.model, self.config, self.built.parts, self.ranks.world_size, area)
        if self.ranks.first:
            print_report(self.built.parts, self.plan, memory, self.config, self.ranks)

    def train(self) -> bool:
        """Go on from the newest checkpoint, or begin; returns whether the run is complete.

        Raises:
            CheckpointError: a checkpoint does not fit, or cannot be written.
            RunError: too many updates in a row were not finite.
        """
        config, counters = self.config, self.counters
        if self.checkpointer.latest() is not None:
            self.checkpointer.load(self.state)
            self._say(f"going on from update {counters.step}")
        if counters.step > config.steps:
            raise ConfigError(
                f"steps is {config.steps}, but the run in {config.output_dir} is at {counters.step}"
            )
        final = config.output_dir / "final"
        if counters.step == config.steps and exported_step(final) == config.steps:
            self._say(f"nothing to do: {final} holds update {config.steps}")
            return True
        metrics = MetricsWriter(config.output_dir, config.metrics, self.ranks.first, counters.step)
        with self.stop.listening():
            self._loop(metrics)
        metrics.close()
        if self.checkpointer.latest() != counters.step:
            self.checkpointer.save(counters.step, self.state)
        self.checkpointer.wait()
        if counters.step < config.steps:
            self._say(f"stopped and saved at update {counters.step}; the same command goes on")
            return False
        self._export(final)
        return True

    def _say(self, text: str) -> None:
        if self.ranks.first:
            log.info("%s", text)

    def _loop(self, metrics: MetricsWriter) -> None:
        config, counters = self.config, self.counters
        batches = iter(self.loader)
        window, costs = Window(), FlopCounter(self.model)
        cuda = self.ranks.device.type == "cuda"
        peak = matmul_rate(self.ranks.device, size=RATE_SIZE) if cuda else None
        with self._bar() as bar:
            task = bar.add_task(config.output_dir.name, total=config.steps, completed=counters.step)
            while counters.step < config.steps:
                norm, rate = self._update(batches, window, costs)
                bar.update(task, completed=counters.step)
                step = counters.step
                if step % config.log_every_steps == 0 or step == config.steps:
                    record = self._record(window, peak)
                    metrics.write(step, **record, gradient_norm=norm, learning_rate=rate)
                    window = Window()
                score = self._look(metrics, step)
                if step % config.checkpoint.save_every_steps == 0 or step == config.steps:
                    self.checkpointer.save(step, self.state, score)
                if any_rank(self.stop.asked, self.ranks):
                    return

    def _bar(self) -> Bar:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        return Bar(
            *columns, TimeElapsedColumn(), TimeRemainingColumn(), disable=not self.ranks.first, transient=True
        )

    def _update(self, batches: Iterator[Any], window: Window, costs: FlopCounter) -> tuple[float, float]:
        """One update; returns the gradient's norm and the rate."""
        config, counters, plan = self.config, self.counters, self.plan
        set_training(self.model)
        for turn in range(plan.accumulation):
            micro = plan.micro_batch(counters.step, turn, self.ranks.rank)
            start = time.perf_counter()
            batch = next(batches)
            window.waited += time.perf_counter() - start
            # Dropout of adapters draws from the global generator.
            torch.manual_seed(dropout_seed(config.seed, micro))
            with computing(config.parallel, self.ranks):
                result = batch_loss(
                    self.model, batch, self.objective, plan.sample_numbers(micro, len(batch.targets))
                )
            (result.losses.sum() / (config.batch_size * plan.accumulation)).backward()
            self.meter.add(result)
            window.samples += len(batch.targets)
            window.flops += costs.batch(batch)
        rate = schedule_rate(config.optimizer, counters.step, config.steps)
        norm = update(self.optimizer, config.optimizer, rate, self.ranks)
        counters.step += 1
        if math.isfinite(norm):
            counters.skipped_in_a_row = 0
            if self.ema is not None:
                self.ema.update()
        else:
            counters.skipped += 1
            counters.skipped_in_a_row += 1
            self._say(f"update {counters.step} left out: its gradient is not finite")
            if counters.skipped_in_a_row >= config.max_skipped_updates:
                raise RunError(
                    f"{counters.skipped_in_a_row} updates in a row were not finite; go on from an earlier checkpoint "
                    "with a lower optimizer.learning_rate"
                )
        return norm, rate

    def _record(self, window: Window, peak: float | None) -> dict[str, float]:
        seconds = time.perf_counter() - window.started
        record = {
            **self.meter.read(),
            "images_per_second": window.samples * self.ranks.world_size / seconds,
            "data_wait": window.waited / seconds,
            "skipped_updates": float(self.counters.skipped),
            "tflops": window.flops / seconds / 1e12,
        }
        if peak is not None:
            record["mfu"] = window.flops / seconds / peak
            record["memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
        return record

    def _look(self, metrics: MetricsWriter, step: int) -> float | None:
        """Validation and the sheet, when it is time; returns the validation loss if it was measured."""
        config = self.config
        checks, samples = config.validation, config.samples
        wanted = checks.data is not None and step % checks.every_steps == 0
        drawn = bool(samples.prompts or samples.edits) and step % samples.every_steps == 0
        if not (wanted or drawn):
            return None
        score = None
        with self.ema.applied() if self.ema is not None else nullcontext():
            if wanted:
                values = validate(self.model, config, self.objective, self.ranks)
                metrics.write(step, **values)
                score = values["validation"]
            if drawn:
                path = config.output_dir / "samples" / f"step_{step:08d}.png"
                with torch.no_grad(), computing(config.parallel, self.ranks):
                    draw_sheet(self.model, self.built.defaults, samples, path if self.ranks.first else None)
        return score

    def _export(self, folder: Path) -> None:
        config = self.config
        dtype = None if config.export_dtype is None else getattr(torch, config.export_dtype)
        with self.ema.applied() if self.ema is not None else nullcontext():
            export(
                self.model,
                self.built.defaults,
                folder,
                config.trainable,
                self.ranks,
                dtype,
                {"step": self.counters.step, "stage": config.stage},
            )
        self._say(f"wrote {folder}")


def dropout_seed(seed: int, micro_batch: int) -> int:
    """A seed for the global generators, of a micro-batch's number in the run."""
    generator = torch.Generator().manual_seed(seed)
    offset = int(torch.randint(2**31, (), generator=generator))
    return (offset + micro_batch) % 2**63


def set_training(model: torch.nn.Module) -> None:
    """Training mode, in which adapters drop; the VAE and everything frozen have nothing that differs."""
    model.train()


def prepare_device(config: RunConfig) -> Ranks:
    """Join the processes and put the cap on the device's memory."""
    ranks = start_ranks(config.device)
    if ranks.device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True
        if config.memory_fraction is not None:
            torch.cuda.set_per_process_memory_fraction(config.memory_fraction, ranks.device)
    return ranks


def write_config(config: RunConfig, ranks: Ranks) -> None:
    """The resolved configuration beside the results."""
    if ranks.first:
        config.output_dir.mkdir(parents=True, exist_ok=True)
        (config.output_dir / "config.yaml").write_text(dump_config(config), encoding="utf-8")


def train_supervised(config: SupervisedConfig) -> bool:
    """Train as configured, from what `output_dir` holds; returns whether the run is complete.

    Raises:
        DeepGenError: of the configuration, the data, the checkpoints or the run.
    """
    ranks = prepare_device(config)
    run = SupervisedRun(config, ranks)
    run.report()
    write_config(config, ranks)
    return run.train()


def dry_run(config: SupervisedConfig) -> None:
    """The report of `train_supervised` without reading a weight or starting anything.

    Under torchrun's variables the report is of that many processes.

    Raises:
        DeepGenError: the configuration or the model cannot be used.
    """
    ranks = Ranks(
        int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)), 0, torch.device(config.device)
    )
    plan = plan_batches(config, ranks.world_size)
    built = build_empty(config)
    memory = estimate_memory(built.model, config, built.parts, ranks.world_size, built.defaults.area)
    if ranks.first:
        print_report(built.parts, plan, memory, config, ranks)
