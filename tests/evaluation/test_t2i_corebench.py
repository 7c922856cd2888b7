"""T2I-CoReBench: answers of two kinds of judge, the two versions of its overall number, the files, whole runs."""

import json
import math
import shutil
from hashlib import sha256
from pathlib import Path

import pytest

from deepgen.errors import DataError
from deepgen.evaluation.benchmark import Answer, ParseError, Record, Status, Unit
from deepgen.evaluation.benchmarks import t2i_corebench
from deepgen.evaluation.benchmarks.t2i_corebench import (
    COMPOSITION,
    REASONING,
    official_answer,
    picture_score,
    strict_answer,
)

ALL, HALF = t2i_corebench.BENCHMARKS
QWEN, GEMINI = ALL.judges
SAMPLES = Path(__file__).parents[3] / "shared" / "bench_samples" / "t2i_corebench"
ROW = {
    "Main Class": "Reasoning",
    "Sub Class": "Logical Reasoning",
    "Prompt": "Two boxes, one of them empty.",
    "Checklist": [
        {"question": "Are there two boxes?", "tags": []},
        {"question": "Is one box empty?", "tags": []},
    ],
}


@pytest.fixture
def data(tmp_path) -> Path:
    """A clone with one prompt in each dimension."""
    folder = tmp_path / "data" / "t2i_corebench"
    (folder / "data").mkdir(parents=True)
    for dimension in (*COMPOSITION, *REASONING):
        (folder / "data" / f"{dimension}.json").write_text(json.dumps({f"{dimension}-001": ROW}))
    (folder / "evaluate.py").write_text('import os\nos.abort()\nTEMPLATE = """\nOnly yes or no.\n"""\n')
    return folder


@pytest.mark.parametrize(
    ("reply", "gemini", "qwen"),
    [
        ("yes", 1, 1),
        ("Yes", 1, None),
        ('"no"', 0, 0),
        ("NO.", 0, None),
        ("yes and no", 1, 1),
        ("yesterday", None, None),
        ("maybe", None, None),
    ],
)
def test_only_the_path_for_gemini_reads_capitals(reply, gemini, qwen):
    assert official_answer(reply, lower=True) == gemini
    assert official_answer(reply, lower=False) == qwen


@pytest.mark.parametrize("reply", ["", "yes and no", "maybe", "nothing"])
def test_a_strict_answer_is_one_of_two_words(reply):
    assert strict_answer("**Yes**, clearly.") == 1
    with pytest.raises(ParseError):
        strict_answer(reply)


def test_a_pictures_score_is_the_share_among_answers_that_are_one():
    assert picture_score([1, None, 0, 1]) == pytest.approx(2 / 3)
    assert picture_score([None, None]) is None


def test_the_judges_path_decides_how_a_call_is_read(data):
    item = ALL.items(data)[0]
    calls = {judge.name: ALL.calls(item, 0, Path("x.png"), judge) for judge in (QWEN, GEMINI)}
    assert ALL.parse(item, calls[GEMINI.name][0], "Yes", "official") == 1
    assert ALL.parse(item, calls[QWEN.name][0], "Yes", "official") is None
    assert calls[QWEN.name][1].text == (
        'Prompt: "Two boxes, one of them empty."\nQuestion: "Is one box empty?"'
    )
    assert calls[QWEN.name][1].system == "\nOnly yes or no.\n"


def test_only_an_empty_reply_is_asked_again_officially(data):
    item = ALL.items(data)[0]
    call = ALL.calls(item, 0, Path("x.png"), QWEN)[0]
    with pytest.raises(ParseError):
        ALL.parse(item, call, " \n", "official")
    assert ALL.parse(item, call, "maybe", "official") is None


def test_unanswered_questions_are_left_out_officially_and_wrong_strictly(data):
    item = ALL.items(data)[0]
    answers = {"0": Answer(Status.OK, 1), "1": Answer(Status.PARSE_FAILED)}
    assert ALL.score(item, answers, "official") == (Unit("picture", 1.0),)
    assert ALL.score(item, answers, "strict") == (Unit("picture", 0.5),)
    nothing = dict.fromkeys(("0", "1"), Answer(Status.NO_PICTURE))
    assert ALL.score(item, nothing, "official") == ()
    assert ALL.score(item, nothing, "strict") == (Unit("picture", 0.0),)


def test_the_report_shows_questions_with_their_answers(data):
    item = ALL.items(data)[0]
    told = ALL.explain(
        item, {"0": Answer(Status.OK, 1, "**yes**"), "1": Answer(Status.PARSE_FAILED, None, "hm")}
    )
    assert told == "Are there two boxes? yes\nIs one box empty? hm"


def record(dimension, score):
    return Record(f"{dimension}-001", 0, dimension, Status.OK, (Unit("picture", score),))


def test_overall_is_the_mean_of_twelve_and_reasoning_of_eight():
    records = [record(of, 1.0) for of in COMPOSITION] + [record(of, 0.25) for of in REASONING]
    summary = ALL.aggregate(records, "official")
    assert summary.overall == {"composition": 100.0, "reasoning": 25.0, "overall": 50.0}
    half = HALF.aggregate(records[4:], "official")
    assert half.overall == {"reasoning": 25.0} and list(half.groups) == list(REASONING)


def test_the_versions_share_pictures_and_differ_in_items(data):
    items = HALF.items(data)
    assert [item.group for item in items] == list(REASONING)
    twin = next(item for item in ALL.items(data) if item.id == items[0].id)
    assert ALL.seed(twin, 3, 0) == HALF.seed(items[0], 3, 0)
    assert ALL.official_path(twin, 3) == "R-LR/R-LR-001-3.png"
    assert (sum(ALL.counts.values()), sum(HALF.counts.values())) == (1080, 720)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"C-MI-001": ROW}, "such as R-LR-001"),
        ({"R-LR-001": {"Prompt": "a"}}, "no 'Checklist'"),
        ({"R-LR-001": ROW | {"Checklist": []}}, "checklist is empty"),
        ({"R-LR-001": ROW | {"Checklist": [{"tags": []}]}}, "no 'question'"),
        ([ROW], "expected an object"),
    ],
)
def test_a_file_of_another_schema_is_named(data, rows, message):
    (data / "data" / "R-LR.json").write_text(json.dumps(rows))
    with pytest.raises(DataError, match=message) as error:
        HALF.items(data)
    assert "R-LR.json" in str(error.value)


def test_a_template_that_is_not_the_published_one_is_warned_of(data):
    with pytest.warns(UserWarning, match=r"evaluate.py: not as published: TEMPLATE"):
        ALL.items(data)


def test_a_clone_without_the_template_is_refused(data):
    (data / "evaluate.py").write_text("TEMPLATE = read()\n")
    with pytest.raises(DataError, match="TEMPLATE"):
        ALL.items(data)


def test_a_run_with_a_thinking_judge_survives_a_bad_server(data, harness, judge_server, replies, tmp_path):
    def answer(request):
        return f"<think>yes? no?</think>\n\n{'no' if 'empty?' in request.text else 'yes'}"

    judge_server.reply = answer
    judge_server.script = [
        replies.Status(429, headers={"Retry-After": "0"}),
        replies.Half("yes"),
        replies.Garbage(),
        "<think>I never come to an end",
        "<think>hm</think>\n\nyes and no",
    ]
    ran = harness.run_benchmark(
        HALF, data.parent, tmp_path / "run", harness.client(judge_server.url, HALF.judges[0])
    )
    assert {one.status for one in ran.records} == {Status.OK}
    assert ran.results.overall["reasoning"].value == 50.0
    limits = {request.body["max_tokens"] for request in judge_server.requests}
    assert limits == {512, 2048} and judge_server.requests[0].body["repetition_penalty"] == 1.05


def test_capitals_cost_the_official_scores_of_all_but_gemini(data, harness, judge_server, tmp_path):
    judge_server.reply = lambda request: "No" if "empty?" in request.text else "yes"

    def overall(judge, mode):
        folder = tmp_path / f"{judge.name}-{mode}"
        client = harness.client(judge_server.url, judge)
        return (
            harness.run_benchmark(HALF, data.parent, folder, client, mode).results.overall["reasoning"].value
        )

    plain = t2i_corebench.JudgeProfile("other-judge", "other", order="images-first")
    assert overall(plain, "official") == 100.0
    assert overall(plain, "strict") == 50.0
    assert overall(GEMINI, "official") == 50.0


def test_gemini_gets_the_template_in_front_of_the_question(data, harness, judge_server, tmp_path):
    judge_server.reply = "yes"
    harness.run_benchmark(HALF, data.parent, tmp_path / "run", harness.client(judge_server.url, GEMINI))
    (message,) = judge_server.requests[0].body["messages"]
    image, text = message["content"]
    assert image["image_url"]["url"].startswith("data:image/png;base64,")
    assert text["text"].startswith('\nOnly yes or no.\n\nPrompt: "Two boxes')


def write_golden(folder):
    """Two dimensions with a picture or two each; the last picture has no answer at all."""
    (folder / "items.json").write_text(json.dumps({"C-MI-001": ROW, "R-LR-001": ROW}))
    answers = {"C-MI-001-0": ("Yes", "no"), "R-LR-001-0": ("**YES**", "yes"), "R-LR-001-1": ("", "maybe")}
    replies = {
        f'{picture}\t"{entry["question"]}"': reply
        for picture, of in answers.items()
        for entry, reply in zip(ROW["Checklist"], of, strict=True)
    }
    (folder / "synthetic_judge_replies.json").write_text(json.dumps({"judge_replies": replies}))
    golden = {
        "C-MI": {"mean_score": 0.5, "image_score": {"C-MI-001-0": 0.5}},
        "R-LR": {"mean_score": 1.0, "image_score": {"R-LR-001-0": 1.0, "R-LR-001-1": ""}},
        "_leaderboard_convention": {"composition_mean": 0.5, "reasoning_mean": 1.0, "overall": 0.75},
    }
    (folder / "golden_scores_gemini_path.json").write_text(json.dumps(golden))
    (folder / "template_full.json").write_text(json.dumps("\né"))
    told = {"TEMPLATE_sha256": sha256("\né".encode()).hexdigest(), "TEMPLATE_len": 2}
    (folder / "golden_template_hash.json").write_text(json.dumps(told))


def test_goldens_of_our_own_are_recomputed_and_a_changed_one_is_found(tmp_path):
    write_golden(tmp_path)
    assert [done.diff for done in t2i_corebench.verify_sample(tmp_path)] == [0.0] * 4
    golden = tmp_path / "golden_scores_gemini_path.json"
    golden.write_text(golden.read_text().replace('"reasoning_mean": 1.0', '"reasoning_mean": 0.9'))
    changed = [done.name for done in t2i_corebench.verify_sample(tmp_path) if done.diff > 1e-9]
    assert changed == ["golden_scores_gemini_path.json: _leaderboard_convention"]


def test_a_golden_file_of_the_reasoning_half_needs_no_other_means(tmp_path):
    write_golden(tmp_path)
    golden = tmp_path / "golden_scores_gemini_path.json"
    golden.write_text(json.dumps({"_leaderboard_convention": {"reasoning_mean": 1.0}}))
    assert [done.diff for done in t2i_corebench.verify_sample(tmp_path)] == [0.0] * 2
    golden.write_text(json.dumps({"_leaderboard_convention": {"physics_mean": 1.0}}))
    assert t2i_corebench.verify_sample(tmp_path)[1].diff == math.inf


def test_a_picture_of_no_known_prompt_is_an_error_as_officially(tmp_path):
    write_golden(tmp_path)
    (tmp_path / "items.json").write_text(json.dumps({"C-MI-001": ROW}))
    with pytest.raises(DataError, match="no R-LR-001"):
        t2i_corebench.verify_sample(tmp_path)


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="needs the official samples beside the repository")
def test_official_samples_are_met_to_the_digit_and_a_tampered_one_is_not(tmp_path):
    checks = t2i_corebench.verify_sample(SAMPLES)
    assert len(checks) == 14 and all(done.diff <= 1e-9 for done in checks)
    for path in SAMPLES.iterdir():
        shutil.copyfile(path, tmp_path / path.name)
    replies = tmp_path / "synthetic_judge_replies.json"
    replies.write_text(replies.read_text().replace('"maybe"', '"no"'))
    assert any(done.diff > 1e-9 for done in t2i_corebench.verify_sample(tmp_path))
