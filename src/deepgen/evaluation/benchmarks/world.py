"""The benchmarks `world` and `world-v1`: does the model draw and edit what the picture world's prompts ask?

The prompts are `world-test-v2` and `world-test-v1`, which share no scale; the judge is the world's detector, and what
counts as right is in `deepgen.world.judging`.
"""

import json
from collections.abc import Mapping, Sequence
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepgen.errors import InputError
from deepgen.evaluation.benchmark import (
    Answer,
    Benchmark,
    Item,
    JudgeCall,
    JudgeImage,
    JudgeProfile,
    Mode,
    Unit,
)
from deepgen.evaluation.files import write_text
from deepgen.evaluation.sources import sha256_of
from deepgen.world.edits import EditSample
from deepgen.world.sprites import default_path
from deepgen.world.testset import FIRST_TEST_FILE, TEST_CATEGORIES, load_items, packaged
from deepgen.world.testset import Item as TestItem

if TYPE_CHECKING:
    from deepgen.evaluation.judges import ScorerOptions
    from deepgen.evaluation.world_scorer import WorldScorer

PER_CATEGORY = 50
FIRST_NOTE = (
    "14 items show a recoloured alien or shield, which exist no longer: a detector of the larger world was never shown"
    " such, and the shipped one is wrong about 11 of them even as they are drawn."
)
SPRITES_MARK = "sprites.sha256"
"""Beside the drawn sources: which sprites they were drawn with, and for which test file."""


class World(Benchmark):
    task = "both"
    samples = 4
    judges = (JudgeProfile("world-detector", kind="world"),)
    attempts = 1
    primary = "right"
    scales: Mapping[str, tuple[float, float]] = {"psnr": (0.0, 100.0)}
    skips_untrained = True
    source_hint = "edits are drawn with the sprites of `deepgen world fetch`; or name --sprites"
    notes: Sequence[str] = (
        "right: the share of pictures without a fault. psnr: in dB, of what an edit should leave alone.",
        "The detector's own errors are measured by `deepgen bench detector`.",
    )

    def __init__(
        self,
        name: str,
        test_file: Path,
        categories: Sequence[str],
        sprites: Path | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        """categories: those of the test file. sprites: where `deepgen world fetch` puts them if None. notes: on this
        version."""
        self.name = self.folder = name
        self.title = f"objects, counts, colours, places, edits, words in the picture world ({test_file.stem})"
        self.counts = dict.fromkeys(categories, PER_CATEGORY)
        self.test_file = test_file
        self.sprites = sprites
        self.notes = (*World.notes, *notes)

    def with_sprites(self, sprites: Path) -> "World":
        """The same benchmark with another file of sprites."""
        other = copy(self)
        other.sprites = sprites
        return other

    def prepare(self, data: Path) -> None:
        """Draw the pictures that edits are shown, once for a file of sprites; without sprites there are none."""
        packed = self.sprites or default_path()
        if not packed.is_file():
            if self.sprites is not None:
                raise InputError(f"{packed}: no sprites there; `deepgen world fetch` gets them")
            return
        digest = sha256_of(packed) + sha256_of(self.test_file)
        mark = data / SPRITES_MARK
        if mark.is_file() and mark.read_text(encoding="utf-8") == digest:
            return
        from PIL import Image

        from deepgen.pipeline.output import save_png
        from deepgen.world.draw import draw
        from deepgen.world.sprites import Sprites

        sprites = Sprites.load(packed)
        for test in load_items(self.test_file)[0]:
            if isinstance(test.sample, EditSample):
                for scene, path in zip(test.sample.pictures, self._sources(data, test), strict=True):
                    save_png(Image.fromarray(draw(scene, sprites)), path, {"source": test.id})
        write_text(mark, digest)

    def _sources(self, data: Path, test: TestItem) -> tuple[Path, ...]:
        """The picture to edit last; before it the references of the instruction, numbered from 1."""
        if not isinstance(test.sample, EditSample):
            return ()
        numbers = range(1, len(test.sample.pictures))
        names = (*(f"{test.id}-picture-{number}" for number in numbers), test.id)
        return tuple(data / "sources" / f"{name}.png" for name in names)

    def items(self, data: Path) -> list[Item]:
        tests, digest = load_items(self.test_file)
        return [
            Item(
                test.id,
                test.category,
                test.prompt,
                sources=self._sources(data, test),
                size=(test.shown.width, test.shown.height),
                data={"number": test.number, "test": f"{self.test_file.name}:{digest[:16]}"},
            )
            for test in tests
        ]

    def official_path(self, item: Item, sample: int) -> str:
        return f"{item.group}/{item.id}-{sample}.png"

    def seed(self, item: Item, sample: int, base: int) -> int:
        """From the line in the test file, as it has been from the first version on; `base` shifts them all."""
        return base + int(item.data["number"]) * 1000 + sample

    def calls(self, item: Item, sample: int, picture: Path, judge: JudgeProfile) -> list[JudgeCall]:
        images = tuple(JudgeImage(path) for path in (picture, *item.sources))
        return [JudgeCall("see", "", images, data={"id": item.id, "test": item.data["test"]})]

    def parse(self, item: Item, call: JudgeCall, reply: str, mode: Mode) -> dict[str, Any]:
        """{"faults", "psnr"} from what the scorer saw."""
        from deepgen.evaluation.world_scorer import seen_from_json
        from deepgen.world.judging import judge_edit, judge_sample

        told = json.loads(reply)
        seen, sample = seen_from_json(told), self.tests[item.id].sample
        edit = isinstance(sample, EditSample)
        faults = judge_edit(sample, seen) if isinstance(sample, EditSample) else judge_sample(sample, seen)
        return {"faults": faults if edit else faults + told["ink"], "psnr": told["psnr"]}

    @cached_property
    def tests(self) -> dict[str, TestItem]:
        """The test file's items by id."""
        return {test.id: test for test in load_items(self.test_file)[0]}

    def score(self, item: Item, answers: Mapping[str, Answer], mode: Mode) -> Sequence[Unit]:
        value = answers["see"].value
        if value is None:
            return () if mode == "official" else (Unit("right", 0.0),)
        right = Unit("right", float(not value["faults"]))
        return (right,) if value["psnr"] is None else (right, Unit("psnr", value["psnr"]))

    def explain(self, item: Item, answers: Mapping[str, Answer]) -> str:
        value = answers["see"].value
        return "" if value is None else "; ".join(value["faults"])

    def own_scorer(self, profile: JudgeProfile, options: "ScorerOptions") -> "WorldScorer":
        from deepgen.evaluation.world_scorer import WorldScorer

        return WorldScorer(self.tests, options.detector, options.device)


BENCHMARKS = (
    World("world", packaged(), TEST_CATEGORIES),
    World(
        "world-v1",
        packaged(FIRST_TEST_FILE),
        [one for one in TEST_CATEGORIES if one != "edit_insert"],
        notes=(FIRST_NOTE,),
    ),
)
