"""What a run will see: counted over the first samples of the mixture, without decoding a picture."""

from collections import Counter
from dataclasses import dataclass, field

from deepgen.data.mixture import Mixture
from deepgen.data.pictures import READ_ERRORS, quiet
from deepgen.pipeline.sizes import Size


@dataclass
class Stats:
    """Counts over `samples` drawn samples.

    Attributes:
        by_set, by_task: samples of each. sizes: (width, height) as trained.
        references: number of references → samples. dropped: prompts replaced by "". broken: not readable.
        left_out: of a size that their set does not take.
        mixed_sizes: micro-batches that hold more than one size, of `micro_batches`.
        words: number of words of each prompt.
    """

    samples: int = 0
    micro_batches: int = 0
    mixed_sizes: int = 0
    dropped: int = 0
    broken: int = 0
    left_out: int = 0
    by_set: Counter[str] = field(default_factory=Counter)
    by_task: Counter[str] = field(default_factory=Counter)
    sizes: Counter[Size] = field(default_factory=Counter)
    references: Counter[int] = field(default_factory=Counter)
    words: list[int] = field(default_factory=list)


def count(mixture: Mixture, samples: int) -> Stats:
    """Statistics of the first micro-batches that together hold at least `samples` samples."""
    stats = Stats()
    with quiet():
        while stats.samples < samples:
            _add(stats, mixture, stats.micro_batches)
            stats.micro_batches += 1
    return stats


def _add(stats: Stats, mixture: Mixture, micro_batch: int) -> None:
    sizes = set()
    for pick in mixture.picks(micro_batch):
        one = mixture.config.sets[pick.set_number]
        stats.samples += 1
        stats.by_set[one.name] += 1
        stats.by_task[one.task] += 1
        stats.dropped += pick.dropped
        try:
            record = mixture.sources[pick.set_number].record(pick.index)
            stored = record.target.size()
        except READ_ERRORS:
            stats.broken += 1
            continue
        if not one.takes(stored):
            stats.left_out += 1
            continue
        size = mixture.planned(stored)
        sizes.add(size)
        stats.sizes[size] += 1
        stats.references[len(record.references)] += 1
        stats.words.append(len(record.prompt.split()))
    stats.mixed_sizes += len(sizes) > 1
