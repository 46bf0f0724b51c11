"""Shows the progress of long operations."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def to_stderr(text: str) -> None:
    """Write text to standard error at once."""
    print(text, end="", file=sys.stderr, flush=True)


show: Callable[[str], None] = to_stderr
"""The function that writes text. The tests replace it, because pytest captures standard error."""


@contextlib.contextmanager
def step(text: str) -> Iterator[None]:
    """Show a line about the operation inside the ``with``, and its time if it takes more than 5 seconds."""
    began = time.monotonic()
    end = "failed"
    show(f"{text} ... ")
    try:
        yield
        seconds = time.monotonic() - began
        end = f"{seconds:.0f} s" if seconds > 5 else "done"
    finally:
        show(f"{end}\n")
