"""Is a set what its configuration says? Every sample is read and decoded once."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from deepgen.data.config import AnySet, DataConfig, WorldSet
from deepgen.data.packed import PackedRows
from deepgen.data.pictures import READ_ERRORS, FilePicture, StoredPicture, quiet
from deepgen.data.sources import Record, Source
from deepgen.data.sources.lists import FolderSource
from deepgen.data.sources.world import WorldSource
from deepgen.errors import DataError
from deepgen.pipeline.intake import MAX_REFERENCES
from deepgen.pipeline.sizes import Size, plan_target

Kind = Literal["malformed", "missing", "damaged"]
WORLD_SAMPLES = 200
_READERS = 8
_CHUNK = 256


@dataclass(frozen=True)
class Fault:
    """A sample that cannot be used, and why; the reason names the file."""

    kind: Kind
    index: int
    reason: str


@dataclass
class SetReport:
    """What was found in a set.

    Attributes:
        name, task: as configured.
        samples: in the set. checked: of them.
        faults: one a sample.
        left_out: samples whose target is of a size that the set does not take; what follows is of the others.
        sizes: (width, height) of the targets as stored. trained: as they will be trained.
        references: number of references → samples.
        same_picture: samples whose target's bytes an earlier one has, in this set or one before it.
        same_sample: those of them that have its prompt too.
        uncaptioned: pictures of a folder that have no caption and are therefore no samples.
        prompts: of all of them, in order.
    """

    name: str
    task: str
    samples: int
    checked: int = 0
    faults: list[Fault] = field(default_factory=list)
    left_out: int = 0
    sizes: Counter[Size] = field(default_factory=Counter)
    trained: Counter[Size] = field(default_factory=Counter)
    references: Counter[int] = field(default_factory=Counter)
    same_picture: int = 0
    same_sample: int = 0
    uncaptioned: PackedRows = field(default_factory=lambda: PackedRows(iter(())))
    prompts: PackedRows = field(default_factory=lambda: PackedRows(iter(())))

    @property
    def broken_share(self) -> float:
        return len(self.faults) / max(self.checked, 1)


@dataclass(frozen=True)
class _Read:
    """One sample as it was read; `digest` is of its target's content."""

    prompt: str
    size: Size
    references: int
    digest: bytes


class Checker:
    """Goes through sets and remembers which pictures it has seen."""

    def __init__(self, limit: int | None = None) -> None:
        """limit: samples of a set, evenly spread; null: all (of the world WORLD_SAMPLES, for it has no files)."""
        self.limit = limit
        self._pictures: set[bytes] = set()
        self._samples: set[bytes] = set()

    def check(
        self, config: DataConfig, one: AnySet, source: Source, progress: Callable[[int], None]
    ) -> SetReport:
        """Read every sample of a set of `config`; `progress` is told how many are done."""
        report = SetReport(one.name, one.task, len(source))
        if isinstance(source, FolderSource):
            report.uncaptioned = source.uncaptioned
        limit = WORLD_SAMPLES if self.limit is None and isinstance(one, WorldSet) else self.limit
        indices = _spread(len(source), limit)
        reads = self._go_through(one, source, indices, report, progress)
        report.prompts = PackedRows(self._note(config, report, found) for found in reads)
        return report

    def _go_through(
        self,
        one: AnySet,
        source: Source,
        indices: Sequence[int],
        report: SetReport,
        progress: Callable[[int], None],
    ) -> Iterator[_Read]:
        # Sources and the drawing of scenes are for one thread; the decoders of files are not.
        threads = 1 if isinstance(source, WorldSource) else _READERS
        with quiet(), ThreadPoolExecutor(threads) as readers:
            for chunk in _chunks(indices):
                records = [_record(source, index) for index in chunk]
                for found in readers.map(partial(_open, one), chunk, records):
                    report.checked += 1
                    if found is None:
                        report.left_out += 1
                        continue
                    if isinstance(found, Fault):
                        report.faults.append(found)
                        continue
                    yield found
                progress(report.checked)

    def _note(self, config: DataConfig, report: SetReport, found: _Read) -> str:
        """Count a sample; returns its prompt."""
        report.sizes[found.size] += 1
        report.trained[plan_target(found.size, config.area, config.resize)] += 1
        report.references[found.references] += 1
        sample = hashlib.blake2b(found.digest + found.prompt.encode(), digest_size=12).digest()
        report.same_picture += found.digest in self._pictures
        report.same_sample += sample in self._samples
        self._pictures.add(found.digest)
        self._samples.add(sample)
        return found.prompt


def _chunks(indices: Sequence[int]) -> Iterator[Sequence[int]]:
    return (indices[start : start + _CHUNK] for start in range(0, len(indices), _CHUNK))


def _spread(count: int, limit: int | None) -> Sequence[int]:
    if limit is None or limit >= count:
        return range(count)
    return [i * count // limit for i in range(limit)]


def _record(source: Source, index: int) -> Record | Fault:
    try:
        record = source.record(index)
        if len(record.references) > MAX_REFERENCES:
            raise DataError(
                f"{record.key}: {len(record.references)} references, at most {MAX_REFERENCES} work"
            )
    except READ_ERRORS as error:
        return Fault("malformed", index, _line(error))
    return record


def _open(one: AnySet, index: int, record: Record | Fault) -> Fault | _Read | None:
    """Decode every picture of a sample; None for a target of a size that the set leaves out."""
    if isinstance(record, Fault):
        return record
    try:
        if not one.takes_all and not one.takes(record.target.size()):
            return None
        size = record.target.open().size
        for reference in record.references:
            reference.open()
        digest = hashlib.blake2b(record.target.content(), digest_size=12).digest()
    except READ_ERRORS as error:
        missing = any(map(_is_missing, (record.target, *record.references)))
        return Fault("missing" if missing else "damaged", index, _line(error))
    return _Read(record.prompt, size, len(record.references), digest)


def _is_missing(picture: StoredPicture) -> bool:
    return isinstance(picture, FilePicture) and not picture.path.is_file()


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
