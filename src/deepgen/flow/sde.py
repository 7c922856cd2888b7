"""Stochastic steps of a sampler, each with a density: what a rollout draws from and training takes the gradient of.

A rollout and the training on it call the same functions, in fp32, so that log-probabilities differ by nothing but the
network's rounding. Rows are samples; every row has its own noise levels.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from deepgen.errors import InputError
from deepgen.flow.path import clean_estimate
from deepgen.flow.steps import euler_step

SdeKind = Literal["cps", "flow", "dance"]


@dataclass(frozen=True)
class Transition:
    """The distribution of the latents at the next noise level: normal around `mean` [B, …] with deviation `std` [B].

    Attributes:
        mean, std: fp32.
        scale: [B], what the published velocity KL divides by; the deviation, but for flow that of unit time.
        gaussian: whether the log-probability is the normal density's (else the negative squared distance alone).
    """

    mean: Tensor
    std: Tensor
    scale: Tensor
    gaussian: bool

    def draw(self, noise: Tensor) -> Tensor:
        """Next latents from standard normal noise of the mean's shape."""
        return self.mean + _column(self.std, self.mean) * noise

    def log_prob(self, value: Tensor, counts: Tensor | None = None) -> Tensor:
        """Log-probability [B] of next latents, as a mean over their elements, not a sum.

        The published clip range of 1e-4 belongs to that mean. gaussian: −(x − mean)² / (2·std²) − log std − log √(2π);
        otherwise −(x − mean)², the density without variance and constants (paper, eq. 7).

        Args:
            value: fp32, the mean's shape.
            counts: [B], elements of each row that are real, where rows are filled up with equal values at the end.
        """
        squares = (value - self.mean).square().flatten(1).sum(1)
        square = squares / (value[0].numel() if counts is None else counts)
        if not self.gaussian:
            return -square
        return -square / (2 * self.std.square()) - self.std.log() - 0.5 * math.log(2 * math.pi)


def cps(latents: Tensor, velocity: Tensor, sigma: Tensor, next_sigma: Tensor, eta: float) -> Transition:
    """Coefficient-preserving sampling (paper, eq. 6): noise of the next level, kept for cos(ηπ/2), new for sin(ηπ/2).

    mean = (1 − σ')·x̂0 + σ'·cos(ηπ/2)·x̂1 with x̂0 = x − σ·v and x̂1 = x + (1 − σ)·v. η = 0 is the Euler step; η = 1 adds
    fresh noise to x̂0 and forgets x.
    """
    clean = clean_estimate(latents, velocity, _column(sigma, latents))
    noise = latents + _column(1 - sigma, latents) * velocity
    kept = next_sigma * math.cos(eta * math.pi / 2)
    mean = _column(1 - next_sigma, latents) * clean + _column(kept, latents) * noise
    std = next_sigma * math.sin(eta * math.pi / 2)
    return Transition(mean, std, std, gaussian=False)


def flow(latents: Tensor, velocity: Tensor, sigma: Tensor, next_sigma: Tensor, eta: float) -> Transition:
    """The SDE of Flow-GRPO (Liu et al. 2025): s = η·√(σ / (1 − σ)), deviation s·√(−Δ), Δ = σ' − σ.

    At σ = 1 the level behind it stands in for σ inside the root.
    """
    delta = next_sigma - sigma
    inside = torch.where(sigma >= 1, next_sigma, sigma)
    scale = eta * (sigma / (1 - inside)).sqrt()
    of_latents = 1 + scale.square() * delta / (2 * sigma)
    of_velocity = (1 + scale.square() * (1 - sigma) / (2 * sigma)) * delta
    mean = _column(of_latents, latents) * latents + _column(of_velocity, latents) * velocity
    return Transition(mean, scale * (-delta).sqrt(), scale, gaussian=True)


def dance(latents: Tensor, velocity: Tensor, sigma: Tensor, next_sigma: Tensor, eta: float) -> Transition:
    """The SDE of DanceGRPO (Xue et al. 2025): deviation η·√(−Δ) at every level.

    mean = x + (v + η²/2 · (x − (1 − σ)·x̂0) / σ²)·Δ.
    """
    delta = next_sigma - sigma
    clean = clean_estimate(latents, velocity, _column(sigma, latents))
    pull = (latents - _column(1 - sigma, latents) * clean) / _column(sigma.square(), latents)
    mean = latents + (velocity + 0.5 * eta**2 * pull) * _column(delta, latents)
    std = eta * (-delta).sqrt()
    return Transition(mean, std, std, gaussian=True)


STEPS: dict[SdeKind, Callable[[Tensor, Tensor, Tensor, Tensor, float], Transition]] = {
    "cps": cps,
    "flow": flow,
    "dance": dance,
}


def sde_step(
    kind: SdeKind, latents: Tensor, velocity: Tensor, sigma: Tensor, next_sigma: Tensor, eta: float
) -> Transition:
    """One stochastic step.

    Args:
        kind: one of STEPS.
        latents, velocity: [B, …].
        sigma, next_sigma: [B] noise levels, 1 ≥ sigma > next_sigma ≥ 0.
        eta: how much noise is added, > 0; for cps at most 1.

    Raises:
        InputError: unknown kind, or an eta out of range.
    """
    if kind not in STEPS:
        raise InputError(f"sampler {kind!r} is none of {', '.join(STEPS)}")
    if not eta > 0 or (kind == "cps" and eta > 1):
        raise InputError(
            f"eta is {eta}; it must be positive, and at most 1 for cps (ode_step is the one without noise)"
        )
    sigma, next_sigma = sigma.float(), next_sigma.float()
    return STEPS[kind](latents.float(), velocity.float(), sigma, next_sigma, eta)


def ode_rows(latents: Tensor, velocity: Tensor, sigma: Tensor, next_sigma: Tensor) -> Tensor:
    """The deterministic step of rows with levels [B] each; see `steps.euler_step`."""
    return euler_step(latents, velocity, _column(sigma, latents), _column(next_sigma, latents))


def _column(values: Tensor, like: Tensor) -> Tensor:
    """Values [B] that broadcast over [B, …]."""
    return values.view(-1, *([1] * (like.dim() - 1)))
