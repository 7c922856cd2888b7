"""`deepgen demo`: three pictures and an edit of the first, each timed. Behind `make demo`."""

import time
from pathlib import Path
from typing import Annotated

import typer

from deepgen.cli.generate import describe, load_pipeline

PROMPTS = (
    "a red apple to the left of a banana",
    "three yellow ducks on a blue background",
    "a penguin on a green background",
)
INSTRUCTION = "replace the apple with a pear"
SEED = 7


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the pictures.")] = Path(
        "outputs/demo"
    ),
    model: Annotated[str, typer.Option(help="nano, or a checkpoint folder.")] = "nano",
) -> None:
    """Draw 1.png, 2.png, 3.png, and edit.png from 1.png."""
    from deepgen.pipeline.output import save_png

    started = time.perf_counter()
    pipe = load_pipeline(model)
    pipe.set_progress_bar_config(disable=True)
    print(f"{model} loaded in {time.perf_counter() - started:.1f} s")
    output.mkdir(parents=True, exist_ok=True)
    jobs = [(f"{i}.png", prompt, None) for i, prompt in enumerate(PROMPTS, start=1)]
    for name, prompt, source in [*jobs, ("edit.png", INSTRUCTION, output / "1.png")]:
        started = time.perf_counter()
        result = pipe(prompt, image=source, seed=SEED)
        save_png(result.images[0], output / name, result.metadata[0])
        print(f"{output / name}  {describe(time.perf_counter() - started, result.metadata[0])}")
