"""Runs one command and streams its output line by line. The process is always terminated."""

from __future__ import annotations

import contextlib
import io
import math
import os
import signal
import subprocess
import threading
import time
from typing import IO, TYPE_CHECKING, cast

from prefect_docker_attest.buildx import cancellation
from prefect_docker_attest.buildx.output_pipe import OutputPipe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType

    from typing_extensions import Self

    from prefect_docker_attest.buildx.guard import Guard

_GRACE = 5.0  # seconds between SIGTERM and SIGKILL. buildx needs about 0.1 seconds to cancel its build.


class Command:
    """A child process that returns its output, including standard error, as lines of text. A context manager.

    The child leads its own process group. So leaving the context also ends the plugin that the docker CLI started, and
    Ctrl-C does not reach the child directly: the caller ends it.

    Args:
        argv: the program and its arguments
        environment: the whole environment of the child
        stdin: file for the child's standard input; `None` for an empty one
        idle_timeout: seconds to wait for a line that shows progress, after which the child is stopped; `None` for no
            limit
        made_progress: function that returns whether a line, or a piece of a long line, shows progress of the child
        silence: seconds without output after which `lines` yields an empty text
        edit: function that edits the output; it gets and yields blocks of complete lines, or pieces of long lines
        guard: ends the child if this process dies inside the context

    Attributes:
        timed_out: whether the child was stopped because of `idle_timeout`

    Raises:
        OSError: on entering, the program cannot be started
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        stdin: IO[bytes] | None = None,
        idle_timeout: float | None = None,
        made_progress: Callable[[str], bool] = lambda _line: True,
        silence: float = math.inf,
        edit: Callable[[Iterator[str]], Iterator[str]] = iter,
        guard: Guard | None = None,
    ) -> None:
        self._argv = argv
        self._environment = environment
        self._stdin = stdin
        self._idle_timeout = idle_timeout
        self._made_progress = made_progress
        self._silence = silence
        self._edit = edit
        self._guard = guard
        self._waiting_since: float | None = None
        self._over = threading.Event()
        self.timed_out = False

    def __enter__(self) -> Self:
        self._owner = os.getpid()
        self._exit_code: int | None = None
        self._process = subprocess.Popen(
            self._argv,
            env=self._environment,
            stdin=subprocess.DEVNULL if self._stdin is None else self._stdin,
            bufsize=0,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=_other_folder(),
        )
        self._output = cast("IO[bytes]", self._process.stdout)
        try:
            if self._guard:
                self._guard.watch(self._process)
            if self._idle_timeout is not None:
                threading.Thread(target=self._watch, args=(self._idle_timeout,), daemon=True).start()
        except BaseException:
            self._end()
            raise
        return self

    def lines(self) -> Iterator[str]:
        """Yield each line of the output with its line end. Invalid UTF-8 is replaced.

        A line longer than `output_pipe.LONGEST_PIECE` comes in pieces. An empty text comes once in each silence. The
        output ends at most 2 seconds after the child, even if another program keeps it open.

        Raises:
            asyncio.CancelledError: the calling thread is one of anyio's, and its task was cancelled
        """
        for block in self._edit(self._blocks()):
            yield from io.StringIO(block, newline="\n") if block else ("",)

    def _blocks(self) -> Iterator[str]:
        blocks = OutputPipe(self._output, self._has_ended, self._silence).blocks()
        if self._idle_timeout is None:  # for a long output, the search for progress would take most of the time
            yield from blocks
            return
        latest = time.monotonic()
        while True:
            self._waiting_since = latest
            block = next(blocks, None)
            self._waiting_since = None
            if block is None:
                return
            came = time.monotonic()
            yield block
            progress = [self._made_progress(line) for line in io.StringIO(block, newline="\n")]
            # The time that the caller needs for a line does not count as idle.
            latest = time.monotonic() if any(progress) else latest + (time.monotonic() - came)

    def _has_ended(self) -> bool:
        cancellation.raise_if_cancelled()  # here, because this is called several times a second
        self._wait(0)
        return self._exit_code is not None

    def wait(self) -> int:
        """Return the exit code; negative for a signal. Call it after `lines` has ended."""
        self._waiting_since = time.monotonic()
        self._wait()
        return cast("int", self._exit_code)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # A forked child also leaves the context when it ends. It must not end its parent's build.
        if os.getpid() == self._owner:
            self._end()

    def _end(self) -> None:
        self._over.set()
        try:
            if self._exit_code is None:
                self._signal(signal.SIGTERM)
                # A child that blocks on a full pipe could not react to the signal.
                self._output.close()
                self._wait(_GRACE)
        finally:
            # A second Ctrl-C can interrupt the wait, so the rest is in a `finally`.
            self._output.close()
            if self._exit_code != 0:
                # If the docker CLI was killed, its plugin still runs.
                self._signal(getattr(signal, "SIGKILL", signal.SIGTERM))
            if self._guard:
                self._guard.release()
            self._process.wait()

    def _wait(self, seconds: float | None = None) -> None:
        """Wait until the child ends, and set its exit code.

        The child is not reaped before the context is left. Until then, no other process group can get its number, to
        which signals are sent.

        Args:
            seconds: maximum time to wait; `None` for no limit
        """
        if not hasattr(os, "waitid"):  # Windows, and macOS before Python 3.13
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._exit_code = self._process.wait(seconds)
            return
        end = time.monotonic() + (seconds or 0)
        options = os.WEXITED | os.WNOWAIT | (0 if seconds is None else os.WNOHANG)
        try:
            while not (ended := os.waitid(os.P_PID, self._process.pid, options)):
                if time.monotonic() > end:
                    return
                time.sleep(0.005)
        except ChildProcessError:  # the caller ignores SIGCHLD, or has already reaped the child
            self._exit_code = self._process.wait()
        else:
            self._exit_code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status

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
                self.timed_out = True
                self._signal(signal.SIGTERM)
                if not self._over.wait(_GRACE):
                    self._signal(getattr(signal, "SIGKILL", signal.SIGTERM))
                return


def _other_folder() -> str | None:
    """Return a folder for the child if the current one was deleted; `None` for the current one."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return os.sep
    return None
