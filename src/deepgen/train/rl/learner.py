"""The gradient of a rollout: the clipped surrogate and the KL of every picture at every trained step."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from deepgen.flow.sde import Transition, sde_step
from deepgen.train.parallel import Ranks, most_of
from deepgen.train.rl.config import RLConfig
from deepgen.train.rl.measures import Measures
from deepgen.train.rl.policy import Encoded
from deepgen.train.rl.reference import Reference
from deepgen.train.rl.rollout import Drawer, Drawn
from deepgen.train.rl.surrogate import clipped_surrogate, velocity_kl

Term = Literal["policy", "kl"]


@dataclass(frozen=True)
class Micro:
    """What is trained at once: of each row its picture's place, its step, and whether it counts (1) or fills up (0)."""

    rows: list[int]
    steps: list[int]
    counts: list[float]

    def take(self, by_step: dict[int, Tensor], later: int = 0) -> Tensor:
        """Rows of tensors [n, …] kept by step; `later` looks so many steps behind."""
        places = _runs(self.steps, self.rows)
        return torch.cat([by_step[step + later][rows] for step, rows in places])

    def put(self, by_step: dict[int, Tensor], values: Tensor) -> None:
        """The reverse of `take`."""
        start = 0
        for step, rows in _runs(self.steps, self.rows):
            by_step[step][rows] = values[start : start + len(rows)]
            start += len(rows)


def _runs(steps: Sequence[int], rows: Sequence[int]) -> list[tuple[int, list[int]]]:
    """Rows by step, of steps that come in runs."""
    found: dict[int, list[int]] = {}
    for step, row in zip(steps, rows, strict=True):
        found.setdefault(step, []).append(row)
    return list(found.items())


@dataclass(frozen=True)
class Task:
    """What one process trains of a rollout.

    Attributes:
        drawn: its pictures.
        steps: that are trained.
        advantages: [n] fp32.
        old: by step, the log-probabilities [n] that ratios are taken to; None: the policy's own as it is.
        reference: by step, velocities [n, M] of the reference; None: no KL.
    """

    drawn: Drawn
    steps: Sequence[int]
    advantages: Tensor
    old: dict[int, Tensor] | None
    reference: dict[int, Tensor] | None


@dataclass(frozen=True)
class _Pass:
    """The policy on rows: where it would go, and the log-probability of where the rollout went."""

    move: Transition
    velocity: Tensor
    log_probs: Tensor
    sizes: Tensor


class Learner:
    """Trains on what a `Drawer` drew, by the same functions.

    Args:
        drawer: of the run.
        config: of the run.
        ranks: this process.
        reference: of the KL; None: none.
        retold: encode prompts anew, where bridge or VLM are trained.
    """

    def __init__(
        self, drawer: Drawer, config: RLConfig, ranks: Ranks, reference: Reference | None, retold: bool
    ) -> None:
        self.drawer, self.config, self.ranks = drawer, config, ranks
        self.reference, self.retold = reference, retold

    @torch.no_grad()
    def prepare(
        self, drawn: Drawn, steps: Sequence[int], rows: Sequence[int], advantages: Tensor, measures: Measures
    ) -> Task:
        """Old log-probabilities by the training path, where there are several updates; the reference's velocities.

        Args:
            drawn: of this process.
            steps: to train.
            rows: of `drawn`, to train.
            advantages: [n].
            measures: takes in the mismatch.
        """
        old = reference = None
        if self.config.updates_per_rollout > 1:
            old = {step: drawn.log_probs[step].clone() for step in steps}
            for micro in self.micros(steps, rows):
                passed = self._forward(drawn, micro)
                self._mismatch(drawn, micro, passed.log_probs, measures)
                micro.put(old, passed.log_probs)
        if self.reference is not None:
            reference = {step: torch.zeros_like(drawn.states[step]) for step in steps}
            with self.reference.applied():
                for micro in self.micros(steps, rows):
                    micro.put(reference, self._forward(drawn, micro).velocity)
        # Rows without an advantage are not trained, but may fill up a batch: their NaN must not reach a sum.
        gained = advantages.nan_to_num().to(self.ranks.device, torch.float32)
        return Task(drawn, steps, gained, old, reference)

    @torch.no_grad()
    def glimpse(self, task: Task, rows: Sequence[int]) -> tuple[Tensor, Tensor] | None:
        """Log-probabilities [B] by the policy as it is, and counts [B], of the first batch of rows that is trained at
        once; None where no process has any. Collective."""
        for micro in self.micros(task.steps, rows):
            counts = torch.tensor(micro.counts, device=self.ranks.device)
            return self._forward(task.drawn, micro).log_probs, counts
        return None

    def accumulate(
        self, task: Task, rows: Sequence[int], scales: Mapping[Term, float], measures: Measures
    ) -> None:
        """Add the gradient of the sum over rows and steps of each term that has a scale, times it; of β·KL for `kl`.

        Args:
            task: from `prepare`.
            rows: of its pictures.
            scales: of the terms to differentiate; `kl` where there is a reference.
            measures: takes in what is seen on the way.
        """
        settings = self.config.loss
        for micro in self.micros(task.steps, rows):
            passed = self._forward(task.drawn, micro)
            counts = torch.tensor(micro.counts, device=self.ranks.device)
            total = torch.zeros_like(passed.log_probs)
            if "policy" in scales:
                policy = self._policy(task, micro, passed.log_probs, counts, measures)
                total = total + scales["policy"] * policy
            if "kl" in scales:
                assert task.reference is not None
                kl = velocity_kl(
                    passed.velocity,
                    micro.take(task.reference),
                    passed.move.scale,
                    settings.kl_weighting,
                    passed.sizes,
                )
                measures.add(counts, kl=kl)
                total = total + scales["kl"] * settings.kl_weight * kl
            (total * counts).sum().backward()

    def _policy(
        self, task: Task, micro: Micro, log_probs: Tensor, counts: Tensor, measures: Measures
    ) -> Tensor:
        """The clipped surrogate of rows [B]."""
        if task.old is None:
            # The first update after a rollout is on-policy: the ratio is 1, and its gradient that of log_probs.
            old = log_probs.detach()
            self._mismatch(task.drawn, micro, log_probs, measures)
        else:
            old = micro.take(task.old)
        found = clipped_surrogate(log_probs, old, task.advantages[micro.rows], self.config.loss.clip)
        moved = (log_probs - old).detach()
        measures.add(
            counts,
            policy_loss=found.policy,
            **{
                "ratio/mean": found.ratio,
                "log_ratio/mean": moved,
                "log_ratio/absolute": moved.abs(),
                "clip/low": found.low,
                "clip/high": found.high,
            },
        )
        measures.highest(counts, **{"ratio/max": found.ratio, "ratio/min": -found.ratio})
        return found.policy

    def _mismatch(self, drawn: Drawn, micro: Micro, log_probs: Tensor, measures: Measures) -> None:
        """By how much training's log-probabilities differ from the rollout's own, of the same policy."""
        gap = (log_probs.detach() - micro.take(drawn.log_probs)).abs()
        counts = torch.tensor(micro.counts, device=self.ranks.device)
        measures.add(counts, **{"mismatch/mean": gap})
        measures.highest(counts, **{"mismatch/max": gap})

    def _forward(self, drawn: Drawn, micro: Micro) -> _Pass:
        sigmas, sampler = self.drawer.sigmas, self.config.sampler
        now, then = (sigmas[[step + later for step in micro.steps]].to(self.ranks.device) for later in (0, 1))
        latents, following = micro.take(drawn.states), micro.take(drawn.states, later=1)
        shapes = [drawn.shapes[row] for row in micro.rows]
        velocity = self.drawer.velocity(
            latents, shapes, now, self._encoded(drawn, micro.rows), drawn.references(micro.rows)
        )
        sizes = torch.tensor([shape.numel() for shape in shapes], device=self.ranks.device)
        move = sde_step(sampler.kind, latents, velocity, now, then, sampler.eta)
        return _Pass(move, velocity, move.log_prob(following, sizes), sizes)

    def _encoded(self, drawn: Drawn, rows: Sequence[int]) -> Encoded:
        owners = [drawn.owner[row] for row in rows]
        if not self.retold:
            return drawn.encoded.rows(owners)
        different = list(dict.fromkeys(owners))
        encoded = self.drawer.encode([drawn.groups[i] for i in different])
        return encoded.rows([different.index(i) for i in owners])

    def micros(self, steps: Sequence[int], rows: Sequence[int]) -> Iterator[Micro]:
        """All rows at all steps, so many at once as are trained at once; equally often on every process. Collective.

        Step by step, so that a batch has the rows that it had in the rollout where the sizes allow.
        """
        pairs = [(step, row) for step in steps for row in rows]
        at_once = self.config.train_batch_size
        turns = most_of(-(-len(pairs) // at_once), self.ranks)
        for turn in range(turns):
            some = pairs[turn * at_once : (turn + 1) * at_once]
            counts = [1.0] * len(some)
            if not some:
                # Sharded networks gather together: a process without rows computes one that counts for nothing.
                some, counts = [(steps[0], 0)], [0.0]
            yield Micro([row for _, row in some], [step for step, _ in some], counts)
