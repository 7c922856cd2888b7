"""Benchmark prompts are found in training prompts whatever case, spaces and neighbours they come with."""

from pathlib import Path

import pytest

from deepgen.errors import DataError
from deepgen.evaluation.contamination import NGRAM, normalise, overlap, read_prompts

LONG = "A young gardener is squatting among the flowers, gently holding up a sunflower with gloved hands."
PROMPTS = {
    "short": "a photo of a bench",
    "long": LONG,
    "cjk": "一位年轻的园丁蹲在花丛中，轻轻扶起一朵向日葵。",
    "free": "seven purple umbrellas hover above an empty swimming pool at dusk in light rain",
}


def test_case_spaces_punctuation_and_width_do_not_hide_a_prompt() -> None:
    found = overlap(
        "b", PROMPTS, ["A photo  of a BENCH!", LONG.upper(), "一位年轻的园丁蹲在花丛中,轻轻扶起一朵向日葵"]
    )
    assert found.exact == ("short", "long", "cjk") and found.near == () and not found.clean


def test_a_prompt_inside_a_longer_text_is_near() -> None:
    assert overlap("b", PROMPTS, [f"masterpiece, 4k. {LONG} Trending."]).near == ("long",)
    assert overlap("b", PROMPTS, ["画：一位年轻的园丁蹲在花丛中，轻轻扶起一朵向日葵。高清"]).near == ("cjk",)


def test_half_of_a_prompt_is_near_and_less_is_not() -> None:
    words = LONG.split()
    runs = len(words) - NGRAM + 1
    for kept, expected in ((NGRAM - 1 + runs // 2 + runs % 2, ("long",)), (NGRAM - 2 + runs // 2, ())):
        assert overlap("b", {"long": LONG}, [" ".join(words[:kept])]).near == expected


def test_pieces_from_different_texts_do_not_add_up() -> None:
    words = LONG.split()
    pieces = [" ".join(words[i : i + NGRAM + 1]) for i in range(len(words) - NGRAM)]
    assert overlap("b", {"long": LONG}, pieces).clean


def test_templates_that_only_resemble_each_other_are_clean() -> None:
    assert overlap("b", PROMPTS, ["a photo of a bench and a cat", "a photo of a dog"]).clean
    assert overlap("b", PROMPTS, []).items == 4


def test_words_of_every_script_are_words() -> None:
    assert normalise("Ｆull width, 3 Äpfel; 春天SPRING") == (
        "full",
        "width",
        "3",
        "äpfel",
        "春",
        "天",
        "spring",
    )


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.txt", "one\n\ntwo\u2028three\n", ["one", "two\u2028three"]),
        ("a.jsonl", '{"prompt": "one", "id": "x"}\n{"messages": [{"text": "two"}]}\n', ["one", "two"]),
        ("a.json", '["one", {"caption": "two", "tags": ["no"]}]', ["one", "two"]),
    ],
)
def test_prompts_are_read_from_lines_and_json(
    tmp_path: Path, name: str, text: str, expected: list[str]
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_prompts(tmp_path / name) == expected


def test_a_file_without_prompts_is_an_error(tmp_path: Path) -> None:
    for name, text, words in (("a.txt", "\n", "no prompts"), ("a.json", "{", "not JSON")):
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match=words):
            read_prompts(tmp_path / name)
