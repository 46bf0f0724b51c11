"""Finds out whether the thread that waits for a build was cancelled."""

from __future__ import annotations

import contextlib
import sys


def raise_if_cancelled() -> None:
    """Raise the cancellation of the task that waits for this thread, if anyio started the thread.

    A cancel scope such as ``anyio.fail_after``, or the ``timeout_seconds`` of an async flow, cannot interrupt a thread
    that ``anyio.to_thread.run_sync`` has started. The thread must ask, as anyio's documentation of worker threads says.
    In any other thread nothing happens.

    Raises:
        asyncio.CancelledError: the task was cancelled (with trio: ``trio.Cancelled``)
    """
    # Prefect loads this module. Where it is not loaded, anyio has not started this thread.
    if from_thread := sys.modules.get("anyio.from_thread"):
        with contextlib.suppress(RuntimeError):  # this thread is not anyio's
            from_thread.check_cancelled()
