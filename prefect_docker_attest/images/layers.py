"""Reads a layer as a stream, with limited memory: the digest of its tar, and its programs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, Protocol

from prefect_docker_attest.images import compression
from prefect_docker_attest.images.layer_files import LayerFiles, read_files
from prefect_docker_attest.images.stream import PieceReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager

    from prefect_docker_attest.images.layer_files import Budget
    from prefect_docker_attest.layer_compression import Method

_MOST_UNPACKED = 64 << 30
"""Maximum size of a layer's tar, in bytes. A blob can decompress to a thousand times its size, which takes hours."""


class Meter(Protocol):
    """Shows the progress of reading, for example as a progress bar."""

    def __call__(self, title: str, total: int | None) -> AbstractContextManager[Callable[[int], object]]:
        """Return a context manager for one read. It gives a function to call with the size of each piece, in bytes.

        Args:
            title: name of the content that is read
            total: size of the content in bytes; `None` if it is not known
        """


@dataclass(frozen=True)
class LayerReading:
    """What was seen of a layer.

    Attributes:
        state: ``sound``: the blob matches its digest and size, and engines can unpack its tar
        diff_id: digest of the uncompressed tar, which engines compare with the config's ``diff_ids``; ``""`` if it was
            not read completely
        files: programs and links of the layer
        detail: why the state is not ``sound``
        size: size of the blob, in bytes
        compression: compression of the blob; `None` if it was not read completely
    """

    state: Literal["sound", "corrupt", "unverifiable"]
    diff_id: str = ""
    files: LayerFiles = field(default_factory=lambda: LayerFiles(complete=False))
    detail: str = ""
    size: int = 0
    compression: Method | None = None


def read_layer(
    pieces: Iterable[bytes],
    digest: str,
    size: int,
    budget: Budget,
    advance: Callable[[int], object] = lambda _: None,
) -> LayerReading:
    """Read a layer.

    Args:
        pieces: the layer's blob, in pieces
        digest: expected digest of the blob
        size: expected size of the blob, in bytes; not more is read
        budget: memory for the image's programs and links
        advance: called with the size of each piece, in bytes
    """
    stored, content = _Digest(), _Digest()
    blob = PieceReader(stored.of(_limited(pieces, size, advance)))
    try:
        method = compression.compression_of(blob)
        tar = PieceReader(content.of(compression.unpacked(blob)))
        files = read_files(tar, budget)
        for _ in tar.rest():
            if content.size > _MOST_UNPACKED:
                return LayerReading("unverifiable", detail=f"its tar is larger than {_MOST_UNPACKED >> 30} GiB")
    except _TooLong:
        return LayerReading("corrupt", detail="its blob is longer than its descriptor says")
    except compression.Damaged as error:
        return LayerReading("corrupt", detail=f"it cannot be decompressed ({error})")
    except compression.Unsupported as reason:
        return LayerReading("unverifiable", detail=str(reason))
    reading = LayerReading("sound", str(content), files, "", stored.size, method)
    if digest != str(stored):
        return replace(reading, state="corrupt", detail=f"its blob has the digest {stored}")
    if files.problem:
        state: Literal["corrupt", "unverifiable"] = "corrupt" if files.refused else "unverifiable"
        return replace(reading, state=state, detail=files.problem)
    return reading


class _TooLong(Exception):
    """The blob is longer than its descriptor says."""


class _Digest:
    """Computes the digest and the size of a stream."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self.size = 0

    def of(self, pieces: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
        """Yield the same pieces, and add each to digest and size."""
        for piece in pieces:
            self._sha256.update(piece)
            self.size += len(piece)
            yield piece

    def __str__(self) -> str:
        return f"sha256:{self._sha256.hexdigest()}"


def _limited(pieces: Iterable[bytes], size: int, advance: Callable[[int], object]) -> Iterator[bytes]:
    for piece in pieces:
        advance(len(piece))
        size -= len(piece)
        if size < 0:
            raise _TooLong
        yield piece
