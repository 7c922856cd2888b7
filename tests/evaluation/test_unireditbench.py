"""UniREditBench: questions, both scorings, the published table, and runs with a judge's server."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from deepgen.errors import DataError
from deepgen.evaluation.benchmark import Answer, Status
from deepgen.evaluation.benchmarks import unireditbench

BENCH = unireditbench.BENCHMARKS[0]
SAMPLES = Path(__file__).parents[3] / "shared" / "bench_samples" / "unireditbench"
TEMPLATES = {
    "prompt_consist": "same? {instruct}",
    "prompt_reasoning_w_ref_image": "right? {instruct} | {reference}",
    "prompt_generation": 'fine? {"no": "field"}',
}
REAL = {
    "original_image_path": "original_image/Pose Adjustment/0.png",
    "reference_image_path": "reference_image/Pose Adjustment/0.png",
    "instruction": "Raise the arm.",
    "name": "Pose Adjustment",
    "idx": 0,
    "reference_effect": "The arm is up.",
}
GAME = REAL | {
    "name": "Sudoku",
    "idx": 7,
    "rules": "Fill 1-9.",
    "instruction": "Solve it.",
    "reference_effect": None,
}
FULL = "**Final Score:** **5**"


@pytest.fixture
def data(tmp_path) -> Path:
    """The official files with two items and prompts of our own."""
    folder = tmp_path / "data" / "unireditbench"
    code = folder / unireditbench.CODE
    code.parent.mkdir(parents=True)
    code.write_text("".join(f"{name} = {text!r}\n" for name, text in TEMPLATES.items()))
    (folder / unireditbench.DATA).write_text(json.dumps([REAL, GAME]))
    for number, key in enumerate(("original_image_path", "reference_image_path")):
        path = folder / REAL[key]
        path.parent.mkdir(parents=True)
        Image.new("RGB", (40, 30), (200 * number, 60, 60)).save(path)
    return folder


def item_of(row):
    return unireditbench.make_item(row, "row", Path("data"), TEMPLATES)


def scored(mode, *numbers):
    answers = {
        name: Answer(Status.OK if number else Status.PARSE_FAILED, number)
        for name, number in zip(("consistency", "reasoning", "quality"), numbers, strict=True)
    }
    return {unit.metric: unit.value for unit in BENCH.score(item_of(REAL), answers, mode)}


def test_rules_come_before_the_instruction_after_a_space_to_draw_and_on_a_line_of_their_own_to_judge():
    item = item_of(GAME)
    assert item.prompt == "Fill 1-9. Solve it."
    assert [ask["text"] for ask in item.data["asks"]] == [
        "same? Fill 1-9.\nSolve it.",
        "right? Fill 1-9.\nSolve it. | ",
        TEMPLATES["prompt_generation"],
    ]


def test_the_reasoning_question_shows_source_reference_and_output():
    calls = BENCH.calls(item_of(REAL), 0, Path("out.png"), BENCH.judges[0])
    shown = [[image.path.name for image in call.images] for call in calls]
    assert shown == [["0.png", "out.png"], ["0.png", "0.png", "out.png"], ["out.png"]]
    assert calls[1].images[1].path.parts[1] == "reference_image"


def test_the_headline_is_the_weighted_score_in_percent():
    assert scored("official", 5, 3, 4)["score"] == pytest.approx(25 * (1.5 + 1.5 + 0.8 - 1))
    assert scored("official", 5, 5, 5)["accuracy"] == 100


def test_an_edit_without_all_three_scores_is_dropped_officially_and_worst_where_it_fails_strictly():
    assert scored("official", 5, None, 5) == {}
    assert scored("strict", 5, None, 5)["score"] == pytest.approx(25 * (1.5 + 0.5 + 1.0 - 1))


def test_the_official_parser_takes_the_first_of_several_numbers():
    call = BENCH.calls(item_of(REAL), 0, Path("o"), BENCH.judges[0])[0]
    assert BENCH.parse(item_of(REAL), call, "**Final Score:**\n4\n5", "official") == 4
    assert BENCH.parse(item_of(REAL), call, "", "official") is None


@pytest.mark.filterwarnings("ignore:.*not as published")
@pytest.mark.parametrize(("mode", "expected"), [("strict", 75.0), ("official", 100.0)])
def test_a_run_gives_numbers_by_class_and_world_and_survives_broken_replies(
    mode, expected, data, judge_server, replies, harness, tmp_path
):
    judge_server.reply = lambda request: "??" if "Solve" in request.text and "right" in request.text else FULL
    judge_server.script = [replies.Status(500), replies.Dropped(), replies.Garbage()]
    client = harness.client(judge_server.url, BENCH.judges[0])
    ran = harness.run_benchmark(BENCH, data.parent, tmp_path / "run", client, mode=mode)
    assert ran.results.overall["score"].value == pytest.approx(expected)
    assert ran.results.groups["real world"]["score"].value == 100
    assert ("game world" in ran.results.groups) == (mode == "strict")
    images = {len(request.images) for request in judge_server.requests if "right?" in request.text}
    assert images == {3}


@pytest.mark.filterwarnings("ignore:.*not as published")
def test_an_edit_that_was_never_drawn_is_absent_officially_and_worst_strictly(
    data, judge_server, harness, tmp_path
):
    judge_server.reply = FULL
    client = harness.client(judge_server.url, BENCH.judges[0])
    overall = {}
    for mode in ("strict", "official"):
        ran = harness.run_benchmark(
            BENCH, data.parent, tmp_path / mode, client, mode=mode, skip=lambda job: job.item.id == "Sudoku#7"
        )
        overall[mode] = ran.results.overall["score"].value
    assert overall == {"strict": 50.0, "official": 100.0}


@pytest.mark.filterwarnings("ignore:.*not as published")
@pytest.mark.parametrize("key", ["name", "reference_image_path", "instruction", "idx"])
def test_a_missing_key_is_named_with_its_place(data, key):
    row = {other: value for other, value in GAME.items() if other != key}
    (data / unireditbench.DATA).write_text(json.dumps([REAL, row]))
    with pytest.raises(DataError, match=f"item 1: no '{key}'"):
        BENCH.items(data)


@pytest.mark.filterwarnings("ignore:.*not as published")
def test_missing_pictures_say_where_they_come_from(data):
    shutil.rmtree(data / "reference_image")
    with pytest.raises(DataError, match="maplebb/UniREditBench"):
        BENCH.items(data)


def test_zip_files_are_unpacked_once_and_broken_ones_named(tmp_path):
    folder = tmp_path / "unireditbench"
    (tmp_path / "made" / "original_image").mkdir(parents=True)
    (tmp_path / "made" / "original_image" / "a.txt").write_text("from the zip")
    shutil.make_archive(str(folder / "original_image"), "zip", tmp_path / "made")
    BENCH.prepare(folder)
    assert (folder / "original_image" / "a.txt").read_text() == "from the zip"
    (folder / "original_image" / "a.txt").write_text("mine")
    BENCH.prepare(folder)
    assert (folder / "original_image" / "a.txt").read_text() == "mine"
    (folder / "reference_image.zip").write_bytes(b"PK broken")
    with pytest.raises(DataError, match=r"reference_image\.zip: cannot be unpacked"):
        BENCH.prepare(folder)


def sample(folder: Path) -> Path:
    """Five edits, their replies, and below what the published arithmetic made of them on paper."""
    texts = {
        "Pose Adjustment#0": (FULL, FULL, FULL),
        "Pose Adjustment#1": ("Final Score: 2", "**Final Score:**\n4\n5", "Final Score: 3"),
        "Sudoku#0": ("", "", ""),
        "Sudoku#1": ("Final Score: 1", "Final Score: 2", FULL),
        "Maze#0": (FULL, "none", FULL),
    }
    rows = [REAL | {"name": key.split("#")[0], "idx": int(key.split("#")[1])} for key in texts]
    judged = {key: {f"judge{n}": text for n, text in enumerate(of, 1)} for key, of in texts.items()}
    (folder / "synthetic_data.json").write_text(json.dumps(rows))
    (folder / "synthetic_judges.json").write_text(json.dumps(judged))
    return folder


TABLE = """-,Score-Origin,Score-Percentage,Accuracy
Overall,3.5,62.5,0.3333333333333333
Overall_Reasoning,3.6666666666666665,66.66666666666666,
Overall_ApprConsistency,2.6666666666666665,41.666666666666664,
Overall_VisualPlausibility,4.333333333333333,83.33333333333333,
Class-Maze,,,
Class-Pose Adjustment,4.1,77.49999999999999,0.5
Class-Sudoku,2.3,32.49999999999999,0.0
"""


def test_verify_recomputes_the_published_table_and_its_classes(tmp_path):
    (sample(tmp_path) / "golden_judge.csv").write_text(TABLE)
    classes = {"Sudoku": [2.3, 32.5, 0.0], "Maze": [float("nan")] * 3}
    (tmp_path / "golden_by_name.json").write_text(json.dumps(classes))
    checks = unireditbench.verify_sample(tmp_path)
    assert len(checks) == 2 and max(done.diff for done in checks) <= 1e-9


@pytest.mark.parametrize("change", [("4.1", "4.100001"), ("Class-Maze,,,", "Class-Maze,1.0,0.0,0.0")])
def test_verify_fails_at_another_number(tmp_path, change):
    (sample(tmp_path) / "golden_judge.csv").write_text(TABLE.replace(*change))
    assert unireditbench.verify_sample(tmp_path)[0].diff > 1e-9


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the official outputs are not here")
def test_all_official_outputs_are_reproduced():
    checks = unireditbench.verify_sample(SAMPLES)
    assert len(checks) >= 2
    assert max(done.diff for done in checks) <= 1e-9
