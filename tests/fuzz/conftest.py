"""What every search shares: a witness of all that is written, started or connected to, and broken copies of files.

The short profile runs with every test run; the long one is `pytest tests/fuzz --hypothesis-profile full`.
"""

import os
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import strategies as st

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {
    "os.mkdir",
    "os.remove",
    "os.rmdir",
    "os.rename",
    "os.link",
    "os.symlink",
    "os.truncate",
    "os.chmod",
}
STARTS = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.connect"}


class Witness:
    """Sees every path that Python code opens for writing or changes, and every process and connection."""

    def __init__(self):
        self.paths, self.starts, self.watching = [], [], False
        sys.addaudithook(self._hook)  # for good: Python has no way to remove one

    def _hook(self, event, arguments):
        if not self.watching:
            return
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, str | bytes | os.PathLike) and flags & WRITING:
                self.paths.append(os.fsdecode(path))
        elif event in CHANGES:
            self.paths += [os.fsdecode(x) for x in arguments if isinstance(x, str | bytes | os.PathLike)]
        elif event in STARTS:
            self.starts.append((event, arguments))

    @contextmanager
    def only_within(self, folder: Path | None):
        """Fail where anything outside the folder is written, or a program or connection is started."""
        self.paths, self.starts, self.watching = [], [], True
        try:
            yield
        finally:
            self.watching = False
        outside = [
            p for p in self.paths if folder is None or not Path(os.path.abspath(p)).is_relative_to(folder)
        ]
        assert outside == [] and self.starts == []


@pytest.fixture(scope="session")
def witness():
    return Witness()


@pytest.fixture(autouse=True)
def _no_bytecode(monkeypatch):
    """Imports in the middle of an example would write it."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)


@st.composite
def _broken(draw, contents):
    content = bytearray(draw(contents))
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, max(len(content) - 1, 0)))
        length = draw(st.integers(1, 16))
        change = draw(st.sampled_from(["set", "insert", "remove", "cut", "double"]))
        if change == "set":
            content[place : place + length] = draw(st.binary(min_size=length, max_size=length))
        elif change == "insert":
            content[place:place] = draw(st.binary(min_size=length, max_size=length))
        elif change == "remove":
            del content[place : place + length]
        elif change == "cut":
            del content[place:]
        else:
            content[place:place] = content[place : place + 20 * length]
    return bytes(content)


@pytest.fixture(scope="session")
def broken():
    """A strategy: bytes of `contents` with up to four places changed, cut, removed or doubled."""
    return _broken
