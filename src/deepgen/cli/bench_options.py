"""Options that several commands of `deepgen bench` share, and what they mean together."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from deepgen.errors import InputError

if TYPE_CHECKING:
    from deepgen.evaluation.benchmark import Benchmark
    from deepgen.evaluation.data import Selection

Scoring = Literal["strict", "official"]

Name = Annotated[str, typer.Argument(help="A benchmark's name; see `deepgen bench list`.")]
Folder = Annotated[Path, typer.Argument(help="Folder of a run.")]
Data = Annotated[
    Path | None, typer.Option(help="Folder of the benchmarks' data; outputs/bench-data if not given.")
]
Limit = Annotated[int | None, typer.Option(min=1, help="First so many items of each group.")]
Items = Annotated[str | None, typer.Option(help="Only the items of these ids, separated by commas.")]
Groups = Annotated[
    str | None,
    typer.Option("--groups", "--categories", help="Only the items of these groups, separated by commas."),
]
Output = Annotated[Path | None, typer.Option("-o", "--output", help="Folder of the run; taken up again.")]
Seeds = Annotated[
    int | None,
    typer.Option(
        "--seeds", "--samples", min=1, max=1000, help="Pictures of each item; else the official number."
    ),
]
Partial = Annotated[
    bool,
    typer.Option("--allow-partial", help="Go on with part of the data; show an overall number all the same."),
]
Sprites = Annotated[Path | None, typer.Option(help="File of `deepgen world fetch`, for the benchmark world.")]
Model = Annotated[str, typer.Option(help="nano, or a checkpoint folder.")]
Steps = Annotated[int | None, typer.Option(help="Sampling steps; the checkpoint's own if not given.")]
Cfg = Annotated[float | None, typer.Option("--cfg", help="Guidance scale.")]
Size = Annotated[str | None, typer.Option(help="WIDTHxHEIGHT or one side, of pictures from text.")]
Squash = Annotated[
    int | None,
    typer.Option(min=32, help="Edit squares of this side, sources squashed; else in their own shape."),
]
BaseSeed = Annotated[int, typer.Option("--seed", min=0, help="Shifts every picture's seed.")]
Batch = Annotated[int, typer.Option(min=1, max=256, help="Pictures drawn at once.")]
Images = Annotated[
    Path | None, typer.Option(help="Pictures made elsewhere, in the official layout, instead of a model's.")
]
ShardText = Annotated[str | None, typer.Option("--shard", help="i/n: only the i-th of n parts.")]
Judge = Annotated[str | None, typer.Option(help="Who judges; the benchmark's first judge if not given.")]
JudgeModel = Annotated[
    str | None, typer.Option(help="What the endpoint calls the model, if not as the judge.")
]
Url = Annotated[
    str | None, typer.Option(help="Of an OpenAI-compatible endpoint, such as http://localhost:8000/v1.")
]
KeyEnv = Annotated[str, typer.Option(help="Environment variable that holds the endpoint's key.")]
Concurrency = Annotated[int, typer.Option(min=1, max=512, help="Calls on their way at once.")]
Patience = Annotated[float, typer.Option(min=0, help="Seconds after which a failing call is given up.")]
Program = Annotated[str | None, typer.Option("--command", help="Of a scorer that is a program of its own.")]
Detector = Annotated[Path | None, typer.Option(help="Folder of the detector of a local scorer.")]
Clip = Annotated[Path | None, typer.Option(help="Folder of a CLIP, for scorers that use one.")]
ScoringOption = Annotated[
    Scoring, typer.Option(help="official: the published scorer with its defects; strict: those mended.")
]
Price = Annotated[
    str | None, typer.Option(help="IN,OUT: prices of a million tokens, for the estimate of cost.")
]
Resamples = Annotated[int, typer.Option(min=10, help="Of the bootstrap.")]


def names(text: str | None) -> tuple[str, ...] | None:
    """The parts of a list separated by commas."""
    return None if text is None else tuple(part.strip() for part in text.split(",") if part.strip())


def selection_of(limit: int | None, items: str | None, groups: str | None) -> "Selection":
    """What --limit, --items and --groups choose."""
    from deepgen.evaluation.data import Selection

    return Selection(limit, names(items), names(groups))


def find_benchmark(name: str, sprites: Path | None = None) -> "Benchmark":
    """The benchmark, with other sprites where it has any. Raises InputError."""
    from deepgen.evaluation import registry
    from deepgen.evaluation.benchmarks.world import World

    benchmark = registry.find(name)
    if sprites is None:
        return benchmark
    if not isinstance(benchmark, World):
        raise InputError(f"--sprites is for the benchmark world, not for {name}")
    return benchmark.with_sprites(sprites)


def is_first_process() -> bool:
    """Whether this process, of those that torchrun started, is the one that judges and prints."""
    return os.environ.get("RANK", "0") == "0"


def prices_of(text: str | None) -> tuple[float, float] | None:
    """(input, output) of --price. Raises InputError."""
    if text is None:
        return None
    try:
        first, second = (float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--price {text!r} must be two numbers, such as 2,8") from None
    return first, second


def show_progress(step: str, done: int, total: int) -> None:
    """Keeps one line of the terminal up to date."""
    typer.echo(f"\r{step} {done}/{total} ", err=True, nl=done == total)
