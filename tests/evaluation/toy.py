"""A benchmark of two groups, judged yes or no, small enough to count by hand."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deepgen.evaluation.benchmark import (
    Answer,
    Benchmark,
    DataFile,
    Item,
    JudgeCall,
    JudgeImage,
    JudgeProfile,
    Mode,
    ParseError,
    Published,
    Unit,
)
from deepgen.evaluation.sources import read_jsonl, require


class Toy(Benchmark):
    """Official scoring drops what did not parse; strict scoring counts it as wrong."""

    name = folder = "toy"
    title = "two groups, yes or no"
    files = (DataFile("items.jsonl", "the tests", "Apache-2.0"),)
    counts: Mapping[str, int] = {"cats": 3, "dogs": 2}
    judges = (
        JudgeProfile("judge-1", "model-1", temperature=0.0, max_tokens=(8,)),
        JudgeProfile("judge-2", "model-2", order="images-first"),
    )
    attempts = 2
    primary = "right"
    published = (
        Published("Alike", {"right": 0.5}, "judge-1", "a paper", 64),
        Published("Other judge", {"right": 0.6}, "judge-9", "a paper", 64),
        Published("Other size", {"right": 0.7}, "judge-1", "a paper", 512),
        Published("DeepGen RL", {"right": 0.8}, None, "a paper"),
    )

    def items(self, data: Path) -> list[Item]:
        rows = read_jsonl(data / "items.jsonl")
        for number, row in enumerate(rows, 1):
            require(row, f"{data / 'items.jsonl'}:{number}", id=str, group=str, prompt=str)
        return [Item(row["id"], row["group"], row["prompt"]) for row in rows]

    def official_path(self, item: Item, sample: int) -> str:
        return f"{item.group}/{item.id}_{sample}.png"

    def calls(self, item: Item, sample: int, picture: Path, judge: JudgeProfile) -> list[JudgeCall]:
        return [JudgeCall("right", f"Is this {item.prompt}?", (JudgeImage(picture),))]

    def parse(self, item: Item, call: JudgeCall, reply: str, mode: Mode) -> Any:
        text = reply.strip() if mode == "strict" else reply
        if text not in ("yes", "no"):
            raise ParseError(f"neither yes nor no: {reply[:40]!r}")
        return text == "yes"

    def score(self, item: Item, answers: Mapping[str, Answer], mode: Mode) -> Sequence[Unit]:
        value = answers["right"].value
        if value is None:
            return () if mode == "official" else (Unit("right", 0.0),)
        return (Unit("right", float(value)),)


def write_data(root: Path, counts: Mapping[str, int] = Toy.counts) -> Path:
    """The toy's data under `root`, one prompt in Chinese; returns `root`."""
    rows = [
        {"id": f"{group}/{n}", "group": group, "prompt": f"{group} number {n} 第{n}只"}
        for group, count in counts.items()
        for n in range(count)
    ]
    (root / "toy").mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (root / "toy" / "items.jsonl").write_text(text, encoding="utf-8")
    return root
