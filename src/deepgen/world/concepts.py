"""The objects of the picture world and what is true of them, read from concepts.yaml and facts.yaml."""

import hashlib
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import yaml

from deepgen.errors import DataError
from deepgen.world.colours import COLOURS

UNSEEN_SHARE = 0.2
"""The share of (concept, predicate) pairs kept out of picture and edit training."""
_FIRST = 210
"""So many concepts the world had at first: models go on from those days, so the pairs unseen then stay the unseen."""


@dataclass(frozen=True)
class Concept:
    """One kind of object.

    code: its drawing's code points (lower-case hex, joined by "-", without fe0f). colours: the names it may
    be asked for in; natural: the one that the unchanged drawing has, or None if people would not agree.
    """

    name: str
    plural: str
    code: str
    group: str
    synonyms: tuple[str, ...] = ()
    colours: tuple[str, ...] = ()
    natural: str | None = None


@dataclass(frozen=True)
class Predicate:
    """Something that can be said of a concept. text: "can fly"; question: "Which can fly".

    true and skip are names of concepts; those in skip are disputable and never asked about; all others are
    false.
    """

    id: str
    text: str
    question: str
    true: frozenset[str]
    skip: frozenset[str] = field(default_factory=frozenset)


def parse_concepts(rows: list[dict[str, Any]]) -> dict[str, Concept]:
    """Concepts by name; raises DataError for unknown keys or colours, and for a word or code used twice."""
    found: dict[str, Concept] = {}
    owner: dict[str, str] = {}
    for row in rows:
        try:
            concept = Concept(**{**row, **{key: tuple(row.get(key, ())) for key in ("synonyms", "colours")}})
        except TypeError as error:
            raise DataError(f"concepts.yaml: bad entry {row.get('name', row)!r}: {error}") from error
        words = {concept.name, concept.plural, *concept.synonyms}
        for word in (*sorted(words), f"code {concept.code}"):
            if word != word.lower() or word != word.strip():
                raise DataError(f"concepts.yaml: {concept.name}: {word!r} must be lower case")
            if word in owner:
                raise DataError(
                    f"concepts.yaml: {word!r} belongs to both {owner[word]!r} and {concept.name!r}"
                )
            owner[word] = concept.name
        unknown = set(concept.colours) - set(COLOURS)
        if unknown:
            raise DataError(f"concepts.yaml: {concept.name}: unknown colours {sorted(unknown)}")
        if concept.natural is not None and concept.natural not in concept.colours:
            raise DataError(
                f"concepts.yaml: {concept.name}: natural {concept.natural!r} is not in its colours"
            )
        found[concept.name] = concept
    return found


def parse_predicates(rows: list[dict[str, Any]], concepts: dict[str, Concept]) -> dict[str, Predicate]:
    """Predicates by id; raises DataError for unknown keys or concepts, and ids or truths given twice."""
    found: dict[str, Predicate] = {}
    for row in rows:
        for key in ("true", "skip"):
            names = row.get(key, [])
            if len(set(names)) != len(names):
                raise DataError(f"facts.yaml: {row.get('id')}: a name is twice in {key!r}")
            unknown = sorted(set(names) - set(concepts))
            if unknown:
                raise DataError(f"facts.yaml: {row.get('id')}: {key!r} names unknown concepts {unknown}")
        try:
            predicate = Predicate(**{**row, **{key: frozenset(row.get(key, ())) for key in ("true", "skip")}})
        except TypeError as error:
            raise DataError(f"facts.yaml: bad entry {row.get('id', row)!r}: {error}") from error
        if predicate.id in found:
            raise DataError(f"facts.yaml: the id {predicate.id!r} is given twice")
        if predicate.true & predicate.skip:
            both = sorted(predicate.true & predicate.skip)
            raise DataError(f"facts.yaml: {predicate.id}: {both} are both true and skipped")
        found[predicate.id] = predicate
    return found


def _rows(name: str) -> Any:
    text = resources.files("deepgen.world").joinpath(name).read_text(encoding="utf-8")
    # Every scalar in these files is a word: the base loader keeps YAML from reading `true` as a boolean.
    return yaml.load(text, Loader=yaml.BaseLoader)


CONCEPTS: dict[str, Concept] = parse_concepts(_rows("concepts.yaml"))
PREDICATES: dict[str, Predicate] = parse_predicates(_rows("facts.yaml")["predicates"], CONCEPTS)


def holds(concept: str, predicate: str) -> bool | None:
    """Whether a predicate (by id) is true of a concept (by name); None where people would dispute it."""
    fact = PREDICATES[predicate]
    if CONCEPTS[concept].name in fact.skip:
        return None
    return concept in fact.true


def is_unseen(concept: str, predicate: str) -> bool:
    """Whether the predicate never occurs with this concept in picture or edit training.

    So it is for a fifth of the true and a fifth of the false concepts of each predicate, chosen by hash (at
    least one of each), the first concepts apart from the later ones; never for disputable ones.
    """
    return (CONCEPTS[concept].name, PREDICATES[predicate].id) in _UNSEEN


def _rank(name: str, predicate: str) -> bytes:
    return hashlib.sha256(f"unseen/{predicate}/{name}".encode()).digest()


def _unseen() -> frozenset[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for predicate in PREDICATES:
        for truth in (True, False):
            first, later = (
                sorted((n for n in part if holds(n, predicate) is truth), key=lambda n: _rank(n, predicate))
                for part in (list(CONCEPTS)[:_FIRST], list(CONCEPTS)[_FIRST:])
            )
            old, all_ = (max(1, round(UNSEEN_SHARE * count)) for count in (len(first), len(first + later)))
            pairs += [(name, predicate) for name in (*first[:old], *later[: all_ - old])]
    return frozenset(pairs)


_UNSEEN = _unseen()
