"""Are a benchmark's prompts in a file of training prompts, word for word or nearly so?"""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepgen.errors import DataError
from deepgen.evaluation.sources import read_text

NGRAM = 8
SHARE = 0.5
"""A prompt is taken to be known when at least this share of its word sequences of length NGRAM is in the file."""
TEXT_KEYS = (
    "prompt",
    "Prompt",
    "prompt_en",
    "prompt_zh",
    "text",
    "caption",
    "instruction",
    "rewritten_prompt",
)
_WORD = re.compile(r"[^\W_]+", re.UNICODE)
_CJK = re.compile(r"([\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af])")


@dataclass(frozen=True)
class Overlap:
    """How much of one benchmark a file holds. exact and near: ids of its items; near has no exact ones."""

    benchmark: str
    items: int
    exact: tuple[str, ...]
    near: tuple[str, ...]

    @property
    def clean(self) -> bool:
        return not self.exact and not self.near


def normalise(text: str) -> tuple[str, ...]:
    """The words of a text: case, punctuation, spaces and width are nothing; a CJK character is a word."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return tuple(_WORD.findall(_CJK.sub(r" \1 ", plain)))


def ngrams(words: Sequence[str], length: int = NGRAM) -> set[tuple[str, ...]]:
    """All runs of `length` words; a shorter text is one run of all its words."""
    if len(words) < length:
        return {tuple(words)} if words else set()
    return {tuple(words[i : i + length]) for i in range(len(words) - length + 1)}


def overlap(name: str, prompts: Mapping[str, str], known: Iterable[str]) -> Overlap:
    """Which of a benchmark's prompts (id → text) are among the texts `known`, which are gone through once.

    exact: the same words in the same order. near: at least SHARE of the prompt's runs of NGRAM words occur in one
    and the same text; prompts shorter than that can only be exact, for short templates resemble each other anyway.
    """
    words = {item: normalise(text) for item, text in prompts.items()}
    runs = {item: ngrams(own) for item, own in words.items() if len(own) >= NGRAM}
    whole: dict[tuple[str, ...], list[str]] = {}
    places: dict[tuple[str, ...], list[str]] = {}
    for item, own in words.items():
        whole.setdefault(own, []).append(item)
    for item, of in runs.items():
        for run in of:
            places.setdefault(run, []).append(item)
    exact: set[str] = set()
    near: set[str] = set()
    for text in known:
        found = normalise(text)
        exact.update(whole.get(found, ()))
        shared = Counter(item for run in ngrams(found) for item in places.get(run, ()))
        near.update(item for item, count in shared.items() if count >= SHARE * len(runs[item]))
    listed = [item for item in prompts if item in exact]
    return Overlap(
        name, len(prompts), tuple(listed), tuple(i for i in prompts if i in near and i not in exact)
    )


def read_prompts(path: Path) -> list[str]:
    """The texts of a file: every string under a key like "prompt" in .json and .jsonl, otherwise every line.

    Raises DataError where there is none.
    """
    text = read_text(path)
    lines = [line for line in text.split("\n") if line.strip()]
    if path.suffix not in (".json", ".jsonl"):
        found = lines
    else:
        try:
            rows = [json.loads(text)] if path.suffix == ".json" else [json.loads(line) for line in lines]
        except ValueError as error:
            raise DataError(f"{path}: not JSON ({error})") from error
        found = [one for row in rows for one in _texts(row)]
    if not found:
        raise DataError(f"{path}: no prompts in it; keys that are looked for: {', '.join(TEXT_KEYS)}")
    return found


def _texts(value: Any, named: bool = True) -> Iterator[str]:
    """Strings under a key of TEXT_KEYS, or under none at all."""
    if isinstance(value, str) and named:
        yield value
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one, named)
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from _texts(one, key in TEXT_KEYS)
