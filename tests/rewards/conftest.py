"""The judge's server of the benchmarks' tests, and kit.py."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def load(path: Path) -> ModuleType:
    """A module of the tests, which are no package."""
    name = f"deepgen_tests_{path.parent.name}_{path.stem}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


JUDGE_SERVER = Path(__file__).parents[1] / "evaluation" / "judge_server.py"


@pytest.fixture
def judge_server() -> Iterator[Any]:
    """A JudgeServer; see tests/evaluation/judge_server.py."""
    server = load(JUDGE_SERVER).JudgeServer()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def replies() -> ModuleType:
    """The module of the server: replies.Status, replies.Half, ..."""
    return load(JUDGE_SERVER)


@pytest.fixture(scope="session")
def kit() -> ModuleType:
    """kit.py."""
    return load(Path(__file__).with_name("kit.py"))
