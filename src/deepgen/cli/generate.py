"""`deepgen generate` and `deepgen edit`: pictures from the command line."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deepgen.errors import InputError

if TYPE_CHECKING:
    from deepgen.pipeline.pipeline import DeepGenPipeline

Output = Annotated[Path, typer.Option("-o", "--output", help="PNG to write; several become NAME-1.png, ...")]
Count = Annotated[int, typer.Option("--n", min=1, help="How many pictures.")]
Seed = Annotated[int | None, typer.Option(help="Picture i is drawn with SEED + i; random if not given.")]
Size = Annotated[str | None, typer.Option(help="WIDTHxHEIGHT or one side, multiples of 32.")]
Steps = Annotated[int | None, typer.Option(help="Sampling steps; the checkpoint's own if not given.")]
Cfg = Annotated[float | None, typer.Option("--cfg", help="Guidance scale; 1 turns guidance off.")]
Model = Annotated[str, typer.Option(help="nano, or a checkpoint folder.")]
Negative = Annotated[str | None, typer.Option(help="What the picture should not be.")]


@dataclass(frozen=True)
class Settings:
    """The options that both commands share."""

    output: Path
    n: int
    seed: int | None
    size: str | None
    steps: int | None
    cfg: float | None
    model: str
    negative: str | None


def generate(
    prompt: Annotated[str, typer.Argument(help="What to draw.")],
    output: Output = Path("out.png"),
    n: Count = 1,
    seed: Seed = None,
    size: Size = None,
    steps: Steps = None,
    cfg: Cfg = None,
    model: Model = "nano",
    negative: Negative = None,
) -> None:
    """Draw pictures from a prompt."""
    run(prompt, [], Settings(output, n, seed, size, steps, cfg, model, negative))


def edit(
    picture: Annotated[Path, typer.Argument(help="The picture to change.")],
    instruction: Annotated[str, typer.Argument(help="What to change.")],
    image: Annotated[list[Path] | None, typer.Option("-i", "--image", help="A further reference.")] = None,
    output: Output = Path("out.png"),
    n: Count = 1,
    seed: Seed = None,
    size: Size = None,
    steps: Steps = None,
    cfg: Cfg = None,
    model: Model = "nano",
    negative: Negative = None,
) -> None:
    """Change a picture as an instruction says."""
    settings = Settings(output, n, seed, size, steps, cfg, model, negative)
    run(instruction, [picture, *(image or [])], settings)


def run(prompt: str, pictures: list[Path], settings: Settings) -> None:
    """Draw, save with metadata, and say where the files went."""
    # What can be wrong without the model is found before the seconds that loading takes.
    paths = output_paths(settings.output, settings.n)
    width, height = parse_size(settings.size)

    from deepgen.pipeline.inputs import check_prompt
    from deepgen.pipeline.intake import open_picture
    from deepgen.pipeline.sizes import check_size

    check_prompt(prompt)
    if width is not None and height is not None:
        check_size(width, height)
    references = [open_picture(path) for path in pictures]

    from deepgen.pipeline.output import save_png

    pipe = load_pipeline(settings.model)
    result = pipe(
        prompt,
        image=references or None,
        negative_prompt=settings.negative,
        width=width,
        height=height,
        num_inference_steps=settings.steps,
        guidance_scale=settings.cfg,
        num_images_per_prompt=settings.n,
        seed=settings.seed,
    )
    settings.output.parent.mkdir(parents=True, exist_ok=True)
    for path, drawn, metadata in zip(paths, result.images, result.metadata, strict=True):
        save_png(drawn, path, metadata | {"references": [str(p) for p in pictures]})
        print(f"{path}  {drawn.width}x{drawn.height}  seed {metadata['seed']}")


def load_pipeline(model: str) -> "DeepGenPipeline":
    """The pipeline of a model on the best device there is; slow imports come after the name is checked."""
    from deepgen.pipeline.shipped import resolve_model

    resolve_model(model)

    from deepgen.pipeline.pipeline import DeepGenPipeline

    return DeepGenPipeline.from_pretrained(model)


def parse_size(text: str | None) -> tuple[int | None, int | None]:
    """(width, height) of `320x192` or `256`; (None, None) leaves it to the checkpoint or the picture."""
    if text is None:
        return None, None
    match = re.fullmatch(r"(\d+)(?:[xX×](\d+))?", text.strip())
    if match is None:
        raise InputError(f"size {text!r} must be WIDTHxHEIGHT or one number, such as 320x192 or 256")
    return int(match[1]), int(match[2] or match[1])


def output_paths(output: Path, n: int) -> list[Path]:
    """out.png for one picture, out-1.png, out-2.png, ... for more."""
    if output.suffix.lower() != ".png":
        raise InputError(f"{output}: pictures are written as PNG; name it {output.with_suffix('.png')}")
    if output.is_dir():
        raise InputError(f"{output}: is a folder; name a file in it")
    if n == 1:
        return [output]
    return [output.with_name(f"{output.stem}-{i}{output.suffix}") for i in range(1, n + 1)]


def describe(seconds: float, metadata: dict[str, Any]) -> str:
    """One line for a timed picture."""
    return f"{seconds:.1f} s  {metadata['width']}x{metadata['height']}  {metadata['prompt']!r}"
