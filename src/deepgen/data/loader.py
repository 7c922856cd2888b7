"""The mixture as micro-batches: worker processes decode, the order stays what the position says."""

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from deepgen.data.batch import TrainBatch
from deepgen.data.config import DataConfig, SetConfig
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
class Replaced:
    """A sample in whose place another came, and why, naming the file: it is broken, or its set leaves it out."""

    source: str
    index: int
    reason: str
    broken: bool


@dataclass(frozen=True)
class Example:
    """One sample in pixels, fp32 [3, H, W] in [−1, 1]."""

    prompt: str
    target: Tensor
    references: list[Tensor]
    key: str


class LeftOut(DataError):
    """A target of a size that its set does not take."""


CheckPrompt = Callable[[str], None]
"""Raises InputError for a prompt that the model cannot take."""


def prepare(
    record: Record, one: SetConfig, config: DataConfig, check_prompt: CheckPrompt | None = None
) -> Example:
    """Open and resize the pictures of a sample of set `one`.

    Raises:
        LeftOut: the set does not take targets of this size.
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
    # By the header: what is left out may be a size that cannot be opened.
    if not one.takes_all and not one.takes(size := record.target.size()):
        raise LeftOut(f"{record.key}: {size[0]}x{size[1]} is not of the sizes that the set takes")
    target = record.target.open()
    opened = [picture.open() for picture in record.references]
    size = plan_target(target.size, config.area, config.resize)
    references = [
        to_pixels(picture, plan_reference(picture.size, size, config.area, config.resize))
        for picture in opened
    ]
    return Example(record.prompt, to_pixels(target, size), references, record.key)


Made = tuple[TrainBatch, list[Replaced]]


class MicroBatches(Dataset[Made | DeepGenError]):
    """Micro-batch m of the mixture, decoded, with what was replaced on the way.

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
        replaced: list[Replaced] = []
        picks = self.mixture.picks(micro_batch)
        with quiet():
            examples = [self._example(pick, replaced) for pick in picks]
        sets = [self.mixture.config.sets[pick.set_number] for pick in picks]
        batch = TrainBatch(
            prompts=["" if p.dropped else e.prompt for p, e in zip(picks, examples, strict=True)],
            targets=[example.target for example in examples],
            references=[example.references for example in examples],
            tasks=[str(one.task) for one in sets],
            sources=[one.name for one in sets],
            keys=[example.key for example in examples],
        )
        return batch, replaced

    def _example(self, pick: Pick, replaced: list[Replaced]) -> Example:
        """The picked sample, or the first usable one of those that stand in for it."""
        chosen, config = pick, self.mixture.config
        one = config.sets[pick.set_number]
        for attempt in range(MAX_ATTEMPTS):
            try:
                record = self.mixture.sources[chosen.set_number].record(chosen.index)
                return prepare(record, one, config, self.check_prompt)
            except READ_ERRORS as error:
                reason, broken = " ".join(str(error).split()), not isinstance(error, LeftOut)
                replaced.append(Replaced(one.name, chosen.index, reason, broken))
                chosen = self.mixture.replacement(pick, attempt)
        raise DataError(
            f"{one.name}: {MAX_ATTEMPTS} samples one after another are broken or left out, the last: "
            f"{replaced[-1].reason}"
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
        left_out: samples that this process met and their sets do not take, since it began.
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
        self.position = self.drawn = self.broken = self.left_out = 0
        self._told = (0, 0)

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
            worker_init_fn=_stay_with_the_run,
            **options,
        )
        for made in loader:
            if isinstance(made, DeepGenError):
                raise made
            batch, replaced = made
            self.position += self.world_size
            self.drawn += len(batch)
            self._count(replaced)
            yield batch

    def _count(self, replaced: list[Replaced]) -> None:
        broken = [one for one in replaced if one.broken]
        self.broken += len(broken)
        self.left_out += len(replaced) - len(broken)
        for one in broken:
            log.warning("broken sample of %s, replaced by another: %s", one.source, one.reason)
        allowed = self.config.broken_budget * max(self.drawn, LEAST_JUDGED)
        if broken and self.broken > allowed:
            raise DataError(
                f"{self.broken} broken samples among {self.drawn}, more than data.broken_budget "
                f"({self.config.broken_budget:.2%}) allows; the last: {broken[-1].reason}; "
                "see all with `deepgen data check`"
            )

    def newly_replaced(self) -> tuple[int, int]:
        """How many samples were broken and how many left out since this was last asked."""
        broken, left_out = self._told
        self._told = (self.broken, self.left_out)
        return self.broken - broken, self.left_out - left_out

    def state_dict(self) -> dict[str, Any]:
        """Where this loader stands; the same for all processes."""
        return {"samples": self.position * self.batch_size, "mixture": self.mixture.identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken, with any number of processes. Takes effect at the next `iter`.

        A mixture or a batch size that has changed since is said in a warning: the run goes on in the new order, after
        as many samples as it has seen. With another batch size alone every task goes on after its own last sample if
        the ratio's cycle was complete in both orders; else some samples of one cycle come again or never.

        Raises:
            DataError: the samples seen are no whole number of micro-batches.
        """
        samples = int(state["samples"])
        if samples % self.batch_size:
            raise DataError(
                f"the run has seen {samples} samples, no multiple of batch_size {self.batch_size}; go on with one "
                "that divides them"
            )
        if state["mixture"] != self.mixture.identity():
            log.warning(
                "data or batch_size are not what they were: after %d samples, the others come in another order",
                samples,
            )
        self.position = samples // self.batch_size


def _stay_with_the_run(_worker: int) -> None:
    """A worker decodes until its run ends it: a launcher's signals go to all processes; only the run answers them."""
    run = multiprocessing.parent_process()
    assert run is not None and run.pid is not None  # torch starts workers by multiprocessing
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # of this thread and those it starts

    def obey() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != run.pid:
            pass
        os._exit(0)

    def follow() -> None:
        run.join()
        os._exit(1)

    # torch's workers watch the process that forked them, which may be a fork server and outlive the run.
    for duty in (obey, follow):
        threading.Thread(target=duty, daemon=True).start()


def _as_it_is(item: Any) -> Any:
    """In place of torch's conversion of numbers and arrays."""
    return item
