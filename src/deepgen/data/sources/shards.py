"""webdataset tar shards, read in place: an index of where each member lies, and then only the members asked for."""

import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deepgen.data.config import TarSet
from deepgen.data.index import Arrays, Index
from deepgen.data.packed import PackedRows
from deepgen.data.pictures import PartPicture, read_part
from deepgen.data.sources.base import Record, check_task, files_of, lookup, text_of
from deepgen.errors import DataError

Parts = dict[str, tuple[int, int]]
"""Extension → (offset, length) of a sample's members."""


def samples_of(path: Path) -> Iterator[tuple[str, Parts]]:
    """The samples of one shard: neighbouring members with the same name up to its first dot.

    Raises DataError for what is not an uncompressed tar file, or is cut short.
    """
    key, parts = "", Parts()
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                if not member.isfile():
                    continue
                folder, _, name = member.name.rpartition("/")
                stem, _, extension = name.partition(".")
                full = f"{folder}/{stem}" if folder else stem
                if full != key and parts:
                    yield key, parts
                    parts = {}
                key = full
                parts[extension.lower()] = (member.offset_data, member.size)
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"{path}: not a whole uncompressed tar file ({error})") from error
    if parts:
        yield key, parts


class TarSource:
    """Samples of several shards, in the order of the shards."""

    together = 16

    def __init__(self, config: TarSet, index: Index) -> None:
        """Raises DataError where a shard is missing or broken, or none has a sample."""
        self.config = config
        self.paths = files_of(config.path, "tar shard")
        found = index.arrays("tar", self.identity(), self._scan)
        self.rows = PackedRows.of(found)
        self.groups: Sequence[int] = found["groups"].tolist()
        self._starts = np.concatenate([[0], np.cumsum(found["groups"])])
        if not len(self.rows):
            raise DataError(f"{config.path}: no samples in these shards")

    def __len__(self) -> int:
        return len(self.rows)

    def identity(self) -> str:
        stats = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in self.paths]
        return f"tar {stats}"

    def _scan(self) -> Arrays:
        counts: list[int] = []

        def rows() -> Iterator[str]:
            for path in self.paths:
                counts.append(0)
                for sample in samples_of(path):
                    counts[-1] += 1
                    yield json.dumps(sample)

        packed = PackedRows(rows())
        return {**packed.arrays, "groups": np.array(counts, dtype=np.int64)}

    def record(self, index: int) -> Record:
        path = self.paths[int(np.searchsorted(self._starts, index, side="right")) - 1]
        key, parts = json.loads(self.rows[index])
        fields, name = self.config.fields, f"{path}/{key}"
        # How many references a sample has may vary, so that a member may be absent; check_task wants one of an edit.
        named = [one for one in fields.references if any(e in parts for e in one.split("|"))]
        pictures = [
            PartPicture(path, *self._part(parts, one, name), f"{name}.{one}")
            for one in (fields.target, *named)
        ]
        prompt = self._prompt(path, parts, name)
        return check_task(Record(name, prompt, pictures[0], tuple(pictures[1:])), self.config.task)

    def _prompt(self, path: Path, parts: Parts, name: str) -> str:
        field = self.config.fields.prompt
        extension, _, inner = field.partition(".")
        if field in parts:  # an extension may have dots of its own
            extension, inner = field, ""
        where = f"{name}.{extension}"
        data = read_part(path, *self._part(parts, extension, name))
        try:
            value: Any = json.loads(data) if inner else data.decode("utf-8").strip()
        except ValueError as error:
            raise DataError(f"{where}: cannot be read ({error})") from error
        return text_of(lookup(value, inner, where) if inner else value, where, field)

    @staticmethod
    def _part(parts: Parts, wanted: str, name: str) -> tuple[int, int]:
        for extension in wanted.split("|"):
            if extension in parts:
                offset, length = parts[extension]
                return offset, length
        raise DataError(f"{name}: no member .{wanted}; there is {', '.join(sorted(parts))}")
