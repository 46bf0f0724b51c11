"""Terminal output: text that cannot control the terminal, and progress bars."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.progress import Progress


def console(*, stderr: bool = False) -> Console:
    """Return a rich console that does not highlight numbers and names.

    With the variable NO_COLOR, it writes no escape codes at all, as if the output were not a terminal.
    """
    return Console(stderr=stderr, highlight=False, force_terminal=False if os.environ.get("NO_COLOR") else None)


def printable(text: str, *, lines: bool = False) -> str:
    """Escape the characters that can control a terminal.

    Output can contain text from registries, engines and credential helpers. That text can contain escape sequences,
    characters that change the writing direction, and surrogates, which cannot be encoded.

    Args:
        text: text to print
        lines: whether to keep line breaks
    """
    return "".join(
        character if character.isprintable() or (lines and character == "\n") else ascii(character)[1:-1]
        for character in text
    )


class Bars:
    """Progress bars on standard error. If standard error is not a terminal, no bars are shown.

    While the bars are shown, print other text only inside `hidden`.
    """

    def __init__(self) -> None:
        errors = console(stderr=True)
        self._progress = _progress(errors) if errors.is_terminal else None

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Show the bars inside this context."""
        with self._progress or contextlib.nullcontext():
            yield

    @contextlib.contextmanager
    def hidden(self) -> Iterator[None]:
        """Hide the bars inside this context, to print something else."""
        if self._progress is None:
            yield
            return
        self._progress.stop()
        try:
            yield
        finally:
            self._progress.start()

    @contextlib.contextmanager
    def meter(self, title: str, total: int | None) -> Iterator[Callable[[int], object]]:
        """Show one bar inside this context: an `images.layers.Meter`.

        It gives a function to call with the size of each piece, in bytes.

        Args:
            title: name of the content that is read
            total: size of the content in bytes; `None` if it is not known
        """
        progress = self._progress
        if progress is None:
            yield lambda _length: None
            return
        task = progress.add_task(printable(title), total=total)
        try:
            yield lambda length: progress.advance(task, length)
        finally:
            progress.remove_task(task)


def _progress(errors: Console) -> Progress:
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, console=errors, transient=True)
