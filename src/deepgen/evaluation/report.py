"""The results of a run for people: tables for a terminal and for Markdown, and sheets of pictures."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deepgen.evaluation.benchmark import Benchmark, Published, Record
from deepgen.evaluation.files import file_name, write_text
from deepgen.evaluation.judging import Run
from deepgen.evaluation.runner import find_picture
from deepgen.evaluation.scoring import Results, goodness, score_folder
from deepgen.evaluation.sheet import Panel, draw_sheet
from deepgen.evaluation.stats import Interval

TABLE_FILE = "results.md"
SHEET_PICTURES = 36
RANKED, UNRANKED = "published, made the same way", "published, made otherwise: not to be ranked"
NOT_REPRODUCED = "not reproduced here: no weights"

Rows = list[tuple[str, ...]]


def number(value: float) -> str:
    """As many digits as tell numbers apart on any of the benchmarks' scales."""
    if math.isnan(value):
        return "?"
    return f"{value:.1f}" if abs(value) >= 20 else f"{value:.3f}"


def interval_text(interval: Interval) -> str:
    """`0.731 [0.712, 0.749]`"""
    return f"{number(interval.value)} [{number(interval.low)}, {number(interval.high)}]"


def group_rows(results: Results) -> Rows:
    """A header and a row for each group, with every metric's value and 95% interval."""
    metrics = list(dict.fromkeys(metric for of in results.groups.values() for metric in of))
    rows: Rows = [("group", "pictures", *metrics)]
    for group, of in results.groups.items():
        cells = (interval_text(of[metric]) if metric in of else "" for metric in metrics)
        rows.append((group, str(results.sizes.get(group, "")), *cells))
    rows += [(group, "0", "not trained yet") for group in results.run.get("untrained", ())]
    return rows


def overall_rows(results: Results) -> Rows:
    """A header and a row for each overall number; the headline first. Nothing where coverage forbids them."""
    if results.overall is None:
        return []
    rows: Rows = [("metric", "value", "95% interval", "detectable difference")]
    for metric in sorted(results.overall, key=lambda name: name != results.primary):
        interval = results.overall[metric]
        span = f"{number(interval.low)} – {number(interval.high)}"
        rows.append((results.metric(metric), number(interval.value), span, number(interval.detectable)))
    return rows


def comparable(row: Published, results: Results) -> bool:
    """Whether a published row was made as ours: same judge (so named by its source), and same resolution. The
    benchmark's version is the same because rows belong to a benchmark in a version."""
    return (
        row.judge is not None
        and row.judge == results.judge
        and row.resolution is not None
        and row.resolution == results.run.get("resolution")
        and not results.partial
    )


def published_rows(benchmark: Benchmark, results: Results) -> tuple[Rows, Rows]:
    """Rows of others: those that rank with ours, and those that were made otherwise."""
    columns = list(dict.fromkeys(key for row in benchmark.published for key in row.values))
    header = ("model", *columns, "judge", "resolution", "source")
    same: Rows = [header]
    other: Rows = [header]
    for row in benchmark.published:
        values = (number(row.values[key]) if key in row.values else "" for key in columns)
        resolution = "not stated" if row.resolution is None else str(row.resolution)
        cells = (row.model, *values, row.judge or "not stated", resolution, row.source)
        (same if comparable(row, results) else other).append(cells)
    if benchmark.reproduced is None and any("DeepGen" in row.model for row in benchmark.published):
        blanks = ("",) * (len(columns) - 1)
        other.append(("DeepGen's weights, by this program", NOT_REPRODUCED, *blanks, "", "", ""))
    if results.overall is not None and len(same) > 1:
        ours = (number(results.overall[key].value) if key in results.overall else "" for key in columns)
        same.insert(
            1, (_model(results), *ours, results.judge, str(results.run.get("resolution")), "this run")
        )
    return [] if len(same) == 1 else same, [] if len(other) == 1 else other


def _model(results: Results) -> str:
    return str(results.run.get("model", "this run"))


def heading(results: Results) -> list[str]:
    """What the numbers are of: benchmark, judge, mode, model, coverage."""
    run = results.run
    pictures = f"{run.get('samples')} pictures an item, resolution {run.get('resolution', 'unknown')}"
    lines = [
        f"{results.benchmark}, judge {results.judge}, {results.mode} scoring (parser {results.parser_version})",
        f"model {_model(results)} ({run.get('weights', 'weights unknown')}), {pictures}",
        results.coverage.words(),
    ]
    if results.served:
        lines.append(f"answered by {', '.join(results.served)}")
    if results.overall is None:
        lines.append("no overall number without full coverage; --allow-partial shows it, marked so")
    return [*lines, *(f"warning: {warning}" for warning in results.warnings)]


def text_report(benchmark: Benchmark, results: Results) -> str:
    """For a terminal."""
    same, other = published_rows(benchmark, results)
    parts = [
        "\n".join(heading(results)),
        plain_table(overall_rows(results)),
        plain_table(group_rows(results)),
    ]
    parts += [_titled(RANKED, same), _titled(UNRANKED, other)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _titled(title: str, rows: Rows) -> str:
    return f"{title}\n{plain_table(rows)}" if rows else ""


def markdown_report(benchmark: Benchmark, results: Results) -> str:
    """For a repository or an issue."""
    same, other = published_rows(benchmark, results)
    parts = [f"# {benchmark.name}", "\n".join(f"- {line}" for line in heading(results))]
    parts += [markdown_table(overall_rows(results)), markdown_table(group_rows(results))]
    if same:
        parts += [f"## {RANKED.capitalize()}", markdown_table(same)]
    if other:
        parts += [f"## {UNRANKED.capitalize()}", markdown_table(other)]
    if benchmark.notes:
        parts += ["## Notes", "\n".join(f"- {note}" for note in benchmark.notes)]
    return "\n\n".join(part for part in parts if part) + "\n"


def plain_table(rows: Rows) -> str:
    """Columns aligned by spaces; "" for no rows."""
    return "\n".join("  ".join(cells).rstrip() for cells in _aligned(rows))


def markdown_table(rows: Rows) -> str:
    """ "" for no rows."""
    if not rows:
        return ""
    clean = [tuple(cell.replace("|", "\\|") for cell in row) for row in rows]
    lines = ["| " + " | ".join(cells) + " |" for cells in _aligned(clean)]
    rule = "|" + "|".join("-" * (len(cell) + 2) for cell in _aligned(clean)[0]) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def _aligned(rows: Rows) -> list[list[str]]:
    if not rows:
        return []
    width = max(map(len, rows))
    full = [[*row, *[""] * (width - len(row))] for row in rows]
    widths = [max(len(row[column]) for row in full) for column in range(width)]
    return [[cell.ljust(w) for cell, w in zip(row, widths, strict=True)] for row in full]


@dataclass(frozen=True)
class Shown:
    """A picture as reports show it. goodness: 0 worst to 1 best, None where it does not count."""

    record: Record
    prompt: str
    pictures: Mapping[str, Path]
    goodness: float | None


def shown_pictures(run: Run, records: Sequence[Record]) -> list[Shown]:
    """Every record whose picture is there, with the files to look at: sources, output, references."""
    items = {item.id: item for item in run.items}
    found = []
    for record in records:
        item = items.get(record.item)
        output = None if item is None else find_picture(run.folder, item, record.sample)
        if item is None or output is None:
            continue
        several = len(item.sources) > 1
        files = {f"source {n + 1}" if several else "source": path for n, path in enumerate(item.sources)}
        files["output"] = output
        files |= {f"reference {n + 1}" if n else "reference": path for n, path in enumerate(item.references)}
        score = goodness(record, run.benchmark.scales)
        found.append(Shown(record, item.prompt, {k: f for k, f in files.items() if f.is_file()}, score))
    return found


def write_reports(
    run: Run, results: Results, shown: Sequence[Shown], words: Mapping[tuple[str, int], str]
) -> None:
    """`results.md`, `sheets/GROUP.png`, the first picture of each of a group's first items, and `overview.png`, the
    first of each group; words: of the judge, by item and sample."""
    folder = score_folder(run.folder, results.judge, results.mode)
    write_text(folder / TABLE_FILE, markdown_report(run.benchmark, results))
    panels: dict[str, list[Panel]] = {}
    for one in shown:
        of_group = panels.setdefault(one.record.group, [])
        if one.record.sample == 0 and len(of_group) < SHEET_PICTURES:
            right = one.goodness is not None and one.goodness >= 1 - 1e-9
            said = words.get((one.record.item, one.record.sample), "")
            of_group.append(Panel(tuple(one.pictures.values()), one.prompt, right, (said[:120],)))
    (folder / "sheets").mkdir(parents=True, exist_ok=True)
    for group, some in panels.items():
        draw_sheet(some, folder / "sheets" / f"{file_name(group)}.png")
    if panels:
        draw_sheet([some[0] for some in panels.values()], folder / "overview.png")
