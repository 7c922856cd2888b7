"""`deepgen bench judge, score, report, compare`: from a run's pictures to numbers and pages."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deepgen.cli.bench_options import (
    Clip,
    Concurrency,
    Data,
    Detector,
    Folder,
    Groups,
    Items,
    Judge,
    JudgeModel,
    KeyEnv,
    Limit,
    Partial,
    Patience,
    Price,
    Program,
    Resamples,
    Scoring,
    ScoringOption,
    ShardText,
    Url,
    prices_of,
    selection_of,
    show_progress,
)
from deepgen.errors import InputError, JudgeError
from deepgen.evaluation.benchmark import Benchmark
from deepgen.evaluation.data import Shard
from deepgen.evaluation.judging import Run
from deepgen.evaluation.stats import RESAMPLES

if TYPE_CHECKING:
    from deepgen.evaluation.compare import Side
    from deepgen.scorers.calls import JudgeProfile
    from deepgen.scorers.judge import Scorer


@dataclass(frozen=True)
class Judging:
    """Who judges and how. options: of `ScorerOptions`."""

    judge: str | None
    model: str | None
    options: dict[str, Any] = field(default_factory=dict)
    scoring: Scoring = "strict"

    def profile(self, benchmark: Benchmark) -> "JudgeProfile":
        """The manner of asking. Raises InputError for a judge that the benchmark cannot have."""
        from deepgen.evaluation.judges import choose_profile

        return choose_profile(benchmark, self.judge, self.model)

    def scorer(self, benchmark: Benchmark) -> "Scorer":
        """Local models run on the GPU if there is one. Raises InputError that names what is missing."""
        from deepgen.evaluation.judges import ScorerOptions, build_scorer

        profile = self.profile(benchmark)
        device = "cpu" if profile.kind in ("openai", "process") else _device()
        return build_scorer(benchmark, profile, ScorerOptions(**self.options, device=device))


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def judge(
    folder: Folder,
    judge: Judge = None,
    judge_model: JudgeModel = None,
    url: Url = None,
    key_env: KeyEnv = "OPENAI_API_KEY",
    concurrency: Concurrency = 8,
    patience: Patience = 900.0,
    command: Program = None,
    detector: Detector = None,
    clip: Clip = None,
    scoring: ScoringOption = "strict",
    price: Price = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only estimate calls, tokens and cost.")] = False,
    data: Data = None,
    limit: Limit = None,
    items: Items = None,
    groups: Groups = None,
    shard: ShardText = None,
) -> None:
    """Put a run's pictures to a judge; replies are kept, and none is asked for twice."""
    from deepgen.evaluation.stages import reopen

    run = reopen(folder, data, selection_of(limit, items, groups))
    if shard is not None:
        run = replace(run, items=Shard.parse(shard).of(run.items))
    where = {"url": url, "key_variable": key_env, "concurrency": concurrency, "patience_seconds": patience}
    judging = Judging(
        judge, judge_model, where | {"command": command, "detector": detector, "clip": clip}, scoring
    )
    if dry_run:
        print_estimate(run, judging.profile(run.benchmark), scoring, prices_of(price))
        return
    put_to_judge(run, judging.scorer(run.benchmark), scoring, prices_of(price))


def print_estimate(
    run: Run, profile: "JudgeProfile", scoring: Scoring, prices: tuple[float, float] | None
) -> None:
    """Calls, tokens and, where prices are known, what they cost."""
    from deepgen.evaluation.judging import estimate_run

    needed = estimate_run(run, profile, scoring)
    line = f"judge {profile.name}: {needed.new} new calls, {needed.known} known"
    if profile.kind == "openai" and needed.new:
        line += f"; about {needed.input_tokens:,} tokens in, {needed.output_tokens:,} out"
        line += (
            f", cost about {needed.cost(*prices):.2f}" if prices else "; --price IN,OUT estimates the cost"
        )
    print(line, flush=True)


def put_to_judge(run: Run, scorer: "Scorer", scoring: Scoring, prices: tuple[float, float] | None) -> None:
    """Ask what is not known. Raises JudgeError where calls stay without an answer."""
    from deepgen.evaluation.judging import judge_run

    print_estimate(run, scorer.profile, scoring, prices)
    failed = judge_run(run, scorer, scoring, show_progress)
    if failed:
        raise JudgeError(f"{failed} calls stay without an answer; run it again to ask them anew")


def judge_and_score(
    run: Run, scorer: "Scorer", judging: Judging, allow_partial: bool, prices: tuple[float, float] | None
) -> None:
    """The rest of `bench run`, once the pictures are there. Failed calls are told of after the scores."""
    failure = None
    try:
        put_to_judge(run, scorer, judging.scoring, prices)
    except JudgeError as error:
        failure = error
    score_and_report(run, scorer.profile, judging.scoring, allow_partial, RESAMPLES)
    if failure is not None:
        raise failure


def score(
    folder: Folder,
    judge: Judge = None,
    scoring: ScoringOption = "strict",
    allow_partial: Partial = False,
    resamples: Resamples = RESAMPLES,
    data: Data = None,
    limit: Limit = None,
    items: Items = None,
    groups: Groups = None,
) -> None:
    """Make numbers of a judge's kept replies, and reports of the numbers; no call is made."""
    from deepgen.evaluation.judging import read_profile
    from deepgen.evaluation.stages import reopen

    run = reopen(folder, data, selection_of(limit, items, groups))
    profile = read_profile(folder, judge or _only_judge(folder))
    score_and_report(run, profile, scoring, allow_partial, resamples)


def score_and_report(
    run: Run, profile: "JudgeProfile", scoring: Scoring, allow_partial: bool, resamples: int
) -> None:
    """Scores and reports as files, and the table on the terminal."""
    from deepgen.evaluation.scoring import score_run, summarise, write_scores

    scored = score_run(run, profile, scoring)
    results = summarise(run, scored.records, profile, scoring, allow_partial, resamples)
    write_scores(run.folder, scored, results)
    _report(run, profile, scoring)


def report(folder: Folder, judge: Judge = None, scoring: ScoringOption = "strict", data: Data = None) -> None:
    """Write a scored run's tables, sheets and page again."""
    from deepgen.evaluation.judging import read_profile
    from deepgen.evaluation.stages import reopen

    run = reopen(folder, data)
    _report(run, read_profile(folder, judge or _only_judge(folder)), scoring)


def _report(run: Run, profile: "JudgeProfile", scoring: Scoring) -> None:
    from deepgen.evaluation.html import write_page
    from deepgen.evaluation.report import text_report, write_reports
    from deepgen.evaluation.scoring import score_folder

    side = _side(run, profile, scoring)
    write_reports(run, side.results, side.shown, side.scored.why)
    target = score_folder(run.folder, profile.name, scoring)
    path = write_page(target, run.benchmark, side.results, side.shown, side.scored.why)
    print(text_report(run.benchmark, side.results))
    print(f"written to {target}: results.json, results.md, {path.name}, overview.png, sheets")


def _side(run: Run, profile: "JudgeProfile", scoring: Scoring) -> "Side":
    from deepgen.evaluation.compare import Side
    from deepgen.evaluation.report import shown_pictures
    from deepgen.evaluation.scoring import read_scores

    scored, results = read_scores(run.folder, profile.name, scoring)
    return Side(results, scored, shown_pictures(run, scored.records))


def compare(
    first: Annotated[Path, typer.Argument(help="Folder of run A.")],
    second: Annotated[Path, typer.Argument(help="Folder of run B.")],
    judge: Judge = None,
    scoring: ScoringOption = "strict",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder for comparison.html and .json.")
    ] = None,
    resamples: Resamples = RESAMPLES,
    data: Data = None,
) -> None:
    """Test two scored runs against each other, item by item."""
    from deepgen.evaluation.compare import compare as pair
    from deepgen.evaluation.compare import text_comparison, write_comparison
    from deepgen.evaluation.judging import read_profile
    from deepgen.evaluation.stages import reopen

    sides = []
    for folder in (first, second):
        profile = read_profile(folder, judge or _only_judge(folder))
        sides.append(_side(reopen(folder, data), profile, scoring))
    benchmark = reopen(first, data).benchmark
    comparison = pair(benchmark, sides[0], sides[1], resamples)
    print(text_comparison(benchmark, sides[0], sides[1], comparison))
    if output is not None:
        print(f"written to {write_comparison(output, benchmark, sides[0], sides[1], comparison)}")


def _only_judge(folder: Path) -> str:
    """The judge of a run that has but one."""
    from deepgen.evaluation.judging import judges_of

    known = judges_of(folder)
    if len(known) != 1:
        raise InputError(f"{folder} was judged by {', '.join(known) or 'nobody'}; name one with --judge")
    return known[0]
