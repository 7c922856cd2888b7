"""The state of a run on disk, from which it goes on: atomic, asynchronous, at any number of processes.

A checkpoint is a folder `step_NNNNNNNN` of Distributed Checkpoint's files and complete.json, which holds the values
that are no tensors. It is written under another name and renamed when it is whole; a folder without complete.json is
never loaded. Removing starts with a rename too, so a killed process leaves nothing that looks like a checkpoint.
"""

import json
import math
import os
import pickle
import re
import shutil
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from pydantic import Field
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.staging import BlockingAsyncStager

from deepgen.config import Config
from deepgen.errors import CheckpointError
from deepgen.scorers.threads import in_thread
from deepgen.train.parallel import Ranks

MARKER = "complete.json"
NAME = re.compile(r"step_(\d{8})")
PARTIAL = ".partial"
UNPICKLING_ERRORS = (
    *(OSError, EOFError, ValueError, TypeError, LookupError, AttributeError),
    *(ImportError, MemoryError, OverflowError, pickle.UnpicklingError),
)
"""What pickle raises on damaged files; it promises no type."""
SHOWN = 3
"""Tensors that an error names."""


class CheckpointConfig(Config):
    """When the run's state is saved, and how much of it is kept.

    A run that is killed loses at most the updates since the last save that was written. Those are one interval, and
    with asynchronous saves also the updates made during one write: two intervals at most, for a save waits for the one
    before it.
    """

    save_every_steps: int = Field(1000, gt=0)
    keep_last: int = Field(3, ge=1)
    keep_best: bool = Field(
        False,
        description="also the one with the lowest validation loss, measured at every save, or highest reward",
    )
    asynchronous: bool = Field(True, description="write while training goes on")


class Stateful(Protocol):
    """Something with a state: nested dicts with string keys of tensors and JSON values."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any], /) -> Any: ...


class Checkpointer:
    """Saves and loads the state of one run.

    Args:
        folder: for the checkpoints; made where needed. Left-overs of a killed save are removed.
        config: what to keep.
        ranks: this process; every one must call `save`, `load` and `wait`.
        identity: JSON values by name that a run must share with its checkpoints, for going on with others would
            mean something else. Those of the first process count.
    """

    def __init__(
        self,
        folder: Path,
        config: CheckpointConfig,
        ranks: Ranks,
        identity: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder, self.config, self.ranks = folder, config, ranks
        self.identity = dict(identity or {})
        self._saving: Future[None] | None = None
        # Of its own: a save in another thread must not mix its messages with training's.
        self._group = dist.new_group(backend="gloo") if ranks.world_size > 1 else None
        try:
            self._on_first(self._clear)
        except OSError as error:
            raise CheckpointError(f"{folder}: checkpoints cannot be kept here: {error}") from error

    def _clear(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for left in self.folder.glob(f"*{PARTIAL}"):
            shutil.rmtree(left)

    def _agree(self, problem: str | None = None) -> None:
        """Wait for all processes; a problem of one of them is an OSError on every one, so that none waits for ever."""
        problems = [problem]
        if self._group is not None:
            problems = [None] * self.ranks.world_size
            dist.all_gather_object(problems, problem, self._group)
        found = [text for text in problems if text is not None]
        if found:
            raise OSError(found[0])

    def _on_first(self, work: Callable[[], None]) -> None:
        """Do something on the first process while the others wait for it."""
        problem = None
        if self.ranks.first:
            try:
                work()
            except (OSError, CheckpointError) as error:
                problem = str(error)
        self._agree(problem)

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, ascending."""
        found = [NAME.fullmatch(path.name) for path in self.folder.glob("step_*")]
        return sorted(int(m[1]) for m in found if m and (self._path(int(m[1])) / MARKER).is_file())

    def latest(self) -> int | None:
        """The step of the newest complete checkpoint."""
        return max(self.steps(), default=None)

    def _path(self, step: int) -> Path:
        return self.folder / f"step_{step:08d}"

    def save(self, step: int, state: Mapping[str, Stateful], score: float | None = None) -> None:
        """Save the state as it is now; returns when it is copied, or written if not asynchronous.

        Args:
            step: updates made so far.
            state: by names of its parts.
            score: lower is better, for `keep_best`.

        Raises:
            CheckpointError: an earlier asynchronous save failed.
        """
        self.wait()
        tensors, values = _split({name: part.state_dict() for name, part in state.items()})
        if self.config.asynchronous:
            copies = {name: t.clone() if t.device.type == "cpu" else t for name, t in tensors.items()}
            tensors = BlockingAsyncStager(cache_staged_state_dict=False).stage(copies)
        note = {"step": step, "score": score, "identity": self.identity, "values": values}
        self._saving = in_thread(self._write, step, tensors, note)
        if not self.config.asynchronous:
            self.wait()

    def _write(self, step: int, tensors: dict[str, Tensor], note: dict[str, Any]) -> None:
        final = self._path(step)
        partial = final.with_name(final.name + PARTIAL)

        def begin() -> None:
            if partial.exists():  # of a save of this step that failed
                shutil.rmtree(partial)
            partial.mkdir()

        def finish() -> None:
            _write_synced(partial / MARKER, json.dumps(note))
            self._remove(final)
            os.rename(partial, final)
            self._prune()

        self._on_first(begin)
        writer = dcp.FileSystemWriter(partial, sync_files=True)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            dcp.save(tensors, storage_writer=writer, process_group=self._group, no_dist=self._group is None)
        self._on_first(finish)

    def _remove(self, path: Path) -> None:
        if path.exists():
            gone = path.with_name(f"{path.name}.old{PARTIAL}")
            os.rename(path, gone)
            shutil.rmtree(gone)

    def _prune(self) -> None:
        steps = self.steps()
        kept = set(steps[-self.config.keep_last :])
        if self.config.keep_best and (best := self.best()) is not None:
            kept.add(best)
        for step in set(steps) - kept:
            self._remove(self._path(step))

    def best(self) -> int | None:
        """The step with the lowest finite score; None where none has one."""
        scores = {step: self._note(step)["score"] for step in self.steps()}
        scored = {step: score for step, score in scores.items() if score is not None and math.isfinite(score)}
        return min(scored, key=lambda step: scored[step], default=None)

    def wait(self) -> None:
        """Until the save under way is on disk.

        Raises:
            CheckpointError: the place or another process failed it. Any other error of the writing is raised as it is.
        """
        if self._saving is None:
            return
        saving, self._saving = self._saving, None
        try:
            saving.result()
        except (OSError, CheckpointException, RuntimeError) as error:
            raise CheckpointError(f"{self.folder}: the run's state cannot be saved: {error}") from error

    def _note(self, step: int) -> dict[str, Any]:
        path = self._path(step) / MARKER
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(self._damaged(step, error)) from None

    def load(self, state: Mapping[str, Stateful], step: int | None = None) -> int:
        """Put a checkpoint's state into the parts, wherever it was saved; returns its step.

        Args:
            state: by the names it was saved under; tensors of the parts' states are filled in place.
            step: which; the newest if not given.

        Raises:
            CheckpointError: there is none, or it is not of this run: by its identity, its parts or their tensors.
        """
        found = self.latest() if step is None else step
        if found is None:
            raise CheckpointError(f"{self.folder} holds no complete checkpoint")
        path, note = self._path(found), self._note(found)
        states = {name: part.state_dict() for name, part in state.items()}
        tensors, _ = _split(states)
        try:
            self._agree(self._misfit(found, note, state, tensors) if self.ranks.first else None)
        except OSError as error:
            raise CheckpointError(str(error)) from None
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="torch.distributed is disabled")
                dcp.load(
                    tensors,
                    storage_reader=dcp.FileSystemReader(path),
                    process_group=self._group,
                    no_dist=self._group is None,
                )
        except CheckpointException as error:
            raise CheckpointError(self._damaged(found, next(iter(error.failures.values()))[0])) from None
        for name, part in state.items():
            part.load_state_dict(_merge(states[name], note["values"][name]))
        return int(note["step"])

    def _damaged(self, step: int, error: BaseException) -> str:
        """What to say of a checkpoint that cannot be read."""
        while (inner := error.__cause__ or error.__context__) is not None:
            error = inner
        earlier = [other for other in self.steps() if other < step]
        where = f"go on from update {earlier[-1]}" if earlier else "begin anew"
        reason = " ".join(str(error).split())
        return (
            f"{self._path(step)} cannot be read ({type(error).__name__}: {reason}); if it is damaged, remove that "
            f"folder to {where}"
        )

    def _misfit(
        self,
        step: int,
        note: dict[str, Any],
        state: Mapping[str, Stateful],
        tensors: Mapping[str, Tensor],
    ) -> str | None:
        """Why a checkpoint is not one of this run, or cannot be read; None where it is."""
        path = self._path(step)
        was, now = _leaves(note.get("identity", {})), _leaves(self.identity)
        found = [
            f"{name} was {was.get(name)} and is {now.get(name)}"
            for name in sorted({*was, *now})
            if was.get(name) != now.get(name)
        ]
        if not found:
            try:
                saved = dcp.FileSystemReader(path).read_metadata().state_dict_metadata
            except UNPICKLING_ERRORS as error:
                return self._damaged(step, error)
            sizes = {
                name: list(one.size) for name, one in saved.items() if isinstance(one, TensorStorageMetadata)
            }
            own = {name: list(tensor.shape) for name, tensor in tensors.items()}
            theirs, ours = {*note["values"], *sizes}, {*state, *own}
            resized = {
                f"{name} is {sizes[name]} there and {own[name]} here"
                for name in sizes.keys() & own
                if sizes[name] != own[name]
            }
            found = [
                *_some("it holds {}, which this run lacks", theirs - ours),
                *_some("it lacks {}", ours - theirs),
                *_some("{}", resized),
            ]
        if not found:
            return None
        return (
            f"{path} does not fit this run: {'; '.join(found)}; give another output_dir, or the configuration that it "
            "was made with"
        )


def _leaves(tree: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """The values of nested mappings by their dotted paths."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        inner = isinstance(value, Mapping)
        found.update(_leaves(value, f"{path}{key}.") if inner else {f"{path}{key}": value})
    return found


def _some(text: str, names: set[str]) -> list[str]:
    """`text` with the first of the names and how many more there are; nothing where there are none."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return [text.format(", ".join(sorted(names)[:SHOWN]) + more)] if names else []


def _write_synced(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _split(states: dict[str, dict[str, Any]]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by their paths, joined with slashes, and the same tree of all other values."""
    tensors: dict[str, Tensor] = {}

    def walk(tree: dict[str, Any], path: str) -> dict[str, Any]:
        rest: dict[str, Any] = {}
        for key, value in tree.items():
            place = f"{path}/{key}" if path else key
            if isinstance(value, Tensor):
                tensors[place] = value.detach()
            elif isinstance(value, dict):
                rest[key] = walk(value, place)
            else:
                rest[key] = value
        return rest

    return tensors, walk(states, "")


def _merge(state: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """The saved values beside the tensors, which are filled already."""
    merged = {key: value for key, value in state.items() if isinstance(value, Tensor | dict)}
    for key, value in values.items():
        held = merged.get(key)
        merged[key] = _merge(held, value) if isinstance(held, dict) and isinstance(value, dict) else value
    return merged


class TensorState:
    """Named tensors as a `Stateful`: loaded in place.

    Args:
        tensors: live ones, sharded or not; changed by loading.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = dict(tensors)

    def state_dict(self) -> dict[str, Any]:
        return dict(self.tensors)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        with torch.no_grad():
            for name, tensor in self.tensors.items():
                if state[name].data_ptr() != tensor.data_ptr():
                    tensor.copy_(state[name])
