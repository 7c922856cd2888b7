"""What a benchmark is to the harness. A new benchmark is one file in `benchmarks/` with two names in it:

    BENCHMARKS: tuple[Benchmark, ...]                   one object a version or language
    def verify_sample(folder: Path) -> list[Check]      recompute the `golden_*` files in `folder`, official scoring

and, if the folder of samples is not called as the module is, SAMPLE_FOLDER = "its_name".

The way of a run; the harness does all that touches files, networks, processes or randomness:

    items(data)            data files → Items                                              `bench prepare`
    seed, size             Item → pictures, `samples` of each                              `bench generate`
    calls(item, picture)   → JudgeCalls, answered by a judge or a local scorer, cached     `bench judge`
    parse(call, reply)     raw reply → value; again from the cache whenever scores are made
    score(item, answers)   values → Units, the smallest counted things                     `bench score`
    aggregate(records)     Units → numbers; the bootstrap repeats it on resampled items    `bench report`

`calls`, `parse`, `score` and `aggregate` are pure: no files are read, nothing is remembered.
"""

import hashlib
import math
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from PIL import Image

from deepgen.errors import JudgeError
from deepgen.scorers.calls import JudgeCall, JudgeProfile, Mode
from deepgen.scorers.calls import JudgeImage as JudgeImage

if TYPE_CHECKING:
    from deepgen.evaluation.judges import ScorerOptions
    from deepgen.scorers.judge import Scorer

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True)
class Item:
    """One prompt or instruction of a benchmark.

    id: unique in the benchmark; any text. group: the stratum in which the bootstrap draws, the unit of `--limit`,
    and the key of `Benchmark.counts`. prompt: exactly what the generator is given. sources: pictures to edit.
    references: pictures that the report shows beside the output. size: (width, height) where the benchmark
    dictates one. data: all else that its scoring needs; JSON-ready.
    """

    id: str
    group: str
    prompt: str
    sources: tuple[Path, ...] = ()
    references: tuple[Path, ...] = ()
    size: tuple[int, int] | None = None
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DataFile:
    """A file that `prepare` looks for in the benchmark's data folder.

    origin: where a user gets it, in words or as an address. licence: of the data, "none stated" where so.
    sha256: where known, be it only its ends, as "5c48…7c13"; otherwise the first one seen is recorded, and a later
    change is warned of.
    """

    path: str
    origin: str
    licence: str
    sha256: str | None = None


class Status(StrEnum):
    """What became of one call. Of a record: the worst of its calls', in this order."""

    OK = "ok"
    PARSE_FAILED = "parse_failed"  # answered as often as allowed, never usably
    NO_PICTURE = "no_picture"
    REFUSED = "refused"  # by the judge or by a content filter
    FAILED = "failed"  # transport or server, after all retries
    NOT_ASKED = "not_asked"


@dataclass(frozen=True)
class Answer:
    """value: what `parse` made of the reply, None unless status is OK. text: the reply as it came, or the error."""

    status: Status
    value: Any = None
    text: str = ""


@dataclass(frozen=True)
class Unit:
    """The smallest counted thing: a picture's score, a question, a word. key: a sub-group of its own, such as a
    test point's dimension; "" where the item's group is all there is."""

    metric: str
    value: float
    key: str = ""


@dataclass(frozen=True)
class Record:
    """What scoring found out about one picture. units: empty where it does not count."""

    item: str
    sample: int
    group: str
    status: Status
    units: tuple[Unit, ...]


@dataclass(frozen=True)
class Summary:
    """The numbers of a run: metric → value overall, and group → metric → value."""

    overall: Mapping[str, float]
    groups: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Published:
    """A row that someone else published. It ranks beside ours only where judge, resolution and the benchmark's
    version are the same; None means that the source does not say, which equals nothing.

    values: the keys of `Summary.overall` (as published, on our scale), or "group/metric".
    """

    model: str
    values: Mapping[str, float]
    judge: str | None
    source: str
    resolution: int | None = None


@dataclass(frozen=True)
class Check:
    """One comparison of `bench verify`; diff: the largest absolute difference, infinite where structure or text
    differs."""

    name: str
    expected: Any
    got: Any
    diff: float


class ParseError(JudgeError):
    """A reply that cannot be used; the call is repeated while attempts are left."""


class Benchmark(ABC):
    """Class or instance attributes describe it, methods do it. Everything below `parse` has a default."""

    name: str
    """Names the version too: "wise-legacy", "unigenbench-zh", "rise-2026.04"."""
    title: str
    """One line for `bench list`."""
    task: Literal["t2i", "edit", "both"] = "t2i"
    folder: str
    """The data's folder under `--data`; versions of a benchmark may share one."""
    files: Sequence[DataFile] = ()
    counts: Mapping[str, int]
    """Official number of items of each group, in the order of reports; coverage is measured against it."""
    samples: int = 1
    """Pictures of each item."""
    judges: Sequence[JudgeProfile]
    """The first is the default of `--judge`."""
    attempts: int = 3
    """How often a call whose reply does not parse is asked altogether."""
    parser_version: int = 1
    primary: str
    """The headline's key in `Summary.overall`."""
    scales: Mapping[str, tuple[float, float]] = {}
    """metric → (worst, best), for bars and failures; (0, 1) where not given."""
    source_hint: str = "see `deepgen bench prepare`"
    """How to get the pictures to edit, where they are missing."""
    published: Sequence[Published] = ()
    reproduced: Mapping[str, float] | None = None
    """Our own numbers with the published weights of DeepGen; None where they were not there to be run."""
    skips_untrained: bool = False
    """Whether its groups are the categories that a checkpoint may say it was not trained for."""
    notes: Sequence[str] = ()
    """What a reader of the report must know: protocol, deviations, out of scope."""

    @abstractmethod
    def items(self, data: Path) -> list[Item]:
        """Every item in `data` (the benchmark's own folder), in the official order. Checks the schema and raises
        DataError that names file, place and key; the harness checks counts and hashes."""

    @abstractmethod
    def official_path(self, item: Item, sample: int) -> str:
        """Where the official layout has this picture, relative to its root, with forward slashes."""

    @abstractmethod
    def calls(self, item: Item, sample: int, picture: Path, judge: JudgeProfile) -> list[JudgeCall]:
        """All questions about one picture. `picture` may be missing: do not open it."""

    @abstractmethod
    def parse(self, item: Item, call: JudgeCall, reply: str, mode: Mode) -> Any:
        """The JSON-ready value of a reply (thinking already removed). Raises ParseError where it is unusable."""

    @abstractmethod
    def score(self, item: Item, answers: Mapping[str, Answer], mode: Mode) -> Sequence[Unit]:
        """Units of one picture, from the answer to each call by the call's id; () leaves the picture out.

        strict: called only where every answer is OK, PARSE_FAILED or NO_PICTURE; the latter two have no value and
        must count as the worst score. official: called always, and does what the official code does with failures.
        """

    def aggregate(self, records: Sequence[Record], mode: Mode) -> Summary:
        """Default: each metric's mean over a group's units, and overall the unweighted mean of the groups.

        The bootstrap calls it a few thousand times with items drawn repeatedly, each item's records together (see
        `takes_of`): keep it plain and quick. Records
        without units, and groups without records, may occur; leave out what has no value.
        """
        values: dict[str, dict[str, list[float]]] = {}
        for record in records:
            for unit in record.units:
                values.setdefault(record.group, {}).setdefault(unit.metric, []).append(unit.value)
        means = {g: {m: sum(v) / len(v) for m, v in of.items()} for g, of in values.items()}
        groups = {group: means[group] for group in self.counts if group in means}
        return Summary(macro(groups), groups)

    def explain(self, item: Item, answers: Mapping[str, Answer]) -> str:
        """What the report shows under a picture: why it got what it got. Default: the judge's own words."""
        return "\n\n".join(f"{call}: {answer.text}" for call, answer in answers.items() if answer.text)

    def own_scorer(self, profile: JudgeProfile, options: "ScorerOptions") -> "Scorer | None":
        """The scorer of a kind that only this benchmark knows; default: none."""
        return None

    def prepare(self, data: Path) -> None:  # noqa: B027 - most have nothing to do
        """What must be unpacked or converted once before `items` can read the download; default: nothing."""

    def seed(self, item: Item, sample: int, base: int) -> int:
        """Of the picture: depends on nothing but the item, the sample and `base`, whatever subset is drawn where.
        Versions of a benchmark that share an item's id and prompt draw the same noise."""
        digest = hashlib.sha256(f"{base}/{self.folder}/{item.id}/{sample}".encode()).digest()
        return int.from_bytes(digest[:4], "big") >> 1

    def import_picture(self, root: Path, item: Item, sample: int) -> Path | Image.Image | None:
        """A picture made elsewhere, in the official layout under `root`: the file, or an image where it must be
        cut out of one; None where it is not there. Default: `official_path` with any picture suffix."""
        path = root / self.official_path(item, sample)
        candidates = [path, *(path.with_suffix(suffix) for suffix in PICTURE_SUFFIXES)]
        return next((candidate for candidate in candidates if candidate.is_file()), None)

    def export_item(self, root: Path, item: Item, pictures: Mapping[int, Path]) -> None:
        """Write an item's pictures (sample → file) in the official layout. Default: copies them."""
        for sample, picture in pictures.items():
            target = root / self.official_path(item, sample)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(picture, target)


def macro(groups: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The unweighted mean over groups of every metric that any of them has."""
    metrics = dict.fromkeys(metric for of in groups.values() for metric in of)
    columns = {metric: [of[metric] for of in groups.values() if metric in of] for metric in metrics}
    return {metric: sum(column) / len(column) for metric, column in columns.items()}


def takes_of(records: Sequence[Record]) -> list[list[Record]]:
    """The records of each item together. The bootstrap hands an item's records over one after the other by sample,
    as often as it drew the item; so a step back in `sample` begins the item anew."""
    takes: list[list[Record]] = []
    for record in records:
        if not takes or takes[-1][-1].item != record.item or takes[-1][-1].sample >= record.sample:
            takes.append([])
        takes[-1].append(record)
    return takes


def check(name: str, expected: Any, got: Any) -> Check:
    """Compare numbers, texts, and lists and dicts of them to any depth."""
    return Check(name, expected, got, _difference(expected, got))


def _difference(expected: Any, got: Any) -> float:
    if isinstance(expected, Mapping) and isinstance(got, Mapping):
        if expected.keys() != got.keys():
            return math.inf
        return max((_difference(expected[key], got[key]) for key in expected), default=0.0)
    if isinstance(expected, list | tuple) and isinstance(got, list | tuple):
        if len(expected) != len(got):
            return math.inf
        return max((_difference(a, b) for a, b in zip(expected, got, strict=True)), default=0.0)
    if _is_number(expected) and _is_number(got):
        if math.isnan(expected) or math.isnan(got):
            return 0.0 if math.isnan(expected) and math.isnan(got) else math.inf
        return 0.0 if expected == got else abs(expected - got)
    return 0.0 if type(expected) is type(got) and expected == got else math.inf


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
