"""ImgEdit-Bench: both parsers, the published rounding, and runs with a judge's server."""

import json
from pathlib import Path

import pytest
from PIL import Image

from deepgen.errors import DataError
from deepgen.evaluation.benchmark import Answer, ParseError, Record, Status, Unit
from deepgen.evaluation.benchmarks import imgedit
from deepgen.evaluation.benchmarks.imgedit import official_average, three_scores

BENCH = imgedit.BENCHMARKS[0]
SAMPLES = Path(__file__).parents[3] / "shared" / "bench_samples" / "imgedit"
ROWS = {
    "1100": {"id": "cars/1.jpg", "prompt": "Paint it red.", "edit_type": "adjust"},
    "22": {"id": "cars/1.jpg", "prompt": "Add a dog.", "edit_type": "add"},
}
RATED = "Brief reasoning: fine.\nPrompt Compliance: {}\nVisual Naturalness: {}\nPhysical Integrity: {}".format


@pytest.fixture
def data(tmp_path) -> Path:
    """The official files with two items and prompts of our own."""
    folder = tmp_path / "data" / "imgedit"
    (folder / imgedit.DATA).parent.mkdir(parents=True)
    (folder / imgedit.DATA).write_text(json.dumps(ROWS))
    prompts = {kind: f"rate {kind}: <edit_prompt>" for kind in imgedit.PROMPTS}
    (folder / imgedit.PROMPT_FILE).write_text(json.dumps(prompts))
    source = folder / imgedit.PICTURES / "cars" / "1.jpg"
    source.parent.mkdir(parents=True)
    Image.new("RGB", (60, 40), "navy").save(source)
    return folder


@pytest.mark.parametrize(
    ("reply", "average"),
    [
        (RATED(4, 5, 4), 4.33),
        ("**A**: 4\nB: 5\nC: 4/5", 4.5),
        ("A: 4.\nB:5", None),
        ("Brief reasoning: 3\nA: 4\nB: 5\nC: 3", 3.75),
        (" A: 9\n- B: 5\nC: 3", 5.67),
        ("A: B: 3\nC: 2", 2.0),
        ("A: 4²\nB: 2", 2.0),
        ("", None),
    ],
)
def test_the_published_parser_averages_lines_that_are_a_name_and_digits(reply, average):
    assert official_average(reply) == average


@pytest.mark.parametrize(
    "reply",
    [
        RATED(4, 5, 3),
        "**Prompt Compliance:** 4\n**Visual:** 5/5\n**Z:** 3.",
        "Brief reasoning: 1\nA：4\nB：5\nC：3",
        "Sizes: 2\nA: 4 / 5\nB: 5\nC: 3\n",
    ],
)
def test_the_strict_parser_reads_three_scores_through_markup(reply):
    assert three_scores(reply) == [4, 5, 3]


@pytest.mark.parametrize(
    "reply", ["", "I cannot help.", "A: 4\nB: 5", RATED(4, 9, 4), RATED(4, 4.5, 4), '{"A": 4}']
)
def test_the_strict_parser_refuses_fewer_scores_and_other_scales(reply):
    with pytest.raises(ParseError):
        three_scores(reply)


def test_official_numbers_are_rounded_by_item_and_by_type_and_strict_ones_are_not():
    records = [
        Record(str(key), 0, group, Status.OK, (Unit("score", value),))
        for key, (group, value) in enumerate([("add", 3.33), ("add", 3.34), ("add", 3.34), ("style", 2.0)])
    ]
    official, strict = (BENCH.aggregate(records, mode) for mode in ("official", "strict"))
    assert official.groups["add"]["score"] == 3.34
    assert official.overall["score"] == pytest.approx((3.34 + 2.0) / 2, abs=1e-12)
    assert strict.groups["add"]["score"] == pytest.approx(10.01 / 3)


def test_what_was_never_rated_is_left_out_officially_and_worst_strictly(data):
    with pytest.warns(UserWarning, match="not as published"):
        item = BENCH.items(data)[0]
    for status in (Status.NO_PICTURE, Status.PARSE_FAILED):
        assert BENCH.score(item, {"rating": Answer(status)}, "official") == ()
        assert BENCH.score(item, {"rating": Answer(status)}, "strict")[0].value == 1.0


@pytest.mark.filterwarnings("ignore:.*not as published")
@pytest.mark.parametrize(("mode", "expected"), [("strict", (4 + 5 + 3) / 3), ("official", 4.0)])
def test_a_run_sends_the_files_as_they_are_and_survives_broken_replies(
    mode, expected, data, judge_server, replies, harness, tmp_path
):
    judge_server.reply = RATED(4, 5, 3)
    judge_server.script = [
        replies.Status(429, headers={"Retry-After": "0"}),
        replies.Half("x"),
        replies.Garbage(),
    ]
    client = harness.client(judge_server.url, BENCH.judges[0])
    ran = harness.run_benchmark(BENCH, data.parent, tmp_path / "run", client, mode=mode)
    assert ran.results.overall["score"].value == pytest.approx(expected)
    request = next(one for one in judge_server.requests if "rate adjust: Paint it red." in one.text)
    assert request.images[0] == (data / imgedit.PICTURES / "cars" / "1.jpg").read_bytes()
    assert all("data:image/png;base64" in part["image_url"]["url"] for part in request.parts[1:])
    assert "temperature" not in request.body


@pytest.mark.filterwarnings("ignore:.*not as published")
def test_an_unreadable_rating_is_asked_again_in_strict_mode_only(
    data, judge_server, replies, harness, tmp_path
):
    client = harness.client(judge_server.url, BENCH.judges[0])
    for mode, asked in (("official", 2), ("strict", 4)):
        judge_server.requests.clear()
        judge_server.reply = lambda request: "A: 4" if "add" in request.text else RATED(2, 2, 2)
        ran = harness.run_benchmark(BENCH, data.parent, tmp_path / mode, client, mode=mode)
        assert len(judge_server.requests) == asked
        assert ran.results.groups["add"]["score"].value == (4.0 if mode == "official" else 1.0)
        assert ran.results.coverage.counted == 2


@pytest.mark.filterwarnings("ignore:.*not as published")
def test_data_of_the_first_release_and_missing_pictures_are_refused_by_name(data):
    (data / imgedit.DATA).write_text(json.dumps({"9": ROWS["22"] | {"edit_type": "alter"}}))
    with pytest.raises(DataError, match="9: unknown edit_type 'alter'"):
        BENCH.items(data)
    (data / imgedit.DATA).write_text(json.dumps({"9": ROWS["22"] | {"id": "cars/2.jpg"}}))
    with pytest.raises(DataError, match="sysuyy/ImgEdit"):
        BENCH.items(data)


def test_the_ranges_of_keys_hold_as_many_types_as_there_are():
    assert list(imgedit.LAST_KEYS) == sorted(imgedit.LAST_KEYS)
    assert set(imgedit.LAST_KEYS.values()) == imgedit.COUNTS.keys() == imgedit.PROMPTS.keys()
    assert sum(imgedit.COUNTS.values()) == 737


def sample(folder: Path) -> Path:
    replies = {"22": RATED(4, 5, 4), "23": RATED(2, 2, 1), "700": "I cannot help.", "701": RATED(5, 5, 4)}
    (folder / "synthetic_result.json").write_text(json.dumps(replies))
    return folder


GOLDEN = {
    "golden_average_score.json": {"22": 4.33, "23": 1.67, "701": 4.67},
    "golden_typescore.json": {"add": 3.0, "style": 4.67},
    "golden_all.json": {"types": {"add": 3.0, "style": 4.67}, "overall": 3.835},
    "golden_by_type.json": {"style": {"mean": 4.67, "n": 1}, "add": {"mean": 3.0}, "overall_mean": 3.835},
    "golden_parse.json": [{"text": "A: 4\nB: 5", "avg": 4.5}, {"text": "no", "avg": None}],
}


@pytest.mark.parametrize("name", GOLDEN)
def test_verify_recomputes_averages_types_and_parser_cases(tmp_path, name):
    (sample(tmp_path) / name).write_text(json.dumps(GOLDEN[name]))
    assert imgedit.verify_sample(tmp_path)[0].diff <= 1e-9


@pytest.mark.parametrize(
    ("name", "change"), [(name, "4.67") for name in list(GOLDEN)[:4]] + [("golden_parse.json", "4.5")]
)
def test_verify_fails_at_another_number(tmp_path, name, change):
    (sample(tmp_path) / name).write_text(json.dumps(GOLDEN[name]).replace(change, "4.66"))
    assert imgedit.verify_sample(tmp_path)[0].diff > 1e-9


def test_verify_fails_where_an_average_is_missing(tmp_path):
    (sample(tmp_path) / "golden_average_score.json").write_text(json.dumps({"22": 4.33, "23": 1.67}))
    assert imgedit.verify_sample(tmp_path)[0].diff == float("inf")


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the official outputs are not here")
def test_all_official_outputs_are_reproduced():
    checks = imgedit.verify_sample(SAMPLES)
    assert len(checks) >= 2
    assert max(done.diff for done in checks) <= 1e-9
