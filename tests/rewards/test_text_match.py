"""Quoted texts, and how near what was read comes to them."""

import random
import re

import pytest

from deepgen.rewards import RewardInput
from deepgen.rewards.ocr import OcrReward
from deepgen.rewards.text_match import levenshtein, match_score, quoted_texts, reading_order
from deepgen.world.judging import Reading


def lines(*texts: str) -> list[Reading]:
    """Texts one below the other."""
    return [Reading(text, (0, 20 * n, 100, 20 * n + 15)) for n, text in enumerate(texts)]


@pytest.mark.parametrize(("a", "b", "distance"), [("kitten", "sitting", 3), ("", "ab", 2), ("ab", "ab", 0)])
def test_levenshtein(a, b, distance):
    assert levenshtein(a, b) == levenshtein(b, a) == distance


def test_all_kinds_of_quotes_are_found_in_order():
    prompt = 'A sign "ONE", “zwei”, „drei“, «quatre», 「五」 and 『六』, "!" it\'s'
    assert quoted_texts(prompt, "unicode") == ["ONE", "zwei", "drei", "quatre", "五", "六"]
    assert quoted_texts(prompt, "published") == ["ONE"]


def test_several_texts_weigh_by_their_lengths():
    assert match_score(["ABCDEF", "XY"], lines("ABCDEF"), "published") == pytest.approx(6 / 8)
    assert match_score(["ABCDEF", "XY"], lines("abc", "XY"), "published") == pytest.approx(2 / 8)
    assert match_score(["ABCDEF"], [], "published") == 0


def test_the_published_matching_joins_lines_keeps_case_and_folds_confusable_letters():
    assert match_score(["HELLOWORLD"], lines("HELLO", "WORLD"), "published") == 1
    assert match_score(["Hello"], lines("HELLO"), "published") == pytest.approx(1 / 5)
    assert match_score(["lion"], lines("l10n"), "published") == 1
    assert match_score(["a-b c!"], lines("abc"), "published") == 1
    # Four lines are only reached as all of them together; with a fifth the text is lost in part.
    assert match_score(["abcd"], lines("a", "b", "c", "d"), "published") == 1
    assert match_score(["abcd"], lines("a", "b", "c", "d", "xyz"), "published") == pytest.approx(3 / 4)


def test_unicode_matching_reads_every_script_and_words_inside_lines():
    assert match_score(["你好"], lines("你好"), "unicode") == 1
    assert match_score(["Привет"], lines("Привет, мир"), "unicode") == 1
    assert match_score(["one two three four"], lines("so one two", "three four ever"), "unicode") == 1
    assert match_score(["Ａ１"], lines("A1"), "unicode") == 1


def test_lines_are_read_row_by_row():
    right, left = Reading("b", (50, 2, 90, 18)), Reading("a", (0, 0, 40, 16))
    below = Reading("c", (10, 30, 40, 45))
    assert [one.text for one in reading_order([below, right, left])] == ["a", "b", "c"]


def test_a_prompt_without_quotes_has_no_value_and_costs_the_others_nothing(kit, monkeypatch):
    monkeypatch.setattr(
        "deepgen.rewards.ocr.Ocr", lambda least: type("O", (), {"read": lambda *_: lines("HI")})()
    )
    reward = OcrReward("ocr", "unicode", 0.5)
    first, second = reward(
        [RewardInput(kit.flat(1), "no text", "a"), RewardInput(kit.flat(1), 'says "HI"', "b")]
    )
    assert first.value is None and not first.failed and "quotes" in first.reason
    assert second.value == 1


def published(prompt: str, tokens: list[str]) -> float:
    """The newer published service's rule, written out from its description (rl.md, section 6)."""
    targets = [re.sub("[^A-Za-z0-9]", "", text) for text in re.findall('"([^"]+)"', prompt)]
    targets = [text for text in targets if text]
    words = [word for word in (re.sub("[^A-Za-z0-9]", "", token) for token in tokens) if word]
    candidates = [*words, "".join(words)]
    for width in (2, 3):
        candidates += ["".join(words[at : at + width]) for at in range(len(words) - width + 1)]

    def fold(text: str) -> str:
        for old, new in (("0", "o"), ("1", "l"), ("i", "l"), ("j", "l"), ("5", "s"), ("v", "w")):
            text = text.replace(old, new)
        return text

    def steps(a: str, b: str) -> int:
        if not a or not b:
            return len(a) + len(b)
        if a[0] == b[0]:
            return steps(a[1:], b[1:])
        return 1 + min(steps(a[1:], b), steps(a, b[1:]), steps(a[1:], b[1:]))

    def distance(target: str) -> int:
        found = [min(steps(one, target), steps(fold(one), fold(target))) for one in candidates if one]
        return min([*found, len(target)])

    total = sum(len(target) for target in targets)
    return sum((1 - distance(target) / len(target)) * len(target) for target in targets) / total


def test_the_published_matching_is_the_published_rule():
    rng = random.Random(0)

    def text() -> str:
        return "".join(rng.choice("aio0l15sv wWA-") for _ in range(rng.randint(1, 4)))

    compared = 0
    for _ in range(150):
        prompt = " and ".join(f'"{text()}"' for _ in range(rng.randint(1, 2)))
        tokens = [text() for _ in range(rng.randint(0, 4))]
        if targets := quoted_texts(prompt, "published"):
            assert match_score(targets, lines(*tokens), "published") == pytest.approx(
                published(prompt, tokens)
            )
            compared += 1
    assert compared > 100
