"""GEdit-Bench (arXiv 2504.17761): 606 edits of users' pictures, with instructions in English or Chinese, rated by
VIEScore (arXiv 2312.14867); scorer stepfun-ai/Step1X-Edit at 570eba6."""

import json
import math
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from deepgen.errors import DataError, InputError
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
from deepgen.evaluation.files import write_text
from deepgen.evaluation.samples import (
    Labels,
    Vocabulary,
    beside,
    compare_labelled,
    golden_files,
    read_golden,
    text_cases,
    worst_of,
)
from deepgen.evaluation.sources import read_csv, read_jsonl, require
from deepgen.evaluation.viescore import PROMPTS, QUALITY_PROMPT, SEMANTICS_PROMPT, official_reply, two_scores
from deepgen.scorers.calls import ImageEncoding

ITEMS = "items.jsonl"
COUNTS = {
    "background_change": 40,
    "color_alter": 40,
    "material_alter": 40,
    "motion_change": 40,
    "ps_human": 70,
    "style_change": 60,
    "subject-add": 60,
    "subject-remove": 57,
    "subject-replace": 60,
    "text_change": 99,
    "tone_transfer": 40,
}
METRICS = ("semantics", "quality", "overall")

PAPER_ROWS = {
    "Nano Banana": 7.54,
    "GPT-Image-1": 7.53,
    "Seedream 4.0": 7.68,
    "FLUX.1 Kontext Pro": 6.56,
    "OmniGen2": 6.41,
    "UniWorld v1": 4.85,
    "BAGEL": 6.52,
    "Mammoth2": 6.60,
    "LongCat-Image-Edit": 7.60,
    "Qwen-Image-Edit-2509": 7.54,
    "DeepGen SFT": 7.12,
    "DeepGen RL": 7.17,
}


class GEditBench(Benchmark):
    """language: "en" or "cn", as the dataset calls it."""

    task = "edit"
    folder = "gedit_bench"
    files = (
        DataFile(
            ITEMS, "Hugging Face dataset stepfun-ai/GEdit-Bench, whose .parquet files prepare converts", "MIT"
        ),
    )
    counts = COUNTS
    # "gpt4o" of the published script is gpt-4.1 since 2025; PIL's default JPEG quality is 75.
    judges = (
        JudgeProfile("gpt-4.1", "gpt-4.1", image=ImageEncoding("jpeg", quality=75), max_tokens=(1400,)),
        JudgeProfile(
            "qwen2.5-vl-72b-awq",
            "Qwen/Qwen2.5-VL-72B-Instruct-AWQ",
            order="images-first",
            image=ImageEncoding("jpeg", quality=75),
            temperature=0.0,
            max_tokens=(512,),
        ),
    )
    attempts = 2
    primary = "overall"
    scales = dict.fromkeys((*METRICS, *(f"intersection {metric}" for metric in METRICS)), (0.0, 10.0))
    notes = (
        "semantics, quality and overall are G_SC, G_PQ and G_O; overall is the mean of the items' geometric means, "
        "not the geometric mean of the other two. Groups weigh the same.",
        "The intersection is the items for which all models that the authors compared returned a picture.",
        "The published scorer gives a random whole number to an item whose second reply has no braces, and asks "
        "forever where it has; official scoring draws that number from the item's key and leaves the other out.",
        "The authors report that the judge drifts by about 0.1 between runs; its date belongs to the number.",
    )

    def __init__(self, language: str):
        self.language = language
        self.name = f"gedit-bench-{language}"
        self.title = f"GEdit-Bench, 606 edits, instructions in {'English' if language == 'en' else 'Chinese'}"
        self.published = tuple(
            Published(
                model, {"overall": score}, None, "DeepGen paper, table 1", 512 if "DeepGen" in model else None
            )
            for model, score in PAPER_ROWS.items()
            if language == "en"
        )

    def prepare(self, data: Path) -> None:
        """Converts the dataset's .parquet files; needs pyarrow."""
        tables = sorted(data.rglob("*.parquet"))
        if not tables or (data / ITEMS).exists():
            return
        if find_spec("pyarrow") is None:
            raise InputError(f"{tables[0]}: converting it needs pyarrow: pip install pyarrow")
        rows = [_converted(row, data) for path in tables for row in _parquet_rows(path)]
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_text(data / ITEMS, text)

    def items(self, data: Path) -> list[Item]:
        kinds: dict[str, type | tuple[type, ...]] = dict.fromkeys(
            ("task_type", "key", "instruction", "instruction_language", "source"), str
        )
        items = []
        for number, row in enumerate(read_jsonl(data / ITEMS), 1):
            where = f"{data / ITEMS}:{number}"
            require(row, where, Intersection_exist=bool, **kinds)
            if row["task_type"] not in COUNTS:
                raise DataError(f"{where}: unknown task_type {row['task_type']!r}")
            source = data / row["source"]
            if not source.is_file():
                raise DataError(f"{source}: missing; delete {data / ITEMS} and prepare again")
            if row["instruction_language"] == self.language:
                items.append(make_item(row, source))
        return items

    def official_path(self, item: Item, sample: int) -> str:
        return f"fullset/{item.group}/{item.data['language']}/{item.id}.png"

    def export_item(self, root: Path, item: Item, pictures: Mapping[int, Path]) -> None:
        """The output and, beside it, the source as the published scorer wants it."""
        super().export_item(root, item, pictures)
        target = root / self.official_path(item, 0)
        with Image.open(item.sources[0]) as source:
            source.save(target.with_name(f"{item.id}_SRCIMG.png"))

    def calls(self, item: Item, sample: int, picture: Path, judge: JudgeProfile) -> list[JudgeCall]:
        source, output = item.sources[0], JudgeImage(picture, like=item.sources[0])
        text = SEMANTICS_PROMPT.replace("<instruction>", item.prompt)
        return [
            JudgeCall("semantics", text, (JudgeImage(source), output)),
            JudgeCall("quality", QUALITY_PROMPT, (output,)),
        ]

    def parse(self, item: Item, call: JudgeCall, reply: str, mode: Mode) -> list[float]:
        """The list of scores, the smallest of which counts."""
        if mode == "strict":
            return two_scores(reply)
        scores = (official_reply(reply) or {}).get("score")
        if not isinstance(scores, list) or not scores or not all(_is_number(score) for score in scores):
            raise ParseError("the published parser finds no scores")
        return [float(score) for score in scores]

    def score(self, item: Item, answers: Mapping[str, Answer], mode: Mode) -> Sequence[Unit]:
        """official: without a picture the item is skipped; without a score it gets a random one where the published
        scorer stops asking, and is left out where it would not stop. strict: 0 for what is missing."""
        values = []
        for criterion in ("semantics", "quality"):
            answer = answers[criterion]
            if answer.value:
                values.append(min(answer.value))
            elif mode == "strict":
                values.append(0.0)
            elif answer.status in (Status.NO_PICTURE, Status.NOT_ASKED) or _asks_forever(answer):
                return ()
            else:
                values.append(float(random.Random(f"{item.id}/{criterion}").randint(0, 10)))
        semantics, quality = values
        if semantics * quality < 0:
            return ()
        units = [
            Unit("overall", math.sqrt(semantics * quality)),
            Unit("semantics", semantics),
            Unit("quality", quality),
        ]
        if item.data["intersection"]:
            units += [Unit(f"intersection {unit.metric}", unit.value) for unit in units]
        return units


def make_item(row: Mapping[str, Any], source: Path) -> Item:
    """An item from a row that has the dataset's keys."""
    data = {"language": row["instruction_language"], "intersection": row["Intersection_exist"]}
    return Item(row["key"], row["task_type"], row["instruction"], (source,), data=data)


def _asks_forever(answer: Answer) -> bool:
    """Whether the published scorer repeats its question until the reply parses: where the reply has braces. After
    errors of the service, which it takes for empty replies, it has none."""
    return answer.status is Status.PARSE_FAILED and "{" in answer.text and "}" in answer.text


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        columns = [
            "task_type",
            "key",
            "instruction",
            "instruction_language",
            "Intersection_exist",
            "input_image",
        ]
        missing = [name for name in columns if name not in file.schema_arrow.names]
        if missing:
            raise DataError(f"{path}: no column {', '.join(missing)}")
        for batch in file.iter_batches(batch_size=16, columns=columns):
            yield from batch.to_pylist()


def _converted(row: Mapping[str, Any], data: Path) -> dict[str, Any]:
    """A row for items.jsonl, once its picture is written."""
    source = f"sources/{row['task_type']}/{row['instruction_language']}/{row['key']}.png"
    (data / source).parent.mkdir(parents=True, exist_ok=True)
    with Image.open(BytesIO(row["input_image"]["bytes"])) as picture:
        picture.save(data / source)
    return {key: value for key, value in row.items() if key != "input_image"} | {"source": source}


BENCHMARKS = (GEditBench("en"), GEditBench("cn"))

WORDS = Vocabulary(
    patterns={
        "language": {
            "en": r"(^|[_\W])en(g|glish)?($|[_\W])",
            "cn": r"(^|[_\W])(cn|chinese)($|[_\W])",
            "zh": "^zh$",
        },
        "subset": {"full": "full", "intersection": "inters"},
        "group": {"average": r"average|avg|mean"} | {group: f"^{group}$" for group in COUNTS},
        "metric": {
            "semantics": r"se?mantics?|sementics?|(^|_)sc($|_)",
            "quality": r"quality|(^|_)pq($|_)",
            "overall": r"(?<!model_)overall|(^|_)o($|_)",
            "count": r"(^|_)(n|num|counts?|total|rows|items)($|_)",
        },
    },
    defaults={"subset": "full", "group": "average"},
    columns=("metric", METRICS),
)


def verify_sample(folder: Path) -> list[Check]:
    """One check a file: the prompts, parser cases, the published statistics of a table of scores."""
    return [worst_of(path.stem, _verify(path, read_golden(path), folder)) for path in golden_files(folder)]


def _verify(path: Path, document: Any, folder: Path) -> list[Check]:
    if isinstance(document, dict) and document.keys() & PROMPTS.keys():
        return [check(key, document[key], PROMPTS.get(key)) for key in document]
    cases = [
        check(repr(text[:40]), *_comparable(expected, text))
        for text, rest in text_cases(document)
        for key, expected in rest.items()
        # Only a first reply can be read again: on the second, the published parser draws lots.
        if not re.search("second|retr|give|tries|note|variant|guess", key)
        and not (rest.get("guess_if_cannot_parse") and official_reply(text) is None)
        and "guess_if_cannot_parse" not in str(expected)
    ]
    scores = beside(folder, "synthetic_scores*.csv", "synthetic*.csv")
    if cases or scores is None:
        return cases
    facts = statistics(scores)
    named = WORDS.read(path.stem).get("language")
    document = _printout(document) if isinstance(document, str) else _named(document)
    tries = [
        compare_labelled(
            "", document, facts, replace(WORDS, defaults={**WORDS.defaults, "language": language})
        )
        for language in ([named] if named else ("en", "cn", "zh"))
    ]
    return min(tries, key=lambda checks: worst_of("", checks).diff)


def _comparable(expected: Any, text: str) -> tuple[Any, Any]:
    """What a golden file says of a reply (everything, the list of scores, or the smallest), and our reading."""
    found = official_reply(text)
    if found is None or expected is None or expected is False:
        return expected, False if found is None and expected is False else found
    if isinstance(expected, list):
        return expected, found.get("score")
    if isinstance(expected, Mapping):
        return expected, {key: found.get(key) for key in expected}
    return expected, min(found["score"])


def statistics(path: Path) -> list[tuple[Labels, float]]:
    """What the published statistics hold of a table of scores: the mean of each group and over the groups, by
    language, subset and metric; NaN where a group has no row."""
    rows = read_csv(path, ("sementics_score", "quality_score", "intersection_exist", "instruction_language"))
    facts: list[tuple[Labels, float]] = []
    for language in ("en", "cn", "zh"):
        benchmark, records = GEditBench(language), []
        for number, row in enumerate(rows):
            if row["instruction_language"] != language:
                continue
            group = row.get("group") or row["source_image"].split("/")[-3]
            # An empty cell is true, as in the published table.
            inside = row["intersection_exist"].strip().lower() not in ("false", "0")
            data = {"language": language, "intersection": inside}
            item = Item(str(number), group, "", data=data)
            values = {"semantics": row["sementics_score"], "quality": row["quality_score"]}
            answers = {name: Answer(Status.OK, [float(value or "nan")]) for name, value in values.items()}
            records.append(
                Record(item.id, 0, group, Status.OK, tuple(benchmark.score(item, answers, "official")))
            )
        facts += _facts(benchmark.aggregate(records, "official"), language)
        facts += _counts(records, language)
    return facts


def _counts(records: Sequence[Record], language: str) -> Iterator[tuple[Labels, float]]:
    """How many rows each group has in each subset, and all groups together."""
    for subset, metric in (("full", "overall"), ("intersection", "intersection overall")):
        groups = [r.group for r in records if any(unit.metric == metric for unit in r.units)]
        labels = {"language": language, "subset": subset, "metric": "count"}
        yield {**labels, "group": "average"}, len(groups)
        for group in COUNTS:
            yield {**labels, "group": group}, groups.count(group)


def _facts(summary: Summary, language: str) -> Iterator[tuple[Labels, float]]:
    for subset, prefix in (("full", ""), ("intersection", "intersection ")):
        for metric in METRICS:
            name = prefix + metric
            labels = {"language": language, "subset": subset, "metric": metric}
            whole = all(name in summary.groups.get(group, {}) for group in COUNTS)
            yield {**labels, "group": "average"}, summary.overall[name] if whole else math.nan
            for group in COUNTS:
                yield {**labels, "group": group}, summary.groups.get(group, {}).get(name, math.nan)


def _named(document: Any) -> Any:
    """The document with the six tables that the published function returns, where they stand in a list, by name."""
    if isinstance(document, list) and len(document) == 2 * len(METRICS):
        names = [f"{metric} {subset}" for subset in ("full", "intersection") for metric in METRICS]
        return dict(zip(names, document, strict=True))
    if isinstance(document, Mapping):
        return {key: _named(value) for key, value in document.items()}
    return document


def _printout(text: str) -> dict[str, dict[str, list[str]]]:
    """The lines "group: semantics, quality, overall" that the published script prints, by subset."""
    printed: dict[str, dict[str, list[str]]] = {"full": {}, "intersection": {}}
    subset = "full"
    for line in text.splitlines():
        name, _, numbers = line.strip().partition(":")
        if name == "Intersection":
            subset = "intersection"
        elif len(printed_row := numbers.replace(",", " ").split()) == len(METRICS):
            printed[subset][name] = printed_row
    return printed
