"""The judge's server of the benchmarks' tests."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def load() -> ModuleType:
    name = "deepgen_tests_judge_server"
    if name not in sys.modules:
        path = Path(__file__).parents[1] / "evaluation" / "judge_server.py"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture
def judge_server() -> Iterator[Any]:
    """A JudgeServer; see tests/evaluation/judge_server.py."""
    server = load().JudgeServer()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def replies() -> ModuleType:
    """The module of the server: replies.Status, replies.Half, ..."""
    return load()
