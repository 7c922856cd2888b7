"""The steps of a run as the commands take them: each reads files, adds files, and can be repeated."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deepgen import __version__
from deepgen.errors import DataError, InputError
from deepgen.evaluation import registry
from deepgen.evaluation.benchmark import Benchmark, Item
from deepgen.evaluation.data import Prepared, Selection, Shard, prepare, select
from deepgen.evaluation.files import write_json
from deepgen.evaluation.judging import Run
from deepgen.evaluation.runner import (
    Draw,
    Progress,
    generate,
    import_pictures,
    jobs_of,
    read_run,
    start_run,
)
from deepgen.evaluation.sources import read_json

SCOPE_FILE = "scope.json"
DEFAULT_DATA = Path("outputs") / "bench-data"


@dataclass(frozen=True)
class Plan:
    """What to run of which benchmark. samples: pictures of each item, None for the official number."""

    benchmark: Benchmark
    data: Path = DEFAULT_DATA
    selection: Selection = field(default_factory=Selection)
    samples: int | None = None
    allow_partial: bool = False

    def prepared(self) -> Prepared:
        """The checked data."""
        return prepare(self.benchmark, self.data, self.allow_partial)


def begin(plan: Plan, prepared: Prepared, folder: Path, settings: dict[str, Any]) -> Run:
    """Make or take up the run's folder, and add the chosen items to its scope.

    settings: how the pictures come to be; a folder holds pictures of one manner only. A second call with more items
    extends the run. Raises InputError where the folder holds another run.
    """
    items = select(plan.benchmark, prepared.items, plan.selection)
    skipped = settings.get("untrained", ())
    items = [item for item in items if item.group not in skipped]
    samples = plan.samples or plan.benchmark.samples
    told = {"benchmark": plan.benchmark.name, "deepgen": __version__, "samples": samples}
    start_run(folder, told | {"data_sha256": prepared.hashes} | settings)
    path = folder / SCOPE_FILE
    before = read_json(path)["items"] if path.is_file() else []
    scope = dict.fromkeys([*before, *(item.id for item in items)])
    write_json(path, {"data": str(plan.data.absolute()), "items": list(scope)})
    return Run(plan.benchmark, items, samples, folder, prepared.warnings)


def check_sources(run: Run) -> None:
    """Raises InputError, before anything is drawn, where a picture to edit is missing."""
    for item in run.items:
        for path in item.sources:
            if not path.is_file():
                raise InputError(f"{path}: missing; {run.benchmark.source_hint}")


def draw_pictures(
    run: Run, draw: Draw, base_seed: int, shard: Shard, batch_size: int, progress: Progress
) -> None:
    """The shard's part of the run's pictures that are not there yet."""
    check_sources(run)
    jobs = jobs_of(run.benchmark, run.items, run.samples, base_seed)
    generate(shard.of(jobs), draw, run.folder, batch_size, progress)


def take_pictures(run: Run, root: Path) -> tuple[int, int]:
    """Pictures made elsewhere, in the official layout; returns (there now, wanted). Raises InputError for none."""
    there, wanted = import_pictures(run.benchmark, run.items, run.samples, root, run.folder)
    if not there:
        example = run.benchmark.official_path(run.items[0], 0) if run.items else ""
        raise InputError(f"{root}: none of the {wanted} pictures is there, such as {example}")
    return there, wanted


def reopen(
    folder: Path,
    data: Path | None = None,
    selection: Selection | None = None,
    benchmark: Benchmark | None = None,
) -> Run:
    """A run's folder as an earlier step left it, or a selection of it.

    data: where the benchmark's data is now, if it moved. Raises DataError where the folder is no run's or the data
    is not what the pictures were made for.
    """
    settings = read_run(folder)
    scope = read_json(folder / SCOPE_FILE)
    benchmark = benchmark or registry.find(settings["benchmark"])
    prepared = prepare(benchmark, data or Path(scope["data"]), allow_partial=True)
    if prepared.hashes != settings["data_sha256"]:
        raise DataError(f"{data or scope['data']}: not the data that the pictures of {folder} were made for")
    wanted = set(scope["items"])
    items: Sequence[Item] = [item for item in prepared.items if item.id in wanted]
    if selection is not None:
        items = select(benchmark, items, selection)
    return Run(benchmark, items, settings["samples"], folder, prepared.warnings)
