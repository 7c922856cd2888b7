"""What the tests of rewards share: pictures, a reward that misbehaves, and services in this process."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from deepgen.rewards import RewardInput, Score
from deepgen.rewards.service import Address, JsonService


def flat(value: int, side: int = 8) -> np.ndarray:
    return np.full((side, side, 3), value, np.uint8)


def inputs(*values: int, group: str = "g", prompt: str = "a cat", **more: Any) -> list[RewardInput]:
    """One input for each brightness."""
    return [RewardInput(flat(value), prompt, group, **more) for value in values]


class Scripted:
    """A reward that plays a list of functions, one a call, and mean brightness after that."""

    def __init__(
        self, *script: Callable[[Sequence[RewardInput]], list[Score]], kind: str = "pointwise"
    ) -> None:
        self.name = "scripted"
        self.kind = kind
        self.script = list(script)
        self.calls: list[list[RewardInput]] = []

    def __call__(self, batch: Sequence[RewardInput]) -> list[Score]:
        self.calls.append(list(batch))
        if self.script:
            return self.script.pop(0)(batch)
        return [Score.of(float(one.picture.mean())) for one in batch]


@contextmanager
def serving(routes: Any, token: str | None = None) -> Iterator[str]:
    """The url of a service in this process."""
    with JsonService(Address(token=token), routes) as service:
        threading.Thread(target=service.serve_forever, args=(0.01,), daemon=True).start()
        yield service.url
        service.shutdown()
