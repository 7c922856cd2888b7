"""DPG-Bench: how much of a dense paragraph is in the picture?

1,065 paragraphs, four pictures each, yes/no questions that depend on each other (Hu et al. 2024, arXiv 2403.05135;
scorer TencentQQGYLab/ELLA at 3c228f1). The official judge is mPLUG, run as an external program; any other judge
makes `dpg-vlm`, whose numbers are not DPG's.
"""

import re
from collections.abc import Mapping, Sequence
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
    takes_of,
)
from deepgen.evaluation.sources import read_csv, read_json, read_text

QUESTIONS = "dpg_bench/dpg_bench.csv"
PROMPTS = "dpg_bench/prompts"
ORIGIN = "a clone of https://github.com/TencentQQGYLab/ELLA"
COLUMNS = ("item_id", "proposition_id", "dependency", "tuple", "question_natural_language")
FAMILIES = {
    "numeric": 299,
    "partiprompts": 324,
    "COCOval": 100,
    **dict.fromkeys(("countbench", "diffusiondb", "drawtext", "midjourney"), 40),
    **dict.fromkeys(("posescript", "stanford", "vrd", "whoops"), 40),
    "localized": 22,
}
SAMPLES = 4
OFFICIAL_JUDGE = "mplug-large"
PUBLISHED = (
    ("DeepGen SFT", 87.05, 512),
    ("DeepGen RL", 87.90, 512),
    ("BAGEL", 85.10, None),
    ("OmniGen2", 83.57, None),
    ("Qwen-Image", 88.32, None),
    ("GPT-Image-1", 85.20, None),
)

Questions = list[dict[str, Any]]
"""Of one item, in the file's order: {"id": int, "parents": [int], "tuple": text, "text": the question}."""


class LostParentError(Exception):
    """A question depends on one that the item lacks; the official scorer drops the item then."""

    def __init__(self, parent: int):
        super().__init__(f"no question {parent}")
        self.parent = parent


def read_questions(path: Path, mode: Mode) -> dict[str, Questions]:
    """Item → its questions. official: the file's first row is lost, and where an item's rows are apart, the later
    ones replace the earlier. Raises DataError for numbers that are none."""
    items: dict[str, dict[int, dict[str, Any]]] = {}
    before = ""
    for number, row in enumerate(read_csv(path, COLUMNS), 1):
        if number == 1 and mode == "official":
            continue
        name = row["item_id"]
        try:
            index = int(row["proposition_id"])
            parents = [int(parent) for parent in row["dependency"].split(",")]
        except ValueError as error:
            raise DataError(f"{path}: row {number}: proposition_id or dependency: {error}") from error
        if name not in items or (mode == "official" and name != before):
            items[name] = {}
        text = row["question_natural_language"]
        items[name][index] = {"id": index, "parents": parents, "tuple": row["tuple"], "text": text}
        before = name
    return {name: list(questions.values()) for name, questions in items.items()}


def zero_dependants(questions: Questions, scores: Mapping[int, float], mode: Mode) -> dict[int, float]:
    """Scores (question id → 0 or 1), less those of questions whose parents are answered no.

    official: one pass in the file's order, so a parent that is zeroed later does not count yet; LostParentError
    where a parent is no question of the item. strict: until nothing changes; a lost parent is none.
    """
    zeroed = dict(scores)
    changed = True
    while changed:
        changed = False
        for question in questions:
            if _a_parent_is_wrong(question["parents"], zeroed, mode) and zeroed[question["id"]] != 0:
                zeroed[question["id"]] = 0.0
                changed = mode == "strict"
    return zeroed


def _a_parent_is_wrong(parents: Sequence[int], scores: Mapping[int, float], mode: Mode) -> bool:
    for parent in parents:
        if parent == 0:
            continue
        if parent not in scores:
            if mode == "strict":
                continue
            raise LostParentError(parent)
        if scores[parent] == 0:
            return True
    return False


def score_picture(
    questions: Questions, scores: Mapping[int, float], mode: Mode
) -> tuple[float, dict[int, float]]:
    """(the picture's score, each question's score as the kinds count it: official before zeroing, strict after).

    Raises LostParentError.
    """
    zeroed = zero_dependants(questions, scores, mode)
    return sum(zeroed.values()) / len(zeroed), dict(scores) if mode == "official" else zeroed


def kind(described: str) -> str:
    """Of a tuple such as "attribute - color (dog, brown)": what stands before the bracket."""
    return described.split("(")[0].strip()


def broad_kind(of: str) -> str:
    return of.split("-")[0].strip()


def family(name: str) -> str:
    """An item's source, by its name."""
    return re.sub(r"\d+$", "", name) or "numeric"


class DPGBench(Benchmark):
    """One object a judge: mPLUG's answers make DPG's score, any other's make `dpg-vlm`."""

    folder = "dpg_bench"
    files = (DataFile(QUESTIONS, ORIGIN, "Apache-2.0"), DataFile(PROMPTS, ORIGIN, "Apache-2.0"))
    counts = FAMILIES
    samples = SAMPLES
    primary = "overall"
    scales: Mapping[str, tuple[float, float]] = {"overall": (0, 100), "dpg": (0, 100)}

    def __init__(self, name: str, title: str, judges: Sequence[JudgeProfile], **about: Any):
        self.name, self.title, self.judges = name, title, judges
        self.published = about.get("published", ())
        self.notes, self.attempts = about["notes"], about["attempts"]

    def items(self, data: Path) -> list[Item]:
        official = read_questions(data / QUESTIONS, "official")
        items = []
        for name, questions in read_questions(data / QUESTIONS, "strict").items():
            if family(name) not in FAMILIES:
                raise DataError(f"{data / QUESTIONS}: {name!r} is of no known source")
            prompt = read_text(data / PROMPTS / f"{name}.txt").strip()
            lists = {"strict": questions, "official": official.get(name, [])}
            items.append(Item(name, family(name), prompt, data={"questions": lists}))
        return items

    def official_path(self, item: Item, sample: int) -> str:
        return f"{item.id}.png"

    def import_picture(self, root: Path, item: Item, sample: int) -> Image.Image | None:
        """A quarter of the item's 2×2 grid: top left, top right, bottom left, bottom right."""
        path = root / self.official_path(item, sample)
        if not path.is_file():
            return None
        with Image.open(path) as grid:
            width, height = grid.size
            if width != height or width % 2:
                raise DataError(f"{path}: {width}x{height} is no grid of two by two equal square pictures")
            side = width // 2
            left, top = side * (sample % 2), side * (sample // 2)
            return grid.crop((left, top, left + side, top + side))

    def export_item(self, root: Path, item: Item, pictures: Mapping[int, Path]) -> None:
        """The grid of the four pictures. Raises DataError unless all are there and square and of one size."""
        images: list[Image.Image] = []
        for sample in range(SAMPLES):
            if sample not in pictures:
                raise DataError(f"{item.id}: a grid needs {SAMPLES} pictures, {sample} is not there")
            with Image.open(pictures[sample]) as image:
                images.append(image.convert("RGB"))
        sizes = {image.size for image in images}
        if len(sizes) > 1 or any(width != height for width, height in sizes):
            raise DataError(f"{item.id}: a grid needs square pictures of one size, these are {sorted(sizes)}")
        side = images[0].width
        grid = Image.new("RGB", (2 * side, 2 * side))
        for sample, picture in enumerate(images):
            grid.paste(picture, (side * (sample % 2), side * (sample // 2)))
        root.mkdir(parents=True, exist_ok=True)
        grid.save(root / self.official_path(item, 0))

    def calls(self, item: Item, sample: int, picture: Path, judge: JudgeProfile) -> list[JudgeCall]:
        if self.name == "dpg-bench" and judge.kind != "process":
            raise InputError("dpg-bench is scored by mPLUG as an external program; other judges make dpg-vlm")
        images = (JudgeImage(picture),)
        asks = "{}" if judge.kind == "process" else "{}\nAnswer with one word, yes or no."
        return [
            JudgeCall(str(question["id"]), asks.format(question["text"]), images)
            for question in item.data["questions"]["strict"]
        ]

    def parse(self, item: Item, call: JudgeCall, reply: str, mode: Mode) -> bool:
        """official: only the reply "yes" itself is one. strict: the one of both words that occurs."""
        if mode == "official" and self.name == "dpg-bench":
            return reply == "yes"
        words = set(re.findall(r"\b(yes|no)\b", reply.lower()))
        if len(words) != 1:
            raise ParseError("neither yes nor no alone")
        return words == {"yes"}

    def score(self, item: Item, answers: Mapping[str, Answer], mode: Mode) -> Sequence[Unit]:
        """Units of one of the four pictures: its score, and its questions' by kind (official: only the last's)."""
        questions = item.data["questions"][mode]
        if mode == "official":
            asked = [answers[str(question["id"])] for question in questions]
            if not asked or any(answer.status is not Status.OK for answer in asked):
                return ()
        scores = {q["id"]: float(answers[str(q["id"])].value is True) for q in questions}
        try:
            mean, counted = score_picture(questions, scores, mode)
        except LostParentError:
            return ()
        kinds = [Unit("question", counted[q["id"]], kind(q["tuple"])) for q in questions]
        return (Unit("picture", mean), *kinds)

    def explain(self, item: Item, answers: Mapping[str, Answer]) -> str:
        """Each question with its reply."""
        asked = {str(q["id"]): q["text"] for q in item.data["questions"]["strict"]}
        return "\n".join(f"{asked[index]} {answer.text}" for index, answer in answers.items())

    def aggregate(self, records: Sequence[Record], mode: Mode) -> Summary:
        """overall: 100 × the mean of all items' scores, each the mean of its pictures; beside it the pooled
        questions of each kind, coarse (L1) and fine (L2). official: an item counts with as many pictures as the
        others or not at all, and the kinds look at its last picture alone.
        """
        families: dict[str, list[float]] = {}
        pools: dict[str, list[float]] = {}
        items = [[record for record in takes if record.units] for takes in takes_of(records)]
        full = max(map(len, items), default=0)
        for takes in items:
            if not takes or (mode == "official" and len(takes) < full):
                continue
            families.setdefault(takes[0].group, []).append(_mean([r.units[0].value for r in takes]))
            for record in takes[-1:] if mode == "official" else takes:
                for unit in record.units[1:]:
                    pools.setdefault(unit.key, []).append(unit.value)
        scores = [score for of in families.values() for score in of]
        if not scores:
            return Summary({}, {})
        broad: dict[str, list[float]] = {}
        for fine, values in pools.items():
            broad.setdefault(broad_kind(fine), []).extend(values)
        groups = {
            **{of: {"dpg": 100 * _mean(families[of])} for of in FAMILIES if of in families},
            **{f"L1 {of}": {"dpg": 100 * _mean(values)} for of, values in broad.items()},
            **{f"L2 {of}": {"dpg": 100 * _mean(pools[of])} for of in sorted(pools)},
        }
        return Summary({"overall": 100 * _mean(scores)}, groups)


def _mean(scores: Sequence[float]) -> float:
    return sum(scores) / len(scores)


VLM_NOTE = (
    "An instruction to answer in one word follows each question; judges differ in level, so compare only runs of "
    "one judge."
)
BENCHMARKS = (
    DPGBench(
        "dpg-bench",
        "1,065 dense paragraphs, questions answered by mPLUG as an external program",
        [JudgeProfile(OFFICIAL_JUDGE, kind="process")],
        attempts=1,
        published=tuple(
            Published(model, {"overall": value}, OFFICIAL_JUDGE, "DeepGen paper, table 1", resolution)
            for model, value, resolution in PUBLISHED
        ),
        notes=(
            "official loses the first row of the question file and, with it, an item that depends on it.",
            "Kinds of questions: official looks at the last picture, before dependants are zeroed.",
        ),
    ),
    DPGBench(
        "dpg-vlm",
        "DPG-Bench's questions answered by a vision-language model; not comparable with DPG",
        [
            JudgeProfile(
                "qwen3-vl-32b-instruct",
                "Qwen/Qwen3-VL-32B-Instruct",
                order="images-first",
                temperature=0.0,
                max_tokens=(16, 512),
            )
        ],
        attempts=3,
        notes=(VLM_NOTE,),
    ),
)


def verify_sample(folder: Path) -> list[Check]:
    """Loaded questions, each item's scores or the error that drops it, and the totals."""
    golden = folder / "golden_official.json"
    if not golden.is_file():
        return []
    told = read_json(golden)
    loaded = read_questions(folder / "synthetic_dpg_bench.csv", "official")
    parents = {
        name: {"qid2dependency": {str(q["id"]): q["parents"] for q in questions}}
        for name, questions in loaded.items()
    }
    bench = BENCHMARKS[0]
    records: list[Record] = []
    rows = [_verified_item(bench, row, loaded, records) for row in told["items"]]
    summary = bench.aggregate(records, "official")
    levels = {
        level: {of[3:]: values["dpg"] for of, values in summary.groups.items() if of.startswith(level)}
        for level in ("L1", "L2")
    }
    scores = [[u.units[0].value for u in takes] for takes in takes_of(records)]
    got = {
        "questions_loaded_by_official_loader": parents,
        "items": rows,
        "per_image_scores": [[*of, sum(of) / len(of)] for of in scores],
        "DPG": summary.overall.get("overall"),
        **levels,
    }
    told["per_image_scores"] = [[float(value) for value in of] for of in told.get("per_image_scores", [])]
    return [check(f"{golden.name}: {key}", told[key], got[key]) for key in got if key in told]


def _verified_item(
    bench: DPGBench, row: Mapping[str, Any], loaded: Mapping[str, Questions], records: list[Record]
) -> dict[str, Any]:
    """The golden row as we make it; its records join the others."""
    name, answers = row["item_id"], row["answers_by_crop"]
    got = {"item_id": name, "answers_by_crop": answers}
    if name not in loaded:
        return got | {"official_result": "EXCEPTION TypeError(\"'NoneType' object is not subscriptable\")"}
    questions = loaded[name]
    item = Item(name, family(name), "", data={"questions": {"official": questions}})
    last: dict[str, float] = {}
    takes = []
    for sample, crop in enumerate(sorted(answers, key=int)):
        asked = {str(q["id"]): answers[crop][q["text"]] for q in questions}
        replies = {
            index: Answer(Status.OK, bench.parse(item, JudgeCall("", ""), reply, "official"))
            for index, reply in asked.items()
        }
        last = {index: float(answer.value) for index, answer in replies.items()}
        try:
            zero_dependants(questions, {int(index): value for index, value in last.items()}, "official")
        except LostParentError as error:
            return got | {"official_result": f"EXCEPTION KeyError({error.parent})"}
        units = tuple(bench.score(item, replies, "official"))
        takes.append(Record(name, sample, item.group, Status.OK, units))
    records += takes
    average = _mean([record.units[0].value for record in takes])
    return got | {"average_score": average, "qid2scores_orig_last_crop": last}
