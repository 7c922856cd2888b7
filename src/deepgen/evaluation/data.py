"""A benchmark's data as the user has it: checked against what is known, and the part of it that a run takes."""

import json
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from deepgen.errors import DataError, InputError
from deepgen.evaluation.benchmark import Benchmark, Item
from deepgen.evaluation.files import write_text
from deepgen.evaluation.sources import read_json, sha256_of

T = TypeVar("T")


@dataclass(frozen=True)
class Prepared:
    """items: all of them, in the official order. hashes: path of each data file → sha256. complete: whether every
    group has its official number. warnings: what a user should know."""

    items: list[Item]
    hashes: dict[str, str]
    complete: bool
    warnings: list[str]


def default_hashes() -> Path:
    """Where the hashes that were seen first are remembered."""
    return Path.home() / ".cache" / "deepgen" / "bench-hashes.json"


def prepare(
    benchmark: Benchmark, root: Path, allow_partial: bool = False, seen: Path | None = None
) -> Prepared:
    """Read and check a benchmark's data under `root / benchmark.folder`.

    A file whose sha256 is known must have it. Of others the first one seen is remembered in the file `seen`, and
    another one is warned of. Raises DataError for missing files, broken schemas and, unless `allow_partial`, wrong
    hashes and numbers of items that are not the official ones, which are warned of then.
    """
    folder = root / benchmark.folder
    if folder.is_dir() or not benchmark.files:
        benchmark.prepare(folder)
    missing = [file for file in benchmark.files if not (folder / file.path).exists()]
    if missing:
        wanted = "; ".join(f"{file.path} from {file.origin} (licence: {file.licence})" for file in missing)
        raise DataError(f"{benchmark.name} needs in {folder}: {wanted}")
    files = [file for file in benchmark.files if (folder / file.path).is_file()]
    hashes = {file.path: sha256_of(folder / file.path) for file in files}
    changed = [
        f"{folder / file.path}: sha256 {hashes[file.path]}, expected {file.sha256}; get it from {file.origin}"
        for file in files
        if file.sha256 is not None and not _is_hash(hashes[file.path], file.sha256)
    ]
    if changed and not allow_partial:
        raise DataError("; ".join(changed))
    unknown = {file.path: hashes[file.path] for file in files if file.sha256 is None}
    told = changed + _compare_with_first(benchmark, unknown, seen or default_hashes())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        items = benchmark.items(folder)
    told += [str(warning.message) for warning in caught]
    _check_ids(benchmark, items)
    counts = Counter(item.group for item in items)
    wrong = [
        f"{group} {counts[group]} instead of {benchmark.counts.get(group, 0)}"
        for group in [*benchmark.counts, *(counts.keys() - benchmark.counts.keys())]
        if counts[group] != benchmark.counts.get(group, 0)
    ]
    if wrong and not allow_partial:
        raise DataError(
            f"{folder}: not the official {benchmark.name}: items of {', '.join(wrong)};"
            " --allow-partial goes on without an overall number to compare"
        )
    told += [f"items of {text}" for text in wrong]
    return Prepared(items, hashes, not wrong, told)


def _is_hash(digest: str, known: str) -> bool:
    """Whether it is the known one, of which only both ends may be known, with "…" between."""
    first, gap, last = known.partition("…")
    return digest.startswith(first) and digest.endswith(last) if gap else digest == known


def _check_ids(benchmark: Benchmark, items: Sequence[Item]) -> None:
    twice = [name for name, count in Counter(item.id for item in items).items() if count > 1]
    if twice:
        raise DataError(f"{benchmark.name}: {twice[0]!r} occurs {len(twice) + 1} times; ids must differ")


def _compare_with_first(benchmark: Benchmark, hashes: dict[str, str], path: Path) -> list[str]:
    """Remember the hashes of files seen for the first time; a warning for each that was another one then."""
    known: dict[str, Any] = read_json(path) if path.is_file() else {}
    told = []
    for name, digest in hashes.items():
        first = known.setdefault(f"{benchmark.folder}/{name}", digest)
        if first != digest:
            told.append(
                f"{name} has another content (sha256 {digest[:12]}…) than when it was first seen ({first[:12]}…):"
                " scores before and after are not comparable"
            )
    write_text(path, json.dumps(known, indent=1, sort_keys=True) + "\n")
    return told


@dataclass(frozen=True)
class Selection:
    """The part of a benchmark that is run. limit: first so many items of each group. None: all."""

    limit: int | None = None
    ids: tuple[str, ...] | None = None
    groups: tuple[str, ...] | None = None


def select(benchmark: Benchmark, items: Sequence[Item], selection: Selection) -> list[Item]:
    """The chosen items in the official order. Raises InputError for unknown ids and groups."""
    known = dict.fromkeys(item.group for item in items)
    _refuse_unknown(benchmark, "group", selection.groups, list(known))
    _refuse_unknown(benchmark, "item", selection.ids, [item.id for item in items])
    chosen, taken = [], Counter[str]()
    for item in items:
        if selection.groups is not None and item.group not in selection.groups:
            continue
        if selection.ids is not None and item.id not in selection.ids:
            continue
        if selection.limit is not None and taken[item.group] >= selection.limit:
            continue
        taken[item.group] += 1
        chosen.append(item)
    return chosen


def _refuse_unknown(
    benchmark: Benchmark, what: str, wanted: tuple[str, ...] | None, known: Sequence[str]
) -> None:
    for name in wanted or ():
        if name not in known:
            some = ", ".join(known[:12]) + (", …" if len(known) > 12 else "")
            raise InputError(f"no {what} {name!r} in {benchmark.name}; choose from {some}")


@dataclass(frozen=True)
class Shard:
    """The index-th of `count` parts, from 0."""

    index: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Of `i/n`, from 1/n to n/n. Raises InputError."""
        first, slash, second = text.partition("/")
        if not (slash and first.isdigit() and second.isdigit() and 1 <= int(first) <= int(second)):
            raise InputError(f"shard {text!r} must be like 1/4, 2/4, 3/4 or 4/4")
        return cls(int(first) - 1, int(second))

    def of(self, things: Sequence[T]) -> list[T]:
        """Every count-th of the things: the parts are disjoint and together are all, none twice."""
        return list(things[self.index :: self.count])
