"""Reads the output of a child process while it runs, and a moment longer."""

from __future__ import annotations

import codecs
import io
import math
import os
import sys
import time
from functools import partial
from typing import IO, TYPE_CHECKING

if sys.platform != "win32":
    import select

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LONGEST_PIECE = 64 * 1024
"""Maximum number of characters in a line. A longer line is returned in pieces, so that it needs little memory."""

_CHUNK = 1 << 16  # bytes
_POLL_INTERVAL = 0.2  # seconds between two looks whether the child has ended
_LAST_OUTPUT = 1.5  # seconds to read output after the child has ended
_LARGEST_PIPE = 1 << 20  # bytes (Linux, for users other than root)


class OutputPipe:
    """The read end of the pipe to which a child process writes its output.

    Programs that the child has started can keep the pipe open after the child has ended. So the output ends 2 seconds
    after the child at the latest. What the child has written is read.

    On Windows, where pipes cannot be polled, the output ends with the last of these programs, and silence is not
    noticed.

    Args:
        pipe: the read end, without a buffer
        has_ended: function that returns whether the child has ended
        silence: number of seconds after which a missing output is reported
    """

    def __init__(self, pipe: IO[bytes], has_ended: Callable[[], bool], silence: float) -> None:
        self._pipe = pipe
        self._has_ended = has_ended
        self._silence = silence

    def blocks(self) -> Iterator[str]:
        """Yield the output in blocks of complete lines, each line as soon as it is complete.

        A line longer than `LONGEST_PIECE` comes in blocks of its own, of which only the last has a line end. If there
        is no output for some time, one empty block is yielded. Invalid UTF-8 is replaced. Line ends are not translated,
        because a carriage return is part of the output.
        """
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        rest, latest = "", time.monotonic()
        for chunk in self._until_end():
            if chunk:
                *blocks, rest = _divided(rest + decoder.decode(chunk))
                yield from blocks
                latest = time.monotonic()
            elif time.monotonic() - latest > self._silence:
                latest = math.inf  # this silence has been reported
                yield ""
        if rest := rest + decoder.decode(b"", final=True):
            yield rest

    def _until_end(self) -> Iterator[bytes]:
        look, end, left = time.monotonic(), math.inf, _LARGEST_PIPE
        for chunk in self._chunks():
            now = time.monotonic()
            if end < math.inf:
                left -= len(chunk)
                if now > end and (not chunk or left < 0):
                    return
            elif now > look:
                look = now + _POLL_INTERVAL
                end = now + _LAST_OUTPUT if self._has_ended() else end
            yield chunk

    def _chunks(self) -> Iterator[bytes]:
        """Yield what is in the pipe until all programs have closed it; nothing if there is nothing at the moment."""
        number = self._pipe.fileno()
        if sys.platform == "win32":
            yield from iter(partial(os.read, number, _CHUNK), b"")
            return
        poll = select.poll()
        poll.register(number, select.POLLIN)
        while True:
            if not poll.poll(_POLL_INTERVAL * 1000):
                yield b""
            elif chunk := os.read(number, _CHUNK):
                yield chunk
            else:
                return


def _divided(text: str) -> Iterator[str]:
    """Divide a text into blocks; the last one is an incomplete line."""
    lines, end, rest = text.rpartition("\n")
    if len(lines) < LONGEST_PIECE:  # no line can be longer
        yield from filter(None, [lines + end])
    else:
        for line in io.StringIO(lines + end, newline="\n"):
            yield from _pieces(line)
    *pieces, rest = _pieces(rest)
    yield from pieces
    yield rest


def _pieces(line: str) -> list[str]:
    return [line[start : start + LONGEST_PIECE] for start in range(0, len(line) or 1, LONGEST_PIECE)]
