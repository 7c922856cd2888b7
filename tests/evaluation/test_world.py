"""The benchmark from files to table, with a tiny random model and with a detector that knows the truth."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deepgen.errors import CheckpointError, InputError
from deepgen.evaluation.benchmarks import world
from deepgen.evaluation.benchmarks.world import Judge, Outcome, WorldRun, run
from deepgen.evaluation.detector import held_out_scenes, load_detector, measure
from deepgen.pipeline.pipeline import DeepGenPipeline
from deepgen.world.concepts import CONCEPTS
from deepgen.world.detector import Detection, Detector, colour_of
from deepgen.world.judging import Seen
from deepgen.world.scenes import STYLES, Scene
from deepgen.world.sprites import COLOURS, Sprites
from deepgen.world.testset import Item, load_items, make_test_file, select

KINDS = ("single", "edit_remove")


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
def settings(tmp_path: Path, detector_folder: Path, monkeypatch: pytest.MonkeyPatch) -> WorldRun:
    monkeypatch.setattr(Sprites, "load", lambda path: Sprites.procedural())
    make_test_file(tmp_path / "test.jsonl", 2)
    return WorldRun(
        tmp_path / "run", KINDS, limit=2, takes=2, detector=detector_folder, test_file=tmp_path / "test.jsonl"
    )


@pytest.fixture(scope="module")
def pipe(tiny_checkpoint: Path) -> DeepGenPipeline:
    loaded = DeepGenPipeline.from_pretrained(tiny_checkpoint, device="cpu")
    loaded.set_progress_bar_config(disable=True)
    return loaded


def test_a_run_leaves_pictures_scores_results_and_sheets(settings: WorldRun, pipe: DeepGenPipeline) -> None:
    (outcome,) = run(settings, pipe, silent)
    results = json.loads((settings.output / "results.json").read_text())
    assert results["test_file_sha256"] == load_items(settings.test_file)[1]
    assert results["detector"] == {"drawn": {"recall": 0.9, "pictures": 8}}
    assert results["categories"]["single"]["right"]["values"] == 4
    assert results["categories"]["single"]["psnr"] is None
    assert 0 < results["categories"]["edit_remove"]["psnr"]["mean"] < 100
    assert len(list(settings.output.glob("pictures/*/*.png"))) == 8
    assert {p.stem for p in settings.output.glob("sheets/*.png")} == set(KINDS)
    assert [r.category for r in outcome.results] == list(KINDS)


def test_a_second_run_draws_nothing_and_scores_the_same(
    settings: WorldRun, pipe: DeepGenPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first,) = run(settings, pipe, silent)
    monkeypatch.setattr(world.Generated, "__call__", lambda self, jobs: pytest.fail("drew again"))
    (second,) = run(settings, pipe, silent)
    assert second.results == first.results


def know_the_truth(monkeypatch: pytest.MonkeyPatch, items: Sequence[Item]) -> None:
    """Let `see` answer with the scenes' truth, in the order in which the pictures are judged."""
    queue: list[Scene] = []

    def see(detector: Detector, pictures: Sequence[np.ndarray]) -> list[Seen]:
        queue.extend(item.shown for item in items) if not queue else None
        seen = []
        for _ in pictures:
            scene = queue.pop(0)
            found = [Detection(o.concept, o.box, 1.0, colour_of(o), scene.style) for o in scene.objects]
            seen.append(Seen(tuple(found), scene.background))
        return seen

    monkeypatch.setattr(world, "see", see)


def test_the_ceiling_is_100_for_a_detector_that_knows_the_truth(
    settings: WorldRun, pipe: DeepGenPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = select(load_items(settings.test_file)[0], KINDS, 2)
    know_the_truth(monkeypatch, items)
    outcomes = run(replace(settings, ceiling=True), pipe, silent)
    assert [outcome.header["pictures"] for outcome in outcomes] == ["drawn", "reconstructed"]
    for outcome in outcomes:
        assert all(r.right is not None and r.right.mean == 1 for r in outcome.results)
    drawn, reconstructed = (psnr_of(outcome) for outcome in outcomes)
    assert drawn == 100 > reconstructed


def psnr_of(outcome: Outcome) -> float:
    interval = outcome.results[1].psnr
    assert interval is not None
    return interval.mean


def test_a_category_that_was_not_trained_is_neither_drawn_nor_judged(
    settings: WorldRun, pipe: DeepGenPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipe, "defaults", replace(pipe.defaults, untrained_categories=("single",)))
    (outcome,) = run(settings, pipe, silent)
    assert [r.right is None for r in outcome.results] == [True, False]
    assert not (settings.output / "pictures" / "single").exists()


def test_what_is_missing_is_named_before_anything_is_drawn(
    settings: WorldRun, pipe: DeepGenPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CheckpointError, match="no detector"):
        run(replace(settings, detector=tmp_path), pipe, silent)
    monkeypatch.undo()
    with pytest.raises(InputError, match="world fetch"):
        run(replace(settings, sprites=tmp_path / "none.zip"), pipe, silent)
    assert not settings.output.exists()


def test_words_are_read_only_where_words_are_judged(detector_folder: Path) -> None:
    assert Judge.load(detector_folder, reads=False).ocr is None


def test_the_detector_is_measured_on_drawings_and_their_reconstructions(
    detector_folder: Path, pipe: DeepGenPipeline
) -> None:
    network, _ = load_detector(detector_folder)
    metrics = measure(network, pipe, Sprites.procedural(), 4, silent)
    assert metrics.keys() == {"drawn", "reconstructed"}
    assert all(values["pictures"] == 4 and values["scene"] < 1 for values in metrics.values())
    assert held_out_scenes(3) == held_out_scenes(4)[:3]
