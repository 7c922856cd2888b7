"""The cache of raw replies: each is on disk before anything is made of it, and is never asked for again."""

import hashlib
import json
import sqlite3
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from deepgen.errors import DataError
from deepgen.scorers.calls import JudgeCall, JudgeImage, JudgeProfile

KEY_VERSION = 1


@dataclass(frozen=True)
class Reply:
    """What a judge sent back. status "refused": by the model or a content filter; both are kept like answers.
    "failed": no answer after all retries; never kept. usage: the server's counts of tokens; seconds: of the call;
    truncated: whether it ended at the limit of tokens."""

    status: Literal["ok", "refused", "failed"]
    text: str
    model: str = ""
    usage: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    truncated: bool = False


def call_key(call: JudgeCall, profile: JudgeProfile, attempt: int) -> str:
    """A hash of all that can change the reply: words, pictures by content, the judge and its manner, the attempt.

    Not of the item's name, the address of the server, or how replies are parsed. The judge's name counts beside its
    model: servers call different weights alike. Raises DataError where a picture cannot be read.
    """
    manner = asdict(profile)
    for name in ("thinking", "max_tokens"):
        del manner[name]
    content = {
        "version": KEY_VERSION,
        "judge": manner | {"max_tokens": token_limit(profile, attempt), "attempt": attempt},
        "system": call.system,
        "text": call.text,
        "data": dict(call.data),
        "images": [_image_key(image) for image in call.images],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def token_limit(profile: JudgeProfile, attempt: int) -> int | None:
    """The request's max_tokens at the given attempt, counted from 0."""
    limits = profile.max_tokens
    return limits[min(attempt, len(limits) - 1)] if limits else None


def _image_key(image: JudgeImage) -> list[Any]:
    like = None if image.like is None else _file_hash(image.like)
    return [_file_hash(image.path), like, image.crop]


def _file_hash(path: Path) -> str:
    try:
        stat = path.stat()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    return _hash_of(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=65536)
def _hash_of(path: Path, changed: int, size: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class ReplyCache:
    """Replies in one SQLite file, which several threads and processes may use at once."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._lock = threading.Lock()
        self._base = sqlite3.connect(path, timeout=60, check_same_thread=False, isolation_level=None)
        try:
            self._base.execute("PRAGMA journal_mode=WAL")
            self._base.execute(
                "CREATE TABLE IF NOT EXISTS replies "
                "(key TEXT PRIMARY KEY, judge TEXT, call TEXT, reply TEXT, received REAL)"
            )
            self._base.execute("CREATE TABLE IF NOT EXISTS failures (key TEXT PRIMARY KEY, reason TEXT)")
        except sqlite3.DatabaseError as error:
            raise DataError(f"{path}: not a cache of replies ({error}); move it away") from error

    def get(self, key: str) -> Reply | None:
        """The reply of a call that was answered before."""
        with self._lock:
            row = self._base.execute("SELECT reply FROM replies WHERE key = ?", (key,)).fetchone()
        return None if row is None else Reply(**json.loads(row[0]))

    def put(self, key: str, reply: Reply, profile: JudgeProfile, call: JudgeCall) -> None:
        """Keep a reply; it is on disk when this returns. The first one for a key stays."""
        kept = replace(reply, usage=dict(reply.usage))
        row = (key, profile.name, call.id, json.dumps(asdict(kept), ensure_ascii=False), time.time())
        with self._lock:
            self._base.execute("INSERT OR IGNORE INTO replies VALUES (?, ?, ?, ?, ?)", row)

    def put_failure(self, key: str, reason: str) -> None:
        """Note why a call has no answer; it is asked again all the same."""
        with self._lock:
            self._base.execute("INSERT OR REPLACE INTO failures VALUES (?, ?)", (key, reason))

    def failure(self, key: str) -> str | None:
        """Why a call had no answer when it was last tried."""
        with self._lock:
            row = self._base.execute("SELECT reason FROM failures WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def models(self, judge: str) -> list[str]:
        """The models that a judge's replies name, sorted."""
        query = "SELECT DISTINCT json_extract(reply, '$.model') FROM replies WHERE judge = ?"
        with self._lock:
            rows = self._base.execute(query, (judge,)).fetchall()
        return sorted(row[0] for row in rows if row[0])

    def __len__(self) -> int:
        with self._lock:
            return int(self._base.execute("SELECT COUNT(*) FROM replies").fetchone()[0])

    def close(self) -> None:
        """Let go of the file."""
        self._base.close()
