"""Two runs of one benchmark against each other, item by item."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

from deepgen.errors import InputError
from deepgen.evaluation.benchmark import Benchmark, Record
from deepgen.evaluation.files import write_json, write_text
from deepgen.evaluation.page import card, chooser, page, pictures, table, words
from deepgen.evaluation.report import Rows, Shown, number, plain_table
from deepgen.evaluation.scoring import Results, Scored
from deepgen.evaluation.stats import RESAMPLES, Difference, Key, McNemar, mcnemar, paired_bootstrap

CASES = 60


@dataclass(frozen=True)
class Side:
    """One of the two runs, scored."""

    results: Results
    scored: Scored
    shown: Sequence[Shown]

    @property
    def name(self) -> str:
        return str(self.results.run.get("model", "?"))


@dataclass(frozen=True)
class Comparison:
    """B less A. binary: McNemar's test where every picture is right or wrong and each item has one; else None."""

    shared: int
    differences: Mapping[Key, Difference]
    binary: McNemar | None


def check_comparable(a: Results, b: Results) -> None:
    """Raises InputError where the numbers do not mean the same: another benchmark or version, judge, manner of
    asking, mode, parser or number of pictures."""
    kinds: dict[str, tuple[Any, Any]] = {
        "benchmark": (a.benchmark, b.benchmark),
        "judge": (a.judge, b.judge),
        "judge's settings": (a.profile, b.profile),
        "scoring": (a.mode, b.mode),
        "parser": (a.parser_version, b.parser_version),
        "data": (a.run.get("data_sha256"), b.run.get("data_sha256")),
        "pictures an item": (a.run.get("samples"), b.run.get("samples")),
    }
    for kind, (first, second) in kinds.items():
        if first != second:
            raise InputError(
                f"the runs differ in {kind} ({first} and {second}): their numbers do not compare"
            )


def compare(benchmark: Benchmark, a: Side, b: Side, resamples: int = RESAMPLES) -> Comparison:
    """Paired differences on the pictures that count in both runs. Raises InputError where they do not compare."""
    check_comparable(a.results, b.results)
    mode = a.results.mode
    both = {(r.item, r.sample) for r in a.scored.records if r.units} & {
        (r.item, r.sample) for r in b.scored.records if r.units
    }
    first = [record for record in a.scored.records if (record.item, record.sample) in both]
    second = [record for record in b.scored.records if (record.item, record.sample) in both]
    differences = paired_bootstrap(first, second, lambda some: benchmark.aggregate(some, mode), resamples)
    return Comparison(len({item for item, _ in both}), differences, _binary(benchmark, first, second))


def _binary(benchmark: Benchmark, a: Sequence[Record], b: Sequence[Record]) -> McNemar | None:
    """Several pictures of an item are no independent pairs, so only benchmarks of one picture are tested so."""
    if len({record.item for record in a}) < len(a):
        return None
    verdicts = [{record.item: _verdict(benchmark, record) for record in side} for side in (a, b)]
    pairs = [(verdicts[0][item], verdicts[1][item]) for item in verdicts[0]]
    known = [(x, y) for x, y in pairs if x is not None and y is not None]
    if len(known) < len(pairs):
        return None
    return mcnemar([x for x, _ in known], [y for _, y in known])


def _verdict(benchmark: Benchmark, record: Record) -> bool | None:
    """Right or wrong by the metric that comes first; None where it is anything between."""
    first = record.units[0].metric
    values = [unit.value for unit in record.units if unit.metric == first]
    low, high = benchmark.scales.get(first, (0.0, 1.0))
    return values[0] == high if len(values) == 1 and values[0] in (low, high) else None


def difference_rows(comparison: Comparison, primary: str) -> Rows:
    """A header and a row for each number, the headline first, then overall numbers, then groups."""
    rows: Rows = [("number", "A", "B", "B − A", "95% interval", "p", "detectable difference")]
    order = sorted(comparison.differences, key=lambda key: (key != ("", primary), key[0] != ""))
    for key in order:
        group, metric = key
        one = comparison.differences[key]
        span = f"{number(one.low)} – {number(one.high)}"
        name = f"{group} / {metric}" if group else metric
        values = (number(one.a), number(one.b), f"{'+' if one.value > 0 else ''}{number(one.value)}")
        rows.append((name, *values, span, f"{one.p:.3f}", number(one.detectable)))
    return rows


def headline(benchmark: Benchmark, a: Side, b: Side, comparison: Comparison) -> list[str]:
    """What is compared, and the test on right and wrong where there is one."""
    lines = [
        f"{benchmark.name}, judge {a.results.judge}, {a.results.mode} scoring: A {a.name}, B {b.name}",
        f"{comparison.shared} items that both have; A {a.results.coverage.words()}; B {b.results.coverage.words()}",
    ]
    if comparison.binary is not None:
        test = comparison.binary
        lines.append(
            f"only A right {test.only_a}, only B right {test.only_b}: McNemar's exact p = {test.p:.4f}"
        )
    return lines


def text_comparison(benchmark: Benchmark, a: Side, b: Side, comparison: Comparison) -> str:
    """For a terminal."""
    lines = headline(benchmark, a, b, comparison)
    return "\n".join(lines) + "\n\n" + plain_table(difference_rows(comparison, benchmark.primary)) + "\n"


def write_comparison(folder: Path, benchmark: Benchmark, a: Side, b: Side, comparison: Comparison) -> Path:
    """`comparison.json` and `comparison.html`, the pictures that changed most first."""
    rows = [
        {"group": group, "metric": metric, "detectable": one.detectable, "difference": one.value}
        | asdict(one)
        for (group, metric), one in comparison.differences.items()
    ]
    binary = None if comparison.binary is None else asdict(comparison.binary)
    write_json(
        folder / "comparison.json",
        {"a": a.name, "b": b.name, "items": comparison.shared, "mcnemar": binary, "numbers": rows},
    )
    parts = [f"<h1>{escape(benchmark.name)}: {escape(a.name)} and {escape(b.name)}</h1>"]
    parts += [f'<p class="note">{"<br>".join(escape(t) for t in headline(benchmark, a, b, comparison))}</p>']
    parts += [table(difference_rows(comparison, benchmark.primary)), "<h2>What changed most</h2>"]
    changed = _changed(a, b)[:CASES]
    parts += [chooser(list(dict.fromkeys(first.record.group for first, _, _ in changed)))]
    parts += [_case(first, second, change, (a, b), folder) for first, second, change in changed]
    path = folder / "comparison.html"
    write_text(path, page(f"{benchmark.name}: two runs", parts))
    return path


def _changed(a: Side, b: Side) -> list[tuple[Shown, Shown, float]]:
    """(picture of A, picture of B, change in goodness), the largest changes first; equal ones are left out."""
    second = {(one.record.item, one.record.sample): one for one in b.shown}
    found = []
    for one in a.shown:
        other = second.get((one.record.item, one.record.sample))
        if other is not None and one.goodness is not None and other.goodness is not None:
            found.append((one, other, other.goodness - one.goodness))
    return sorted((case for case in found if case[2]), key=lambda case: -abs(case[2]))


def _case(first: Shown, second: Shown, change: float, sides: tuple[Side, Side], folder: Path) -> str:
    record = first.record
    files = {name: path for name, path in first.pictures.items() if name != "output"}
    files |= {"A": first.pictures["output"], "B": second.pictures["output"]}
    place = (record.item, record.sample)
    body = f"<p>{escape(first.prompt)}</p>{pictures(files, folder)}"
    body += words("judge on A", sides[0].scored.why.get(place, "")) + words(
        "judge on B", sides[1].scored.why.get(place, "")
    )
    title = f"{change:+.2f} · {record.group} · {record.item} · {record.sample}"
    return card(record.group, (change + 1) / 2, title, body)
