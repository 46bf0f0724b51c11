"""Waits for conditions, and finds out whether a process has ended."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable


def allowed(seconds: float) -> float:
    """Return how long something may take that takes this number of seconds if no other program is running."""
    runnable = int(Path("/proc/loadavg").read_text().split()[3].partition("/")[0]) if sys.platform == "linux" else 1
    # The average over a minute does not know yet what started just now.
    return seconds * max(1.0, max(os.getloadavg()[0], runnable) / (os.cpu_count() or 1))


def wait_until(condition: Callable[[], object], seconds: float = 90) -> None:
    """Wait, and fail after this number of seconds. It is larger if other programs keep the processors busy."""
    start = time.monotonic()
    while not condition():
        waited = time.monotonic() - start
        assert waited < allowed(seconds), f"the condition was not met within {waited:.1f} seconds"
        time.sleep(0.05)


def is_gone(pid: int) -> bool:
    # A process whose parent has died is a zombie until the machine's first process reaps it.
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
