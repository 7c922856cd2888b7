"""Parquet files with pictures inside, or with their paths."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deepgen.data.config import ParquetSet
from deepgen.data.pictures import BytesPicture, FilePicture, StoredPicture
from deepgen.data.sources.base import Record, check_task, files_of, lookup, reference_fields, text_of
from deepgen.errors import ConfigError, DataError


def parquet_module() -> Any:
    """pyarrow.parquet. Raises ConfigError with what to install where it is missing."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError("Parquet needs pyarrow: pip install pyarrow") from error
    return pyarrow.parquet


def open_parquet(path: Path) -> Any:
    """A ParquetFile. Raises DataError for what is none."""
    import pyarrow

    module = parquet_module()
    try:
        return module.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a Parquet file that can be read ({error})") from error


class ParquetSource:
    """Rows of several files; row groups are read whole, and the last few are kept."""

    together = 4

    def __init__(self, config: ParquetSet) -> None:
        """Raises DataError where a file is missing, is none, or lacks a column."""
        parquet_module()
        self.config = config
        self.paths = files_of(config.path, "Parquet file")
        self.root = config.root or self.paths[0].parent
        self._places: list[tuple[int, int]] = []
        groups = []
        for number, path in enumerate(self.paths):
            with open_parquet(path) as file:
                self._check_columns(path, file.schema_arrow.names)
                for group in range(file.num_row_groups):
                    self._places.append((number, group))
                    groups.append(file.metadata.row_group(group).num_rows)
        self.groups: Sequence[int] = groups
        self._starts = np.concatenate([[0], np.cumsum(groups)])
        self._kept: OrderedDict[int, list[dict[str, Any]]] = OrderedDict()
        if not len(self):
            raise DataError(f"{config.path}: no rows in it")

    def _columns(self, there: Sequence[str]) -> list[str]:
        """The columns to read of a file that has these; the default one of references may be absent."""
        fields = self.config.fields
        named = [fields.prompt, fields.target, *reference_fields(fields, there)]
        return sorted({name.split(".")[0] for name in named})

    def _check_columns(self, path: Path, there: list[str]) -> None:
        missing = [name for name in self._columns(there) if name not in there]
        if missing:
            raise DataError(f"{path}: no column {missing[0]!r}; there is {', '.join(there)}")

    def __len__(self) -> int:
        return int(self._starts[-1])

    def identity(self) -> str:
        stats = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in self.paths]
        return f"parquet {stats} {self.config.fields.model_dump_json()}"

    def record(self, index: int) -> Record:
        group = int(np.searchsorted(self._starts, index, side="right")) - 1
        row = self._rows(group)[index - int(self._starts[group])]
        path, fields = self.paths[self._places[group][0]], self.config.fields
        where = f"{path}, row {index}"
        prompt = text_of(lookup(row, fields.prompt, where), where, fields.prompt)
        targets = self._pictures(row, fields.target, where)
        if len(targets) != 1:
            raise DataError(f"{where}: {fields.target!r} holds {len(targets)} pictures instead of one")
        references = [p for name in reference_fields(fields, row) for p in self._pictures(row, name, where)]
        return check_task(Record(where, prompt, targets[0], tuple(references)), self.config.task)

    def _rows(self, group: int) -> list[dict[str, Any]]:
        if group not in self._kept:
            number, inside = self._places[group]
            with open_parquet(self.paths[number]) as file:
                columns = self._columns(file.schema_arrow.names)
                self._kept[group] = file.read_row_group(inside, columns=columns).to_pylist()
            while len(self._kept) > self.together:
                self._kept.popitem(last=False)
        self._kept.move_to_end(group)
        return self._kept[group]

    def _pictures(self, row: Mapping[str, Any], field: str, where: str) -> list[StoredPicture]:
        value = lookup(row, field, where)
        values = [] if value is None else value if isinstance(value, list) else [value]
        return [self._picture(one, f"{where}, {field}") for one in values]

    def _picture(self, value: Any, name: str) -> StoredPicture:
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, bytes):
            return BytesPicture(value, name)
        if isinstance(value, str) and value:
            return FilePicture(self.root / value)
        raise DataError(f"{name}: must hold a picture's bytes or path, it holds {type(value).__name__}")
