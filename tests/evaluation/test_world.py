"""The world benchmark from files to numbers, with a tiny random model and with a detector that knows the truth."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepgen.errors import CheckpointError, InputError
from deepgen.evaluation import registry, stages, world_scorer
from deepgen.evaluation.benchmark import Answer, Status
from deepgen.evaluation.benchmarks.world import BENCHMARKS, World
from deepgen.evaluation.data import Selection, Shard, prepare
from deepgen.evaluation.detector import held_out_scenes, load_detector, measure
from deepgen.evaluation.drawing import DrawSettings, Generated
from deepgen.evaluation.judging import Run, judge_run
from deepgen.evaluation.runner import Draw, jobs_of
from deepgen.evaluation.scoring import Scored, score_run
from deepgen.evaluation.stages import Plan
from deepgen.evaluation.world_scorer import Known, WorldScorer, seen_from_json
from deepgen.pipeline.pipeline import DeepGenPipeline
from deepgen.scorers.calls import JudgeCall
from deepgen.scorers.replies import Reply
from deepgen.world.concepts import CONCEPTS
from deepgen.world.detector import Detection, Detector, colour_of
from deepgen.world.judging import Reading, Seen
from deepgen.world.scenes import PALETTE, STYLES, Background
from deepgen.world.sprites import COLOURS, Sprites
from deepgen.world.testset import TEST_CATEGORIES, make_test_file

KINDS = ("single", "edit_remove", "edit_insert")


def silent(step: str, done: int, total: int) -> None:
    pass


@pytest.fixture(scope="module")
def detector_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("detector")
    sizes = {"widths": (8, 8, 16, 16, 16), "depths": (0, 0, 0, 0), "head_width": 16}
    Detector(list(CONCEPTS), list(COLOURS), list(STYLES), **sizes).save_pretrained(folder)
    (folder / "metrics.json").write_text('{"drawn": {"recall": 0.9, "pictures": 8}}')
    return folder


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Two prompts a category, and procedural sprites."""
    monkeypatch.setattr(Sprites, "load", lambda path: Sprites.procedural())
    make_test_file(tmp_path / "test.jsonl", 2)
    (tmp_path / "sprites.zip").write_text("stands for sprites")
    return World("world", tmp_path / "test.jsonl", TEST_CATEGORIES, tmp_path / "sprites.zip")


@pytest.fixture
def run(world: World, tmp_path: Path) -> Run:
    plan = Plan(world, tmp_path / "data", Selection(groups=KINDS), samples=2, allow_partial=True)
    return stages.begin(plan, plan.prepared(), tmp_path / "run", {"model": "tiny"})


@pytest.fixture(scope="module")
def pipe(tiny_checkpoint: Path) -> DeepGenPipeline:
    loaded = DeepGenPipeline.from_pretrained(tiny_checkpoint, device="cpu")
    loaded.set_progress_bar_config(disable=True)
    return loaded


def draw(run: Run, hand: Draw) -> None:
    stages.draw_pictures(run, hand, 0, Shard(), 4, silent)


def judged(run: Run, detector_folder: Path) -> Scored:
    assert isinstance(run.benchmark, World)
    scorer = WorldScorer(run.benchmark.tests, detector_folder)
    assert judge_run(run, scorer, "strict", silent) == 0
    return score_run(run, scorer.profile, "strict")


@pytest.mark.parametrize(
    ("name", "file", "number"),
    [
        ("world", "world-test-v2.jsonl:d33945e98e65339c", 1100),
        ("world-v1", "world-test-v1.jsonl:1fea88029838c6ea", 1050),
    ],
)
def test_seeds_follow_the_lines_of_a_versions_test_file(name: str, file: str, number: int) -> None:
    world = registry.find(name)
    items = world.items(Path("data"))
    assert Counter(item.group for item in items) == world.counts and len(items) == number
    seeds = [job.seed for job in jobs_of(world, items, 4, 0)]
    assert seeds == [1000 * line + take for line in range(number) for take in range(4)]
    assert {item.data["test"] for item in items} == {file}


def test_the_shipped_detector_knows_what_both_versions_show() -> None:
    for world in BENCHMARKS:
        WorldScorer(world.tests)
    network, metrics = load_detector()
    assert network.config["concepts"] == list(CONCEPTS) and network.config["styles"] == list(STYLES)
    assert metrics is not None and metrics.keys() >= {"drawn", "reconstructed"}


def test_a_run_draws_every_picture_and_gives_each_a_verdict(
    run: Run, pipe: DeepGenPipeline, detector_folder: Path
) -> None:
    draw(run, Generated(pipe, DrawSettings()))
    assert len(list(run.folder.glob("pictures/*/*.png"))) == 12
    scored = judged(run, detector_folder)
    assert [record.status for record in scored.records] == [Status.OK] * 12
    edits = [record for record in scored.records if record.group.startswith("edit_")]
    assert all([unit.metric for unit in record.units] == ["right", "psnr"] for record in edits)
    assert all(0 < record.units[1].value < 100 for record in edits)
    assert all(scored.why.values()), "a random model's faults are told"


class Silent(WorldScorer):
    """Must not be asked."""

    def answer(self, calls: Sequence[JudgeCall], attempt: int, keep: object) -> None:
        pytest.fail(f"asked {len(calls)} calls again") if calls else None


def test_a_second_run_draws_nothing_and_sees_nothing_anew(
    run: Run, pipe: DeepGenPipeline, detector_folder: Path, world: World
) -> None:
    draw(run, Generated(pipe, DrawSettings()))
    first = judged(run, detector_folder)
    draw(run, lambda jobs: pytest.fail("drew again"))
    assert judge_run(run, Silent(world.tests, detector_folder), "strict", silent) == 0
    assert judged(run, detector_folder).records == first.records


def know_the_truth(monkeypatch: pytest.MonkeyPatch, world: World, run: Run) -> None:
    """Let `see` answer with the scenes' truth, in the order in which the pictures are judged."""
    scenes = [world.tests[item.id].shown for item in run.items for _ in range(run.samples)]

    def see(detector: Detector, pictures: Sequence[np.ndarray]) -> list[Seen]:
        seen = []
        for scene in scenes[: len(pictures)]:
            found = [Detection(o.concept, o.box, 1.0, colour_of(o), scene.style) for o in scene.objects]
            seen.append(Seen(tuple(found), scene.background))
        return seen

    monkeypatch.setattr(world_scorer, "see", see)


def test_the_ceiling_is_100_for_a_detector_that_knows_the_truth(
    world: World,
    tmp_path: Path,
    pipe: DeepGenPipeline,
    detector_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    psnr = {}
    for kind, known in (
        ("drawn", Known(world.tests, Sprites.procedural())),
        ("reconstructed", Known(world.tests, Sprites.procedural(), pipe)),
    ):
        plan = Plan(world, tmp_path / "data", Selection(groups=KINDS), samples=1, allow_partial=True)
        run = stages.begin(plan, plan.prepared(), tmp_path / kind, {"model": "tiny", "pictures": kind})
        draw(run, known)
        know_the_truth(monkeypatch, world, run)
        records = judged(run, detector_folder).records
        assert all(record.units[0].value == 1 for record in records)
        psnr[kind] = records[-1].units[1].value
    assert psnr["drawn"] == 100 > psnr["reconstructed"]


def test_what_was_seen_survives_json() -> None:
    detection = Detection("cat", (1.0, 2.5, 30.0, 40.0), 0.9, "red", "flat", 0.75)
    seen = Seen(
        (detection,), Background("checker", ("red", "blue")), (Reading("CRAB", (1.0, 2.0, 3.0, 4.0)),)
    )
    from dataclasses import asdict

    assert seen_from_json(json.loads(json.dumps(asdict(seen)))) == seen


def test_a_word_read_rightly_but_not_in_its_colour_is_a_fault(
    detector_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = BENCHMARKS[0]
    item = next(
        i for i in world.items(tmp_path) if "word_colour" in getattr(world.tests[i.id].sample, "mentions", ())
    )
    scene = world.tests[item.id].shown
    word = scene.words[0]
    monkeypatch.setattr(world_scorer.Ocr, "__init__", lambda self: None)
    readings = (Reading(word.text, (0.0, 0.0, 32.0, 32.0)),)
    monkeypatch.setattr(world_scorer.Ocr, "read", lambda self, picture: readings)
    faults = {}
    for colour in (PALETTE[word.colour], tuple(255 - value for value in PALETTE[word.colour])):
        Image.new("RGB", (64, 64), colour).save(tmp_path / "p.png")
        call = world.calls(item, 0, tmp_path / "p.png", world.judges[0])[0]
        told: dict[int, Reply] = {}
        WorldScorer(world.tests, detector_folder).answer([call], 0, told.__setitem__)
        faults[colour] = world.parse(item, call, told[0].text, "strict")["faults"]
        (tmp_path / "p.png").unlink()
    right, wrong = faults.values()
    assert set(wrong) - set(right) == {f"letters not {word.colour}"}


def test_sources_are_drawn_once_for_a_file_of_sprites(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(world, tmp_path / "data", allow_partial=True, seen=tmp_path / "seen.json")
    sources = sorted((tmp_path / "data" / "world" / "sources").iterdir())
    edits = sum(category.startswith("edit_") for category in TEST_CATEGORIES)
    assert len(sources) == 2 * (edits + 1)  # an insert has two
    stamps = [path.stat().st_mtime_ns for path in sources]
    prepare(world, tmp_path / "data", allow_partial=True, seen=tmp_path / "seen.json")
    assert [path.stat().st_mtime_ns for path in sources] == stamps
    (tmp_path / "sprites.zip").write_text("others")
    prepare(world, tmp_path / "data", allow_partial=True, seen=tmp_path / "seen.json")
    assert [path.stat().st_mtime_ns for path in sources] != stamps


def test_an_insert_shows_two_pictures_and_its_psnr_is_of_the_second(
    world: World, detector_folder: Path, tmp_path: Path
) -> None:
    world.prepare(tmp_path / "data")
    item = next(item for item in world.items(tmp_path / "data") if item.group == "edit_insert")
    sample = world.tests[item.id].sample
    assert [path.name for path in item.sources] == [f"{item.id}-picture-1.png", f"{item.id}.png"]
    assert len(sample.pictures) == 2 and item.size == (sample.source.width, sample.source.height)
    psnr = []
    for picture in item.sources:
        call = world.calls(item, 0, picture, world.judges[0])[0]
        told: dict[int, Reply] = {}
        WorldScorer(world.tests, detector_folder).answer([call], 0, told.__setitem__)
        psnr.append(world.parse(item, call, told[0].text, "strict")["psnr"])
    assert psnr[0] < psnr[1] == 100


def test_what_is_missing_is_named_before_anything_is_drawn(world: World, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no detector"):
        WorldScorer(world.tests, tmp_path)
    with pytest.raises(InputError, match="world fetch"):
        world.with_sprites(tmp_path / "none.zip").prepare(tmp_path / "data")
    items = [item for item in world.items(tmp_path / "nowhere") if item.sources]
    with pytest.raises(InputError, match="--sprites"):
        stages.check_sources(Run(world, items, 1, tmp_path / "run"))


def test_the_judge_knows_the_detectors_measured_errors(detector_folder: Path, world: World) -> None:
    profile = WorldScorer(world.tests, detector_folder).profile
    assert profile.extra == {"measured": {"drawn": {"recall": 0.9, "pictures": 8}}}


def test_a_fault_makes_a_picture_wrong_and_is_its_reason(world: World) -> None:
    item = world.items(Path("data"))[0]
    answers = {"see": Answer(Status.OK, {"faults": ["no cat", "extra dog"], "psnr": None})}
    assert [unit.value for unit in world.score(item, answers, "strict")] == [0.0]
    assert world.explain(item, answers) == "no cat; extra dog"
    assert world.score(item, {"see": Answer(Status.NO_PICTURE)}, "official") == ()


def test_the_detector_is_measured_on_drawings_and_their_reconstructions(
    detector_folder: Path, pipe: DeepGenPipeline
) -> None:
    network, _ = load_detector(detector_folder)
    metrics = measure(network, pipe, Sprites.procedural(), 4, silent)
    assert metrics.keys() == {"drawn", "reconstructed"}
    assert all(values["pictures"] == 4 and values["scene"] < 1 for values in metrics.values())
    assert held_out_scenes(3) == held_out_scenes(4)[:3]
