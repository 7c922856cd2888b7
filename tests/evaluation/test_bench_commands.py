"""`deepgen bench` as a user types it, with the benchmark world and a real WISE-like judge on the loopback."""

import json
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deepgen.cli import main
from deepgen.evaluation import registry


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy: Any) -> None:
    """Nothing of the user's own, and the toy among the benchmarks."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    known = registry.all_benchmarks()
    monkeypatch.setattr(registry, "all_benchmarks", lambda: known | {"toy": toy.Toy()})


def deepgen(*arguments: object) -> int:
    """The exit code of a command."""
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.fixture
def data(toy: Any, tmp_path: Path) -> Path:
    return Path(toy.write_data(tmp_path / "data"))


@pytest.fixture
def theirs(toy: Any, harness: Any, data: Path, tmp_path: Path) -> Path:
    """Pictures made elsewhere, in the toy's official layout."""
    benchmark = toy.Toy()
    for item in benchmark.items(data / "toy"):
        harness.paint(tmp_path / "theirs" / benchmark.official_path(item, 0), item.id)
    return tmp_path / "theirs"


def test_the_list_names_every_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    assert deepgen("bench", "list") == 0
    told = capsys.readouterr().out
    assert all(re.search(rf"^{re.escape(name)} ", told, re.M) for name in registry.all_benchmarks())
    assert "none stated" in told


def test_prepare_tells_hashes_or_where_to_get_the_data(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert deepgen("bench", "prepare", "toy", "--data", data) == 0
    assert "toy: 5 items, complete" in capsys.readouterr().out
    assert deepgen("bench", "prepare", "wise-legacy", "--data", data) == 1
    assert "licence: none stated" in capsys.readouterr().err


def test_step_by_step_with_pictures_made_elsewhere(
    judge_server: Any, data: Path, theirs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert deepgen("bench", "generate", "toy", "--images", theirs, "--data", data, "-o", "run") == 0
    assert deepgen("bench", "judge", "run", "--dry-run", "--price", "2,8") == 0
    told = capsys.readouterr().out
    assert "5 of 5 pictures taken" in told and "5 new calls" in told and "cost about 0.01" in told
    assert judge_server.requests == []
    judge_server.reply = lambda request: "yes" if "cats" in request.text else "no"
    for part, asked in (("1/2", 3), ("2/2", 5), ("2/2", 5)):
        assert deepgen("bench", "judge", "run", "--url", judge_server.url, "--shard", part) == 0
        assert len(judge_server.requests) == asked
    assert deepgen("bench", "score", "run", "--resamples", "50") == 0
    assert "toy/right[judge-1,strict]" in capsys.readouterr().out
    assert deepgen("bench", "report", "run") == 0
    folder = Path("run/scores/judge-1.strict")
    assert {"overview.png", "records.jsonl", "report.html", "results.json", "results.md", "sheets"} == {
        path.name for path in folder.iterdir()
    }
    results = json.loads((folder / "results.json").read_text())
    assert results["overall"]["right"]["value"] == 0.5
    assert deepgen("bench", "export", "run", "out") == 0
    assert sorted(p.relative_to("out") for p in Path("out").rglob("*.png")) == sorted(
        p.relative_to(theirs) for p in theirs.rglob("*.png")
    )


def test_all_steps_at_once_and_two_runs_compared(
    judge_server: Any, data: Path, theirs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = ("--images", theirs, "--data", data, "--url", judge_server.url)
    assert deepgen("bench", "run", "toy", "-o", "a", *shared) == 0
    judge_server.reply = "no"
    assert deepgen("bench", "run", "toy", "-o", "a", *shared) == 0
    assert len(judge_server.requests) == 5, "the second time nothing is asked"
    assert deepgen("bench", "run", "toy", "-o", "b", *shared) == 0
    capsys.readouterr()
    assert deepgen("bench", "compare", "a", "b", "-o", "cmp", "--resamples", "50") == 0
    assert "-1.000" in capsys.readouterr().out
    assert Path("cmp/comparison.html").is_file()


def test_partial_runs_show_no_overall_unless_allowed(
    judge_server: Any, data: Path, theirs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = ("--images", theirs, "--data", data, "--url", judge_server.url, "--limit", "1", "-o", "a")
    assert deepgen("bench", "run", "toy", *shared) == 0
    told = capsys.readouterr().out
    assert "coverage 2/5 pictures (40.0%)" in told and "toy/right" not in told
    assert deepgen("bench", "score", "a", "--allow-partial", "--resamples", "50") == 0
    assert "toy/right[judge-1,strict,partial]" in capsys.readouterr().out


def test_a_judge_that_fails_leaves_scores_of_the_rest_and_exit_code_1(
    judge_server: Any, replies: Any, data: Path, theirs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judge_server.reply = lambda r: replies.Status(400, "no") if "dogs number 0" in r.text else "yes"
    shared = ("--images", theirs, "--data", data, "--url", judge_server.url, "-o", "a")
    assert deepgen("bench", "run", "toy", *shared) == 1
    told = capsys.readouterr()
    assert "failed 1" in told.out and "1 calls stay without an answer" in told.err
    judge_server.reply = "yes"
    assert deepgen("bench", "run", "toy", *shared) == 0
    assert "coverage 5/5" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "toys", "-o", "x"], "did you mean toy"),
        (["run", "toy", "-o", "x"], "--url"),
        (["run", "toy", "-o", "x", "--url", "nonsense"], "http://localhost:8000/v1"),
        (["run", "toy", "--sprites", "s.zip"], "--sprites is for the benchmark world"),
        (["run", "toy", "--url", "http://localhost:1", "--ceiling"], "--ceiling is for the benchmark world"),
        (["run", "world", "--judge", "gpt"], "no judge 'gpt'; choose from world-detector"),
        (["generate", "toy", "--groups", "birds", "--images", "."], "choose from cats, dogs"),
        (["judge", "run", "--price", "cheap"], "must be two numbers"),
    ],
)
def test_wrong_usage_is_exit_code_2_before_anything_is_drawn(
    data: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str], theirs: Path
) -> None:
    if arguments[0] == "judge":
        deepgen("bench", "generate", "toy", "--images", theirs, "--data", data, "-o", "run")
        arguments = [*arguments, "--dry-run"]
    else:
        arguments = [*arguments, "--data", str(data)]
    assert deepgen("bench", *arguments) == 2
    assert words in capsys.readouterr().err


def test_verify_prints_a_line_each_and_fails_on_a_difference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"a": [0, 0, 10, 10, 1], "b": [50, 0, 60, 10, 1], "relations": ["left of"], "iou": 0.0}
    golden = tmp_path / "samples" / "geneval" / "golden_relative_position_iou.json"
    golden.parent.mkdir(parents=True)
    golden.write_text(json.dumps([row]))
    assert deepgen("bench", "verify", tmp_path / "samples") == 0
    assert "ok" in capsys.readouterr().out
    golden.write_text(json.dumps([row | {"iou": 2e-9}]))
    assert deepgen("bench", "verify", tmp_path / "samples") == 1
    assert "DIFFERS" in capsys.readouterr().out


def test_contamination_is_exit_code_1_and_clean_is_0(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "train.txt").write_text("a cat\nDOGS number 1 第1只\n", encoding="utf-8")
    shared = ("--benchmarks", "toy", "--data", data)
    assert deepgen("bench", "contamination", "train.txt", *shared, "-o", "found.json") == 1
    assert "toy: 1 exact and 0 near of 5" in capsys.readouterr().out
    assert json.loads(Path("found.json").read_text())[0]["exact"] == ["dogs/1"]
    (tmp_path / "train.txt").write_text("a cat\n")
    assert deepgen("bench", "contamination", "train.txt", *shared) == 0
    assert deepgen("bench", "contamination", "train.txt", "--data", data) == 0
    assert "geneval: not checked" in capsys.readouterr().out


def test_torchrun_draws_each_picture_once_whatever_the_number_of_processes(
    toy: Any, data: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """Two real processes with torchrun's variables; five pictures do not divide evenly."""
    script = tmp_path / "draw.py"
    script.write_text(
        "import importlib.util, sys\n"
        "spec = importlib.util.spec_from_file_location('toy', sys.argv[1])\n"
        "toy = importlib.util.module_from_spec(spec); spec.loader.exec_module(toy)\n"
        "from deepgen.evaluation import registry\n"
        "registry.all_benchmarks = lambda: {'toy': toy.Toy()}\n"
        "from deepgen.cli import main\n"
        "main(sys.argv[2:])\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = ["toy", "--data", str(data), "--model", str(tiny_checkpoint), "--steps", "1", "-o", "run"]
    command = [sys.executable, str(script), toy.__file__, "bench", "generate", *shared]
    processes = [
        subprocess.Popen(
            command,
            env={"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
            | {"MASTER_PORT": port, "HOME": str(tmp_path), "PATH": "", "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    assert [f"{done}/{done} " in error for done, error in zip((3, 2), errors, strict=True)] == [True, True]
    assert len(list(Path("run/pictures").rglob("*.png"))) == 5
