"""Runs functions in threads."""

from __future__ import annotations

import os
import queue
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def processors() -> int:
    """Return the number of processors that this process can use; at least 2, because threads also wait for I/O."""
    if hasattr(os, "sched_getaffinity"):
        return max(2, len(os.sched_getaffinity(0)))
    return max(2, os.cpu_count() or 1)


class Workers:
    """Runs functions in daemon threads.

    An executor of the standard library is not used: Python waits for its threads at exit, even after Ctrl-C.

    Args:
        number: maximum number of threads
    """

    def __init__(self, number: int) -> None:
        self._number = number  # of threads that can still be started
        self._lock = threading.Lock()
        self._tasks: queue.SimpleQueue[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]] = queue.SimpleQueue()

    def submit(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """Call a function in one of the threads.

        The function must not wait for another task of the same workers, unless there are threads for all tasks.
        """
        future: Future[T] = Future()
        self._tasks.put((future, function, arguments))
        with self._lock:
            if self._number:
                self._number -= 1
                threading.Thread(target=self._work, daemon=True).start()
        return future

    def _work(self) -> None:
        while task := self._next():
            future, function, arguments = task
            try:
                future.set_result(function(*arguments))
            except BaseException as error:
                future.set_exception(error)

    def _next(self) -> tuple[Future[Any], Callable[..., Any], tuple[Any, ...]] | None:
        """Return the next task; `None` if there is none, and the thread must end."""
        with self._lock:  # otherwise a task could be added now for which no thread is started
            try:
                return self._tasks.get_nowait()
            except queue.Empty:
                self._number += 1
                return None
