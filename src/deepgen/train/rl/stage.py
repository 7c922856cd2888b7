"""Reinforcement as a stage of the engine: draw, score, weigh, train (MR-GRPO, paper section 5).

One call of `advance` is one rollout and its updates. Prompts, noise and windows are functions of the seed and of the
rollout's number, so a run that was killed goes on from its checkpoint as if it had not been.
"""

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from deepgen.errors import DeepGenError
from deepgen.pipeline.inputs import check_length
from deepgen.rewards import RewardInput, RewardRunner, Score, Ticket, build_rewards
from deepgen.train.build import build_empty
from deepgen.train.metrics import MetricsWriter, missing_packages
from deepgen.train.monitor import check_sheet
from deepgen.train.parallel import Ranks, most_of
from deepgen.train.report import estimate_memory, print_report
from deepgen.train.rl.advantages import Advantages, compute_advantages
from deepgen.train.rl.config import RLConfig
from deepgen.train.rl.cost import describe_run
from deepgen.train.rl.gradients import GradientTerms
from deepgen.train.rl.groups import Group, plan_rollout, size_of
from deepgen.train.rl.learner import Learner, Task, Term
from deepgen.train.rl.measures import Measures
from deepgen.train.rl.monitor import CollapseMonitor
from deepgen.train.rl.prompts import Prompts, weigh
from deepgen.train.rl.reference import AdaptersOff, FrozenCopy, Reference
from deepgen.train.rl.rollout import Drawer, Drawn
from deepgen.train.rl.scores import ScoreTable, describe, describe_tallies, gather_scores
from deepgen.train.rl.sft import SftTerm
from deepgen.train.rl.sheet import save_sheet
from deepgen.train.rl.waiting import check_rewards, wait_for
from deepgen.train.rl.window import Window, choose_window
from deepgen.train.run import Run, RunError, execute, prepare_device

log = logging.getLogger("deepgen.train")
MISMATCH = 1e-6
"""Largest difference, in fp32, between a log-probability in the rollout and in training; more is an error of ours."""


@dataclass
class Progress:
    """How many rollouts a run has made, and prompts it has used; saved with it."""

    rollout: int = 0
    position: int = 0

    def state_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(state)


@dataclass
class Clock:
    """Seconds of each phase of a rollout; waits for the device at the end of each."""

    device: torch.device
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        key = f"time/{name}"
        self.seconds[key] = self.seconds.get(key, 0.0) + time.perf_counter() - started


class RLRun(Run[RLConfig]):
    """Rollouts, their rewards, and the updates that they teach."""

    def __init__(self, config: RLConfig, ranks: Ranks) -> None:
        self.plan = plan_rollout(
            config.groups_per_rollout, config.group_size, config.rollout_batch_size, ranks.world_size
        )
        self.prompts = Prompts(config.prompts)
        device = config.reward_device or str(ranks.device)
        self.rewards = weigh(build_rewards(config.rewards, device), self.prompts)
        held_out = build_rewards(config.held_out, device)
        super().__init__(config, ranks)
        if config.result_guidance_scale is not None:
            self.defaults = replace(self.defaults, guidance_scale=config.result_guidance_scale)
        # Nothing drops in a rollout, so nothing may in training: else the two would be different policies.
        self.model.eval()
        if ranks.device.type == "cuda" and config.parallel.compute_dtype == "float32":
            torch.backends.cuda.matmul.allow_tf32 = False
        self.drawer = Drawer(self.model, config, self.defaults, ranks)
        self.reference = self._make_reference()
        retold = any(not name.startswith("dit.") for name in self.trained)
        self.learner = Learner(self.drawer, config, ranks, self.reference, retold)
        self.sft = SftTerm(self.model, config, config.sft, self.defaults, ranks) if config.sft else None
        self.monitor, self.progress = CollapseMonitor(config.collapse, config.reward_sign), Progress()
        self.state |= {"progress": self.progress, "collapse": self.monitor}
        if self.sft is not None:
            self.state["sft_data"] = self.sft.loader
        if self.reference is not None:
            self.state["reference"] = self.reference
        self.held_out = [one.name for one in held_out]
        self.runner = RewardRunner([*self.rewards, *held_out], config.reward_runner)
        self._warned = self._checked = False

    def _make_reference(self) -> Reference | None:
        settings = self.config.loss
        if not settings.kl_weight:
            return None
        if settings.reference == "adapters_off":
            return AdaptersOff(self.model, self.trained)
        return FrozenCopy(self.trained)

    def report(self) -> None:
        if self.ranks.first:
            _report(self.config, self.model, self.built.parts, self.built.defaults.area, self.ranks)

    def close(self) -> None:
        self.runner.close()

    def advance(self, metrics: MetricsWriter) -> float | None:
        config, progress, clock = self.config, self.progress, Clock(self.ranks.device)
        if not self._checked:
            self._checked = check_rewards(self.runner.rewards, self.stop, self.ranks)
            if not self._checked:
                return None
        started = time.perf_counter()
        data = self.sft.loader.state_dict() if self.sft is not None else {}
        window = choose_window(
            config.window, config.sampler.num_inference_steps, config.seed, progress.rollout
        )
        with clock.phase("rollout"):
            drawn, tickets = self._draw(window)
        terms = self._gradient_terms()
        if self.sft is not None:
            # Before the rewards are needed: they are computed meanwhile.
            with clock.phase("sft"):
                self._supervise(terms)
        with clock.phase("reward_wait"):
            if not self._rewards_came(tickets, data):
                return None
            scores = self._collect(tickets)
        table = gather_scores(drawn, scores, self.rewards, self.held_out, self.prompts.families, self.ranks)
        advantages = compute_advantages(
            table.rewards, table.groups, table.weights * config.reward_sign, config.advantages
        )
        measures = Measures(self.ranks)
        with clock.phase("prepare"):
            task, rows = self._prepare(drawn, window, table, advantages, measures)
        # How far the updates move the policy: while there is one only, all ratios within a rollout are 1.
        before = None if terms is None else self.learner.glimpse(task, rows[0])
        norm, rate = self._updates(task, rows, advantages, terms, measures, clock)
        if before is not None:
            self._moved(before, task, rows[0], measures)
        progress.rollout += 1
        progress.position += self.plan.groups
        seconds = time.perf_counter() - started
        record = {
            **self._described(table, advantages),
            **self._measured(measures),
            **({} if terms is None else terms.norms),
            **clock.seconds,
            "time/all": seconds,
            "images_per_second": self.plan.pictures / seconds,
            "gradient_norm/all": norm,
            "learning_rate": rate,
            "window/first": float(window.noised.start),
            "skipped_updates": float(self.counters.skipped),
        }
        self._write(metrics, record, drawn, scores)
        return -config.reward_sign * record["reward/mean"] if "reward/mean" in record else None

    def _draw(self, window: Window) -> tuple[Drawn, list[Ticket]]:
        """This process's pictures, and the tickets of their rewards, in order."""
        tickets: list[Ticket] = []

        def submit(batch: list[RewardInput]) -> None:
            tickets.append(self.runner.submit(self.counters.step, batch))

        return self.drawer.draw(self._groups(), self.plan, window, submit), tickets

    def _groups(self) -> list[Group]:
        """The prompts of the rollout, those of one kind and size side by side."""
        config, first = self.config, self.progress.position
        fixed = None if config.width is None or config.height is None else (config.width, config.height)
        groups = []
        for number in range(first, first + self.plan.groups):
            prompt = self.prompts.at(number)
            check_length(prompt.text, self.model.vlm.tokenizer, prompt.key)
            groups.append(Group(number, prompt, size_of(prompt, self.drawer.area, fixed)))
        return sorted(groups, key=lambda g: (len(g.prompt.references), g.size, g.number))

    def _rewards_came(self, tickets: Sequence[Ticket], data: dict[str, Any]) -> bool:
        """Whether they came; False where the run is to stop instead. Collective.

        Where they did not, the state is that before the rollout, which a run that goes on draws again. data: where the
        supervised data stood. Raises what a reward raised, with that state saved.
        """
        problem: DeepGenError | None = None
        try:
            if wait_for(self.runner.pending(tickets), self.stop, self.ranks):
                return True
        except DeepGenError as error:
            problem = error
        if self.sft is not None:
            self.sft.loader.load_state_dict(data)
        if problem is not None:
            self.save()
            raise problem
        return False

    def _collect(self, tickets: Sequence[Ticket]) -> dict[str, list[Score]]:
        found: dict[str, list[Score]] = {}
        for ticket in tickets:
            for name, scores in self.runner.collect(ticket).items():
                found.setdefault(name, []).extend(scores)
        return found

    def _gradient_terms(self) -> GradientTerms | None:
        """Where the terms' gradients are to be measured in this rollout."""
        every = self.config.measure_gradients_every
        wanted = every and self.progress.rollout % every == 0
        return GradientTerms(self.trained, self.ranks) if wanted else None

    def _supervise(self, terms: GradientTerms | None) -> None:
        assert self.sft is not None
        self.sft.accumulate(self.counters.step)
        self.count_replaced(self.sft.loader)
        if terms is not None:
            terms.close("sft")

    def _prepare(
        self,
        drawn: Drawn,
        window: Window,
        table: ScoreTable,
        advantages: Advantages,
        measures: Measures,
    ) -> tuple[Task, list[list[int]]]:
        """What is trained, and its rows for each update: every group gives each update as many pictures."""
        kept = self._kept(advantages)[table.mine].tolist()
        rows = [i for i, wanted in enumerate(kept) if wanted]
        updates = self.config.updates_per_rollout
        parts = [
            [i for i in rows if drawn.numbers[i] % self.plan.group_size % updates == part]
            for part in range(updates)
        ]
        task = self.learner.prepare(drawn, window.trained, rows, advantages.values[table.mine], measures)
        return task, parts

    def _kept(self, advantages: Advantages) -> Tensor:
        """[N]: the pictures of all processes that are trained."""
        drop = self.config.advantages.drop_zero_spread
        return advantages.valid & ~advantages.flat if drop else advantages.valid

    def _updates(
        self,
        task: Task,
        parts: Sequence[Sequence[int]],
        advantages: Advantages,
        terms: GradientTerms | None,
        measures: Measures,
        clock: Clock,
    ) -> tuple[float, float]:
        """Exactly the declared number of updates; returns the last one's gradient norm and rate."""
        norm = rate = 0.0
        for number, rows in enumerate(parts):
            if number and self.sft is not None:
                with clock.phase("sft"):
                    self._supervise(None)
            with clock.phase("train"):
                self._accumulate(task, rows, advantages, terms if number == 0 else None, measures)
                if number == 0:
                    self._check_mismatch(measures)
                if any(p.grad is not None for p in self.trained.values()):
                    norm, rate = self.apply_update()
                else:
                    # Without this the optimizer would go on by its momentum alone.
                    self.counters.step += 1
                    self.say(f"update {self.counters.step}: no picture of the rollout teaches anything")
        return norm, rate

    def _accumulate(
        self,
        task: Task,
        rows: Sequence[int],
        advantages: Advantages,
        terms: GradientTerms | None,
        measures: Measures,
    ) -> None:
        """The gradient of one update: the surrogate's mean over its valid pictures and their steps, and β times the
        KL's over those that are trained.

        Groups without spread count in the first, and teach nothing: their advantage is 0.
        """
        config, steps = self.config, len(task.steps)
        share = 1 - (config.sft.weight if config.sft else 0.0)
        # Gradients are averaged over processes, and here each has a part of the sum.
        whole = share * self.ranks.world_size * config.updates_per_rollout / steps
        scales: dict[Term, float] = {"policy": whole / max(1, int(advantages.valid.sum()))}
        if task.reference is not None:
            scales["kl"] = whole / max(1, int(self._kept(advantages).sum()))
        passes = [{term: scale} for term, scale in scales.items()] if terms is not None else [scales]
        for one in passes:
            self.learner.accumulate(task, rows, one, measures)
            if terms is not None:
                terms.close(next(iter(one)))
        if terms is not None:
            terms.restore()

    def _moved(
        self, before: tuple[Tensor, Tensor], task: Task, rows: Sequence[int], measures: Measures
    ) -> None:
        """The distance from log-probabilities before the rollout's updates to those of now."""
        after = self.learner.glimpse(task, rows)
        assert after is not None
        measures.add(before[1], **{"log_ratio/after": (after[0] - before[0]).abs()})

    def _check_mismatch(self, measures: Measures) -> None:
        """Raises RunError, before anything is changed, where training computes other probabilities than the rollout."""
        highest = measures.highs.get("mismatch/max")
        if highest is None or not self._exact:
            return
        if most_of(int(float(highest) > MISMATCH), self.ranks):
            raise RunError(
                f"log-probabilities of the rollout and of training differ by {float(highest):.2g}, more than "
                f"{MISMATCH:.0e} in float32: they are not of one policy, so the update would be wrong"
            )

    @property
    def _exact(self) -> bool:
        """Whether the policy computes in fp32 throughout."""
        types = {p.dtype for p in self.model.dit.parameters()}
        if self.learner.retold:
            types |= {p.dtype for p in (*self.model.bridge.parameters(), *self.model.vlm.parameters())}
        return self.config.parallel.compute_dtype == "float32" and types == {torch.float32}

    def _described(self, table: ScoreTable, advantages: Advantages) -> dict[str, float]:
        names = [one.name for one in self.rewards]
        record = describe(table, advantages, names, self.held_out, self.prompts.families)
        return record | describe_tallies(self.runner.take_tallies(), self.ranks)

    def _measured(self, measures: Measures) -> dict[str, float]:
        found = measures.read()
        if "ratio/min" in found:
            found["ratio/min"] *= -1  # kept as the largest of the negated
        if self.sft is not None:
            found |= self.sft.meter.read("sft_loss") | self.replaced()
        if self.ranks.device.type == "cuda":
            found["memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
        return found

    def _write(
        self,
        metrics: MetricsWriter,
        record: dict[str, float],
        drawn: Drawn,
        scores: dict[str, list[Score]],
    ) -> None:
        config, step, rollout = self.config, self.counters.step, self.progress.rollout
        clip = min(config.loss.clip)
        mismatch = record.get("mismatch/max", 0.0)
        if mismatch > clip / 2 and not self._warned:
            self._warned = True
            self.say(
                f"warning: rollout and training disagree by {mismatch:.2g} in log-probability, more than half the clip "
                f"range {clip:.2g}: set train_batch_size to rollout_batch_size, widen loss.clip_low, or set "
                "parallel.compute_dtype=float32"
            )
        warnings = self.monitor.look(rollout, record, clip)
        if step % config.log_every_steps < config.updates_per_rollout or step == config.steps:
            told: dict[str, Any] = dict(record)
            if warnings:
                told["warning"] = "; ".join(warnings)
            metrics.write(step, **told)
        every = config.sheet_every_rollouts
        if every and rollout % every == 0 and self.ranks.first:
            save_sheet(config.output_dir / "samples" / f"rollout_{rollout:06d}", drawn, scores)


def _report(config: RLConfig, model: Any, parts: Any, area: int, ranks: Ranks) -> None:
    memory = estimate_memory(
        model, config, parts, ranks.world_size, config.area or area, config.train_batch_size
    )
    print_report(parts, describe_run(config, ranks.world_size), memory, config, ranks)


def train_rl(config: RLConfig) -> bool:
    """Train as configured, from what `output_dir` holds; returns whether the run is complete.

    Raises:
        DeepGenError: of the configuration, the prompts, the rewards, the checkpoints or the run.
    """
    return execute(RLRun(config, prepare_device(config)))


def dry_run_rl(config: RLConfig) -> None:
    """The report of `train_rl` without reading a weight or a prompt, or starting anything.

    Raises:
        DeepGenError: the configuration or the model cannot be used.
    """
    world = int(os.environ.get("WORLD_SIZE", 1))
    ranks = Ranks(int(os.environ.get("RANK", 0)), world, 0, torch.device(config.device))
    plan_rollout(config.groups_per_rollout, config.group_size, config.rollout_batch_size, world)
    for name in missing_packages(config.metrics):
        log.warning("metrics asks for %s, which is not installed here", name)
    built = build_empty(config)
    check_sheet(config.samples, built.defaults)
    if ranks.first:
        _report(config, built.model, built.parts, built.defaults.area, ranks)
