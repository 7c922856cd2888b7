"""Users' files are read strictly, and their Python is read but never run."""

from pathlib import Path

import pytest

from deepgen.errors import DataError
from deepgen.evaluation.sources import (
    fstring,
    module_constants,
    read_csv,
    read_json,
    read_jsonl,
    read_text,
    require,
)

CODE = '''
raise SystemExit("run!")
PROMPT = """Score
it."""
TABLE: dict = {"a": 1}
made = open("x")

def ask(item):
    prompt = f"""Rate {item['Prompt']} {{json}} by {rule}."""
    shown = f"{item!r}"
'''


@pytest.fixture
def code(tmp_path: Path) -> Path:
    (tmp_path / "utils.py").write_text(CODE)
    return tmp_path / "utils.py"


def test_constants_are_read_without_running_the_file(code: Path) -> None:
    assert module_constants(code) == {"PROMPT": "Score\nit.", "TABLE": {"a": 1}}


def test_an_f_string_is_filled_by_the_source_of_its_expressions(code: Path) -> None:
    values = {"item['Prompt']": "a {cat}", "rule": "rules"}
    assert fstring(code, "prompt", values, "ask") == "Rate a {cat} {json} by rules."
    assert fstring(code, "PROMPT", {}) == "Score\nit."
    for variable, function, words in (
        ("gone", "ask", "no f-string named gone"),
        ("prompt", "other", "no function other"),
        ("shown", "ask", "formats a value"),
    ):
        with pytest.raises(DataError, match=words):
            fstring(code, variable, values, function)
    with pytest.raises(DataError, match="needs rule, which"):
        fstring(code, "prompt", {"item['Prompt']": ""}, "ask")


def test_lines_end_where_files_end_them_and_not_inside_prompts(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('"a\u2028b\x85c"\n\n"d"\n', encoding="utf-8")
    assert read_jsonl(tmp_path / "a.jsonl") == ["a\u2028b\x85c", "d"]
    (tmp_path / "a.csv").write_bytes('\ufeffp,q\r\n"x\ny\u2028z",1\r\n'.encode())
    assert read_csv(tmp_path / "a.csv", ["p"]) == [{"p": "x\ny\u2028z", "q": "1"}]


def test_mistakes_are_named_with_file_and_place(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{}\n{"a":\n')
    with pytest.raises(DataError, match=r"a\.jsonl:2: not JSON"):
        read_jsonl(tmp_path / "a.jsonl")
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(DataError, match=r"a\.json: not JSON"):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.csv").write_text("p,q\n1\n")
    with pytest.raises(DataError, match="row 1 has another number of cells"):
        read_csv(tmp_path / "a.csv", ["p"])
    with pytest.raises(DataError, match="no column z"):
        read_csv(tmp_path / "a.csv", ["z"])
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="cannot be read as text"):
        read_text(tmp_path / "a.txt")
    with pytest.raises(DataError, match="bench prepare"):
        read_text(tmp_path / "gone.txt")
    (tmp_path / "a.py").write_text("def (")
    with pytest.raises(DataError, match="not Python"):
        module_constants(tmp_path / "a.py")


def test_rows_must_have_their_keys_in_their_types() -> None:
    assert require({"a": 1, "b": "x"}, "f:1", a=int, b=(str, int)) == {"a": 1, "b": "x"}
    for row, words in (([], "expected an object"), ({}, "no 'a'"), ({"a": "1"}, "'a' is str")):
        with pytest.raises(DataError, match=f"f:1: {words}"):
            require(row, "f:1", a=int)
