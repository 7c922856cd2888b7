"""The benchmarks there are: every module of `benchmarks/` that says so."""

import importlib
import math
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType

from deepgen.errors import DataError, InputError
from deepgen.evaluation import benchmarks
from deepgen.evaluation.benchmark import Benchmark, Check
from deepgen.evaluation.samples import golden_files


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

    A file that no benchmark recomputes, or that cannot be read as one knows it, is an infinite difference: none is
    passed over. Raises DataError where no folder has such a file or is a benchmark's.
    """
    verifiers, checks, known = _verifiers(), [], False
    for path in (folder, *sorted(folder.glob("*/"))):
        name = path.resolve().name
        verifier = verifiers.get(_nearest(name, verifiers))
        files = golden_files(path)
        known = known or bool(files) or verifier is not None
        if files:
            checks += [(name, check) for check in _verify_sample(path, files, verifier)]
    if not known:
        raise DataError(f"{folder}: holds no sample of a benchmark; known are {', '.join(sorted(verifiers))}")
    return checks


def _nearest(name: str, known: Iterable[str]) -> str:
    """The benchmark whose sample a folder is: it may be called "wise" or, for a part of it, "wise_verified"."""
    return max((one for one in known if name.startswith(one)), key=len, default="")


def _verify_sample(
    folder: Path, files: Sequence[Path], verifier: Callable[[Path], list[Check]] | None
) -> Iterator[Check]:
    if verifier is None:
        yield Check(f"{files[0].name}: its folder is named after no benchmark", None, None, math.inf)
        return
    checks: list[Check] = []
    try:
        checks = verifier(folder)
    except (DataError, LookupError, TypeError, ValueError, AttributeError) as error:
        yield Check(f"not laid out as known: {type(error).__name__}: {error}", None, None, math.inf)
    else:
        for path in files:
            if not any(done.name.startswith((path.name, path.stem)) for done in checks):
                yield Check(f"{path.name}: nothing recomputes a file of this name", None, None, math.inf)
    yield from checks


def _verifiers() -> dict[str, Callable[[Path], list[Check]]]:
    return {
        getattr(module, "SAMPLE_FOLDER", module.__name__.rpartition(".")[2]): module.verify_sample
        for module in modules()
        if hasattr(module, "verify_sample")
    }
