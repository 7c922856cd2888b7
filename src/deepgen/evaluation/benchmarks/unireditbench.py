"""UniREditBench (arXiv 2511.01295): 2,700 reasoning edits of photographs and game boards, each with a reference
picture and a reference text; scorer Maplebb/UniREditBench at a7015c5."""

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
    JudgeProfile,
    Mode,
    Published,
    Record,
    Status,
    Summary,
    Unit,
)
from deepgen.evaluation.pooling import pooled
from deepgen.evaluation.rise_family import (
    CRITERIA,
    JUDGE,
    SCALES,
    Question,
    calls_of,
    check_prompt_hashes,
    check_questions,
    check_table,
    fill_template,
    final_number,
    official_numbers,
    read_templates,
    require_pictures,
    result_tables,
    table_row,
    units_of,
)
from deepgen.evaluation.samples import beside, golden_files, read_golden, worst_of
from deepgen.evaluation.sources import module_constants, read_json, require

DATA = "data.json"
CODE = "UniREditBench/eval/utils.py"
ORIGIN = "Hugging Face dataset maplebb/UniREditBench"
REAL = (
    *("Viewpoint Transformation", "Pose Adjustment", "Temporal Evolution", "Material Modification"),
    *("Structural Integrity Change", "Motion State Change", "Mechanical Reaction", "Medium Interaction"),
    "Spatial Arrangement",
)
GAMES = (
    *("3DReconstruction", "Pacman", "Jewel2", "Space Invader", "Maze", "Sokoban", "Tic-tac-toe", "Sudoku"),
    "Word Search",
)
# sha256 of the judge's prompts as published; the texts have no licence of their own and stay in the user's clone.
PROMPTS = {
    "prompt_consist": "f5c33ca67b96d5c63e438614b6820e2e752e98314745d5963b285e01fd12b104",
    "prompt_reasoning_w_ref_image": "b808865b51cbca26d22bfe38fd3856c5d7f8ca863052ba69a10b5be25b9f5e2e",
    "prompt_generation": "2d607960deffa2e1b5178bfbf9f06c865654ddbe35b249caa9e59c616ff6c916",
}
# Real world, game world, overall.
PAPER_ROWS = {
    "Nano Banana": (75.2, 60.4, 68.3),
    "GPT-Image-1": (81.0, 62.1, 73.4),
    "Seedream 4.0": (66.2, 45.4, 55.8),
    "FLUX.1 Kontext Pro": (45.0, 46.5, 45.8),
    "OmniGen2": (53.7, 33.1, 43.4),
    "Lumina-DiMOO": (51.4, 45.6, 48.5),
    "BAGEL": (56.8, 45.1, 51.0),
    "Qwen-Image-Edit-2509": (71.0, 41.9, 56.5),
    "DeepGen SFT": (74.3, 80.7, 77.5),
    "DeepGen RL": (73.2, 78.2, 75.7),
}


def questions_of(row: Any, where: str, templates: Mapping[str, str]) -> list[Question]:
    """The three questions about a row of the official file. Raises DataError that names `where` and the key."""
    require(row, where, original_image_path=str, reference_image_path=str, instruction=str, name=str)
    rules = row.get("rules")
    instruction = f"{rules}\n{row['instruction']}" if isinstance(rules, str) and rules else row["instruction"]
    before = (row["original_image_path"], row["reference_image_path"])
    shown = {"prompt_consist": before[:1], "prompt_reasoning_w_ref_image": before, "prompt_generation": ()}
    values = {"instruct": instruction, "reference": str(row.get("reference_effect") or "")}
    questions = []
    for criterion, (template, pictures) in zip(CRITERIA, shown.items(), strict=True):
        text = templates[template]
        # The published script sends the prompt that shows the output alone as it is.
        text = fill_template(text, template, **values) if pictures else text
        questions.append(Question(criterion, template, pictures, text))
    return questions


def make_item(row: Any, where: str, root: Path, templates: Mapping[str, str]) -> Item:
    """An item from a row of the official file; raises DataError as `questions_of` does."""
    asks = [
        {"id": asked.criterion, "text": asked.text, "before": [str(root / path) for path in asked.before]}
        for asked in questions_of(row, where, templates)
    ]
    require(row, where, idx=(int, str))
    rules = row.get("rules")
    ruled = isinstance(rules, str) and bool(rules)
    return Item(
        id=f"{row['name']}#{row['idx']}",
        group=row["name"],
        prompt=f"{rules} {row['instruction']}" if ruled else row["instruction"],
        sources=(root / row["original_image_path"],),
        references=(root / row["reference_image_path"],),
        data={"asks": asks, "idx": str(row["idx"]), "world": "game world" if ruled else "real world"},
    )


class UniReditBench(Benchmark):
    name = "unireditbench"
    title = "UniREditBench, 2,700 reasoning edits of photographs and games"
    task = "edit"
    folder = "unireditbench"
    files = (
        DataFile(DATA, ORIGIN, "Apache-2.0"),
        DataFile(CODE, "a clone of https://github.com/Maplebb/UniREditBench at a7015c5", "none stated"),
    )
    counts = dict.fromkeys((*REAL, *GAMES), 150)
    judges = (JUDGE,)
    primary = "score"
    scales = SCALES
    published = tuple(
        Published(
            model,
            {"real world/score": real, "game world/score": game, "score": overall},
            None,
            "DeepGen paper, table 4",
            512 if model.startswith("DeepGen") else None,
        )
        for model, (real, game, overall) in PAPER_ROWS.items()
    )
    notes = (
        "original_image.zip and reference_image.zip of the dataset are unpacked by prepare.",
        "The 18 classes are named as in the paper's figure, 150 items each; the data file may spell them otherwise.",
        "Official scoring drops an edit when one of its three replies has no score or its picture is missing; "
        "strict scoring counts each missing criterion as 1.",
    )

    def prepare(self, data: Path) -> None:
        for name in ("original_image", "reference_image"):
            unpack_where_missing(data, f"{name}.zip", name)

    def items(self, data: Path) -> list[Item]:
        rows = read_json(data / DATA)
        if not isinstance(rows, list):
            raise DataError(f"{data / DATA}: expected a list of items")
        templates = read_templates(data / CODE, PROMPTS)
        items = [make_item(row, f"{data / DATA}: item {i}", data, templates) for i, row in enumerate(rows)]
        require_pictures(items, f"unpack the zip files of {ORIGIN} here")
        return items

    def official_path(self, item: Item, sample: int) -> str:
        return f"{item.group}/{item.data['idx']}.png"

    def calls(self, item: Item, sample: int, picture: Path, judge: JudgeProfile) -> list[JudgeCall]:
        return calls_of(item, picture)

    def parse(self, item: Item, call: JudgeCall, reply: str, mode: Mode) -> int | None:
        """official: the first number that there is, None for none, which is not asked again."""
        if mode == "official":
            return next(iter(official_numbers(reply) or ()), None)
        return final_number(reply, (1, 2, 3, 4, 5))

    def score(self, item: Item, answers: Mapping[str, Answer], mode: Mode) -> Sequence[Unit]:
        values = [answers[criterion].value for criterion in CRITERIA]
        if mode == "official" and None in values:
            return ()
        consistency, reasoning, quality = (1 if value is None else value for value in values)
        score = 0.3 * consistency + 0.5 * reasoning + 0.2 * quality
        solved = consistency == reasoning == quality == 5
        accuracy, headline, *criteria = units_of(
            (consistency, reasoning, quality), score, solved, item.data["world"]
        )
        return headline, accuracy, *criteria

    def aggregate(self, records: Sequence[Record], mode: Mode) -> Summary:
        """Means over edits, whatever their class; also of each class and of the two worlds."""
        groups = dict.fromkeys(
            (*self.counts, *(record.group for record in records), "real world", "game world")
        )
        return pooled(records, tuple(groups))


BENCHMARKS = (UniReditBench(),)


def verify_sample(folder: Path) -> list[Check]:
    """One check a file: choice of templates and pictures, the prompts' hashes, result tables."""
    return [_verify(path, read_golden(path), folder) for path in golden_files(folder)]


def _verify(path: Path, document: Any, folder: Path) -> Check:
    code = beside(folder, CODE, "utils.py")
    if isinstance(document, list) and any("calls" in entry for entry in document):
        return worst_of(path.stem, [_check_item(entry, code) for entry in document])
    if isinstance(document, dict) and document.keys() & PROMPTS.keys():
        return check_prompt_hashes(path.stem, document, code, PROMPTS)
    table = result_table(folder)
    if isinstance(document, dict) and {f"Class-{name}" for name in document} <= table.keys():
        document = {"Overall": [None] * 3} | {f"Class-{name}": row for name, row in document.items()}
        table = table | {"Overall": table_row({}, "score")}
    checks = [check_table(where, expected, table) for where, expected in result_tables(document)]
    return worst_of(path.stem, checks)


def _check_item(entry: Mapping[str, Any], code: Path | None) -> Check:
    texts = module_constants(code) if code is not None else {}
    templates = dict.fromkeys(PROMPTS, "") | texts
    output = BENCHMARKS[0].official_path(make_item(entry["item"], "", Path(), templates), 0)
    return check_questions(entry, questions_of(entry["item"], "", templates), f"out/{output}", texts, PROMPTS)


def result_table(folder: Path) -> dict[str, dict[str, float]]:
    """The published result table from the data file and the replies in `folder`; {} without them."""
    data, judged = beside(folder, "synthetic_data*.json"), beside(folder, "synthetic_judges*.json")
    if data is None or judged is None:
        return {}
    replies, benchmark, records = read_json(judged), BENCHMARKS[0], []
    for row in read_json(data):
        item = make_item(row, data.name, Path(), dict.fromkeys(PROMPTS, ""))
        texts = replies.get(item.id, {})
        answers = {}
        for call, judge in zip(
            benchmark.calls(item, 0, Path(), JUDGE), ("judge1", "judge2", "judge3"), strict=True
        ):
            answers[call.id] = Answer(
                Status.OK, benchmark.parse(item, call, texts.get(judge) or "", "official")
            )
        units = tuple(benchmark.score(item, answers, "official"))
        records.append(Record(item.id, 0, item.group, Status.OK, units))
    summary = benchmark.aggregate(records, "official")
    names = ("Overall_Reasoning", "Overall_ApprConsistency", "Overall_VisualPlausibility")
    metrics = ("reasoning", "consistency", "quality")
    table = {"Overall": table_row(summary.overall, "score")}
    table |= {name: table_row(summary.overall, metric) for name, metric in zip(names, metrics, strict=True)}
    classes = dict.fromkeys(record.group for record in records)
    return table | {f"Class-{name}": table_row(summary.groups.get(name, {}), "score") for name in classes}
