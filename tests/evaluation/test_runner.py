"""Pictures come into a run's folder once each, whoever draws them, and leave it in the official layout."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from deepgen.errors import DataError, InputError
from deepgen.evaluation.benchmark import Item
from deepgen.evaluation.files import file_name, write_text
from deepgen.evaluation.runner import (
    Drawn,
    Job,
    export_pictures,
    find_picture,
    generate,
    import_pictures,
    jobs_of,
    read_picture,
    read_run,
    start_run,
)
from deepgen.pipeline.output import read_metadata


class Painter:
    """Draws plain pictures, as many at once as its memory holds, and remembers the batches it was asked for."""

    def __init__(self, memory: int = 100) -> None:
        self.batches: list[list[Job]] = []
        self.memory = memory

    def __call__(self, jobs: Sequence[Job]) -> Drawn:
        self.batches.append(list(jobs))
        if len(jobs) > self.memory:
            raise MemoryError
        return [(Image.new("RGB", job.item.size or (8, 8)), {"seed": job.seed}) for job in jobs]


def silent(step: str, done: int, total: int) -> None:
    pass


def items() -> list[Item]:
    return [Item(f"t/{n}", "single", "a dog", size=(64 if n % 2 else 32, 32)) for n in range(5)]


@pytest.fixture
def jobs(toy: Any) -> list[Job]:
    return jobs_of(toy.Toy(), items(), 2, 0)


def test_batches_hold_pictures_that_look_alike_and_every_one_is_drawn(
    jobs: list[Job], tmp_path: Path
) -> None:
    painter = Painter()
    generate(jobs, painter, tmp_path, 3, silent)
    assert all(len({job.item.size for job in batch}) == 1 and len(batch) <= 3 for batch in painter.batches)
    assert sorted(map(len, painter.batches)) == [1, 3, 3, 3]
    assert all(read_picture(job.path(tmp_path)).shape[:2] == (job.item.size or ())[::-1] for job in jobs)
    assert read_metadata(jobs[3].path(tmp_path))["seed"] == jobs[3].seed


def test_an_interrupted_run_draws_only_what_is_missing(jobs: list[Job], tmp_path: Path) -> None:
    generate(jobs, Painter(), tmp_path, 4, silent)
    jobs[7].path(tmp_path).unlink()
    again = Painter()
    generate(jobs, again, tmp_path, 4, silent)
    assert again.batches == [[jobs[7]]]


def test_a_batch_too_big_for_the_memory_is_halved(jobs: list[Job], tmp_path: Path) -> None:
    painter = Painter(memory=1)
    generate(jobs, painter, tmp_path, 4, silent)
    assert [len(batch) for batch in painter.batches[:3]] == [4, 2, 1]
    assert sum(len(batch) == 1 for batch in painter.batches) == 10
    with pytest.raises(MemoryError):
        generate(jobs, Painter(memory=0), tmp_path / "other", 4, silent)


def test_seeds_depend_on_item_and_sample_and_base_alone(toy: Any) -> None:
    benchmark = toy.Toy()
    whole, part = jobs_of(benchmark, items(), 4, 0), jobs_of(benchmark, items()[3:], 4, 0)
    assert [j.seed for j in whole if j.item.id == "t/3"] == [j.seed for j in part if j.item.id == "t/3"]
    assert len({job.seed for job in whole}) == 20
    other = jobs_of(benchmark, items(), 4, 1)
    assert not {job.seed for job in whole} & {job.seed for job in other}


def test_a_folder_takes_up_only_its_own_run(tmp_path: Path) -> None:
    start_run(tmp_path, {"model": "a", "samples": 4})
    start_run(tmp_path, {"model": "a", "samples": 4})
    assert read_run(tmp_path) == {"model": "a", "samples": 4}
    with pytest.raises(InputError, match="differs in model"):
        start_run(tmp_path, {"model": "b", "samples": 4})
    with pytest.raises(DataError, match=r"no run\.json"):
        read_run(tmp_path / "elsewhere")


def test_a_missing_picture_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.png"):
        read_picture(tmp_path / "gone.png")


def test_pictures_made_elsewhere_keep_their_bytes_and_go_back_where_they_came_from(
    toy: Any, tmp_path: Path
) -> None:
    benchmark, root = toy.Toy(), tmp_path / "theirs"
    chosen = benchmark.items(toy.write_data(tmp_path) / "toy")
    for item in chosen[:3]:
        path = root / benchmark.official_path(item, 0)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), "red").save(path.with_suffix(".jpg"))
    assert import_pictures(benchmark, chosen, 1, root, tmp_path / "run") == (3, 5)
    found = find_picture(tmp_path / "run", chosen[0], 0)
    assert found is not None and found.suffix == ".jpg"
    assert found.read_bytes() == (root / "cats" / "cats" / "0_0.jpg").read_bytes()
    assert import_pictures(benchmark, chosen, 1, root, tmp_path / "run") == (3, 5)
    assert export_pictures(benchmark, chosen, 1, tmp_path / "run", tmp_path / "ours") == 3
    exported = tmp_path / "ours" / benchmark.official_path(chosen[2], 0)
    assert exported.read_bytes() == found.read_bytes()


def test_any_id_makes_a_file_name_of_its_own() -> None:
    ids = ["plain-001", "a/b", "a%2Fb", "..", ".", "a b", "春/天", "C:\\x", "A", "a"]
    names = [file_name(one) for one in ids]
    assert names[0] == "plain-001" and len(set(names)) == len(ids)
    assert not any("/" in name or name in (".", "..") or "\\" in name for name in names)


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / "new" / "a.txt", "before")

    def fail(self: Path, target: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_text(tmp_path / "new" / "a.txt", "after")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.txt"]
    assert (tmp_path / "new" / "a.txt").read_text() == "before"
