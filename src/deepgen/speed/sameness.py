"""What must be the same at every number of processes: the noise that training uses, weights and optimizer's state.

Noise is noted while tiny models are trained and reinforced by the stages' own code, and gathered from all processes.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from deepgen.config import load_config
from deepgen.speed.rollout import RolloutWork, rollout_config
from deepgen.train.engine import SupervisedRun
from deepgen.train.metrics import MetricsWriter
from deepgen.train.monitor import LossMeter
from deepgen.train.parallel import ParallelConfig, Ranks, whole
from deepgen.train.rl.rollout import Drawer, Lanes
from deepgen.train.rl.stage import RLRun
from deepgen.train.run_config import SupervisedConfig
from deepgen.train.supervised import BatchLoss
from deepgen.train.tiny import TINY

UPDATES = 2
SAMPLES = 16
"""Of an update, over all processes: so these may be 1, 2, 4, 8 or 16; rollouts allow up to 8."""
ROLLOUT = RolloutWork("rl/mr_grpo_fast", TINY, groups=16, group_size=4, at_once=8)
CHUNK = 1 << 24


def digest_of_all(seen: Sequence[str], ranks: Ranks) -> str:
    """One digest of what all processes saw, in whatever order; what is seen twice counts twice. Collective."""
    everyone: list[Any] = [list(seen)]
    if ranks.world_size > 1:
        everyone = [None] * ranks.world_size
        dist.all_gather_object(everyone, list(seen))
    joined = sorted(text for one in everyone for text in one)
    return hashlib.sha256(json.dumps(joined).encode()).hexdigest()[:16]


@dataclass
class _Meter(LossMeter):
    """Notes the draws of every batch that training took a loss of."""

    seen: list[str] = field(default_factory=list)

    def add(self, result: BatchLoss, count: int | None = None) -> None:
        super().add(result, count)
        for level, noise in zip(result.draws.uniform, result.draws.noise, strict=True):
            self.seen.append(_digest(level) + _digest(noise))


class _Drawer(Drawer):
    """Notes the noise of every picture, with what it is for."""

    def __init__(self, like: Drawer, run: RLRun) -> None:
        super().__init__(like.model, like.config, run.defaults, like.ranks)
        self.seen: list[str] = []

    def noise(self, lanes: Lanes, role: str, step: int, size: int) -> Tensor:
        rows = super().noise(lanes, role, step, size)
        for one, member, row in zip(lanes.groups, lanes.members, rows, strict=True):
            self.seen.append(f"{role} {step} {one.group.number} {member} {_digest(row)}")
        return rows


def fine_tuning_noise(folder: Path, ranks: Ranks) -> str:
    """A digest of the noise and levels of two updates of the same samples, however many processes share them.
    Collective.

    Raises:
        ConfigError: they do not divide among the processes.
    """
    options = [f"output_dir={folder}", f"device={ranks.device.type}", "validation.data=null"]
    options += ["samples.prompts=[]", "ema_decay=null", "batch_size=1", f"global_batch_size={SAMPLES}"]
    run = SupervisedRun(load_config(SupervisedConfig, "train/smoke", options), ranks)
    run.meter = meter = _Meter(ranks)
    for _ in range(UPDATES):
        run.advance(MetricsWriter(folder, active=False))
    return digest_of_all(meter.seen, ranks)


def rollout_noise(folder: Path, ranks: Ranks) -> tuple[str, str]:
    """Digests of the noise of one rollout, and of the supervised loss beside it. Collective.

    Raises:
        ConfigError: it does not divide among the processes.
    """
    run = RLRun(rollout_config(ROLLOUT, folder, ParallelConfig(), ranks), ranks)
    assert run.sft is not None
    run.drawer = drawer = _Drawer(run.drawer, run)
    run.sft.meter = meter = _Meter(ranks)
    try:
        run.advance(MetricsWriter(folder, active=False))
    finally:
        run.close()
    return digest_of_all(drawer.seen, ranks), digest_of_all(meter.seen, ranks)


def _digest(values: Tensor) -> str:
    return hashlib.sha256(values.cpu().numpy().tobytes()).hexdigest()[:16]


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """A digest of every bit of named tensors, the same however they are sharded. Collective."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        tensor = whole(tensors[name].detach())
        found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} {_fingerprint(tensor)}\n".encode())
    return found.hexdigest()[:16]


def _fingerprint(tensor: Tensor) -> int:
    """Σ bits · (2·place + 1) modulo 2^64, on the tensor's device: another value for any one value changed, and for any
    two exchanged."""
    bits = tensor.contiguous().view(-1).view(torch.int32)
    total = torch.zeros((), dtype=torch.int64, device=tensor.device)
    for start in range(0, len(bits), CHUNK):
        some = bits[start : start + CHUNK].long()
        places = torch.arange(start, start + len(some), device=tensor.device)
        total += (some * (2 * places + 1)).sum()
    return int(total)
