"""Calls in threads that nobody waits for when the process ends."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


def in_thread(work: Callable[..., T], *arguments: Any) -> Future[T]:
    """Begin a call in a thread of its own; its result, or what it raised, is in the Future.

    Python waits for the threads of a ThreadPoolExecutor when a process ends, for minutes where a server hangs; not for
    these.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work(*arguments))
        except BaseException as error:  # noqa: BLE001 - handed to whoever asks for the result
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future
