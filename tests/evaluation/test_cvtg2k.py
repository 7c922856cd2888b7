"""CVTG-2K: words, distances, both scorings, and runs: with canned readings, and with RapidOCR reading drawn signs."""

import json
import math
import shutil
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from deepgen.errors import DataError
from deepgen.evaluation.benchmark import Answer, ParseError, Status
from deepgen.evaluation.benchmarks import cvtg2k
from deepgen.evaluation.benchmarks.cvtg2k import levenshtein, nearness, wanted_words
from deepgen.evaluation.data import prepare
from deepgen.evaluation.judging import judge_run
from deepgen.evaluation.runner import jobs_of
from deepgen.evaluation.scoring import score_run, summarise
from deepgen.scorers import ocr
from deepgen.scorers.ocr_clip import OcrClipScorer
from deepgen.scorers.replies import Reply

BENCH = cvtg2k.BENCHMARKS[0]
SAMPLES = Path(__file__).parents[3] / "shared" / "bench_samples" / "cvtg2k"
PROMPT = "A shop with 'OPEN now' on the door and 'Sale' on a sign."
CJK = "A wooden board with '山田' above and '中田' below."
NEEDS_OCR = pytest.mark.skipif(not ocr.is_available(), reason="rapidocr is not installed")


def write(folder: Path, **prompts: str) -> Path:
    """The eight official files; `CVTG_2=prompt` fills one of them."""
    for area in cvtg2k.COUNTS:
        path = folder / f"{area}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        prompt = prompts.get(area.replace("/", "_").replace("-", ""))
        rows = (
            []
            if prompt is None
            else [{"index": 0, "prompt": prompt, "carrier_list": [], "sentence_list": []}]
        )
        path.write_text(json.dumps({"data_list": rows}, ensure_ascii=False), encoding="utf-8")
    return folder


class Reader:
    """A scorer that reads the same lines in every picture."""

    profile = BENCH.judges[0]

    def __init__(self, *lines, clip=None):
        self.reply = json.dumps({"lines": lines, "clip": clip})

    def answer(self, calls, attempt, keep):
        for place, _ in enumerate(calls):
            keep(place, Reply("ok", self.reply))


def item_of(prompt=PROMPT):
    return cvtg2k.make_item("CVTG/2", "0", prompt, wanted_words(prompt))


def scored(mode, *lines, status=Status.OK, clip=None):
    value = {"lines": list(lines), "clip": clip} if status is Status.OK else None
    found: dict[str, list[float]] = {}
    for unit in BENCH.score(item_of(), {"read": Answer(status, value)}, mode):
        found.setdefault(unit.metric, []).append(unit.value)
    return found


def test_words_are_what_stands_in_single_quotes_split_at_spaces():
    assert wanted_words(PROMPT) == ["open", "now", "sale"]
    assert wanted_words("It says 'don't stop'") == ["don"]
    assert wanted_words("'山田 中日'") == ["山田", "中日"]


@pytest.mark.parametrize(
    ("one", "other", "steps"), [("kitten", "sitting", 3), ("", "abc", 3), ("flaw", "lawn", 2), ("a", "a", 0)]
)
def test_levenshtein_counts_the_fewest_changes(one, other, steps):
    assert levenshtein(one, other) == levenshtein(other, one) == steps


def test_nearness_is_to_the_reading_that_difflib_finds_nearest():
    assert nearness("open", ["now", "opan"]) == pytest.approx(1 - 1 / 4.00001, abs=1e-15)
    assert nearness("open", [""]) == pytest.approx(1 - 4 / 4.00001, abs=1e-15)
    assert nearness("open", []) == 0


def test_one_reading_serves_all_repeats_of_a_word_officially_and_one_strictly():
    assert cvtg2k.found_words(["a", "a", "b"], ["a", "b"], "official") == [True, True, True]
    assert cvtg2k.found_words(["a", "a", "b"], ["a", "b"], "strict") == [True, False, True]


def test_words_must_be_read_exactly_with_their_punctuation():
    found = scored("official", "OPEN, NOW", "SALE")
    assert found["word accuracy"] == [0, 1, 1]
    assert found["ned"][0] == pytest.approx(1 - 1 / 5.00001)


def test_clipscore_is_two_and_a_half_times_the_cosine_and_absent_without_clip():
    assert scored("strict", "x", clip=0.3)["clipscore"] == [0.75]
    assert scored("strict", "x", clip=-0.1)["clipscore"] == [0]
    assert "clipscore" not in scored("strict", "x")


def test_missing_pictures_are_not_counted_officially_and_unread_strictly():
    assert scored("official", status=Status.NO_PICTURE) == {}
    assert scored("strict", status=Status.NO_PICTURE) == {
        "word accuracy": [0, 0, 0],
        "ned": [0, 0, 0],
        "clipscore": [0],
    }


def test_a_reader_that_fails_has_read_nothing():
    assert scored("official", status=Status.PARSE_FAILED) == {"word accuracy": [0, 0, 0], "ned": [0, 0, 0]}


@pytest.mark.parametrize(
    "reply", ["", "[]", '{"lines": [1]}', '{"lines": ["a"], "clip": "b"}', '{"clip": 0.1}']
)
def test_readings_that_are_not_as_agreed_are_refused(reply):
    item = item_of()
    with pytest.raises(ParseError):
        BENCH.parse(item, BENCH.calls(item, 0, Path("a.png"), BENCH.judges[0])[0], reply, "strict")


def test_words_are_pooled_over_areas_and_pictures_weigh_the_same_for_clip(harness, tmp_path):
    write(tmp_path / "data" / "cvtg2k", CVTG_2="'a' 'b' 'c'", CVTGStyle_5="'a'")
    ran = harness.run_benchmark(BENCH, tmp_path / "data", tmp_path / "run", Reader("a", clip=0.2))
    assert ran.results.overall["word accuracy"].value == pytest.approx(2 / 4)
    assert ran.results.groups["CVTG/2"]["word accuracy"].value == pytest.approx(1 / 3)
    assert ran.results.overall["clipscore"].value == pytest.approx(0.5)
    assert not ran.results.coverage.complete


def test_a_reply_cut_in_half_is_no_reading(harness, tmp_path):
    write(tmp_path / "data" / "cvtg2k", CVTG_2=PROMPT)
    reader = Reader("open")
    reader.reply = reader.reply[:9]
    ran = harness.run_benchmark(BENCH, tmp_path / "data", tmp_path / "run", reader)
    assert ran.records[0].status is Status.PARSE_FAILED
    assert ran.results.overall["word accuracy"].value == 0


def test_the_other_spelling_of_the_style_folder_is_taken_over(tmp_path):
    folder = write(tmp_path / "cvtg2k", CVTGStyle_2="'a'")
    (folder / "CVTG-Style").rename(folder / "moved")
    (folder / "moved").rename(folder / "CVTG-style")
    BENCH.prepare(folder)
    assert [item.id for item in BENCH.items(folder)] == ["CVTG-Style/2/0"]


def test_the_download_is_unpacked(tmp_path):
    write(tmp_path / "made", CVTG_2="'a'")
    (tmp_path / "cvtg2k").mkdir()
    shutil.make_archive(str(tmp_path / "cvtg2k" / "CVTG-2K"), "zip", tmp_path / "made")
    BENCH.prepare(tmp_path / "cvtg2k")
    assert len(BENCH.items(tmp_path / "cvtg2k")) == 1


def test_a_prompt_without_a_quote_is_named_by_file_and_place(tmp_path):
    folder = write(tmp_path / "cvtg2k", CVTG_3="A shop.")
    with pytest.raises(DataError, match=r"CVTG/3.json: data_list\[0\]"):
        BENCH.items(folder)


# Characters as strokes on a grid of 100, so that no font is needed.
STROKES = {
    "山": [(50, 10, 50, 85), (15, 40, 15, 86), (85, 40, 85, 86), (15, 85, 85, 85)],
    "田": [
        (18, 15, 82, 15),
        (18, 15, 18, 88),
        (82, 15, 82, 88),
        (18, 51, 82, 51),
        (50, 15, 50, 88),
        (18, 86, 82, 86),
    ],
    "中": [(20, 30, 80, 30), (20, 65, 80, 65), (20, 30, 20, 65), (80, 30, 80, 65), (50, 8, 50, 95)],
}


def draw_sign(path: Path, *lines: str) -> None:
    picture = Image.new("RGB", (300, 60 + 160 * len(lines)), "white")
    pen = ImageDraw.Draw(picture)
    for row, line in enumerate(lines):
        for place, character in enumerate(line):
            left, top = 44 + 96 * place, 40 + 160 * row
            for x0, y0, x1, y1 in STROKES[character]:
                ends = [left + x0 * 0.84, top + y0 * 0.86, left + x1 * 0.84, top + y1 * 0.86]
                pen.line(ends, fill="black", width=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


@NEEDS_OCR
def test_chinese_words_that_are_drawn_are_read_and_others_are_not(harness, tmp_path):
    write(tmp_path / "data" / "cvtg2k", CVTG_2=CJK, CVTGStyle_2=CJK)
    items = prepare(BENCH, tmp_path / "data", allow_partial=True, seen=tmp_path / "hashes.json").items
    run = harness.draw_run(BENCH, items, tmp_path / "run", lambda job: True)
    right, wrong = (job.path(run.folder) for job in jobs_of(BENCH, items, 1, 0))
    draw_sign(right, "山田", "中田")
    draw_sign(wrong, "山田", "山田")
    scorer = OcrClipScorer()
    judge_run(run, scorer, "strict", lambda step, done, total: None)
    results = summarise(
        run, score_run(run, scorer.profile, "strict").records, scorer.profile, "strict", True, resamples=20
    )
    assert results.groups["CVTG/2"]["word accuracy"].value == 1.0
    assert results.groups["CVTG-Style/2"]["word accuracy"].value == 0.5
    assert results.groups["CVTG-Style/2"]["ned"].value == pytest.approx(0.75, abs=1e-4)


def sample(folder: Path) -> Path:
    readings = {
        "gt_words": {
            "CVTG/2/0.png": ["open", "now"],
            "CVTG/3/2.png": ["sale"],
            "CVTG-Style/2/0.png": ["cafe"],
        },
        "ocr_lines": {"CVTG/2/0.png": ["OPEN", "nov"], "CVTG/3/2.png": ["sale"], "CVTG-Style/2/0.png": None},
    }
    (folder / "synthetic_ocr.json").write_text(json.dumps(readings))
    return folder


NEAR = [1.0, 1 - 1 / 3.00001]
NOTHING = 1 - 4 / 4.00001
LAYOUTS = {
    "published": {
        "overall_results": {
            "word_accuracy": 0.5,
            "ned": (sum(NEAR) + 1 + NOTHING) / 4,
            "clipscore": 0.0,
            "total_words": 4,
        },
        "area_results": [
            {
                "area": 2,
                "benchmark_type": "CVTG",
                "word_accuracy": 0.5,
                "total_images": 1,
                "ned_word_data": NEAR,
            },
            {"area": 2, "benchmark_type": "CVTG-Style", "ned": NOTHING, "correct_words": 0},
        ],
    },
    "by area": {"CVTG/2": {"word_acc": 0.5, "NED": sum(NEAR) / 2}, "CVTG/3": {"word_acc": 1.0}},
    "by picture": {"CVTG/2/0.png": [2, 1, NEAR], "CVTG/3/2.png": [1, 1, [1.0]]},
    "list of pictures": [{"image": "CVTG/2/0.png", "total_words": 2, "ned": sum(NEAR) / 2}],
    "reader failed": {"CVTG-Style/2": {"ned": 0.0}},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_verify_recomputes_numbers_in_any_layout(tmp_path, layout):
    (sample(tmp_path) / "golden_metrics.json").write_text(json.dumps(LAYOUTS[layout]))
    assert cvtg2k.verify_sample(tmp_path)[0].diff <= 1e-9


@pytest.mark.parametrize(
    "document", [{"CVTG/2": {"ned": 0.84}}, {"CVTG/4": {"ned": 1.0}}, {"overall": {"hue": 1.0}}]
)
def test_verify_fails_at_other_numbers_areas_and_metrics(tmp_path, document):
    (sample(tmp_path) / "golden_metrics.json").write_text(json.dumps(document))
    assert cvtg2k.verify_sample(tmp_path)[0].diff > 1e-9


def test_verify_fails_where_there_is_nothing_to_recompute_from(tmp_path):
    (tmp_path / "golden_metrics.json").write_text(json.dumps(LAYOUTS["by area"]))
    assert cvtg2k.verify_sample(tmp_path)[0].diff == math.inf


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the official files are not here")
def test_the_official_prompts_hold_the_official_words():
    readings = json.loads((SAMPLES / "synthetic_ocr.json").read_text())
    for area in cvtg2k.COUNTS:
        for row in json.loads((SAMPLES / "prompts" / f"{area}.json").read_text())["data_list"]:
            assert wanted_words(row["prompt"]) == readings["gt_words"][f"{area}/{row['index']}.png"]
    assert all(done.diff <= 1e-9 for done in cvtg2k.verify_sample(SAMPLES))
