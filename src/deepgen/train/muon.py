"""Muon for hidden matrices, AdamW for all else, as one optimizer.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) replaces a matrix's momentum by its nearest
semi-orthogonal matrix; with updates scaled to AdamW's size (Liu et al. 2025, arXiv:2502.16982, section 2.2) one
learning rate serves both. Numbers equal `torch.optim.Muon` (tested); that one orthogonalises matrix by matrix,
which for a small transformer costs more than its backward pass, so here matrices of one shape go through together.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
NEWTON_SCHULZ = (3.4445, -4.775, 2.0315)
NEWTON_SCHULZ_STEPS = 5
ADAMW_RMS = 0.2


def orthogonalise(matrices: Tensor) -> Tensor:
    """[n, A, B] → nearly semi-orthogonal matrices of the same singular vectors, by five Newton–Schulz steps."""
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x.bfloat16()
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class MuonAdamW(torch.optim.AdamW):
    """AdamW whose groups marked `muon` (matrices only) take Muon's step instead."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            if group.get("muon"):
                self._muon_step(group)
        return super().step(closure)

    def _muon_step(self, group: dict[str, Any]) -> None:
        by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
        for parameter in group["params"]:
            if parameter.grad is not None:
                by_shape[parameter.shape].append(parameter)
        for shape, parameters in by_shape.items():
            gradients = [p.grad for p in parameters if p.grad is not None]
            buffers = [self._buffer(p) for p in parameters]
            torch._foreach_lerp_(buffers, gradients, 1 - MOMENTUM)
            updates = orthogonalise(torch.stack(torch._foreach_lerp(gradients, buffers, MOMENTUM)))
            size = group["lr"] * ADAMW_RMS * max(shape) ** 0.5
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(parameters, list(updates.float().unbind()), alpha=-size)
            for parameter in parameters:
                parameter.grad = None  # so that AdamW leaves it alone

    def _buffer(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
            state["step"] = torch.zeros(())  # AdamW's loading looks for one in every state
        return state["momentum_buffer"]


def hidden_matrices(modules: Iterable[nn.Module]) -> list[Tensor]:
    """Weights of linear layers inside `modules`: what Muon is for. Give it blocks, not embeddings or heads."""
    linears = (m for module in modules for m in module.modules() if isinstance(m, nn.Linear))
    return [linear.weight for linear in linears if linear.weight.requires_grad]
