"""Data is checked before anything is drawn with it, and a run takes exactly the part that was asked for."""

import warnings
from pathlib import Path
from typing import Any

import pytest

from deepgen.errors import DataError, InputError
from deepgen.evaluation.benchmark import DataFile
from deepgen.evaluation.data import Selection, Shard, prepare, select
from deepgen.evaluation.sources import sha256_of


def test_complete_data_is_taken_as_it_is(toy: Any, tmp_path: Path) -> None:
    prepared = prepare(toy.Toy(), toy.write_data(tmp_path), seen=tmp_path / "seen.json")
    assert [item.id for item in prepared.items] == ["cats/0", "cats/1", "cats/2", "dogs/0", "dogs/1"]
    assert prepared.complete and prepared.warnings == []
    assert prepared.hashes == {"items.jsonl": sha256_of(tmp_path / "toy" / "items.jsonl")}


def test_missing_data_says_where_to_get_it_and_under_which_licence(toy: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"items\.jsonl from the tests \(licence: Apache-2\.0\)"):
        prepare(toy.Toy(), tmp_path, seen=tmp_path / "seen.json")


def test_other_numbers_of_items_are_refused_unless_partial_data_is_allowed(toy: Any, tmp_path: Path) -> None:
    toy.write_data(tmp_path, {"cats": 3, "birds": 1})
    with pytest.raises(DataError, match="dogs 0 instead of 2, birds 1 instead of 0"):
        prepare(toy.Toy(), tmp_path, seen=tmp_path / "seen.json")
    prepared = prepare(toy.Toy(), tmp_path, allow_partial=True, seen=tmp_path / "seen.json")
    assert not prepared.complete and len(prepared.warnings) == 2


def test_a_known_hash_must_be_met(toy: Any, tmp_path: Path) -> None:
    toy.write_data(tmp_path)
    benchmark = toy.Toy()
    benchmark.files = (DataFile("items.jsonl", "the tests", "MIT", sha256="0" * 64),)
    with pytest.raises(DataError, match=r"expected 0000.*the tests"):
        prepare(benchmark, tmp_path, seen=tmp_path / "seen.json")
    benchmark.files = (
        DataFile("items.jsonl", "the tests", "MIT", sha256_of(tmp_path / "toy" / "items.jsonl")),
    )
    assert prepare(benchmark, tmp_path, seen=tmp_path / "seen.json").complete


def test_of_a_known_hash_the_ends_are_enough_and_part_of_the_data_is_only_warned_of(
    toy: Any, tmp_path: Path
) -> None:
    digest = sha256_of(toy.write_data(tmp_path) / "toy" / "items.jsonl")
    benchmark, seen = toy.Toy(), tmp_path / "seen.json"
    benchmark.files = (DataFile("items.jsonl", "the tests", "MIT", f"{digest[:9]}…{digest[-4:]}"),)
    assert prepare(benchmark, tmp_path, seen=seen).warnings == []
    benchmark.files = (DataFile("items.jsonl", "the tests", "MIT", f"{digest[:9]}…{'0' * 9}"),)
    with pytest.raises(DataError, match="expected"):
        prepare(benchmark, tmp_path, seen=seen)
    (warning,) = prepare(benchmark, tmp_path, allow_partial=True, seen=seen).warnings
    assert "expected" in warning


def test_what_a_benchmark_warns_of_while_it_reads_stands_in_the_report(toy: Any, tmp_path: Path) -> None:
    class Changed(toy.Toy):
        def items(self, data: Path) -> Any:
            warnings.warn("the judge's words are not as published", stacklevel=1)
            return super().items(data)

    prepared = prepare(Changed(), toy.write_data(tmp_path), seen=tmp_path / "seen.json")
    assert prepared.warnings == ["the judge's words are not as published"]


def test_the_first_hash_is_remembered_and_a_later_one_warned_of(toy: Any, tmp_path: Path) -> None:
    seen = tmp_path / "seen.json"
    prepare(toy.Toy(), toy.write_data(tmp_path / "a"), seen=seen)
    assert prepare(toy.Toy(), toy.write_data(tmp_path / "b"), seen=seen).warnings == []
    file = tmp_path / "b" / "toy" / "items.jsonl"
    file.write_text(file.read_text().replace("number", "nummer"))
    (warning,) = prepare(toy.Toy(), tmp_path / "b", seen=seen).warnings
    assert "another content" in warning and "items.jsonl" in warning


def test_what_must_be_unpacked_is_unpacked_before_files_are_missed(toy: Any, tmp_path: Path) -> None:
    class Packed(toy.Toy):
        def prepare(self, data: Path) -> None:
            toy.write_data(data.parent)

    (tmp_path / "toy").mkdir()
    assert prepare(Packed(), tmp_path, seen=tmp_path / "seen.json").complete


def test_broken_schemas_and_double_ids_are_named(toy: Any, tmp_path: Path) -> None:
    file = toy.write_data(tmp_path) / "toy" / "items.jsonl"
    good = file.read_text()
    file.write_text(good + '{"id": "x", "group": "dogs"}\n')
    with pytest.raises(DataError, match=r"items\.jsonl:6: no 'prompt'"):
        prepare(toy.Toy(), tmp_path, seen=tmp_path / "seen.json")
    file.write_text(good + good.splitlines()[0] + "\n")
    with pytest.raises(DataError, match="'cats/0' occurs 2 times"):
        prepare(toy.Toy(), tmp_path, seen=tmp_path / "seen.json")


def test_a_selection_is_by_limit_group_and_id(toy: Any, tmp_path: Path) -> None:
    benchmark = toy.Toy()
    items = benchmark.items(toy.write_data(tmp_path) / "toy")

    def ids(**chosen: Any) -> list[str]:
        return [item.id for item in select(benchmark, items, Selection(**chosen))]

    assert ids(limit=1) == ["cats/0", "dogs/0"]
    assert ids(groups=("dogs",)) == ["dogs/0", "dogs/1"]
    assert ids(ids=("dogs/1", "cats/2")) == ["cats/2", "dogs/1"]
    assert ids(limit=1, groups=("cats",)) == ["cats/0"]
    with pytest.raises(InputError, match="no group 'birds' in toy; choose from cats, dogs"):
        ids(groups=("birds",))
    with pytest.raises(InputError, match="no item 'cats/9'"):
        ids(ids=("cats/9",))


def test_shards_are_disjoint_and_together_are_everything() -> None:
    for count in (1, 2, 3, 7, 40):
        parts = [Shard(index, count).of(range(31)) for index in range(count)]
        assert sorted(number for part in parts for number in part) == list(range(31))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert Shard.parse("2/3") == Shard(1, 3)
    for nonsense in ("0/3", "4/3", "1", "a/b", "-1/2"):
        with pytest.raises(InputError, match="1/4"):
            Shard.parse(nonsense)
