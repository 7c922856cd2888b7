"""Drawing into a folder: in batches of one size, once only, and never into another run's folder."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image
from torch import nn

from deepgen.errors import DataError, InputError
from deepgen.evaluation.report import Panel, Score, draw_sheet, read_scores, summarise, table, write_scores
from deepgen.evaluation.runner import (
    Drawn,
    Job,
    Task,
    generate,
    jobs_of,
    read_picture,
    start_run,
    weights_hash,
)
from deepgen.pipeline.output import read_metadata


class Painter:
    """Draws plain pictures and remembers the batches it was asked for."""

    def __init__(self) -> None:
        self.batches: list[list[Job]] = []

    def __call__(self, jobs: Sequence[Job]) -> Drawn:
        self.batches.append(list(jobs))
        return [(Image.new("RGB", (j.task.width, j.task.height)), {"seed": j.seed}) for j in jobs]


def silent(step: str, done: int, total: int) -> None:
    pass


def tasks() -> list[Task]:
    return [Task(f"t{n}", n, "single", "a dog", 64 if n % 2 else 32, 32) for n in range(5)]


def test_batches_hold_one_size_and_every_picture_is_drawn(tmp_path: Path) -> None:
    painter = Painter()
    jobs = jobs_of(tasks(), 2)
    generate(jobs, painter, tmp_path, 3, silent)
    assert all(len({j.task.width for j in batch}) == 1 and len(batch) <= 3 for batch in painter.batches)
    assert sorted(map(len, painter.batches)) == [1, 3, 3, 3]
    assert all(read_picture(job.path(tmp_path)).shape == (32, job.task.width, 3) for job in jobs)
    assert read_metadata(jobs[3].path(tmp_path))["seed"] == 1001


def test_an_interrupted_run_draws_only_what_is_missing(tmp_path: Path) -> None:
    jobs = jobs_of(tasks(), 2)
    generate(jobs, Painter(), tmp_path, 4, silent)
    jobs[7].path(tmp_path).unlink()
    again = Painter()
    generate(jobs, again, tmp_path, 4, silent)
    assert again.batches == [[jobs[7]]]


def test_seeds_do_not_depend_on_the_subset_that_runs() -> None:
    whole, part = jobs_of(tasks(), 4), jobs_of(tasks()[3:], 4)
    assert [j.seed for j in whole if j.task.id == "t3"] == [j.seed for j in part if j.task.id == "t3"]
    assert len({j.seed for j in whole}) == 20


def test_a_folder_takes_up_only_its_own_run(tmp_path: Path) -> None:
    start_run(tmp_path, {"model": "a", "seeds": 4})
    start_run(tmp_path, {"model": "a", "seeds": 4})
    with pytest.raises(InputError, match="differs in model"):
        start_run(tmp_path, {"model": "b", "seeds": 4})


def test_a_missing_picture_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.png"):
        read_picture(tmp_path / "gone.png")


def test_other_weights_have_another_hash() -> None:
    model = nn.Linear(3, 2)
    before = weights_hash(model)
    assert weights_hash(model) == before
    model.bias.data[1] += 1e-3
    assert weights_hash(model) != before


def scores() -> list[Score]:
    rows = [("a", 0, True), ("a", 1, True), ("b", 0, False), ("b", 1, True)]
    return [Score(i, "edit_add", take, take, ok, () if ok else ("no dog",), 30.0) for i, take, ok in rows]


def test_scores_survive_the_disk_and_make_a_table(tmp_path: Path) -> None:
    write_scores(scores(), tmp_path)
    assert read_scores(tmp_path) == scores()
    results = summarise(read_scores(tmp_path), ["edit_add", "words"])
    assert results[0].right is not None and results[0].right.mean == 0.75
    assert (results[0].right.low, results[0].right.high) == (0.5, 1.0)
    text = table(results)
    assert "75.0" in text and "50.0–100.0" in text and "30.0" in text
    assert "words" in text and "not trained yet" in text
    with pytest.raises(DataError, match="scoring"):
        read_scores(tmp_path / "elsewhere")


def test_a_sheet_marks_right_green_and_wrong_red(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), "blue").save(tmp_path / "p.png")
    for right, colour in ((True, (30, 150, 60)), (False, (210, 40, 40))):
        panel = Panel((tmp_path / "p.png",) * 2, "a very long prompt " * 9, right, ("no dog",))
        draw_sheet([panel] * 5, tmp_path / "sheet.png")
        with Image.open(tmp_path / "sheet.png") as sheet:
            assert sheet.getpixel((10, 10)) == colour
