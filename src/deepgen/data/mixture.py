"""Which samples make up micro-batch m: a pure function of the configuration and of m."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from deepgen.data.config import DataConfig, Task, WorldSet
from deepgen.data.index import Index
from deepgen.data.measure import picture_sizes
from deepgen.data.order import Interleave, ShuffledOrder, hash_of, permuted, unit
from deepgen.data.sources import Source, open_set
from deepgen.pipeline.sizes import Size, plan_target


@dataclass(frozen=True)
class Pick:
    """One drawn sample.

    Attributes:
        set_number: in the configuration's list.
        position: in the endless order of that set.
        index: of the sample in its set.
        dropped: whether its prompt is replaced by "".
    """

    set_number: int
    position: int
    index: int
    dropped: bool


class Mixture:
    """The sets, opened, and the order in which their samples come.

    Micro-batches are numbered over all processes and all of training. With `single_task` number m belongs to the task
    that the ratio's cycle gives it; the samples of a task go through its sets by their weights, each set being gone
    through in one permutation after another.
    """

    def __init__(self, config: DataConfig, batch_size: int) -> None:
        """Raises DataError or ConfigError where a set cannot be opened."""
        self.config, self.batch_size = config, batch_size
        index = Index(config.index_dir)
        self.sources: list[Source] = [open_set(one, index) for one in config.sets]
        self.orders = [
            ShuffledOrder(source.groups, hash_of(config.seed, "order", one.name), source.together)
            for one, source in zip(config.sets, self.sources, strict=True)
        ]
        self.members: dict[Task, list[int]] = {
            task: [i for i, one in enumerate(config.sets) if one.task == task] for task in config.ratio
        }
        self.turns = {task: Interleave(self.weights(task)) for task in config.ratio}
        self._cycle = [task for task, count in config.ratio.items() for _ in range(count)]
        # Scenes are measured when they are picked: a set of them is endless, and they cost no reading.
        self.sizes: list[NDArray[np.int32] | None] = [
            picture_sizes(source, index) if config.buckets and not isinstance(one, WorldSet) else None
            for one, source in zip(config.sets, self.sources, strict=True)
        ]
        self._arranged = lru_cache(maxsize=8)(self._arrange)

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "_arranged"}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._arranged = lru_cache(maxsize=8)(self._arrange)

    def weights(self, task: Task) -> list[float]:
        """Of the task's sets, in the order of `members`."""
        return [self.config.sets[i].weight or float(len(self.sources[i])) for i in self.members[task]]

    def identity(self) -> str:
        """Changes with anything that changes the order of samples."""
        parts = [
            f"{one.name}:{len(s)}:{one.weight}" for one, s in zip(self.config.sets, self.sources, strict=True)
        ]
        rest = self.config.model_dump(
            mode="json", include={"seed", "ratio", "mixing", "consecutive", "buckets", "bucket_window"}
        )
        return f"{hash_of(*parts, repr(rest), self.batch_size):016x}"

    def task_of(self, number: int) -> tuple[Task, int]:
        """(task, how many earlier ones were that task's) of the number-th entry of the cycle."""
        block, inside = divmod(number, self.config.consecutive)
        round_number, place = divmod(block, len(self._cycle))
        task = self._cycle[place]
        count = self.config.ratio[task]
        earlier = round_number * count + place - self._cycle.index(task)
        return task, earlier * self.config.consecutive + inside

    def picks(self, micro_batch: int) -> list[Pick]:
        """The samples of a micro-batch."""
        if self.config.mixing == "mixed":
            lane: Task | None = None
            number = micro_batch
        else:
            lane, number = self.task_of(micro_batch)
        if not self.config.buckets:
            first = number * self.batch_size
            return [self._pick(lane, first + i) for i in range(self.batch_size)]
        window, place = divmod(number, self.config.bucket_window)
        return [self._pick(lane, slot) for slot in self._arranged(lane, window)[place]]

    def _pick(self, lane: Task | None, slot: int) -> Pick:
        """The sample at a slot of a task's stream, or of the mixed one (None)."""
        task, position = (lane, slot) if lane is not None else self._mixed_task(slot)
        member, own = self.turns[task].at(position)
        number = self.members[task][member]
        share = self.config.dropout.get(task, 0.0)
        dropped = unit(self.config.seed, "dropout", task, position) < share
        return Pick(number, own, self.orders[number].at(own), dropped)

    def _mixed_task(self, slot: int) -> tuple[Task, int]:
        round_number, place = divmod(slot, len(self._cycle))
        task = self._cycle[place]
        return task, round_number * self.config.ratio[task] + place - self._cycle.index(task)

    def replacement(self, pick: Pick, attempt: int) -> Pick:
        """What stands in for a broken sample: another of the same set, chosen by its place in the order alone."""
        source = self.sources[pick.set_number]
        name = self.config.sets[pick.set_number].name
        index = hash_of(self.config.seed, "instead", name, pick.position, attempt) % len(source)
        return Pick(pick.set_number, pick.position, index, pick.dropped)

    def planned(self, size: Size) -> Size:
        """(width, height) at which a target of this size is trained."""
        return plan_target(size, self.config.area, self.config.resize)

    def _arrange(self, lane: Task | None, window: int) -> list[list[int]]:
        """The slots of each micro-batch of a window, those of one size together.

        Sorted by size and cut into micro-batches, of which only those at a border hold two sizes; none is left out.
        The micro-batches then come in random order, so that training does not go from wide to tall.
        """
        length = self.config.bucket_window
        slots = range(window * length * self.batch_size, (window + 1) * length * self.batch_size)
        by_size = sorted(slots, key=lambda slot: (self._bucket(lane, slot), slot))
        cut = [by_size[i : i + self.batch_size] for i in range(0, len(by_size), self.batch_size)]
        key = hash_of(self.config.seed, "window", lane or "mixed", window)
        return [cut[permuted(i, length, key)] for i in range(length)]

    def _bucket(self, lane: Task | None, slot: int) -> Size:
        pick = self._pick(lane, slot)
        sizes = self.sizes[pick.set_number]
        if sizes is None:
            return self.planned(self.sources[pick.set_number].record(pick.index).target.size())
        width, height = sizes[pick.index].tolist()
        return self.planned((width, height)) if width and height else (0, 0)


def shares(mixture: Mixture) -> Sequence[tuple[str, Task, int, float]]:
    """(name, task, samples, share of all drawn samples) of every set."""
    ratio = mixture.config.ratio
    found = []
    for task, numbers in mixture.members.items():
        weights = mixture.weights(task)
        for number, weight in zip(numbers, weights, strict=True):
            name = mixture.config.sets[number].name
            share = ratio[task] / sum(ratio.values()) * weight / sum(weights)
            found.append((name, task, len(mixture.sources[number]), share))
    return found
