"""`deepgen speed`: measured speed and memory."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from deepgen.errors import InputError


def training(
    stage: Annotated[
        list[str] | None,
        typer.Option("--stage", help="align, sft_lora, sft; may be repeated; all if not given."),
    ] = None,
    task: Annotated[list[str] | None, typer.Option("--task", help="t2i, edit; both if not given.")] = None,
    batch: Annotated[list[int] | None, typer.Option("--batch", help="4 and 16 if not given.")] = None,
    side: Annotated[int, typer.Option(help="Side of the pictures in pixels.")] = 512,
    sizes: Annotated[str, typer.Option(help="published-sizes or tiny.")] = "published-sizes",
    device: Annotated[str, typer.Option(help="cuda or cpu.")] = "cuda",
    recompute: Annotated[
        list[float] | None,
        typer.Option(
            help="Share of the blocks computed again; several: the first that fits. 0, 0.25 … 1 if not given."
        ),
    ] = None,
    compiled: Annotated[bool, typer.Option("--compile/--no-compile", help="Compile each block.")] = True,
    repeats: Annotated[int, typer.Option(min=1, help="Timed updates; the median counts.")] = 5,
    profile: Annotated[bool, typer.Option(help="Tell where the time of one more update goes.")] = False,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="JSON to write.")] = None,
) -> None:
    """Measure training updates on random weights."""
    _use_expandable_segments()
    from deepgen.config import load_config
    from deepgen.speed.training import STAGES, Setting, Work, measure_training, measured_rate
    from deepgen.train.parallel import ParallelConfig, start_ranks, stop_ranks

    stages, tasks = stage or list(STAGES), task or ["t2i", "edit"]
    if unknown := [x for x in stages if x not in STAGES]:
        raise InputError(f"unknown stage {unknown[0]!r}; known: {', '.join(STAGES)}")
    if unknown := [x for x in tasks if x not in ("t2i", "edit")]:
        raise InputError(f"unknown task {unknown[0]!r}; known: t2i, edit")
    works = [Work(s, t, b, side) for s in stages for t in tasks for b in batch or [4, 16]]
    values: dict[str, Any] = {"compile": compiled, **_compute(device)}
    setting = Setting(
        load_config(ParallelConfig, values),
        tuple(recompute) if recompute else Setting.shares,
        repeats=repeats,
        profile=profile,
    )
    ranks, found = start_ranks(device), []
    try:
        peak = measured_rate(setting.parallel, ranks)
        print(f"matrix product: {peak / 1e12:.1f} TFLOP/s")
        header = (
            f"{'stage':10}{'task':6}{'batch':>6}{'s/update':>10}{'images/s':>10}{'MFU':>7}{'peak GiB':>10}"
        )
        print(header + f"{'recomputed':>12}{'first s':>9}", flush=True)
        for x in measure_training(sizes, works, setting, ranks, peak):
            numbers = f"{x.seconds:10.3f}{x.images_per_second:10.2f}{x.mfu:7.1%}{x.peak_gib:10.1f}"
            numbers += f"{x.recomputed:12.0%}{x.first_seconds:9.1f}"
            print(f"{x.stage:10}{x.task:6}{x.batch_size:6}" + (f"  {x.failure}" if x.failure else numbers))
            print(x.profile, end="\n" if x.profile else "", flush=True)
            found.append(x.as_dict())
            _write(output, {"sizes": sizes, "matmul_tflops": peak / 1e12, **values, "results": found})
    finally:
        stop_ranks()


def rollout(
    recipe: Annotated[
        list[str] | None,
        typer.Option(
            "--recipe", help="rl/mr_grpo, rl/mr_grpo_fast or a file; may be repeated; both if not given."
        ),
    ] = None,
    groups: Annotated[int, typer.Option(min=1, help="Prompts of a rollout.")] = 8,
    pictures: Annotated[int, typer.Option(min=2, help="Pictures of each prompt.")] = 4,
    batch: Annotated[int, typer.Option(min=1, help="Pictures at once.")] = 16,
    sizes: Annotated[str, typer.Option(help="published-sizes, nano or tiny.")] = "published-sizes",
    device: Annotated[str, typer.Option(help="cuda or cpu.")] = "cuda",
    recompute: Annotated[float, typer.Option(min=0, max=1, help="Share of the blocks computed again.")] = 1.0,
    compiled: Annotated[bool, typer.Option("--compile/--no-compile", help="Compile each block.")] = True,
    repeats: Annotated[int, typer.Option(min=1, help="Timed rollouts; medians count.")] = 1,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="JSON to write.")] = None,
) -> None:
    """Measure rollouts of reinforcement and their updates on random weights."""
    _use_expandable_segments()
    from deepgen.config import load_config
    from deepgen.speed.rollout import PHASES, RolloutWork, measure_rollouts
    from deepgen.speed.training import release
    from deepgen.train.parallel import ParallelConfig, start_ranks, stop_ranks

    values: dict[str, Any] = {"checkpoint_activations": recompute, "compile": compiled, **_compute(device)}
    parallel = load_config(ParallelConfig, values)
    ranks, found = start_ranks(device), []
    print(f"{'recipe':18}{'pictures':>9}{'seconds':>9}", *(f"{name:>12}" for name in PHASES), end="")
    print(f"{'passes':>8}{'images/s':>10}{'MFU':>7}{'peak GiB':>10}{'first s':>9}")
    try:
        for name in recipe or ["rl/mr_grpo_fast", "rl/mr_grpo"]:
            work = RolloutWork(name, sizes, groups, pictures, batch)
            with TemporaryDirectory() as folder:
                x = measure_rollouts(work, Path(folder), parallel, ranks, repeats)
            release(ranks)
            found.append(x.as_dict())
            print(
                f"{x.recipe:18}{x.pictures:9}{x.seconds:9.2f}",
                *(f"{x.phases[p]:12.2f}" for p in PHASES),
                end="",
            )
            print(
                f"{x.passes:8.0f}{x.images_per_second:10.3f}{x.mfu:7.1%}{x.peak_gib:10.1f}{x.first_seconds:9.1f}",
                flush=True,
            )
            _write(output, {"sizes": sizes, **values, "results": found})
    finally:
        stop_ranks()


def _write(output: Path | None, report: dict[str, Any]) -> None:
    """After each measurement, so that what was measured outlives a run that is cut short."""
    from deepgen.evaluation.files import write_json

    if output is not None:
        write_json(output, report)


def scaling(
    output: Annotated[Path, typer.Option("-o", "--output", help="JSON; written after every part.")] = Path(
        "scaling.json"
    ),
    processes: Annotated[
        list[int] | None,
        typer.Option("--processes", help="Of a part; 1, 2, 4 … up to the GPUs if not given."),
    ] = None,
    part: Annotated[
        list[str] | None,
        typer.Option("--part", help="noise, sft, rl, resume, draw, hsdp, nano; all if not given."),
    ] = None,
    sizes: Annotated[
        str, typer.Option(help="Of the large model: published-sizes or tiny.")
    ] = "published-sizes",
    device: Annotated[str, typer.Option(help="cuda or cpu.")] = "cuda",
    minutes: Annotated[
        float, typer.Option(min=0.1, help="Parts that would end later are not started.")
    ] = 8.5,
    part_seconds: Annotated[float, typer.Option(min=1, help="Time limit of a part.")] = 150,
    folder: Annotated[
        Path | None, typer.Option(help="For checkpoints; a temporary folder if not given.")
    ] = None,
) -> None:
    """Measure one host's GPUs together: training, reinforcement, drawing, checkpoints, at each number of GPUs."""
    from deepgen.speed.scaling import ScalingPlan, run_scaling

    plan = ScalingPlan(
        output, sizes, device, tuple(processes or ()), tuple(part or ()), minutes * 60, part_seconds
    )
    with TemporaryDirectory(dir=folder) as place:
        table, failures = run_scaling(plan, Path(place), print)
    print(table)
    print(f"written to {output}")
    if failures:
        raise typer.Exit(1)


def _use_expandable_segments() -> None:
    """Before torch's allocator starts: sequences of many sizes fragment fixed segments."""
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")


def _compute(device: str) -> dict[str, str]:
    return {"compute_dtype": "bfloat16" if device == "cuda" else "float32"}
