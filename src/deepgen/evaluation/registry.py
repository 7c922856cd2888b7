"""The benchmarks there are: every module of `benchmarks/` that says so."""

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType

from deepgen.errors import DataError, InputError
from deepgen.evaluation import benchmarks
from deepgen.evaluation.benchmark import Benchmark, Check


def modules() -> Iterator[ModuleType]:
    """The modules of `benchmarks/` that have BENCHMARKS, in the order of their names."""
    for found in sorted(pkgutil.iter_modules(benchmarks.__path__), key=lambda info: info.name):
        module = importlib.import_module(f"{benchmarks.__name__}.{found.name}")
        if hasattr(module, "BENCHMARKS"):
            yield module


def all_benchmarks() -> dict[str, Benchmark]:
    """Name → benchmark."""
    found: list[Benchmark] = [benchmark for module in modules() for benchmark in module.BENCHMARKS]
    return {benchmark.name: benchmark for benchmark in found}


def find(name: str) -> Benchmark:
    """The benchmark of that name. Raises InputError that names the nearest ones."""
    known = all_benchmarks()
    if name in known:
        return known[name]
    near = get_close_matches(name, known, n=3, cutoff=0.4) or [n for n in known if n.startswith(name[:3])]
    hint = f"did you mean {', '.join(near)}? " if near else ""
    raise InputError(f"unknown benchmark {name!r}; {hint}see `deepgen bench list`")


def verify(folder: Path) -> list[tuple[str, Check]]:
    """(folder of the sample, comparison) for every `golden_*` file in `folder` or in the folders right below it.

    Raises DataError where no folder is a benchmark's.
    """
    checks = []
    verifiers = _verifiers()
    known = [path for path in (folder, *sorted(folder.glob("*/"))) if path.resolve().name in verifiers]
    for path in known:
        name = path.resolve().name
        checks += [(name, check) for check in verifiers[name](path)]
    if not known:
        raise DataError(f"{folder}: holds no sample of a benchmark; known are {', '.join(sorted(verifiers))}")
    return checks


def _verifiers() -> dict[str, Callable[[Path], list[Check]]]:
    return {
        getattr(module, "SAMPLE_FOLDER", module.__name__.rpartition(".")[2]): module.verify_sample
        for module in modules()
        if hasattr(module, "verify_sample")
    }
