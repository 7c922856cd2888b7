"""A run's folder: what was asked for (`run.json`) and `pictures/GROUP/ID-SAMPLE.png`, drawn once each.

Every later step reads only files, so that any of them can be repeated alone.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deepgen.errors import DataError, InputError
from deepgen.evaluation.benchmark import PICTURE_SUFFIXES, Benchmark, Item
from deepgen.evaluation.files import file_name, write_bytes, write_json
from deepgen.evaluation.sources import read_json

RUN_FILE = "run.json"

Progress = Callable[[str, int, int], None]
"""Called as (step's name, done, total)."""


@dataclass(frozen=True)
class Job:
    """One picture to draw. sample: which of the item's, from 0."""

    item: Item
    sample: int
    seed: int

    def path(self, folder: Path) -> Path:
        """Where a picture drawn here goes."""
        return picture_folder(folder, self.item) / f"{file_name(self.item.id)}-{self.sample}.png"


Drawn = list[tuple[Image.Image, dict[str, Any]]]
"""Pictures, each with the record of how it was made."""


class Draw(Protocol):
    """Draws the pictures of jobs that look alike (`Job.item`'s size and sources), in order.

    Raises MemoryError where the jobs are too many at once.
    """

    def __call__(self, jobs: Sequence[Job]) -> Drawn: ...


def picture_folder(folder: Path, item: Item) -> Path:
    return folder / "pictures" / file_name(item.group)


def find_picture(folder: Path, item: Item, sample: int) -> Path | None:
    """The picture of an item in a run's folder, whatever its format."""
    stem = f"{file_name(item.id)}-{sample}"
    candidates = (picture_folder(folder, item) / f"{stem}{suffix}" for suffix in PICTURE_SUFFIXES)
    return next((path for path in candidates if path.is_file()), None)


def jobs_of(benchmark: Benchmark, items: Sequence[Item], samples: int, base_seed: int) -> list[Job]:
    """Every picture of a run, item by item; seeds do not depend on which items there are."""
    return [
        Job(item, sample, benchmark.seed(item, sample, base_seed))
        for item in items
        for sample in range(samples)
    ]


def generate(jobs: Sequence[Job], draw: Draw, folder: Path, batch_size: int, progress: Progress) -> None:
    """Draw every picture that the folder does not hold yet, in batches of pictures that look alike.

    A batch too big for the memory is halved, down to one picture. Raises DataError for unreadable sources.
    """
    from deepgen.pipeline.output import save_png  # imports torch

    waiting: dict[Any, list[Job]] = defaultdict(list)
    for job in jobs:
        if find_picture(folder, job.item, job.sample) is None:
            waiting[_looks(job.item)].append(job)
    done = len(jobs) - sum(map(len, waiting.values()))
    progress("generate", done, len(jobs))
    for same in waiting.values():
        while same:
            part = same[:batch_size]
            try:
                drawn = draw(part)
            except MemoryError:
                if len(part) == 1:
                    raise
                batch_size = len(part) // 2
                continue
            for job, (picture, record) in zip(part, drawn, strict=True):
                save_png(picture, job.path(folder), record)
            same = same[len(part) :]
            done += len(part)
            progress("generate", done, len(jobs))


def _looks(item: Item) -> tuple[Any, ...]:
    return (item.size, *(picture_size(path) for path in item.sources))


def picture_size(path: Path) -> tuple[int, int]:
    """(width, height) from the file's header. Raises DataError."""
    try:
        with Image.open(path) as picture:
            return picture.size
    except OSError as error:
        raise DataError(f"{path}: cannot be read as a picture ({error})") from error


def read_picture(path: Path) -> NDArray[np.uint8]:
    """uint8 [H, W, 3]. Raises DataError where the file is missing or no picture."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}); run the benchmark again to draw it") from error


def import_pictures(
    benchmark: Benchmark, items: Sequence[Item], samples: int, root: Path, folder: Path
) -> tuple[int, int]:
    """Take pictures that were made elsewhere, laid out officially under `root`, into a run's folder.

    Files keep their bytes. Returns how many there are now, and how many were wanted. Raises InputError where `root`
    is no folder.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder of pictures")
    found = 0
    for item in items:
        for sample in range(samples):
            if find_picture(folder, item, sample) is None:
                picture = benchmark.import_picture(root, item, sample)
                if picture is None:
                    continue
                _take(picture, picture_folder(folder, item) / f"{file_name(item.id)}-{sample}")
            found += 1
    return found, len(items) * samples


def _take(picture: Path | Image.Image, target: Path) -> None:
    if isinstance(picture, Path):
        write_bytes(target.with_name(target.name + picture.suffix.lower()), picture.read_bytes())
    else:
        from deepgen.pipeline.output import save_png

        save_png(picture, target.with_name(target.name + ".png"), {})


def export_pictures(
    benchmark: Benchmark, items: Sequence[Item], samples: int, folder: Path, root: Path
) -> int:
    """Write a run's pictures in the official layout under `root`; returns how many there were."""
    count = 0
    for item in items:
        found = {sample: find_picture(folder, item, sample) for sample in range(samples)}
        pictures = {sample: path for sample, path in found.items() if path is not None}
        benchmark.export_item(root, item, pictures)
        count += len(pictures)
    return count


def start_run(folder: Path, settings: dict[str, Any]) -> None:
    """Make the folder, or take up the run in it.

    Raises InputError where the folder belongs to a run with other settings: its pictures would be mixed in.
    """
    path = folder / RUN_FILE
    settings = json.loads(json.dumps(settings))
    if path.is_file():
        before = read_json(path)
        differing = sorted(k for k in before.keys() | settings.keys() if before.get(k) != settings.get(k))
        if differing:
            raise InputError(
                f"{folder} holds a run that differs in {', '.join(differing)}: choose another --output"
            )
        return
    write_json(path, dict(sorted(settings.items())))


def read_run(folder: Path) -> dict[str, Any]:
    """What `run.json` says. Raises DataError where the folder is no run's."""
    if not (folder / RUN_FILE).is_file():
        raise DataError(f"{folder}: no {RUN_FILE} in it; `deepgen bench generate` makes a run's folder")
    return dict(read_json(folder / RUN_FILE))
