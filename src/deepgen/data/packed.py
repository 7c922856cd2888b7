"""Many small texts without an object for each."""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


class PackedRows:
    """Many texts in two arrays: worker processes share them, which they cannot do with a list of objects."""

    def __init__(self, rows: Iterator[str]) -> None:
        parts, ends, end = [], [0], 0
        for row in rows:
            data = row.encode()
            end += len(data)
            parts.append(data)
            ends.append(end)
        self._take(
            {"data": np.frombuffer(b"".join(parts), dtype=np.uint8), "ends": np.array(ends, dtype=np.int64)}
        )

    def _take(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._data, self._ends = arrays["data"], arrays["ends"]

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> "PackedRows":
        """The rows whose `arrays` these are."""
        rows = cls(iter(()))
        rows._take(arrays)
        return rows

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """All that there is to store."""
        return {"data": self._data, "ends": self._ends}

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> str:
        return self._data[self._ends[index] : self._ends[index + 1]].tobytes().decode()

    def digest(self) -> str:
        """Of all texts."""
        return hashlib.blake2b(np.ascontiguousarray(self._data).data, digest_size=8).hexdigest()
