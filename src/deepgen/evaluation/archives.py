"""Unpacking what users downloaded, into the benchmark's own folder and nowhere else."""

import tarfile
import zipfile
from pathlib import Path

from deepgen.errors import DataError


def unpack_where_missing(folder: Path, archive: str, wanted: str) -> None:
    """Extract the archives in `folder` that the pattern `archive` names, unless `wanted` is there already.

    .zip and .tar (also compressed). Members that would land outside `folder` are refused. Raises DataError for a
    damaged archive.
    """
    if (folder / wanted).exists():
        return
    for path in sorted(folder.glob(archive)):
        try:
            if path.suffix == ".zip":
                with zipfile.ZipFile(path) as zipped:
                    zipped.extractall(folder)
            else:
                with tarfile.open(path) as tarred:
                    tarred.extractall(folder, filter="data")
        except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
            raise DataError(f"{path}: cannot be unpacked ({error}); download it again") from error
