"""GenEval: is what the prompt names there, as many as it says, in its colour and place?

553 templated prompts of six kinds, four pictures each. A detector finds objects, CLIP names their colours, and
fixed rules decide (Ghosh et al. 2023, arXiv 2310.11513; scorer djghosh13/geneval at af4902f).
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deepgen.errors import DataError
from deepgen.evaluation.benchmark import (
    Answer,
    Benchmark,
    Check,
    DataFile,
    Item,
    JudgeCall,
    JudgeImage,
    JudgeProfile,
    Mode,
    ParseError,
    Published,
    Record,
    Status,
    Summary,
    Unit,
    check,
    macro,
    takes_of,
)
from deepgen.evaluation.sources import read_json, read_jsonl, read_text, require

METADATA = "prompts/evaluation_metadata.jsonl"
CLASSES = "evaluation/object_names.txt"
ORIGIN = "a clone of https://github.com/djghosh13/geneval"
COUNTS = {
    "single_object": 80,
    "two_object": 99,
    "counting": 80,
    "colors": 94,
    "position": 100,
    "color_attr": 100,
}
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
RELATIONS = ("left of", "right of", "above", "below")
CLASS_COUNT = 80
THRESHOLD = 0.3
COUNTING_THRESHOLD = 0.9
MAX_BOXES = 16
SLACK = 0.1

Box = Sequence[float]
"""Left, top, right, bottom in pixels, and the detector's confidence in [0, 1]."""

Colours = Callable[[str, int], Sequence[str]]
"""The colours of the first so many boxes of a class."""


def relative_position(first: Box, second: Box) -> set[str]:
    """How the first box lies to the second: up to two of RELATIONS.

    The offset of the centres, less a tenth of both sizes, counts along an axis where it exceeds half of the
    centres' distance.
    """
    boxes = np.array([first[:4], second[:4]], dtype=np.float64).reshape(2, 2, 2)
    centre, other_centre = boxes.mean(axis=-2)
    size, other_size = np.abs(np.diff(boxes, axis=-2))[..., 0, :]
    offset = centre - other_centre
    beyond = np.maximum(np.abs(offset) - SLACK * (size + other_size), 0) * np.sign(offset)
    if np.all(np.abs(beyond) < 1e-3):
        return set()
    x, y = beyond / np.linalg.norm(offset)
    holds = {"left of": x < -0.5, "right of": x > 0.5, "above": y < -0.5, "below": y > 0.5}
    return {relation for relation in RELATIONS if holds[relation]}


def overlap(first: Box, second: Box) -> float:
    """Intersection over union of boxes whose last pixel belongs to them."""

    def area(left: float, top: float, right: float, bottom: float) -> float:
        return max(right - left + 1, 0) * max(bottom - top + 1, 0)

    shared = area(*map(max, first[:2], second[:2]), *map(min, first[2:4], second[2:4]))
    union = area(*first[:4]) + area(*second[:4]) - shared
    return shared / union if union else 0.0


def judge_picture(
    metadata: Mapping[str, Any], found: Mapping[str, Sequence[Box]], colours: Colours
) -> list[str]:
    """What is wrong with a picture, in the official words; empty where it is right.

    `found` has the boxes of each class, the most confident first. A clause looks only at as many as it asks for.
    """
    wrong: list[str] = []
    groups: list[Sequence[Box] | None] = []
    for clause in metadata.get("include", []):
        faults = _clause_faults(clause, found, colours, groups)
        wrong += faults
        groups.append(None if faults else found[clause["class"]][: clause["count"]])
    for clause in metadata.get("exclude", []):
        name, seen = clause["class"], len(found.get(clause["class"], ()))
        if seen >= clause["count"]:
            wrong.append(f"expected {name}<{clause['count']}, found {seen}")
    return wrong


def _clause_faults(
    clause: Mapping[str, Any],
    found: Mapping[str, Sequence[Box]],
    colours: Colours,
    groups: Sequence[Sequence[Box] | None],
) -> list[str]:
    name, count = clause["class"], clause["count"]
    boxes = found.get(name, ())[:count]
    if len(boxes) < count:
        return [f"expected {name}>={count}, found {len(boxes)}"]
    if "color" in clause:
        seen = list(colours(name, count))
        wanted = clause["color"]
        if seen.count(wanted) < count:
            others = ", ".join(f"{seen.count(colour)} {colour}" for colour in COLOURS if colour in seen)
            return [f"expected {wanted} {name}>={count}, found {seen.count(wanted)} {wanted}; and {others}"]
    if "position" in clause:
        relation, target = clause["position"]
        targets = groups[target]
        if targets is None:
            return [f"no target for {name} to be {relation}"]
        for box in boxes:
            for other in targets:
                relations = relative_position(box, other)
                if relation not in relations:
                    named = " and ".join(r for r in RELATIONS if r in relations)
                    return [f"expected {name} {relation} target, found {named} target"]
    return []


class GenEval(Benchmark):
    name = "geneval"
    title = "553 prompts: objects, counts, colours, places, judged by a detector and CLIP"
    folder = "geneval"
    files = (
        DataFile(METADATA, ORIGIN, "MIT", sha256="5c48e0813e81…3e67c13"),
        DataFile(CLASSES, ORIGIN, "MIT"),
    )
    counts = COUNTS
    samples = 4
    judges = (
        JudgeProfile("geneval-hf", kind="geneval-hf"),
        JudgeProfile("geneval-mmdet", kind="process"),
    )
    attempts = 1
    primary = "overall"
    published = (
        Published("DeepGen SFT", {"overall": 0.86}, None, "DeepGen paper, table 1", 512),
        Published("DeepGen RL", {"overall": 0.87}, None, "DeepGen paper, table 1", 512),
        Published("BAGEL", {"overall": 0.82}, None, "DeepGen paper, table 1"),
        Published("OmniGen2", {"overall": 0.80}, None, "DeepGen paper, table 1"),
        Published("Qwen-Image", {"overall": 0.87}, None, "DeepGen paper, table 1"),
        Published("GPT-Image-1", {"overall": 0.84}, None, "DeepGen paper, table 1"),
    )
    notes = (
        "geneval-hf is transformers' Mask2Former, a scorer of its own: its agreement with the official mmdet build "
        "is not measured. geneval-mmdet runs the official one as an external program.",
        "Prompts as they are: numbers made with rewritten prompts are not comparable.",
    )

    def items(self, data: Path) -> list[Item]:
        classes = [line.strip() for line in read_text(data / CLASSES).splitlines() if line.strip()]
        if len(classes) != CLASS_COUNT or len(set(classes)) != CLASS_COUNT:
            raise DataError(
                f"{data / CLASSES}: expected {CLASS_COUNT} different class names, found {len(set(classes))}"
            )
        rows = enumerate(read_jsonl(data / METADATA))
        return [self._item(index, row, classes, f"{data / METADATA}:{index + 1}") for index, row in rows]

    def _item(self, index: int, row: Any, classes: Sequence[str], where: str) -> Item:
        require(row, where, tag=str, prompt=str, include=list)
        if row["tag"] not in COUNTS:
            raise DataError(f"{where}: unknown tag {row['tag']!r}")
        for number, clause in enumerate(row["include"] + row.get("exclude", [])):
            require(clause, where, **{"class": str, "count": int})
            if clause["class"] not in classes:
                raise DataError(f"{where}: {clause['class']!r} is none of the detector's classes")
            if clause.get("color", "red") not in COLOURS:
                raise DataError(f"{where}: unknown colour {clause['color']!r}")
            relation, target = clause.get("position", ("above", -1))
            if relation not in RELATIONS or target >= number:
                raise DataError(f"{where}: position {clause['position']!r} is not understood")
        return Item(
            id=f"{index:05d}",
            group=row["tag"],
            prompt=row["prompt"],
            data={"metadata": dict(row), "classes": list(classes)},
        )

    def official_path(self, item: Item, sample: int) -> str:
        return f"{item.id}/samples/{sample:04d}.png"

    def import_picture(self, root: Path, item: Item, sample: int) -> Path | None:
        """The scorer takes any file whose name is a number, so the sample is the one at its place among them;
        folders may be %05d, as the official generator writes, or %04d, as its README says."""
        for folder in (root / item.id, root / f"{int(item.id):04d}"):
            named = {
                int(path.stem): path
                for path in (folder / "samples").glob("*.png")
                if re.fullmatch(r"\d+", path.stem)
            }
            if sample in named:
                return named[sample]
            if sample < len(named):
                return named[sorted(named)[sample]]
        return None

    def export_item(self, root: Path, item: Item, pictures: Mapping[int, Path]) -> None:
        super().export_item(root, item, pictures)
        if pictures:
            line = json.dumps(item.data["metadata"])
            (root / item.id / "metadata.jsonl").write_text(line, encoding="utf-8")

    def calls(self, item: Item, sample: int, picture: Path, judge: JudgeProfile) -> list[JudgeCall]:
        metadata = item.data["metadata"]
        data = {
            "threshold": _threshold(metadata),
            "max_boxes": MAX_BOXES,
            "colors_of": sorted({c["class"] for c in metadata["include"] if "color" in c}),
            "classes": item.data["classes"],
        }
        return [JudgeCall("detect", "", (JudgeImage(picture),), data=data)]

    def parse(self, item: Item, call: JudgeCall, reply: str, mode: Mode) -> dict[str, Any]:
        """{"correct", "reason"}, from the scorer's {"detections", "colors"}."""
        metadata = item.data["metadata"]
        found, colours = _read_reply(reply, _threshold(metadata))
        for clause in metadata["include"]:
            name = clause["class"]
            if "color" in clause and len(colours.get(name, ())) < len(found.get(name, ())):
                raise ParseError(f"the scorer names too few colours of {name}")
        wrong = judge_picture(metadata, found, _table(colours))
        return {"correct": not wrong, "reason": "\n".join(wrong)}

    def score(self, item: Item, answers: Mapping[str, Answer], mode: Mode) -> Sequence[Unit]:
        """official: what could not be judged is as if it had never been drawn."""
        value = answers["detect"].value
        if value is None:
            return () if mode == "official" else (Unit("correct", 0.0),)
        return (Unit("correct", float(value["correct"])),)

    def explain(self, item: Item, answers: Mapping[str, Answer]) -> str:
        """What is wrong with the picture, instead of the boxes it follows from."""
        answer = answers["detect"]
        return answer.text if answer.value is None else answer.value["reason"] or "right"

    def aggregate(self, records: Sequence[Record], mode: Mode) -> Summary:
        """overall: the unweighted mean of the tags. images: the share of right pictures. prompts: of prompts with
        a right picture."""
        means = super().aggregate(records, mode).groups
        takes = [[r.units[0].value for r in of if r.units] for of in takes_of(records)]
        right = [value for of in takes for value in of]
        if not right:
            return Summary({}, {})
        prompts = [max(of) for of in takes if of]
        overall = {
            "overall": macro(means)["correct"],
            "images": sum(right) / len(right),
            "prompts": sum(prompts) / len(prompts),
        }
        return Summary(overall, means)


def _threshold(metadata: Mapping[str, Any]) -> float:
    return COUNTING_THRESHOLD if metadata["tag"] == "counting" else THRESHOLD


def _read_reply(reply: str, threshold: float) -> tuple[dict[str, list[Box]], dict[str, list[str]]]:
    """Boxes above the threshold, the best first and at most MAX_BOXES of a class, and their colours."""
    try:
        told = json.loads(reply)
        detections, named = told["detections"], told.get("colors", {})
        found: dict[str, list[Box]] = {}
        colours: dict[str, list[str]] = {}
        for name, boxes in detections.items():
            order = sorted(range(len(boxes)), key=lambda i: -float(boxes[i][4]))
            kept = [i for i in order if boxes[i][4] > threshold][:MAX_BOXES]
            if kept:
                found[name] = [[float(value) for value in boxes[i][:5]] for i in kept]
                if name in named:
                    colours[name] = [named[name][i] for i in kept]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise ParseError(f"the scorer's reply is not understood: {error!r}") from error
    return found, colours


BENCHMARKS = (GenEval(),)


def verify_sample(folder: Path) -> list[Check]:
    """Positions and overlaps, verdicts on detections, and the printed summary of a file of verdicts."""
    checks = []
    if (golden := folder / "golden_relative_position_iou.json").is_file():
        rows = read_json(golden)
        expected = [[sorted(row["relations"]), row["iou"]] for row in rows]
        got = [[sorted(relative_position(r["a"], r["b"])), overlap(r["a"], r["b"])] for r in rows]
        checks.append(check(golden.name, expected, got))
    if (golden := folder / "golden_evaluate.json").is_file():
        rows = read_json(golden)
        expected = [[row["correct"], _in_order(row["reason"])] for row in rows]
        got = []
        for row in rows:
            wrong = judge_picture(row["metadata"], row["detections"], _table(row["colors"]))
            got.append([not wrong, "\n".join(wrong)])
        checks.append(check(golden.name, expected, got))
    if (golden := folder / "golden_summary_stdout.txt").is_file():
        text = _summary(read_jsonl(folder / "synthetic_results.jsonl"))
        checks.append(check(golden.name, read_text(golden).split(), text.split()))
    return checks


def _table(colours: Mapping[str, Sequence[str]]) -> Colours:
    return lambda name, count: colours[name][:count]


def _in_order(reason: str) -> str:
    """Relations in our order: the official code prints a set, whose order changes from run to run."""

    def sort(match: re.Match[str]) -> str:
        named = match[1].split(" and ")
        return f"found {' and '.join(r for r in RELATIONS if r in named)} target"

    return re.sub(r"found ([a-z ]*) target$", sort, reason, flags=re.MULTILINE)


def _summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """What the official summary prints about rows of verdicts."""
    records: dict[str, list[Record]] = {}
    for row in rows:
        of = records.setdefault(row["metadata"], [])
        units = (Unit("correct", float(row["correct"])),)
        of.append(Record(row["metadata"], len(of), row["tag"], Status.OK, units))
    summary = GenEval().aggregate([record for of in records.values() for record in of], "official")
    lines = [
        "Summary =======",
        f"Total images: {len(rows)}",
        f"Total prompts: {len(records)}",
        f"% correct images: {summary.overall['images']:.2%}",
        f"% correct prompts: {summary.overall['prompts']:.2%}",
        "Task breakdown ==============",
    ]
    for tag in dict.fromkeys(row["tag"] for row in rows):
        verdicts = [row["correct"] for row in rows if row["tag"] == tag]
        lines.append(f"{tag} = {summary.groups[tag]['correct']:.2%} ({sum(verdicts)} / {len(verdicts)})")
    return "\n".join([*lines, f"Overall score (avg. over tasks): {summary.overall['overall']:.5f}"])
