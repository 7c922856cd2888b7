"""What a reward is: it takes pictures with what was asked of them, and gives a value to each, or a reason why not.

The other parts: `config.RewardConfig` (one entry of a run's `rewards`), `build.build_rewards`, and
`runner.RewardRunner`, which calls rewards beside the rollout. All of them are exported by `deepgen.rewards`.
Nothing here imports torch: a service that needs none starts at once.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from deepgen.errors import RewardError

Picture = NDArray[np.uint8]
"""[H, W, 3], sRGB."""

Kind = Literal["pointwise", "groupwise"]
"""pointwise: a value depends on its own input alone. groupwise: on all inputs of the same `group`, which are always
handed over together."""


@dataclass(frozen=True)
class RewardInput:
    """One drawn picture and what was asked.

    picture: uint8 [H, W, 3]; a CPU tensor of that kind is taken too. group: id of the prompt's group in this batch.
    references: the pictures of an edit in the prompt's order, the last one its source. family: of the prompt ("t2i",
    "edit", a data set's name): decides which rewards apply, and their weights. target: an edit's known right result,
    where there is one. metadata: JSON-ready; "world" holds `world.testset.row_of` a sample, which the reward
    world_detector reads (edits need it).
    """

    picture: Picture
    prompt: str
    group: str
    references: tuple[Picture, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    family: str = ""
    target: Picture | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "picture", as_picture(self.picture))
        object.__setattr__(self, "references", tuple(as_picture(one) for one in self.references))
        if self.target is not None:
            object.__setattr__(self, "target", as_picture(self.target))


@dataclass(frozen=True)
class Score:
    """A value, or None and the reason. Never a zero for a failure: None is left out of every statistic.

    failed: the reward could not be computed now, and may be if it is asked again (a service is down); only such
    values are asked for again and count towards a pause. Otherwise None is final: it does not apply here.
    """

    value: float | None
    reason: str = ""
    failed: bool = False

    @classmethod
    def of(cls, value: float) -> "Score":
        """A value; one that is not finite is invalid."""
        if not math.isfinite(value):
            return cls(None, f"value is {value}")
        return cls(float(value))

    @classmethod
    def failure(cls, reason: str) -> "Score":
        """No value now; it may be asked for again."""
        return cls(None, reason, failed=True)

    @property
    def valid(self) -> bool:
        return self.value is not None


NOT_ASKED = Score(None, "not used in this family of prompts")
"""The score of an input whose family has weight 0 in a reward; counts nowhere."""


class RewardUnavailable(RewardError):
    """A reward's service cannot be reached, or does not work for now; asking again later may help."""


class Reward(Protocol):
    """Scores inputs; one Score for each, in order.

    Raises RewardUnavailable where its service cannot be reached at all: the same as `failed` for every input. Other
    RewardErrors end the run: trying again would not help.
    """

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> Kind: ...

    def __call__(self, batch: Sequence[RewardInput]) -> list[Score]: ...


@dataclass(frozen=True)
class WeightedReward:
    """A reward and its weight in each family of prompts.

    families: None: `weight` in all of them; otherwise a family that is not named does not use it. waits: its calls wait
    for a server, so that several may be made at once, in threads. ordered: of the golden pictures the right one must
    score higher.
    """

    reward: Reward
    weight: float = 1.0
    families: Mapping[str, float] | None = None
    waits: bool = False
    ordered: bool = True

    @property
    def name(self) -> str:
        return self.reward.name

    def weight_for(self, family: str) -> float:
        """0 where the reward is not used."""
        return self.weight if self.families is None else self.families.get(family, 0.0)

    def applies(self, one: RewardInput) -> bool:
        return self.weight_for(one.family) != 0


def as_picture(value: Any) -> Picture:
    """uint8 [H, W, 3] from an array or a CPU tensor. Raises ValueError for anything else: it is a caller's bug."""
    picture = np.asarray(value)
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise ValueError(f"a picture must be uint8 [H, W, 3], not {picture.dtype} {list(picture.shape)}")
    return picture


def groups_of(batch: Sequence[RewardInput]) -> dict[str, list[int]]:
    """The places of each group's inputs, in order of appearance."""
    found: dict[str, list[int]] = {}
    for place, one in enumerate(batch):
        found.setdefault(one.group, []).append(place)
    return found
