"""`deepgen generate` and `deepgen edit`: pictures from the command line."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deepgen.pipeline.sizes import Resize

if TYPE_CHECKING:
    import torch

    from deepgen.cli.drawing import Settings
    from deepgen.pipeline.pipeline import DeepGenPipeline

Output = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--output",
        help="PNG to write; several become NAME-1.png, ... With --prompts: folder for the pictures.",
        show_default="out.png, or out/",
    ),
]
Count = Annotated[int, typer.Option("--n", min=1, help="How many pictures of each prompt.")]
Seed = Annotated[int | None, typer.Option(help="Picture i is drawn with SEED + i; random if not given.")]
Size = Annotated[str | None, typer.Option(help="WIDTHxHEIGHT or one side, multiples of 32.")]
Steps = Annotated[int | None, typer.Option(help="Sampling steps; the checkpoint's own if not given.")]
Cfg = Annotated[float | None, typer.Option("--cfg", help="Guidance scale; 1 turns guidance off.")]
Model = Annotated[
    str | None, typer.Option(help="nano, a checkpoint, or org/name[@revision].", show_default="nano")
]
BaseVlm = Annotated[str | None, typer.Option(help="Qwen2.5-VL, for a checkpoint without a VLM.")]
BaseDit = Annotated[str | None, typer.Option(help="UniPic2, for a checkpoint without VAE and schedule.")]
Lora = Annotated[str | None, typer.Option(help="Adapters to merge into the model.")]
Negative = Annotated[str | None, typer.Option(help="What the picture should not be.")]
Prompts = Annotated[
    Path | None,
    typer.Option(
        help="Draw a file of prompts: .txt with one a line, or .jsonl with prompt, image, seed, size, out. "
        "Pictures that are there already are not drawn again."
    ),
]
FromImage = Annotated[Path | None, typer.Option(help="Draw this picture again, from the record in it.")]
Reading = Annotated[
    Resize,
    typer.Option(
        help="How pictures are read: in their own shape (aspect), or as published (square, area, none)."
    ),
]
KeepSize = Annotated[
    bool, typer.Option("--keep-size", help="Bring an edit back to its picture's exact size.")
]
Batch = Annotated[
    int,
    typer.Option(
        "--batch-size",
        min=1,
        max=256,
        help="Pictures drawn at a time; more are faster on an accelerator, but repeat only to a rounding.",
    ),
]
Images = Annotated[list[Path] | None, typer.Option("-i", "--image", help="A picture; up to 8.")]


@dataclass(frozen=True)
class Source:
    """Where a model's weights are, as `DeepGenPipeline.from_pretrained` takes them."""

    model: str = "nano"
    base_vlm: str | None = None
    base_dit: str | None = None
    lora: str | None = None


def generate(
    prompt: Annotated[str | None, typer.Argument(help="What to draw.")] = None,
    output: Output = None,
    n: Count = 1,
    seed: Seed = None,
    size: Size = None,
    steps: Steps = None,
    cfg: Cfg = None,
    model: Model = None,
    base_vlm: BaseVlm = None,
    base_dit: BaseDit = None,
    lora: Lora = None,
    negative: Negative = None,
    prompts: Prompts = None,
    from_image: FromImage = None,
    resize: Reading = "aspect",
    keep_size: KeepSize = False,
    batch_size: Batch = 1,
) -> None:
    """Draw pictures from a prompt, from a file of prompts, or a picture again."""
    if sum(x is not None for x in (prompt, prompts, from_image)) != 1:
        raise typer.BadParameter("give one of PROMPT, --prompts FILE and --from-image PNG")

    from deepgen.cli.drawing import Settings, draw_again

    source = Source(model or "nano", base_vlm, base_dit, lora)
    settings = Settings(source, n, seed, size, steps, cfg, negative, resize, keep_size, batch_size)
    if from_image is None:
        _run(prompt, prompts, [], output, settings, is_edit=False)
        return
    if settings != Settings(source):
        raise typer.BadParameter(
            "--from-image repeats a picture as it was; only -o and the options that name its model go with it"
        )
    draw_again(from_image, output or Path("out.png"), None if model is None else source)


def edit(
    first: Annotated[
        str | None, typer.Argument(metavar="PICTURE", help="The picture to change; or give it with -i.")
    ] = None,
    second: Annotated[str | None, typer.Argument(metavar="INSTRUCTION", help="What to change.")] = None,
    image: Images = None,
    output: Output = None,
    n: Count = 1,
    seed: Seed = None,
    size: Size = None,
    steps: Steps = None,
    cfg: Cfg = None,
    model: Model = None,
    base_vlm: BaseVlm = None,
    base_dit: BaseDit = None,
    lora: Lora = None,
    negative: Negative = None,
    prompts: Prompts = None,
    resize: Reading = "aspect",
    keep_size: KeepSize = False,
    batch_size: Batch = 1,
) -> None:
    """Change a picture, or several together, as an instruction says."""
    pictures = list(image or [])
    words = [word for word in (first, second) if word is not None]
    # The instruction stands last, except where a file holds the instructions.
    instruction = words.pop() if words and prompts is None else None
    if len(words) > 1 or (instruction is None and prompts is None):
        raise typer.BadParameter("give PICTURE INSTRUCTION, INSTRUCTION -i PICTURE ..., or --prompts FILE")
    pictures = [*map(Path, words), *pictures]
    if not pictures and prompts is None:
        raise typer.BadParameter("there is no picture to change: give it before the instruction, or with -i")

    from deepgen.cli.drawing import Settings

    source = Source(model or "nano", base_vlm, base_dit, lora)
    settings = Settings(source, n, seed, size, steps, cfg, negative, resize, keep_size, batch_size)
    _run(instruction, prompts, pictures, output, settings, is_edit=True)


def _run(
    prompt: str | None,
    prompts: Path | None,
    pictures: list[Path],
    output: Path | None,
    settings: "Settings",
    is_edit: bool,
) -> None:
    from deepgen.cli.drawing import draw_file, draw_prompt

    if prompts is not None:
        draw_file(prompts, pictures, output or Path("out"), settings, is_edit)
    elif prompt is not None:
        draw_prompt(prompt, pictures, output or Path("out.png"), settings)


def load_pipeline(source: "Source | str", torch_dtype: "torch.dtype | None" = None) -> "DeepGenPipeline":
    """The pipeline of a model on the best device there is; slow imports come after the name is checked."""
    from deepgen.pipeline.shipped import resolve_model

    wanted = Source(source) if isinstance(source, str) else source
    resolve_model(wanted.model)

    from deepgen.pipeline.pipeline import DeepGenPipeline

    return DeepGenPipeline.from_pretrained(**vars(wanted), torch_dtype=torch_dtype)


def describe(seconds: float, metadata: dict[str, Any]) -> str:
    """One line for a timed picture."""
    return f"{seconds:.1f} s  {metadata['width']}x{metadata['height']}  {metadata['prompt']!r}"
