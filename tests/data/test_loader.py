import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
import torch
from data_files import config_of, picture, set_of, write_json

from deepgen.data.batch import TrainBatch
from deepgen.data.loader import MixtureLoader
from deepgen.errors import DataError


def take(config, count: int, rank: int = 0, world: int = 1, workers: int = 0, state=None) -> list[TrainBatch]:
    loader = MixtureLoader(config, 2, rank, world, workers)
    if state is not None:
        loader.load_state_dict(state)
    return list(islice(loader, count))


def keys(batches: list[TrainBatch]) -> list[list[str]]:
    return [batch.keys for batch in batches]


def test_a_batch_is_what_its_samples_are(two_tasks: list[dict]) -> None:
    edit, t2i = take(config_of(*two_tasks), 2)
    assert (edit.tasks, t2i.tasks, edit.sources) == (["edit"] * 2, ["t2i"] * 2, ["two"] * 2)
    assert [len(row) for row in t2i.references] == [0, 0]
    for batch in (edit, t2i):
        for tensor in [*batch.targets, *(p for row in batch.references for p in row)]:
            assert tensor.dtype == torch.float32 and tensor.shape[0] == 3
            assert tensor.shape[1] % 32 == tensor.shape[2] % 32 == 0
            assert float(tensor.min()) >= -1 and float(tensor.max()) <= 1
    colour = Path(t2i.keys[0]).stem
    assert t2i.prompts[0] in (f"a {colour} field", "")


def test_pictures_are_resized_as_published(t2i_list: Path) -> None:
    # 48 x 32 at an area of 64²: the ratio is 64 / sqrt(48 * 32) = 1.633, sides 78.4 and 52.3, rounded up to 32.
    (batch,) = take(config_of(set_of(t2i_list), area=64 * 64), 1)
    assert [tuple(x.shape) for x in batch.targets] == [(3, 64, 96)] * 2


def test_all_references_of_an_edit_arrive(edit_list: Path) -> None:
    batches = take(config_of(set_of(edit_list, "published_edit", "edit")), 3)
    rows = {key: refs for b in batches for key, refs in zip(b.keys, b.references, strict=True)}
    purple = next(refs for key, refs in rows.items() if "purple" in key)
    assert [r[:, 0, 0].tolist() for r in purple] == [[1, -1, -1], [-1, -1, 1]]


def test_workers_do_not_change_the_order(two_tasks: list[dict]) -> None:
    alone, helped = (take(config_of(*two_tasks), 9, workers=w) for w in (0, 2))
    assert keys(alone) == keys(helped)
    assert all(torch.equal(a.targets[1], b.targets[1]) for a, b in zip(alone, helped, strict=True))


@pytest.mark.parametrize("buckets", [False, True])
def test_processes_share_one_order_whatever_their_number(two_tasks: list[dict], buckets: bool) -> None:
    config = config_of(*two_tasks, buckets=buckets, bucket_window=4)
    whole = keys(take(config, 12))
    for world in (2, 3):
        parts = [keys(take(config, 12 // world, rank, world)) for rank in range(world)]
        assert [one for step in zip(*parts, strict=True) for one in step] == whole


def test_a_run_goes_on_where_it_stopped_with_another_number_of_processes(two_tasks: list[dict]) -> None:
    config = config_of(*two_tasks)
    whole = keys(take(config, 12))
    loader = MixtureLoader(config, 2, 1, 2, 0)
    list(islice(loader, 3))
    state = loader.state_dict()
    assert state["samples"] == 12
    assert keys(take(config, 6, state=state)) == whole[6:]


@pytest.mark.parametrize(("before", "after"), [(2, 1), (2, 4), (4, 2)])
def test_a_run_goes_on_with_another_batch_size_after_the_samples_it_has_seen(
    two_tasks: list[dict], before: int, after: int, caplog
) -> None:
    config = config_of(*two_tasks)
    first, second = (MixtureLoader(config, size, 0, 1, 0) for size in (before, after))
    seen = [key for batch in islice(first, 16 // before) for key in batch.keys]
    second.load_state_dict(first.state_dict())
    assert second.position == 16 // after and "after 16 samples" in caplog.text
    seen += [key for batch in islice(second, 16 // after) for key in batch.keys]
    whole = [key for batch in take(config, 16) for key in batch.keys]
    assert sorted(seen) == sorted(whole)
    with pytest.raises(DataError, match="has seen 16 samples, no multiple of batch_size 3"):
        MixtureLoader(config, 3, 0, 1, 0).load_state_dict(first.state_dict())


def test_what_workers_prepared_ahead_does_not_count_as_seen(two_tasks: list[dict]) -> None:
    config = config_of(*two_tasks)
    loader = MixtureLoader(config, 2, 0, 1, 2)
    seen = keys(list(islice(loader, 3)))
    assert loader.state_dict()["samples"] == 6
    assert seen + keys(take(config, 3, state=loader.state_dict())) == keys(take(config, 6))


def test_changed_data_is_said_at_a_resume(two_tasks: list[dict], caplog) -> None:
    state = MixtureLoader(config_of(*two_tasks), 2, 0, 1, 0).state_dict()
    MixtureLoader(config_of(*two_tasks), 2, 0, 1, 0).load_state_dict(state)
    assert not caplog.records
    MixtureLoader(config_of(*two_tasks, seed=9), 2, 0, 1, 0).load_state_dict(state)
    assert "another order" in caplog.text


@pytest.fixture
def with_broken(tmp_path: Path) -> dict:
    rows = [{"image_path": picture(tmp_path, f"{i}.png", "red"), "txt": f"{i}"} for i in range(20)]
    (tmp_path / "3.png").write_bytes((tmp_path / "3.png").read_bytes()[:40])
    (tmp_path / "7.png").unlink()
    return set_of(write_json(tmp_path / "l.json", rows))


@pytest.mark.parametrize("workers", [0, 1])
def test_broken_samples_are_replaced_counted_and_named(with_broken: dict, caplog, workers: int) -> None:
    loader = MixtureLoader(config_of(with_broken), 2, 0, 1, workers)
    batches = list(islice(loader, 10))
    assert all(len(batch) == 2 for batch in batches) and loader.drawn == 20
    assert loader.broken >= 2
    assert "3.png" in caplog.text and "7.png: no such file" in caplog.text
    assert keys(batches) == keys(take(config_of(with_broken), 10))


def test_more_broken_samples_than_the_budget_stop_the_run(with_broken: dict) -> None:
    with pytest.raises(
        DataError, match=r"\d+ broken samples among \d+, more than data.broken_budget .*\.png"
    ):
        take(config_of(with_broken, broken_budget=0.0), 10)
    with pytest.raises(DataError, match=r"0.01%.*deepgen data check"):
        take(config_of(with_broken, broken_budget=0.0001), 10)


@pytest.fixture
def with_extremes(tmp_path: Path) -> dict:
    """Eight pictures, of which three are too small or too long for the set."""
    sizes = [(80, 200), (730, 81), (81, 730), *[(81, 648)] * 5]
    rows = [
        {"image_path": picture(tmp_path, f"{i}.png", "red", size), "txt": f"{i}"}
        for i, size in enumerate(sizes)
    ]
    return {**set_of(write_json(tmp_path / "l.json", rows)), "min_side": 81, "max_aspect": 8}


@pytest.mark.parametrize("workers", [0, 1])
def test_what_a_set_leaves_out_by_size_is_replaced_and_counted_apart_from_broken_samples(
    with_extremes: dict, caplog, workers: int
) -> None:
    loader = MixtureLoader(config_of(with_extremes, broken_budget=0.0), 2, 0, 1, workers)
    seen = {Path(key).stem for batch in islice(loader, 8) for key in batch.keys}
    assert seen == {"3", "4", "5", "6", "7"} and not caplog.records
    assert loader.left_out >= 6 and loader.newly_replaced() == (0, loader.left_out)
    assert loader.newly_replaced() == (0, 0)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_set_of_which_nothing_can_be_read_is_an_error_not_an_endless_search(
    tmp_path: Path, workers: int
) -> None:
    rows = [{"image_path": f"{i}.png", "txt": "x"} for i in range(5)]
    config = config_of(set_of(write_json(tmp_path / "l.json", rows)), broken_budget=1.0)
    with pytest.raises(
        DataError,
        match=r"^one: 20 samples one after another are broken or left out, the last: .*no such file$",
    ):
        take(config, 1, workers=workers)


def test_more_references_than_the_model_takes_break_a_sample(tmp_path: Path) -> None:
    picture(tmp_path, "a.png", "red")
    row = {"input_image": ["a.png"] * 9, "output_image": "a.png", "instruction": "x"}
    config = config_of(set_of(write_json(tmp_path / "l.json", [row]), "published_edit", "edit"))
    with pytest.raises(DataError, match="9 references, at most 8"):
        take(config, 1)


def test_workers_left_behind_do_not_keep_their_run_from_ending():
    code = (
        "from torch.utils.data import DataLoader\n"
        "from deepgen.data.loader import _stay_with_the_run\n"
        "loader = DataLoader(range(1000), num_workers=1, worker_init_fn=_stay_with_the_run)\n"
        "batches = iter(loader)\n"
        "next(batches)\n"
        "batches._shutdown_workers = lambda: None\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], timeout=60, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
