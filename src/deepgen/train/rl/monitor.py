"""Signs that a run collapses: said in time, with what to do."""

import logging
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field

from deepgen.config import Config

log = logging.getLogger("deepgen.train")


class CollapseConfig(Config):
    """When to warn.

    Attributes:
        window: rollouts that are averaged, at the start and now.
        least_sigma: standard errors by which a mean must have moved to count as moved.
        least_diversity: share of the first window's diversity below which groups have become too alike.
        most_log_ratio: share of the clip range that the mean |log ratio| may reach within a rollout.
        most_moved: share of the clip range by which the updates of a rollout may move log-probabilities. With one
            update nothing is clipped, and about 1 is usual.
    """

    window: int = Field(20, gt=1)
    least_sigma: float = Field(2.0, gt=0)
    least_diversity: float = Field(0.5, gt=0, lt=1)
    most_log_ratio: float = Field(1.0, gt=0)
    most_moved: float = Field(5.0, gt=0)


@dataclass
class Trend:
    """The first and the last values of a measure."""

    size: int
    first: list[float] = field(default_factory=list)
    last: list[float] = field(default_factory=list)

    def add(self, value: float) -> None:
        """Take in a value; one that is not finite is left out."""
        if not math.isfinite(value):
            return
        if len(self.first) < self.size:
            self.first.append(value)
        else:
            self.last = [*self.last, value][-self.size :]

    @property
    def full(self) -> bool:
        return len(self.last) == self.size

    def moved(self) -> float:
        """By how many standard errors the mean has risen."""
        if not self.full:
            return 0.0
        rise = statistics.fmean(self.last) - statistics.fmean(self.first)
        error = math.sqrt((statistics.variance(self.last) + statistics.variance(self.first)) / self.size)
        return rise / error if error else math.copysign(math.inf, rise) if rise else 0.0

    def share(self) -> float:
        """The mean now over the mean at the start."""
        start = statistics.fmean(self.first) if self.first else 0.0
        return statistics.fmean(self.last) / start if self.full and start else 1.0


class CollapseMonitor:
    """Watches rewards, held-out scores, diversity and how far updates go; part of a run's saved state.

    Args:
        config: when to warn.
        sign: of the direction in which rewards are pushed.
    """

    def __init__(self, config: CollapseConfig, sign: int = 1) -> None:
        self.config, self.sign = config, sign
        self.trends: dict[str, Trend] = {}
        self.said: dict[str, int] = {}

    def look(self, rollout: int, record: Mapping[str, float], clip: float) -> list[str]:
        """Take in a rollout's record; what is wrong, each kind at most once in a window."""
        for name in record:
            if name in ("reward/mean", "diversity") or name.startswith("held_out/"):
                self.trends.setdefault(name, Trend(self.config.window)).add(record[name])
        found = {**self._cheating(), **self._alike(), **self._drift(record, clip)}
        fresh = [
            text
            for kind, text in found.items()
            if rollout - self.said.get(kind, -self.config.window) >= self.config.window
        ]
        self.said.update({kind: rollout for kind, text in found.items() if text in fresh})
        for text in fresh:
            log.warning("rollout %d: %s", rollout, text)
        return fresh

    def _cheating(self) -> dict[str, str]:
        reward = self.trends.get("reward/mean")
        if reward is None or self.sign * reward.moved() < self.config.least_sigma:
            return {}
        return {
            name: (
                f"the reward rises while {name} falls: the reward is being cheated; go back to an earlier "
                "checkpoint, raise loss.kl_weight or sft.weight, or add a reward that sees what is lost"
            )
            for name, trend in self.trends.items()
            if name.startswith("held_out/") and self.sign * trend.moved() <= -self.config.least_sigma
        }

    def _alike(self) -> dict[str, str]:
        trend = self.trends.get("diversity")
        if trend is None or trend.share() >= self.config.least_diversity:
            return {}
        return {
            "diversity": (
                f"pictures of a group differ {trend.share():.0%} as much as at the start; raise sampler.eta, widen the "
                "window, or raise loss.kl_weight"
            )
        }

    def _drift(self, record: Mapping[str, float], clip: float) -> dict[str, str]:
        within, moved = (record.get(name, 0.0) for name in ("log_ratio/absolute", "log_ratio/after"))
        found = {}
        if within > self.config.most_log_ratio * clip:
            found["log_ratio"] = (
                f"the policy's mean |log ratio| is {within:.2g}, beyond the clip range {clip:.2g}: most of what is "
                "drawn teaches nothing; lower optimizer.learning_rate or updates_per_rollout, or widen loss.clip_low"
            )
        if moved > self.config.most_moved * clip:
            found["log_ratio/after"] = (
                f"a rollout's updates moved log-probabilities by {moved:.2g}, {moved / clip:.0f} times the clip "
                "range: the policy leaves what its rewards were given for; lower optimizer.learning_rate"
            )
        return found

    def state_dict(self) -> dict[str, Any]:
        trends = {name: {"first": list(t.first), "last": list(t.last)} for name, t in self.trends.items()}
        return {"trends": trends, "said": dict(self.said)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.trends = {
            name: Trend(self.config.window, list(t["first"]), list(t["last"]))
            for name, t in state["trends"].items()
        }
        self.said = {name: int(step) for name, step in state["said"].items()}
