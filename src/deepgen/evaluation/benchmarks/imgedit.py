"""ImgEdit-Bench (arXiv 2505.20275), basic suite: 737 single edits of nine types; scorer PKU-YuanGroup/ImgEdit at
547185d. Its other two suites are out of scope: the averaging of one cannot read its own example, the other is rated
by people."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deepgen.errors import DataError
from deepgen.evaluation.archives import unpack_where_missing
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
)
from deepgen.evaluation.samples import beside, golden_files, read_golden, text_cases, worst_of
from deepgen.evaluation.sources import read_json, require, text_sha256, warn_of_changes
from deepgen.scorers.calls import ImageEncoding

DATA = "ImgEdit/Benchmark/Basic/basic_edit.json"
PROMPT_FILE = "ImgEdit/Benchmark/Basic/prompts.json"
PICTURES = "Benchmark/singleturn"
CLONE = "a clone of https://github.com/PKU-YuanGroup/ImgEdit at 547185d"
COUNTS = {
    "add": 95,
    "adjust": 94,
    "extract": 117,
    "replace": 92,
    "remove": 86,
    "background": 94,
    "style": 100,
    "compose": 23,
    "action": 36,
}
# The last key of each type: the official keys are numbers, and the types follow each other.
LAST_KEYS = {
    116: "add",
    303: "background",
    455: "extract",
    542: "remove",
    634: "replace",
    734: "style",
    1043: "action",
    1143: "adjust",
    1172: "compose",
}
# sha256 of the judge's prompts as published; the texts have no licence and stay in the user's clone.
PROMPTS = {
    "replace": "113cba9c7b7ef0b6aec3db2ab1c5172e69b624dc6ab33417c95dce41e8ed374d",
    "add": "8a653823ed9563864fc4f733b7049eb53fcdad8f1616111f77b3c8d4aceefcbf",
    "adjust": "34c3ca70a7a6bd4e729d5b6ca3f6bab552eb723eef58bac6607555659b7f7fe7",
    "remove": "ce82586c25f5e8cbe81ef5d2088b14c07ae9a672e2fc6a8ad7bf33692fcd73bf",
    "style": "0b84dfc09fc4a7233efcbec61b4d8b23039068dfffee531bb3fb47b6004629c3",
    "action": "2dfb82168c6e86c9996bcd43076ec0dbc74eb1113e43a0d2cc273dec62cd674b",
    "extract": "38bdeafbac4ea4f9b53f42d1b4709c4b714d5771025e3716271dcf29b9f126ff",
    "background": "9bfce039169b23d6eadce6314201a9a8c6fa82c12f6162da5554929907e7192d",
    "compose": "16f4f72a0d8db2e554a4c8db88d859b31e0d90d6ed594292622baefe408aa7cf",
}
CRITERIA = 3
PAPER_ROWS = {
    "Nano Banana": 4.35,
    "GPT-Image-1": 4.20,
    "Seedream 4.0": 4.18,
    "FLUX.1 Kontext Pro": 4.00,
    "OmniGen2": 3.43,
    "UniWorld v1": 3.26,
    "BAGEL": 3.20,
    "DeepGen SFT": 4.09,
    "DeepGen RL": 4.14,
}


def official_average(reply: str) -> float | None:
    """The mean, to two decimals, of all lines that are "anything: digits" and nothing else; None without any.

    As published: "4." and "4/5" do not count, two of three criteria are enough, a digit in the reasoning counts,
    and no scale is checked.
    """
    lines = [line.strip().split(": ") for line in reply.splitlines()]
    # isdecimal, not isdigit: the two differ in superscripts only, at which the published int() stops.
    found = [int(parts[1]) for parts in lines if len(parts) == 2 and parts[1].isdecimal()]
    return round(sum(found) / len(found), 2) if found else None


def three_scores(reply: str) -> list[int]:
    """The three criteria's scores, 1 to 5: the last three lines that end in a number after a colon, whatever the
    markup, with or without "/5". Raises ParseError for fewer, or for a number off the scale."""
    found = []
    for line in reply.splitlines():
        plain = re.sub(r"[*_`#>]+", "", line).strip()
        match = re.fullmatch(
            r"[^:\uff1a]*[:\uff1a]\s*(-?\d+(?:\.\d+)?)\s*(?:/\s*5|out of 5|points?)?\s*[.。]?", plain
        )
        if match and not plain.lower().startswith("brief reasoning"):
            found.append(float(match[1]))
    scores = found[-CRITERIA:]
    if len(scores) < CRITERIA:
        raise ParseError(f"the reply has {len(found)} of {CRITERIA} scores")
    if any(score not in (1, 2, 3, 4, 5) for score in scores):
        raise ParseError(f"a score of {scores} is not 1, 2, 3, 4 or 5")
    return [int(score) for score in scores]


class ImgEdit(Benchmark):
    name = "imgedit-basic"
    title = "ImgEdit-Bench, basic suite: 737 single edits of nine types"
    task = "edit"
    folder = "imgedit"
    files = (
        DataFile(DATA, CLONE, "none stated"),
        DataFile(PROMPT_FILE, CLONE, "none stated"),
    )
    counts = COUNTS
    # The leaderboard's judge is GPT-4.1; the published script asks gpt-4o. Bytes go as they are, called PNG.
    judges = tuple(
        JudgeProfile(
            name=model, model=model, order="text-first", image=ImageEncoding("file", mime="image/png")
        )
        for model in ("gpt-4.1", "gpt-4o")
    )
    primary = "score"
    scales: Mapping[str, tuple[float, float]] = {"score": (1.0, 5.0)}
    published = tuple(
        Published(
            model, {"score": score}, None, "DeepGen paper, table 1", 512 if "DeepGen" in model else None
        )
        for model, score in PAPER_ROWS.items()
    )
    notes = (
        "The pictures are in Benchmark.tar of the Hugging Face dataset sysuyy/ImgEdit (licence not verified); "
        "prepare unpacks it.",
        "Published tables mix judges: the leaderboard's is GPT-4.1, the script's and older tables' GPT-4o.",
        "The judge is told that the second and third score must not exceed the first; neither scoring enforces it.",
        "The overall number is the mean of the nine types; the published scripts stop at the types.",
    )

    def prepare(self, data: Path) -> None:
        unpack_where_missing(data, "Benchmark.tar*", PICTURES)

    def items(self, data: Path) -> list[Item]:
        rows, prompts = read_json(data / DATA), self._prompts(data / PROMPT_FILE)
        if not isinstance(rows, dict):
            raise DataError(f"{data / DATA}: expected an object of items")
        items = []
        for key, row in rows.items():
            where = f"{data / DATA}: {key}"
            require(row, where, id=str, prompt=str, edit_type=str)
            if row["edit_type"] not in COUNTS:
                raise DataError(
                    f"{where}: unknown edit_type {row['edit_type']!r}; take the data of 547185d or later"
                )
            source = data / PICTURES / row["id"]
            if not source.is_file():
                raise DataError(f"{source}: missing; unpack Benchmark.tar of sysuyy/ImgEdit in {data}")
            text = prompts[row["edit_type"]].replace("<edit_prompt>", row["prompt"])
            items.append(Item(key, row["edit_type"], row["prompt"], (source,), data={"text": text}))
        return items

    def _prompts(self, path: Path) -> dict[str, str]:
        prompts: dict[str, str] = require(read_json(path), str(path), **dict.fromkeys(PROMPTS, str))
        warn_of_changes(path, prompts, PROMPTS)
        return prompts

    def official_path(self, item: Item, sample: int) -> str:
        return f"{item.id}.png"

    def calls(self, item: Item, sample: int, picture: Path, judge: JudgeProfile) -> list[JudgeCall]:
        return [JudgeCall("rating", item.data["text"], (JudgeImage(item.sources[0]), JudgeImage(picture)))]

    def parse(self, item: Item, call: JudgeCall, reply: str, mode: Mode) -> float | list[int] | None:
        """official: the average, None where there is no score, which is not asked again. strict: the three scores."""
        return official_average(reply) if mode == "official" else three_scores(reply)

    def score(self, item: Item, answers: Mapping[str, Answer], mode: Mode) -> Sequence[Unit]:
        """official: a reply without a score, or none at all, is left out (a failed call or a missing picture stops
        the published scripts). strict: 1 for what is missing."""
        value = answers["rating"].value
        if mode == "official":
            return () if value is None else (Unit("score", value),)
        return (Unit("score", sum(value) / CRITERIA if value else 1.0),)

    def aggregate(self, records: Sequence[Record], mode: Mode) -> Summary:
        """The mean of each type, which official scoring rounds to two decimals, and the mean of the types."""
        summary = super().aggregate(records, mode)
        if mode == "strict":
            return summary
        groups = {
            group: {metric: round(value, 2) for metric, value in of.items()}
            for group, of in summary.groups.items()
        }
        return Summary(macro(groups), groups)


BENCHMARKS = (ImgEdit(),)


def verify_sample(folder: Path) -> list[Check]:
    """One check a file: parser cases, the prompts' hashes, averages by key, scores by type."""
    return [worst_of(path.stem, _verify(read_golden(path), folder)) for path in golden_files(folder)]


def _verify(document: Any, folder: Path) -> list[Check]:
    if (
        isinstance(document, dict)
        and document.keys() <= PROMPTS.keys()
        and isinstance(document.get("add"), str)
    ):
        ours = PROMPTS | {kind: text_sha256(text) for kind, text in _prompts_beside(folder).items()}
        return [
            check(
                "the prompts beside it, or the hashes that clones are held to",
                document,
                {kind: ours[kind] for kind in document},
            )
        ]
    checks = [
        check(repr(text[:40]), expected, official_average(text))
        for text, rest in text_cases(document)
        for expected in rest.values()
    ]
    checks += _check_example(document)
    replies = beside(folder, "synthetic_result*.json", "result*.json")
    if checks or replies is None:
        return checks
    return _check_scores(document, *_rescored(read_json(replies), _types(folder)))


def _check_example(document: Any) -> list[Check]:
    """Replies by key, and what the official code made of them, in one file."""
    objects = (
        [value for value in document.values() if isinstance(value, dict)]
        if isinstance(document, dict)
        else []
    )
    replies = [of for of in objects if of and all(isinstance(text, str) for text in of.values())]
    return [
        check("averages", of, {key: official_average(texts[key]) for key in of})
        for texts in replies
        for of in objects
        if of is not texts and of.keys() <= texts.keys()
    ]


def _check_scores(
    node: Any,
    averages: Mapping[str, float],
    means: Mapping[str, float | None],
    kind: str = "",
    where: str = "",
) -> list[Check]:
    """Averages by key, scores by type, and numbers called overall, mean and the like, at any depth.

    means: type → score, "" → overall. kind: the type that the keys above name; a mean below it is that type's.
    """
    if not isinstance(node, dict):
        return []
    numbers = {key: value for key, value in node.items() if value is None or isinstance(value, int | float)}
    checks = [
        check(f"{where}/{key}", value, means.get(key if key in COUNTS else kind))
        for key, value in numbers.items()
        if key in COUNTS or re.search("overall|mean|average|avg|score$", key, re.IGNORECASE)
    ]
    rated = {key: value for key, value in numbers.items() if key.isdigit()}
    if rated:
        lost = [key for key in averages if key not in rated]
        checks.append(
            check(f"{where}/by key", [rated, []], [{key: averages.get(key) for key in rated}, lost])
        )
    for key, value in node.items():
        checks += _check_scores(value, averages, means, key if key in COUNTS else kind, f"{where}/{key}")
    return checks


def _rescored(
    replies: Mapping[str, Any], kinds: Mapping[str, str]
) -> tuple[dict[str, float], dict[str, float | None]]:
    """Averages by key, and scores by type with the overall number under "", of a file of replies."""
    benchmark, records = BENCHMARKS[0], []
    averages: dict[str, float] = {}
    for key, reply in replies.items():
        item = Item(key, kinds.get(key, ""), "", (Path(),), data={"text": ""})
        call = benchmark.calls(item, 0, Path(), benchmark.judges[0])[0]
        value = benchmark.parse(item, call, reply, "official") if isinstance(reply, str) else None
        units = tuple(benchmark.score(item, {call.id: Answer(Status.OK, value)}, "official"))
        if units:
            averages[key] = units[0].value
        records.append(Record(key, 0, item.group, Status.OK, units))
    summary = benchmark.aggregate(records, "official")
    means = {kind: of["score"] for kind, of in summary.groups.items()}
    return averages, means | {"": summary.overall.get("score")}


def _types(folder: Path) -> dict[str, str]:
    """Key → edit type: of the official file if it is there, else by the order of its keys."""
    kinds = {
        str(key): next((kind for last, kind in LAST_KEYS.items() if key <= last), "")
        for key in range(1, 1173)
    }
    for path in sorted((*folder.glob("items*.json"), *folder.glob("basic_edit*.json"))):
        kinds |= {key: row["edit_type"] for key, row in read_json(path).items()}
    return kinds


def _prompts_beside(folder: Path) -> dict[str, str]:
    """The judge's prompts in a sample folder: prompts.json, and single ones as prompt_KIND_full.json."""
    whole = beside(folder, "prompts.json")
    prompts = dict(read_json(whole)) if whole is not None else {}
    for path in folder.glob("prompt_*_full.json"):
        prompts[path.stem.removeprefix("prompt_").removesuffix("_full")] = read_json(path)
    return prompts
