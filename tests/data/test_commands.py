"""`deepgen data check, stats, convert` on small real files."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from data_files import encoded, picture, set_of, write_json
from typer.testing import CliRunner

from deepgen.cli import build_app
from deepgen.errors import ConfigError, DataError


def command(*arguments: str):
    return CliRunner().invoke(build_app(list(arguments)), list(arguments))


def written(folder: Path, *sets: dict, **settings: object) -> str:
    tasks = sorted({one["task"] for one in sets})
    config = {"sets": list(sets), "ratio": dict.fromkeys(tasks, 1), "area": 4096, **settings}
    (folder / "data.yaml").write_text(yaml.safe_dump(config))
    return str(folder / "data.yaml")


def test_check_tells_of_every_kind_of_fault_and_fails_above_the_budget(t2i_list, edit_list, tmp_path):
    folder, rows = t2i_list.parent, json.loads(t2i_list.read_text())
    shutil.copy(folder / "red.png", folder / "blue.png")  # the same picture twice
    (folder / "green.png").write_bytes((folder / "green.png").read_bytes()[:50])
    (folder / "yellow.png").unlink()
    write_json(t2i_list, [*rows, {"image_path": "red.png"}])
    config = written(tmp_path, set_of(t2i_list), set_of(edit_list, "published_edit", "edit", "two"))
    result = command("data", "check", config, "--no-contamination", "-o", str(tmp_path / "found.json"))
    assert result.exit_code == 1, result.output
    assert "3 broken (42.86%): 1 malformed, 1 missing, 1 damaged" in result.output
    assert "yellow.png: no such file" in result.output and "no field 'txt'" in result.output
    assert "duplicates: 1 pictures, 0 with the same prompt" in result.output
    one, two = json.loads((tmp_path / "found.json").read_text())
    assert (one["samples"], len(one["faults"]), two["references"]) == (7, 3, {"1": 2, "2": 1})
    assert command("data", "check", config, "broken_budget=0.5", "--no-contamination").exit_code == 0


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_half_of_a_character_breaks_its_sample_and_nothing_else(tmp_path, suffix):
    image = picture(tmp_path, "a.png", "red")
    rows = [
        {"prompt": "a heart \u2764", "target": image},
        {"prompt": "a smile \ud83d", "target": image},
        {"prompt": "a wall", "target": "\udc00.png"},
    ]
    text = json.dumps(rows) if suffix == ".json" else "\n".join(map(json.dumps, rows))
    (tmp_path / f"list{suffix}").write_text(text)
    config = written(tmp_path, set_of(tmp_path / f"list{suffix}", "deepgen"))
    result = command("data", "check", config, "--no-contamination", "-o", str(tmp_path / "found.json"))
    assert result.exit_code == 1 and "2 broken (66.67%): 2 malformed" in result.output, result.output
    assert f"list{suffix}, sample 1: 'prompt' holds half of a character, '\\ud83d' at 8" in result.output
    assert "sample 2: 'target' holds half of a character" in result.output


def test_check_lists_the_pictures_of_a_folder_that_have_no_caption(tmp_path):
    for number in range(14):
        picture(tmp_path / "pictures" / "deep", f"{number:02d}.png", "red")
    (tmp_path / "pictures" / "deep" / "03.txt").write_text("a wall")
    one = {"name": "one", "task": "t2i", "format": "folder", "path": str(tmp_path / "pictures")}
    config = written(tmp_path, one)
    result = command("data", "check", config, "--no-contamination", "-o", str(tmp_path / "found.json"))
    assert result.exit_code == 0 and "one: t2i, 1 samples, 1 checked\n  0 broken" in result.output
    assert "13 pictures have no .txt caption beside them and are left out:\n    deep/00.png" in result.output
    assert "    and 3 more; -o FILE keeps all" in result.output
    (found,) = json.loads((tmp_path / "found.json").read_text())
    assert len(found["uncaptioned"]) == 13 and "deep/03.png" not in found["uncaptioned"]


def test_check_and_stats_count_what_a_set_leaves_out_by_size_apart(tmp_path):
    sizes = [(96, 96), (40, 96), (96, 900), (96, 96)]
    rows = [
        {"image_path": picture(tmp_path, f"{i}.png", "red", size), "txt": f"{i}"}
        for i, size in enumerate(sizes)
    ]
    config = written(
        tmp_path, {**set_of(write_json(tmp_path / "l.json", rows)), "min_side": 81, "max_aspect": 8}
    )
    result = command("data", "check", config, "--no-contamination", "-o", str(tmp_path / "found.json"))
    assert result.exit_code == 0 and "0 broken" in result.output
    assert "2 left out: their targets" in result.output and "trained at 64x64 100.0%" in result.output
    (found,) = json.loads((tmp_path / "found.json").read_text())
    assert (found["checked"], found["left_out"], found["stored_sizes"]) == (4, 2, {"96x96": 2})
    assert "broken: 0; left out by size: 6" in command("data", "stats", config, "--samples", "12").output


def test_check_reads_validation_data_too_and_finds_what_training_holds_of_it(t2i_list, tmp_path):
    sets = [set_of(t2i_list), {**set_of(t2i_list), "path": f"{tmp_path}/held/list.json"}]
    write_json(tmp_path / "held" / "list.json", json.loads(t2i_list.read_text())[:2])
    shutil.copy(t2i_list.parent / "red.png", tmp_path / "held")
    data, held_out = ({"sets": [one], "ratio": {"t2i": 1}} for one in sets)
    changed = [f"{key}={json.dumps(value)}" for key, value in (("data", data), ("validation.data", held_out))]
    result = command("data", "check", "smoke", *changed, "--no-contamination")
    assert result.exit_code == 1 and "one: t2i, 6 samples" in result.output, result.output
    told = result.output.partition("one of validation.data: t2i, 2 samples, 2 checked")[2]
    assert "1 broken (50.00%)" in told and "duplicates: 1 pictures, 1 with the same prompt" in told


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("datta.area=1", "smoke.yaml: datta: unknown key, did you mean 'data'?"),
        ("data.arrea=1", "smoke.yaml: data.arrea: unknown key, did you mean 'area'?"),
        ("validation.data.area=1", "smoke.yaml: validation.data.area: input should be greater"),
    ],
)
def test_check_refuses_what_training_would_refuse_and_names_the_key(override, message):
    result = command("data", "check", "smoke", override)
    assert isinstance(result.exception, ConfigError) and message in str(result.exception), result.exception


def test_check_finds_benchmark_prompts_among_the_captions(tmp_path):
    from deepgen.evaluation import registry
    from deepgen.evaluation.data import prepare

    world = registry.all_benchmarks()["world"]
    prompt = prepare(world, tmp_path / "bench", allow_partial=True).items[0].prompt
    rows = [
        {"image_path": picture(tmp_path, f"{i}.png", "red"), "txt": text}
        for i, text in enumerate(("a quiet lake", prompt))
    ]
    config = written(tmp_path, set_of(write_json(tmp_path / "l.json", rows)))
    result = command("data", "check", config, "--data", str(tmp_path / "bench"))
    assert result.exit_code == 1 and "CONTAMINATED by world: 1 exact" in result.output, result.output


def test_stats_count_what_a_run_will_see(two_tasks, tmp_path):
    config = written(tmp_path, *two_tasks, ratio={"edit": 1, "t2i": 3}, buckets=True)
    result = command("data", "stats", config, "--samples", "80")
    assert result.exit_code == 0, result.output
    assert "tasks: t2i 75.0%, edit 25.0%" in result.output
    assert "one: t2i, 6 samples, 75.00% of what is drawn" in result.output


def test_short_names_of_packaged_configurations_work_here_too():
    result = command("data", "stats", "smoke", "--samples", "8")
    assert result.exit_code == 0 and "world_edit: edit" in result.output


def test_convert_maps_any_columns_to_a_list_that_opens(tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        picture(tmp_path / "pics", name, "red")
    table = "what,out,src,mask\nmake it blue,a.png,b.png,c.png\n"
    (tmp_path / "table.csv").write_text(table)
    maps = ["prompt=what", "target=out", "references=src", "references=mask"]
    options = [x for entry in maps for x in ("--map", entry)]
    output = tmp_path / "lists" / "list.jsonl"
    result = command(
        "data",
        "convert",
        str(tmp_path / "table.csv"),
        "-o",
        str(output),
        *options,
        "--root",
        f"{tmp_path}/pics",
    )
    assert result.exit_code == 0 and "1 samples" in result.output, result.output
    config = written(tmp_path, set_of(output, "deepgen", "edit"))
    checked = command("data", "check", config, "--no-contamination")
    assert checked.exit_code == 0 and "references: 2 100.0%" in checked.output, checked.output


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (["prompt=what"], "--map target=COLUMN must be given once"),
        (["prompt=what", "target=out", "caption=x"], "must be FIELD=COLUMN"),
        (["prompt=words", "target=out"], "no field 'words'; there is what, out"),
    ],
)
def test_convert_says_what_is_wrong_with_a_mapping(tmp_path, maps, message):
    (tmp_path / "table.csv").write_text("what,out\na,b.png\n")
    options = [x for entry in maps for x in ("--map", entry)]
    result = command(
        "data", "convert", str(tmp_path / "table.csv"), "-o", str(tmp_path / "l.jsonl"), *options
    )
    assert result.exit_code != 0 and message in str(result.exception)
    assert not (tmp_path / "l.jsonl").exists()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("café,b.png".encode("latin-1"), "table.csv: not UTF-8 ('utf-8' codec can't decode byte 0xe9"),
        (b"x" * 131_073 + b",b.png", "cannot be read after line 2 (field larger than field limit"),
        (b",b.png", "row 1: 'what' must be a text"),
    ],
)
def test_convert_says_where_a_table_cannot_be_read_and_leaves_nothing_behind(tmp_path, row, message):
    (tmp_path / "table.csv").write_bytes(b"what,out\na,b.png\n" + row + b"\n")
    maps = ["--map", "prompt=what", "--map", "target=out"]
    result = command("data", "convert", f"{tmp_path}/table.csv", "-o", f"{tmp_path}/l.jsonl", *maps)
    assert isinstance(result.exception, DataError) and message in str(result.exception), result.exception
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


def test_convert_takes_pictures_out_of_parquet(tmp_path):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [{"text": "red", "image": {"bytes": encoded("red"), "path": None}}]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    maps = ["--map", "prompt=text", "--map", "target=image"]
    assert (
        command(
            "data", "convert", str(tmp_path / "t.parquet"), "-o", str(tmp_path / "l.jsonl"), *maps
        ).exit_code
        == 0
    )
    assert json.loads((tmp_path / "l.jsonl").read_text())["target"] == "l/00000000.png"
    assert (tmp_path / "l" / "00000000.png").read_bytes() == encoded("red")
