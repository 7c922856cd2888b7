"""RISEBench (arXiv 2504.02826): edits that need temporal, causal, spatial or logical reasoning; 360 items.

Two scorers under two names. The published one changed on 2026-04-13 (commit ce8cba3): before, an item without a
consistency question could never count as solved. Numbers made before and after must not be ranked together.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from deepgen.errors import DataError
from deepgen.evaluation.archives import unpack_where_missing
from deepgen.evaluation.benchmark import (
    Answer,
    Benchmark,
    Check,
    DataFile,
    Item,
    JudgeCall,
    JudgeProfile,
    Mode,
    Published,
    Record,
    Status,
    Summary,
    Unit,
    check,
)
from deepgen.evaluation.pooling import pooled
from deepgen.evaluation.rise_family import (
    CRITERIA,
    JUDGE,
    SCALES,
    Question,
    Triple,
    calls_of,
    check_prompt_hashes,
    check_questions,
    check_table,
    fill_template,
    final_number,
    given,
    official_numbers,
    read_templates,
    require_pictures,
    result_tables,
    table_row,
    units_of,
)
from deepgen.evaluation.samples import beside, golden_files, read_golden, text_cases, worst_of
from deepgen.evaluation.sources import module_constants, read_json, require

DATA = "datav2_total_w_subtask.json"
CODE = "RISEBench/utils.py"
COUNTS = {"temporal_reasoning": 85, "causal_reasoning": 90, "spatial_reasoning": 100, "logical_reasoning": 85}
LOGICAL = "logical_reasoning"
SUBTASKS = (
    *("Temp-Life Progression", "Temp-Material Progression", "Temp-Environmental Cycles"),
    *("Temp-Societal Transformation", "Causal-Structural Deformation", "Causal-State Transition"),
    *("Causal-Chemical and Biological Transformation", "Causal-Physics Manifestation"),
    *("Spa-Component Assembly", "Spa-Object Arrangement", "Spa-Viewpoint Generation"),
    *("Spa-Structural Inference", "Spa-Layout Reasoning"),
    *("Logic-Pattern Prediction", "Logic-Mathematical Derivation", "Logic-Puzzle Solving"),
)
# Of the lines in the published table.
ORDER = ("reasoning", "consistency", "quality")
SUBTASK_KEYS = {key.partition("-")[2]: key for key in SUBTASKS}
# sha256 of the judge's prompts as published (5f22651); the texts have no licence and stay in the user's clone.
PROMPTS = {
    "prompt_consist": "84b272d821670cd2466866e27d80bed659dc677964a62a2c1459ad673c4eaf70",
    "prompt_generation": "2d607960deffa2e1b5178bfbf9f06c865654ddbe35b249caa9e59c616ff6c916",
    "prompt_logical_cons": "49b6870dfb1b4cb64e303d27845794e403d48ef877b85178fea9c48a425475c1",
    "prompt_logical_cons_ans": "28a6dd5a2e714acf681455acbf8dc01491559ecdcc54523e50a382d1c4689aaf",
    "prompt_logical_img": "ce89313d6047592decded49f4324000ced3c91f87153ca458dc1f55634e08cd6",
    "prompt_logical_img_wo_q": "8cd49d5335cd303c810affa011b21dcd1416fcbb76df00f175ee3af949dcaa8d",
    "prompt_logical_txt": "6719763c72ab8ef9e015ed4efe3ef96c4cd01c0c2cda8457cad1a91ac69eb956",
    "prompt_reasoning": "2a1a3394442065a25958b03047158bf670dbb0c771c5d9a7d299cdc02eb0c25b",
    "prompt_reasoning_w_input": "b781425c015b41a646eae87dea188b871f89a4749a8911281e1e3ac52f050cd0",
    "prompt_spatial_cons": "b20ca629d36da9cf2fa591ef3c1dd5909177b4d245172479345d6fa137c4c55e",
    "prompt_spatial_qual": "3bead46a4b0bcf295700caec5c116809dd72d4a03a750f7bb9da3e2563123c80",
    "prompt_spatial_ref": "df84b77e28183eddb0e822170970bec0a85302844ffae3c4a0effde7ada5279b",
    "prompt_spatial_ref_img": "4e043b8e696d40a4be73538134b4182dc5a87a354e5878983c943a536e22e25d",
    "prompt_spatial_ref_w_input": "444d3a201c30fb2fe2a88e48aca355c4f075f655c2edc4ae50a6e1fb263c668d",
}
SENT_AS_THEY_ARE = ("prompt_generation", "prompt_spatial_qual", "prompt_logical_img_wo_q")
# Temporal, causal, spatial, logical, overall; the paper's rows precede the change of the scorer.
PAPER_ROWS = {
    "Nano Banana": (25.9, 47.8, 37.0, 18.8, 32.8),
    "GPT-Image-1": (34.1, 32.2, 37.0, 10.6, 28.9),
    "Seedream 4.0": (12.9, 12.2, 11.0, 7.1, 10.8),
    "FLUX.1 Kontext Dev": (2.3, 5.5, 13.0, 1.2, 5.8),
    "BAGEL (CoT)": (5.9, 17.8, 21.0, 1.2, 11.9),
    "Qwen-Image-Edit-2509": (4.7, 10.0, 17.0, 2.4, 8.9),
    "DeepGen SFT": (15.3, 18.9, 14.0, 4.7, 13.3),
    "DeepGen RL": (12.9, 14.4, 13.0, 2.4, 10.8),
}


def _published() -> Iterator[Published]:
    for model, row in PAPER_ROWS.items():
        values = {f"{group}/accuracy": value for group, value in zip(COUNTS, row, strict=False)}
        ours = 512 if model.startswith("DeepGen") else None
        yield Published(model, values | {"accuracy": row[-1]}, None, "DeepGen paper, table 4", ours)


def plan(
    row: Mapping[str, Any], columns: frozenset[str], where: str
) -> list[tuple[str, str, tuple[str, ...]]]:
    """(criterion, template, pictures before the output) of each question about an item.

    columns: the keys that any item of the file has. The published script reads the file as a table and asks only
    whether the column `reasoning_wo_ins` is there; so one item that has it changes the prompt of all that are
    logical with a reference picture. Raises DataError for a row without the reference that its kind needs.
    """
    source, drawn = str(row["image"]), given(row, "reference_img")
    shown = given(row, "reasoning_img")
    if row["category"] == LOGICAL:
        if given(row, "reference_txt"):
            cons, reason, first, shown = "prompt_logical_cons_ans", "prompt_logical_txt", source, False
        elif drawn:
            bare = "reasoning_wo_ins" in columns
            reason = "prompt_logical_img_wo_q" if bare else "prompt_logical_img"
            cons, first, shown = "prompt_logical_cons", str(row["reference_img"]), True
        else:
            raise DataError(f"{where}: neither 'reference_txt' nor 'reference_img'")
    elif row["category"] == "spatial_reasoning":
        cons, first = "prompt_spatial_cons", str(row["reference_img"]) if drawn else source
        text_only = "prompt_spatial_ref_w_input" if shown else "prompt_spatial_ref"
        reason, shown = ("prompt_spatial_ref_img", True) if drawn else (text_only, shown)
    else:
        cons, first = "prompt_consist", source
        reason = "prompt_reasoning_w_input" if shown else "prompt_reasoning"
    questions: list[tuple[str, str, tuple[str, ...]]] = []
    if not given(row, "consistency_free"):
        questions.append(("consistency", cons, (first,)))
    questions.append(("reasoning", reason, (first,) if shown else ()))
    if row["category"] != LOGICAL:
        spatial = row["category"] == "spatial_reasoning"
        questions.append(("quality", "prompt_spatial_qual" if spatial else "prompt_generation", ()))
    return questions


def questions_of(
    row: Any, where: str, columns: frozenset[str], templates: Mapping[str, str]
) -> list[Question]:
    """The questions about a row of the official file. Raises DataError that names `where` and the key."""
    require(row, where, index=str, category=str, instruction=str, image=str)
    if row["category"] not in COUNTS:
        raise DataError(f"{where}: unknown category {row['category']!r}")
    answer = row.get("reference_txt") if given(row, "reference_txt") else row.get("reference")
    questions = []
    for criterion, template, before in plan(row, columns, where):
        if "{reference}" in templates[template] and not isinstance(answer, str):
            raise DataError(f"{where}: no 'reference'")
        text = fill_template(
            templates[template], template, instruct=row["instruction"], reference=str(answer)
        )
        questions.append(Question(criterion, template, before, text))
    return questions


def make_item(
    row: Any, where: str, root: Path, columns: frozenset[str], templates: Mapping[str, str]
) -> Item:
    """An item from a row of the official file; raises DataError as `questions_of` does."""
    asks = [
        {"id": asked.criterion, "text": asked.text, "before": [str(root / path) for path in asked.before]}
        for asked in questions_of(row, where, columns, templates)
    ]
    return Item(
        id=row["index"],
        group=row["category"],
        prompt=row["instruction"],
        sources=(root / row["image"],),
        references=(root / str(row["reference_img"]),) if given(row, "reference_img") else (),
        data={
            "asks": asks,
            "free": given(row, "consistency_free"),
            # The published weights test the table's cell, and an empty cell (NaN) is true; a null in the file is not.
            "free_weights": "consistency_free" in columns and bool(row.get("consistency_free", math.nan)),
            "subtask": SUBTASK_KEYS.get(str(row.get("subtask")), ""),
        },
    )


def columns_of(rows: Sequence[Any]) -> frozenset[str]:
    return frozenset(key for row in rows if isinstance(row, Mapping) for key in row)


class RiseBench(Benchmark):
    """release: "2025.05" scores as before 2026-04-13, "2026.04" as since."""

    task = "edit"
    folder = "risebench"
    files = (
        DataFile(DATA, "Hugging Face dataset PhoenixZ/RISEBench", "none stated"),
        DataFile(CODE, "a clone of https://github.com/PhoenixZ810/RISEBench at 5f22651", "none stated"),
    )
    counts = COUNTS
    judges = (JUDGE,)
    primary = "accuracy"
    scales = SCALES

    def __init__(self, release: Literal["2025.05", "2026.04"]):
        self.release = release
        self.name = f"risebench-{release}"
        self.title = (
            f"RISEBench, 360 reasoning edits, scorer {'before' if release < '2026' else 'since'} 2026-04-13"
        )
        self.published = tuple(_published()) if release < "2026" else ()
        self.notes = (
            "data.zip of the dataset is unpacked by prepare; its pictures lie beside the JSON file or in data/.",
            "Accuracy is the headline; the published weighted score uses 0.8 reasoning + 0.2 quality for every "
            "non-logical item, because an empty table cell counts as true. Strict scoring uses the weights that "
            "are documented, 0.3 consistency + 0.5 reasoning + 0.2 quality.",
            "Strict scoring is the same for both scorers: an item without a consistency question needs the other "
            "criteria only.",
            "An item with a drawn spatial answer is compared with that answer, not with its source, as published.",
        )

    def prepare(self, data: Path) -> None:
        if not (data / "temporal_reasoning_images").is_dir():
            unpack_where_missing(data, "data.zip", "data")

    def items(self, data: Path) -> list[Item]:
        rows = read_json(data / DATA)
        if not isinstance(rows, list):
            raise DataError(f"{data / DATA}: expected a list of items")
        templates = read_templates(data / CODE, PROMPTS)
        root = data / "data" if (data / "data").is_dir() else data
        columns = columns_of(rows)
        items = [
            make_item(row, f"{data / DATA}: item {i}", root, columns, templates) for i, row in enumerate(rows)
        ]
        require_pictures(items, "unpack data.zip of the dataset PhoenixZ/RISEBench here")
        return items

    def official_path(self, item: Item, sample: int) -> str:
        return f"images/{item.group}/{item.id}.png"

    def import_picture(self, root: Path, item: Item, sample: int) -> Any:
        """As published, or with `root` being the folder `images` itself, as DeepGen's script writes."""
        found = super().import_picture(root, item, sample)
        return found or super().import_picture(root.parent, item, sample) if root.name == "images" else found

    def calls(self, item: Item, sample: int, picture: Path, judge: JudgeProfile) -> list[JudgeCall]:
        return calls_of(item, picture)

    def parse(self, item: Item, call: JudgeCall, reply: str, mode: Mode) -> list[int] | None:
        """official: whatever numbers there are, None for none, which is not asked again."""
        if mode == "official":
            return official_numbers(reply) or None
        return [final_number(reply, (0, 1) if item.group == LOGICAL else (1, 2, 3, 4, 5))]

    def score(self, item: Item, answers: Mapping[str, Answer], mode: Mode) -> Sequence[Unit]:
        """official: a picture that is missing stops the published script, so does a reply with more than one
        number, unless they add up to three: nothing counts then. Any other failure leaves the item unsolved."""
        triple = self._official_triple(item, answers) if mode == "official" else _strict_triple(item, answers)
        if triple is None:
            return ()
        free = item.data["free_weights"] if mode == "official" else item.data["free"]
        return units_of(
            triple, weighted(item, triple, free), self._solved(item, triple, mode), item.data["subtask"]
        )

    def _official_triple(self, item: Item, answers: Mapping[str, Answer]) -> Triple | None:
        order = [ask["id"] for ask in item.data["asks"]]
        if any(answers[name].status in (Status.NO_PICTURE, Status.NOT_ASKED) for name in order):
            return None
        lists = [answers[name].value for name in order]
        if not all(lists):
            return None, None, None
        joined = [None] * item.data["free"] + [number for numbers in lists for number in numbers]
        if len(joined) == 2:
            return _stretched(joined[0]), _stretched(joined[1]), None
        return (joined[0], joined[1], joined[2]) if len(joined) == 3 else None

    def _solved(self, item: Item, triple: Triple, mode: Mode) -> bool:
        consistency, reasoning, quality = triple
        if item.group == LOGICAL:
            return consistency == reasoning == 5
        excused = item.data["free"] and (mode == "strict" or self.release >= "2026")
        return reasoning == quality == 5 and (excused or consistency == 5)

    def aggregate(self, records: Sequence[Record], mode: Mode) -> Summary:
        """Means over items, whatever their category; also of each of the 16 sub-tasks."""
        return pooled(records, (*COUNTS, *SUBTASKS))


def weighted(item: Item, triple: Triple, free: bool) -> float:
    """The published weighted score, 1 to 5, halved (but not below 1) where reasoning is 1; NaN without a value."""
    consistency, reasoning, quality = (math.nan if value is None else value for value in triple)
    if item.group == LOGICAL:
        score = 0.3 * consistency + 0.7 * reasoning
    elif free:
        score = 0.2 * quality + 0.8 * reasoning
    else:
        score = 0.3 * consistency + 0.5 * reasoning + 0.2 * quality
    return max(score * 0.5, 1.0) if reasoning == 1 and not math.isnan(score) else score


def _stretched(number: int | None) -> float | None:
    """Logical items are judged 0 or 1; on the others' scale that is 1 or 5."""
    return None if number is None else 4 * min(number, 1) + 1


def _strict_triple(item: Item, answers: Mapping[str, Answer]) -> Triple:
    values: list[float | None] = []
    for criterion in CRITERIA:
        answer = answers.get(criterion)
        if answer is None:
            values.append(None)
        elif item.group == LOGICAL:
            values.append(_stretched(answer.value[0] if answer.value else 0))
        else:
            values.append(answer.value[0] if answer.value else 1)
    return values[0], values[1], values[2]


BENCHMARKS = (RiseBench("2026.04"), RiseBench("2025.05"))


def verify_sample(folder: Path) -> list[Check]:
    """One check a file: parser cases, choice of templates and pictures, the prompts' hashes, result tables."""
    return [_verify(path, read_golden(path), folder) for path in golden_files(folder)]


def _verify(path: Path, document: Any, folder: Path) -> Check:
    code = beside(folder, CODE, "utils.py")
    if isinstance(document, list) and any("calls" in entry for entry in document):
        return worst_of(path.stem, [_check_item(entry, code) for entry in document])
    if isinstance(document, dict) and document.keys() & PROMPTS.keys():
        return check_prompt_hashes(path.stem, document, code, PROMPTS)
    if tables := list(result_tables(document)):
        return worst_of(path.stem, [_check_result(table, folder) for _, table in tables])
    cases = [
        check(repr(text[:40]), expected, official_numbers(text))
        for text, rest in text_cases(document)
        for expected in rest.values()
    ]
    return worst_of(path.stem, cases)


def _check_item(entry: Mapping[str, Any], code: Path | None) -> Check:
    row, columns = entry["item"], frozenset(entry["item"])
    texts = module_constants(code) if code is not None else {}
    questions = questions_of(row, str(row["index"]), columns, dict.fromkeys(PROMPTS, "") | texts)
    output = BENCHMARKS[0].official_path(make_item(row, "", Path(), columns, dict.fromkeys(PROMPTS, "")), 0)
    return check_questions(entry, questions, output, texts, PROMPTS)


def _check_result(expected: Mapping[str, Any], folder: Path) -> Check:
    """A result table, by the scorer that comes nearest: a file does not say which of the two it is of."""
    data, judged = beside(folder, "synthetic_data*.json"), beside(folder, "synthetic_judges*.json")
    if data is None or judged is None:
        return check("no synthetic_data*.json and synthetic_judges*.json beside it", dict(expected), None)
    checks = [
        check_table(one.name, expected, result_table(one, read_json(data), read_json(judged)))
        for one in BENCHMARKS
    ]
    return min(checks, key=lambda done: done.diff)


def result_table(
    benchmark: RiseBench, rows: Sequence[Any], judged: Mapping[str, Mapping[str, str | None]]
) -> dict[str, dict[str, float]]:
    """The published result table from the data file and the replies by index: line → column → number."""
    records, columns = [], columns_of(rows)
    for row in rows:
        item = make_item(row, str(row.get("index")), Path(), columns, dict.fromkeys(PROMPTS, ""))
        answers = {}
        for call in benchmark.calls(item, 0, Path(), JUDGE):
            reply = judged.get(item.id, {}).get(f"judge{1 + CRITERIA.index(call.id)}") or ""
            answers[call.id] = Answer(Status.OK, benchmark.parse(item, call, reply, "official"))
        units = tuple(benchmark.score(item, answers, "official"))
        records.append(Record(item.id, 0, item.group, Status.OK, units))
    summary = benchmark.aggregate(records, "official")
    short = {group.partition("_")[0].title(): summary.groups.get(group, {}) for group in COUNTS}
    table = {
        name: table_row(values, "score") for name, values in ({"Overall": summary.overall} | short).items()
    }
    for line, metric in zip(("Reasoning", "ApprConsistency", "VisualPlausibility_total"), ORDER, strict=True):
        table[f"Overall_{line}"] = table_row(summary.overall, metric)
    for name, values in short.items():
        for metric in CRITERIA:
            table[f"{name}_{metric.title()}"] = table_row(values, metric)
    return table | {key: table_row(of, "score") for key, of in summary.groups.items() if key not in COUNTS}
