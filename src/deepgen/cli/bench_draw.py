"""How `deepgen bench` comes to its pictures: by a model, by other hands, or, for a ceiling, by the world itself."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepgen.cli.bench_options import show_progress
from deepgen.errors import InputError
from deepgen.evaluation import stages
from deepgen.evaluation.data import Prepared, Shard
from deepgen.evaluation.judging import Run
from deepgen.evaluation.stages import Plan

if TYPE_CHECKING:
    from deepgen.evaluation.runner import Draw
    from deepgen.pipeline.pipeline import DeepGenPipeline


@dataclass(frozen=True)
class Drawing:
    """How the pictures of a run come to be. call: further arguments of the pipeline's call."""

    output: Path | None
    model: str = "nano"
    images: Path | None = None
    seed: int = 0
    batch: int = 8
    shard: str | None = None
    size: str | None = None
    squash: int | None = None
    call: dict[str, Any] = field(default_factory=dict)


def draw_settings(steps: int | None, cfg: float | None) -> dict[str, Any]:
    """The arguments of the pipeline's call that were given."""
    given = {"num_inference_steps": steps, "guidance_scale": cfg}
    return {name: value for name, value in given.items() if value is not None}


def make_pictures(plan: Plan, drawing: Drawing) -> Run:
    """Fill the run's folder; under torchrun every process draws its part and waits for the others."""
    prepared = plan.prepared()
    for warning in prepared.warnings:
        print(f"warning: {warning}")
    if drawing.images is not None:
        return _take(plan, prepared, drawing)
    from deepgen.evaluation import drawing as hand

    torchrun = hand.torchrun_shard()
    if torchrun is not None:
        hand.use_own_device()
    pipe = _load(drawing.model)
    run = _begin(plan, prepared, drawing, pipe, {})
    shard = torchrun or (Shard.parse(drawing.shard) if drawing.shard else Shard())
    draw = hand.Generated(pipe, hand.DrawSettings(_size(drawing.size), drawing.squash, drawing.call))
    stages.draw_pictures(run, draw, drawing.seed, shard, drawing.batch, show_progress)
    if torchrun is not None:
        hand.wait_for_all()
    return run


def _take(plan: Plan, prepared: Prepared, drawing: Drawing) -> Run:
    assert drawing.images is not None
    name = drawing.images.resolve().name
    folder = drawing.output or Path("outputs") / "bench" / f"{plan.benchmark.name}-{name}"
    run = stages.begin(plan, prepared, folder, {"model": name, "pictures": "made elsewhere"})
    there, wanted = stages.take_pictures(run, drawing.images)
    print(f"{there} of {wanted} pictures taken from {drawing.images}")
    return run


def _begin(
    plan: Plan, prepared: Prepared, drawing: Drawing, pipe: "DeepGenPipeline", more: dict[str, Any]
) -> Run:
    from deepgen.pipeline.records import weights_hash

    benchmark = plan.benchmark
    untrained = pipe.defaults.untrained_categories if benchmark.skips_untrained else ()
    defaults = {name: getattr(pipe.defaults, name) for name in ("num_inference_steps", "guidance_scale")}
    settings = {
        "model": pipe.name,
        "weights": weights_hash(pipe.model),
        "pictures": "generated",
        "seed": drawing.seed,
        "draw_settings": defaults | drawing.call,
        "resolution": _resolution(plan, drawing, pipe),
        "untrained": [group for group in benchmark.counts if group in untrained],
    }
    folder = drawing.output or Path("outputs") / "bench" / f"{benchmark.name}-{pipe.name}"
    return stages.begin(plan, prepared, folder, settings | more)


def _resolution(plan: Plan, drawing: Drawing, pipe: "DeepGenPipeline") -> int | str:
    """The side of square pictures; otherwise words."""
    from deepgen.evaluation.benchmarks.world import World

    if isinstance(plan.benchmark, World):
        return "each item's own"
    if plan.benchmark.task == "edit":
        return drawing.squash or f"the source's shape at {pipe.defaults.area} pixels"
    size = _size(drawing.size)
    if size is None:
        side = round(pipe.defaults.area**0.5)
        return side if side * side == pipe.defaults.area else f"{pipe.defaults.area} pixels"
    return size[0] if size[0] == size[1] else f"{size[0]}x{size[1]}"


def _size(text: str | None) -> tuple[int, int] | None:
    """(width, height) of --size."""
    if text is None:
        return None
    from deepgen.pipeline.sizes import check_size, parse_size

    width, height = parse_size(text)
    if width is None or height is None:
        return None
    check_size(width, height)
    return width, height


def _load(model: str) -> "DeepGenPipeline":
    from deepgen.cli.generate import load_pipeline

    pipe = load_pipeline(model)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def make_ceilings(plan: Plan, drawing: Drawing) -> list[Run]:
    """The world's own drawings of what is asked, and these through the model's VAE, as two runs: what the detector
    sees of pictures that are right. Raises InputError for another benchmark."""
    from deepgen.evaluation.benchmarks.world import World
    from deepgen.evaluation.world_scorer import Known
    from deepgen.world.sprites import Sprites, default_path

    world = plan.benchmark
    if not isinstance(world, World):
        raise InputError(f"--ceiling is for the benchmark world, not for {world.name}")
    sprites = Sprites.load(world.sprites or default_path())
    prepared, pipe = plan.prepared(), _load(drawing.model)
    folder = drawing.output or Path("outputs") / "bench" / f"{world.name}-{pipe.name}-ceiling"
    kinds: dict[str, Draw] = {
        "drawn": Known(world.tests, sprites),
        "reconstructed": Known(world.tests, sprites, pipe),
    }
    runs = []
    for kind, draw in kinds.items():
        own = dataclasses.replace(drawing, output=folder / kind)
        once = dataclasses.replace(plan, samples=1)
        run = _begin(once, prepared, own, pipe, {"pictures": kind, "untrained": []})
        stages.draw_pictures(run, draw, drawing.seed, Shard(), drawing.batch, show_progress)
        runs.append(run)
    return runs
