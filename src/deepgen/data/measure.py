"""How large the targets of a set are, which buckets need to know before anything is decoded."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from deepgen.data.index import Arrays, Index
from deepgen.data.pictures import READ_ERRORS, StoredPicture, quiet
from deepgen.data.sources import Source
from deepgen.pipeline.sizes import Size

_READERS, _CHUNK = 16, 1024


def picture_sizes(source: Source, index: Index) -> NDArray[np.int32]:
    """(width, height) of every target, int32 [n, 2]; (0, 0) where it cannot be read."""

    def make() -> Arrays:
        found = np.zeros((len(source), 2), dtype=np.int32)
        with quiet(), ThreadPoolExecutor(_READERS) as readers:
            for start in range(0, len(found), _CHUNK):
                chunk = range(start, min(start + _CHUNK, len(found)))
                # Sources are for one thread; the pictures' headers are what takes time.
                targets = [_target(source, number) for number in chunk]
                found[start : start + _CHUNK] = list(readers.map(_measure, targets))
        return {"sizes": found}

    return np.asarray(index.arrays("sizes", source.identity(), make)["sizes"])


def _target(source: Source, number: int) -> StoredPicture | None:
    try:
        return source.record(number).target
    except READ_ERRORS:
        return None


def _measure(picture: StoredPicture | None) -> Size:
    try:
        return picture.size() if picture is not None else (0, 0)
    except READ_ERRORS:
        return 0, 0
