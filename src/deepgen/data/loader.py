"""The mixture as micro-batches: worker processes decode, the order stays what the position says."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from deepgen.data.batch import TrainBatch
from deepgen.data.config import DataConfig
from deepgen.data.mixture import Mixture, Pick
from deepgen.data.pictures import READ_ERRORS, quiet
from deepgen.data.sources import Record
from deepgen.errors import DataError, DeepGenError, InputError
from deepgen.pipeline.intake import MAX_REFERENCES, to_pixels
from deepgen.pipeline.sizes import plan_reference, plan_target

log = logging.getLogger("deepgen.data")

MAX_ATTEMPTS = 20
LEAST_JUDGED = 10_000
"""The share of broken samples is taken of at least this many: one broken file is not a tenth of the first ten."""


@dataclass(frozen=True)
class Broken:
    """A sample that could not be used: what failed, naming the file."""

    source: str
    index: int
    reason: str


@dataclass(frozen=True)
class Example:
    """One sample in pixels, fp32 [3, H, W] in [−1, 1]."""

    prompt: str
    target: Tensor
    references: list[Tensor]
    key: str


CheckPrompt = Callable[[str], None]
"""Raises InputError for a prompt that the model cannot take."""


def prepare(record: Record, config: DataConfig, check_prompt: CheckPrompt | None = None) -> Example:
    """Open and resize a sample's pictures.

    Raises:
        InputError, OSError: a picture is missing, damaged, too large or too long.
        DataError: more references than the model takes, or a prompt that it cannot take.
    """
    if check_prompt is not None:
        try:
            check_prompt(record.prompt)
        except InputError as error:
            raise DataError(f"{record.key}: {error}") from None
    if len(record.references) > MAX_REFERENCES:
        raise DataError(f"{record.key}: {len(record.references)} references, at most {MAX_REFERENCES} work")
    target = record.target.open()
    opened = [picture.open() for picture in record.references]
    size = plan_target(target.size, config.area, config.resize)
    references = [
        to_pixels(picture, plan_reference(picture.size, size, config.area, config.resize))
        for picture in opened
    ]
    return Example(record.prompt, to_pixels(target, size), references, record.key)


Made = tuple[TrainBatch, list[Broken]]


class MicroBatches(Dataset[Made | DeepGenError]):
    """Micro-batch m of the mixture, decoded, with what was broken on the way.

    An error of ours is returned, not raised: raised in a worker, it would reach the user as the text of its trace.
    """

    def __init__(self, mixture: Mixture, check_prompt: CheckPrompt | None) -> None:
        self.mixture, self.check_prompt = mixture, check_prompt

    def __getitem__(self, micro_batch: int) -> Made | DeepGenError:
        try:
            return self._made(micro_batch)
        except DeepGenError as error:
            return error

    def _made(self, micro_batch: int) -> Made:
        broken: list[Broken] = []
        picks = self.mixture.picks(micro_batch)
        with quiet():
            examples = [self._example(pick, broken) for pick in picks]
        sets = [self.mixture.config.sets[pick.set_number] for pick in picks]
        batch = TrainBatch(
            prompts=["" if p.dropped else e.prompt for p, e in zip(picks, examples, strict=True)],
            targets=[example.target for example in examples],
            references=[example.references for example in examples],
            tasks=[str(one.task) for one in sets],
            sources=[one.name for one in sets],
            keys=[example.key for example in examples],
        )
        return batch, broken

    def _example(self, pick: Pick, broken: list[Broken]) -> Example:
        """The picked sample, or the first usable one of those that stand in for it."""
        chosen, config = pick, self.mixture.config
        for attempt in range(MAX_ATTEMPTS):
            try:
                record = self.mixture.sources[chosen.set_number].record(chosen.index)
                return prepare(record, config, self.check_prompt)
            except READ_ERRORS as error:
                name = config.sets[chosen.set_number].name
                broken.append(Broken(name, chosen.index, " ".join(str(error).split())))
                chosen = self.mixture.replacement(pick, attempt)
        raise DataError(
            f"{broken[-1].source}: {MAX_ATTEMPTS} samples one after another are broken, the last: {broken[-1].reason}"
        )


class _Turns(Sampler[int]):
    """The micro-batches of one process, from a position on, without end."""

    def __init__(self, start: int, step: int) -> None:
        self.start, self.step = start, step

    def __iter__(self) -> Iterator[int]:
        number = self.start
        while True:
            yield number
            number += self.step


class MixtureLoader:
    """Endless micro-batches of one process.

    Process r of W takes micro-batches r, W + r, 2W + r, … of an order that depends on neither W nor the workers, so
    that a run can go on with another number of processes and sees the same samples in each update.

    Attributes:
        position: micro-batches handed out by now, over all processes.
        drawn: samples handed out by this process, since it began.
        broken: samples that this process found broken, since it began.
    """

    def __init__(
        self,
        config: DataConfig,
        batch_size: int,
        rank: int,
        world_size: int,
        workers: int,
        check_prompt: CheckPrompt | None = None,
    ) -> None:
        """
        Args:
            config: the mixture.
            batch_size: samples of a micro-batch.
            rank: of this process.
            world_size: number of processes.
            workers: processes that decode for this one; 0: this one decodes.
            check_prompt: what it refuses counts as a broken sample.

        Raises:
            DataError, ConfigError: a set cannot be opened.
        """
        self.config, self.batch_size = config, batch_size
        self.rank, self.world_size, self.workers = rank, world_size, workers
        self.mixture, self.check_prompt = Mixture(config, batch_size), check_prompt
        self.position = self.drawn = self.broken = self._told = 0

    def __iter__(self) -> Iterator[TrainBatch]:
        """Raises DataError where more samples are broken than the budget allows."""
        options: dict[str, Any] = {"prefetch_factor": 4, "persistent_workers": True} if self.workers else {}
        loader = DataLoader(
            MicroBatches(self.mixture, self.check_prompt),
            batch_size=None,
            sampler=_Turns(self.position + self.rank, self.world_size),
            num_workers=self.workers,
            pin_memory=torch.cuda.is_available(),
            collate_fn=_as_it_is,
            **options,
        )
        for made in loader:
            if isinstance(made, DeepGenError):
                raise made
            batch, broken = made
            self.position += self.world_size
            self.drawn += len(batch)
            self._count(broken)
            yield batch

    def _count(self, broken: list[Broken]) -> None:
        for one in broken:
            self.broken += 1
            log.warning("broken sample of %s, replaced by another: %s", one.source, one.reason)
        allowed = self.config.broken_budget * max(self.drawn, LEAST_JUDGED)
        if broken and self.broken > allowed:
            raise DataError(
                f"{self.broken} broken samples among {self.drawn}, more than data.broken_budget "
                f"({self.config.broken_budget:.2%}) allows; the last: {broken[-1].reason}; "
                "see all with `deepgen data check`"
            )

    def newly_broken(self) -> int:
        """How many samples were found broken since this was last asked."""
        new, self._told = self.broken - self._told, self.broken
        return new

    def state_dict(self) -> dict[str, Any]:
        """Where this loader stands; the same for all processes."""
        return {"position": self.position, "mixture": self.mixture.identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken, with any number of processes. Takes effect at the next `iter`.

        A mixture that has changed since is said in a warning: the run goes on at its position in the new order.
        """
        if state["mixture"] != self.mixture.identity():
            log.warning("the data is not what it was before: samples come in another order from here on")
        self.position = int(state["position"])


def _as_it_is(item: Any) -> Any:
    """In place of torch's conversion of numbers and arrays."""
    return item
