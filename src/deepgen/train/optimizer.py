"""AdamW on fp32 masters, its rate over a run, and one update that is made only when it is finite."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
import torch.distributed as dist
from pydantic import Field
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Shard

from deepgen.config import Config
from deepgen.train.parallel import Ranks, local
from deepgen.train.trainable import trained_parameters

BUCKET = 1 << 24
"""Elements of gradients that are averaged in one message."""


class OptimizerConfig(Config):
    """AdamW and its schedule; the defaults are the published ones (both stages), but the rate, which they differ in."""

    learning_rate: float = Field(gt=0)
    betas: tuple[float, float] = (0.9, 0.95)
    epsilon: float = Field(1e-8, gt=0)
    weight_decay: float = Field(
        0.05, ge=0, description="of parameters of two or more dimensions; others have none"
    )
    clip_grad_norm: float = Field(1.0, gt=0)
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: float = Field(0.01, ge=0, lt=1, description="share of the steps in which the rate rises")
    warmup_steps: int | None = Field(None, ge=0, description="instead of the share")


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """Fused AdamW over the trained parameters: decay for two or more dimensions, none for the others."""
    trained = list(trained_parameters(model).values())
    groups = [
        # One kernel takes sharded parameters or whole ones, not both.
        {"params": [p for p in trained if (p.dim() >= 2) == decays and isinstance(p, DTensor) == sharded]}
        | {"weight_decay": config.weight_decay if decays else 0.0}
        for decays in (True, False)
        for sharded in (True, False)
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.learning_rate,
        betas=config.betas,
        eps=config.epsilon,
        fused=True,
    )


def schedule_rate(config: OptimizerConfig, step: int, steps: int) -> float:
    """The rate of update `step` (from 0) of `steps`: linear warm-up from almost zero, then cosine to 0, or constant."""
    warm = config.warmup_steps if config.warmup_steps is not None else round(config.warmup * steps)
    if step < warm:
        return config.learning_rate * (step + 1) / (warm + 1)
    if config.schedule == "constant":
        return config.learning_rate
    along = (step - warm) / max(1, steps - warm)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, along)))


def update(optimizer: torch.optim.Optimizer, config: OptimizerConfig, rate: float, ranks: Ranks) -> float:
    """Average gradients over processes, clip, check, step, forget the gradients.

    Gradients of sharded parameters are averages already. A norm that is not finite makes no update: parameters and
    the optimizer's state stay as they are, on every process.

    Returns:
        The norm of the whole gradient before clipping; not finite where no update was made.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    average_gradients(parameters, ranks)
    norm = gradient_norm(parameters)
    value = float(norm)
    if math.isfinite(value):
        scale = min(1.0, config.clip_grad_norm / (value + 1e-6))
        if scale < 1:
            torch._foreach_mul_([local(p.grad) for p in parameters if p.grad is not None], scale)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return value


def average_gradients(parameters: Iterable[Tensor], ranks: Ranks) -> None:
    """Replace the gradients of unsharded parameters by their means over all processes."""
    if ranks.world_size == 1:
        return
    bucket: list[Tensor] = []
    size = 0
    for parameter in parameters:
        if isinstance(parameter, DTensor):
            continue
        if parameter.grad is None:
            # Every process must send the same: one may have had no sample that uses this parameter.
            parameter.grad = torch.zeros_like(parameter)
        bucket.append(parameter.grad)
        size += parameter.grad.numel()
        if size >= BUCKET:
            _average(bucket, ranks)
            bucket, size = [], 0
    if bucket:
        _average(bucket, ranks)


def _average(gradients: list[Tensor], ranks: Ranks) -> None:
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= ranks.world_size
    parts = flat.split([g.numel() for g in gradients])
    torch._foreach_copy_(gradients, [p.view_as(g) for p, g in zip(parts, gradients, strict=True)])


def gradient_norm(parameters: Iterable[Tensor]) -> Tensor:
    """Euclidean norm, fp32 [], of all gradients, sharded ones included. Collective."""
    whole: list[Tensor] = []
    parts: list[Tensor] = []
    group: Any = None
    for parameter in parameters:
        gradient = parameter.grad
        if gradient is None:
            continue
        if isinstance(gradient, DTensor):
            axis = next(i for i, p in enumerate(gradient.placements) if isinstance(p, Shard))
            group = gradient.device_mesh.get_group(axis)
            parts.append(gradient.to_local())
        else:
            whole.append(gradient)
    total = _square(whole)
    if group is not None:
        shared = _square(parts).to(parts[0].device)
        dist.all_reduce(shared, group=group)
        total = total.to(shared.device) + shared
    return total.sqrt()


def _square(gradients: list[Tensor]) -> Tensor:
    filled = [g for g in gradients if g.numel()]
    if not filled:
        return torch.zeros(())
    return torch.stack(torch._foreach_norm(filled)).float().square().sum()


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The optimizer's state by name, `exp_avg.NAME` and so on; made (zeros) where there is none yet.

    Args:
        optimizer: AdamW.
        names: the trained parameters.
    """
    found: dict[str, Tensor] = {}
    for name, parameter in names.items():
        state = optimizer.state[parameter]
        if not state:
            # As AdamW makes it at its first step.
            state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        found.update({f"{key}.{name}": value for key, value in state.items()})
    return found
