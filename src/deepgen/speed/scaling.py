"""All GPUs of one host, measured together: parts in processes of their own, several at once where there is room.

Every part has a time limit, results are written as they come, and a part that fails is told and stops nothing else.
"""

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
class Job:
    """One part at one number of processes, on its way.

    Attributes:
        part, processes: which.
        after: must have ended well before.
        save: see `parts.Options`.
        slots: devices that it has.
        workers: its processes.
        started: on the clock.
        ended: how: "done" or why not.
    """

    part: str
    processes: int
    after: "Job | None" = None
    save: bool = False
    slots: list[int] = field(default_factory=list)
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    started: float = 0.0
    seconds: float = 0.0
    ended: str = ""

    @property
    def name(self) -> str:
        return f"{self.part}-{self.processes}"

    @property
    def running(self) -> bool:
        return bool(self.workers) and not self.ended


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
    jobs = plan_jobs(plan.parts or tuple(PARTS), counts)
    host = Host(plan, folder, list(range(devices)), say)
    host.run(jobs)
    return table(host.report(jobs)), [job.name for job in jobs if job.ended != "done"]


def plan_jobs(parts: Sequence[str], counts: Sequence[int]) -> list[Job]:
    """In the order of their worth: the most processes first, by what the run is for."""
    ordered = sorted(set(counts), reverse=True)
    jobs: list[Job] = []
    for part in ("sft", "rl", "draw", "nano"):
        if part in parts:
            jobs += [Job(part, n) for n in ordered]
    if "hsdp" in parts:
        jobs += [Job("hsdp", n) for n in ordered if n >= 4]
    saving = next((job for job in jobs if job.part == "sft"), None)
    if "resume" in parts and saving is not None and len(ordered) > 1:
        saving.save = True
        jobs.insert(1, Job("resume", ordered[1], after=saving))
    return jobs


class Host:
    """Starts jobs on free devices, watches them, and keeps what they find."""

    def __init__(self, plan: ScalingPlan, folder: Path, slots: list[int], say: Callable[[str], None]) -> None:
        self.plan, self.folder, self.free, self.say = plan, folder, slots, say
        self.started = time.perf_counter()
        self._written: dict[str, Any] = {}

    @property
    def left(self) -> float:
        """Seconds until everything must have ended."""
        return self.plan.seconds - (time.perf_counter() - self.started)

    def run(self, jobs: Sequence[Job]) -> None:
        """All of them; returns when none runs."""
        try:
            while any(not job.ended for job in jobs):
                for job in jobs:
                    if job.running:
                        self._watch(job)
                for job in jobs:
                    # In order: a part that waits for devices gets those that come free.
                    if not job.ended and not job.running and not self._started(job):
                        break
                self._write(jobs)
                time.sleep(POLL_SECONDS)
        finally:
            for job in jobs:
                _stop(job)

    def _started(self, job: Job) -> bool:
        """Start a job if it can be started; False where it waits for devices."""
        before = job.after
        if before is not None and before.ended not in ("", "done"):
            self._end(job, f"not started: {before.name} did not end well")
        elif self.left < LEAST_SECONDS:
            self._end(job, "not started: no time left")
        elif before is not None and not before.ended:
            return True
        elif job.processes > len(self.free):
            return False
        else:
            self._start(job)
        return True

    def command(self, job: Job) -> list[str]:
        """What each process of a job runs."""
        options = Options(self.plan.sizes, self.plan.device, str(self.folder), job.save)
        told = [job.part, json.dumps(asdict(options)), str(self._result(job))]
        return [sys.executable, "-m", "deepgen.speed.parts", *told]

    def _start(self, job: Job) -> None:
        job.slots, self.free = self.free[: job.processes], self.free[job.processes :]
        job.started = time.perf_counter()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        for rank in range(job.processes):
            environment = os.environ | {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(job.processes),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
                "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // max(2, 2 * job.processes))),
            }
            if self.plan.device == "cuda":
                environment["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, job.slots))
            with self._log(job, rank).open("wb") as log:
                worker = subprocess.Popen(
                    self.command(job), env=environment, stdout=log, stderr=subprocess.STDOUT
                )
            job.workers.append(worker)
        self.say(f"{self.left:4.0f} s left: {job.name} starts on {job.slots}")

    def _watch(self, job: Job) -> None:
        codes = [worker.poll() for worker in job.workers]
        if any(code not in (None, 0) for code in codes):
            rank = next(i for i, code in enumerate(codes) if code not in (None, 0))
            lines = self._log(job, rank).read_text(encoding="utf-8", errors="replace").splitlines()
            self._end(job, f"failed in process {rank}: " + "\n".join(lines[-LAST_LINES:]))
        elif all(code == 0 for code in codes):
            self._end(job, "done")
        elif time.perf_counter() - job.started > self.plan.part_seconds:
            self._end(job, f"stopped after {self.plan.part_seconds:.0f} s, its limit")
        elif self.left <= 0:
            self._end(job, "stopped: no time left")

    def _end(self, job: Job, how: str) -> None:
        job.ended = how
        if job.started:
            job.seconds = time.perf_counter() - job.started
        _stop(job)
        self.free, job.slots = sorted([*self.free, *job.slots]), []
        self.say(f"{self.left:4.0f} s left: {job.name} {how} ({job.seconds:.0f} s)")

    def _log(self, job: Job, rank: int) -> Path:
        return self.folder / f"{job.name}-{rank}.log"

    def _result(self, job: Job) -> Path:
        return self.folder / f"{job.name}.json"

    def report(self, jobs: Sequence[Job]) -> dict[str, Any]:
        """What is known by now."""
        found = []
        for job in jobs:
            path = self._result(job)
            told = (
                json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"rates": {}, "facts": {}}
            )
            found.append(
                {"part": job.part, "processes": job.processes, "seconds": job.seconds, "ended": job.ended}
                | told
            )
        gpu = self.plan.device == "cuda"
        return {
            "device": torch.cuda.get_device_name() if gpu else "cpu",
            "sizes": self.plan.sizes,
            "torch": torch.__version__,
            "jobs": found,
        }

    def _write(self, jobs: Sequence[Job]) -> None:
        report = self.report(jobs)
        if report != self._written:
            write_json(self.plan.output, report)
            self._written = report


def _stop(job: Job) -> None:
    """End the processes that still run."""
    for worker in job.workers:
        if worker.poll() is None:
            worker.kill()
    for worker in job.workers:
        worker.wait()


def table(report: dict[str, Any]) -> str:
    """Lines for people: speed by number of processes, then checkpoints and what must be equal."""
    jobs = report["jobs"]
    rates: dict[str, dict[int, dict[str, float]]] = {}
    for job in jobs:
        for name, rate in job["rates"].items():
            rates.setdefault(name, {})[job["processes"]] = rate
    header = f"{'work':16}{'processes':>10}{'images/s':>10}{'efficiency':>11}{'seconds':>9}{'MFU':>7}"
    lines = [f"{report['device']}, {report['sizes']}", header + f"{'peak GiB':>9}{'collectives s':>15}"]
    for name, by_count in rates.items():
        least = min(by_count)
        for count, rate in sorted(by_count.items()):
            each = rate["images_per_second"] / count
            base = by_count[least]["images_per_second"] / least
            line = f"{name:16}{count:10}{rate['images_per_second']:10.2f}"
            line += f"{each / base:11.1%}" if base else f"{'–':>11}"
            line += _cell(rate, "seconds", "9.3f") + _cell(rate, "mfu", "7.1%")
            lines.append(line + _cell(rate, "peak_gib", "9.1f") + _cell(rate, "collective_seconds", "15.3f"))
    return "\n".join([*lines, *_facts(jobs), *_failures(jobs)])


def _cell(rate: dict[str, float], key: str, form: str) -> str:
    width = int(form.split(".")[0])
    return f"{rate[key]:{form}}" if key in rate else f"{'–':>{width}}"


def _facts(jobs: Sequence[dict[str, Any]]) -> list[str]:
    lines = []
    saved: float | None = None
    for job in jobs:
        facts, count = job["facts"], job["processes"]
        if "save_seconds" in facts:
            saved = facts["weights"]
            lines.append(
                f"checkpoint of {facts.get('checkpoint_gb', 0):.1f} GB by {count} processes: training waits "
                f"{facts['save_waits_seconds']:.1f} s, on disk after {facts['save_seconds']:.1f} s"
            )
        if "load_seconds" in facts:
            lines.append(f"loaded by {count} processes in {facts['load_seconds']:.1f} s{_same(facts, saved)}")
    for what in ("noise", "pictures"):
        digests = {job["processes"]: job["facts"][what] for job in jobs if what in job["facts"]}
        if len(digests) > 1:
            verdict = "the same" if len(set(digests.values())) == 1 else f"DIFFERENT ({digests})"
            lines.append(
                f"{what} of the same seeds with {', '.join(map(str, sorted(digests)))} processes: {verdict}"
            )
    return lines


def _same(facts: dict[str, Any], saved: float | None) -> str:
    if saved is None or "loaded_weights" not in facts:
        return ""
    close = abs(facts["loaded_weights"] - saved) <= 1e-9 * abs(saved)
    return ", the same weights" if close else ", OTHER WEIGHTS"


def _failures(jobs: Sequence[dict[str, Any]]) -> list[str]:
    return [f"{x['part']}-{x['processes']}: {x['ended']}" for x in jobs if x["ended"] not in ("done", "")]
