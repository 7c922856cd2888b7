"""What was found out about a set once, kept on disk: where its samples lie, how large its pictures are."""

import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]


class Index:
    """Arrays by what they describe; without a folder nothing is kept."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def arrays(self, kind: str, identity: str, make: Callable[[], Arrays]) -> Arrays:
        """The arrays kept under (kind, identity), or those that `make` returns, which are kept from then on.

        Any number of processes may ask at once: a folder appears whole or not at all.
        """
        if self.folder is None:
            return make()
        digest = hashlib.sha256(identity.encode()).hexdigest()[:24]
        place = self.folder / f"{kind}-{digest}"
        if not place.is_dir():
            self._write(place, make())
        return {path.stem: np.load(path, mmap_mode="r") for path in sorted(place.glob("*.npy"))}

    def _write(self, place: Path, arrays: Arrays) -> None:
        draft = place.with_name(f".{place.name}-{uuid.uuid4().hex}")
        draft.mkdir(parents=True)
        for name, values in arrays.items():
            np.save(draft / f"{name}.npy", values, allow_pickle=False)
        try:
            os.replace(draft, place)
        except OSError:
            shutil.rmtree(draft)
            if not place.is_dir():  # not merely another process that was faster
                raise
