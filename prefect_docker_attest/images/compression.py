"""Decompresses layers: gzip and zstd."""

from __future__ import annotations

import io
import re
import sys
import threading
import zlib
from typing import TYPE_CHECKING

from prefect_docker_attest.images.stream import RawPieceReader

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prefect_docker_attest.images.stream import PieceReader
    from prefect_docker_attest.layer_compression import Method

_GZIP, _ZSTD = b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd"  # RFC 1952 and RFC 8878
_NAME, _COMMENT, _RESERVED = 0x08, 0x10, 0xE0  # flags of a gzip header
_FIXED, _LONGEST_START = 10, 512  # bytes of a gzip header: without names, and with the longest name for Go
_SKIPPABLE_HEADER = 8  # bytes
_SKIPPABLE = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")
_UNPACKED = 1 << 18  # size of a decompressed piece, in bytes
_LARGEST_WINDOW = 26  # largest zstd window, as a power of 2: 64 MiB, eight times what builders use
# Each zstd reader holds one window in memory. This limits their number when many layers are read at the same time.
_zstd_readers = threading.BoundedSemaphore(2)


class Damaged(Exception):
    """The compressed data is invalid."""


class Unsupported(Exception):
    """Not all engines decompress the data, or it needs too much memory."""


def compression_of(blob: PieceReader) -> Method:
    """Return how a blob is compressed, by its first bytes. As for containerd, its media type does not matter."""
    start = blob.peek(_SKIPPABLE_HEADER)
    return "zstd" if _is_zstd(start) else "gzip" if start.startswith(_GZIP) else "uncompressed"


def unpacked(blob: PieceReader) -> Iterator[bytes | memoryview]:
    """Decompress a blob, and yield its content in pieces.

    Raises:
        Damaged: the compressed data is invalid
        Unsupported: not all engines decompress the data, or the zstd window is too large
    """
    method = compression_of(blob)
    if method == "gzip":
        yield from _gunzip(blob)
    elif method == "zstd":
        with _zstd_readers:
            yield from _unzstd(blob)
    else:
        yield from blob.rest()


def _is_zstd(start: bytes) -> bool:
    return start.startswith(_ZSTD) or (len(start) == _SKIPPABLE_HEADER and bool(_SKIPPABLE.match(start)))


def _gunzip(blob: PieceReader) -> Iterator[bytes]:
    """Decompress gzip, which can have several members, as in eStargz."""
    _check_gzip_header(blob.peek(_LONGEST_START))
    yield from _gzip_member(blob)
    while start := blob.peek(_LONGEST_START):
        if len(start) < _FIXED or not start.startswith(_GZIP):
            raise Unsupported("bytes follow its gzip data: engines with unpigz ignore them, others fail")
        _check_gzip_header(start)
        yield from _gzip_member(blob)


def _gzip_member(blob: PieceReader) -> Iterator[bytes]:
    # Not gzip.GzipFile: before Python 3.12 it reads 8 KiB at a time, and threads wait for each other at each piece.
    member = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        for piece in blob.rest():
            held: bytes | memoryview = piece
            while held and not member.eof:
                if content := member.decompress(held, _UNPACKED):
                    yield content
                held = member.unconsumed_tail
            if member.eof:
                blob.push(member.unused_data)
                return
    except zlib.error as error:
        raise Damaged(str(error)) from error
    raise Damaged("the data is cut off")


def _check_gzip_header(start: bytes) -> None:
    """Refuse to judge a header that not all programs read (RFC 1952): Go reads names of up to 511 bytes."""
    flags = start[3] if len(start) > 3 else 0  # noqa: PLR2004
    if flags & _RESERVED:
        raise Unsupported("its gzip header has unknown flags")
    names = flags & (_NAME | _COMMENT)
    if names and len(start) == _LONGEST_START and start.count(b"\0", _FIXED) < names.bit_count():
        raise Unsupported("its gzip header is too long for some engines")


def _unzstd(blob: PieceReader) -> Iterator[bytes]:
    options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: _LARGEST_WINDOW}
    try:
        reader = zstd.ZstdFile(io.BufferedReader(RawPieceReader(blob), _UNPACKED), options=options)
        while piece := reader.read(_UNPACKED):
            yield piece
    except EOFError:
        raise Damaged("the data is cut off") from None
    except zstd.ZstdError as error:
        if "memory" in str(error).lower() or "window" in str(error).lower():
            raise Unsupported(f"its zstd window is larger than {1 << _LARGEST_WINDOW - 20} MiB") from error
        raise Damaged(str(error)) from error
