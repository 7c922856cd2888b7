"""`deepgen bench`: the quality of a model, measured."""

from pathlib import Path
from typing import Annotated, Any

import typer

from deepgen.errors import InputError

BENCHMARKS = {"world": "world-test-v1: objects, counts, colours, places, edits, words in the picture world"}


def list_benchmarks() -> None:
    """Name the benchmarks."""
    for name, text in BENCHMARKS.items():
        print(f"{name:8} {text}")


def run(
    benchmark: Annotated[str, typer.Argument(help="A benchmark's name; see `deepgen bench list`.")],
    model: Annotated[str, typer.Option(help="nano, or a checkpoint folder.")] = "nano",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Prompts of each category; all if not given.")
    ] = None,
    categories: Annotated[str | None, typer.Option(help="Only these, separated by commas.")] = None,
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="Pictures of each prompt.")] = 4,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder of the run; resumed.")] = None,
    steps: Annotated[
        int | None, typer.Option(help="Sampling steps; the checkpoint's own if not given.")
    ] = None,
    cfg: Annotated[float | None, typer.Option("--cfg", help="Guidance scale.")] = None,
    batch: Annotated[int, typer.Option(min=1, max=256, help="Pictures drawn at once.")] = 8,
    sprites: Annotated[Path | None, typer.Option(help="File of `deepgen world fetch`, for edits.")] = None,
    detector: Annotated[
        Path | None, typer.Option(help="Detector's folder; the shipped one by default.")
    ] = None,
    ceiling: Annotated[
        bool, typer.Option("--ceiling", help="Judge drawings and their reconstructions instead of the model.")
    ] = False,
) -> None:
    """Generate, judge and score a benchmark; what the output folder holds already is not drawn again."""
    if benchmark not in BENCHMARKS:
        raise InputError(f"unknown benchmark {benchmark!r}; choose from {', '.join(BENCHMARKS)}")

    from deepgen.cli.generate import load_pipeline
    from deepgen.evaluation.benchmarks.world import WorldRun
    from deepgen.evaluation.benchmarks.world import run as run_world
    from deepgen.evaluation.report import table
    from deepgen.world.testset import TEST_CATEGORIES

    draw_settings: dict[str, Any] = {"num_inference_steps": steps, "guidance_scale": cfg}
    pipe = load_pipeline(model)
    pipe.set_progress_bar_config(disable=True)
    settings = WorldRun(
        output=output
        or Path("outputs") / "bench" / f"{benchmark}-{pipe.name}{'-ceiling' if ceiling else ''}",
        categories=tuple(categories.split(",")) if categories else TEST_CATEGORIES,
        limit=limit,
        takes=seeds,
        batch_size=batch,
        sprites=sprites,
        detector=detector,
        ceiling=ceiling,
        draw_settings={name: value for name, value in draw_settings.items() if value is not None},
    )
    for outcome in run_world(settings, pipe, _progress_line()):
        header = outcome.header
        digest = header["test_file_sha256"][:16]
        print(f"\n{header['test_file']} (sha256 {digest}…), {header['pictures']} pictures")
        print(f"model {header['model']} ({header['weights']}), {header['seeds']} seeds\n")
        print(table(outcome.results))
        print(_describe(header["detector"]))
        print(f"written to {outcome.folder}: results.json, results.md, sheets, pictures")


def detector(
    folder: Annotated[
        Path | None, typer.Argument(help="Detector's folder; the shipped one by default.")
    ] = None,
    model: Annotated[
        str, typer.Option(help="Whose VAE reconstructs: nano, or a checkpoint folder.")
    ] = "nano",
    n: Annotated[int, typer.Option("--n", min=1, help="How many held-out scenes.")] = 600,
    sprites: Annotated[Path | None, typer.Option(help="File of `deepgen world fetch`.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="metrics.json to write.")] = None,
) -> None:
    """Precision and recall on held-out scenes, as drawn and through the VAE: the ceiling of the scores."""
    import json

    from deepgen.cli.generate import load_pipeline
    from deepgen.evaluation.detector import load_detector, measure
    from deepgen.world.sprites import Sprites, default_path

    network, _ = load_detector(folder)
    art = Sprites.load(sprites or default_path())
    pipe = load_pipeline(model)
    metrics = measure(network.to(pipe.model.device), pipe, art, n, _progress_line())
    print(_describe(metrics))
    if output is not None:
        output.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
        print(f"written to {output}")


def _describe(metrics: dict[str, Any] | None) -> str:
    """What bounds the scores: the detector on pictures whose content is known."""
    if metrics is None:
        return "detector: no metrics.json beside its weights, its own errors are unknown"
    lines = []
    for kind, values in metrics.items():
        shares = ", ".join(f"{k} {100 * v:.1f}%" for k, v in values.items() if k != "pictures")
        lines.append(f"detector on {values['pictures']} {kind} scenes: {shares}")
    return "\n".join(lines)


def _progress_line() -> Any:
    """A progress callback that keeps one line of the terminal up to date."""

    def show(step: str, done: int, total: int) -> None:
        typer.echo(f"\r{step} {done}/{total} ", err=True, nl=done == total)

    return show
