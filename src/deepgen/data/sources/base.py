"""The one schema of a sample, and what a source of samples must do."""

import glob
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from deepgen.data.config import Fields, Task
from deepgen.data.pictures import StoredPicture
from deepgen.errors import DataError


@dataclass(frozen=True)
class Record:
    """A sample that is not decoded: prompt → target, from references where it is an edit."""

    key: str
    prompt: str
    target: StoredPicture
    references: tuple[StoredPicture, ...] = ()


class Source(Protocol):
    """Samples that can be read in any order, from any process.

    Attributes:
        groups: number of samples of each stretch that lies together on disk; one group where that does not matter.
        together: how many groups are read at a time.
    """

    groups: Sequence[int]
    together: int

    def __len__(self) -> int: ...

    def record(self, index: int) -> Record:
        """The sample at an index. Raises DataError or InputError that name it where it is malformed."""
        ...

    def identity(self) -> str:
        """Text that changes when the set's files do; what is known of a set is kept under it."""
        ...


def lookup(row: Mapping[str, Any], path: str, where: str) -> Any:
    """The value of a field, `a.b` being field b of field a. Raises DataError that names what there is."""
    value: Any = row
    for part in path.split("."):
        if not isinstance(value, Mapping) or part not in value:
            known = ", ".join(map(str, value)) if isinstance(value, Mapping) else type(value).__name__
            raise DataError(f"{where}: no field {path!r}; there is {known}")
        value = value[part]
    return value


def text_of(value: Any, where: str, field: str) -> str:
    """A prompt. Raises DataError unless it is text with something in it, and all of it is characters."""
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: {field!r} must be a text, it is {_short(value)}")
    _check_characters(value, where, field)
    return value


def paths_of(value: Any, where: str, field: str) -> list[str]:
    """The paths in a field that holds one or several; none for null. Raises DataError."""
    found = [] if value is None else value if isinstance(value, list) else [value]
    if not all(isinstance(one, str) and one for one in found):
        raise DataError(f"{where}: {field!r} must be a path or a list of paths, it is {_short(value)}")
    for path in found:
        _check_characters(path, where, field)
    return found


def _check_characters(text: str, where: str, field: str) -> None:
    r"""JSON may hold half of a character ("\ud83d"), which nothing can write, print or tokenize. Raises DataError."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = text[error.start]
        raise DataError(f"{where}: {field!r} holds half of a character, {half!r} at {error.start}") from None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def check_task(record: Record, task: Task) -> Record:
    """The record. Raises DataError where an edit has no reference, or a text→image sample has one."""
    if (task == "edit") != bool(record.references):
        has = f"{len(record.references)} references" if record.references else "no reference"
        raise DataError(f"{record.key}: {has}, and the set's task is {task}")
    return record


def reference_fields(fields: Fields, there: Container[str]) -> list[str]:
    """The reference fields to read of a row or table with these fields; the default one may be absent."""
    return [name for name in fields.references if name != "references" or name in there]


def files_of(pattern: str, what: str) -> list[Path]:
    """The files of `a-{000..012}.tar`, of wildcards or of one path, sorted. Raises DataError where one is missing."""
    found: list[Path] = []
    for one in _numbered(pattern):
        matches = sorted(glob.glob(one, recursive=True)) if glob.has_magic(one) else [one]
        found += [Path(match) for match in matches]
    missing = [str(path) for path in found if not path.is_file()]
    if missing or not found:
        raise DataError(f"{missing[0] if missing else pattern}: no such {what}")
    return found


def _numbered(pattern: str) -> list[str]:
    match = re.search(r"\{(\d+)\.\.(\d+)\}", pattern)
    if match is None:
        return [pattern]
    width = len(match[1])
    numbers = range(int(match[1]), int(match[2]) + 1)
    rest = _numbered(pattern[match.end() :])
    return [f"{pattern[: match.start()]}{number:0{width}d}{end}" for number in numbers for end in rest]
