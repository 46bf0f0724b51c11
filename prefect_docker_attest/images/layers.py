"""What a layer really holds: the digest of the tar in its blob. Read as a stream, in bounded memory."""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.progress import Progress

PIECE = 1 << 20
"""Bytes that are held at a time."""

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"  # RFC 1952 and RFC 8878


class LayerDamaged(Exception):
    """The layer is not what its descriptor says: no engine can use it."""


class LayerUnverifiable(Exception):
    """Nothing can be said about the layer."""


class Stream(io.RawIOBase):
    """A file over byte strings of any length.

    Attributes:
        sha256: of what has been read
    """

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = filter(None, pieces)
        self._rest = memoryview(b"")
        self.sha256 = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._rest = self._rest or memoryview(next(self._pieces, b""))
        piece, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(piece)] = piece
        self.sha256.update(piece)
        return len(piece)


def shown(pieces: Iterable[bytes], progress: Progress, title: str, total: int | None = None) -> Iterator[bytes]:
    """The same pieces, while a bar shows how many bytes they are."""
    task = progress.add_task(title, total=total)
    for piece in pieces:
        progress.advance(task, len(piece))
        yield piece
    progress.remove_task(task)


def diff_id(pieces: Iterable[bytes], digest: str) -> str:
    """The digest of a layer's uncompressed tar, which is what an engine compares with the config's ``diff_ids``.

    The compression is told by the first bytes, as containerd does it (pkg/archive/compression), not by the media type.

    Args:
        pieces: the layer's blob
        digest: the blob's own digest

    Raises:
        LayerDamaged: the blob is not the one of that digest, or cannot be uncompressed
        LayerUnverifiable: it is compressed in a way that Prefect's dependencies cannot undo
    """
    stream = Stream(pieces)
    blob = io.BufferedReader(stream, PIECE)
    start = blob.peek(len(_ZSTD))
    if start.startswith(_ZSTD):
        raise LayerUnverifiable("it is compressed with zstd")
    content: Any = gzip.GzipFile(fileobj=blob) if start.startswith(_GZIP) else blob
    tar = hashlib.sha256()
    try:
        while piece := content.read(PIECE):
            tar.update(piece)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise LayerDamaged(f"it cannot be uncompressed ({error})") from error
    while blob.read(PIECE):
        pass
    if digest != f"sha256:{stream.sha256.hexdigest()}":
        raise LayerDamaged("its blob is not the one of that digest")
    return f"sha256:{tar.hexdigest()}"
