"""Run one command: its output line by line as it comes, an end to it in every case, nothing left behind."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import threading
import time
from functools import partial
from typing import IO, TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType

    from typing_extensions import Self

LONGEST_PIECE = 64 * 1024
"""Characters after which a line without an end is handed on in pieces: memory stays bounded."""

_GRACE = 5.0  # seconds that an asked process gets to end; buildx needs about 0.1 to cancel its build


class Command:
    """A child process with its output, standard error included, as text lines. A context manager.

    The child leads a process group of its own: leaving the context ends the docker CLI together with the plugin that it
    started, and a Ctrl-C reaches the child by way of the caller alone.

    Args:
        argv: the program and its arguments
        environment: the whole environment of the child
        stdin: a file that is the child's standard input; none at all without it
        silence_limit: seconds without news, while a line is waited for, after which the child is stopped
        news: whether a line, or a piece of one, is news: a sign that the child gets on

    Attributes:
        silent: whether `silence_limit` was passed

    Raises:
        OSError: on entering, the program cannot be started
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        stdin: IO[bytes] | None = None,
        silence_limit: float | None = None,
        news: Callable[[str], bool] = lambda _line: True,
    ) -> None:
        self._argv = argv
        self._environment = environment
        self._stdin = stdin
        self._silence_limit = silence_limit
        self._news = news
        self._waiting_since: float | None = None
        self._over = threading.Event()
        self.silent = False

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._argv,
            env=self._environment,
            stdin=subprocess.DEVNULL if self._stdin is None else self._stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        # Line ends are left as they are: a carriage return is part of what a build prints.
        stdout = cast("IO[bytes]", self._process.stdout)
        self._output = io.TextIOWrapper(stdout, encoding="utf-8", errors="replace", newline="\n")
        try:
            if self._silence_limit is not None:
                threading.Thread(target=self._watch, args=(self._silence_limit,), daemon=True).start()
        except BaseException:
            self._end()
            raise
        return self

    def lines(self) -> Iterator[str]:
        """The output: each line with its end, or pieces of one beyond `LONGEST_PIECE`. Not UTF-8 is replaced."""
        if self._silence_limit is None:  # of a long output, most of the time would go into looking for news
            yield from iter(partial(self._output.readline, LONGEST_PIECE), "")
            return
        latest = time.monotonic()
        while True:
            self._waiting_since = latest
            piece = self._output.readline(LONGEST_PIECE)
            self._waiting_since = None
            if not piece:
                return
            came = time.monotonic()
            yield piece
            # The time that the caller took is none of the child's silence.
            latest = time.monotonic() if self._news(piece) else latest + (time.monotonic() - came)

    def wait(self) -> int:
        """The exit code, once the output has ended; negative for a signal."""
        self._waiting_since = time.monotonic()
        return self._process.wait()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        self._over.set()
        process = self._process
        try:
            if process.returncode is None:
                self._signal(signal.SIGTERM)
                # A child that is blocked in writing what nobody reads would not hear of its end.
                self._output.close()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_GRACE)
        finally:
            # Also when a second Ctrl-C cuts the time short that the child was given.
            self._output.close()
            if process.returncode != 0:
                # The plugin outlives a docker CLI that was killed. Its group's number is not given to another process
                # while a member is there; where none is, this finds nobody.
                self._signal(getattr(signal, "SIGKILL", signal.SIGTERM))
                process.wait()

    def _signal(self, number: signal.Signals) -> None:
        try:
            if os.name == "posix":
                os.killpg(self._process.pid, number)
            else:
                self._process.terminate()
        except (ProcessLookupError, PermissionError):
            pass

    def _watch(self, limit: float) -> None:
        while not self._over.wait(min(limit / 10, 0.5)):
            since = self._waiting_since
            if since is not None and time.monotonic() - since > limit:
                self.silent = True
                self._signal(signal.SIGTERM)
                if not self._over.wait(_GRACE):
                    self._signal(getattr(signal, "SIGKILL", signal.SIGTERM))
                return
