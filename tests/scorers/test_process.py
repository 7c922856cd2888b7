"""A scorer that is another program: its contract, and every way to break it."""

import sys
from pathlib import Path

import pytest
from PIL import Image

from deepgen.errors import DataError, InputError, JudgeError
from deepgen.scorers.calls import JudgeCall, JudgeImage, JudgeProfile
from deepgen.scorers.process import ProcessScorer
from deepgen.scorers.replies import Reply

PROFILE = JudgeProfile("p", kind="process")
GOOD = """
import json, sys
from PIL import Image
rows = [json.loads(line) for line in sys.stdin]
for row in reversed(rows):
    size = Image.open(row["images"][0]).size
    print(json.dumps({"id": row["id"], "reply": f'{row["text"]} {size} {row["data"]}'}), flush=True)
"""


def answers(tmp_path: Path, program: str, calls: list[JudgeCall]) -> dict[int, Reply]:
    (tmp_path / "scorer.py").write_text("import json, sys\n" + program)
    found: dict[int, Reply] = {}
    scorer = ProcessScorer(PROFILE, f"{sys.executable} '{tmp_path / 'scorer.py'}'")
    scorer.answer(calls, 0, found.__setitem__)
    return found


def calls(tmp_path: Path, count: int = 3) -> list[JudgeCall]:
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png")
    image = JudgeImage(tmp_path / "a.png")
    return [JudgeCall("q", f"t{n}", (image,), data={"n": n}) for n in range(count)]


def test_every_call_gets_its_own_answer_in_any_order(tmp_path: Path) -> None:
    found = answers(tmp_path, GOOD, calls(tmp_path, 200))
    assert len(found) == 200
    assert found[7] == Reply("ok", "t7 (8, 6) {'n': 7}")


def test_a_cropped_picture_is_cropped_for_the_program(tmp_path: Path) -> None:
    (call,) = calls(tmp_path, 1)
    cropped = JudgeCall("q", "t", (JudgeImage(call.images[0].path, crop=(0, 0, 3, 2)),))
    assert answers(tmp_path, GOOD, [cropped])[0].text == "t (3, 2) {}"


def test_a_call_that_the_program_cannot_answer_fails_alone(tmp_path: Path) -> None:
    program = """
for line in sys.stdin:
    row = json.loads(line)
    print(json.dumps({"id": row["id"], **({"error": "dark"} if row["id"] == 1 else {"reply": "yes"})}))
"""
    found = answers(tmp_path, program, calls(tmp_path))
    assert [found[n].status for n in range(3)] == ["ok", "failed", "ok"] and found[1].text == "dark"


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("print('hello')", "wrote b'hello"),
        ('print(\'{"id": 9, "reply": "yes"}\')', "unknown id"),
        ("print('{\"id\": 0}')", "no reply"),
        ('print(\'{"id": 0, "reply": "a"}\\n\' * 2)', "answered call 0 twice"),
        ("sys.exit('no weights here')", r"ended with 1 after 0 of 3 answers.*no weights here"),
        ('print(\'{"id": 0, "reply": "yes"}\')', "ended with 0 after 1 of 3"),
    ],
)
def test_a_broken_contract_is_said(tmp_path: Path, program: str, words: str) -> None:
    with pytest.raises(JudgeError, match=words):
        answers(tmp_path, program, calls(tmp_path))


def test_what_came_before_a_crash_is_kept(tmp_path: Path) -> None:
    (tmp_path / "scorer.py").write_text(
        'print(\'{"id": 2, "reply": "yes"}\', flush=True)\nraise SystemExit(3)'
    )
    found: dict[int, Reply] = {}
    with pytest.raises(JudgeError, match="after 1 of 3"):
        ProcessScorer(PROFILE, f"{sys.executable} {tmp_path}/scorer.py").answer(
            calls(tmp_path), 0, found.__setitem__
        )
    assert found == {2: Reply("ok", "yes")}


def test_a_program_that_is_not_there_and_pictures_that_are_none_are_named(tmp_path: Path) -> None:
    with pytest.raises(JudgeError, match="'no-such-program' cannot be run"):
        ProcessScorer(PROFILE, "no-such-program").answer(calls(tmp_path), 0, lambda place, reply: None)
    with pytest.raises(InputError, match="empty"):
        ProcessScorer(PROFILE, " ")
    broken = JudgeCall("q", "t", (JudgeImage(tmp_path / "gone.png", crop=(0, 0, 1, 1)),))
    with pytest.raises(DataError, match=r"gone\.png"):
        answers(tmp_path, "list(sys.stdin)", [broken])
