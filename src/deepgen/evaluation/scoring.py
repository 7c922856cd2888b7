"""From answers to numbers: records, coverage, intervals, and the files that hold them."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deepgen.errors import DataError
from deepgen.evaluation.benchmark import Benchmark, Record, Status, Unit
from deepgen.evaluation.files import file_name, write_json, write_jsonl
from deepgen.evaluation.judging import Run, answers, worst
from deepgen.evaluation.runner import read_run
from deepgen.evaluation.sources import read_json, read_jsonl
from deepgen.evaluation.stats import RESAMPLES, Interval, bootstrap
from deepgen.scorers.calls import JudgeProfile, Mode

RECORDS_FILE, RESULTS_FILE = "records.jsonl", "results.json"
MOST_WORDS = 4000
"""Letters of a judge's words that are kept beside a record; the cache has them all."""
JUDGED = (Status.OK, Status.PARSE_FAILED, Status.NO_PICTURE)
"""What is worth a score in strict mode; the rest says nothing about the picture."""


@dataclass(frozen=True)
class Coverage:
    """Pictures: in the whole benchmark, in this run, drawn, and with a verdict that counts; and by their status."""

    expected: int
    chosen: int
    drawn: int
    counted: int
    statuses: Mapping[str, int]

    @property
    def complete(self) -> bool:
        """Whether an overall number may be compared with others."""
        return self.counted == self.expected

    def words(self) -> str:
        """One line."""
        share = 100 * self.counted / self.expected if self.expected else 0.0
        others = ", ".join(f"{status} {count}" for status, count in self.statuses.items() if status != "ok")
        return f"coverage {self.counted}/{self.expected} pictures ({share:.1f}%)" + (
            f"; {others}" if others else ""
        )


@dataclass(frozen=True)
class Results:
    """The numbers of one run by one judge in one mode. overall: None where coverage forbids it."""

    benchmark: str
    judge: str
    mode: Mode
    parser_version: int
    primary: str
    run: Mapping[str, Any]
    profile: Mapping[str, Any]
    coverage: Coverage
    overall: Mapping[str, Interval] | None
    groups: Mapping[str, Mapping[str, Interval]]
    sizes: Mapping[str, int]
    """Pictures that count, by the items' groups."""
    served: Sequence[str] = ()
    """Models that the endpoint says it answered with."""
    warnings: Sequence[str] = ()

    @property
    def partial(self) -> bool:
        return not self.coverage.complete

    def metric(self, name: str) -> str:
        """The full name of a metric: which benchmark in which version, judged by whom, scored how."""
        return f"{self.benchmark}/{name}[{self.judge},{self.mode}{',partial' if self.partial else ''}]"


@dataclass(frozen=True)
class Scored:
    """records: one for every picture of a run, drawn or not. why: what is said of each, by item and sample."""

    records: list[Record]
    why: Mapping[tuple[str, int], str]


def score_run(run: Run, profile: JudgeProfile, mode: Mode) -> Scored:
    """Records of a run's pictures from the judge's kept replies; nothing is asked."""
    cache = run.cache()
    try:
        records, why = [], {}
        for item in run.items:
            for sample in range(run.samples):
                found = answers(run, item, sample, profile, mode, cache)
                status = worst(found)
                units: Sequence[Unit] = ()
                if mode == "official" or status in JUDGED:
                    units = run.benchmark.score(item, found, mode)
                records.append(Record(item.id, sample, item.group, status, tuple(units)))
                why[item.id, sample] = run.benchmark.explain(item, found)[:MOST_WORDS]
        return Scored(records, why)
    finally:
        cache.close()


def coverage_of(benchmark: Benchmark, records: Sequence[Record], mode: Mode) -> Coverage:
    """How much of the benchmark the records are."""
    drawn = [record for record in records if record.status != Status.NO_PICTURE]
    statuses = Counter(record.status.value for record in records)
    judged = [r for r in drawn if r.units and (mode == "official" or r.status in JUDGED)]
    return Coverage(
        expected=sum(benchmark.counts.values()) * benchmark.samples,
        chosen=len(records),
        drawn=len(drawn),
        counted=len(judged),
        statuses={status.value: statuses[status.value] for status in Status if statuses[status.value]},
    )


def summarise(
    run: Run,
    records: Sequence[Record],
    profile: JudgeProfile,
    mode: Mode,
    allow_partial: bool,
    resamples: int = RESAMPLES,
) -> Results:
    """The results of a run's records. Raises DataError where not one picture counts."""
    benchmark = run.benchmark
    counted = [record for record in records if record.units]
    if not counted:
        statuses = Counter(record.status.value for record in records)
        told = ", ".join(f"{status} {count}" for status, count in statuses.items())
        raise DataError(f"{run.folder}: no picture has a verdict by {profile.name} ({told})")
    intervals = bootstrap(counted, lambda some: benchmark.aggregate(some, mode), resamples)
    coverage = coverage_of(benchmark, records, mode)
    groups: dict[str, dict[str, Interval]] = {}
    for (group, metric), interval in intervals.items():
        if group:
            groups.setdefault(group, {})[metric] = interval
    overall = {metric: interval for (group, metric), interval in intervals.items() if not group}
    return Results(
        benchmark=benchmark.name,
        judge=profile.name,
        mode=mode,
        parser_version=benchmark.parser_version,
        primary=benchmark.primary,
        run=read_run(run.folder),
        profile=json.loads(json.dumps(asdict(profile))),
        coverage=coverage,
        overall=overall if coverage.complete or allow_partial else None,
        groups=groups,
        sizes=dict(Counter(record.group for record in counted)),
        served=served_models(run, profile),
        warnings=list(run.warnings),
    )


def served_models(run: Run, profile: JudgeProfile) -> list[str]:
    """What the endpoint called the models behind a judge's replies; a local scorer is known already."""
    if profile.kind != "openai":
        return []
    cache = run.cache()
    try:
        return cache.models(profile.name)
    finally:
        cache.close()


def score_folder(folder: Path, judge: str, mode: Mode) -> Path:
    """Where a run keeps the scores of one judge in one mode."""
    return folder / "scores" / f"{file_name(judge)}.{mode}"


def write_scores(folder: Path, scored: Scored, results: Results) -> Path:
    """`records.jsonl` and `results.json`; returns their folder."""
    target = score_folder(folder, results.judge, results.mode)
    write_jsonl(target / RECORDS_FILE, (_record_row(record, scored.why) for record in scored.records))
    write_json(target / RESULTS_FILE, _plain(asdict(results)))
    return target


def _record_row(record: Record, why: Mapping[tuple[str, int], str]) -> dict[str, Any]:
    units = [[unit.metric, unit.value, unit.key] for unit in record.units]
    return asdict(record) | {"units": units, "why": why.get((record.item, record.sample), "")}


def _plain(value: Any) -> Any:
    """JSON has no NaN: what is not known is null."""
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_scores(folder: Path, judge: str, mode: Mode) -> tuple[Scored, Results]:
    """What `write_scores` wrote. Raises DataError where the run was not scored so."""
    target = score_folder(folder, judge, mode)
    if not (target / RESULTS_FILE).is_file():
        known = ", ".join(f"{j} {m}" for j, m in scored(folder)) or "none"
        raise DataError(
            f"{folder} has no {mode} scores by {judge!r} (there are: {known}); run `deepgen bench score`"
        )
    rows = read_jsonl(target / RECORDS_FILE)
    scored_run = Scored(
        [_read_record(row) for row in rows], {(row["item"], row["sample"]): row["why"] for row in rows}
    )
    data = read_json(target / RESULTS_FILE)
    data["coverage"] = Coverage(**data["coverage"])
    data["groups"] = {group: _intervals(of) for group, of in data["groups"].items()}
    data["overall"] = None if data["overall"] is None else _intervals(data["overall"])
    return scored_run, Results(**data)


def _read_record(row: dict[str, Any]) -> Record:
    units = tuple(Unit(metric, value, key) for metric, value, key in row["units"])
    return Record(row["item"], row["sample"], row["group"], Status(row["status"]), units)


def _intervals(of: Mapping[str, Mapping[str, float | None]]) -> dict[str, Interval]:
    return {
        metric: Interval(**{name: math.nan if value is None else value for name, value in interval.items()})
        for metric, interval in of.items()
    }


def scored(folder: Path) -> list[tuple[str, Mode]]:
    """(judge, mode) of the scores that a run's folder has."""
    found = [read_json(path) for path in sorted((folder / "scores").glob(f"*/{RESULTS_FILE}"))]
    return [(row["judge"], row["mode"]) for row in found]


def goodness(record: Record, scales: Mapping[str, tuple[float, float]]) -> float | None:
    """A picture's own score, 0 worst to 1 best: the mean of its units of the metric that comes first; None where it
    does not count."""
    if not record.units:
        return None
    metric = record.units[0].metric
    low, high = scales.get(metric, (0.0, 1.0))
    values = [unit.value for unit in record.units if unit.metric == metric]
    return (sum(values) / len(values) - low) / (high - low)
