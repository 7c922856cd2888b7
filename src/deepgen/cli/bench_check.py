"""`deepgen bench verify, contamination, detector`: whether the measuring itself is right."""

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer

from deepgen.cli.bench_options import Data, names, show_progress
from deepgen.errors import DataError

TOLERANCE = 1e-9


def verify(
    folder: Annotated[Path, typer.Argument(help="Samples of official scorers, a folder for each benchmark.")],
) -> None:
    """Recompute every golden_* file from the inputs beside it, by official scoring; fails above 1e-9."""
    from deepgen.evaluation import registry

    worst = 0.0
    checks = registry.verify(folder)
    if not checks:
        print(f"{folder}: no golden_* file, nothing to recompute")
    for name, check in checks:
        if math.isnan(check.diff):
            print(f"not checked  {name}/{check.name}")
            continue
        worst = max(worst, check.diff)
        mark = "ok" if check.diff <= TOLERANCE else "DIFFERS"
        print(f"{mark:<12} {name}/{check.name}  difference {check.diff:.3g}")
        if check.diff > TOLERANCE:
            print(
                f"             expected {_short(check.expected)}\n             got      {_short(check.got)}"
            )
    if worst > TOLERANCE:
        raise typer.Exit(1)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:300]}…"


def contamination(
    file: Annotated[Path, typer.Argument(help="Training prompts: a line each, or .json, .jsonl.")],
    benchmarks: Annotated[str | None, typer.Option(help="Only these, separated by commas.")] = None,
    data: Data = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="JSON file for the items found.")
    ] = None,
) -> None:
    """Find benchmark prompts in a file of training prompts, exactly or nearly; fails if there are any."""
    from dataclasses import asdict

    from deepgen.evaluation import registry
    from deepgen.evaluation.contamination import overlap, read_prompts
    from deepgen.evaluation.data import prepare
    from deepgen.evaluation.stages import DEFAULT_DATA

    known = read_prompts(file)
    chosen = [registry.find(name) for name in names(benchmarks) or registry.all_benchmarks()]
    found = []
    for benchmark in chosen:
        try:
            prepared = prepare(benchmark, data or DEFAULT_DATA, allow_partial=True)
        except DataError as error:
            if benchmarks is not None:
                raise
            print(f"{benchmark.name}: not checked: {error}")
            continue
        result = overlap(benchmark.name, {item.id: item.prompt for item in prepared.items}, known)
        found.append(result)
        print(
            f"{result.benchmark}: {len(result.exact)} exact and {len(result.near)} near of {result.items} prompts"
        )
    if output is not None:
        output.write_text(json.dumps([asdict(one) for one in found], indent=1) + "\n", encoding="utf-8")
    if not all(one.clean for one in found):
        raise typer.Exit(1)


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
    from deepgen.cli.generate import load_pipeline
    from deepgen.evaluation.detector import load_detector, measure
    from deepgen.world.sprites import Sprites, default_path

    network, _ = load_detector(folder)
    art = Sprites.load(sprites or default_path())
    pipe = load_pipeline(model)
    metrics = measure(network.to(pipe.model.device), pipe, art, n, show_progress)
    for kind, values in metrics.items():
        shares = ", ".join(f"{k} {100 * v:.1f}%" for k, v in values.items() if k != "pictures")
        print(f"detector on {values['pictures']} {kind} scenes: {shares}")
    if output is not None:
        output.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
        print(f"written to {output}")
