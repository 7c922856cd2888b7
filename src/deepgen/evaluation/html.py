"""A run's report as one HTML page: bars with intervals, and a gallery of what went wrong."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from deepgen.evaluation.benchmark import Benchmark
from deepgen.evaluation.files import write_text
from deepgen.evaluation.page import bars, card, chooser, page, pictures, table, words
from deepgen.evaluation.report import (
    RANKED,
    UNRANKED,
    Shown,
    heading,
    number,
    overall_rows,
    published_rows,
)
from deepgen.evaluation.scoring import Results

PAGE_FILE = "report.html"
CASES = 60


def worst_first(shown: Sequence[Shown]) -> list[Shown]:
    """The pictures that count least good; what could not be judged comes last."""
    return sorted(shown, key=lambda one: (one.goodness is None, one.goodness or 0.0))


def fair_share(shown: Sequence[Shown], most: int) -> list[Shown]:
    """At most `most` of them, every group in its turn, so that no group fills the gallery."""
    queues: dict[str, list[Shown]] = {}
    for one in shown:
        queues.setdefault(one.record.group, []).append(one)
    taken: list[Shown] = []
    while len(taken) < most and any(queues.values()):
        for queue in queues.values():
            if queue and len(taken) < most:
                taken.append(queue.pop(0))
    return taken


def write_page(
    folder: Path,
    benchmark: Benchmark,
    results: Results,
    shown: Sequence[Shown],
    said: Mapping[tuple[str, int], str],
) -> Path:
    """`report.html` in `folder`; said: the judge's words by item and sample."""
    failures = [one for one in worst_first(shown) if one.goodness is None or one.goodness < 1 - 1e-9]
    cases = fair_share(failures, CASES)
    same, other = published_rows(benchmark, results)
    parts = [f"<h1>{escape(benchmark.name)}</h1>", f"<p>{escape(benchmark.title)}</p>"]
    parts += [f'<p class="note">{"<br>".join(escape(line) for line in heading(results))}</p>']
    if results.overall is not None:
        ordered = {
            name: results.overall[name]
            for name in sorted(results.overall, key=lambda n: n != results.primary)
        }
        parts += [
            "<h2>Overall</h2>",
            table(overall_rows(results)),
            bars({"all": ordered}, _overall_scales(benchmark)),
        ]
    parts += ["<h2>Groups, with 95% intervals</h2>", bars(results.groups, benchmark.scales)]
    for title, rows in ((RANKED, same), (UNRANKED, other)):
        if rows:
            parts += [f"<h2>{escape(title.capitalize())}</h2>", table(rows)]
    parts += [
        f"<h2>Failures</h2><p class='note'>{len(cases)} of {len(failures)}, the worst of each group first</p>"
    ]
    parts += [chooser(list(dict.fromkeys(one.record.group for one in cases)))]
    parts += [_case(one, folder, said.get((one.record.item, one.record.sample), "")) for one in cases]
    if benchmark.notes:
        parts += ["<h2>Notes</h2><ul>", *(f"<li>{escape(note)}</li>" for note in benchmark.notes), "</ul>"]
    write_text(folder / PAGE_FILE, page(results.metric(results.primary), parts))
    return folder / PAGE_FILE


def _overall_scales(benchmark: Benchmark) -> dict[str, tuple[float, float]]:
    """Scales by metric; an overall number without one of its own has that of the headline's unit."""
    scales = dict(benchmark.scales)
    return {
        name: scales.get(name, scales.get(benchmark.primary, (0.0, 1.0)))
        for name in [*scales, benchmark.primary]
    }


def _case(one: Shown, folder: Path, said: str) -> str:
    record = one.record
    units = ", ".join(
        f"{unit.metric}{f' ({unit.key.strip()})' if unit.key else ''} {number(unit.value)}"
        for unit in record.units
    )
    body = f"<p>{escape(one.prompt)}</p>{pictures(one.pictures, folder)}"
    body += f'<p class="note">{escape(units) or escape(f"not counted: {record.status}")}</p>'
    return card(
        record.group,
        one.goodness,
        f"{record.group} · {record.item} · {record.sample}",
        body + words("judge", said),
    )
