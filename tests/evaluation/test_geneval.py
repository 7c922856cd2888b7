"""GenEval: the rules on boxes, the files, and a run with a detector that answers what the test says."""

import json
import shutil
from pathlib import Path

import pytest

from deepgen.errors import DataError
from deepgen.evaluation.benchmark import Answer, ParseError, Record, Status, Unit
from deepgen.evaluation.benchmarks import geneval
from deepgen.evaluation.benchmarks.geneval import judge_picture, overlap, relative_position
from deepgen.scorers.replies import Reply

BENCH = geneval.BENCHMARKS[0]
SAMPLES = Path(__file__).parents[3] / "shared" / "bench_samples" / "geneval"
LEFT, RIGHT = [0, 0, 10, 10, 0.9], [100, 0, 110, 10, 0.8]
ROWS = [
    {"tag": "single_object", "include": [{"class": "cat", "count": 1}], "prompt": "a photo of a cat"},
    {
        "tag": "counting",
        "include": [{"class": "cat", "count": 2}],
        "exclude": [{"class": "cat", "count": 3}],
        "prompt": "a photo of two cats",
    },
    {
        "tag": "colors",
        "include": [{"class": "cat", "count": 1, "color": "red"}],
        "prompt": "a photo of a red cat",
    },
    {
        "tag": "position",
        "include": [
            {"class": "dog", "count": 1},
            {"class": "cat", "count": 1, "position": ["left of", 0]},
        ],
        "prompt": "a photo of a cat left of a dog",
    },
]


@pytest.fixture
def data(tmp_path) -> Path:
    """The official files with four prompts."""
    folder = tmp_path / "data" / "geneval"
    (folder / "prompts").mkdir(parents=True)
    (folder / "evaluation").mkdir()
    (folder / geneval.METADATA).write_text("\n".join(json.dumps(row) for row in ROWS) + "\n")
    names = ["cat", "dog", *(f"thing {number}" for number in range(78))]
    (folder / geneval.CLASSES).write_text("\n".join(names) + "\n")
    return folder


class Detector:
    """A scorer that sees a table: prompt → reply."""

    profile = BENCH.judges[0]

    def __init__(self, replies):
        self.replies = replies

    def answer(self, calls, attempt, keep):
        for place, call in enumerate(calls):
            text = next(reply for name, reply in self.replies.items() if name in str(call.images[0].path))
            keep(place, Reply("ok", text if isinstance(text, str) else json.dumps(text)))


def seen(**detections):
    return {"detections": detections, "colors": {name: ["red"] * len(of) for name, of in detections.items()}}


def test_positions_need_more_than_half_of_the_distance_along_an_axis():
    assert relative_position(LEFT, RIGHT) == {"left of"}
    assert relative_position(RIGHT, LEFT) == {"right of"}
    assert relative_position([0, 0, 10, 10], [100, 100, 110, 110]) == {"left of", "above"}
    assert relative_position([100, 100, 110, 110], [0, 0, 10, 10]) == {"right of", "below"}


def test_boxes_that_overlap_in_their_slack_have_no_relation():
    assert relative_position([0, 0, 100, 100], [15, 0, 115, 100]) == set()
    assert relative_position([0, 0, 100, 100], [39, 0, 139, 100]) == set()
    assert relative_position([0, 0, 100, 100], [41, 0, 141, 100]) == {"left of"}


def test_overlap_counts_the_last_pixel():
    assert overlap([0, 0, 9, 9], [0, 0, 9, 9]) == 1.0
    assert overlap([0, 0, 1, 1], [1, 1, 2, 2]) == pytest.approx(1 / 7)


def test_only_the_most_confident_boxes_are_held_to_the_colour():
    clause = {"include": [{"class": "cat", "count": 1, "color": "red"}]}
    found = {"cat": [LEFT, RIGHT]}
    table = {"cat": ["blue", "red"]}
    wrong = judge_picture(clause, found, lambda name, count: table[name][:count])
    assert wrong == ["expected red cat>=1, found 0 red; and 1 blue"]


def test_a_place_beside_something_missing_is_wrong_twice():
    wrong = judge_picture(ROWS[3], {"cat": [LEFT]}, lambda name, count: [])
    assert wrong == ["expected dog>=1, found 0", "no target for cat to be left of"]


def test_one_too_many_is_wrong():
    wrong = judge_picture(ROWS[1], {"cat": [LEFT, RIGHT, LEFT]}, lambda name, count: [])
    assert wrong == ["expected cat<3, found 3"]


def test_counting_asks_for_surer_boxes_than_the_rest(data):
    items = BENCH.items(data)
    call = BENCH.calls(items[1], 0, Path("x.png"), BENCH.judges[0])[0]
    assert call.data["threshold"] == 0.9
    reply = json.dumps(seen(cat=[[0, 0, 9, 9, 0.95], [20, 0, 29, 9, 0.91], [40, 0, 49, 9, 0.9]]))
    assert BENCH.parse(items[1], call, reply, "strict")["correct"]


def test_no_more_than_sixteen_boxes_of_a_class_count(data):
    items = BENCH.items(data)
    boxes = [[i, 0, i + 5, 9, 0.95] for i in range(20)]
    told = BENCH.parse(items[1], None, json.dumps(seen(cat=boxes)), "strict")
    assert told == {"correct": False, "reason": "expected cat<3, found 16"}


@pytest.mark.parametrize(
    "reply",
    ["", "[]", '{"detections": 3}', '{"detections": {"cat": [[1, 2]]}}', '{"detections": {"cat": null}}'],
)
def test_a_broken_reply_of_a_detector_is_no_verdict(data, reply):
    with pytest.raises(ParseError):
        BENCH.parse(BENCH.items(data)[0], None, reply, "strict")


def test_colours_that_the_detector_forgot_are_no_verdict(data):
    with pytest.raises(ParseError, match="too few colours of cat"):
        BENCH.parse(BENCH.items(data)[2], None, json.dumps({"detections": {"cat": [LEFT]}}), "strict")


def test_a_run_counts_missing_pictures_as_wrong_only_in_strict_mode(data, harness, tmp_path):
    detector = Detector(
        {
            "00000": seen(cat=[LEFT]),
            "00001": seen(cat=[LEFT]),
            "00002": "not json",
            "00003": seen(cat=[LEFT], dog=[RIGHT]),
        }
    )

    def run(mode):
        return harness.run_benchmark(
            BENCH,
            data.parent,
            tmp_path / mode,
            detector,
            mode,
            skip=lambda job: job.item.id == "00003" and job.sample > 1,
        )

    strict, official = run("strict").results, run("official").results
    assert strict.groups["position"]["correct"].value == 0.5
    assert strict.overall["overall"].value == pytest.approx((1 + 0 + 0 + 0.5) / 4)
    assert official.groups["position"]["correct"].value == 1.0
    assert "colors" not in official.groups
    assert official.overall["overall"].value == pytest.approx(2 / 3)


def test_prompts_are_right_with_any_right_picture_also_when_drawn_twice():
    def record(sample, value):
        return Record("a", sample, "counting", Status.OK, (Unit("correct", value),))

    once = [record(0, 0.0), record(1, 1.0)]
    assert BENCH.aggregate(once, "strict").overall["prompts"] == 1.0
    twice = [*once, record(0, 0.0), record(1, 0.0)]
    summary = BENCH.aggregate(twice, "strict")
    assert (summary.overall["prompts"], summary.overall["images"]) == (0.5, 0.25)


def test_a_picture_without_a_verdict_scores_nothing_officially_and_zero_strictly(data):
    item = BENCH.items(data)[0]
    answers = {"detect": Answer(Status.NO_PICTURE)}
    assert BENCH.score(item, answers, "official") == ()
    assert BENCH.score(item, answers, "strict") == (Unit("correct", 0.0),)


def test_the_report_shows_what_is_wrong_instead_of_boxes(data):
    item = BENCH.items(data)[0]
    verdict = {"correct": False, "reason": "expected cat>=1, found 0"}
    assert BENCH.explain(item, {"detect": Answer(Status.OK, verdict, "{...}")}) == verdict["reason"]
    assert BENCH.explain(item, {"detect": Answer(Status.FAILED, None, "no detector")}) == "no detector"


def test_pictures_are_exported_and_imported_as_the_scorer_wants_them(data, harness, tmp_path):
    item = BENCH.items(data)[3]
    pictures = {sample: tmp_path / f"{sample}.png" for sample in range(4)}
    for sample, path in pictures.items():
        harness.paint(path, str(sample))
    BENCH.export_item(tmp_path / "out", item, pictures)
    assert json.loads((tmp_path / "out/00003/metadata.jsonl").read_text()) == ROWS[3]
    found = BENCH.import_picture(tmp_path / "out", item, 2)
    assert found.read_bytes() == pictures[2].read_bytes()
    (tmp_path / "out/00003").rename(tmp_path / "out/0003")
    assert BENCH.import_picture(tmp_path / "out", item, 0) is not None
    assert BENCH.import_picture(tmp_path / "out", item, 4) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tag": "size"}, "unknown tag 'size'"),
        ({"include": [{"class": "unicorn", "count": 1}]}, "'unicorn' is none of the detector's classes"),
        ({"include": [{"class": "cat"}]}, "no 'count'"),
        ({"include": [{"class": "cat", "count": 1, "position": ["above", 0]}]}, "position"),
    ],
)
def test_a_line_of_another_schema_is_named(data, change, message):
    (data / geneval.METADATA).write_text(json.dumps(ROWS[0] | change))
    with pytest.raises(DataError, match=message) as error:
        BENCH.items(data)
    assert "evaluation_metadata.jsonl:1" in str(error.value)


def test_goldens_of_our_own_are_recomputed_and_a_changed_one_is_found(tmp_path):
    case = {
        "metadata": ROWS[3],
        "detections": {"cat": [RIGHT], "dog": [LEFT]},
        "colors": {},
        "correct": False,
        "reason": "expected cat left of target, found right of target",
    }
    (tmp_path / "golden_evaluate.json").write_text(json.dumps([case]))
    pair = {"a": LEFT, "b": RIGHT, "relations": ["left of"], "iou": 0.0}
    (tmp_path / "golden_relative_position_iou.json").write_text(json.dumps([pair]))
    assert [done.diff for done in geneval.verify_sample(tmp_path)] == [0.0, 0.0]
    (tmp_path / "golden_evaluate.json").write_text(json.dumps([case | {"correct": True}]))
    assert max(done.diff for done in geneval.verify_sample(tmp_path)) > 1e-9


def test_the_printed_summary_is_the_official_one(tmp_path):
    rows = [
        {"tag": "colors", "correct": True, "metadata": "a"},
        {"tag": "position", "correct": False, "metadata": "b"},
        {"tag": "colors", "correct": False, "metadata": "a"},
        {"tag": "colors", "correct": False, "metadata": "c"},
    ]
    (tmp_path / "synthetic_results.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "golden_summary_stdout.txt").write_text(
        "Summary\n=======\nTotal images: 4\nTotal prompts: 3\n% correct images: 25.00%\n"
        "% correct prompts: 33.33%\n\nTask breakdown\n==============\n"
        "colors           = 33.33% (1 / 3)\nposition         = 0.00% (0 / 1)\n\n"
        "Overall score (avg. over tasks): 0.16667\n"
    )
    assert geneval.verify_sample(tmp_path)[0].diff == 0.0


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="needs the official samples beside the repository")
def test_official_samples_are_met_to_the_digit_and_a_tampered_one_is_not(tmp_path):
    checks = geneval.verify_sample(SAMPLES)
    assert len(checks) == 3 and all(done.diff <= 1e-9 for done in checks)
    for path in SAMPLES.iterdir():
        shutil.copyfile(path, tmp_path / path.name)
    golden = tmp_path / "golden_summary_stdout.txt"
    golden.write_text(golden.read_text().replace("0.68103", "0.68104"))
    assert [done.diff > 1e-9 for done in geneval.verify_sample(tmp_path)] == [False, False, True]
