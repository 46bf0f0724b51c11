"""Decompresses layers: gzip, and zstd if this Python or an installed package supports it."""

from __future__ import annotations

import importlib
import io
import re
import threading
import zlib
from functools import partial
from typing import TYPE_CHECKING, Any

from prefect_docker_attest.images.stream import RawPieceReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prefect_docker_attest.images.stream import PieceReader

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"  # RFC 1952 and RFC 8878
_SKIPPABLE = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")
_UNPACKED = 1 << 18  # size of a decompressed piece, in bytes
_LARGEST_WINDOW = 26  # largest zstd window, as a power of 2: 64 MiB, eight times what builders use
_ZSTD_MODULES = ("compression.zstd", "backports.zstd", "zstandard")
# Each zstd reader holds one window in memory. This limits their number when many layers are read at the same time.
_zstd_readers = threading.BoundedSemaphore(2)


class Damaged(Exception):
    """The compressed data is invalid."""


class Unsupported(Exception):
    """This Python cannot decompress the data."""


def unpacked(blob: PieceReader) -> Iterator[bytes | memoryview]:
    """Decompress a blob, and yield its content in pieces.

    The first bytes of the blob determine the compression, not its media type. containerd does the same
    (pkg/archive/compression).

    Raises:
        Damaged: the compressed data is invalid
        Unsupported: no module of this Python reads zstd, or the zstd window is too large
    """
    start = blob.peek(len(_ZSTD))
    if start.startswith(_GZIP):
        yield from _gunzip(blob)
    elif start.startswith(_ZSTD) or _SKIPPABLE.match(start):
        with _zstd_readers:
            yield from _unzstd(blob)
    else:
        yield from blob.rest()


def _gunzip(blob: PieceReader) -> Iterator[bytes]:
    # Not gzip.GzipFile: before Python 3.12 it reads 8 KiB at a time, and threads wait for each other at each piece.
    member = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        for piece in blob.rest():
            held: bytes | memoryview = piece
            while held:
                if member.eof:
                    # A gzip file can have several members, as in eStargz. Zeros can follow the last member.
                    held = bytes(held).lstrip(b"\0")
                    if not held:
                        break
                    member = zlib.decompressobj(zlib.MAX_WBITS | 16)
                if content := member.decompress(held, _UNPACKED):
                    yield content
                held = member.unused_data if member.eof else member.unconsumed_tail
    except zlib.error as error:
        raise Damaged(str(error)) from error
    if not member.eof:
        raise Damaged("the data is cut off")


def _unzstd(blob: PieceReader) -> Iterator[bytes]:
    opened, failures = _zstd_reader()
    try:
        reader = opened(io.BufferedReader(RawPieceReader(blob), _UNPACKED))
        while piece := reader.read(_UNPACKED):
            yield piece
    except EOFError:
        raise Damaged("the data is cut off") from None
    except failures as error:
        if "memory" in str(error).lower() or "window" in str(error).lower():
            raise Unsupported(f"its zstd window is larger than {1 << _LARGEST_WINDOW - 20} MiB") from error
        raise Damaged(str(error)) from error


def _zstd_reader() -> tuple[Callable[[Any], Any], type[Exception]]:
    """Return the function that opens a zstd file, and the exception that it raises for invalid data."""
    for name in _ZSTD_MODULES:
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        if name == "zstandard":
            decompressor = module.ZstdDecompressor(max_window_size=1 << _LARGEST_WINDOW)
            return partial(decompressor.stream_reader, read_across_frames=True), module.ZstdError
        options = {module.DecompressionParameter.window_log_max: _LARGEST_WINDOW}
        return partial(module.ZstdFile, options=options), module.ZstdError
    raise Unsupported("it is compressed with zstd. Use Python 3.14, or run `pip install zstandard` in this environment")
