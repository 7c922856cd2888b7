"""What `generate` and `edit` do: one prompt, a file of prompts, or a picture again, drawn and saved."""

import dataclasses
import logging
import secrets
import sys
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from rich.console import Console
from rich.progress import Progress

from deepgen import __version__
from deepgen.cli.generate import Source, load_pipeline
from deepgen.errors import InputError
from deepgen.pipeline.inputs import check_prompt
from deepgen.pipeline.intake import check_count, open_picture
from deepgen.pipeline.jobs import Job, read_jobs
from deepgen.pipeline.output import check_writable, read_metadata, save_png
from deepgen.pipeline.records import picture_hash, weights_hash
from deepgen.pipeline.repeat import read_repeat
from deepgen.pipeline.shipped import SHIPPED, resolve_model
from deepgen.pipeline.sizes import Resize, check_size, parse_size

if TYPE_CHECKING:
    from deepgen.pipeline.pipeline import DeepGenPipeline

# A picture that cannot be used is one line of ours; what Pillow says on the way would only stand beside it.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
logging.getLogger("PIL").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Settings:
    """The options of `generate` and `edit` that hold for every picture; None leaves it to the checkpoint."""

    source: Source
    n: int = 1
    seed: int | None = None
    size: str | None = None
    steps: int | None = None
    cfg: float | None = None
    negative: str | None = None
    resize: Resize = "aspect"
    keep_size: bool = False
    batch_size: int = 1


@dataclass(frozen=True)
class Wish:
    """One picture to draw: where it goes, what is asked for (None: not asked), and the line that asks."""

    path: Path
    prompt: str
    references: tuple[Path, ...]
    width: int | None
    height: int | None
    seed: int | None
    where: str = ""


def draw_prompt(prompt: str, references: Sequence[Path], output: Path, settings: Settings) -> None:
    """Draw `settings.n` pictures of one prompt into `output`, or NAME-1.png and so on."""
    # What can be wrong without the model is found before the seconds that loading takes.
    check_prompt(prompt)
    check_count(references, "the prompt")
    seed = secrets.randbelow(2**32) if settings.seed is None else settings.seed
    wishes = _wishes(Job(0, prompt, tuple(references), seed), output, settings)
    _check(wishes, settings)
    opened = {path: open_picture(path) for path in references}
    _draw(wishes, settings, load_pipeline(settings.source), opened)


def draw_file(
    prompts: Path, references: Sequence[Path], folder: Path, settings: Settings, is_edit: bool
) -> None:
    """Draw the pictures of a file of prompts that the folder does not hold yet.

    Lines without pictures of their own take `references`; an edit needs some. Raises InputError where the folder
    holds a picture of the same name that was asked for otherwise: it would be lost, or taken for what it is not.
    """
    if folder.suffix.lower() == ".png":
        raise InputError(f"{folder}: with --prompts the output is a folder")
    check_count(references, "the prompt")
    wishes: list[Wish] = []
    for place, job in enumerate(read_jobs(prompts)):
        if not job.images:
            job = dataclasses.replace(job, images=tuple(references))
        where = f"{prompts}, line {job.line}: "
        if is_edit and not job.images:
            raise InputError(f'{where}there is no picture to change: name it in "image", or give one with -i')
        if job.seed is None and settings.seed is not None:
            job = dataclasses.replace(job, seed=settings.seed + place * settings.n)
        wishes += _wishes(job, folder / job.out, settings, where)
    _check(wishes, settings)
    model = resolve_model(settings.source.model)[0]
    finished = {wish.path: record for wish in wishes if (record := _record_of(wish, settings, model))}
    if finished:
        print(f"{len(finished)} of {len(wishes)} pictures are in {folder} already")
    waiting = [wish for wish in wishes if wish.path not in finished]
    if not waiting:
        return
    pipe = load_pipeline(settings.source)
    weights = weights_hash(pipe.model)
    for path, record in finished.items():
        if record.get("weights") != weights:
            raise InputError(f"{path} was drawn by {model!r} with other weights; choose another folder")
    _draw(waiting, settings, pipe, {})


def draw_again(picture: Path, output: Path, source: Source | None) -> None:
    """Draw a picture once more from the record in it, by the model that drew it; None: a shipped one."""
    repeat = read_repeat(picture)
    (path,) = output_paths(output, 1)
    if path.exists() and path.samefile(picture):
        raise InputError(f"{path}: is the picture to repeat; choose another -o")
    check_writable(path)
    if source is None:
        if repeat.model not in SHIPPED:
            raise InputError(f"{picture}: was drawn by {repeat.model!r}; name its checkpoint with --model")
        source = Source(repeat.model)
    repeat.check_name(resolve_model(source.model)[0])
    pipe = load_pipeline(source, repeat.dtype)
    repeat.check_model(pipe)
    arguments = repeat.arguments()
    for note in repeat.differences(pipe, __version__):
        print(f"deepgen: {picture}: {note}; values may differ by 1", file=sys.stderr)
    result = pipe(**arguments)
    _save(result.images[0], path, result.metadata[0], repeat.references)


def _wishes(job: Job, path: Path, settings: Settings, where: str = "") -> list[Wish]:
    """The pictures that a prompt asks for."""
    width, height = job.size or ((None, None) if settings.size is None else parse_size(settings.size))
    return [
        Wish(name, job.prompt, job.images, width, height, None if job.seed is None else job.seed + i, where)
        for i, name in enumerate(output_paths(path, settings.n))
    ]


def _check(wishes: Sequence[Wish], settings: Settings) -> None:
    """Raise for what would fail later, or would lose a picture."""
    for wish in wishes:
        if wish.width is not None and wish.height is not None:
            check_size(wish.width, wish.height)
    if settings.keep_size and not any(wish.references for wish in wishes):
        raise InputError("--keep-size keeps the size of a picture that is edited, and there is none")
    path, times = Counter(wish.path for wish in wishes).most_common(1)[0]
    if times > 1:
        raise InputError(f'{path} is asked for {times} times; give each line its own "out"')
    for path in {wish.path.parent: wish.path for wish in wishes}.values():
        check_writable(path)


def _record_of(wish: Wish, settings: Settings, model: str) -> dict[str, Any] | None:
    """The record of the picture where it is there; InputError where another stands in its place."""
    if not wish.path.exists():
        return None
    asked = {
        **{"prompt": wish.prompt, "references": [str(path) for path in wish.references], "model": model},
        **{"seed": wish.seed, "width": wish.width, "height": wish.height, "resize": settings.resize},
        **{"num_inference_steps": settings.steps, "guidance_scale": settings.cfg},
        **{"negative_prompt": settings.negative, "keep_size": settings.keep_size and bool(wish.references)},
    }
    record = read_metadata(wish.path)
    for name, value in asked.items():
        if value is not None and record.get(name) not in (value, None):
            raise InputError(
                f"{wish.where}{wish.path} is there with another {name} ({record[name]!r}, not {value!r}); "
                "choose another folder or remove it"
            )
    if [picture_hash(open_picture(path)) for path in wish.references] != record.get("reference_sha256"):
        raise InputError(
            f"{wish.where}{wish.path} is there, drawn from pictures that have changed since; choose another folder or "
            "remove it"
        )
    return record


def _draw(
    wishes: Sequence[Wish],
    settings: Settings,
    pipe: "DeepGenPipeline",
    opened: dict[Path, Image.Image],
) -> None:
    """Draw and save, `settings.batch_size` pictures at a time; `opened` holds references that were read already."""
    starts = range(0, len(wishes), settings.batch_size)
    # Of several batches one bar tells the time that is left, instead of one each. It leaves what goes to a file alone.
    several, console = len(starts) > 1, Console(stderr=True)
    shown = several and console.is_terminal
    if several:
        pipe.set_progress_bar_config(disable=True)
    with Progress(
        console=console, redirect_stdout=sys.stdout.isatty(), transient=True, disable=not shown
    ) as bar:
        for start in bar.track(starts, description="drawing"):
            part = wishes[start : start + settings.batch_size]
            try:
                _draw_together(part, settings, pipe, opened)
            except InputError as error:
                raise InputError(f"{part[0].where}{error}") from None


def _draw_together(
    wishes: Sequence[Wish],
    settings: Settings,
    pipe: "DeepGenPipeline",
    opened: dict[Path, Image.Image],
) -> None:
    """Draw pictures in one call and save them."""
    paths = {path for wish in wishes for path in wish.references}
    found = {path: opened.get(path) or open_picture(path) for path in paths}
    images = [[found[path] for path in wish.references] for wish in wishes]
    result = pipe(
        [wish.prompt for wish in wishes],
        image=images,
        negative_prompt=settings.negative,
        width=[wish.width for wish in wishes],
        height=[wish.height for wish in wishes],
        num_inference_steps=settings.steps,
        guidance_scale=settings.cfg,
        seed=[secrets.randbelow(2**32) if wish.seed is None else wish.seed for wish in wishes],
        resize=settings.resize,
        keep_size=settings.keep_size and any(images),
    )
    for wish, drawn, record in zip(wishes, result.images, result.metadata, strict=True):
        _save(drawn, wish.path, record, [str(path) for path in wish.references])


def _save(picture: Image.Image, path: Path, record: dict[str, Any], references: Sequence[str]) -> None:
    save_png(picture, path, record | {"references": list(references)})
    print(f"{path}  {picture.width}x{picture.height}  seed {record['seed']}")


def output_paths(output: Path, n: int) -> list[Path]:
    """out.png for one picture, out-1.png, out-2.png, ... for more."""
    try:
        is_folder = output.is_dir()
    except OSError as error:  # such as a name that is too long
        raise InputError(f"{output}: {error.strerror}") from None
    if is_folder:
        raise InputError(f"{output}: is a folder; name a file in it")
    if output.suffix.lower() != ".png":
        raise InputError(f"{output}: pictures are written as PNG; name it {output.with_suffix('.png')}")
    if n == 1:
        return [output]
    return [output.with_name(f"{output.stem}-{i}{output.suffix}") for i in range(1, n + 1)]
