"""RISEBench: the published parser, choice of questions and tables, the strict ones, and runs with a judge's server."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from deepgen.errors import DataError
from deepgen.evaluation.benchmark import Answer, ParseError, Status
from deepgen.evaluation.benchmarks import risebench
from deepgen.evaluation.rise_family import final_number, official_numbers, read_templates

NEW, OLD = risebench.BENCHMARKS
SAMPLES = Path(__file__).parents[3] / "shared" / "bench_samples" / "risebench"
TEMPLATES = {name: f"{name}: {{instruct}}" for name in risebench.PROMPTS} | {
    name: f"{name}: {{instruct}} / {{reference}}"
    for name in ("prompt_reasoning", "prompt_reasoning_w_input", "prompt_spatial_ref", "prompt_logical_txt")
}
ROW = {
    "index": "temporal_reasoning_1",
    "category": "temporal_reasoning",
    "instruction": "Age it.",
    "image": "a.png",
}
LOGICAL = ROW | {"index": "l1", "category": "logical_reasoning", "reference_img": "l_ref.png"}
ROWS = [
    ROW | {"reference": "Old.", "subtask": "Life Progression"},
    ROW | {"index": "c1", "category": "causal_reasoning", "reference": "Burnt.", "consistency_free": True},
    ROW | {"index": "s1", "category": "spatial_reasoning", "reference_img": "s_ref.png"},
    LOGICAL | {"subtask": "Puzzle Solving"},
]
FULL = "Step by step.\n**Final Score:** **5**"


@pytest.fixture
def data(tmp_path) -> Path:
    """The official files with four items and prompts of our own."""
    folder = tmp_path / "data" / "risebench"
    (folder / "RISEBench").mkdir(parents=True)
    code = "raise SystemExit('a clone must not be run')\n"
    code += "".join(f"{name} = {text!r}\n" for name, text in TEMPLATES.items())
    (folder / risebench.CODE).write_text(code)
    (folder / risebench.DATA).write_text(json.dumps(ROWS))
    for number, name in enumerate(("a.png", "s_ref.png", "l_ref.png")):
        Image.new("RGB", (48, 32), (number * 90, 40, 120)).save(folder / name)
    return folder


def item_of(row, columns=frozenset()):
    return risebench.make_item(row, "row", Path("data"), columns or frozenset(row), TEMPLATES)


def scored(benchmark, item, mode, *numbers):
    asks = [ask["id"] for ask in item.data["asks"]]
    answers = {
        name: Answer(
            Status.PARSE_FAILED if number is None else Status.OK, None if number is None else [number]
        )
        for name, number in zip(asks, numbers, strict=True)
    }
    return {unit.metric: unit.value for unit in benchmark.score(item, answers, mode)}


def test_the_published_parser_takes_what_follows_the_first_final_score_with_digits():
    assert official_numbers("**Final Score:** **X** then **Final Score:** **2**") == [2]
    assert official_numbers("Final Score: 1-5\n**Final Score: 3**") == [1]
    assert official_numbers("Final Scores: 3, 4") == [3, 4]
    assert official_numbers("Final Scores: none") == []
    assert official_numbers("Final Score is 5") is None


@pytest.mark.parametrize(
    ("reply", "number"),
    [
        ("Final Score is 5", 5),
        ("Final Score: 1-5\n**Final Score: 3**", 3),
        ("**Final Score:**\n\n**4**", 4),
        ("final score **2**.", 2),
        ("I weigh it.\n**Score: 4**", 4),
        ("Final Score: 3 ... Final Score: 4/5", 4),
    ],
)
def test_the_strict_parser_takes_the_last_final_score_that_is_no_range(reply, number):
    assert final_number(reply, (1, 2, 3, 4, 5)) == number


@pytest.mark.parametrize(
    "reply", ["", "Final Score: X", "Final Score: 7", "Final Scores: 3, 4", "Final Score: 4.5"]
)
def test_the_strict_parser_refuses_replies_without_one_score_of_the_scale(reply):
    with pytest.raises(ParseError):
        final_number(reply, (1, 2, 3, 4, 5))


def test_a_drawn_spatial_answer_takes_the_place_of_the_source_in_both_questions():
    plan = risebench.plan(ROWS[2], frozenset(ROWS[2]), "row")
    assert plan[0] == ("consistency", "prompt_spatial_cons", ("s_ref.png",))
    assert plan[1] == ("reasoning", "prompt_spatial_ref_img", ("s_ref.png",))
    assert plan[2] == ("quality", "prompt_spatial_qual", ())


def test_one_item_without_a_question_changes_the_prompt_of_all_logical_items():
    alone = risebench.plan(LOGICAL, frozenset(LOGICAL), "row")
    among = risebench.plan(LOGICAL, frozenset(LOGICAL) | {"reasoning_wo_ins"}, "row")
    assert (alone[1][1], among[1][1]) == ("prompt_logical_img", "prompt_logical_img_wo_q")


def test_a_reference_picture_or_text_is_required_by_name():
    with pytest.raises(DataError, match="row 7: neither 'reference_txt' nor 'reference_img'"):
        risebench.plan({**LOGICAL, "reference_img": None}, frozenset(), "row 7")


def test_official_weights_take_an_empty_cell_for_true_and_strict_ones_do_not():
    item = item_of(ROWS[0], frozenset(ROWS[0]) | {"consistency_free"})
    assert scored(NEW, item, "official", 1, 5, 5)["score"] == pytest.approx(100)
    assert scored(NEW, item, "strict", 1, 5, 5)["score"] == pytest.approx(25 * (0.3 + 2.5 + 1.0 - 1))


def test_a_null_in_the_file_is_no_empty_cell_to_the_official_weights():
    columns = frozenset({*ROWS[0], "consistency_free"})
    empty, null = (item_of(ROWS[0] | more, columns) for more in ({}, {"consistency_free": None}))
    assert scored(NEW, empty, "official", 5, 3, 1)["score"] == pytest.approx(40.0)  # 0.8 x 3 + 0.2 x 1 = 2.6
    assert scored(NEW, null, "official", 5, 3, 1)["score"] == pytest.approx(55.0)  # 1.5 + 1.5 + 0.2 = 3.2
    assert [ask["id"] for ask in null.data["asks"]] == ["consistency", "reasoning", "quality"]


def test_without_the_column_official_weights_are_the_documented_ones():
    assert scored(NEW, item_of(ROWS[0]), "official", 1, 5, 5)["score"] == pytest.approx(70)


def test_an_item_without_a_consistency_question_is_solved_since_2026_only():
    item = item_of(ROWS[1])
    assert scored(NEW, item, "official", 5, 5)["accuracy"] == 100
    assert scored(OLD, item, "official", 5, 5)["accuracy"] == 0
    assert scored(OLD, item, "strict", 5, 5)["accuracy"] == 100


def test_a_failed_parse_leaves_an_item_unsolved_and_counts_as_worst_in_strict_scores():
    item = item_of(ROWS[0])
    assert scored(NEW, item, "official", 5, None, 5) == {"accuracy": 0}
    strict = scored(NEW, item, "strict", 5, None, 5)
    assert (strict["reasoning"], strict["score"]) == (0, pytest.approx(25 * ((1.5 + 0.5 + 1.0) / 2 - 1)))


def test_several_numbers_in_a_reply_count_only_where_they_add_up_to_three():
    answers = {"consistency": Answer(Status.OK, [1]), "reasoning": Answer(Status.OK, [1, 0])}
    units = NEW.score(item_of(LOGICAL), answers, "official")
    assert {unit.metric: unit.value for unit in units}["reasoning"] == 0
    answers["reasoning"] = Answer(Status.OK, [1, 0, 2])
    assert NEW.score(item_of(LOGICAL), answers, "official") == ()


@pytest.mark.filterwarnings("ignore:.*not as published")
def test_a_run_shows_the_judge_the_official_pictures_and_survives_broken_replies(
    data, judge_server, replies, harness, tmp_path
):
    judge_server.reply = lambda request: "**Final Score:** **1**" if "logical" in request.text else FULL
    judge_server.script = [
        replies.Status(429, headers={"Retry-After": "0"}),
        replies.Half(FULL),
        replies.Garbage(),
    ]
    client = harness.client(judge_server.url, NEW.judges[0])
    ran = harness.run_benchmark(NEW, data.parent, tmp_path / "run", client)
    assert ran.results.overall["accuracy"].value == 100
    assert ran.results.groups["Temp-Life Progression"]["accuracy"].value == 100
    asked = {request.text: len(request.images) for request in judge_server.requests}
    assert asked["prompt_consist: Age it."] == 2
    assert asked["prompt_reasoning: Age it. / Old."] == 1
    assert asked["prompt_logical_img: Age it."] == 2
    assert len(asked) == 3 + 2 + 3 + 2 - 1  # one quality question's text is shared
    assert judge_server.requests[0].body["max_tokens"] == 4096


@pytest.mark.filterwarnings("ignore:.*not as published")
@pytest.mark.parametrize("mode", ["strict", "official"])
def test_useless_and_refused_replies_follow_the_rule_of_the_mode(
    mode, data, judge_server, replies, harness, tmp_path
):
    def reply(request):
        if "prompt_spatial_qual" in request.text:
            return replies.Refusal()
        if "prompt_reasoning" in request.text and "Burnt" in request.text:
            return "I cannot tell."
        return "Final Score: 1" if "logical" in request.text else FULL

    judge_server.reply = reply
    client = harness.client(judge_server.url, NEW.judges[0])
    ran = harness.run_benchmark(NEW, data.parent, tmp_path / "run", client, mode=mode)
    statuses = {record.item: record.status for record in ran.records}
    # Official scoring takes an unreadable reply as it is, and does not ask again.
    assert statuses["c1"] is (Status.PARSE_FAILED if mode == "strict" else Status.OK)
    assert statuses["s1"] is Status.REFUSED
    assert ran.results.groups["causal_reasoning"]["accuracy"].value == 0
    assert ("reasoning" in ran.results.groups["causal_reasoning"]) == (mode == "strict")
    assert ("spatial_reasoning" in ran.results.groups) == (mode == "official")
    assert ran.results.coverage.counted == (3 if mode == "strict" else 4)


@pytest.mark.filterwarnings("ignore:.*not as published")
def test_a_missing_picture_is_worst_in_strict_scores_and_not_scored_officially(data):
    item = NEW.items(data)[0]
    answers = {ask["id"]: Answer(Status.NO_PICTURE) for ask in item.data["asks"]}
    assert NEW.score(item, answers, "official") == ()
    assert {unit.value for unit in NEW.score(item, answers, "strict")} == {0.0}


def test_changed_prompts_of_a_clone_are_warned_of_and_missing_ones_refused(data):
    with pytest.warns(UserWarning, match="not as published: prompt_consist"):
        read_templates(data / risebench.CODE, risebench.PROMPTS)
    (data / risebench.CODE).write_text("prompt_consist = 'x'")
    with pytest.raises(DataError, match="no text prompt_generation"):
        read_templates(data / risebench.CODE, risebench.PROMPTS)


@pytest.mark.filterwarnings("ignore:.*not as published")
@pytest.mark.parametrize(
    ("key", "value"), [("category", "magic"), ("instruction", None), ("image", "gone.png")]
)
def test_broken_data_is_named_by_file_place_and_key(data, key, value):
    (data / risebench.DATA).write_text(json.dumps([ROWS[0], ROWS[1] | {key: value}]))
    with pytest.raises(DataError, match=f"{value}|item 1: '{key}'"):
        NEW.items(data)


def test_pictures_are_found_with_and_without_the_folder_images(tmp_path):
    item = item_of(ROWS[0])
    path = tmp_path / "images" / "temporal_reasoning" / "temporal_reasoning_1.jpg"
    path.parent.mkdir(parents=True)
    path.touch()
    assert NEW.import_picture(tmp_path, item, 0) == path
    assert NEW.import_picture(tmp_path / "images", item, 0) == path


def sample(folder: Path) -> Path:
    """Nine items, their replies, and what the published arithmetic made of them on paper."""
    final = "**Final Score:** **{}**".format
    cells = {
        "t1": ("temporal", "Life Progression", (final(5), final(5), final(5)), {}),
        "t2": ("temporal", "Societal Transformation", (final(4), final(1), final(3)), {}),
        "c1": (
            "causal",
            "State Transition",
            (None, final(5), "Final Score: 5/5"),
            {"consistency_free": True},
        ),
        "c2": ("causal", "State Transition", (final(5), "no verdict", final(5)), {"reasoning_img": True}),
        "s1": ("spatial", "Layout Reasoning", (final(3), "Final Score: 2", final(4)), {}),
        "s2": ("spatial", "Object Arrangement", ("final score **5**", final(5), final(4)), {}),
        "l1": (
            "logical",
            "Puzzle Solving",
            ("**Final Score**: **1**", "Final Score: 1"),
            {"reference_txt": "t"},
        ),
        "l2": ("logical", "Pattern Prediction", (final(1), final(0)), {"reference_img": "r.png"}),
        "l3": ("logical", "Puzzle Solving", ("Final Score is 1", final(1)), {"reference_txt": "t"}),
    }
    rows = [
        {
            "index": index,
            "category": f"{kind}_reasoning",
            "subtask": subtask,
            "instruction": "i",
            "image": "x.png",
        }
        | ({} if kind == "logical" else {"reference": "r"})
        | more
        for index, (kind, subtask, _, more) in cells.items()
    ]
    judged = {
        index: {f"judge{number}": text for number, text in enumerate(texts, 1)}
        for index, (_, _, texts, _) in cells.items()
    }
    (folder / "synthetic_data_9.json").write_text(json.dumps(rows))
    (folder / "synthetic_judges_9.json").write_text(json.dumps(judged))
    return folder


TABLE = """-,Score-Origin,Score-Percentage,Accuracy
Overall,3.4714285714285715,61.78571428571429,{overall}
Causal,5.0,100.0,{causal}
Spatial,3.6,65.0,0.0
Logical,3.05,51.24999999999999,0.3333333333333333
Overall_ApprConsistency,4.5,87.5,
Causal_Consistency,,,
Spa-Layout Reasoning,2.4000000000000004,35.00000000000001,0.0
Logic-Pattern Prediction,1.1,2.500000000000002,0.0
"""


@pytest.mark.parametrize("name", ["golden_judge_current", "golden_judge_pre-2026-04-13", "golden_table"])
def test_verify_recomputes_the_table_of_the_scorer_that_a_file_is_of(tmp_path, name):
    solved = {"overall": 2 / 9, "causal": 0.0} if "pre" in name else {"overall": 1 / 3, "causal": 0.5}
    (sample(tmp_path) / f"{name}.csv").write_text(TABLE.format(**solved))
    (done,) = risebench.verify_sample(tmp_path)
    assert done.diff <= 1e-9
    assert done.name == f"{name}: risebench-{'2025.05' if 'pre' in name else '2026.04'}"


COLUMNS = ("Score-Origin", "Score-Percentage", "Accuracy")
ROWS_OF = {"Overall": [3.4714285714285715, 61.78571428571429, 1 / 3], "Causal_Consistency": [None] * 3}
TABLES = {
    "lines": ROWS_OF,
    "columns": {name: {k: row[n] for k, row in ROWS_OF.items()} for n, name in enumerate(COLUMNS)},
    "columns and names": {"-": list(ROWS_OF)}
    | {name: [row[n] for row in ROWS_OF.values()] for n, name in enumerate(COLUMNS)},
    "records": [{"-": key, **dict(zip(COLUMNS, row, strict=True))} for key, row in ROWS_OF.items()],
    "header and rows": [["-", *COLUMNS], *([key, *row] for key, row in ROWS_OF.items())],
    "text": {"judge.csv": TABLE.format(overall=1 / 3, causal=0.5)},
}


@pytest.mark.parametrize("layout", TABLES)
def test_verify_reads_a_table_however_it_is_turned(tmp_path, layout):
    golden = sample(tmp_path) / "golden_tables.json"
    golden.write_text(json.dumps({"current": TABLES[layout]}))
    assert risebench.verify_sample(tmp_path)[0].diff <= 1e-9
    golden.write_text(golden.read_text().replace("3.47142", "3.47143"))
    assert risebench.verify_sample(tmp_path)[0].diff > 1e-9


@pytest.mark.parametrize("change", [("65.0", "65.000001"), ("3.6,", ","), ("Spatial", "Spacial")])
def test_verify_fails_at_a_number_a_hole_or_a_line_that_is_not_ours(tmp_path, change):
    text = TABLE.format(overall=1 / 3, causal=0.5)
    assert change[0] in text
    (sample(tmp_path) / "golden_judge.csv").write_text(text.replace(*change, 1))
    (done,) = risebench.verify_sample(tmp_path)
    assert done.diff > 1e-9


def test_verify_fails_for_a_file_that_it_does_not_understand(tmp_path):
    (tmp_path / "golden_other.json").write_text('{"colour": "red"}')
    assert risebench.verify_sample(tmp_path)[0].diff == float("inf")


def test_verify_compares_templates_pictures_and_texts(tmp_path):
    call = {
        "template": "prompt_reasoning",
        "images": ["OUT/images/temporal_reasoning/temporal_reasoning_1.png"],
    }
    text = risebench.PROMPTS["prompt_generation"]
    first = {"template": "prompt_consist", "images": ["in/a.png", *call["images"]], "text_sha256": "1"}
    calls = [
        first,
        call | {"text_sha256": "2"},
        call | {"template": "prompt_generation", "text_sha256": text},
    ]
    entry = {
        "variant": "base",
        "item": ROWS[0],
        "result_keys": {"judge1": True, "judge2": True, "judge3": True},
    }
    path = tmp_path / "golden_message_selection.json"
    path.write_text(json.dumps([entry | {"calls": calls}]))
    assert risebench.verify_sample(tmp_path)[0].diff == 0
    path.write_text(
        json.dumps([entry | {"calls": [first, calls[1] | {"template": "prompt_spatial_ref"}, calls[2]]}])
    )
    assert risebench.verify_sample(tmp_path)[0].diff > 0


def test_a_prompts_hash_is_of_the_file_beside_it_where_there_is_one(tmp_path):
    known = risebench.PROMPTS["prompt_consist"]
    (tmp_path / "golden_prompts_sha256.json").write_text(json.dumps({"prompt_consist": known}))
    assert risebench.verify_sample(tmp_path)[0].diff == 0
    (tmp_path / "utils.py").write_text("prompt_consist = 'changed'")
    assert risebench.verify_sample(tmp_path)[0].diff > 0


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the official outputs are not here")
def test_all_official_outputs_are_reproduced(tmp_path):
    checks = risebench.verify_sample(Path(shutil.copytree(SAMPLES, tmp_path / "risebench")))
    assert len(checks) >= 3
    assert max(done.diff for done in checks) <= 1e-9
