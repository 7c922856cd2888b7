"""Which steps of a rollout get noise, and which of these are trained. The others are deterministic.

The last step is always deterministic: rewards see no noise that nothing can remove any more.
"""

import random
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from deepgen.config import Config


class WindowConfig(Config):
    """A window of consecutive steps that get noise.

    Attributes:
        placement: fixed: from `first`; random: anywhere in the range, anew for each rollout; sliding: from `first`
            towards the end of the range, by `stride` every `every_rollouts`, and back to `first` (MixGRPO).
        size: steps; null: the whole range.
        first, stop: the range; null: up to the last step, which never gets noise.
        trained: so many steps of the window are trained, drawn anew for each rollout; null: all.
    """

    placement: Literal["fixed", "random", "sliding"] = "random"
    size: int | None = Field(3, gt=0)
    first: int = Field(0, ge=0)
    stop: int | None = Field(None, gt=0)
    stride: int = Field(1, gt=0)
    every_rollouts: int = Field(25, gt=0)
    trained: int | None = Field(None, gt=0)


@dataclass(frozen=True)
class Window:
    """Steps of one rollout: `noised`, consecutive, and `trained`, some of them, both ascending."""

    noised: range
    trained: tuple[int, ...]


def check_window(config: WindowConfig, steps: int) -> None:
    """Raises ValueError for a window that `steps` sampler steps cannot hold."""
    stop = _stop(config, steps)
    size = config.size or stop - config.first
    if stop > steps - 1 or size < 1 or config.first + size > stop:
        raise ValueError(
            f"window: {size} steps from {config.first} up to {stop} do not fit; {steps} sampler steps have "
            f"{steps - 1} that can get noise"
        )
    if config.trained is not None and config.trained > size:
        raise ValueError(f"window.trained is {config.trained}, but the window has {size} steps")


def _stop(config: WindowConfig, steps: int) -> int:
    return steps - 1 if config.stop is None else config.stop


def choose_window(config: WindowConfig, steps: int, seed: int, rollout: int) -> Window:
    """The window of one rollout, the same on every process: a function of seed and number."""
    rng = random.Random(f"window {seed} {rollout}")
    stop = _stop(config, steps)
    size = config.size or stop - config.first
    places = stop - size - config.first + 1
    start = config.first
    if config.placement == "random":
        start += rng.randrange(places)
    elif config.placement == "sliding":
        # Every place by the stride, then from the first again.
        turns = -(-places // config.stride)
        start += (rollout // config.every_rollouts) % turns * config.stride
    noised = range(start, start + size)
    trained = noised if config.trained is None else sorted(rng.sample(noised, config.trained))
    return Window(noised, tuple(trained))
