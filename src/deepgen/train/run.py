"""What every stage on the engine shares: one run in one process, from its newest checkpoint to its exported weights.

A stage is a `Run` that says how it advances: `advance` makes the next update, or the few that belong together. The
rest (building, sharding, resuming, saving, stopping, exporting) is the same code for all of them.

Everything random is a function of the seed and of how far the run is. So a run that was killed goes on as if it had
not been, and only weights, the optimizer, the average and a few numbers need saving.
"""

import logging
import math
import signal
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Generic, TypeVar

import torch
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from deepgen.config import dump_config
from deepgen.data.loader import MixtureLoader
from deepgen.errors import ConfigError, DeepGenError
from deepgen.train.build import Built, build
from deepgen.train.checkpointing import Checkpointer, Stateful, TensorState
from deepgen.train.ema import ShardedEma
from deepgen.train.export import export, exported_step
from deepgen.train.metrics import MetricsWriter, check_installed
from deepgen.train.monitor import check_sheet, draw_sheet
from deepgen.train.optimizer import build_optimizer, optimizer_tensors, schedule_rate, update
from deepgen.train.parallel import Ranks, any_rank, computing, start_ranks, sums_of
from deepgen.train.run_config import RunConfig
from deepgen.train.trainable import trained_parameters

log = logging.getLogger("deepgen.train")
ConfigT = TypeVar("ConfigT", bound=RunConfig)


class RunError(DeepGenError):
    """A run cannot go on: its updates are not finite, or not what they claim to be."""


@dataclass
class Counters:
    """Numbers of a run that are saved with it.

    Attributes:
        broken, left_out: samples of all processes, since the run's first update.
    """

    step: int = 0
    broken: int = 0
    left_out: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0

    def state_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(state)


class StopRequest:
    """Set by SIGTERM or the first SIGINT; the run saves and leaves after the update under way, or instead of waiting
    for a reward. A second SIGINT ends it at once, by KeyboardInterrupt."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Both signals while inside. Raises ValueError outside of the main thread: no other may be told of signals."""
        kinds = (signal.SIGTERM, signal.SIGINT)
        previous = {kind: signal.signal(kind, self) for kind in kinds}
        try:
            yield
        finally:
            for kind, handler in previous.items():
                signal.signal(kind, handler)


class Run(ABC, Generic[ConfigT]):
    """One run in one process.

    Args:
        config: of the run.
        ranks: this process.
    """

    def __init__(self, config: ConfigT, ranks: Ranks) -> None:
        self.config, self.ranks = config, ranks
        check_installed(config.metrics)
        self.built: Built = build(config, ranks)
        self.model, self.defaults = self.built.model, self.built.defaults
        check_sheet(config.samples, self.defaults, self.model.vlm.tokenizer)
        self.trained = trained_parameters(self.model)
        if not self.trained:
            raise ConfigError("trainable freezes everything; set one part to full or lora")
        self.optimizer = build_optimizer(self.model, config.optimizer)
        self.ema = ShardedEma(self.trained, config.ema_decay) if config.ema_decay else None
        self.counters = Counters()
        identity = {
            "model (a hash of the weights it began with)": self.built.weights,
            "trainable": config.trainable.model_dump(mode="json"),
            "seed": config.seed,
        }
        self.checkpointer = Checkpointer(
            config.output_dir / "checkpoints", config.checkpoint, ranks, identity
        )
        self.state: dict[str, Stateful] = {
            "weights": TensorState(self.trained),
            "optimizer": TensorState(optimizer_tensors(self.optimizer, self.trained)),
            "counters": self.counters,
        }
        if self.ema is not None:
            self.state["ema"] = self.ema
        self.stop = StopRequest()

    @abstractmethod
    def report(self) -> None:
        """Tell what will be done."""

    @abstractmethod
    def advance(self, metrics: MetricsWriter) -> float | None:
        """Make the next updates (`apply_update`) and write what was measured.

        Returns the validation loss where it was measured, for `checkpoint.keep_best`.
        """

    def close(self) -> None:
        """Let go of what `advance` works with; the run may have failed."""

    def train(self) -> bool:
        """Go on from the newest checkpoint, or begin; returns whether the run is complete.

        Raises:
            CheckpointError: a checkpoint does not fit, or cannot be written.
            RunError: too many updates in a row were not finite.
        """
        config, counters = self.config, self.counters
        if self.checkpointer.latest() is not None:
            self.checkpointer.load(self.state)
            self.say(f"going on from update {counters.step}")
        if counters.step > config.steps:
            raise ConfigError(
                f"steps is {config.steps}, but the run in {config.output_dir} is at {counters.step}"
            )
        final = config.output_dir / "final"
        if counters.step == config.steps and exported_step(final) == config.steps:
            self.say(f"nothing to do: {final} holds update {config.steps}")
            return True
        metrics = MetricsWriter(config.output_dir, config.metrics, self.ranks.first, counters.step)
        try:
            with self.stop.listening():
                self._loop(metrics)
        finally:
            self.close()
            metrics.close()
            # Whatever ended the loop: a save that has begun is finished.
            self.checkpointer.wait()
        self.save()
        if counters.step < config.steps:
            self.say(f"stopped and saved at update {counters.step}; the same command goes on")
            return False
        self._export(final)
        return True

    def save(self) -> None:
        """Have the state on disk when this returns. Collective."""
        self.checkpointer.wait()
        if self.checkpointer.latest() != self.counters.step:
            self.checkpointer.save(self.counters.step, self.state)
            self.checkpointer.wait()

    def say(self, text: str) -> None:
        """A line of the log, by the first process."""
        if self.ranks.first:
            log.info("%s", text)

    def _loop(self, metrics: MetricsWriter) -> None:
        config, counters = self.config, self.counters
        every = config.checkpoint.save_every_steps
        with self._bar() as bar:
            task = bar.add_task(config.output_dir.name, total=config.steps, completed=counters.step)
            while counters.step < config.steps:
                before = counters.step
                score = self.advance(metrics)
                bar.update(task, completed=counters.step)
                if counters.step // every > before // every or counters.step == config.steps:
                    self.checkpointer.save(counters.step, self.state, score)
                if any_rank(self.stop.asked, self.ranks):
                    return
                self.draw_samples(before)

    def _bar(self) -> Bar:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        return Bar(
            *columns, TimeElapsedColumn(), TimeRemainingColumn(), disable=not self.ranks.first, transient=True
        )

    def apply_update(self) -> tuple[float, float]:
        """One update from the gradients that have gathered; returns their norm and the rate.

        Raises:
            RunError: too many in a row were not finite.
        """
        config, counters = self.config, self.counters
        rate = schedule_rate(config.optimizer, counters.step, config.steps)
        norm = update(self.optimizer, config.optimizer, rate, self.ranks)
        counters.step += 1
        if math.isfinite(norm):
            counters.skipped_in_a_row = 0
            if self.ema is not None:
                self.ema.update()
            return norm, rate
        counters.skipped += 1
        counters.skipped_in_a_row += 1
        self.say(f"update {counters.step} left out: its gradient is not finite")
        if counters.skipped_in_a_row >= config.max_skipped_updates:
            raise RunError(
                f"{counters.skipped_in_a_row} updates in a row were not finite; go on from an earlier checkpoint "
                "with a lower optimizer.learning_rate"
            )
        return norm, rate

    def count_replaced(self, loader: MixtureLoader) -> None:
        """Add what was broken or left out in the last update's data. Collective."""
        broken, left_out = sums_of(loader.newly_replaced(), self.ranks)
        self.counters.broken += broken
        self.counters.left_out += left_out

    def replaced(self) -> dict[str, float]:
        """How many samples were broken or left out so far, by their names in the metrics."""
        return {
            "broken_samples": float(self.counters.broken),
            "left_out_samples": float(self.counters.left_out),
        }

    def averaged(self) -> AbstractContextManager[None]:
        """The averaged weights in place of the trained ones while inside, where an average is kept."""
        return self.ema.applied() if self.ema is not None else nullcontext()

    def draw_samples(self, before: int) -> None:
        """The sheet of fixed prompts, where its time has come since update `before`. Collective."""
        config, step = self.config, self.counters.step
        samples = config.samples
        due = step // samples.every_steps > before // samples.every_steps
        if not (samples.prompts or samples.edits) or not due:
            return
        path = config.output_dir / "samples" / f"step_{step:08d}.png"
        with self.averaged(), torch.no_grad(), computing(config.parallel, self.ranks):
            draw_sheet(self.model, self.defaults, samples, path if self.ranks.first else None)

    def _export(self, folder: Path) -> None:
        config = self.config
        dtype = None if config.export_dtype is None else getattr(torch, config.export_dtype)
        note = {"step": self.counters.step, "stage": config.stage}
        with self.averaged():
            export(self.model, self.defaults, folder, config.trainable, self.ranks, dtype, note)
        self.say(f"wrote {folder}")


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


def execute(run: Run[Any]) -> bool:
    """Report a run, keep its configuration beside its results, and train; returns whether it is complete."""
    run.report()
    write_config(run.config, run.ranks)
    return run.train()
