"""T2I-CoReBench: is everything there that the prompt says, and everything that follows from it?

1,080 prompts of twelve dimensions, four of composition and eight of reasoning; a judge answers a checklist of
yes/no questions about each of four pictures (Li et al. 2025, arXiv 2509.03516; scorer KlingTeam/T2I-CoReBench at
ebf7b7a). The DeepGen paper reports the mean of the eight, which is a version of its own here.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
)
from deepgen.evaluation.sources import (
    module_constants,
    read_json,
    require,
    text_sha256,
    warn_of_changes,
)
from deepgen.scorers.calls import ImageEncoding

ORIGIN = (
    "a clone of https://github.com/KlingTeam/T2I-CoReBench at ebf7b7a (another commit has other checklists)"
)
TEMPLATE_FILE = "evaluate.py"
TEMPLATE_SHA256 = "96fffe37018d0b624deaef0d5905e7a491309ff47c336d41941ea484020f6e0d"
COMPOSITION = ("C-MI", "C-MA", "C-MR", "C-TR")
REASONING = ("R-LR", "R-BR", "R-HR", "R-PR", "R-GR", "R-AR", "R-CR", "R-RR")
ITEMS_PER_DIMENSION = 90
PAPER = "DeepGen paper, table 3"
PAPER_JUDGE = "qwen3-vl-32b-thinking"

JUDGES = (
    JudgeProfile(
        PAPER_JUDGE,
        "Qwen/Qwen3-VL-32B-Thinking",
        order="images-first",
        temperature=0.0,
        max_tokens=(512, 2048, 8192),
        extra={"repetition_penalty": 1.05},
        thinking="cut",
    ),
    JudgeProfile(
        "gemini-2.5-flash",
        "gemini-2.5-flash",
        order="images-first",
        system="prefix",
        image=ImageEncoding(mime="image/png"),
        temperature=0.0,
    ),
)


def official_answer(reply: str, lower: bool) -> int | None:
    """1 where the word yes occurs, else 0 where no does, else None. Only the path for Gemini lowers case first, so
    "Yes" is no answer of another judge."""
    text = reply.strip().lower() if lower else reply
    if re.search(r"\byes\b", text):
        return 1
    return 0 if re.search(r"\bno\b", text) else None


def strict_answer(reply: str) -> int:
    """Raises ParseError unless just one of both words occurs, in any case."""
    words = set(re.findall(r"\b(yes|no)\b", reply.lower()))
    if len(words) != 1:
        raise ParseError("neither yes nor no alone")
    return int(words == {"yes"})


def picture_score(answers: Sequence[int | None]) -> float | None:
    """The share of yes among the answers that are one; None where none is."""
    valid = [answer for answer in answers if answer is not None]
    return sum(valid) / len(valid) if valid else None


class CoReBench(Benchmark):
    """All twelve dimensions, or some; versions share their pictures."""

    folder = "t2i_corebench"
    samples = 4
    judges = JUDGES
    attempts = 3
    notes = (
        "The prompts are part of DeepGen's reinforcement learning set: its RL scores are of prompts it trained on.",
        "official: only Gemini's answers may be capitalised; an answer that is neither yes nor no is left out.",
    )

    def __init__(self, name: str, title: str, dimensions: Sequence[str], primary: str):
        self.name, self.title, self.primary = name, title, primary
        self.counts = dict.fromkeys(dimensions, ITEMS_PER_DIMENSION)
        files = [*(f"data/{dimension}.json" for dimension in dimensions), TEMPLATE_FILE]
        self.files = [DataFile(path, ORIGIN, "Apache-2.0") for path in files]
        self.scales = dict.fromkeys(("score", "composition", "reasoning", "overall"), (0.0, 100.0))
        self.published = tuple(_published(dimensions, *row) for row in PUBLISHED)

    def items(self, data: Path) -> list[Item]:
        template = module_constants(data / TEMPLATE_FILE).get("TEMPLATE")
        if not isinstance(template, str):
            raise DataError(f"{data / TEMPLATE_FILE}: no text called TEMPLATE")
        warn_of_changes(data / TEMPLATE_FILE, {"TEMPLATE": template}, {"TEMPLATE": TEMPLATE_SHA256})
        items = []
        for dimension in self.counts:
            path = data / "data" / f"{dimension}.json"
            rows = read_json(path)
            require(rows, str(path))
            items += [self._item(name, row, template, f"{path}: {name}") for name, row in rows.items()]
        return items

    def _item(self, name: str, row: Any, template: str, where: str) -> Item:
        if not re.fullmatch(r"[CR]-[A-Z]{2}-\d+", name) or name.rpartition("-")[0] not in self.counts:
            raise DataError(f"{where}: expected a name such as {next(iter(self.counts))}-001")
        require(row, where, Prompt=str, Checklist=list)
        questions = [require(entry, where, question=str)["question"] for entry in row["Checklist"]]
        if not questions:
            raise DataError(f"{where}: the checklist is empty")
        return Item(
            id=name,
            group=name.rpartition("-")[0],
            prompt=row["Prompt"],
            data={"questions": questions, "template": template},
        )

    def official_path(self, item: Item, sample: int) -> str:
        return f"{item.group}/{item.id}-{sample}.png"

    def calls(self, item: Item, sample: int, picture: Path, judge: JudgeProfile) -> list[JudgeCall]:
        images = (JudgeImage(picture),)
        lower = "gemini" in f"{judge.name} {judge.model}".lower()
        return [
            JudgeCall(
                str(number),
                f'Prompt: "{item.prompt}"\nQuestion: "{question}"',
                images,
                system=item.data["template"],
                data={"lower": lower},
            )
            for number, question in enumerate(item.data["questions"])
        ]

    def parse(self, item: Item, call: JudgeCall, reply: str, mode: Mode) -> int | None:
        """1 yes, 0 no; official also None, which is left out. Only an empty reply is asked again there."""
        if mode == "strict":
            return strict_answer(reply)
        if not reply.strip():
            raise ParseError("an empty reply")
        return official_answer(reply, call.data["lower"])

    def score(self, item: Item, answers: Mapping[str, Answer], mode: Mode) -> Sequence[Unit]:
        values = [answer.value for answer in answers.values()]
        if mode == "strict":
            values = [value or 0 for value in values]
        share = picture_score(values)
        return () if share is None else (Unit("picture", share),)

    def explain(self, item: Item, answers: Mapping[str, Answer]) -> str:
        """Each question with its answer."""
        words = {1: "yes", 0: "no"}
        questions = item.data["questions"]
        return "\n".join(
            f"{questions[int(index)]} {words.get(answer.value, answer.text)}"
            for index, answer in answers.items()
        )

    def aggregate(self, records: Sequence[Record], mode: Mode) -> Summary:
        """100 × the scores of dimensions and of their parts. official: unjudged pictures are as if never drawn."""
        dimensions = dimension_scores(records)
        groups = {of: {"score": 100 * dimensions[of]} for of in self.counts if of in dimensions}
        overall = {part: 100 * score for part, score in part_scores(dimensions).items()}
        if self.primary != "overall":
            del overall["overall"]
        return Summary(overall, groups)


def dimension_scores(records: Sequence[Record]) -> dict[str, float]:
    """Each dimension's mean of its pictures' scores, from 0 to 1."""
    pictures: dict[str, list[float]] = {}
    for record in records:
        pictures.setdefault(record.group, []).extend(unit.value for unit in record.units)
    return {of: sum(scores) / len(scores) for of, scores in pictures.items() if scores}


def part_scores(dimensions: Mapping[str, float]) -> dict[str, float]:
    """The unweighted means of four dimensions (composition), eight (reasoning) and all (overall)."""
    parts = {"composition": COMPOSITION, "reasoning": REASONING, "overall": (*COMPOSITION, *REASONING)}
    scores = {part: [dimensions[of] for of in names if of in dimensions] for part, names in parts.items()}
    return {part: sum(of) / len(of) for part, of in scores.items() if of}


PUBLISHED = (
    ("DeepGen SFT", (38.8, 28.7, 40.2, 79.1, 51.5, 65.7, 42.0, 19.8), 45.7, 512),
    ("DeepGen RL", (38.5, 29.0, 41.2, 79.5, 51.9, 66.9, 45.6, 19.6), 46.5, 512),
    ("BAGEL with thinking", (28.6, 22.2, 24.8, 66.2, 55.8, 59.5, 42.6, 29.3), 41.1, None),
    ("OmniGen2", (26.8, 19.2, 32.9, 64.1, 37.5, 56.5, 37.9, 13.6), 36.1, None),
    ("Qwen-Image", (42.2, 29.5, 40.0, 78.6, 47.9, 55.2, 59.0, 18.4), 46.3, None),
    ("GPT-Image-1", (61.6, 52.0, 58.1, 89.9, 76.7, 82.4, 67.7, 47.5), 67.0, None),
)


def _published(
    dimensions: Sequence[str], model: str, scores: Sequence[float], mean: float, side: int | None
) -> Published:
    own = {f"{of}/score": score for of, score in zip(REASONING, scores, strict=True) if of in dimensions}
    return Published(model, {"reasoning": mean} | own, PAPER_JUDGE, PAPER, side)


BENCHMARKS = (
    CoReBench(
        "t2i-corebench",
        "1,080 prompts of composition and reasoning, checked question by question",
        (*COMPOSITION, *REASONING),
        "overall",
    ),
    CoReBench(
        "t2i-corebench-reasoning",
        "the 720 reasoning prompts of T2I-CoReBench, the half that the DeepGen paper reports",
        REASONING,
        "reasoning",
    ),
)


PARTS = "_leaderboard_convention"
"""The key of the parts' means in a golden file."""


def verify_sample(folder: Path) -> list[Check]:
    """The template's hash, and scores of pictures, dimensions and parts from canned replies."""
    checks = []
    if (golden := folder / "golden_template_hash.json").is_file():
        template = read_json(folder / "template_full.json")
        got = {"TEMPLATE_sha256": text_sha256(template), "TEMPLATE_len": len(template)}
        expected = {key: value for key, value in read_json(golden).items() if key in got}
        checks.append(check(golden.name, expected, got))
    for path, lower in (("gemini", True), ("qwen", False)):
        if (golden := folder / f"golden_scores_{path}_path.json").is_file():
            expected = read_json(golden)
            scores = _rescore(folder, lower)
            scores[PARTS] = {part: scores[PARTS].get(part) for part in expected.get(PARTS, {})}
            checks += [check(f"{golden.name}: {of}", expected[of], scores.get(of)) for of in expected]
    return checks


def _rescore(folder: Path, lower: bool) -> dict[str, Any]:
    """Dimension → its mean and its pictures' scores, and the parts, from the folder's canned replies."""
    bench = BENCHMARKS[0]
    rows = read_json(folder / "items.json")
    replies = read_json(folder / "synthetic_judge_replies.json")["judge_replies"]
    records: list[Record] = []
    shares: dict[str, dict[str, float | str]] = {}
    for picture in sorted({key.split("\t")[0] for key in replies}):
        name = "-".join(picture.split("-")[:3])
        if name not in rows:
            raise DataError(f"{folder / 'items.json'}: no {name}, which {picture} is of")
        item = bench._item(name, rows[name], "", name)
        profile = JUDGES[1] if lower else JUDGES[0]
        answers = {}
        for call in bench.calls(item, 0, Path(picture), profile):
            question = call.text.rpartition("\nQuestion: ")[2]
            answers[call.id] = _answer(bench, item, call, replies.get(f"{picture}\t{question}", ""))
        units = tuple(bench.score(item, answers, "official"))
        records.append(Record(name, len(records), item.group, Status.OK, units))
        shares.setdefault(item.group, {})[picture] = units[0].value if units else ""
    dimensions = dimension_scores(records)
    got: dict[str, Any] = {
        of: {"mean_score": score, "image_score": shares[of]} for of, score in dimensions.items()
    }
    parts = part_scores(dimensions)
    got[PARTS] = {
        "composition_mean": parts.get("composition"),
        "reasoning_mean": parts.get("reasoning"),
        "overall": parts.get("overall"),
    }
    return got


def _answer(bench: CoReBench, item: Item, call: JudgeCall, reply: str) -> Answer:
    try:
        return Answer(Status.OK, bench.parse(item, call, reply.split("</think>\n\n")[-1], "official"))
    except ParseError:
        return Answer(Status.PARSE_FAILED)
