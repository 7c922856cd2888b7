"""WISE: does the picture show what world knowledge makes of the prompt?

1,000 prompts whose answer must be inferred, one picture each, in two versions that share no scale (Niu et al. 2025,
arXiv 2503.07265; PKU-YuanGroup/WISE at eb51174). legacy: GPT-4o rates three criteria. verified: other prompts,
and a local judge says right or wrong. Prompts and judge's text carry no licence: both are read from a clone.
"""

import ast
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from deepgen.evaluation.sources import fill, read_json, read_text, require, text_sha256, warn_of_changes
from deepgen.scorers.calls import ImageEncoding

ORIGIN = "a clone of https://github.com/PKU-YuanGroup/WISE at eb51174"
CATEGORIES = ("CULTURE", "TIME", "SPACE", "BIOLOGY", "PHYSICS", "CHEMISTRY")
CRITERIA = {"consistency": 0.7, "realism": 0.2, "aesthetic_quality": 0.1}
LABEL = r"(Consistency|Realism|Aesthetic Quality)"
PAPER_LEGACY = (
    ("DeepGen SFT", (0.70, 0.71, 0.82, 0.62, 0.79, 0.65, 0.72), 512),
    ("DeepGen RL", (0.72, 0.81, 0.70, 0.67, 0.82, 0.66, 0.73), 512),
    ("BAGEL with thinking", (0.76, 0.69, 0.75, 0.65, 0.75, 0.58, 0.70), None),
    ("OmniGen2", (0.42, 0.52, 0.64, 0.43, 0.50, 0.34, 0.47), None),
    ("Qwen-Image", (0.62, 0.63, 0.77, 0.57, 0.75, 0.40, 0.62), None),
    ("GPT-Image-1", (0.81, 0.71, 0.89, 0.83, 0.79, 0.74, 0.80), None),
)


@dataclass(frozen=True)
class Version:
    """What the versions differ in. last: the highest prompt_id of each category. weights: of the categories in
    Overall; equal to their share of the 1,000 prompts. texts: sha256 of the judge's texts, of the user's with
    {prompt} and {explanation} for the two."""

    files: tuple[str, ...]
    judge_file: str
    last: tuple[int, ...]
    weights: tuple[float, ...]
    texts: Mapping[str, str]

    def category(self, prompt_id: int) -> str | None:
        if prompt_id < 1:
            return None
        return next((c for c, last in zip(CATEGORIES, self.last, strict=True) if prompt_id <= last), None)


LEGACY = Version(
    tuple(
        f"WISE_legacy/data/{part}.json"
        for part in ("cultural_common_sense", "spatio-temporal_reasoning", "natural_science")
    ),
    "WISE_legacy/gpt_eval.py",
    (400, 567, 700, 800, 900, 1000),
    (0.4, 0.167, 0.133, 0.1, 0.1, 0.1),
    {
        "system": "1034e394de55d899eb78e5ad09835de551cefa5bfeb0ba4bf452c83f6285ffc0",
        "user": "08b61170ace02a0830e76b815f5920e151c367b487c57ba1ca425de963db326e",
    },
)
VERIFIED = Version(
    tuple(
        f"data_verified/{part}_verified.json"
        for part in ("cultural_common_sense", "spatio-temporal_reasoning", "natural_science")
    ),
    "vllm_eval.py",
    (400, 520, 640, 760, 880, 1000),
    (0.4, 0.12, 0.12, 0.12, 0.12, 0.12),
    {
        "system": "c9b9e5e189408801a05c600dfc385addc37bb1ebe9b933c74202ea72eb415f8c",
        "user": "ae8ed379b898b441a5ebe7b3b7ba86fee0ac5ab5ac1272bedf12891029cf302c",
    },
)


def legacy_scores(text: str) -> dict[str, float]:
    """What the official code of the legacy version finds: any of the three criteria with any digit; if there are
    none, the first three of at least three lines that are a bare 0, 1 or 2. A colon inside bold type hides a score.
    """
    found = re.findall(rf"\*{{0,2}}{LABEL}\*{{0,2}}\s*[::]?\s*(\d)", text, re.IGNORECASE)
    if found:
        return {label.lower().replace(" ", "_"): float(digit) for label, digit in found}
    return _bare_scores(text, LEGACY)


def verified_scores(text: str) -> dict[str, float]:
    """What the official code of the verified version finds: the first "Score: 0" or "Score: 1", else a single line
    that is a bare 0 or 1."""
    match = re.search(r"\*{0,2}Score\*{0,2}\s*[::]?\s*([01])\b", text, re.IGNORECASE)
    return {"score": float(match[1])} if match else _bare_scores(text, VERIFIED)


def _bare_scores(text: str, version: Version) -> dict[str, float]:
    """Of lines that are nothing but a digit."""
    if version is LEGACY:
        bare = re.findall(r"(?m)^\s*([0-2])\s*$", text)
        return dict(zip(CRITERIA, map(float, bare), strict=False)) if len(bare) >= 3 else {}
    bare = re.findall(r"(?m)^\s*([01])\s*$", text)
    return {"score": float(bare[0])} if len(bare) == 1 else {}


def strict_scores(text: str, version: Version) -> dict[str, float]:
    """Bold type anywhere, either colon, a range in brackets; a criterion said twice must agree with itself."""
    plain = text.replace("*", "").replace("：", ":")
    label, digits = (LABEL, "[0-2]") if version is LEGACY else ("(Score)", "[01]")
    pattern = rf"{label}\s*(?:\([^)\n]*\))?\s*:?\s*({digits})(?![\d.]*\d|\s*[-–]\s*\d)"
    scores: dict[str, float] = {}
    for name, digit in re.findall(pattern, plain, re.IGNORECASE):
        key = name.lower().replace(" ", "_")
        if scores.setdefault(key, float(digit)) != float(digit):
            return {}
    return scores or _bare_scores(plain, version)


def wiscore(scores: Mapping[str, float]) -> float:
    """Of the three criteria, each from 0 to 2: their weighted mean, from 0 to 1. Of the verified version: its
    score."""
    if "score" in scores:
        return float(scores["score"])
    return sum(weight * scores[name] for name, weight in CRITERIA.items()) / 2


def judge_text(path: Path) -> tuple[ast.expr, ast.expr]:
    """The system's and the user's text in what `build_evaluation_messages` of a file returns, without running it."""
    try:
        tree = ast.parse(read_text(path))
    except SyntaxError as error:
        raise DataError(f"{path}: not Python ({error})") from error
    texts = [
        value
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef) and function.name == "build_evaluation_messages"
        for entry in ast.walk(function)
        if isinstance(entry, ast.Dict)
        for key, value in zip(entry.keys, entry.values, strict=True)
        if isinstance(key, ast.Constant) and key.value == "text"
    ]
    if len(texts) != 2:
        raise DataError(f"{path}: build_evaluation_messages has {len(texts)} texts, two were expected")
    return texts[0], texts[1]


def _filled(node: ast.expr, row: Mapping[str, Any], where: str) -> str:
    if isinstance(node, ast.JoinedStr):
        return fill(node, {f"prompt_data['{key}']": row[key] for key in ("Prompt", "Explanation")}, where)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    raise DataError(f"{where}: the judge's text is no plain string")


class Wise(Benchmark):
    folder = "wise"
    primary = "overall"

    def __init__(self, name: str, title: str, version: Version, judge: JudgeProfile, **about: Any):
        self.name, self.title, self.version, self.judges = name, title, version, (judge,)
        paths = (*version.files, version.judge_file)
        self.files = [DataFile(path, ORIGIN, "none stated") for path in paths]
        sizes = [last - first for first, last in zip((0, *version.last), version.last, strict=False)]
        self.counts = dict(zip(CATEGORIES, sizes, strict=True))
        self.published = about["published"]
        self.notes = about["notes"]

    def items(self, data: Path) -> list[Item]:
        judge_file = data / self.version.judge_file
        system, user = judge_text(judge_file)
        blank = {"Prompt": "{prompt}", "Explanation": "{explanation}"}
        texts = {
            "system": _filled(system, blank, str(judge_file)),
            "user": _filled(user, blank, str(judge_file)),
        }
        warn_of_changes(judge_file, texts, self.version.texts)
        items = []
        for path in (data / name for name in self.version.files):
            rows = read_json(path)
            if not isinstance(rows, list):
                raise DataError(f"{path}: expected a list")
            for number, row in enumerate(rows, 1):
                where = f"{path}: entry {number}"
                require(row, where, Prompt=str, Explanation=str, prompt_id=int)
                category = self.version.category(row["prompt_id"])
                if category is None:
                    raise DataError(f"{where}: prompt_id {row['prompt_id']} belongs to no category")
                texts = {"system": _filled(system, row, where), "user": _filled(user, row, where)}
                items.append(Item(str(row["prompt_id"]), category, row["Prompt"], data=texts))
        return items

    def official_path(self, item: Item, sample: int) -> str:
        return f"{item.id}.png"

    def calls(self, item: Item, sample: int, picture: Path, judge: JudgeProfile) -> list[JudgeCall]:
        return [JudgeCall("score", item.data["user"], (JudgeImage(picture),), system=item.data["system"])]

    def parse(self, item: Item, call: JudgeCall, reply: str, mode: Mode) -> dict[str, float]:
        """Each criterion's score; all of them, or the reply is unusable."""
        if mode == "strict":
            scores = strict_scores(reply, self.version)
        else:
            scores = legacy_scores(reply) if self.version is LEGACY else verified_scores(reply)
        wanted = CRITERIA if self.version is LEGACY else ("score",)
        if missing := [name for name in wanted if name not in scores]:
            raise ParseError(f"no score for {', '.join(missing)}")
        return scores

    def score(self, item: Item, answers: Mapping[str, Answer], mode: Mode) -> Sequence[Unit]:
        """official: without a score there is no record, and the official summary refuses to be made."""
        scores = answers["score"].value
        if scores is None:
            return () if mode == "official" else (Unit("wiscore", 0.0),)
        return (Unit("wiscore", wiscore(scores)),)

    def aggregate(self, records: Sequence[Record], mode: Mode) -> Summary:
        """overall: the categories' means by their weights; official only where no category is empty."""
        groups = super().aggregate(records, mode).groups
        weights = dict(zip(CATEGORIES, self.version.weights, strict=True))
        there = [(weights[category], groups[category]["wiscore"]) for category in groups]
        if not there or (mode == "official" and len(there) < len(CATEGORIES)):
            return Summary({}, groups)
        overall = sum(weight * score for weight, score in there)
        if len(there) < len(CATEGORIES):
            overall /= sum(weight for weight, _ in there)
        return Summary({"overall": overall}, groups)


def _published(model: str, scores: Sequence[float], side: int | None) -> Published:
    values = dict(zip((*(f"{category}/wiscore" for category in CATEGORIES), "overall"), scores, strict=True))
    return Published(model, values, "gpt-4o-2024-05-13", "DeepGen paper, table 2", side)


BENCHMARKS = (
    Wise(
        "wise-legacy",
        "1,000 prompts of world knowledge, three criteria rated by GPT-4o; the version of published tables",
        LEGACY,
        JudgeProfile(
            "gpt-4o-2024-05-13",
            "gpt-4o-2024-05-13",
            image=ImageEncoding(mime="image/png"),
            temperature=0.0,
            max_tokens=(2000,),
        ),
        published=tuple(_published(*row) for row in PAPER_LEGACY),
        notes=("The judge of the published numbers may be retired; another judge's are not comparable.",),
    ),
    Wise(
        "wise-verified",
        "1,000 verified prompts of world knowledge, right or wrong by Qwen3.5-35B-A3B",
        VERIFIED,
        JudgeProfile(
            "qwen3.5-35b-a3b",
            "Qwen3.5-35B-A3B",
            image=ImageEncoding(mime="image/png"),
            temperature=0.0,
            max_tokens=(500,),
            extra={"chat_template_kwargs": {"enable_thinking": False}},
            thinking="strip",
        ),
        published=(Published("DeepGen 1.0", {"overall": 0.57}, "qwen3.5-35b-a3b", "WISE README"),),
        notes=("Not comparable with wise-legacy: other prompts, another judge, right or wrong only.",),
    ),
)


def verify_sample(folder: Path) -> list[Check]:
    """Scores found in replies, judge's messages by hash, and the printed summary of a file of scores."""
    checks = []
    versions = {"legacy": BENCHMARKS[0], "verified": BENCHMARKS[1]}
    if (golden := folder / "golden_extract.json").is_file():
        told = read_json(golden)
        for name, extract in (("legacy", legacy_scores), ("verified", verified_scores)):
            cases = told.get(name, [])
            got = [extract(case["text"]) for case in cases]
            checks.append(check(f"{golden.name}: {name}", [case["scores"] for case in cases], got))
    for name, bench in versions.items():
        checks += _verified_messages(folder, bench, name)
        if (golden := folder / f"golden_calculate_{name}_stdout.txt").is_file():
            text = read_text(golden)
            got_text = _calculate(folder / f"synthetic_scores_{name}.jsonl", bench, "Aborting" in text)
            checks.append(check(golden.name, _facts(text), _facts(got_text)))
    return checks


def _verified_messages(folder: Path, bench: Wise, name: str) -> list[Check]:
    """Hashes of the messages of the items at hand, made from the one example that is given in full; the example alone
    is held against the texts that clones are held to."""
    golden = folder / f"golden_messages_sha256_{name}.json"
    example = folder / f"golden_messages_example_{name}.json"
    if not golden.is_file() and not example.is_file():
        return []
    if not example.is_file():
        return [Check(f"{golden.name}: {example.name} is needed to make them", None, None, math.nan)]
    rows = {str(row["prompt_id"]): row for row in read_json(folder / f"items_{name}.json")}
    dumped = json.dumps(read_json(example), sort_keys=True, ensure_ascii=False)
    shown = next((index for index, row in rows.items() if _ending(row) in dumped), None)
    if shown is None:
        return [Check(f"{example.name}: is of no item beside it", None, None, math.nan)]

    before, after = dumped.split(_ending(rows[shown]))
    if not golden.is_file():
        blank = _ending({"Prompt": "{prompt}", "Explanation": "{explanation}"})
        system, user = (
            next(part["text"] for part in message["content"] if "text" in part)
            for message in json.loads(before + blank + after)
        )
        got_texts = {"system": text_sha256(system), "user": text_sha256(user)}
        return [
            check(f"{example.name}: the hashes that clones are held to", dict(bench.version.texts), got_texts)
        ]
    hashes = read_json(golden)
    there = {index: before + _ending(row) + after for index, row in rows.items() if index in hashes}
    got = {index: text_sha256(text) for index, text in there.items()}
    expected = {index: hashes[index] for index in there}
    return [
        check(example.name, hashes[shown], got[shown]),
        check(f"{golden.name}: {len(there)} items of {len(hashes)} are beside it", expected, got),
    ]


def _ending(row: Mapping[str, Any]) -> str:
    """As it stands within a JSON text."""
    text = f'PROMPT: "{row["Prompt"]}"\nEXPLANATION: "{row["Explanation"]}"'
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _calculate(path: Path, bench: Wise, aborts: bool) -> str:
    """What the official summary prints about a file of scores, less its warnings and rules.

    Lines that are no JSON, or lack a whole prompt_id or numeric scores, are passed over, but a prompt_id counts as
    there. `aborts`: stop where one of 1,000 is missing, as legacy does.
    """
    wanted = tuple(CRITERIA) if bench.version is LEGACY else ("score",)
    present: set[int] = set()
    records = []
    for line in read_text(path).split("\n"):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        index = row.get("prompt_id") if isinstance(row, dict) else None
        if not isinstance(index, int):
            continue
        present.add(index)
        scores = {name: row.get(name) for name in wanted}
        category = bench.version.category(index)
        if category is None or not all(isinstance(score, int | float) for score in scores.values()):
            continue
        if bench.version is VERIFIED and scores["score"] not in (0, 1):
            continue
        unit = Unit("wiscore", wiscore(scores))
        records.append(Record(str(index), 0, category, Status.OK, (unit,)))
    missing = sorted(set(range(1, 1001)) - present)
    lines = [f"Missing IDs: {missing}"] if missing else []
    if missing and aborts:
        return "\n".join([*lines, "Aborting overall evaluation due to incomplete data."])
    summary = bench.aggregate(records, "official")
    label = "Average WiScore" if bench.version is LEGACY else "Average binary WiScore"
    for title in ("Individual File Reports", "Overall Evaluation Summary\nAggregated Category Scores:"):
        lines.append(title)
        for category, values in summary.groups.items():
            number = sum(record.group == category for record in records)
            lines += [f"Category: {category}", f"{label}: {values['wiscore']:.2f}"]
            lines.append(f"Number of samples: {number}")
    if "overall" in summary.overall:
        row = [*(summary.groups[c]["wiscore"] for c in CATEGORIES), summary.overall["overall"]]
        lines += ["--- Overall WiScore Across All Categories ---", f"Overall WiScore: {row[-1]:.2f}"]
        lines.append("Cultural Time Space Biology Physics Chemistry Overall")
        lines.append(" ".join(f"{score:.2f}" for score in row))
    return "\n".join(lines)


def _facts(text: str) -> list[str]:
    """Lines without rules, empty ones, remarks, and those that name the file or where something was saved."""
    dropped = ("--- Processing", "--- Evaluation Results", "Warning", "Error", "[SAVE]", "Overall WiScore c")
    lines = [" ".join(line.split()) for line in text.splitlines()]
    return [line for line in lines if line.strip("-=") and not line.startswith(dropped)]
