"""Any table of samples → a list in our own schema, by telling which field holds what."""

import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepgen.data.sources.base import lookup, paths_of, text_of
from deepgen.data.sources.lists import read_rows
from deepgen.data.sources.parquet import open_parquet
from deepgen.errors import DataError, InputError

SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".parquet")
_MAGIC = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"RIFF": ".webp", b"GIF8": ".gif", b"BM": ".bmp"}


@dataclass(frozen=True)
class Mapped:
    """Which column holds what: prompt, target, and any number of references."""

    prompt: str
    target: str
    references: tuple[str, ...] = ()


def parse_map(entries: Sequence[str]) -> Mapped:
    """The mapping of `field=column` entries; `references` may come several times. Raises InputError."""
    found: dict[str, list[str]] = {"prompt": [], "target": [], "references": []}
    for entry in entries:
        name, separator, column = entry.partition("=")
        if not separator or name not in found or not column:
            raise InputError(f"--map {entry!r} must be FIELD=COLUMN, with a field of {', '.join(found)}")
        found[name].append(column)
    for name in ("prompt", "target"):
        if len(found[name]) != 1:
            raise InputError(f"--map {name}=COLUMN must be given once")
    return Mapped(found["prompt"][0], found["target"][0], tuple(found["references"]))


def convert(source: Path, output: Path, mapped: Mapped, root: Path | None = None) -> int:
    """Write the rows of a table as JSON lines {prompt, target, references}; returns how many.

    Paths are taken from `root` (null: the table's folder) and written relative to the output, so that it opens
    without a root. Pictures that stand in the table itself are written beside the output.

    Raises:
        InputError: a table of another kind, or an output that is not .jsonl.
        DataError: a row lacks a field, or the table cannot be read.
    """
    if output.suffix != ".jsonl":
        raise InputError(f"{output}: the output must end in .jsonl")
    writer = _Paths(output, root or source.parent)
    output.parent.mkdir(parents=True, exist_ok=True)
    draft = output.with_name(f".{output.name}.draft")
    count = 0
    try:
        with draft.open("w", encoding="utf-8") as file:
            for count, row in enumerate(table_rows(source), 1):
                sample = _sample(row, mapped, writer, f"{source}, row {count - 1}")
                file.write(json.dumps(sample, ensure_ascii=False) + "\n")
        os.replace(draft, output)
    finally:
        draft.unlink(missing_ok=True)
    return count


def _sample(row: Mapping[str, Any], mapped: Mapped, writer: "_Paths", where: str) -> dict[str, Any]:
    """A row in our own schema. Raises DataError."""
    targets = writer.paths(lookup(row, mapped.target, where), where, mapped.target)
    if len(targets) != 1:
        raise DataError(f"{where}: {mapped.target!r} holds {len(targets)} pictures instead of one")
    references = [
        path
        for column in mapped.references
        for path in writer.paths(lookup(row, column, where), where, column)
    ]
    prompt = text_of(lookup(row, mapped.prompt, where), where, mapped.prompt)
    return {"prompt": prompt, "target": targets[0], "references": references}


def table_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    """The rows of a .json list, .jsonl, .csv, .tsv or Parquet file. Raises InputError or DataError."""
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path}: must be one of {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.suffix == ".parquet":
        yield from _parquet_rows(path)
    elif path.suffix in (".csv", ".tsv"):
        yield from _csv_rows(path)
    else:
        yield from _json_rows(read_rows(path), path)


def _csv_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ",")
        try:
            yield from rows
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: not UTF-8 ({error})") from error
        except csv.Error as error:
            raise DataError(f"{path}: cannot be read after line {rows.line_num} ({error})") from error


def _json_rows(texts: Iterable[str], path: Path) -> Iterator[Mapping[str, Any]]:
    for number, text in enumerate(texts):
        try:
            row = json.loads(text)
        except ValueError as error:
            raise DataError(f"{path}, row {number}: not JSON ({error})") from error
        if not isinstance(row, dict):
            raise DataError(f"{path}, row {number}: must be a mapping of fields, not {type(row).__name__}")
        yield row


def _parquet_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    with open_parquet(path) as file:
        for batch in file.iter_batches(batch_size=64):
            yield from batch.to_pylist()


class _Paths:
    """Paths as the output will name them."""

    def __init__(self, output: Path, root: Path) -> None:
        self.output, self.root = output, root
        self.folder = output.with_suffix("")
        self.written = 0

    def paths(self, value: Any, where: str, field: str) -> list[str]:
        """The paths in a field: as text, as bytes, or as Hugging Face's {bytes, path}; one or a list."""
        values = value if isinstance(value, list) else [value]
        found = []
        for one in values:
            picture = (one.get("bytes") or one.get("path")) if isinstance(one, dict) else one
            if isinstance(picture, bytes):
                found.append(self._write(picture, where))
            else:
                found += [self._relative(path) for path in paths_of(picture or None, where, field)]
        return found

    def _relative(self, path: str) -> str:
        return Path(os.path.relpath(self.root / path, self.output.parent)).as_posix()

    def _write(self, data: bytes, where: str) -> str:
        suffix = next((suffix for magic, suffix in _MAGIC.items() if data.startswith(magic)), None)
        if suffix is None:
            raise DataError(f"{where}: holds bytes that are no picture of a known kind")
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{self.written:08d}{suffix}"
        path.write_bytes(data)
        self.written += 1
        return path.relative_to(self.output.parent).as_posix()
