"""The fixed test files of the picture world, `world-test-v*.jsonl`: a prompt and its exact truth in each line.

`make_test_file` wrote each once, from the test split of its day; they are package data, and a new one gets a new name.
"""

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from deepgen.errors import InputError
from deepgen.world.edits import EditSample
from deepgen.world.sampling import CATEGORIES, EDIT_KINDS, Sample, draw_edit, draw_sample
from deepgen.world.scenes import Scene

TEST_FILE = "world-test-v2.jsonl"
FIRST_TEST_FILE = "world-test-v1.jsonl"
"""Of the world's first 210 concepts in 3d and flat, without inserts: the world that the shipped nano was trained in."""
TEST_CATEGORIES = (*CATEGORIES, *(f"edit_{kind}" for kind in EDIT_KINDS))


@dataclass(frozen=True)
class Item:
    """One line of the test file."""

    id: str
    number: int
    category: str
    sample: Sample | EditSample

    @property
    def shown(self) -> Scene:
        """The scene that the picture should show."""
        return self.sample.target if isinstance(self.sample, EditSample) else self.sample.scene

    @property
    def prompt(self) -> str:
        return self.sample.instruction if isinstance(self.sample, EditSample) else self.sample.prompt


def make_test_file(path: Path, per_category: int = 50, seed: int = 1) -> None:
    """Write a test file: `per_category` different prompts of each category, from the test split."""
    lines = []
    for category in TEST_CATEGORIES:
        rng = random.Random(f"{TEST_FILE}/{seed}/{category}")
        known: set[str] = set()
        while len(known) < per_category:
            sample = _draw_item(rng, category)
            if sample.key not in known:
                row = _to_json(sample) | {"id": f"{category}-{len(known):03d}", "category": category}
                lines.append(json.dumps(row, separators=(",", ":"), ensure_ascii=False) + "\n")
                known.add(sample.key)
    path.write_text("".join(lines), encoding="utf-8")


def _draw_item(rng: random.Random, category: str) -> Sample | EditSample:
    if category.startswith("edit_"):
        return draw_edit(rng, "test", (category.removeprefix("edit_"),))
    return draw_sample(rng, "test", (category,))


def _to_json(sample: Sample | EditSample) -> dict[str, Any]:
    if isinstance(sample, EditSample):
        source, target = sample.source.to_json(), sample.target.to_json()
        row: dict[str, Any] = {"prompt": sample.instruction, "source": source, "target": target}
        if sample.references:
            row["references"] = [scene.to_json() for scene in sample.references]
        return row | {"region": sample.region, "key": sample.key}
    mentions = sorted(sample.mentions)
    return {"prompt": sample.prompt, "mentions": mentions, "scene": sample.scene.to_json(), "key": sample.key}


def row_of(sample: Sample | EditSample) -> dict[str, Any]:
    """The sample as a line of a test file has it, without its id; what rewards are told of a prompt."""
    kind = "edit_" if isinstance(sample, EditSample) else ""
    return _to_json(sample) | {"category": kind + sample.category}


def sample_of(row: Mapping[str, Any]) -> Sample | EditSample:
    """The inverse. Raises DataError, KeyError, TypeError or ValueError for what is no such line."""
    category, prompt = row["category"], row["prompt"]
    if "source" not in row:
        scene = Scene.from_json(row["scene"])
        return Sample(category, prompt, scene, frozenset(row["mentions"]), "test", row["key"])
    source, target = Scene.from_json(row["source"]), Scene.from_json(row["target"])
    region = tuple(tuple(box) for box in row["region"])
    references = tuple(Scene.from_json(scene) for scene in row.get("references", ()))
    kind = category.removeprefix("edit_")
    return EditSample(kind, prompt, source, target, region, "test", row["key"], references)


def packaged(name: str = TEST_FILE) -> Path:
    """Where a test file of the package is."""
    return Path(str(resources.files("deepgen.world"))) / name


def load_items(path: Path | None = None) -> tuple[list[Item], str]:
    """The items of a test file (the packaged TEST_FILE if not given) and the file's sha256."""
    content = (path or packaged()).read_bytes()
    rows = [json.loads(line) for line in content.decode("utf-8").splitlines()]
    items = [Item(row["id"], n, row["category"], sample_of(row)) for n, row in enumerate(rows)]
    return items, hashlib.sha256(content).hexdigest()


def select(items: Sequence[Item], categories: Sequence[str], limit: int | None) -> list[Item]:
    """The first `limit` items of each of the categories. Raises InputError for an unknown category."""
    unknown = sorted(set(categories) - {item.category for item in items})
    if unknown:
        known = ", ".join(dict.fromkeys(item.category for item in items))
        raise InputError(f"no category {', '.join(unknown)} in the world's test; choose from {known}")
    return [item for name in categories for item in [i for i in items if i.category == name][:limit]]
