"""Comparing with files of official outputs (`golden_*`) whose layout is known only roughly.

Official scorers write their numbers under keys of many spellings. Here every number of ours carries labels, such as
{"language": "en", "metric": "quality"}; a number in a golden file gets its labels from the keys on the way to it, and
the two with equal labels are compared. A number that finds no partner is an infinite difference: never passed over.
"""

import csv
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deepgen.evaluation.benchmark import Check, check
from deepgen.evaluation.sources import read_json, read_text

Labels = Mapping[str, str]

TEXT_KEYS = ("text", "reply", "answer", "input", "input_string", "raw", "output_text")


def golden_files(folder: Path) -> list[Path]:
    """The files to be recomputed, in the order of their names."""
    return sorted(path for path in folder.glob("golden_*") if path.is_file())


def beside(folder: Path, *patterns: str) -> Path | None:
    """The first file in `folder` that one of `patterns` names, or None."""
    return next((path for pattern in patterns for path in sorted(folder.glob(pattern))), None)


def worst_of(name: str, checks: Sequence[Check]) -> Check:
    """One check for a whole file: the largest difference, with the name and values of the place where it is."""
    if not checks:
        return Check(f"{name}: nothing to compare", "something to compare with", None, math.inf)
    worst = max(checks, key=lambda done: done.diff)
    told = worst.name if worst.diff > 1e-9 or len(checks) == 1 else f"{len(checks)} values"
    label = f"{name}: {told}" if told else name
    return Check(label, worst.expected, worst.got, worst.diff)


def read_golden(path: Path) -> Any:
    """JSON as it is; a CSV as {first cell: {column: number, text or None}}; anything else as text."""
    if path.suffix == ".json":
        return read_json(path)
    if path.suffix != ".csv":
        return read_text(path)
    header, *rows = csv.reader(read_text(path).splitlines())
    return {row[0]: dict(zip(header[1:], map(_cell, row[1:]), strict=True)) for row in rows if row}


def text_cases(document: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every (text of a reply, the rest of its object) in a golden file of parser cases, at any depth."""
    if isinstance(document, list):
        for entry in document:
            yield from text_cases(entry)
    elif isinstance(document, Mapping):
        key = next((key for key in TEXT_KEYS if isinstance(document.get(key), str)), None)
        if key is not None:
            yield document[key], {other: value for other, value in document.items() if other != key}
        else:
            for value in document.values():
                yield from text_cases(value)


@dataclass(frozen=True)
class Vocabulary:
    """How the keys of a golden file are read.

    patterns: dimension → label → regular expression, searched in a key regardless of case; deeper keys win.
    defaults: the label of a dimension that no key names. columns: (dimension, labels) that the places of a list of
    numbers stand for. identifiers: keys whose values are read like keys, such as {"area": 2}. skipped: keys that are
    left out of the comparison, a regular expression.
    """

    patterns: Mapping[str, Mapping[str, str]]
    defaults: Labels = field(default_factory=dict)
    columns: tuple[str, Sequence[str]] = ("", ())
    identifiers: Sequence[str] = ()
    skipped: str = r"(?!)"

    def read(self, key: str) -> dict[str, str]:
        """The labels that a key gives."""
        return {
            dimension: label
            for dimension, of in self.patterns.items()
            for label, pattern in of.items()
            if re.search(pattern, key, re.IGNORECASE)
        }


def compare_labelled(
    name: str, document: Any, facts: Sequence[tuple[Labels, Any]], words: Vocabulary
) -> list[Check]:
    """One check for each number, and each list of numbers, in `document`: against the fact with the same labels."""
    table = {_key(words.defaults, labels): value for labels, value in facts}
    checks = []
    for where, labels, expected in _leaves(document, {}, "", words):
        got = table.get(_key(words.defaults, labels))
        if isinstance(expected, str) and got is not None:
            # A printed number: ours is printed with as many decimals.
            decimals = len(expected.partition(".")[2])
            checks.append(check(f"{name}{where}", float(expected), float(f"{got:.{decimals}f}")))
        else:
            expected = math.nan if expected is None else expected
            checks.append(check(f"{name}{where}", expected, got))
    return checks


def _key(defaults: Labels, labels: Labels) -> tuple[tuple[str, str], ...]:
    return tuple(sorted({**defaults, **labels}.items()))


def _leaves(node: Any, labels: Labels, where: str, words: Vocabulary) -> Iterator[tuple[str, Labels, Any]]:
    if isinstance(node, Mapping):
        named = [key for key in words.identifiers if isinstance(node.get(key), str | int)]
        for key in named:
            labels = {**labels, **words.read(str(node[key]))}
        for key, value in node.items():
            if key not in named and not re.search(words.skipped, str(key), re.IGNORECASE):
                yield from _leaves(value, {**labels, **words.read(str(key))}, f"{where}/{key}", words)
    elif isinstance(node, list):
        dimension, places = words.columns
        if places and len(node) == len(places) and all(_is_value(entry) for entry in node):
            for label, value in zip(places, node, strict=True):
                yield f"{where}/{label}", {**labels, dimension: label}, value
        elif node and all(_is_value(entry) for entry in node):
            yield where, labels, node
        else:
            for number, entry in enumerate(node):
                yield from _leaves(entry, labels, f"{where}/{number}", words)
    elif _is_value(node):
        yield where, labels, node


def _is_value(node: Any) -> bool:
    if isinstance(node, str):
        return re.fullmatch(r"-?\d+\.\d+|nan", node) is not None
    return node is None or (isinstance(node, int | float) and not isinstance(node, bool))


def _cell(text: str) -> Any:
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        return text
