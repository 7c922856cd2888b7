"""What the tests of benchmarks share: a judge's server, and a benchmark run from data to numbers."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def load(name: str) -> ModuleType:
    """A module beside this file: tests are no package."""
    known = f"deepgen_tests_{name}"
    if known not in sys.modules:
        spec = importlib.util.spec_from_file_location(known, Path(__file__).with_name(f"{name}.py"))
        assert spec is not None and spec.loader is not None
        sys.modules[known] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[known])
    return sys.modules[known]


@pytest.fixture
def judge_server() -> Iterator[Any]:
    """A JudgeServer (see judge_server.py); its kinds of replies are attributes of the fixture `replies`."""
    server = load("judge_server").JudgeServer()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def replies() -> ModuleType:
    """judge_server.py: replies.Status, replies.Half, ..."""
    return load("judge_server")


@pytest.fixture(scope="session")
def harness() -> ModuleType:
    """harness.py: harness.run_benchmark(...), harness.client(server.url, profile), harness.paint(path, text)."""
    return load("harness")


@pytest.fixture(scope="session")
def toy() -> ModuleType:
    """toy.py: toy.Toy, toy.write_data(root)."""
    return load("toy")
