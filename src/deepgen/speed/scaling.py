"""All GPUs of one host, measured together: groups of processes, each doing parts in order, side by side where there is
room. The smallest group runs alone: what others are compared with must not be slowed by them.

Every process has imported everything before anything is measured. Every part has a time limit, results are written as
they come, and a part that fails is told and stops nothing else: the rest of its group's go on in fresh processes.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from deepgen.errors import InputError
from deepgen.evaluation.files import write_json
from deepgen.speed.parts import PARTS, Options
from deepgen.speed.scaling_table import table

POLL_SECONDS = 0.2
LAST_LINES = 12
LEAST_SECONDS = 15
"""No part is worth starting with less left."""


@dataclass(frozen=True)
class ScalingPlan:
    """What is asked for.

    Attributes:
        output: JSON.
        sizes: of the large model.
        device: "cuda" or "cpu".
        processes: numbers of processes; none: 1, 2, 4 … as many as there are GPUs.
        parts: names of `PARTS`; none: all.
        seconds: for everything.
        part_seconds: for one part.
    """

    output: Path
    sizes: str
    device: str
    processes: tuple[int, ...] = ()
    parts: tuple[str, ...] = ()
    seconds: float = 510
    part_seconds: float = 150


@dataclass
class Task:
    """One part at one number of processes.

    Attributes:
        part, processes: which.
        save, load: see `parts.Options`.
        after: must have ended well before.
        started: on the clock; 0: not yet.
        ended: how: "done" or why not.
        beside: names of what ran on the host at the same time.
    """

    part: str
    processes: int
    save: bool = False
    load: int = 0
    after: "Task | None" = None
    started: float = 0.0
    seconds: float = 0.0
    ended: str = ""
    beside: set[str] = field(default_factory=set)

    @property
    def name(self) -> str:
        return f"{self.part}-{self.processes}"


@dataclass
class Job:
    """Tasks that one group of processes does in order.

    Attributes:
        tasks: of one number of processes.
        alone: nothing else may run on the host.
        slots: devices that it has.
        workers: its processes, from before they are told to begin.
        places: of each, the file that says that it waits; its log beside it.
        begun, over: whether they have been told, and whether they have left.
    """

    tasks: list[Task]
    alone: bool = False
    slots: list[int] = field(default_factory=list)
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    places: list[Path] = field(default_factory=list)
    begun: bool = False
    over: bool = False

    @property
    def processes(self) -> int:
        return self.tasks[0].processes

    @property
    def name(self) -> str:
        return self.tasks[0].name

    @property
    def pending(self) -> list[Task]:
        return [task for task in self.tasks if not task.ended]

    @property
    def running(self) -> bool:
        return self.begun and not self.over


def run_scaling(plan: ScalingPlan, folder: Path, say: Callable[[str], None]) -> tuple[str, list[str]]:
    """Measure everything.

    Args:
        plan: what.
        folder: for checkpoints and logs.
        say: told of each part's start and end.

    Returns:
        The table, and the names of the parts that did not end well.

    Raises:
        InputError: a part or a number of processes is not possible.
    """
    devices = torch.cuda.device_count() if plan.device == "cuda" else max(plan.processes, default=2)
    counts = plan.processes or tuple(n for n in (1, 2, 4, 8) if n <= devices)
    if unknown := [name for name in plan.parts if name not in PARTS]:
        raise InputError(f"unknown part {unknown[0]!r}; known: {', '.join(PARTS)}")
    if not counts or max(counts) > devices:
        raise InputError(f"{max(counts, default=1)} processes are asked for, but there are {devices} devices")
    host = Host(plan, folder, plan_jobs(plan.parts or tuple(PARTS), counts), list(range(devices)), say)
    host.run()
    return table(host.report()), [task.name for task in host.tasks if task.ended != "done"]


def plan_jobs(parts: Sequence[str], counts: Sequence[int]) -> list[Job]:
    """Groups in the order of their worth: the most processes and the fewest, then those between; what else there is to
    measure afterwards.

    A checkpoint of the most processes is loaded by the next fewer, which go on and save in turn for the most.
    """
    most, *fewer = sorted(set(counts), reverse=True)
    order = [most, *reversed(fewer[-1:]), *fewer[:-1]]
    first = {n: [Task(part, n) for part in ("noise", "sft", "rl") if part in parts] for n in order}
    later = {n: [Task(part, n) for part in ("draw", "nano") if part in parts] for n in order}
    for n in order:
        if "hsdp" in parts and n >= 4:
            later[n].insert(0, Task("hsdp", n))
    saving = next((task for task in first[most] if task.part == "sft"), None)
    if "resume" in parts and saving is not None and fewer:
        saving.save = True
        half = Task("resume", fewer[0], save=True, load=most, after=saving)
        first[fewer[0]].append(half)
        later[most].insert(0, Task("resume", most, load=fewer[0], after=half))
    jobs = [Job(tasks[n], alone=n == min(counts)) for tasks in (first, later) for n in order]
    return [job for job in jobs if job.tasks]


class Host:
    """Starts jobs on free devices, watches them, and keeps what they find."""

    def __init__(
        self,
        plan: ScalingPlan,
        folder: Path,
        jobs: list[Job],
        slots: list[int],
        say: Callable[[str], None],
    ) -> None:
        self.plan, self.folder, self.jobs, self.free, self.say = plan, folder, jobs, slots, say
        self.tasks = [task for job in jobs for task in job.tasks]
        self.started = time.perf_counter()
        self._prepared = 0
        self._written: dict[str, Any] = {}

    @property
    def left(self) -> float:
        """Seconds until everything must have ended."""
        return self.plan.seconds - (time.perf_counter() - self.started)

    def run(self) -> None:
        """All jobs; returns when none runs."""
        try:
            if self.left >= LEAST_SECONDS:
                for job in self.jobs:
                    self._prepare(job)
                while self.left > 0 and not all(map(self._ready, self.jobs)):
                    time.sleep(POLL_SECONDS)
            while any(task.ended == "" for task in self.tasks) or any(job.running for job in self.jobs):
                for job in list(self.jobs):
                    if job.running:
                        self._watch(job)
                for job in self.jobs:
                    # In order: a job that waits for devices gets those that come free.
                    if not job.begun and job.pending and not self._begun(job):
                        break
                self._write()
                time.sleep(POLL_SECONDS)
            self._write()
        finally:
            for job in self.jobs:
                _stop(job)

    def _begun(self, job: Job) -> bool:
        """Begin a job if it can be; False where it waits for devices."""
        for task in job.pending:
            if task.after is not None and task.after.ended not in ("", "done"):
                self._end(task, f"not started: {task.after.name} did not end well")
            elif self.left < LEAST_SECONDS:
                self._end(task, "not started: no time left")
        if any(task.after is not None and not task.after.ended for task in job.pending) or not job.pending:
            return True
        running = [other for other in self.jobs if other.running]
        if (job.alone and running) or any(other.alone for other in running):
            return False
        if job.processes > len(self.free):
            return False
        self._begin(job)
        return True

    def command(self, job: Job) -> list[str]:
        """What each process of a job runs, but for its last argument."""
        return [sys.executable, "-m", "deepgen.speed.parts"]

    def _prepare(self, job: Job) -> None:
        """Start a job's processes, which import everything and wait."""
        self._prepared += 1
        for rank in range(job.processes):
            place = self.folder / f"job{self._prepared}-{rank}"
            environment = os.environ | {
                "RANK": str(rank),
                "WORLD_SIZE": str(job.processes),
                "MASTER_ADDR": "127.0.0.1",
                "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
                "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // max(2, 2 * job.processes))),
            }
            with place.with_suffix(".log").open("wb") as log:
                worker = subprocess.Popen(
                    [*self.command(job), str(place)],
                    env=environment,
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            job.workers.append(worker)
            job.places.append(place)

    def _ready(self, job: Job) -> bool:
        """Whether each process waits to be told, or has left."""
        pairs = zip(job.places, job.workers, strict=True)
        return all(place.exists() or worker.poll() is not None for place, worker in pairs)

    def _begin(self, job: Job) -> None:
        if not job.workers:
            self._prepare(job)
        job.slots, self.free = self.free[: job.processes], self.free[job.processes :]
        job.begun, job.tasks = True, job.pending
        job.tasks[0].started = time.perf_counter()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        tasks = [
            {"part": task.part, "output": str(self._result(task))}
            | {"options": asdict(Options(*self._shared, save=task.save, load=task.load))}
            for task in job.tasks
        ]
        for slot, worker in zip(job.slots, job.workers, strict=True):
            environment = {"LOCAL_RANK": str(slot), "MASTER_PORT": str(port)}
            told = {"environment": environment, "device": self.plan.device, "tasks": tasks}
            assert worker.stdin is not None
            # One that has left already is found so by `_watch`.
            with contextlib.suppress(BrokenPipeError), worker.stdin:
                worker.stdin.write(json.dumps(told).encode() + b"\n")
        names = ", ".join(task.name for task in job.tasks)
        self.say(f"{self.left:4.0f} s left: {names} on devices {job.slots}")

    @property
    def _shared(self) -> tuple[str, str, str]:
        return self.plan.sizes, self.plan.device, str(self.folder)

    def _watch(self, job: Job) -> None:
        codes = [worker.poll() for worker in job.workers]
        while job.pending and self._found(job.pending[0])["done"]:
            self._end(job.pending[0], "done")
            if job.pending:
                job.pending[0].started = time.perf_counter()
        if not job.pending:
            # The last part is done; its processes leave by themselves.
            self._leave(job)
            return
        now = job.pending[0]
        for other in self.jobs:
            if other.running and other is not job and other.pending:
                now.beside.add(other.pending[0].name)
        if any(codes) or None not in codes:
            rank = next((i for i, code in enumerate(codes) if code), 0)
            log = job.places[rank].with_suffix(".log").read_text(encoding="utf-8", errors="replace")
            lines = "\n".join(log.splitlines()[-LAST_LINES:])
            self._fail(job, f"failed in process {rank}: {lines}")
        elif time.perf_counter() - now.started > self.plan.part_seconds:
            self._fail(job, f"stopped after {self.plan.part_seconds:.0f} s, its limit")
        elif self.left <= 0:
            self._fail(job, "stopped: no time left")

    def _fail(self, job: Job, how: str) -> None:
        """End a job at its current task; the rest become a job of their own."""
        now, *rest = job.pending
        self._leave(job)
        if how.startswith("failed") and now is not job.tasks[0]:
            # Perhaps for what an earlier part left behind: once more, in fresh processes.
            self.say(f"{self.left:4.0f} s left: {now.name} {how}")
            rest.insert(0, now)
        else:
            self._end(now, how)
        if rest:
            self.jobs.insert(self.jobs.index(job) + 1, Job(rest, job.alone))

    def _leave(self, job: Job) -> None:
        _stop(job)
        job.over = True
        self.free, job.slots = sorted([*self.free, *job.slots]), []

    def _end(self, task: Task, how: str) -> None:
        task.ended = how
        if task.started:
            task.seconds = time.perf_counter() - task.started
        self.say(f"{self.left:4.0f} s left: {task.name} {how} ({task.seconds:.0f} s)")

    def _result(self, task: Task) -> Path:
        return self.folder / f"{task.name}.json"

    def _found(self, task: Task) -> dict[str, Any]:
        """What a task has written by now."""
        path = self._result(task)
        if not path.exists():
            return {"rates": {}, "same": {}, "facts": {}, "done": False}
        return json.loads(path.read_text(encoding="utf-8"))

    def report(self) -> dict[str, Any]:
        """What is known by now."""
        gpu = self.plan.device == "cuda"
        return {
            "device": torch.cuda.get_device_name() if gpu else "cpu",
            "sizes": self.plan.sizes,
            "torch": torch.__version__,
            "parts": [
                {"part": task.part, "processes": task.processes, "seconds": task.seconds, "ended": task.ended}
                | {"beside": sorted(task.beside)}
                | {key: value for key, value in self._found(task).items() if key != "done"}
                for task in self.tasks
            ],
        }

    def _write(self) -> None:
        report = self.report()
        if report != self._written:
            write_json(self.plan.output, report)
            self._written = report


def _stop(job: Job) -> None:
    """End the processes that still run."""
    for worker in job.workers:
        if worker.stdin is not None and not worker.stdin.closed:
            worker.stdin.close()
        if worker.poll() is None:
            worker.kill()
    for worker in job.workers:
        worker.wait()
