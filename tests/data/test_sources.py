import json
from pathlib import Path

import numpy as np
import pytest
from data_files import COLOURS, encoded, picture, set_of, write_json, write_tar
from pydantic import TypeAdapter

from deepgen.data.config import AnySet
from deepgen.data.index import Index
from deepgen.data.sources import Source, open_set
from deepgen.data.sources.base import files_of
from deepgen.errors import DataError, InputError


def opened(**config: object) -> Source:
    return open_set(TypeAdapter(AnySet).validate_python({"name": "s", "task": "t2i", **config}))


def test_the_published_text_to_image_list_opens_as_it_is(t2i_list: Path) -> None:
    source = opened(**set_of(t2i_list))
    record = source.record(2)
    assert (len(source), record.prompt, record.references) == (6, "a blue field", ())
    assert record.target.open().getpixel((0, 0)) == (0, 0, 255)


def test_the_published_edit_list_gives_every_reference(edit_list: Path) -> None:
    record = opened(**set_of(edit_list, "published_edit", "edit")).record(2)
    assert record.prompt == "mix them"
    assert [p.open().getpixel((0, 0)) for p in record.references] == [(255, 0, 0), (0, 0, 255)]


def test_published_captions_stand_in_files_of_their_own(tmp_path: Path) -> None:
    picture(tmp_path / "raw", "1.png", "red")
    write_json(tmp_path / "captions" / "1.json", {"caption": "raw text", "re_caption": "a red wall"})
    write_json(tmp_path / "lists" / "data.json", [{"image": "1.png", "annotation": "1.json"}])
    roots = {"root": tmp_path / "raw", "prompt_root": tmp_path / "captions"}
    common = {"format": "list", "path": tmp_path / "lists", **roots}
    assert opened(**common, layout="published_captions").record(0).prompt == "a red wall"
    own = {"prompt": "caption", "prompt_file": "annotation", "target": "image", "references": []}
    assert opened(**common, fields=own).record(0).prompt == "raw text"


def test_a_json_lines_list_of_our_own_schema_opens(tmp_path: Path) -> None:
    picture(tmp_path, "1.png", "red")
    rows = [
        {"prompt": "a wall", "target": "1.png"},
        {"prompt": "a wall", "target": "1.png", "references": []},
    ]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    assert len(opened(format="list", path=tmp_path / "list.jsonl")) == 2


def test_a_folder_pairs_pictures_with_captions(tmp_path: Path) -> None:
    for colour in COLOURS[:2]:
        picture(tmp_path / "deep" / "er", f"{colour}.jpg", colour)
        (tmp_path / "deep" / "er" / f"{colour}.txt").write_text(f"all {colour}\n")
    picture(tmp_path, "alone.png", "blue")
    source = opened(format="folder", path=tmp_path)
    assert [source.record(i).prompt for i in range(len(source))] == ["all green", "all red"]


def shards(tmp_path: Path) -> str:
    for number in range(3):
        members = {}
        for colour in COLOURS[2 * number : 2 * number + 2]:
            members[f"dir/{colour}.jpg"] = encoded(colour, kind="JPEG")
            members[f"dir/{colour}.txt"] = f"all {colour}".encode()
            members[f"dir/{colour}.json"] = json.dumps({"long": f"wholly {colour}"}).encode()
        write_tar(tmp_path / f"part-{number:03d}.tar", members)
    return str(tmp_path / "part-{000..002}.tar")


def test_tar_shards_are_read_in_place(tmp_path: Path) -> None:
    source = opened(format="webdataset", path=shards(tmp_path))
    assert list(source.groups) == [2, 2, 2]
    assert [source.record(i).prompt for i in range(6)] == [f"all {c}" for c in COLOURS]
    red = np.asarray(source.record(0).target.open())[0, 0]
    assert red[0] > 250 and red[1] < 5


def test_a_caption_can_stand_in_a_shards_json(tmp_path: Path) -> None:
    fields = {"prompt": "json.long", "target": "png|jpg", "references": []}
    source = opened(format="webdataset", path=shards(tmp_path), fields=fields)
    assert source.record(5).prompt == "wholly orange"


def test_edits_in_shards_take_the_references_that_are_there(tmp_path: Path) -> None:
    red, blue = encoded("red"), encoded("blue")
    members = {"a.src.png": red, "a.out.png": blue, "a.txt": b"blue it"}
    members |= {"b.src.png": red, "b.src2.png": blue, "b.out.png": blue, "b.txt": b"mix"}
    write_tar(tmp_path / "e.tar", members)
    fields = {"prompt": "txt", "target": "out.png", "references": ["src.png", "src2.png"]}
    source = opened(format="webdataset", path=str(tmp_path / "e.tar"), fields=fields, task="edit")
    assert [len(source.record(i).references) for i in range(2)] == [1, 2]


def test_a_shard_that_was_cut_short_is_named(tmp_path: Path) -> None:
    shards(tmp_path)
    path = tmp_path / "part-001.tar"
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(DataError, match=r"part-001\.tar: not a whole"):
        opened(format="webdataset", path=str(tmp_path / "*.tar"))


def test_what_was_found_out_about_shards_is_kept_until_they_change(tmp_path: Path, monkeypatch) -> None:
    pattern, index = shards(tmp_path), Index(tmp_path / "index")
    config = TypeAdapter(AnySet).validate_python(
        {"name": "s", "task": "t2i", "format": "webdataset", "path": pattern}
    )
    first = open_set(config, index)
    monkeypatch.setattr("deepgen.data.sources.shards.TarSource._scan", lambda self: pytest.fail("read again"))
    again = open_set(config, index)
    assert [again.record(i) for i in range(6)] == [first.record(i) for i in range(6)]
    write_tar(tmp_path / "part-002.tar", {"x.jpg": encoded("red"), "x.txt": b"red"})
    with pytest.raises(pytest.fail.Exception):
        open_set(config, index)


def test_parquet_holds_pictures_or_paths(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    picture(tmp_path, "p.png", "blue")
    rows = [
        {"text": "red", "image": {"bytes": encoded("red"), "path": "x.png"}, "src": ["p.png"]},
        {"text": "blue", "image": {"bytes": None, "path": "p.png"}, "src": ["p.png", "p.png"]},
    ]
    parquet.write_table(pa.Table.from_pylist(rows * 3), tmp_path / "d.parquet", row_group_size=2)
    fields = {"prompt": "text", "target": "image", "references": ["src"]}
    source = opened(format="parquet", path=str(tmp_path / "*.parquet"), fields=fields, task="edit")
    assert list(source.groups) == [2, 2, 2]
    assert source.record(4).target.open().getpixel((0, 0)) == (255, 0, 0)
    assert source.record(5).target.open().getpixel((0, 0)) == (0, 0, 255)
    assert len(source.record(5).references) == 2
    wrong = {**fields, "prompt": "caption"}
    with pytest.raises(DataError, match="no column 'caption'; there is text, image, src"):
        opened(format="parquet", path=str(tmp_path / "d.parquet"), fields=wrong, task="edit")


def test_parquet_edits_in_our_own_schema_open_without_naming_a_field(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    row = {"prompt": "make it blue", "target": {"bytes": encoded("blue"), "path": None}}
    references = {"references": [{"bytes": encoded("red"), "path": None}] * 2}
    parquet.write_table(pa.Table.from_pylist([{**row, **references}]), tmp_path / "edit.parquet")
    edit = opened(format="parquet", path=f"{tmp_path}/edit.parquet", fields={}, task="edit").record(0)
    assert [p.open().getpixel((0, 0)) for p in edit.references] == [(255, 0, 0)] * 2
    parquet.write_table(pa.Table.from_pylist([row]), tmp_path / "t2i.parquet")
    assert opened(format="parquet", path=f"{tmp_path}/t2i.parquet", fields={}).record(0).references == ()


def test_the_world_gives_edits_and_pictures_by_number() -> None:
    source = opened(format="world", task="edit", length=50)
    one, again = source.record(3), source.record(3)
    assert (len(source), len(one.references)) == (50, 1)
    assert (np.asarray(one.target.open()) == np.asarray(again.target.open())).all()
    assert one.target.size() == one.target.open().size
    assert source.record(4).prompt != one.prompt or source.record(4).target != one.target


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"image_path": "1.png"}, "no field 'txt'; there is image_path"),
        ({"image_path": "1.png", "txt": " "}, "'txt' must be a text"),
        ({"image_path": 5, "txt": "a"}, "'image_path' must be a path"),
        ({"image_path": ["1.png", "2.png"], "txt": "a"}, "names 2 pictures"),
        (["1.png", "a"], "must be a mapping"),
    ],
)
def test_a_malformed_row_is_named(tmp_path: Path, row: object, message: str) -> None:
    source = opened(**set_of(write_json(tmp_path / "l.json", [row])))
    with pytest.raises(DataError, match=message) as caught:
        source.record(0)
    assert "l.json, sample 0" in str(caught.value)


def test_a_samples_references_must_fit_the_sets_task(edit_list: Path, t2i_list: Path) -> None:
    with pytest.raises(DataError, match="1 references, and the set's task is t2i"):
        opened(**set_of(edit_list, "published_edit", "t2i")).record(0)
    with pytest.raises(DataError, match="no reference, and the set's task is edit"):
        opened(**set_of(t2i_list, task="edit")).record(0)


def test_files_are_found_by_number_and_wildcard_and_a_missing_one_is_named(tmp_path: Path) -> None:
    for name in ("a-09.tar", "a-10.tar", "a-11.tar"):
        (tmp_path / name).touch()
    assert [p.name for p in files_of(f"{tmp_path}/a-{{09..10}}.tar", "tar")] == ["a-09.tar", "a-10.tar"]
    assert len(files_of(f"{tmp_path}/*.tar", "tar")) == 3
    with pytest.raises(DataError, match=r"a-12\.tar: no such tar"):
        files_of(f"{tmp_path}/a-{{09..12}}.tar", "tar")


def test_a_picture_is_measured_as_it_stands_upright(tmp_path: Path) -> None:
    from PIL import Image

    image = Image.new("RGB", (30, 20))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "t.jpg", exif=exif)
    write_json(
        tmp_path / "l.json", [{"image_path": "t.jpg", "txt": "a"}, {"image_path": "l.json", "txt": "a"}]
    )
    source = opened(**set_of(tmp_path / "l.json"))
    assert source.record(0).target.size() == source.record(0).target.open().size == (20, 30)
    with pytest.raises(InputError, match=r"l.json: not an image"):
        source.record(1).target.size()
