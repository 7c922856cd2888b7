"""A benchmark from its data to its numbers, with plain pictures and the judge's server of judge_server.py."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from deepgen.evaluation.benchmark import Benchmark, Item, Record
from deepgen.evaluation.data import prepare
from deepgen.evaluation.judging import Run, judge_run
from deepgen.evaluation.runner import Job, jobs_of, start_run
from deepgen.evaluation.scoring import Results, score_run, summarise, write_scores
from deepgen.pipeline.output import save_png
from deepgen.scorers.calls import JudgeProfile, Mode
from deepgen.scorers.endpoint import Endpoint
from deepgen.scorers.judge import JudgeClient, Patience, Scorer

QUICK = Patience(seconds=5.0, first=0.01, longest=0.05)


@dataclass
class Ran:
    """A judged and scored run: its parts, the records in order, and the results."""

    run: Run
    profile: JudgeProfile
    records: list[Record]
    results: Results
    failed: int


def client(url: str, profile: JudgeProfile, concurrency: int = 4, patience: Patience = QUICK) -> JudgeClient:
    """The profile's judge at a test's server."""
    served = replace(profile, kind="openai", model=profile.model or profile.name)
    return JudgeClient(served, Endpoint(url, timeout_seconds=2.0), concurrency, patience)


def paint(path: Path, text: str, size: tuple[int, int] = (64, 64)) -> None:
    """A PNG of noise that differs from text to text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = random.Random(text).randbytes(48)
    save_png(Image.frombytes("RGB", (4, 4), pixels).resize(size, Image.Resampling.NEAREST), path, {})


def draw_run(benchmark: Benchmark, items: list[Item], folder: Path, skip: Callable[[Job], bool]) -> Run:
    """A run's folder with a picture for every job but the skipped ones."""
    start_run(folder, {"benchmark": benchmark.name, "model": "test"})
    for job in jobs_of(benchmark, items, benchmark.samples, 0):
        if not skip(job):
            paint(job.path(folder), f"{job.item.id}/{job.sample}")
    return Run(benchmark, items, benchmark.samples, folder)


def run_benchmark(
    benchmark: Benchmark,
    root: Path,
    folder: Path,
    scorer: Scorer,
    mode: Mode = "strict",
    skip: Callable[[Job], bool] = lambda job: False,
) -> Ran:
    """Everything but the model: data under `root / benchmark.folder`, pictures, judge, scores (40 resamples)."""
    items = prepare(benchmark, root, allow_partial=True, seen=folder / "hashes.json").items
    run = draw_run(benchmark, items, folder, skip)
    failed = judge_run(run, scorer, mode, lambda step, done, total: None)
    scored = score_run(run, scorer.profile, mode)
    results = summarise(run, scored.records, scorer.profile, mode, allow_partial=True, resamples=40)
    write_scores(folder, scored, results)
    return Ran(run, scorer.profile, scored.records, results, failed)
