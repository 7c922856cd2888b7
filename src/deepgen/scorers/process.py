"""A scorer that is a program of its own, with an environment of its own: JSON lines in, JSON lines out.

The program gets a line {"id": 7, "text": "...", "images": ["/path/a.png"], "data": {...}} for each call on its
standard input, and writes a line {"id": 7, "reply": "..."} for each on its standard output, in any order; or
{"id": 7, "error": "..."} where it has none. It ends when its input does. Its standard error is shown when it fails.
"""

import contextlib
import json
import shlex
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deepgen.errors import DataError, InputError, JudgeError
from deepgen.scorers.calls import ImageEncoding, JudgeCall, JudgeImage, JudgeProfile
from deepgen.scorers.encode import encode
from deepgen.scorers.judge import Keep
from deepgen.scorers.replies import Reply


class ProcessScorer:
    """command: as typed in a shell, but run without one."""

    def __init__(self, profile: JudgeProfile, command: str) -> None:
        self._profile = profile
        self._command = shlex.split(command)
        if not self._command:
            raise InputError("the scorer's command is empty")

    @property
    def profile(self) -> JudgeProfile:
        return self._profile

    def answer(self, calls: Sequence[JudgeCall], attempt: int, keep: Keep) -> None:
        """See Scorer. Raises JudgeError where the program cannot be run, fails, or breaks the contract."""
        with (
            tempfile.TemporaryDirectory(prefix="deepgen-scorer-") as name,
            tempfile.TemporaryFile() as errors,
        ):
            try:
                program = subprocess.Popen(
                    self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
                )
            except OSError as error:
                raise JudgeError(f"scorer {self._command[0]!r} cannot be run ({error.strerror})") from error
            unreadable: list[DataError] = []
            arguments = (program, calls, Path(name), unreadable)
            writer = threading.Thread(target=self._write, args=arguments, daemon=True)
            writer.start()
            try:
                answered = self._read(program, len(calls), keep)
                program.wait()
            finally:
                program.kill()
                program.wait()
                writer.join()
            if unreadable:
                raise unreadable[0]
            if program.returncode != 0 or answered < len(calls):
                errors.seek(0)
                said = errors.read().decode("utf-8", "replace").strip().splitlines()[-1:]
                raise JudgeError(
                    f"scorer {self._command[0]!r} ended with {program.returncode} after {answered} of {len(calls)}"
                    f" answers, which are kept{': ' + said[0] if said else ''}"
                )

    def _write(
        self,
        program: subprocess.Popen[bytes],
        calls: Sequence[JudgeCall],
        folder: Path,
        unreadable: list[DataError],
    ) -> None:
        """Runs beside the reader: a program that answers as it reads would otherwise block on a full pipe."""
        assert program.stdin is not None
        # A closed pipe means that the program has ended; the reader says so.
        with contextlib.suppress(OSError), program.stdin as pipe:
            for number, call in enumerate(calls):
                try:
                    files = [
                        self._file(one, folder / f"{number}-{n}.png") for n, one in enumerate(call.images)
                    ]
                except DataError as error:
                    unreadable.append(error)
                    return
                images = [str(file) for file in files]
                line = {"id": number, "text": call.text, "images": images, "data": dict(call.data)}
                pipe.write(json.dumps(line).encode() + b"\n")
                pipe.flush()

    def _file(self, image: JudgeImage, spare: Path) -> Path:
        """The picture's own file, or `spare` where it must be cut or resized first."""
        if image.crop is None and image.like is None:
            return image.path.absolute()
        spare.write_bytes(encode(image, ImageEncoding("png"))[0])
        return spare

    def _read(self, program: subprocess.Popen[bytes], count: int, keep: Keep) -> int:
        assert program.stdout is not None
        seen: set[int] = set()
        for line in program.stdout:
            if not line.strip():
                continue
            row = self._parse(line, count)
            if row["id"] in seen:
                raise JudgeError(f"scorer {self._command[0]!r} answered call {row['id']} twice")
            seen.add(row["id"])
            failed = "error" in row
            keep(row["id"], Reply("failed" if failed else "ok", str(row["error" if failed else "reply"])))
        return len(seen)

    def _parse(self, line: bytes, count: int) -> dict[str, Any]:
        try:
            row = json.loads(line)
            if not 0 <= row["id"] < count or not isinstance(row.get("error", row.get("reply")), str):
                raise ValueError("unknown id, or no reply")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise JudgeError(f"scorer {self._command[0]!r} wrote {line[:80]!r}: {error}") from error
        return dict(row)
