from collections import Counter
from pathlib import Path

import pytest
from data_files import COLOURS, config_of, picture, set_of, write_json
from pydantic import ValidationError

from deepgen.data.mixture import Mixture, shares


def tasks_of(mixture: Mixture, count: int) -> list[str]:
    return [
        "".join(mixture.config.sets[p.set_number].task[0] for p in mixture.picks(m)) for m in range(count)
    ]


def test_micro_batches_of_one_task_follow_the_ratios_cycle(two_tasks: list[dict]) -> None:
    mixture = Mixture(config_of(*two_tasks, ratio={"edit": 1, "t2i": 3}), 2)
    assert tasks_of(mixture, 8) == ["ee", "tt", "tt", "tt"] * 2


def test_a_task_can_hold_for_several_micro_batches(two_tasks: list[dict]) -> None:
    mixture = Mixture(config_of(*two_tasks, ratio={"edit": 1, "t2i": 2}, consecutive=2), 1)
    assert "".join(tasks_of(mixture, 12)) == "eettttee" + "tttt"
    positions = [p.position for m in range(12) for p in mixture.picks(m) if p.set_number == 0]
    assert positions == list(range(8))


def test_mixed_micro_batches_hold_all_tasks(two_tasks: list[dict]) -> None:
    mixture = Mixture(config_of(*two_tasks, ratio={"edit": 1, "t2i": 3}, mixing="mixed"), 8)
    assert tasks_of(mixture, 2) == ["etttettt"] * 2


def test_every_sample_comes_once_in_a_round(two_tasks: list[dict]) -> None:
    mixture = Mixture(config_of(*two_tasks, ratio={"edit": 1, "t2i": 2}), 3)
    seen = Counter((p.set_number, p.index) for m in range(3) for p in mixture.picks(m))
    assert seen == Counter({**{(0, i): 1 for i in range(6)}, **{(1, i): 1 for i in range(3)}})


def test_sets_of_a_task_come_as_often_as_they_are_large_unless_weighted(
    t2i_list: Path, tmp_path: Path
) -> None:
    small = write_json(tmp_path / "t2i" / "small.json", [{"image_path": "red.png", "txt": "a"}] * 2)
    sets = [set_of(t2i_list), set_of(small, name="small")]
    drawn = lambda m: Counter(p.set_number for i in range(100) for p in m.picks(i))  # noqa: E731
    assert abs(drawn(Mixture(config_of(*sets), 4))[1] - 100) <= 3
    weighted = Mixture(config_of({**sets[0], "weight": 1.0}, {**sets[1], "weight": 3.0}), 4)
    assert abs(drawn(weighted)[1] - 300) <= 3
    assert [share for *_, share in shares(weighted)] == [0.25, 0.75]


def test_the_seed_decides_the_order_and_nothing_else_does(two_tasks: list[dict]) -> None:
    order = lambda seed: [Mixture(config_of(*two_tasks, seed=seed), 2).picks(m) for m in (5, 1, 3)]  # noqa: E731
    assert order(1) == order(1) != order(2)
    mixture = Mixture(config_of(*two_tasks, seed=1), 2)
    assert [mixture.picks(m) for m in range(6)][3] == order(1)[2]


def test_prompts_are_dropped_by_task(two_tasks: list[dict]) -> None:
    drop = lambda **d: [  # noqa: E731
        (p.set_number, p.dropped) for m in range(400) for p in Mixture(config_of(*two_tasks, **d), 1).picks(m)
    ]
    by_default = Counter(drop())
    assert by_default[(1, True)] == 0 and 5 <= by_default[(0, True)] <= 40
    assert Counter(drop(dropout={"edit": 1.0})) == {(0, False): 200, (1, True): 200}


@pytest.fixture
def many_sizes(tmp_path: Path) -> dict:
    sizes = [(64, 64), (96, 32), (32, 96)]
    rows = []
    for number in range(48):
        name = picture(tmp_path, f"{number}.png", COLOURS[number % 6], sizes[number % 3])
        rows.append({"image_path": name, "txt": str(number)})
    return set_of(write_json(tmp_path / "l.json", rows))


def test_buckets_gather_one_size_and_leave_nothing_out(many_sizes: dict, tmp_path: Path) -> None:
    settings = {"area": 64 * 64, "bucket_window": 12, "index_dir": tmp_path / "index"}
    plain, gathered = (Mixture(config_of(many_sizes, buckets=b, **settings), 4) for b in (False, True))
    several = lambda m: sum(len({p.index % 3 for p in m.picks(i)}) > 1 for i in range(12))  # noqa: E731
    assert several(plain) >= 8 and several(gathered) == 0
    assert sorted(p.index for i in range(12) for p in gathered.picks(i)) == list(range(48))
    again = Mixture(config_of(many_sizes, buckets=True, **settings), 4)
    assert [again.picks(i) for i in range(30)] == [gathered.picks(i) for i in range(30)]


def test_buckets_of_the_world_need_no_measuring() -> None:
    world = {"name": "w", "format": "world", "task": "t2i"}
    mixture = Mixture(config_of(world, buckets=True, bucket_window=8, area=256 * 256), 4)
    sizes = [{mixture.sources[0].record(p.index).target.size() for p in mixture.picks(m)} for m in range(8)]
    assert sum(len(one) == 1 for one in sizes) >= 4


def test_a_mixture_must_be_consistent(two_tasks: list[dict]) -> None:
    with pytest.raises(ValidationError, match=r"ratio is of \['t2i'\], the sets are of \['edit', 't2i'\]"):
        config_of(*two_tasks, ratio={"t2i": 1})
    with pytest.raises(ValidationError, match="two sets have the same name"):
        config_of(two_tasks[0], two_tasks[0])
