"""A sampler as a list of independent states: callers add and drop pictures between steps as they like."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import Tensor

from deepgen.flow.guidance import guide
from deepgen.flow.schedule import timestep_of
from deepgen.flow.steps import euler_step

Condition = TypeVar("Condition")


@dataclass
class SampleState(Generic[Condition]):
    """One picture on its way from noise.

    Attributes:
        latents: [C, h, w] fp32, at noise level sigmas[index].
        sigmas: [S + 1] fp32 on the CPU, its own schedule, ending in 0.
        positive: what the velocity is conditioned on; opaque here.
        negative: what guidance pushes away from; None for no guidance.
        guidance: guidance scale; 1 or less evaluates the positive side only.
        seed: key of every random draw of this picture.
        index: steps done.
    """

    latents: Tensor
    sigmas: Tensor
    positive: Condition
    negative: Condition | None = None
    guidance: float = 1.0
    seed: int = 0
    index: int = 0

    @property
    def done(self) -> bool:
        return self.index >= len(self.sigmas) - 1

    @property
    def guided(self) -> bool:
        return self.negative is not None and self.guidance > 1.0

    @property
    def sigma(self) -> float:
        return self.sigmas[self.index].item()

    @property
    def next_sigma(self) -> float:
        return self.sigmas[self.index + 1].item()


@dataclass(frozen=True)
class Evaluation(Generic[Condition]):
    """One row of a velocity batch: latents [C, h, w], timestep in [0, 1000], and the condition to use."""

    latents: Tensor
    timestep: float
    condition: Condition


VelocityFn = Callable[[list[Evaluation[Condition]]], Sequence[Tensor]]
StepFn = Callable[[SampleState[Condition], Tensor], Tensor]


def ode_step(state: SampleState[Condition], velocity: Tensor) -> Tensor:
    """The deterministic step function: latents at the state's next noise level, fp32."""
    return euler_step(state.latents, velocity, state.sigma, state.next_sigma)


def velocities(states: Sequence[SampleState[Condition]], velocity_fn: VelocityFn[Condition]) -> list[Tensor]:
    """The guided velocity [C, h, w] of each state, from one call of velocity_fn.

    Rows of the call: the negative sides of the guided states, then the positive sides of all states.
    """
    rows: list[Evaluation[Condition]] = []
    slots: dict[int, int] = {}
    times = [timestep_of(state.sigmas[state.index]).item() for state in states]
    for i, (state, time) in enumerate(zip(states, times, strict=True)):
        if state.negative is not None and state.guided:
            slots[i] = len(rows)
            rows.append(Evaluation(state.latents, time, state.negative))
    first_positive = len(rows)
    rows += [Evaluation(s.latents, t, s.positive) for s, t in zip(states, times, strict=True)]
    results = velocity_fn(rows)
    guided = []
    for i, state in enumerate(states):
        velocity = results[first_positive + i]
        if i in slots:
            velocity = guide(results[slots[i]], velocity, state.guidance)
        guided.append(velocity)
    return guided


def advance(
    states: Sequence[SampleState[Condition]],
    velocity_fn: VelocityFn[Condition],
    step_fn: StepFn[Condition] = ode_step,
) -> None:
    """Take one step of every state in place; states that are done are left alone.

    Args:
        states: any set of states, at different steps and sizes if velocity_fn can take them.
        velocity_fn: gives the velocity [C, h, w] of each row it is handed.
        step_fn: gives the latents at the next noise level from a state and its velocity.
    """
    live = [state for state in states if not state.done]
    if not live:
        return
    for state, velocity in zip(live, velocities(live, velocity_fn), strict=True):
        state.latents = step_fn(state, velocity)
        state.index += 1
