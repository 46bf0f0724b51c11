"""Runs short commands with a limit for their time and their output."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TIMED_OUT = 124
"""Exit code of a command that was stopped because it took too long. coreutils' ``timeout`` uses the same code."""

_PIECE = 1 << 16  # bytes
_LAST_OUTPUT = 1  # seconds to wait for output after the command has ended


def run_bounded(
    arguments: Sequence[str],
    *,
    timeout: float,
    stdin: str = "",
    longest: int = 1 << 20,
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command until it ends, or until a timeout stops it and its children.

    Args:
        arguments: the program and its arguments
        timeout: seconds after which the command is stopped; its exit code is then `TIMED_OUT`
        stdin: text for standard input
        longest: number of bytes of standard output to keep, and of standard error; further output is discarded
        environment: the whole environment of the command; `None` for the environment of this process

    Raises:
        OSError: the program cannot be started
    """
    process = subprocess.Popen(
        arguments,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    kept = bytearray(), bytearray()
    # A child of the command can keep the pipes open after the command has ended, so the threads are daemons.
    readers = [
        threading.Thread(target=_read, args=(stream, output, longest), daemon=True)
        for stream, output in zip((process.stdout, process.stderr), kept, strict=True)
    ]
    writer = threading.Thread(target=_write, args=(process.stdin, stdin.encode()), daemon=True)
    # With a timeout, `Popen.wait` looks for the end of the command only every 50 ms. A thread can wait without one.
    end = threading.Thread(target=process.wait, daemon=True)
    for thread in (writer, *readers, end):
        thread.start()
    try:
        end.join(timeout)
    finally:
        code = process.returncode
        if code is None:
            _kill(process)
            code = TIMED_OUT
    for reader in readers:
        reader.join(_LAST_OUTPUT)
    out, err = (bytes(output[:longest]).decode(errors="replace") for output in kept)
    return subprocess.CompletedProcess(
        arguments, code, out, err if code != TIMED_OUT else f"no answer within {timeout:g} seconds"
    )


def _read(stream: IO[bytes], output: bytearray, longest: int) -> None:
    with contextlib.suppress(OSError, ValueError), stream:
        while piece := os.read(stream.fileno(), _PIECE):
            if len(output) < longest:
                output += piece


def _write(stream: IO[bytes], content: bytes) -> None:
    with contextlib.suppress(OSError, ValueError):  # the command does not read its input
        try:
            stream.write(content)
        finally:
            stream.close()


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if os.name == "posix":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):  # the kernel cannot end a process that waits for a disk
        process.wait(_LAST_OUTPUT)
