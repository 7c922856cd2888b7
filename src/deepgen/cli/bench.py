"""`deepgen bench`: list, prepare, generate, run. The quality of a model, measured."""

from pathlib import Path
from typing import Annotated

import typer

from deepgen.cli.bench_options import (
    BaseSeed,
    Batch,
    Cfg,
    Clip,
    Concurrency,
    Data,
    Detector,
    Folder,
    Groups,
    Images,
    Items,
    Judge,
    JudgeModel,
    KeyEnv,
    Limit,
    Model,
    Name,
    Output,
    Partial,
    Patience,
    Price,
    Program,
    ScoringOption,
    Seeds,
    ShardText,
    Size,
    Sprites,
    Squash,
    Steps,
    Url,
    find_benchmark,
    is_first_process,
    prices_of,
    selection_of,
)

Target = Annotated[Path, typer.Argument(help="Folder to write to.")]
Ceiling = Annotated[
    bool, typer.Option("--ceiling", help="World only: judge drawings and their reconstructions instead.")
]


def list_benchmarks() -> None:
    """Name the benchmarks, with their size, judges and licences."""
    from deepgen.evaluation import registry
    from deepgen.evaluation.report import Rows, plain_table

    rows: Rows = [("name", "items", "pictures", "judge", "data licence", "what")]
    for benchmark in registry.all_benchmarks().values():
        items = sum(benchmark.counts.values())
        licences = ", ".join(dict.fromkeys(file.licence for file in benchmark.files)) or "packaged"
        judge = benchmark.judges[0].name
        rows.append(
            (benchmark.name, str(items), str(items * benchmark.samples), judge, licences, benchmark.title)
        )
    print(plain_table(rows))


def prepare(name: Name, data: Data = None, allow_partial: Partial = False, sprites: Sprites = None) -> None:
    """Check a benchmark's data, or say where to get it."""
    from deepgen.evaluation.data import prepare as check
    from deepgen.evaluation.stages import DEFAULT_DATA

    benchmark = find_benchmark(name, sprites)
    prepared = check(benchmark, data or DEFAULT_DATA, allow_partial)
    for path, digest in prepared.hashes.items():
        print(f"{path}  sha256 {digest}")
    for warning in prepared.warnings:
        print(f"warning: {warning}")
    print(
        f"{benchmark.name}: {len(prepared.items)} items, {'complete' if prepared.complete else 'not complete'}"
    )


def generate(
    name: Name,
    output: Output = None,
    model: Model = "nano",
    images: Images = None,
    data: Data = None,
    limit: Limit = None,
    items: Items = None,
    groups: Groups = None,
    seeds: Seeds = None,
    seed: BaseSeed = 0,
    steps: Steps = None,
    cfg: Cfg = None,
    size: Size = None,
    squash: Squash = None,
    batch: Batch = 8,
    shard: ShardText = None,
    allow_partial: Partial = False,
    sprites: Sprites = None,
) -> None:
    """Draw a benchmark's pictures, or take ones made elsewhere; what the folder holds is not drawn again."""
    from deepgen.cli.bench_draw import Drawing, draw_settings, make_pictures
    from deepgen.evaluation.stages import DEFAULT_DATA, Plan

    chosen = selection_of(limit, items, groups)
    plan = Plan(find_benchmark(name, sprites), data or DEFAULT_DATA, chosen, seeds, allow_partial)
    drawing = Drawing(output, model, images, seed, batch, shard, size, squash, draw_settings(steps, cfg))
    made = make_pictures(plan, drawing)
    if is_first_process():
        print(f"pictures in {made.folder}; next: deepgen bench judge {made.folder}")


def export(folder: Folder, target: Target, data: Data = None) -> None:
    """Write a run's pictures in the official layout of its benchmark."""
    from deepgen.evaluation.runner import export_pictures
    from deepgen.evaluation.stages import reopen

    opened = reopen(folder, data)
    count = export_pictures(opened.benchmark, opened.items, opened.samples, folder, target)
    print(f"{count} pictures in {target}")


def run(
    name: Name,
    output: Output = None,
    model: Model = "nano",
    images: Images = None,
    data: Data = None,
    limit: Limit = None,
    items: Items = None,
    groups: Groups = None,
    seeds: Seeds = None,
    seed: BaseSeed = 0,
    steps: Steps = None,
    cfg: Cfg = None,
    size: Size = None,
    squash: Squash = None,
    batch: Batch = 8,
    allow_partial: Partial = False,
    judge: Judge = None,
    judge_model: JudgeModel = None,
    url: Url = None,
    key_env: KeyEnv = "OPENAI_API_KEY",
    concurrency: Concurrency = 8,
    patience: Patience = 900.0,
    command: Program = None,
    detector: Detector = None,
    clip: Clip = None,
    scoring: ScoringOption = "strict",
    price: Price = None,
    sprites: Sprites = None,
    ceiling: Ceiling = False,
) -> None:
    """All steps: generate, judge, score, report. What the folder holds already is not done again."""
    from deepgen.cli.bench_draw import Drawing, draw_settings, make_ceilings, make_pictures
    from deepgen.cli.bench_score import Judging, judge_and_score
    from deepgen.evaluation.stages import DEFAULT_DATA, Plan

    benchmark = find_benchmark(name, sprites)
    plan = Plan(benchmark, data or DEFAULT_DATA, selection_of(limit, items, groups), seeds, allow_partial)
    drawing = Drawing(output, model, images, seed, batch, None, size, squash, draw_settings(steps, cfg))
    where = {"url": url, "key_variable": key_env, "concurrency": concurrency, "patience_seconds": patience}
    judging = Judging(
        judge, judge_model, where | {"command": command, "detector": detector, "clip": clip}, scoring
    )
    # Whatever the judge lacks is found before the hours that drawing takes.
    scorer = judging.scorer(benchmark)
    made = make_ceilings(plan, drawing) if ceiling else [make_pictures(plan, drawing)]
    if is_first_process():
        for one in made:
            judge_and_score(one, scorer, judging, allow_partial, prices_of(price))
