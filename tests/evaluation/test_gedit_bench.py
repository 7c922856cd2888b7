"""GEdit-Bench: VIEScore's parser, both scorings, the published statistics, and runs with a judge's server."""

import csv
import io
import json
import math
from pathlib import Path

import pytest
from PIL import Image

from deepgen.errors import DataError, InputError
from deepgen.evaluation.benchmark import Answer, ParseError, Status
from deepgen.evaluation.benchmarks import gedit_bench
from deepgen.evaluation.viescore import PROMPTS, official_reply, two_scores

EN, CN = gedit_bench.BENCHMARKS
SAMPLES = Path(__file__).parents[3] / "shared" / "bench_samples" / "gedit_bench"
ROW = {
    "task_type": "background_change",
    "key": "4a7d",
    "instruction": "Change the background.",
    "instruction_language": "en",
    "Intersection_exist": True,
    "source": "sources/a.png",
}
ROWS = [
    ROW,
    ROW | {"key": "5b", "task_type": "subject-add", "instruction": "Add a dog.", "Intersection_exist": False},
    ROW | {"key": "4a7d", "instruction": "把背景换成街道。", "instruction_language": "cn"},
]


def rated(a, b):
    return json.dumps({"score": [a, b], "reasoning": "fine\nenough"})


@pytest.fixture
def data(tmp_path) -> Path:
    """The prepared files with three items."""
    folder = tmp_path / "data" / "gedit_bench"
    (folder / "sources").mkdir(parents=True)
    Image.new("RGB", (48, 80), "olive").save(folder / "sources" / "a.png")
    lines = [json.dumps(row, ensure_ascii=False) for row in ROWS]
    (folder / gedit_bench.ITEMS).write_text("\n".join(lines), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ('{"score": [7, 8], "reasoning": "a\nb"}', [7, 8]),
        ('Sure: {"score": 6} done', [6]),
        ('{"score": [3, 4], "reasoning": "the {sign} is gone"}', [3, 4]),
        ('x ||V^=^V||{"score": [1, 2]}||V^=^V|| {y}', [1, 2]),
        ("I say [6, 0].", [6, 0]),
        (" 7 ", [7]),
        ("{score: 8, reasoning: fine}", [8]),
    ],
)
def test_the_published_parser_reads_json_lists_and_single_numbers(reply, score):
    found = official_reply(reply)
    assert found is not None and found["score"] == score


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "no",
        "11",
        "[1, 2, 3]",
        "[7.5, 8]",
        "{score: [8, 7], reasoning: fine}",
        "} {",
        "||V^=^V||||V^=^V||",
        '{"a":',
        "[5]",
        "[05, 3]",
        '{"score": [7, 8], "reasoning": "a" "b"}',
    ],
)
def test_the_published_parser_gives_up_on_the_rest(reply):
    assert official_reply(reply) is None


@pytest.mark.parametrize(
    "reply", ['{"score": [7, 8]}', "scores: [7, 8]", "[7, 8]", '{"score": [1, 1]} no: {"score": [7.0, 8],}']
)
def test_the_strict_parser_takes_the_last_list_of_two_scores(reply):
    assert two_scores(reply) == [7, 8]


@pytest.mark.parametrize(
    "reply", ["", '{"score": 7}', '{"score": [7]}', '{"score": [7, 11]}', "7", '{"score": ["7", 8]}']
)
def test_the_strict_parser_refuses_what_is_not_two_scores_of_the_scale(reply):
    with pytest.raises(ParseError):
        two_scores(reply)


def answered(semantics, quality, text=""):
    def one(value):
        status = Status.PARSE_FAILED if value is None else Status.OK
        return Answer(status, value, text if value is None else "")

    return {"semantics": one(semantics), "quality": one(quality)}


def units(answers, mode, row=ROW):
    item = gedit_bench.make_item(row, Path("a.png"))
    return {unit.metric: unit.value for unit in EN.score(item, answers, mode)}


def test_the_smallest_score_of_each_reply_counts_and_their_geometric_mean_is_overall():
    found = units(answered([9.0, 4.0], [9.0, 9.0]), "official")
    assert found == {
        "overall": 6.0,
        "semantics": 4.0,
        "quality": 9.0,
        "intersection overall": 6.0,
        "intersection semantics": 4.0,
        "intersection quality": 9.0,
    }
    assert len(units(answered([9.0], [9.0]), "official", ROWS[1])) == 3


def test_an_item_without_a_score_gets_the_lot_of_its_key_officially_and_nothing_strictly():
    lots = {
        key: units(answered(None, [10.0]), "official", ROW | {"key": key})["semantics"] for key in "abcdefgh"
    }
    assert lots == {
        key: units(answered(None, [10.0]), "official", ROW | {"key": key})["semantics"] for key in lots
    }
    assert len(set(lots.values())) > 1 and all(value in range(11) for value in lots.values())
    assert units(answered(None, [10.0]), "strict")["overall"] == 0


def test_an_item_that_the_published_scorer_would_ask_about_forever_is_left_out():
    assert units(answered(None, [10.0], '{"score": oops}'), "official") == {}
    missing = {name: Answer(Status.NO_PICTURE) for name in ("semantics", "quality")}
    assert units(missing, "official") == {}


def test_sources_and_outputs_go_to_the_judge_at_the_sources_size(data):
    calls = EN.calls(EN.items(data)[0], 0, Path("out.png"), EN.judges[0])
    assert [[image.path.name for image in call.images] for call in calls] == [
        ["a.png", "out.png"],
        ["out.png"],
    ]
    assert [call.images[-1].like for call in calls] == [data / "sources" / "a.png"] * 2
    assert calls[0].text.endswith("Editing instruction: Change the background.\n")


def test_the_languages_are_two_benchmarks_of_the_same_pictures(data):
    assert [item.id for item in EN.items(data)] == ["4a7d", "5b"]
    (chinese,) = CN.items(data)
    assert chinese.prompt == "把背景换成街道。"
    assert CN.official_path(chinese, 0) == "fullset/background_change/cn/4a7d.png"


@pytest.mark.parametrize(("mode", "expected"), [("strict", (6 + 0) / 2), ("official", 6.0)])
def test_a_run_is_scored_by_group_and_survives_broken_replies(
    mode, expected, data, judge_server, replies, harness, tmp_path
):
    def reply(request):
        if "Add a dog" in request.text:
            return "{broken}"
        return rated(9, 4) if "Editing instruction" in request.text else rated(9, 9)

    judge_server.reply = reply
    judge_server.script = [
        replies.Status(429, headers={"Retry-After": "0"}),
        replies.Half("x"),
        replies.Garbage(),
    ]
    client = harness.client(judge_server.url, EN.judges[0])
    ran = harness.run_benchmark(EN, data.parent, tmp_path / "run", client, mode=mode)
    assert ran.results.overall["overall"].value == pytest.approx(expected)
    assert ran.results.overall["intersection overall"].value == 6.0
    assert ("subject-add" in ran.results.groups) == (mode == "strict")
    shown = Image.open(io.BytesIO(judge_server.requests[-1].images[-1]))
    assert (shown.size, shown.format) == ((48, 80), "JPEG")


def test_the_chinese_half_runs_too(data, judge_server, harness, tmp_path):
    judge_server.reply = rated(8, 2)
    client = harness.client(judge_server.url, CN.judges[0])
    ran = harness.run_benchmark(CN, data.parent, tmp_path / "run", client)
    assert ran.results.overall["overall"].value == pytest.approx(2.0)
    assert any("把背景换成街道。" in request.text for request in judge_server.requests)


@pytest.mark.parametrize(("change", "message"), [({"task_type": "magic"}, "magic"), ({"key": 7}, "'key'")])
def test_broken_rows_are_named_by_line_and_key(data, change, message):
    (data / gedit_bench.ITEMS).write_text(json.dumps(ROW) + "\n" + json.dumps(ROW | change))
    with pytest.raises(DataError, match=rf"items.jsonl:2: .*{message}"):
        EN.items(data)


def test_export_puts_the_source_beside_the_output(data, tmp_path, harness):
    item = EN.items(data)[0]
    harness.paint(tmp_path / "out.png", "x")
    EN.export_item(tmp_path / "to", item, {0: tmp_path / "out.png"})
    found = sorted(path.relative_to(tmp_path / "to").as_posix() for path in (tmp_path / "to").rglob("*.png"))
    assert found == [f"fullset/background_change/en/4a7d{end}.png" for end in ("", "_SRCIMG")]


def test_parquet_files_are_converted_where_pyarrow_is(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    content = io.BytesIO()
    Image.new("RGB", (20, 10), "teal").save(content, "PNG")
    row = {key: value for key, value in ROW.items() if key != "source"}
    row["input_image"] = {"bytes": content.getvalue(), "path": None}
    (tmp_path / "data").mkdir()
    parquet.write_table(arrow.Table.from_pylist([row]), tmp_path / "data" / "train-0.parquet")
    EN.prepare(tmp_path)
    (item,) = EN.items(tmp_path)
    assert Image.open(item.sources[0]).size == (20, 10)


def test_parquet_files_without_pyarrow_say_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "train.parquet").touch()
    monkeypatch.setattr(gedit_bench, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install pyarrow"):
        EN.prepare(tmp_path)


def sample(folder: Path, drop: str = "") -> Path:
    """A table with one item a group; the first group has two in English, one of them in the intersection."""
    table = io.StringIO()
    header = [
        "source_image",
        "sementics_score",
        "quality_score",
        "intersection_exist",
        "instruction_language",
        "group",
    ]
    writer = csv.writer(table)
    writer.writerow(header)
    for group in gedit_bench.COUNTS:
        if group != drop:
            writer.writerows([["x", 4, 9, True, "en", group], ["x", 5, 5, True, "cn", group]])
    writer.writerow(["x", 9, 1, False, "en", "background_change"])
    (folder / "synthetic_scores.csv").write_text(table.getvalue())
    return folder


FIRST = [6.5, 5.0, 4.5]
MEANS = [(6.5 + 40) / 11, (5.0 + 90) / 11, (4.5 + 60) / 11]
LAYOUTS = {
    "by group": {"en": {"full": {"background_change": FIRST, "Average": MEANS}, "cn": {}}},
    "by metric": {
        "en": {
            "group_scores_semantics": {"model": {"background_change": 6.5, "avg_semantics": MEANS[0]}},
            "group_scores_overall_intersection": {"model": {"background_change": 6.0, "avg_overall": 6.0}},
        }
    },
    "averages": {
        "en_full": {"G_SC": MEANS[0], "G_PQ": MEANS[1], "G_O": MEANS[2]},
        "cn_intersection": {"G_O": 5.0},
    },
    "counts": {"en": {"n_items": 12, "full": {"background_change": {"n": 2}}, "intersection": {"n": 11}}},
    "as the function returns": {
        "en": [
            {"model": {"background_change": first, f"avg_{name}": mean}}
            for first, mean, name in [
                *zip(FIRST, MEANS, gedit_bench.METRICS, strict=True),
                *zip((4.0, 9.0, 6.0), (4.0, 9.0, 6.0), gedit_bench.METRICS, strict=True),
            ]
        ]
    },
    "by language missing": {"zh": {"full": {"Average": [math.nan] * 3}}},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_verify_understands_the_statistics_in_any_layout(tmp_path, layout):
    (sample(tmp_path) / "golden_statistics.json").write_text(json.dumps(LAYOUTS[layout]))
    assert gedit_bench.verify_sample(tmp_path)[0].diff <= 1e-9


def test_verify_reads_what_the_published_script_prints(tmp_path):
    lines = ["Overall:", "Overall Intersection:", "background_change: 6.500, 5.000, 4.500"]
    lines += ["Average: 4.227, 8.636, 5.864", "Intersection:"]
    lines += ["background_change: 4.000, 9.000, 6.000", "Average Intersection: 4.000, 9.000, 6.000"]
    (sample(tmp_path) / "golden_stdout_en.txt").write_text("\n".join(lines))
    assert gedit_bench.verify_sample(tmp_path)[0].diff == 0
    (tmp_path / "golden_stdout_en.txt").write_text("Average: 4.227\t8.636\t5.864")
    assert gedit_bench.verify_sample(tmp_path)[0].diff == 0
    (tmp_path / "golden_stdout_en.txt").write_text("\n".join(lines).replace("6.500", "6.501"))
    assert gedit_bench.verify_sample(tmp_path)[0].diff > 1e-9


@pytest.mark.parametrize("key", ["background_change", "no_such_group"])
def test_verify_fails_at_another_number_or_an_unknown_key(tmp_path, key):
    (sample(tmp_path) / "golden_statistics.json").write_text(
        json.dumps({"en": {"full": {key: [6.5, 5.0, 4.6]}}})
    )
    assert gedit_bench.verify_sample(tmp_path)[0].diff > 1e-9


def test_a_group_without_rows_makes_the_average_not_a_number(tmp_path):
    document = {"en": {"full": {"text_change": [math.nan] * 3, "Average": [math.nan] * 3}}}
    (sample(tmp_path, drop="text_change") / "golden_statistics.json").write_text(json.dumps(document))
    assert gedit_bench.verify_sample(tmp_path)[0].diff == 0


def test_verify_holds_parser_cases_and_prompts_against_ours(tmp_path):
    cases = [
        {"text": "[6, 0]", "parsed": {"score": [6, 0]}},
        {"text": "x", "parsed": False},
        {"text": "7", "min": 7},
        {"text": "I won't", "guess_if_cannot_parse": True, "parsed": {"score": [3]}},
        {"text": "[1, 2]", "guess_if_cannot_parse": False, "parsed": [1, 2]},
    ]
    (tmp_path / "golden_parse.json").write_text(json.dumps({"cases": cases}))
    (tmp_path / "golden_prompts.json").write_text(json.dumps(PROMPTS))
    assert [done.diff for done in gedit_bench.verify_sample(tmp_path)] == [0, 0]
    (tmp_path / "golden_parse.json").write_text(json.dumps([{"text": "[6, 0]", "parsed": False}]))
    (tmp_path / "golden_prompts.json").write_text(json.dumps(PROMPTS | {"PQ_prompt": "?"}))
    assert [done.diff for done in gedit_bench.verify_sample(tmp_path)] == [math.inf, math.inf]


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the official outputs are not here")
def test_all_official_outputs_are_reproduced():
    checks = gedit_bench.verify_sample(SAMPLES)
    assert checks
    assert max(done.diff for done in checks) <= 1e-9
