"""UniGenBench: replies about test points, the shares of dimensions, the files in both languages, and whole runs."""

import csv
import json
import math
import shutil
from hashlib import sha256
from pathlib import Path

import pytest

from deepgen.errors import DataError
from deepgen.evaluation.benchmark import Answer, ParseError, Record, Status, Unit
from deepgen.evaluation.benchmarks import unigenbench
from deepgen.evaluation.benchmarks.unigenbench import official_reply, official_scores, strict_reply

EN, EN_LONG, ZH, ZH_LONG = unigenbench.BENCHMARKS
SAMPLES = Path(__file__).parents[3] / "shared" / "bench_samples" / "unigenbench"
CLONE = '''
import os
os.abort()  # a clone's code is never run
SYSTEM_PROMPT_EN_TEMPLATE = """{prompt}|{testpoint}|{explanation}|{test_explanation}"""
EXPLANATION_DICT_EN = {"Style": "of art", "Attribute - Size": "how big"}
SYSTEM_PROMPT_ZH_TEMPLATE = """{prompt}|{testpoint}|{explanation}|{test_explanation}"""
EXPLANATION_DICT_ZH = {"文本生成": "文字", "属性-大小": "大小"}
'''
EN_ROWS = [
    (0, 'a {big} "ink" dog', ["Style", "Attribute - Size"], ["ink", "big"]),
    (7, "a small cat", ["Attribute - Size"], ["small"]),
]
ZH_ROWS = [(3, "招牌上写着“你好，世界”", ["文本生成", "属性-大小"], ["“你好，世界”", "大"])]


def write_prompts(path, benchmark, rows):
    language = benchmark.language
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["index", f"prompt_{language.code}", f"sub_dims_{language.code}"])
        for index, prompt, points, meanings in rows:
            told = {language.points: points, language.meanings: meanings}
            table.writerow([index, prompt, json.dumps(told, ensure_ascii=False)])


@pytest.fixture
def data(tmp_path) -> Path:
    """A clone with two English prompts and a Chinese one."""
    folder = tmp_path / "data" / "unigenbench"
    (folder / "data").mkdir(parents=True)
    (folder / "eval" / "src").mkdir(parents=True)
    (folder / unigenbench.JUDGE_FILE).write_text(CLONE, encoding="utf-8")
    write_prompts(folder / EN.prompts, EN, EN_ROWS)
    write_prompts(folder / ZH.prompts, ZH, ZH_ROWS)
    return folder


def reply_of(scores):
    return f"<analysis>{['fine'] * len(scores)}</analysis>\n<score>{scores}</score>"


def test_the_judge_is_asked_in_the_clones_words(data):
    item = EN.items(data)[0]
    text = EN.calls(item, 0, Path("x.png"), EN.judges[0])[0].text
    assert text == (
        "a {big} \"ink\" dog|['Style', 'Attribute - Size']|"
        "Checkpoints Defination:「\nStyle: of art\nAttribute - Size: how big\n」|"
        "Checkpoints Description:「\nStyle: ink\nAttribute - Size: big\n」"
    )


def test_a_chinese_prompt_is_asked_about_in_chinese(data):
    item = ZH.items(data)[0]
    text = ZH.calls(item, 0, Path("x.png"), ZH.judges[0])[0].text
    assert text.startswith("招牌上写着“你好，世界”|['文本生成', '属性-大小']|考点说明：「\n文本生成: 文字\n")
    assert ZH.official_path(item, 2) == "3_2.png"


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("<analysis>['a', 'b']</analysis><score>[1, 0]</score><score>[1, 1]</score>", (["a", "b"], [1, 0])),
        ("<analysis>\n['a', 'b']\n</analysis><score>1, 0</score>", (["a", "b"], (1, 0))),
        ("<analysis>['a']</analysis><score>[1, 0]</score>", None),
        ("<analysis>['it's', 'b']</analysis><score>[1, 0]</score>", None),
        ("<score>[1, 0]</score>", None),
        ("", None),
    ],
)
def test_the_official_parser_wants_two_lists_of_the_right_length(text, read):
    assert official_reply(text, 2) == read


def test_what_stops_the_official_code_is_asked_again(data):
    item = EN.items(data)[1]
    with pytest.raises(TypeError):
        official_reply("<analysis>['a']</analysis><score>1</score>", 1)
    with pytest.raises(ParseError, match="stops"):
        EN.parse(item, None, "<analysis>['a']</analysis><score>1</score>", "official")


@pytest.mark.parametrize(
    ("score", "back"), [([1, "1"], [1, "1"]), ((1, 0), [1, 0]), ([True], None), ([None], None), ("1", None)]
)
def test_the_official_summary_passes_over_what_json_spells_otherwise(score, back):
    assert official_scores(["fine"], score) == back


def test_an_official_score_in_quotes_is_a_miss_and_a_strict_one_is_not(data):
    item = EN.items(data)[0]
    reply = "<analysis>['a', 'b']</analysis><score>['1', '0']</score>"

    def met(mode):
        answers = {"points": Answer(Status.OK, EN.parse(item, None, reply, mode))}
        return [unit.value for unit in EN.score(item, answers, mode)]

    assert met("official") == [0.0, 0.0]
    assert met("strict") == [1.0, 0.0]


@pytest.mark.parametrize(
    "text", ["<score>[1, 2]</score>", "<score>[1]</score>", "[1, 0]", "<score>yes</score>"]
)
def test_strict_scores_are_zeros_and_ones_for_every_point(text):
    with pytest.raises(ParseError):
        strict_reply(text, 2)


def test_strict_scores_need_no_analysis():
    assert strict_reply("<analysis>['it's broken]</analysis><Score> (1, 0) </Score>", 2) == [1, 0]


def test_dimensions_pool_points_and_overall_averages_dimensions():
    def record(item, *points):
        units = tuple(Unit("point", value, key) for key, value in points)
        return Record(item, 0, "all", Status.OK, units)

    sizes = record("a", ("Attribute - Size", 1.0), ("Attribute - Color", 0.0), ("Attribute - Color", 0.0))
    summary = EN.aggregate([sizes, record("b", ("Style", 1.0))], "strict")
    assert summary.groups["Attribute"]["accuracy"] == pytest.approx(100 / 3)
    assert summary.groups["Attribute - Color"]["accuracy"] == 0.0
    assert summary.overall["overall"] == pytest.approx((100 + 100 / 3) / 2)


def test_a_missing_comma_in_a_row_is_put_in(data):
    path = data / EN.prompts
    path.write_text(path.read_text().replace('""ink"", ""big""', '""ink"" ""big""'))
    assert EN.items(data)[0].data["asked"].endswith("Style: ink\nAttribute - Size: big\n」")


def test_a_row_that_is_no_json_is_named(data):
    path = data / EN.prompts
    path.write_text(path.read_text().replace('{""Testpoints""', '{{""Testpoints""'))
    with pytest.raises(DataError, match=r"test_prompts_en\.csv: row 1"):
        EN.items(data)


def test_a_point_that_the_clone_does_not_explain_is_named(data):
    write_prompts(data / EN.prompts, EN, [(0, "a dog", ["Smell"], ["wet"])])
    with pytest.raises(DataError, match="does not explain 'Smell'"):
        EN.items(data)


def test_a_run_in_chinese_from_files_to_numbers(data, harness, judge_server, replies, tmp_path):
    judge_server.reply = reply_of([1, 0])
    judge_server.script = [
        replies.Status(429, headers={"Retry-After": "0"}),
        replies.Half("<score>"),
        "<score>[1, 0",
        replies.Garbage(),
        replies.Cut("<analysis>['x'"),
    ]
    client = harness.client(judge_server.url, ZH.judges[0])
    ran = harness.run_benchmark(ZH, data.parent, tmp_path / "run", client)
    assert {record.status for record in ran.records} == {Status.OK}
    assert ran.results.groups["文本生成"]["accuracy"].value == 100.0
    assert ran.results.groups["属性"]["accuracy"].value == 0.0
    assert ran.results.overall["overall"].value == 50.0
    assert "你好，世界" in judge_server.requests[0].text


def test_replies_that_never_parse_count_as_misses_strictly_and_not_at_all_officially(
    data, harness, judge_server, tmp_path
):
    judge_server.reply = lambda request: "no idea" if "small cat" in request.text else reply_of([1, 1])
    client = harness.client(judge_server.url, EN.judges[0])

    def run(mode):
        return harness.run_benchmark(EN, data.parent, tmp_path / mode, client, mode).results

    strict, official = run("strict"), run("official")
    assert strict.groups["Attribute - Size"]["accuracy"].value == 50.0
    assert strict.overall["overall"].value == 75.0
    assert official.overall["overall"].value == 100.0
    assert official.coverage.statuses == {"ok": 4, "parse_failed": 4}


def test_offline_judges_see_the_picture_first_as_jpeg(data, harness, judge_server, tmp_path):
    judge_server.reply = lambda request: reply_of([1] * (2 if "ink" in request.text else 1))
    client = harness.client(judge_server.url, EN.judges[1])
    harness.run_benchmark(EN, data.parent, tmp_path / "run", client)
    body = judge_server.requests[0].body
    kinds = [part["type"] for part in body["messages"][0]["content"]]
    assert kinds == ["image_url", "text"] and body["do_sample"] is False
    assert judge_server.requests[0].images[0].startswith(b"\xff\xd8")


def write_golden(folder):
    """Two prompts, three pictures, one of them without scores; its text filled by hand."""
    write_prompts(
        folder / "items_en.csv", EN, [(0, "dog", ["Style"], ["ink"]), (1, "cat", ["Style"], ["oil"])]
    )
    meaning = json.loads(unigenbench.DEFINITIONS.read_text())["definitions"]["Style"]

    def text(prompt, here):
        return (
            f"「{prompt}」 by ['Style']. Checkpoints Defination:「\nStyle: {meaning}\n」 "
            f"Checkpoints Description:「\nStyle: {here}\n」 <prompt>{prompt}</prompt>"
        )

    told = [
        {"index": index, "sha256": sha256(text(*of).encode()).hexdigest()}
        for index, of in enumerate([("dog", "ink"), ("cat", "oil"), ("cow", "ink")])
    ]
    golden = {"all600_sha256": told, "example_index0_full": text("dog", "ink")}
    (folder / "golden_judge_prompts_en.json").write_text(json.dumps(golden))
    rows = [{"index": 0, "j": 0, "score": [1]}, {"index": 1, "j": 0, "score": None}]
    rows += [{"index": 1, "j": 1, "score": ["1"]}, {"index": 1, "j": 2, "score": [True]}]
    (folder / "synthetic_scores_en.json").write_text(json.dumps(rows))
    style = {"Style": {"correct": 1, "total": 2, "accuracy": 0.5}}
    scores = {"primary_dimensions": style, "sub_dimensions": style, "rows_skipped": 2}
    (folder / "golden_scores_en.json").write_text(json.dumps(scores))


def test_goldens_of_our_own_are_recomputed_and_changed_ones_are_found(tmp_path):
    write_golden(tmp_path)
    assert [done.diff for done in unigenbench.verify_sample(tmp_path)] == [0.0] * 4
    prompts, scores = (tmp_path / f"golden_{name}_en.json" for name in ("judge_prompts", "scores"))
    told = json.loads(prompts.read_text())
    told["all600_sha256"][1]["sha256"] = "0" * 64
    prompts.write_text(json.dumps(told))
    scores.write_text(scores.read_text().replace('"rows_skipped": 2', '"rows_skipped": 1'))
    changed = [done.name for done in unigenbench.verify_sample(tmp_path) if done.diff > 1e-9]
    assert changed == [
        "golden_judge_prompts_en.json: 2 prompts of 3 are beside it",
        "golden_scores_en.json: rows_skipped",
    ]


def test_a_chinese_sample_is_recomputed_from_the_definitions_in_its_example(tmp_path):
    rows = [(4, "狗", ["属性-大小"], ["大"]), (5, "猫", ["属性-大小"], ["小"]), (6, "鸟", ["风格"], ["水墨"])]
    write_prompts(tmp_path / "items_zh.csv", ZH, rows)

    def text(prompt, here):
        general = "考点说明：「\n属性-大小: 高低或长短\n」"
        return f"「{prompt}」['属性-大小']：{general}，考点描述说明：「\n属性-大小: {here}\n」。{prompt}"

    hashes = [
        {"index": index, "sha256": sha256(text(*of).encode()).hexdigest()}
        for index, of in ((4, ("狗", "大")), (5, ("猫", "小")))
    ]
    golden = tmp_path / "golden_judge_prompts_zh.json"
    told = {"all600_sha256": [*hashes, {"index": 6, "sha256": "0"}], "example_index4_full": text("狗", "大")}
    golden.write_text(json.dumps(told, ensure_ascii=False), encoding="utf-8")
    (check,) = unigenbench.verify_sample(tmp_path)
    assert check.name.endswith("2 prompts of 3 are beside it") and check.diff == 0
    golden.write_text(golden.read_text(encoding="utf-8").replace(hashes[1]["sha256"], "0" * 64))
    assert unigenbench.verify_sample(tmp_path)[0].diff == math.inf


def test_words_that_are_not_the_published_ones_are_warned_of(data):
    with pytest.warns(UserWarning, match="not as published: SYSTEM_PROMPT_EN_TEMPLATE, EXPLANATION_DICT_EN"):
        EN.items(data)


def test_scores_whose_points_are_not_beside_them_are_checked_by_their_totals(tmp_path):
    write_golden(tmp_path)
    write_prompts(tmp_path / "items_en.csv", EN, [(0, "dog", ["Style"], ["ink"])])
    checks = [done for done in unigenbench.verify_sample(tmp_path) if "scores" in done.name]
    assert "need the full prompt file" in checks[0].name and checks[0].diff == 0.0
    golden = tmp_path / "golden_scores_en.json"
    golden.write_text(golden.read_text().replace('"total": 2', '"total": 3'))
    assert any(done.diff > 1e-9 for done in unigenbench.verify_sample(tmp_path))


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="needs the official samples beside the repository")
def test_official_samples_are_met_to_the_digit_and_a_tampered_one_is_not(tmp_path):
    checks = unigenbench.verify_sample(SAMPLES)
    assert len(checks) == 7 and all(done.diff <= 1e-9 for done in checks)
    for path in SAMPLES.iterdir():
        shutil.copyfile(path, tmp_path / path.name)
    golden = tmp_path / "golden_parse.json"
    told = json.loads(golden.read_text())
    told["cases"][0]["parsed"][1][0] = 0
    golden.write_text(json.dumps(told))
    changed = [done.name for done in unigenbench.verify_sample(tmp_path) if done.diff > 1e-9]
    assert changed == ["golden_parse.json"]
