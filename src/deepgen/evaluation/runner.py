"""What every benchmark shares: pictures drawn into a folder, resumably, and the record of how.

A run's folder holds `run.json` (what was asked), `pictures/CATEGORY/ID-SEED.png`, and what scoring adds; each
step reads only files, so that any can be repeated alone.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from deepgen.errors import DataError, InputError
from deepgen.pipeline.output import save_png

RUN_FILE = "run.json"

Progress = Callable[[str, int, int], None]
"""Called as (step's name, done, total)."""


@dataclass(frozen=True)
class Task:
    """One prompt of a benchmark. `number` is its line in the test file: seeds follow from it, whatever subset
    runs. `references` are files that exist before pictures are drawn."""

    id: str
    number: int
    category: str
    prompt: str
    width: int
    height: int
    references: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Job:
    """One picture to draw: a task and which of its seeds (0, 1, ...)."""

    task: Task
    take: int

    @property
    def seed(self) -> int:
        return self.task.number * 1000 + self.take

    def path(self, folder: Path) -> Path:
        return folder / "pictures" / self.task.category / f"{self.task.id}-{self.take}.png"


Drawn = list[tuple[Image.Image, dict[str, Any]]]
"""Pictures, each with the record of how it was made."""


class Draw(Protocol):
    """Draws the pictures of jobs of one size and one number of references, in order."""

    def __call__(self, jobs: Sequence[Job]) -> Drawn: ...


def jobs_of(tasks: Sequence[Task], takes: int) -> list[Job]:
    """Every picture of a run, task by task."""
    return [Job(task, take) for task in tasks for take in range(takes)]


def generate(jobs: Sequence[Job], draw: Draw, folder: Path, batch_size: int, progress: Progress) -> None:
    """Draw every picture that the folder does not hold yet, in batches of equal size."""
    waiting: dict[tuple[int, int, int], list[Job]] = defaultdict(list)
    for job in jobs:
        if not job.path(folder).is_file():
            waiting[job.task.width, job.task.height, len(job.task.references)].append(job)
    total = len(jobs)
    done = total - sum(map(len, waiting.values()))
    progress("generate", done, total)
    for same in waiting.values():
        for part in (same[i : i + batch_size] for i in range(0, len(same), batch_size)):
            for job, (picture, record) in zip(part, draw(part), strict=True):
                job.path(folder).parent.mkdir(parents=True, exist_ok=True)
                save_png(picture, job.path(folder), record)
            done += len(part)
            progress("generate", done, total)


def read_picture(path: Path) -> NDArray[np.uint8]:
    """uint8 [H, W, 3]. Raises DataError where the file is missing or no picture."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}); run the benchmark again to draw it") from error


def start_run(folder: Path, settings: dict[str, Any]) -> None:
    """Make the folder, or take up the run in it.

    Raises InputError where the folder belongs to a run with other settings: its pictures would be mixed in.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / RUN_FILE
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        differing = sorted(k for k in before.keys() | settings.keys() if before.get(k) != settings.get(k))
        if differing:
            raise InputError(
                f"{folder} holds a run that differs in {', '.join(differing)}: choose another --output"
            )
    path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def weights_hash(model: nn.Module) -> str:
    """A short hash that tells checkpoints apart: of every tensor's name, shape and first 64 values."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)}\n".encode())
        digest.update(value.flatten()[:64].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
