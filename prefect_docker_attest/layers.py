"""What a layer really holds: the digest of its blob, and of the tar in it. Read as a stream, in bounded memory."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import importlib
import io
import zlib
from typing import IO, TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

PIECE = 1 << 20
"""Bytes that are held at a time."""

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"  # RFC 1952 and RFC 8878

_zstd: Any = None
with contextlib.suppress(ImportError):  # Python 3.14
    _zstd = importlib.import_module("compression.zstd")

_DAMAGE: tuple[type[Exception], ...] = (OSError, EOFError, zlib.error, *([_zstd.ZstdError] if _zstd else ()))


class LayerDamaged(Exception):
    """The layer is not what its descriptor says: no engine can use it."""


class LayerUnverifiable(Exception):
    """Nothing can be said about the layer."""


class Pieces:
    """The ``read`` of a file, over byte strings of any length."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._rest = b""

    def read(self, size: int = PIECE) -> bytes:
        self._rest = self._rest or next(self._pieces, b"")
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece


class _Hashed(io.RawIOBase):
    def __init__(self, read: Callable[[int], bytes], advance: Callable[[int], object]) -> None:
        self._read = read
        self._advance = advance
        self.sha256 = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._read(len(buffer))
        buffer[: len(piece)] = piece
        self.sha256.update(piece)
        self._advance(len(piece))
        return len(piece)


def diff_id(read: Callable[[int], bytes], digest: str | None, advance: Callable[[int], object]) -> str:
    """The digest of a layer's uncompressed tar, which is what an engine compares with the config's ``diff_ids``.

    The compression is told by the first bytes, as containerd does it (pkg/archive/compression), not by the media type.

    Args:
        read: the ``read`` of the blob's file
        digest: what the blob's own digest has to be; ``None`` where it is not to be checked
        advance: is told the number of bytes of each piece

    Raises:
        LayerDamaged: the blob is not the one of that digest, or cannot be uncompressed
        LayerUnverifiable: this Python cannot uncompress it
    """
    hashed = _Hashed(read, advance)
    blob = io.BufferedReader(hashed, PIECE)
    tar = hashlib.sha256()
    try:
        content = _uncompressed(blob)
        while piece := content.read(PIECE):
            tar.update(piece)
    except _DAMAGE as error:
        raise LayerDamaged(f"it cannot be uncompressed ({error})") from error
    while blob.read(PIECE):
        pass
    if digest is not None and digest != f"sha256:{hashed.sha256.hexdigest()}":
        raise LayerDamaged(f"its blob has the digest sha256:{hashed.sha256.hexdigest()}")
    return f"sha256:{tar.hexdigest()}"


def _uncompressed(blob: io.BufferedReader) -> IO[bytes]:
    start = blob.peek(4)[:4]
    if start.startswith(_GZIP):
        return cast("IO[bytes]", gzip.GzipFile(fileobj=blob))
    if start == _ZSTD:
        if _zstd is None:
            raise LayerUnverifiable("it is compressed with zstd, which Python can read from 3.14 on")
        return cast("IO[bytes]", _zstd.ZstdFile(blob))
    return blob
