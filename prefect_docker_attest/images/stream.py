"""Reads a sequence of byte strings as a file. Bytes that are skipped are not copied."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_EMPTY = memoryview(b"")


class PieceReader:
    """Reads a sequence of pieces as a file.

    Args:
        pieces: the content, in pieces of any length
    """

    def __init__(self, pieces: Iterable[bytes | memoryview]) -> None:
        self._pieces = iter(pieces)
        self._rest = _EMPTY

    def read(self, size: int) -> bytes:
        """Return this number of bytes; fewer at the end of the content."""
        rest = self._rest
        if len(rest) >= size:
            self._rest = rest[size:]
            return bytes(rest[:size])
        content = bytearray()
        while len(content) < size:
            if not self._rest and not self._next():
                break
            piece = self._rest[: size - len(content)]
            self._rest = self._rest[len(piece) :]
            content += piece
        return bytes(content)

    def peek(self, size: int) -> bytes:
        """Return the next bytes, without moving the position."""
        if len(self._rest) >= size:
            return bytes(self._rest[:size])
        start = self.read(size)
        self.push(start)
        return start

    def push(self, content: bytes) -> None:
        """Put bytes in front of the rest of the content."""
        self._rest = memoryview(content + bytes(self._rest)) if content else self._rest

    def skip(self, size: int) -> int:
        """Skip this number of bytes, and return the number of bytes that were skipped; fewer at the end."""
        left = size
        while left and (self._rest or self._next()):
            length = min(left, len(self._rest))
            self._rest = self._rest[length:]
            left -= length
        return size - left

    def rest(self) -> Iterator[memoryview]:
        """Yield the rest of the content, in pieces."""
        while self._rest or self._next():
            piece, self._rest = self._rest, _EMPTY
            yield piece

    def _next(self) -> bool:
        for piece in self._pieces:
            if piece:
                self._rest = memoryview(piece)
                return True
        return False


class RawPieceReader(io.RawIOBase):
    """A `PieceReader` as a raw Python file."""

    def __init__(self, reader: PieceReader) -> None:
        self._reader = reader

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._reader.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)
