"""WISE: scores in replies, the judge's words from a clone that is never run, weights of categories, whole runs."""

import json
import math
import shutil
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from deepgen.errors import DataError
from deepgen.evaluation.benchmark import Answer, ParseError, Record, Status, Unit
from deepgen.evaluation.benchmarks import wise
from deepgen.evaluation.benchmarks.wise import (
    LEGACY,
    VERIFIED,
    legacy_scores,
    strict_scores,
    verified_scores,
    wiscore,
)

OLD, NEW = wise.BENCHMARKS
SAMPLES = Path(__file__).parents[3] / "shared" / "bench_samples" / "wise"
CLONE = '''
import os
os.abort()  # a clone's code is never run


def build_evaluation_messages(prompt_data: dict, image_base64: str) -> list:
    return [
        {"role": "system", "content": [{"type": "text", "text": "Be strict."}]},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": f"""Rate {{it}}.
PROMPT: "{prompt_data['Prompt']}"
EXPLANATION: "{prompt_data["Explanation"]}"
"""},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image_base64}"}},
            ],
        },
    ]
'''
FULL = {"consistency": 2.0, "realism": 1.0, "aesthetic_quality": 0.0}


def write_clone(folder, version, ids):
    for path in (*version.files, version.judge_file):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("[]")
    (folder / version.judge_file).write_text(CLONE)
    rows = [
        {"Explanation": f"because {index}", "Prompt": f"prompt {index}", "prompt_id": index} for index in ids
    ]
    (folder / version.files[0]).write_text(json.dumps(rows))


@pytest.fixture
def data(tmp_path) -> Path:
    """A clone of both versions with two prompts each, one of culture and one of chemistry."""
    folder = tmp_path / "data" / "wise"
    for version in (LEGACY, VERIFIED):
        write_clone(folder, version, (1, 950))
    return folder


@pytest.mark.parametrize(
    ("text", "scores"),
    [
        ("Consistency: 2\nRealism: 1\nAesthetic Quality: 0", FULL),
        ("**consistency** 2, **REALISM**: 1, aesthetic quality:0", FULL),
        ("2\n1\n0", FULL),
        ("**Consistency:** 2\n**Realism:** 1\n**Aesthetic Quality:** 0", {}),
        ("Consistency: 9", {"consistency": 9.0}),
        ("2\n1", {}),
    ],
)
def test_the_official_legacy_parser_reads_labels_or_three_bare_lines(text, scores):
    assert legacy_scores(text) == scores


@pytest.mark.parametrize(
    ("text", "scores"),
    [
        ("Score: 1", {"score": 1.0}),
        ("**Score**: 0.", {"score": 0.0}),
        ("**Score:** 1", {}),
        ("well\n 1 \n", {"score": 1.0}),
        ("1\n0", {}),
        ("Score: 10", {}),
        ("Score: 2", {}),
    ],
)
def test_the_official_verified_parser_reads_one_score_or_one_bare_line(text, scores):
    assert verified_scores(text) == scores


@pytest.mark.parametrize(
    ("text", "version", "scores"),
    [
        ("**Consistency:** 2\n**Realism:** 1\n**Aesthetic Quality:** 0", LEGACY, FULL),
        ("Consistency (0-2): 2\nRealism（x）\nRealism： 1\nAesthetic Quality: 0/2", LEGACY, FULL),
        ("Consistency: 9\nRealism: 9\nAesthetic Quality: 9", LEGACY, {}),
        ("Consistency: 1.5", LEGACY, {}),
        ("Realism: 0-2\nRealism: 1", LEGACY, {"realism": 1.0}),
        ("Score: 0 at first. **Score:** 1", VERIFIED, {}),
        ("**Score:** 1", VERIFIED, {"score": 1.0}),
        ("0", VERIFIED, {"score": 0.0}),
    ],
)
def test_the_strict_parser_reads_bold_type_and_distrusts_contradictions(text, version, scores):
    assert strict_scores(text, version) == scores


def test_a_score_short_of_a_criterion_is_asked_again(data):
    with pytest.raises(ParseError, match="realism, aesthetic_quality"):
        OLD.parse(OLD.items(data)[0], None, "Consistency: 2", "official")


def test_consistency_weighs_most():
    assert wiscore(FULL) == pytest.approx((0.7 * 2 + 0.2) / 2)
    assert wiscore({"score": 1}) == 1.0


def test_categories_follow_the_prompts_number_in_each_version():
    assert [LEGACY.category(n) for n in (0, 400, 567, 568, 1000, 1001)] == [
        *(None, "CULTURE", "TIME", "SPACE", "CHEMISTRY", None)
    ]
    assert VERIFIED.category(567) == "SPACE"
    assert sum(OLD.counts.values()) == sum(NEW.counts.values()) == 1000


@pytest.mark.parametrize("bench", [OLD, NEW])
def test_weights_are_the_categories_shares_of_the_prompts(bench):
    assert bench.version.weights == tuple(number / 1000 for number in bench.counts.values())


def test_the_judge_is_asked_in_the_clones_words_which_are_not_run(data):
    item = OLD.items(data)[1]
    call = OLD.calls(item, 0, Path("x.png"), OLD.judges[0])[0]
    assert (call.system, item.group) == ("Be strict.", "CHEMISTRY")
    assert call.text == 'Rate {it}.\nPROMPT: "prompt 950"\nEXPLANATION: "because 950"\n'


def test_a_clone_that_says_it_otherwise_is_refused(data):
    path = data / LEGACY.judge_file
    path.write_text(CLONE.replace("prompt_data['Prompt']", "prompt_data['Text']"))
    with pytest.raises(DataError, match=r"gpt_eval\.py|entry 1"):
        OLD.items(data)
    path.write_text("def other(): pass\n")
    with pytest.raises(DataError, match="0 texts"):
        OLD.items(data)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"Prompt": "a", "Explanation": "b"}, "no 'prompt_id'"),
        ({"Prompt": "a", "Explanation": "b", "prompt_id": 1001}, "belongs to no category"),
        ({"Prompt": 3, "Explanation": "b", "prompt_id": 1}, "'Prompt' is int"),
    ],
)
def test_an_entry_of_another_schema_is_named(data, row, message):
    (data / LEGACY.files[2]).write_text(json.dumps([row]))
    with pytest.raises(DataError, match=message) as error:
        OLD.items(data)
    assert "natural_science.json: entry 1" in str(error.value)


def records_of(scores):
    return [
        Record(str(place), 0, category, Status.OK, (Unit("wiscore", score),))
        for place, (category, score) in enumerate(scores)
    ]


def test_overall_weighs_categories_and_officially_needs_all():
    scores = dict(zip(wise.CATEGORIES, (1.0, 0.5, 0.0, 1.0, 0.0, 0.5), strict=True))
    summary = OLD.aggregate(records_of(scores.items()), "official")
    assert summary.overall["overall"] == pytest.approx(0.4 + 0.167 / 2 + 0.1 + 0.05)
    some = records_of([("CULTURE", 1.0), ("TIME", 0.0)])
    assert OLD.aggregate(some, "official").overall == {}
    assert OLD.aggregate(some, "strict").overall["overall"] == pytest.approx(0.4 / 0.567)


def test_a_legacy_run_survives_a_bad_server(data, harness, judge_server, replies, tmp_path):
    judge_server.reply = "Consistency: 2\nRealism: 1\nAesthetic Quality: 0"
    judge_server.script = [
        replies.Status(503),
        replies.Half("Consistency"),
        replies.Garbage(),
        "Consistency: 2",
        replies.Slow(0.1, "**Consistency**: 1\n**Realism**: 0\n**Aesthetic Quality**: 0"),
    ]
    client = harness.client(judge_server.url, OLD.judges[0], concurrency=1)
    ran = harness.run_benchmark(OLD, data.parent, tmp_path / "run", client)
    values = sorted(record.units[0].value for record in ran.records)
    assert values == pytest.approx([0.35, 0.8])
    body = judge_server.requests[0].body
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("gpt-4o-2024-05-13", 0.0, 2000)
    assert body["messages"][0]["role"] == "system"


def test_a_verified_run_forgets_what_was_thought(data, harness, judge_server, tmp_path):
    judge_server.reply = "<think>Score: 0</think>Score: 1"
    client = harness.client(judge_server.url, NEW.judges[0])
    ran = harness.run_benchmark(NEW, data.parent, tmp_path / "run", client, "official")
    assert ran.results.groups["CULTURE"]["wiscore"].value == 1.0
    assert judge_server.requests[0].body["chat_template_kwargs"] == {"enable_thinking": False}


def test_what_cannot_be_read_is_worth_nothing_strictly_and_left_out_officially(
    data, harness, judge_server, tmp_path
):
    judge_server.reply = lambda request: "Score: 1" if "prompt 950" in request.text else "Score: maybe"
    client = harness.client(judge_server.url, NEW.judges[0])

    def groups(mode):
        return harness.run_benchmark(NEW, data.parent, tmp_path / mode, client, mode).results.groups

    assert groups("strict")["CULTURE"]["wiscore"].value == 0.0
    assert "CULTURE" not in groups("official")
    assert len(judge_server.requests) == 2 * 4  # one answer and three attempts, in each of two runs


def test_a_refusal_is_not_a_bad_picture(data, harness, judge_server, replies, tmp_path):
    judge_server.reply = replies.Filtered()
    judge_server.script = ["Score: 1"]
    client = harness.client(judge_server.url, NEW.judges[0], concurrency=1)
    ran = harness.run_benchmark(NEW, data.parent, tmp_path / "run", client)
    assert sorted(record.status for record in ran.records) == [Status.OK, Status.REFUSED]
    assert ran.results.coverage.counted == 1


def test_a_missing_picture_is_worth_nothing_strictly(data):
    item, answers = NEW.items(data)[0], {"score": Answer(Status.NO_PICTURE)}
    assert NEW.score(item, answers, "strict") == (Unit("wiscore", 0.0),)
    assert NEW.score(item, answers, "official") == ()


def write_scores(folder, changed=()):
    """1,000 legacy scores, all 2/1/0 but those of `changed` (id → line)."""
    lines = {index: json.dumps({"prompt_id": index, **FULL}) for index in range(1, 1001)} | dict(changed)
    (folder / "synthetic_scores_legacy.jsonl").write_text("\n".join(filter(None, lines.values())))


def summary_text(culture, samples):
    categories = "".join(
        f"  Category: {name}\n    Average WiScore: {culture if name == 'CULTURE' else '0.80'}\n"
        f"    Number of samples: {samples if name == 'CULTURE' else OLD.counts[name]}\n\n"
        for name in wise.CATEGORIES
    )
    return (
        f"\n--- Processing file: x.jsonl ---\n\n====\n   Individual File Reports\n====\n\n"
        f"--- Evaluation Results for File: x.jsonl ---\n{categories}-----\n\n\n====\n"
        f"     Overall Evaluation Summary\n====\n\nAggregated Category Scores:\n{categories}\n"
        "--- Overall WiScore Across All Categories ---\nOverall WiScore: 0.80\n"
        "Cultural\tTime\tSpace\tBiology\tPhysics\tChemistry\tOverall\n"
        f"{culture}\t\t0.80\t0.80\t0.80\t0.80\t0.80\t\t0.80\n"
    )


def test_the_printed_summary_is_the_official_one(tmp_path):
    write_scores(tmp_path, {3: json.dumps({"prompt_id": 3, "consistency": None}), 4: '{"prompt_id": "4"}'})
    golden = tmp_path / "golden_calculate_legacy_stdout.txt"
    golden.write_text("Missing IDs: [4]\n\nAborting overall evaluation due to incomplete data.\n")
    assert wise.verify_sample(tmp_path)[0].diff == 0.0
    write_scores(
        tmp_path, {3: json.dumps({"prompt_id": 3, "consistency": None}), 4: json.dumps({"prompt_id": 4})}
    )
    golden.write_text(summary_text("0.80", 398))
    assert wise.verify_sample(tmp_path)[0].diff == 0.0
    golden.write_text(summary_text("0.81", 398))
    assert wise.verify_sample(tmp_path)[0].diff == math.inf


def write_messages(folder):
    """Two items, one of them with letters that JSON may escape, and the example of the first."""
    rows = [
        {"prompt_id": 1, "Prompt": 'a "b"', "Explanation": "c"},
        {"prompt_id": 2, "Prompt": "ü→日", "Explanation": "\\"},
    ]
    (folder / "items_legacy.json").write_text(json.dumps(rows))

    def messages(row):
        text = f'Räte.\nPROMPT: "{row["Prompt"]}"\nEXPLANATION: "{row["Explanation"]}"\nGo.'
        return [{"role": "user", "content": [{"type": "text", "text": text}]}]

    def digest(row):
        return sha256(json.dumps(messages(row), sort_keys=True, ensure_ascii=False).encode()).hexdigest()

    hashes = {str(row["prompt_id"]): digest(row) for row in rows} | {"3": "0" * 64}
    (folder / "golden_messages_example_legacy.json").write_text(json.dumps(messages(rows[0])))
    (folder / "golden_messages_sha256_legacy.json").write_text(json.dumps(hashes))


def test_messages_of_other_items_are_made_from_the_one_example(tmp_path):
    write_messages(tmp_path)
    checks = wise.verify_sample(tmp_path)
    assert [done.diff for done in checks] == [0.0, 0.0]
    assert checks[1].name.endswith("2 items of 3 are beside it")
    items = tmp_path / "items_legacy.json"
    items.write_text(items.read_text().replace("\\u65e5", "\\u65e6"))
    assert [done.diff for done in wise.verify_sample(tmp_path)] == [0.0, math.inf]


def test_the_example_alone_is_held_against_the_published_words(tmp_path, monkeypatch):
    write_messages(tmp_path)
    path = tmp_path / "golden_messages_example_legacy.json"
    message = json.loads(path.read_text())[0]
    path.write_text(json.dumps([{"role": "system", "content": [{"type": "text", "text": "Be."}]}, message]))
    (tmp_path / "golden_messages_sha256_legacy.json").unlink()
    assert [done.diff for done in wise.verify_sample(tmp_path)] == [math.inf]
    blank = 'Räte.\nPROMPT: "{prompt}"\nEXPLANATION: "{explanation}"\nGo.'
    texts = {key: sha256(text.encode()).hexdigest() for key, text in (("system", "Be."), ("user", blank))}
    monkeypatch.setattr(OLD, "version", replace(LEGACY, texts=texts))
    assert [done.diff for done in wise.verify_sample(tmp_path)] == [0.0]


def test_a_judges_words_that_are_not_the_published_ones_are_warned_of(data):
    with pytest.warns(UserWarning, match="gpt_eval.py: not as published: system, user"):
        OLD.items(data)


def test_hashes_without_the_example_are_said_to_be_unchecked(tmp_path):
    write_messages(tmp_path)
    (tmp_path / "golden_messages_example_legacy.json").unlink()
    (check,) = wise.verify_sample(tmp_path)
    assert math.isnan(check.diff) and "golden_messages_example_legacy.json is needed" in check.name


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="needs the official samples beside the repository")
def test_official_samples_are_met_to_the_digit_and_a_tampered_one_is_not(tmp_path):
    checks = wise.verify_sample(SAMPLES)
    assert len(checks) == 8 and all(done.diff <= 1e-9 for done in checks)
    for path in SAMPLES.iterdir():
        shutil.copyfile(path, tmp_path / path.name)
    scores = tmp_path / "synthetic_scores_verified.jsonl"
    scores.write_text(scores.read_text().replace('"score": 1.0', '"score": 0.0'))
    changed = [done.name for done in wise.verify_sample(tmp_path) if done.diff > 1e-9]
    assert changed == ["golden_calculate_verified_stdout.txt"]
