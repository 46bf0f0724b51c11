"""Runs short commands with a limit for their time and their output."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from typing import IO, TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

TIMED_OUT = 124
"""Exit code of a command that was stopped because it took too long. coreutils' ``timeout`` uses the same code."""

_PIECE = 1 << 16  # bytes
_LAST_OUTPUT = 1  # seconds to read output after the command has ended
_POLL_INTERVAL = 0.02  # seconds. A child of the command can keep the pipes open after the command has ended.


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
    exchange = _exchange if os.name == "posix" else _communicate
    try:
        outputs = exchange(process, stdin.encode(), longest, timeout)
    finally:
        code = process.poll()
        if code is None:
            _kill(process)
            code = TIMED_OUT
        for stream in (process.stdin, process.stdout, process.stderr):
            with contextlib.suppress(OSError):  # the command did not read its input
                cast("IO[bytes]", stream).close()
    out, err = (bytes(output[:longest]).decode(errors="replace") for output in outputs)
    return subprocess.CompletedProcess(
        arguments, code, out, err if code != TIMED_OUT else f"no answer within {timeout:g} seconds"
    )


def _exchange(
    process: subprocess.Popen[bytes], content: bytes, longest: int, timeout: float
) -> Iterable[bytes | bytearray]:
    """Write standard input, and read both outputs until the command ends.

    `Popen.communicate` would wait until the command's own children close the pipes, too.
    """
    stdin, stdout, stderr = cast("tuple[IO[bytes], ...]", (process.stdin, process.stdout, process.stderr))
    outputs = {stdout: bytearray(), stderr: bytearray()}
    left = memoryview(content)
    os.set_blocking(stdin.fileno(), False)
    end = time.monotonic() + timeout
    with selectors.DefaultSelector() as pipes:
        pipes.register(stdin, selectors.EVENT_WRITE)
        for stream in outputs:
            pipes.register(stream, selectors.EVENT_READ)

        def transfer(seconds: float) -> bool:
            """Read and write what the pipes allow, and return whether something was read or written."""
            nonlocal left
            ready = pipes.select(seconds)
            for key, _ in ready:
                if key.fileobj is stdin:
                    with contextlib.suppress(BlockingIOError):
                        left = left[_written(stdin, left) :]
                    done = not left
                else:
                    stream = cast("IO[bytes]", key.fileobj)
                    piece = os.read(stream.fileno(), _PIECE)
                    outputs[stream] += piece if len(outputs[stream]) < longest else b""
                    done = not piece
                if done:
                    pipes.unregister(key.fileobj)
                    cast("IO[bytes]", key.fileobj).close()
            return bool(ready)

        while process.poll() is None and (seconds := end - time.monotonic()) > 0:
            if pipes.get_map():
                transfer(min(seconds, _POLL_INTERVAL))
            else:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(seconds)
        # What the command has written is in the pipes. Its children may still write.
        end = time.monotonic() + _LAST_OUTPUT
        while pipes.get_map() and transfer(0) and time.monotonic() < end:
            pass
    return outputs.values()


def _written(stdin: IO[bytes], content: memoryview) -> int:
    try:
        return os.write(stdin.fileno(), content)
    except BrokenPipeError:  # the command does not read its input
        return len(content)


def _communicate(
    process: subprocess.Popen[bytes], content: bytes, longest: int, timeout: float
) -> Iterable[bytes | bytearray]:
    """Do the same on Windows, where pipes cannot be selected. Children of the command delay the result."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        return [output[:longest] for output in process.communicate(content, timeout)]
    return b"", b""


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if os.name == "posix":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):  # the kernel cannot end a process that waits for a disk
        process.wait(_LAST_OUTPUT)
