"""UniGenBench++: does the picture meet every point that the prompt is there to test?

600 prompts in two languages and two lengths, four pictures each; one reply judges all test points of a picture, in
27 sub-dimensions of 10 dimensions (Wang et al. 2025, arXiv 2510.18701; CodeGoat24/UniGenBench at 49d0bce).
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
from deepgen.evaluation.sources import (
    module_constants,
    read_csv,
    read_json,
    require,
    text_sha256,
    warn_of_changes,
)
from deepgen.scorers.calls import ImageEncoding

ORIGIN = "a clone of https://github.com/CodeGoat24/UniGenBench at 49d0bce"
LICENCE = "CC BY 4.0"
JUDGE_FILE = "eval/src/eval_common.py"
DEFINITIONS = Path(__file__).with_name("unigenbench_definitions.json")
"""What English test points mean, for `verify_sample`; a run reads the clone's."""
PROMPTS = 600
PUBLISHED = (
    ("DeepGen SFT", 74.18, 512),
    ("DeepGen RL", 75.74, 512),
    ("BAGEL", 61.53, None),
    ("OmniGen2", 63.09, None),
    ("Qwen-Image", 78.81, None),
    ("GPT-Image-1", 92.77, None),
)

OFFLINE = {
    "model": "QwenVL",
    "order": "images-first",
    "image": ImageEncoding("jpeg", quality=95),
    "max_tokens": (4096,),
    "extra": {"do_sample": False},
}
JUDGES = (
    JudgeProfile("gemini-2.5-pro", "gemini-2.5-pro", max_tokens=(4096,)),
    JudgeProfile("unigenbench-evalmodel-qwen3vl-32b-v1", **OFFLINE),  # type: ignore[arg-type]
    JudgeProfile("unigenbench-evalmodel-qwen-72b-v1", **OFFLINE),  # type: ignore[arg-type]
)


@dataclass(frozen=True)
class Language:
    """Names in the files of a language. points, meanings: keys of a prompt's JSON. headers: of the blocks of
    definitions and of meanings in the judge's text, spelled as there. texts: sha256 of the judge's template, each
    of its fields filled with its own name in braces, and of its definitions as JSON; where known."""

    code: str
    points: str
    meanings: str
    headers: tuple[str, str]
    texts: Mapping[str, str]


ENGLISH = Language(
    "en",
    "Testpoints",
    "Testpoint Description",
    ("Checkpoints Defination:", "Checkpoints Description:"),
    {
        "SYSTEM_PROMPT_EN_TEMPLATE": "9554ee938feaaf928d9086ba959e19063bcb027be086821d7dcb45e55ad40f14",
        "EXPLANATION_DICT_EN": "6dbddf2c906e172a3d13ba74febc381a3457cb5be11175bf9ffbc2421047438a",
    },
)
CHINESE = Language("zh", "考点", "考点对应描述", ("考点说明：", "考点描述说明："), {})
FIELDS = ("prompt", "testpoint", "explanation", "test_explanation")


def blocks(
    language: Language, points: Sequence[str], meanings: Sequence[str], definitions: Mapping[str, str]
) -> tuple[str, str]:
    """The judge's lists of what each test point means in general, and in this prompt."""
    general = "".join(f"\n{point}: {definitions[point]}" for point in points)
    here = "".join(f"\n{point}: {meaning}" for point, meaning in zip(points, meanings, strict=False))
    return f"{language.headers[0]}「{general}\n」", f"{language.headers[1]}「{here}\n」"


def official_reply(text: str, count: int) -> tuple[Any, Any] | None:
    """(analysis, score) as the official code reads a reply about `count` test points, None where it asks again.

    Raises TypeError and the like where it crashes, such as on a score that is a bare number.
    """
    found = [re.search(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL) for tag in ("analysis", "score")]
    if found[0] is None or found[1] is None:
        return None
    try:
        analysis, score = (ast.literal_eval(match[1].strip()) for match in found if match)
    except (ValueError, SyntaxError):
        return None
    if len(analysis) != count or len(score) != count:
        return None
    return analysis, score


def official_scores(analysis: Any, score: Any) -> list[Any] | None:
    """The scores that the official summary reads back from its table, where JSON's null, true and false are no
    Python: such a row is passed over (None), as is one whose scores are no list."""
    try:
        back = ast.literal_eval(json.dumps({"analysis": analysis, "score": score}, ensure_ascii=False))
    except (ValueError, TypeError):
        return None
    return back["score"] if isinstance(back["score"], list) else None


def strict_reply(text: str, count: int) -> list[int]:
    """The scores of the first <score>, each 0 or 1, quoted or not, in brackets or not; nothing else is needed.

    Raises ParseError.
    """
    found = re.search(r"<score>(.*?)</score>", text, re.DOTALL | re.IGNORECASE)
    if found is None:
        raise ParseError("no <score>")
    digits = [part.strip(" \n\t'\"") for part in found[1].strip().strip("[]()").split(",")]
    if len(digits) != count or not set(digits) <= {"0", "1"}:
        raise ParseError(f"expected {count} scores of 0 or 1, found {found[1].strip()[:80]!r}")
    return [int(digit) for digit in digits]


def read_points(text: str, where: str) -> dict[str, Any]:
    """A prompt's JSON. One row of the long English file lacks a comma between two texts; it is put in."""
    try:
        return dict(json.loads(text))
    except ValueError:
        mended = re.sub(r'(?<!\\)"\s*"(?=[^\s,:\]}])', '", "', text)
    try:
        return dict(json.loads(mended))
    except ValueError as error:
        raise DataError(f"{where}: sub-dimensions are no JSON ({error})") from error


Counts = dict[str, tuple[int, int]]
"""Of each dimension: points met, points in all."""


def count(records: Sequence[Record]) -> Counts:
    """Points of each sub-dimension, in the order of their first appearance."""
    met: dict[str, int] = {}
    total: dict[str, int] = {}
    for record in records:
        for unit in record.units:
            met[unit.key] = met.get(unit.key, 0) + int(unit.value)
            total[unit.key] = total.get(unit.key, 0) + 1
    return {key: (met[key], total[key]) for key in total}


def dimensions(subs: Counts) -> Counts:
    """Points of each dimension: what stands before a sub-dimension's first hyphen, its space kept as officially."""
    counts: Counts = {}
    for key, (met, total) in subs.items():
        name = key.partition("-")[0]
        before = counts.get(name, (0, 0))
        counts[name] = (before[0] + met, before[1] + total)
    return counts


def mean_accuracy(counts: Counts) -> float:
    """The unweighted mean of the dimensions' shares, as the leaderboard has it."""
    return sum(met / total for met, total in counts.values()) / len(counts)


NOTES = (
    "official: a picture whose reply cannot be read counts in no share, and a score in quotes is a miss.",
    "Agreement of the offline judges with Gemini is claimed by their authors, not measured here.",
)


class UniGenBench(Benchmark):
    """One set of prompts, by language and length."""

    folder = "unigenbench"
    counts: Mapping[str, int] = {"all": PROMPTS}
    samples = 4
    judges = JUDGES
    attempts = 11
    primary = "overall"
    scales: Mapping[str, tuple[float, float]] = {"accuracy": (0, 100), "overall": (0, 100)}
    notes: Sequence[str] = NOTES

    def __init__(self, language: Language, long: bool):
        self.language = language
        self.name = f"unigenbench-{language.code}{'-long' if long else ''}"
        self.title = f"600 {'long' if long else 'short'} prompts, {language.code}, by test points"
        self.prompts = f"data/test_prompts_{language.code}{'_long' if long else ''}.csv"
        known = "f82e8ce8…" if self.name == "unigenbench-en" else None
        self.files = [DataFile(self.prompts, ORIGIN, LICENCE, known), DataFile(JUDGE_FILE, ORIGIN, LICENCE)]
        if self.name == "unigenbench-en-long":
            self.notes = (
                *self.notes,
                "The official code stops at row 509, which lacks a comma; it is put in here.",
            )
        if self.name == "unigenbench-en":
            self.published = tuple(
                Published(model, {"overall": score}, None, "DeepGen paper, table 1", side)
                for model, score, side in PUBLISHED
            )

    def items(self, data: Path) -> list[Item]:
        code = self.language.code
        constants = module_constants(data / JUDGE_FILE)
        names = (f"SYSTEM_PROMPT_{code.upper()}_TEMPLATE", f"EXPLANATION_DICT_{code.upper()}")
        require(constants, str(data / JUDGE_FILE), **{names[0]: str, names[1]: dict})
        template, definitions = (constants[name] for name in names)
        texts = (
            template.format(**{field: f"{{{field}}}" for field in FIELDS}),
            json.dumps(definitions, sort_keys=True, ensure_ascii=False),
        )
        warn_of_changes(data / JUDGE_FILE, dict(zip(names, texts, strict=True)), self.language.texts)
        path = data / self.prompts
        columns = ("index", f"prompt_{code}", f"sub_dims_{code}")
        items = []
        for number, row in enumerate(read_csv(path, columns), 1):
            where = f"{path}: row {number}"
            points, meanings = self.points(row[columns[2]], where)
            if unknown := [point for point in points if point not in definitions]:
                raise DataError(f"{where}: {JUDGE_FILE} does not explain {unknown[0]!r}")
            if not re.fullmatch(r"\d+", row["index"]):
                raise DataError(f"{where}: index {row['index']!r} is no number")
            general, here = blocks(self.language, points, meanings, definitions)
            prompt = row[columns[1]]
            asked = template.format(
                prompt=prompt, testpoint=points, explanation=general, test_explanation=here
            )
            items.append(Item(str(int(row["index"])), "all", prompt, data={"points": points, "asked": asked}))
        return items

    def points(self, text: str, where: str) -> tuple[list[str], list[str]]:
        """The test points of a prompt and what each means in it."""
        described = read_points(text, where)
        names = (self.language.points, self.language.meanings)
        require(described, where, **dict.fromkeys(names, list))
        points, meanings = (described[name] for name in names)
        if not points or len(meanings) < len(points):
            raise DataError(f"{where}: {len(points)} test points, {len(meanings)} descriptions")
        return points, meanings

    def official_path(self, item: Item, sample: int) -> str:
        return f"{item.id}_{sample}.png"

    def calls(self, item: Item, sample: int, picture: Path, judge: JudgeProfile) -> list[JudgeCall]:
        return [JudgeCall("points", item.data["asked"], (JudgeImage(picture),))]

    def parse(self, item: Item, call: JudgeCall, reply: str, mode: Mode) -> list[Any] | None:
        """A score of each test point; official also None, where the reply is read but its row is passed over."""
        size = len(item.data["points"])
        if mode == "strict":
            return strict_reply(reply, size)
        try:
            read = official_reply(reply, size)
        except (TypeError, MemoryError, RecursionError) as error:
            raise ParseError(f"the official code stops at this reply ({error!r})") from error
        if read is None:
            raise ParseError("no lists of analyses and scores, one for each test point")
        return official_scores(*read)

    def score(self, item: Item, answers: Mapping[str, Answer], mode: Mode) -> Sequence[Unit]:
        """official: only a score that equals 1 is met; without scores the picture is left out."""
        scores = answers["points"].value
        if scores is None:
            if mode == "official":
                return ()
            scores = [0] * len(item.data["points"])
        pairs = zip(item.data["points"], scores, strict=False)
        return [Unit("point", float(score == 1), point) for point, score in pairs]

    def aggregate(self, records: Sequence[Record], mode: Mode) -> Summary:
        """overall: the mean of the dimensions' shares, in percent; groups: dimensions, then sub-dimensions."""
        subs = count(records)
        if not subs:
            return Summary({}, {})
        broad = dimensions(subs)
        shown = {name.strip(): counts for name, counts in broad.items()} | dict(sorted(subs.items()))
        groups = {name: {"accuracy": 100 * met / total} for name, (met, total) in shown.items()}
        return Summary({"overall": 100 * mean_accuracy(broad)}, groups)


BENCHMARKS = tuple(UniGenBench(language, long) for language in (ENGLISH, CHINESE) for long in (False, True))


def verify_sample(folder: Path) -> list[Check]:
    """Lists read from replies, the judge's texts by hash, and the shares of a file of scores."""
    checks = []
    if (golden := folder / "golden_parse.json").is_file():
        told = read_json(golden)
        got = [_read(case["text"], len(told["testpoint"])) for case in told["cases"]]
        checks.append(check(golden.name, [case["parsed"] for case in told["cases"]], got))
    for bench in BENCHMARKS:
        code = bench.name.removeprefix("unigenbench-").replace("-", "_")
        rows: dict[int, tuple[str, list[str], list[str]]] = {}
        for path in (folder / f"items_{code}.csv", folder / Path(bench.prompts).name):
            if path.is_file():
                rows |= _rows(bench, path)
        if (golden := folder / f"golden_judge_prompts_{code}.json").is_file():
            checks += _verified_texts(golden, bench.language, rows)
        if (golden := folder / f"golden_scores_{code}.json").is_file():
            scores = read_json(folder / f"synthetic_scores_{code}.json")
            checks += _verified_scores(golden, scores, {index: row[1] for index, row in rows.items()})
    return checks


def _read(text: str | None, size: int) -> Any:
    try:
        read = None if text is None else official_reply(text, size)
    except TypeError as error:
        return f"EXCEPTION {error!r}"
    return None if read is None else json.loads(json.dumps(read))


def _rows(bench: UniGenBench, path: Path) -> dict[int, tuple[str, list[str], list[str]]]:
    """Index → prompt, test points and their meanings."""
    columns = [f"{name}_{bench.language.code}" for name in ("prompt", "sub_dims")]
    return {
        int(row["index"]): (row[columns[0]], *bench.points(row[columns[1]], f"{path}: row {number}"))
        for number, row in enumerate(read_csv(path, ("index", *columns)), 1)
    }


def _verified_texts(
    golden: Path, language: Language, rows: Mapping[int, tuple[str, list[str], list[str]]]
) -> list[Check]:
    """Hashes of the texts of the prompts at hand, made from the one text that is given in full."""
    told = read_json(golden)
    hashes = {row["index"]: row["sha256"] for key in told if key.endswith("_sha256") for row in told[key]}
    example = next((key for key in told if re.fullmatch(r"example_index\d+_full", key)), "example_index-1")
    shown = int(re.sub(r"\D", "", example))
    definitions = read_json(DEFINITIONS)["definitions"] if language is ENGLISH else {}
    if shown in rows:
        definitions = _defined(told[example], language, rows[shown][1]) | definitions
    if shown not in rows or any(point not in definitions for point in rows[shown][1]):
        return [Check(f"{golden.name}: needs the example's prompt and the definitions", None, None, math.nan)]

    def parts(row: tuple[str, list[str], list[str]]) -> list[str]:
        return [*blocks(language, row[1], row[2], definitions), str(row[1]), row[0]]

    template = told[example]
    for number, part in enumerate(parts(rows[shown])):
        template = template.replace(part, chr(0xE000 + number))
    got = {}
    for index, row in rows.items():
        if index in hashes and all(point in definitions for point in row[1]):
            text = template
            for number, part in enumerate(parts(row)):
                text = text.replace(chr(0xE000 + number), part)
            got[index] = text_sha256(text)
    expected = {index: hashes[index] for index in got}
    return [check(f"{golden.name}: {len(got)} prompts of {len(hashes)} are beside it", expected, got)]


def _defined(text: str, language: Language, points: Sequence[str]) -> dict[str, str]:
    """What a filled text says that these test points mean."""
    block = text.partition(f"{language.headers[0]}「")[2].partition("\n」")[0]
    lines = [line.partition(": ") for line in block.splitlines()]
    return {point: meaning for point, _, meaning in lines if point in points}


def _verified_scores(
    golden: Path, rows: Sequence[Mapping[str, Any]], points: Mapping[int, Sequence[str]]
) -> list[Check]:
    """Shares of all dimensions. Where the test points of some prompts are not beside the scores, only what needs
    none of their names: the totals, and what follows from the golden sub-dimensions."""
    told = read_json(golden)
    named = all(row["index"] in points for row in rows)
    bench, records, skipped = BENCHMARKS[0], [], 0
    for row in rows:
        scores = official_scores([], row["score"])
        known = points[row["index"]] if named else [""] * len(scores or ())
        item = Item(str(row["index"]), "all", "", data={"points": known})
        units = bench.score(item, {"points": Answer(Status.OK, scores)}, "official")
        records.append(Record(item.id, row["j"], "all", Status.OK, tuple(units)))
        skipped += scores is None
    subs = count(records)
    if not named:
        golden_subs = {key: (of["correct"], of["total"]) for key, of in told["sub_dimensions"].items()}
        totals = [sum(of[place] for of in golden_subs.values()) for place in (0, 1)]
        name = f"{golden.name}: points met and in all (their names need the full prompt file)"
        checks = [check(name, totals, list(subs.get("", (0, 0))))]
        subs = golden_subs
    else:
        checks = []
    broad = dimensions(subs)
    broad = {key: broad[key] for key in told["primary_dimensions"] if key in broad} | broad
    got = {
        "primary_dimensions": _shares(broad),
        "sub_dimensions": _shares(subs),
        "overall_leaderboard_convention_mean_of_primary": mean_accuracy(broad),
        "rows_skipped": skipped,
    }
    return [*checks, *(check(f"{golden.name}: {key}", told[key], got[key]) for key in got if key in told)]


def _shares(counts: Counts) -> dict[str, dict[str, float]]:
    return {
        key: {"correct": met, "total": total, "accuracy": round(met / total, 4)}
        for key, (met, total) in counts.items()
    }
