"""Which text a prompt asks for, and how much of it was read in a picture.

`published` is the matching of the published OCR service's newer version to the letter: straight quotes, A–Z a–z 0–9 in
their case, up to three neighbouring lines joined, and confusable letters folded. `unicode` differs in four ways: every
kind of quotation marks, letters and digits of every script (NFKC), words instead of lines with as many joined as the
text has, and lines in reading order.
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import Literal

from deepgen.world.judging import Reading

Matching = Literal["unicode", "published"]

_STRAIGHT = re.compile(r'"([^"]+)"')
_ANY_QUOTES = re.compile(
    r'"([^"]+)"|[“„]([^“”„]+)[“”]|«([^«»]+)»|「([^「」]+)」|『([^『』]+)』|《([^《》]+)》'
)
_NOT_ASCII = re.compile(r"[^A-Za-z0-9]")
_FOLD = str.maketrans({"0": "o", "1": "l", "i": "l", "j": "l", "5": "s", "v": "w"})
"""Letters that readers take for each other."""
JOINED = 3


def quoted_texts(prompt: str, matching: Matching) -> list[str]:
    """The texts in quotation marks, in order; those without a single letter or digit are left out."""
    pattern = _STRAIGHT if matching == "published" else _ANY_QUOTES
    found = [next(part for part in match.groups() if part) for match in pattern.finditer(prompt)]
    return [text for text in found if normal(text, matching)]


def normal(text: str, matching: Matching) -> str:
    """Letters and digits alone, case kept."""
    if matching == "published":
        return _NOT_ASCII.sub("", text)
    return "".join(c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c)[0] in "LNM")


def match_score(targets: Sequence[str], readings: Sequence[Reading], matching: Matching) -> float:
    """Mean over targets, weighted by their lengths, of 1 − distance/length, in [0, 1].

    distance: of Levenshtein between a target and the nearest candidate, at most the target's length; candidates are
    neighbouring tokens joined, and all of them joined. Raises ValueError without targets.
    """
    lines = [reading.text for reading in (readings if matching == "published" else reading_order(readings))]
    tokens = lines if matching == "published" else [word for line in lines for word in line.split()]
    parts = [part for token in tokens if (part := normal(token, matching))]
    earned = length = 0
    for target in targets:
        wanted = normal(target, matching)
        joined = JOINED if matching == "published" else max(JOINED, len(target.split()))
        distance = min((_distance(one, wanted) for one in _candidates(parts, joined)), default=len(wanted))
        earned += len(wanted) - min(distance, len(wanted))
        length += len(wanted)
    if not length:
        raise ValueError("no text to look for")
    return earned / length


def reading_order(readings: Sequence[Reading]) -> list[Reading]:
    """Row by row from the top, each from the left; a row is what overlaps its first reading by half a height."""
    rows: list[list[Reading]] = []
    for one in sorted(readings, key=lambda reading: reading.box[1] + reading.box[3]):
        middle = (one.box[1] + one.box[3]) / 2
        if rows and rows[-1][0].box[1] <= middle <= rows[-1][0].box[3]:
            rows[-1].append(one)
        else:
            rows.append([one])
    return [one for row in rows for one in sorted(row, key=lambda reading: reading.box[0])]


def _candidates(parts: Sequence[str], joined: int) -> set[str]:
    found = {"".join(parts)} if parts else set()
    for count in range(1, joined + 1):
        found |= {"".join(parts[at : at + count]) for at in range(len(parts) - count + 1)}
    return found


def _distance(candidate: str, target: str) -> int:
    plain = levenshtein(candidate, target)
    return min(plain, levenshtein(candidate.translate(_FOLD), target.translate(_FOLD))) if plain else 0


def levenshtein(first: str, second: str) -> int:
    """Insertions, deletions and substitutions from one text to the other (Levenshtein 1966)."""
    above = list(range(len(second) + 1))
    for row, letter in enumerate(first, 1):
        current = [row]
        for column, other in enumerate(second, 1):
            current.append(min(above[column] + 1, current[-1] + 1, above[column - 1] + (letter != other)))
        above = current
    return above[-1]
