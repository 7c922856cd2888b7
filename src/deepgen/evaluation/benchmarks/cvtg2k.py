"""CVTG-2K (arXiv 2503.23461): 2,000 pictures with two to five texts each; the share of words that are read in the
picture, how near the nearest readings are, and CLIPScore. Scorer: TextCrafter's unified_metrics_eval.py."""

import difflib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
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
)
from deepgen.evaluation.pooling import pooled
from deepgen.evaluation.samples import (
    Labels,
    Vocabulary,
    beside,
    compare_labelled,
    golden_files,
    read_golden,
    worst_of,
)
from deepgen.evaluation.sources import read_json, require
from deepgen.rewards.text_match import levenshtein

SETS = ("CVTG", "CVTG-Style")
COUNTS = {
    "CVTG/2": 200,
    "CVTG/3": 301,
    "CVTG/4": 300,
    "CVTG/5": 201,
    "CVTG-Style/2": 200,
    "CVTG-Style/3": 299,
    "CVTG-Style/4": 302,
    "CVTG-Style/5": 197,
}
ORIGIN = "Hugging Face dataset dnkdnk/CVTG-2K (a zip file)"
# Word accuracy, normalised edit distance, CLIPScore.
PAPER_ROWS = {
    "Nano Banana Pro": (0.7788, 0.8754, 0.7372),
    "GPT-Image-1": (0.8569, 0.9478, 0.7982),
    "Seedream 4.0": (0.8451, 0.9224, 0.7975),
    "FLUX.1 Dev": (0.4965, 0.6879, 0.7401),
    "Z-Image-Turbo": (0.8585, 0.9281, 0.8048),
    "Hunyuan-Image 3.0": (0.7650, 0.8765, 0.8121),
    "Qwen-Image": (0.8288, 0.9116, 0.8017),
    "LongCat-Image": (0.8658, 0.9361, 0.7859),
    "GLM-Image": (0.9116, 0.9557, 0.7877),
    "DeepGen SFT": (0.6605, 0.8426, 0.8227),
    "DeepGen RL": (0.7533, 0.8936, 0.8278),
}


def wanted_words(prompt: str) -> list[str]:
    """The words to be drawn: what stands between single quotes, in lower case, split at spaces. An apostrophe inside
    a quote ends it, as published; 9 of the 2,000 prompts quote one text more than their area says."""
    return [word for quoted in re.findall(r"'(.*?)'", prompt) for word in quoted.lower().split()]


def nearness(word: str, read: Sequence[str]) -> float:
    """1 − distance / length to the nearest reading by difflib's measure, as published."""
    nearest = difflib.get_close_matches(word, read, n=1, cutoff=0)
    if not nearest:
        return 0.0
    return 1 - levenshtein(word, nearest[0]) / (max(len(word), len(nearest[0])) + 1e-5)


def found_words(words: Sequence[str], read: Sequence[str], mode: Mode) -> list[bool]:
    """Whether each word was read. official: one reading serves all repeats of a word; strict: each serves once."""
    if mode == "official":
        return [word in read for word in words]
    left = Counter(read)
    found = []
    for word in words:
        found.append(left[word] > 0)
        left[word] -= 1
    return found


class Cvtg2k(Benchmark):
    name = "cvtg-2k"
    title = "CVTG-2K, 2,000 pictures with two to five texts"
    folder = "cvtg2k"
    files = tuple(DataFile(f"{area}.json", ORIGIN, "Apache-2.0") for area in COUNTS)
    counts = COUNTS
    judges = (JudgeProfile("ocr-clip", kind="ocr-clip"),)
    primary = "word accuracy"
    published = tuple(
        Published(
            model,
            dict(zip(("word accuracy", "ned", "clipscore"), row, strict=True)),
            None,
            "DeepGen paper, table 5",
        )
        for model, row in PAPER_ROWS.items()
    )
    notes = (
        "The published scorer reads with PaddleOCR 2.10; here RapidOCR does, so numbers carry the name ocr-clip.",
        "CLIPScore needs a CLIP ViT-L/14 from a path; without one it is left out, never 0.",
        "VQAScore (clip-flant5-xxl) and the LAION aesthetic score are out of scope.",
        "The authors draw 1024 x 1024 pictures.",
        "Strict scoring lets each reading stand for one word only, and counts missing pictures as unread.",
    )

    def prepare(self, data: Path) -> None:
        """Unpacks the download; its second set is called CVTG-style in places, and CVTG-Style by the scorers."""
        unpack_where_missing(data, "*.zip", "CVTG")
        for area in COUNTS:
            path = data / f"{area}.json"
            other = data / f"{area}.json".replace("CVTG-Style", "CVTG-style")
            if not path.exists() and other.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(other.read_bytes())

    def items(self, data: Path) -> list[Item]:
        items = []
        for area in COUNTS:
            path = data / f"{area}.json"
            rows = require(read_json(path), str(path), data_list=list)["data_list"]
            for number, row in enumerate(rows):
                where = f"{path}: data_list[{number}]"
                require(row, where, index=(int, str), prompt=str)
                words = wanted_words(row["prompt"])
                if not words:
                    raise DataError(f"{where}: the prompt quotes no text")
                items.append(make_item(area, str(row["index"]), row["prompt"], words))
        return items

    def official_path(self, item: Item, sample: int) -> str:
        return f"{item.id}.png"

    def calls(self, item: Item, sample: int, picture: Path, judge: JudgeProfile) -> list[JudgeCall]:
        data = {"clip_text": f"A photo depicts {item.prompt}"}
        return [JudgeCall("read", "", (JudgeImage(picture),), data=data)]

    def parse(self, item: Item, call: JudgeCall, reply: str, mode: Mode) -> dict[str, Any]:
        """{"lines": what was read, "clip": cosine of picture and prompt, or None}."""
        try:
            found = json.loads(reply)
            lines, clip = list(found["lines"]), found.get("clip")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ParseError(f"the reader's answer is not as agreed ({error!r})") from error
        if not all(isinstance(line, str) for line in lines) or not isinstance(clip, int | float | None):
            raise ParseError("the reader's answer holds something else than lines of text and a number")
        return {"lines": lines, "clip": clip}

    def score(self, item: Item, answers: Mapping[str, Answer], mode: Mode) -> Sequence[Unit]:
        """official: a missing picture is not counted, a reader that fails has read nothing. strict: both count as
        nothing read, and a missing picture has no CLIPScore above 0."""
        answer = answers["read"]
        if mode == "official" and answer.status in (Status.NO_PICTURE, Status.NOT_ASKED):
            return ()
        words = item.data["words"]
        if answer.value is None:
            units = [Unit(metric, 0.0) for metric in ("word accuracy", "ned") for _ in words]
            return (*units, Unit("clipscore", 0.0)) if answer.status is Status.NO_PICTURE else units
        read = [word for line in answer.value["lines"] for word in line.lower().split()] or [""]
        units = [Unit("word accuracy", float(found)) for found in found_words(words, read, mode)]
        units += [Unit("ned", nearness(word, read)) for word in words]
        if answer.value["clip"] is not None:
            units.append(Unit("clipscore", 2.5 * max(answer.value["clip"], 0.0)))
        return units

    def aggregate(self, records: Sequence[Record], mode: Mode) -> Summary:
        """Means over words (CLIPScore: over pictures), of each area and of all areas at once."""
        return pooled(records, tuple(COUNTS))


def make_item(area: str, index: str, prompt: str, words: Sequence[str]) -> Item:
    """area: such as "CVTG/2"; index: of the prompt in the area's file."""
    return Item(f"{area}/{index}", area, prompt, data={"words": list(words)})


BENCHMARKS = (Cvtg2k(),)

METRICS = {
    "word_accuracy": r"word_?acc|^acc(uracy)?$",
    "ned": r"^((avg|mean|word)_)?ned$",
    "ned_words": r"ned_word|distances|^neds$",
    "images": r"images",
    "words": r"total_words|gt_words|n_words|^(total|words)$",
    "correct": r"correct|acc_words",
}


def verify_sample(folder: Path) -> list[Check]:
    """One check a file: the numbers of all areas at once, by set, by area and by picture."""
    return [worst_of(path.stem, _verify(read_golden(path), folder)) for path in golden_files(folder)]


def _verify(document: Any, folder: Path) -> list[Check]:
    readings = beside(folder, "synthetic_ocr*.json", "synthetic*.json")
    if readings is None:
        return []
    # null may stand for a reader that found nothing or for one that failed; they differ by the 1e-5 in `nearness`.
    tries = [_compare(document, _rescored(read_json(readings), failed)) for failed in (False, True)]
    return min(tries, key=lambda checks: worst_of("", checks).diff)


def _compare(document: Any, records: Sequence[Record]) -> list[Check]:
    facts = list(_facts(records))
    pictures = {
        labels["picture"]: f"^{re.escape(labels['picture'])}$" for labels, _ in facts if "picture" in labels
    }
    words = Vocabulary(
        patterns={
            "set": {"CVTG": r"^cvtg(?!-?_?style)", "CVTG-Style": r"^cvtg[-_]?style"},
            "area": {n: rf"^(cvtg[^/]*[/_ -])?(area[_ ]?)?{n}($|[/_])" for n in "2345"},
            "picture": pictures,
            "metric": METRICS,
        },
        identifiers=("area", "benchmark_type", "image", "picture", "path", "file"),
        # What readings alone cannot tell.
        skipped="clip|vqa|aesthetic",
    )
    return compare_labelled("", _in_order(document), facts, words)


def _in_order(node: Any) -> Any:
    """Lists of numbers sorted, as the published order is that of the folder's listing; (words, correct, distances)
    of a picture by name."""
    if isinstance(node, Mapping):
        return {key: _in_order(value) for key, value in node.items()}
    if not isinstance(node, list):
        return node
    if len(node) == 3 and isinstance(node[2], list):
        return {"words": node[0], "correct": node[1], "distances": _in_order(node[2])}
    if all(isinstance(entry, int | float) for entry in node):
        return sorted(node)
    return [_in_order(entry) for entry in node]


def _rescored(readings: Mapping[str, Any], failed: bool) -> list[Record]:
    """The records of canned readings: {"gt_words": {picture: words}, "ocr_lines": {picture: lines}}.

    failed: whether a reading that is null means that the reader failed, instead of that it found nothing.
    """
    benchmark, records = BENCHMARKS[0], []
    for picture, words in readings["gt_words"].items():
        area, _, name = picture.rpartition("/")
        item = make_item(area, name, "", words)
        call = benchmark.calls(item, 0, Path(picture), benchmark.judges[0])[0]
        lines = readings["ocr_lines"].get(picture)
        answer = Answer(Status.PARSE_FAILED)
        if lines is not None or not failed:
            reply = json.dumps({"lines": lines or []})
            answer = Answer(Status.OK, benchmark.parse(item, call, reply, "official"))
        units = tuple(benchmark.score(item, {call.id: answer}, "official"))
        records.append(Record(item.id, 0, area, Status.OK, units))
    return records


def _facts(records: Sequence[Record]) -> Iterator[tuple[Labels, Any]]:
    scopes: dict[tuple[tuple[str, str], ...], list[Record]] = {}
    for record in records:
        family, _, area = record.group.partition("/")
        labels: tuple[tuple[str, str], ...] = (("set", family), ("area", area), ("picture", record.item))
        for depth in range(4):
            scopes.setdefault(labels[:depth], []).append(record)
    for scope, of in scopes.items():
        units = [unit for record in of for unit in record.units]
        found = [unit.value for unit in units if unit.metric == "word accuracy"]
        means = BENCHMARKS[0].aggregate(of, "official").overall
        numbers = {
            "word_accuracy": means.get("word accuracy", 0.0),
            "ned": means.get("ned", 0.0),
            "ned_words": sorted(unit.value for unit in units if unit.metric == "ned"),
            "images": len(of),
            "words": len(found),
            "correct": sum(found),
        }
        for metric, value in numbers.items():
            yield {**dict(scope), "metric": metric}, value
