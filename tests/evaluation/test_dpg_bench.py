"""DPG-Bench: questions that depend on each other, the official defects, grids, and runs with canned answers."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from deepgen.errors import DataError, InputError
from deepgen.evaluation.benchmark import Answer, ParseError, Record, Status
from deepgen.evaluation.benchmarks import dpg_bench
from deepgen.evaluation.benchmarks.dpg_bench import LostParentError, read_questions, zero_dependants
from deepgen.scorers.replies import Reply

MPLUG, VLM = dpg_bench.BENCHMARKS
SAMPLES = Path(__file__).parents[3] / "shared" / "bench_samples" / "dpg_bench"
HEADER = (
    "item_id,text,keywords,proposition_id,dependency,category_broad,category_detailed,"
    "tuple,question_natural_language"
)
ROWS = """
partiprompts97,t,,1,0,entity,whole,entity - whole (mug),Is there a mug?
partiprompts97,t,,2,1,attribute,color,"attribute - color (mug, red)",Is the mug red?
28,t,,1,0,entity,whole,entity - whole (kite),Is there a kite?
28,t,,2,3,attribute,color,"attribute - color (tail, long)",Is the tail long?
28,t,,3,1,entity,part,entity - part (tail),Has the kite a tail?
whoops0,t,,1,0,global,,global - (painting),Is this a painting?
whoops0,t,,2,"0, 1",other,count,"other - count (trees, ==3)",Are there three trees?
"""


@pytest.fixture
def data(tmp_path) -> Path:
    """Three items of the official files."""
    folder = tmp_path / "data" / "dpg_bench"
    (folder / dpg_bench.PROMPTS).mkdir(parents=True)
    (folder / dpg_bench.QUESTIONS).write_text(HEADER + ROWS)
    for name in ("partiprompts97", "28", "whoops0"):
        (folder / dpg_bench.PROMPTS / f"{name}.txt").write_text(f"A paragraph about {name}.\n")
    return folder


class Program:
    """A scorer that answers by question and picture: `reply(question, path)`."""

    profile = MPLUG.judges[0]

    def __init__(self, reply):
        self.reply = reply

    def answer(self, calls, attempt, keep):
        for place, call in enumerate(calls):
            keep(place, Reply("ok", self.reply(call.text, str(call.images[0].path))))


def questions_of(data, name, mode):
    return read_questions(data / dpg_bench.QUESTIONS, mode)[name]


def test_the_official_loader_loses_the_first_row(data):
    assert [q["id"] for q in questions_of(data, "partiprompts97", "official")] == [2]
    assert [q["id"] for q in questions_of(data, "partiprompts97", "strict")] == [1, 2]


def test_rows_that_stand_apart_replace_the_earlier_ones_officially(tmp_path):
    path = tmp_path / "q.csv"
    rows = "x1,,,1,0,,,t,lost\nx1,,,2,0,,,t,a\nx2,,,1,0,,,t,b\nx1,,,3,0,,,t,c\n"
    path.write_text(f"{HEADER}\n{rows}")
    assert [q["id"] for q in read_questions(path, "official")["x1"]] == [3]
    assert [q["id"] for q in read_questions(path, "strict")["x1"]] == [1, 2, 3]


def test_a_parent_that_falls_later_is_seen_only_in_strict_mode(data):
    questions = questions_of(data, "28", "strict")
    scores = {1: 0.0, 2: 1.0, 3: 1.0}
    assert zero_dependants(questions, scores, "official") == {1: 0.0, 2: 1.0, 3: 0.0}
    assert zero_dependants(questions, scores, "strict") == {1: 0.0, 2: 0.0, 3: 0.0}


def test_a_lost_parent_drops_the_item_officially_and_nothing_strictly(data):
    questions = questions_of(data, "partiprompts97", "official")
    with pytest.raises(LostParentError):
        zero_dependants(questions, {2: 1.0}, "official")
    assert zero_dependants(questions, {2: 1.0}, "strict") == {2: 1.0}


def test_only_a_bare_yes_is_yes_to_the_official_parser():
    assert MPLUG.parse(None, None, "yes", "official") is True
    assert MPLUG.parse(None, None, "Yes", "official") is False
    assert MPLUG.parse(None, None, "Yes.", "strict") is True
    assert VLM.parse(None, None, "No, there is none", "official") is False


@pytest.mark.parametrize("reply", ["", "maybe", "yes and no", "I cannot say", "yesterday"])
def test_an_unclear_reply_is_no_answer(reply):
    with pytest.raises(ParseError):
        VLM.parse(None, None, reply, "strict")


def test_another_judge_makes_no_dpg_score(data):
    item = MPLUG.items(data)[0]
    with pytest.raises(InputError, match="dpg-vlm"):
        MPLUG.calls(item, 0, Path("x.png"), VLM.judges[0])
    assert MPLUG.calls(item, 0, Path("x.png"), MPLUG.judges[0])[0].text == "Is there a mug?"


def answer_by(picture_says_no):
    return Program(lambda question, path: "no" if picture_says_no(question, path) else "yes")


def test_strict_scores_average_pictures_and_official_ones_drop_what_the_lost_row_breaks(
    data, harness, tmp_path
):
    program = answer_by(lambda question, path: "kite?" in question and path.endswith("-0.png"))

    def run(mode):
        return harness.run_benchmark(MPLUG, data.parent, tmp_path / mode, program, mode).results

    official, strict = run("official"), run("strict")
    assert strict.overall["overall"].value == pytest.approx(100 * (1 + 3 / 4 + 1) / 3)
    # Without a fixed point the tail's length still counts in the first picture: 1/3 instead of 0.
    assert official.overall["overall"].value == pytest.approx(100 * ((1 / 3 + 3) / 4 + 1) / 2)
    assert "partiprompts" not in official.groups
    assert official.groups["L2 entity - whole"]["dpg"].value == 100.0
    assert strict.groups["L2 entity - whole"]["dpg"].value == pytest.approx(100 * 7 / 8)


def test_a_missing_picture_drops_the_item_officially_and_counts_as_nothing_strictly(data, harness, tmp_path):
    def missing(job):
        return job.item.id == "whoops0" and job.sample == 3

    def run(mode):
        return harness.run_benchmark(
            MPLUG, data.parent, tmp_path / mode, answer_by(lambda q, p: False), mode, skip=missing
        ).results

    assert run("strict").groups["whoops"]["dpg"].value == 75.0
    assert "whoops" not in run("official").groups


def test_a_judge_at_an_endpoint_makes_dpg_vlm(data, harness, judge_server, replies, tmp_path):
    judge_server.reply = lambda request: "No" if "trees" in request.text else "Yes."
    judge_server.script = [
        replies.Status(429, headers={"Retry-After": "0"}),
        replies.Half("yes"),
        replies.Garbage(),
        "perhaps",
        replies.Dropped(),
    ]
    client = harness.client(judge_server.url, VLM.judges[0])
    ran = harness.run_benchmark(VLM, data.parent, tmp_path / "run", client)
    assert {record.status for record in ran.records} == {Status.OK}
    assert ran.results.overall["overall"].value == pytest.approx(100 * (1 + 1 + 0.5) / 3)
    assert ran.results.metric("overall").startswith("dpg-vlm/")


def test_a_refused_question_leaves_the_picture_out_of_strict_scores(
    data, harness, judge_server, replies, tmp_path
):
    judge_server.reply = lambda request: replies.Refusal() if "mug" in request.text else "yes"
    client = harness.client(judge_server.url, VLM.judges[0])
    ran = harness.run_benchmark(VLM, data.parent, tmp_path / "run", client)
    refused = [record for record in ran.records if record.item == "partiprompts97"]
    assert {record.status for record in refused} == {Status.REFUSED}
    assert all(not record.units for record in refused)


def test_grids_are_cut_and_pasted_in_reading_order(data, tmp_path):
    item = MPLUG.items(data)[0]
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (9, 9, 9)]
    pictures = {}
    for sample, colour in enumerate(colours):
        pictures[sample] = tmp_path / f"{sample}.png"
        Image.new("RGB", (8, 8), colour).save(pictures[sample])
    MPLUG.export_item(tmp_path / "out", item, pictures)
    with Image.open(tmp_path / "out" / "partiprompts97.png") as grid:
        assert grid.getpixel((12, 3)) == (0, 255, 0)
    crops = [MPLUG.import_picture(tmp_path / "out", item, sample) for sample in range(4)]
    assert [crop.getpixel((4, 4)) for crop in crops] == colours
    assert MPLUG.import_picture(tmp_path, item, 0) is None


def test_what_makes_no_grid_is_refused(data, tmp_path):
    item = MPLUG.items(data)[0]
    Image.new("RGB", (16, 8)).save(tmp_path / "partiprompts97.png")
    with pytest.raises(DataError, match="16x8"):
        MPLUG.import_picture(tmp_path, item, 0)
    with pytest.raises(DataError, match="needs 4 pictures"):
        MPLUG.export_item(tmp_path, item, {0: tmp_path / "partiprompts97.png"})


def test_a_broken_row_is_named(data):
    path = data / dpg_bench.QUESTIONS
    path.write_text(path.read_text().replace('"0, 1"', "some"))
    with pytest.raises(DataError, match="row 7"):
        MPLUG.items(data)


def test_an_item_with_fewer_pictures_than_others_is_left_out_officially(data):
    item = MPLUG.items(data)[2]
    answers = {str(index): Answer(Status.OK, True) for index in (1, 2)}
    units = tuple(MPLUG.score(item, answers, "official"))
    whole = [Record("a", sample, "whoops", Status.OK, units) for sample in range(4)]
    half = [Record("b", sample, "vrd", Status.OK, units) for sample in range(2)]
    assert set(MPLUG.aggregate([*whole, *half], "official").groups) & {"whoops", "vrd"} == {"whoops"}
    assert set(MPLUG.aggregate([*whole, *half], "strict").groups) & {"whoops", "vrd"} == {"whoops", "vrd"}


def test_one_picture_that_breaks_the_official_code_drops_the_whole_item(tmp_path):
    (tmp_path / "synthetic_dpg_bench.csv").write_text(
        f'{HEADER}\nfirst0,,,1,0,,,t,lost?\nx1,,,1,0,,,t,a?\nx1,,,2,"1, 9",,,t,b?\nx2,,,1,0,,,t,c?\n'
    )
    # Where a is no, the missing question 9 is never looked up.
    crops = {"0": {"a?": "yes", "b?": "yes"}, "1": {"a?": "no", "b?": "yes"}}
    lost = {"item_id": "x1", "answers_by_crop": crops, "official_result": "EXCEPTION KeyError(9)"}
    kept = {"item_id": "x2", "answers_by_crop": {"0": {"c?": "yes"}, "1": {"c?": "no"}}}
    kept |= {"average_score": 0.5, "qid2scores_orig_last_crop": {"1": 0.0}}
    golden = {"items": [lost, kept], "per_image_scores": [["1.0", "0.0", "0.5"]], "DPG": 50.0}
    (tmp_path / "golden_official.json").write_text(json.dumps(golden))
    assert [done.diff for done in dpg_bench.verify_sample(tmp_path)] == [0.0, 0.0, 0.0]


def test_the_report_shows_questions_with_their_replies(data):
    item = MPLUG.items(data)[0]
    told = MPLUG.explain(item, {"1": Answer(Status.OK, True, "yes"), "2": Answer(Status.NO_PICTURE)})
    assert told == "Is there a mug? yes\nIs the mug red? "


def write_golden(folder):
    """Two items by hand: one lost with the first row, one that is half right in each of two crops."""
    (folder / "synthetic_dpg_bench.csv").write_text(HEADER + ROWS)
    asked = {"Is there a kite?": "yes", "Is the tail long?": "yes", "Has the kite a tail?": "no"}
    mug = {"Is there a mug?": "yes", "Is the mug red?": "yes"}
    golden = {
        "items": [
            {
                "item_id": "partiprompts97",
                "answers_by_crop": {"0": mug},
                "official_result": "EXCEPTION KeyError(1)",
            },
            {
                "item_id": "28",
                "answers_by_crop": {"0": asked, "1": asked | {"Is there a kite?": "Yes"}},
                "average_score": (1 / 3 + 0) / 2,
                "qid2scores_orig_last_crop": {"1": 0.0, "2": 1.0, "3": 0.0},
            },
        ],
        "per_image_scores": [["0.3333333333333333", "0.0", "0.16666666666666666"]],
        "DPG": 100 / 6,
        "L1": {"entity": 0.0, "attribute": 100.0},
        "L2": {"entity - whole": 0.0, "entity - part": 0.0, "attribute - color": 100.0},
    }
    (folder / "golden_official.json").write_text(json.dumps(golden))
    return golden


def test_goldens_of_our_own_are_recomputed_and_a_changed_one_is_found(tmp_path):
    golden = write_golden(tmp_path)
    checks = dpg_bench.verify_sample(tmp_path)
    assert len(checks) == 5 and all(done.diff <= 1e-9 for done in checks)
    golden["L2"]["entity - part"] = 50.0
    (tmp_path / "golden_official.json").write_text(json.dumps(golden))
    assert max(done.diff for done in dpg_bench.verify_sample(tmp_path)) == 50.0


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="needs the official samples beside the repository")
def test_official_samples_are_met_to_the_digit_and_a_tampered_one_is_not(tmp_path):
    checks = dpg_bench.verify_sample(SAMPLES)
    assert len(checks) == 6 and all(done.diff <= 1e-9 for done in checks)
    shutil.copyfile(SAMPLES / "synthetic_dpg_bench.csv", tmp_path / "synthetic_dpg_bench.csv")
    text = (SAMPLES / "golden_official.json").read_text()
    (tmp_path / "golden_official.json").write_text(text.replace("EXCEPTION KeyError(1)", "0.5"))
    assert max(done.diff for done in dpg_bench.verify_sample(tmp_path)) > 1e-9
