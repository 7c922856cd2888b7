"""The benchmark `world`: does the model draw and edit what the picture world's prompts ask?

The prompts are `world-test-v1`; what counts as right is in `deepgen.world.judging`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deepgen import __version__
from deepgen.evaluation import report, runner
from deepgen.evaluation.detector import load_detector, reconstruct
from deepgen.evaluation.runner import Draw, Drawn, Job, Progress, Task
from deepgen.pipeline.intake import open_picture
from deepgen.pipeline.output import save_png
from deepgen.pipeline.pipeline import DeepGenPipeline
from deepgen.scorers.ocr import Ocr
from deepgen.world.detector import Detector
from deepgen.world.draw import draw
from deepgen.world.edits import EditSample
from deepgen.world.judging import judge_edit, judge_ink, judge_sample, see, untouched_psnr
from deepgen.world.sprites import Sprites, default_path
from deepgen.world.testset import TEST_CATEGORIES, TEST_FILE, Item, load_items, select

NAME = "world"
READ_CATEGORIES = ("words",)
SHEET_PICTURES = 36


@dataclass(frozen=True)
class WorldRun:
    """What to run. `limit`: prompts of each category; `takes`: seeds of each prompt; `draw_settings`:
    arguments of the pipeline's call; `ceiling`: judge drawings and their VAE reconstructions instead of the
    model; paths not given are the packaged files and where `deepgen world fetch` puts sprites."""

    output: Path
    categories: tuple[str, ...] = TEST_CATEGORIES
    limit: int | None = None
    takes: int = 4
    batch_size: int = 8
    sprites: Path | None = None
    detector: Path | None = None
    test_file: Path | None = None
    ceiling: bool = False
    draw_settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """A finished run: its folder, what results.json says above the categories, and the categories."""

    folder: Path
    header: dict[str, Any]
    results: list[report.CategoryResult]


def run(settings: WorldRun, pipe: DeepGenPipeline, progress: Progress) -> list[Outcome]:
    """Generate, judge and report; for a ceiling once for drawings and once for reconstructions.

    Raises InputError, before any drawing, where a category needs sprites or rapidocr that are not there.
    """
    items, digest = load_items(settings.test_file)
    items = select(items, settings.categories, settings.limit)
    untrained = () if settings.ceiling else pipe.defaults.untrained_categories
    items = [item for item in items if item.category not in untrained]
    needs_sprites = settings.ceiling or any(isinstance(item.sample, EditSample) for item in items)
    sprites = Sprites.load(settings.sprites or default_path()) if needs_sprites else None
    judge = Judge.load(settings.detector, any(item.category in READ_CATEGORIES for item in items))
    judge.detector.to(pipe.model.device)
    takes = 1 if settings.ceiling else settings.takes
    defaults = {name: getattr(pipe.defaults, name) for name in ("num_inference_steps", "guidance_scale")}
    header = {
        "benchmark": NAME,
        "test_file": TEST_FILE,
        "test_file_sha256": digest,
        "deepgen": __version__,
        "model": pipe.name,
        "weights": runner.weights_hash(pipe.model),
        "seeds": takes,
        "draw_settings": defaults | settings.draw_settings,
    }
    outcomes = []
    for kind, drawing in _drawings(settings, pipe, items, sprites).items():
        folder = settings.output / kind if settings.ceiling else settings.output
        runner.start_run(folder, header | {"pictures": kind})
        tasks = _tasks(items, folder, sprites)
        jobs = runner.jobs_of(tasks, takes)
        runner.generate(jobs, drawing, folder, settings.batch_size, progress)
        scores = judge.score({item.id: item for item in items}, jobs, folder, progress)
        report.write_scores(scores, folder)
        results = report.summarise(scores, settings.categories)
        own = header | {"pictures": kind, "detector": judge.metrics}
        report.write_results(folder, own, results)
        _draw_sheets(jobs, scores, folder)
        outcomes.append(Outcome(folder, own, results))
    return outcomes


def _tasks(items: Sequence[Item], folder: Path, sprites: Sprites | None) -> list[Task]:
    """The runner's tasks; the sources of edits are drawn into `folder/sources` first."""
    tasks = []
    for item in items:
        references: tuple[Path, ...] = ()
        if isinstance(item.sample, EditSample) and sprites is not None:
            path = folder / "sources" / f"{item.id}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            save_png(Image.fromarray(draw(item.sample.source, sprites)), path, {"source": item.id})
            references = (path,)
        shown = item.shown
        tasks.append(
            Task(item.id, item.number, item.category, item.prompt, shown.width, shown.height, references)
        )
    return tasks


def _drawings(
    settings: WorldRun, pipe: DeepGenPipeline, items: Sequence[Item], sprites: Sprites | None
) -> dict[str, Draw]:
    """What fills the pictures, by name."""
    if not settings.ceiling or sprites is None:
        return {"generated": Generated(pipe, settings.draw_settings)}
    pictures = {item.id: draw(item.shown, sprites) for item in items}
    return {"drawn": Known(pictures), "reconstructed": Known(pictures, pipe)}


@dataclass(frozen=True)
class Generated:
    """Pictures by the model."""

    pipe: DeepGenPipeline
    settings: dict[str, Any]

    def __call__(self, jobs: Sequence[Job]) -> Drawn:
        task = jobs[0].task
        result = self.pipe(
            [job.task.prompt for job in jobs],
            image=[[open_picture(p) for p in job.task.references] for job in jobs]
            if task.references
            else None,
            width=task.width,
            height=task.height,
            seed=[job.seed for job in jobs],
            **self.settings,
        )
        return list(zip(result.images, result.metadata, strict=True))


@dataclass(frozen=True)
class Known:
    """Drawings of the asked scenes, as they are or through the pipeline's VAE."""

    pictures: Mapping[str, NDArray[np.uint8]]
    pipe: DeepGenPipeline | None = None

    def __call__(self, jobs: Sequence[Job]) -> Drawn:
        drawn = [Image.fromarray(self.pictures[job.task.id]) for job in jobs]
        if self.pipe is not None:
            drawn = reconstruct(self.pipe, drawn)
        return [(picture, {"scene": job.task.id}) for picture, job in zip(drawn, jobs, strict=True)]


@dataclass(frozen=True)
class Judge:
    """The detector, what is known of its errors, and the reader where words are judged."""

    detector: Detector
    metrics: dict[str, Any] | None
    ocr: Ocr | None

    @classmethod
    def load(cls, detector: Path | None, reads: bool) -> "Judge":
        return cls(*load_detector(detector), Ocr() if reads else None)

    def score(
        self,
        items: Mapping[str, Item],
        jobs: Sequence[Job],
        folder: Path,
        progress: Progress,
        at_once: int = 64,
    ) -> list[report.Score]:
        """The verdict on every picture of the jobs, in their order."""
        scores: list[report.Score] = []
        for part in (jobs[i : i + at_once] for i in range(0, len(jobs), at_once)):
            pictures = [runner.read_picture(job.path(folder)) for job in part]
            for job, picture, seen in zip(part, pictures, see(self.detector, pictures), strict=True):
                item = items[job.task.id]
                psnr = None
                if isinstance(item.sample, EditSample):
                    source = runner.read_picture(job.task.references[0])
                    psnr = untouched_psnr(item.sample, source, picture)
                    faults = judge_edit(item.sample, seen)
                else:
                    if self.ocr is not None and item.category in READ_CATEGORIES:
                        seen = replace(seen, readings=self.ocr.read(picture))
                    faults = judge_sample(item.sample, seen) + judge_ink(item.sample, seen, picture)
                scores.append(
                    report.Score(item.id, item.category, job.take, job.seed, not faults, tuple(faults), psnr)
                )
            progress("judge", len(scores), len(jobs))
        return scores


def _draw_sheets(jobs: Sequence[Job], scores: Sequence[report.Score], folder: Path) -> None:
    """`sheets/CATEGORY.png`: the first seed of the first prompts, edits beside their sources."""
    panels: dict[str, list[report.Panel]] = {}
    for job, score in zip(jobs, scores, strict=True):
        of_category = panels.setdefault(job.task.category, [])
        if job.take == 0 and len(of_category) < SHEET_PICTURES:
            files = (*job.task.references, job.path(folder))
            of_category.append(report.Panel(files, job.task.prompt, score.right, score.faults))
    (folder / "sheets").mkdir(exist_ok=True)
    for category, some in panels.items():
        report.draw_sheet(some, folder / "sheets" / f"{category}.png")
