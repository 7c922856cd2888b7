"""Every file of `benchmarks/` is found, describes itself fully, and verification tells right from wrong."""

import json
import math
from pathlib import Path

import pytest

from deepgen.errors import DataError, InputError
from deepgen.evaluation import registry
from deepgen.evaluation.benchmark import check
from deepgen.scorers.calls import JudgeProfile

FAMILIES = {
    *("geneval", "dpg-bench", "dpg-vlm", "unigenbench-en", "unigenbench-zh", "wise-legacy", "wise-verified"),
    *("t2i-corebench", "t2i-corebench-reasoning", "gedit-bench-en", "gedit-bench-cn", "imgedit-basic"),
    *("risebench-2026.04", "risebench-2025.05", "unireditbench", "cvtg-2k", "world", "world-v1"),
}


def test_the_ten_and_the_world_are_there() -> None:
    assert set(registry.all_benchmarks()) >= FAMILIES
    with pytest.raises(InputError, match="did you mean geneval"):
        registry.find("gen-eval")


@pytest.mark.parametrize("name", sorted(registry.all_benchmarks()))
def test_a_benchmark_describes_itself_fully(name: str) -> None:
    benchmark = registry.find(name)
    assert benchmark.title and benchmark.folder and benchmark.primary
    assert sum(benchmark.counts.values()) >= 100 and benchmark.samples >= 1 and benchmark.attempts >= 1
    assert all(isinstance(judge, JudgeProfile) for judge in benchmark.judges)
    assert len({judge.name for judge in benchmark.judges}) == len(benchmark.judges) >= 1
    assert all(file.origin and file.licence for file in benchmark.files)
    assert all(low != high for low, high in benchmark.scales.values())


def test_verification_finds_samples_and_differences(tmp_path: Path) -> None:
    rows = [{"a": [0, 0, 10, 10, 1], "b": [50, 0, 60, 10, 1], "relations": ["left of"], "iou": 0.0}]
    (tmp_path / "geneval").mkdir()
    golden = tmp_path / "geneval" / "golden_relative_position_iou.json"
    golden.write_text(json.dumps(rows))
    for folder in (tmp_path, tmp_path / "geneval"):
        ((name, found),) = registry.verify(folder)
        assert name == "geneval" and found.diff == 0
    rows[0]["iou"] = 1e-6
    golden.write_text(json.dumps(rows))
    ((_, found),) = registry.verify(tmp_path)
    assert found.diff == pytest.approx(1e-6)
    with pytest.raises(DataError, match="holds no sample of a benchmark"):
        registry.verify(Path(__file__).parent)


def golden(folder: Path, name: str, content: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("folder", "name", "content", "told"),
    [
        ("geneval", "golden_confidence.json", [], "nothing recomputes"),
        ("wise", "golden_calculate_zh_stdout.txt", "", "nothing recomputes"),
        ("geneval", "golden_evaluate.json", [{"correct": True}], "not laid out as known"),
        ("t2i_corebench", "golden_scores_qwen_path.json", {}, "items.json: missing"),
        ("pick_a_pic", "golden_scores.json", {}, "named after no benchmark"),
    ],
)
def test_no_golden_file_is_passed_over(
    tmp_path: Path, folder: str, name: str, content: object, told: str
) -> None:
    golden(tmp_path / folder, name, content)
    ((where, found),) = registry.verify(tmp_path)
    assert where == folder and told in found.name and found.diff == math.inf


def test_a_folder_may_be_named_after_a_part_of_a_benchmark_and_a_golden_may_be_absent(tmp_path: Path) -> None:
    cases = {"legacy": [{"text": "Consistency: 2", "scores": {"consistency": 2.0}}]}
    golden(tmp_path / "wise_legacy", "golden_extract.json", cases)
    (tmp_path / "risebench").mkdir()
    assert {(name, found.diff) for name, found in registry.verify(tmp_path)} == {("wise_legacy", 0.0)}
    assert registry.verify(tmp_path / "risebench") == []


@pytest.mark.parametrize(
    ("expected", "got", "difference"),
    [
        (1, 1.0, 0.0),
        ({"a": [1, 2.5]}, {"a": (1, 2.0)}, 0.5),
        ({"a": 1}, {"b": 1}, math.inf),
        ([1], [1, 2], math.inf),
        ("yes", "no", math.inf),
        (True, 1, math.inf),
        (None, None, 0.0),
        (math.nan, math.nan, 0.0),
        (math.nan, 1.0, math.inf),
        ([], [], 0.0),
    ],
)
def test_a_check_is_the_largest_difference(expected: object, got: object, difference: float) -> None:
    assert check("x", expected, got).diff == difference
