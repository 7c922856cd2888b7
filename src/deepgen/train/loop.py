"""What every training loop of this package shares: budget, schedule, EMA, metrics, safe stops.

A loop asks `Progress` how far the run is, takes its learning rate from it, and stops when it says so.
Progress is measured in optimizer updates (`steps`) or in wall-clock minutes (`budget_minutes`), whichever the
configuration gives; a run that continues from a saved state continues its schedule.
"""

import json
import logging
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from pydantic import Field, model_validator
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from torch import Tensor, nn

from deepgen.config import Config

log = logging.getLogger("deepgen.train")


class LoopConfig(Config):
    """Length, rate and averaging of one run. Exactly one of `steps` and `budget_minutes` is given."""

    steps: int | None = Field(None, gt=0, description="optimizer updates")
    budget_minutes: float | None = Field(None, gt=0, description="wall-clock time of the whole run")
    stop_after_minutes: float | None = Field(
        None, gt=0, description="save and leave after this long; resume later"
    )
    learning_rate: float = Field(gt=0)
    warmup_steps: int = Field(100, ge=0)
    cooldown: float = Field(0.4, ge=0, le=1, description="share of the run in which the rate falls to zero")
    weight_decay: float = Field(0.01, ge=0)
    betas: tuple[float, float] = (0.9, 0.95)
    clip_grad_norm: float = Field(1.0, gt=0)
    ema_decay: float = Field(0.999, ge=0, lt=1)
    log_every_steps: int = Field(50, gt=0)
    seed: int = 0

    @model_validator(mode="after")
    def _one_length(self) -> "LoopConfig":
        if (self.steps is None) == (self.budget_minutes is None):
            raise ValueError("give exactly one of steps and budget_minutes")
        return self


class StageConfig(Config):
    """What every training stage has; the stages add their own."""

    output_dir: Path
    sprites: Path | None = Field(
        None, description="the zip made by `deepgen world fetch`; null: procedural shapes"
    )
    device: str = "cpu"
    workers: int = Field(2, ge=0, description="processes that invent samples; 0: none")
    loop: LoopConfig


class Progress:
    """How far a run is, in [0, 1], and whether it should stop (done, SIGTERM, or its share of time used up).

    The clock is read once an update. Several processes take the latest of their clocks, preparations included, so that
    all follow one schedule and stop at the same update: one that went on alone would wait for the others for ever.
    """

    def __init__(self, config: LoopConfig, step: int = 0, elapsed: float = 0.0) -> None:
        self.config = config
        self.step = step
        self._elapsed_before = elapsed
        self._start = time.monotonic()
        self._here = 0.0
        self._stop_requested = False

    @property
    def elapsed(self) -> float:
        """Seconds of training up to this update, earlier parts of the run included."""
        return self._elapsed_before + self._here

    def _read_clock(self) -> None:
        self._here = time.monotonic() - self._start
        if dist.is_initialized() and dist.get_world_size() > 1:
            mine = [self._here, self._elapsed_before, float(self._stop_requested)]
            shared = torch.tensor(mine, dtype=torch.float64)
            dist.all_reduce(shared, dist.ReduceOp.MAX)  # through host memory: no wait for a device
            self._here, self._elapsed_before, stop = shared.tolist()
            self._stop_requested = bool(stop)

    @property
    def fraction(self) -> float:
        if self.config.steps is not None:
            return min(1.0, self.step / self.config.steps)
        assert self.config.budget_minutes is not None
        return min(1.0, self.elapsed / (60 * self.config.budget_minutes))

    @property
    def done(self) -> bool:
        return self.fraction >= 1.0

    def request_stop(self, _signal: int = 0, _frame: FrameType | None = None) -> None:
        self._stop_requested = True

    def should_stop(self) -> bool:
        """Reads the clock; collective where there are several processes."""
        self._read_clock()
        limit = self.config.stop_after_minutes
        used_up = limit is not None and self._here >= 60 * limit
        return self.done or self._stop_requested or used_up

    def learning_rate(self) -> float:
        """Linear warm-up, constant, then linear to zero over the last `cooldown` of the run."""
        c = self.config
        warm = min(1.0, (self.step + 1) / c.warmup_steps) if c.warmup_steps else 1.0
        cool = min(1.0, (1.0 - self.fraction) / c.cooldown) if c.cooldown else 1.0
        return c.learning_rate * warm * cool

    def updates(self, description: str) -> Iterator[int]:
        """Yields update numbers until the run stops; shows a bar with the remaining time; SIGTERM stops cleanly."""
        previous = signal.signal(signal.SIGTERM, self.request_stop)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        try:
            with Bar(*columns) as bar:
                task = bar.add_task(description, total=1.0)
                while not self.should_stop():
                    yield self.step
                    self.step += 1
                    if self.step % 10 == 0:
                        bar.update(task, completed=self.fraction)
                bar.update(task, completed=self.fraction)
        finally:
            signal.signal(signal.SIGTERM, previous)


class Metrics:
    """Appends one JSON line a record to `metrics.jsonl` and logs it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "metrics.jsonl"

    def write(self, **values: float | int | str) -> None:
        record = {k: round(v, 6) if isinstance(v, float) else v for k, v in values.items()}
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")
        log.info("%s", "  ".join(f"{k} {v}" for k, v in record.items()))


class Ema:
    """Exponential moving average of a module's parameters (fp32), with the usual warm-up of the decay."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.parameters = [p for p in module.parameters()]
        self.shadow = [p.detach().float().clone() for p in self.parameters]

    @torch.no_grad()
    def update(self) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self.shadow, [p.detach().float() for p in self.parameters], 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchanges parameters and averages; call again to undo."""
        for parameter, average in zip(self.parameters, self.shadow, strict=True):
            held = parameter.detach().clone()
            parameter.copy_(average)
            average.copy_(held)

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "shadow": self.shadow}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates = state["updates"]
        for mine, saved in zip(self.shadow, state["shadow"], strict=True):
            mine.copy_(saved)


def make_optimizer(modules: Iterable[nn.Module], config: LoopConfig) -> torch.optim.AdamW:
    """AdamW; weight decay only on parameters of two or more dimensions (as the published recipe)."""
    trained = [p for m in modules for p in m.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=trained[0].is_cuda)


def apply_update(
    optimizer: torch.optim.Optimizer, progress: Progress, meanwhile: Callable[[], None] | None = None
) -> Tensor:
    """Clip, set the rate, step, forget the gradients. Returns the gradient norm (0-d tensor); a non-finite norm skips
    the step.

    Args:
        optimizer: of parameters that have gradients.
        progress: of the run.
        meanwhile: gives the device work that it does while this process, which has waited for the norm, launches the
            many small kernels of the step.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = nn.utils.clip_grad_norm_(parameters, progress.config.clip_grad_norm)
    finite = torch.isfinite(norm).to("cpu", non_blocking=True)
    known = torch.cuda.current_stream().record_event() if norm.is_cuda else None
    if meanwhile is not None:
        meanwhile()
    rate = progress.learning_rate()
    for group in optimizer.param_groups:
        group["lr"] = rate
    if known is not None:
        known.synchronize()
    if bool(finite):
        optimizer.step()
    else:
        log.warning("update %d skipped: gradient norm is %s", progress.step, float(norm))
    optimizer.zero_grad(set_to_none=True)
    return norm


def save_state(path: Path, **state: Any) -> None:
    """Writes a training state atomically (temporary name, then rename)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".partial")
    torch.save(state, temporary)
    temporary.rename(path)


def load_state(path: Path, device: torch.device) -> dict[str, Any]:
    return torch.load(path, map_location=device, weights_only=True)
