"""What RISEBench and the benchmarks made after its pattern share.

A judge rates an edit by up to three criteria, 1 to 5 each, and ends each reply with "Final Score: N". Reported are
percentages 25·(mean − 1) of each criterion and of their weighted sum, and the share of edits with full marks.
"""

import csv
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepgen.errors import DataError
from deepgen.evaluation.benchmark import (
    Check,
    Item,
    JudgeCall,
    JudgeImage,
    JudgeProfile,
    ParseError,
    Unit,
    check,
)
from deepgen.evaluation.sources import module_constants, text_sha256, warn_of_changes
from deepgen.scorers.calls import ImageEncoding

# The order of the questions, and of the criteria in a triple.
CRITERIA = ("consistency", "reasoning", "quality")
LINE = "-"
"""What the published table calls the column of its lines' names."""
COLUMNS = ("Score-Origin", "Score-Percentage", "Accuracy")
# The first release of RISEBench called two criteria otherwise.
OLD_NAMES = {"ImageConsistency": "ApprConsistency", "GenearationQuality": "VisualPlausibility"}
SCALES = dict.fromkeys(("accuracy", "score", *CRITERIA), (0.0, 100.0))
JUDGE = JudgeProfile(
    name="gpt-4.1-2025-04-14",
    model="gpt-4.1-2025-04-14",
    order="text-first",
    image=ImageEncoding("jpeg", quality=75, max_side=768, detail="high"),
    temperature=0.0,
    max_tokens=(4096,),
)

Triple = tuple[float | None, float | None, float | None]
"""Consistency, reasoning and quality, 1 to 5; None where there is none."""


def official_numbers(reply: str) -> list[int] | None:
    """The numbers that the published parser finds: those right behind the first "Final Score" that has any, else
    behind the first "Final Scores". None where neither is there, [] where the plural has no numbers."""
    for word in ("Final Score", "Final Scores"):
        runs = re.findall(rf"\*?\*?{word}\*?\*?:?\s*([\d*\s,\n]*)", reply, re.IGNORECASE)
        for run in runs:
            numbers = [int(digits) for digits in re.findall(r"\d+", run)]
            if numbers:
                return numbers
    return [] if runs else None


def final_number(reply: str, allowed: Sequence[int]) -> int:
    """The number of the last "Final Score" that is not a quoted range such as 1-5, or of a closing "score: N".

    Raises ParseError where there is none, more than one, or one that the scale lacks.
    """
    found = re.findall(
        r"final\s+scores?\W*?(?:is|of)?\W*?(-?\d+(?:\.\d+)?)(?!\s*[-–]\s*\d)(?=([\s,*]*\d)?)",
        reply,
        re.IGNORECASE,
    ) or re.findall(r"\bscore\W*(?:is|of)?\W*?(-?\d+(?:\.\d+)?)()\W*\Z", reply, re.IGNORECASE)
    if not found:
        raise ParseError("the reply has no final score")
    text, more = found[-1]
    if more:
        raise ParseError("the reply has several final scores at once")
    if float(text) not in allowed:
        raise ParseError(f"the final score {text} is not one of {', '.join(map(str, allowed))}")
    return int(float(text))


def units_of(triple: Triple, score: float, solved: bool, key: str = "") -> tuple[Unit, ...]:
    """What one edit adds to the numbers, in percent; NaN and None add nothing. Accuracy comes first, then score."""
    values = {"score": score} | dict(zip(CRITERIA, triple, strict=True))
    units = [Unit("accuracy", 100.0 * solved, key)]
    units += [
        Unit(metric, 25 * (value - 1), key)
        for metric, value in values.items()
        if value is not None and not math.isnan(value)
    ]
    return tuple(units)


def read_templates(path: Path, known: Mapping[str, str]) -> dict[str, str]:
    """The judge's prompts in a clone's file, which is not run. known: name → sha256 of the published text.

    Raises DataError for one that is missing; warns of one that is not as published.
    """
    constants = module_constants(path)
    missing = [name for name in known if not isinstance(constants.get(name), str)]
    if missing:
        raise DataError(f"{path}: no text {', '.join(missing)}")
    warn_of_changes(path, constants, known)
    return {name: constants[name] for name in known}


def fill_template(template: str, where: str, **values: str) -> str:
    """The template with its {fields} replaced. Raises DataError that names `where` for one that has other fields."""
    try:
        return template.format(**values)
    except (KeyError, IndexError, ValueError) as error:
        raise DataError(f"{where}: cannot be filled ({error!r})") from error


def given(row: Mapping[str, Any], key: str) -> bool:
    """Whether a row has a value there; null and NaN are none, as in the published tables."""
    value = row.get(key)
    return value is not None and not (isinstance(value, float) and math.isnan(value))


def calls_of(item: Item, picture: Path) -> list[JudgeCall]:
    """The calls that an item's data lists under "asks": the criterion, the text, the pictures before the output."""
    return [
        JudgeCall(ask["id"], ask["text"], tuple(JudgeImage(Path(p)) for p in (*ask["before"], picture)))
        for ask in item.data["asks"]
    ]


def require_pictures(items: Sequence[Item], hint: str) -> None:
    """Raises DataError, with the hint, for the first source or reference that is not there."""
    for item in items:
        for path in (*item.sources, *item.references):
            if not path.is_file():
                raise DataError(f"{path}: missing; {hint}")


def table_row(values: Mapping[str, float], metric: str) -> dict[str, float]:
    """A line of the published result table; NaN where it leaves a cell empty."""
    percentage = values.get(metric, math.nan)
    accuracy = values.get("accuracy", math.nan) / 100 if metric == "score" else math.nan
    return dict(zip(COLUMNS, (percentage / 25 + 1, percentage, accuracy), strict=True))


def result_tables(document: Any, where: str = "") -> Iterator[tuple[str, dict[str, dict[str, float]]]]:
    """Every published result table in a golden file: (the keys above it, line → column → number)."""
    table = _as_table(document)
    if table is not None:
        yield where, table
    elif isinstance(document, Mapping | list):
        entries = document.items() if isinstance(document, Mapping) else enumerate(document)
        for key, value in entries:
            yield from result_tables(value, f"{where}/{key}")


def _as_table(document: Any) -> dict[str, dict[str, float]] | None:
    """A table by lines, by columns, as rows or as the text of a CSV file; None for anything else."""
    if isinstance(document, str) and document.startswith(f"{LINE},"):
        return _as_table(list(csv.DictReader(document.splitlines())))
    if isinstance(document, Mapping) and document.keys() >= set(COLUMNS):
        columns = [_entries(document[name]) for name in COLUMNS]
        names = _entries(document[LINE]) if LINE in document else {key: key for key in columns[0]}
        return {str(name): _cells([column[key] for column in columns]) for key, name in names.items()}
    if isinstance(document, Mapping) and isinstance(document.get("Overall"), Mapping | list):
        return {str(label): _cells(row) for label, row in document.items()}
    rows = document if isinstance(document, list) else []
    if rows and all(isinstance(row, Mapping) and LINE in row for row in rows):
        return {str(row[LINE]): _cells(row) for row in rows}
    if rows and rows[0] == [LINE, *COLUMNS]:
        return {str(label): _cells(cells) for label, *cells in rows[1:]}
    return None


def _entries(column: Mapping[str, Any] | Sequence[Any]) -> Mapping[Any, Any]:
    return column if isinstance(column, Mapping) else dict(enumerate(column))


def check_table(name: str, expected: Mapping[str, Any], got: Mapping[str, Any]) -> Check:
    """All lines at once; those that we have besides do not matter, those that we lack do."""
    renamed = {}
    for label, row in expected.items():
        for before, now in OLD_NAMES.items():
            label = label.replace(before, now)
        renamed[label] = row
    return check(name, renamed, {label: got[label] for label in renamed if label in got})


def _cells(row: Any) -> dict[str, float]:
    values = [row.get(column) for column in COLUMNS] if isinstance(row, Mapping) else list(row)
    numbers = [math.nan if value is None or value == "" else float(value) for value in values]
    return dict(zip(COLUMNS, numbers, strict=False))


def check_prompt_hashes(
    name: str, expected: Mapping[str, str], clone: Path | None, known: Mapping[str, str]
) -> Check:
    """The prompts' hashes: of the texts in `clone` where that file is there, else the ones we hold clones to."""
    texts = module_constants(clone) if clone is not None else {}
    ours = {
        key: text_sha256(texts[key]) if isinstance(texts.get(key), str) else known.get(key)
        for key in expected
    }
    source = "the prompts beside it" if clone is not None else "the hashes that clones are held to"
    return check(f"{name}: {source}", dict(expected), ours)


@dataclass(frozen=True)
class Question:
    """What is asked about an item: the criterion, the template, the pictures in front of the output, the text."""

    criterion: str
    template: str
    before: tuple[str, ...]
    text: str


def check_questions(
    entry: Mapping[str, Any],
    questions: Sequence[Question],
    output: str,
    texts: Mapping[str, str],
    known: Mapping[str, str],
) -> Check:
    """Templates, pictures and texts of one item. texts: the templates at hand; without one, a text's hash is
    compared only where the template has no fields, so that `known` has it."""
    got, expected = [], []
    for question, theirs in zip(questions, entry["calls"], strict=False):
        hashed = text_sha256(question.text) if question.template in texts else known[question.template]
        got.append([question.template, [*question.before, output], hashed])
        comparable = question.template in texts or theirs["text_sha256"] == known.get(theirs["template"])
        # The first part of a path is the fixture's own root.
        images = [path.partition("/")[2] for path in theirs["images"]]
        expected.append([theirs["template"], images, theirs["text_sha256"] if comparable else hashed])
    asked = [question.criterion for question in questions]
    judges = {f"judge{1 + CRITERIA.index(criterion)}" for criterion in asked}
    wanted = {key for key, value in entry.get("result_keys", dict.fromkeys(judges, True)).items() if value}
    label = f"{entry['item'].get('index', entry['item'].get('name'))} {entry.get('variant', '')}"
    return check(
        label, [expected, len(entry["calls"]), sorted(wanted)], [got, len(questions), sorted(judges)]
    )
