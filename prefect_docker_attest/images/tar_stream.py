"""Reads the members of a tar as a stream: POSIX ustar and pax, and GNU's long names.

The standard library's `tarfile` is not used: it reads headers of any length into memory, and is several times slower.
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prefect_docker_attest.images.stream import PieceReader

_BLOCK = 512  # bytes
_LONGEST_HEADER = 1 << 20  # bytes of an extended header. It can hold a path, which has at most 4 KiB.
_LONGEST_PATH = 4096
_PIECE = 1 << 18  # bytes
_HARD_LINK, _SYMLINK, _FOLDER, _GNU_SPARSE = b"1", b"2", b"5", b"S"
# Members of these types have no content, even if their headers name a size.
_WITHOUT_CONTENT = (_HARD_LINK, _SYMLINK, b"3", b"4", _FOLDER, b"6")
_PAX = b"x"
# Headers that extend the next member: pax for one member ("x") and for all members ("g"), GNU's long names ("L", "K").
_EXTENDING = {_PAX: "", b"g": "", b"L": "path", b"K": "linkpath"}


class NotATarError(Exception):
    """The stream is not a tar, or is cut off."""


class Member:
    """One file, link or folder. Special files look like empty files.

    Attributes:
        path: path relative to the root, without a slash at the start or the end; ``""`` for the root itself
        size: size of the content, in bytes
        mode: permissions
        link: target of a link; ``""`` for other members
        is_hard_link: whether the member is a hard link
        is_folder: whether the member is a folder
    """

    __slots__ = ("_left", "is_folder", "is_hard_link", "link", "mode", "path", "size")

    def __init__(self, path: str, size: int, mode: int, kind: bytes, link: str) -> None:
        self.path = path
        self.size = self._left = size
        self.mode = mode
        self.is_folder = kind == _FOLDER
        self.is_hard_link = kind == _HARD_LINK
        self.link = normal(link) if self.is_hard_link else link

    def read(self, tar: PieceReader, size: int) -> bytes:
        """Return the next bytes of the content. Call it before `members` yields the next member."""
        content = tar.read(min(size, self._left))
        self._left -= len(content)
        return content

    def pieces(self, tar: PieceReader) -> Iterator[bytes]:
        """Yield the rest of the content, in pieces."""
        while piece := self.read(tar, _PIECE):
            yield piece

    def skip(self, tar: PieceReader) -> None:
        """Skip the rest of the content."""
        _skip(tar, self._left + -self.size % _BLOCK)


def members(tar: PieceReader) -> Iterator[Member]:
    """Yield the members of a tar.

    Raises:
        NotATarError: the stream is not a tar, or is cut off
    """
    extended: dict[str, str] = {}
    while header := _header(tar):
        kind, size = header[156:157], _number(header[124:136])
        if kind in _EXTENDING:
            extended.update(_extended_header(tar, kind, size))
            continue
        if kind == _GNU_SPARSE:
            _skip_sparse_map(tar, header)
        if kind in _WITHOUT_CONTENT:
            size = 0
        elif "size" in extended:
            size = _decimal(extended["size"])
        path = extended.get("path") or _ustar_path(header)
        link = extended.get("linkpath") or _text(header[157:257]) if kind in (_HARD_LINK, _SYMLINK) else ""
        extended = {}
        if max(len(path), len(link)) > _LONGEST_PATH:
            raise NotATarError
        member = Member(normal(path), size, _number(header[100:108]), kind, link)
        yield member
        member.skip(tar)


def normal(path: str) -> str:
    """Return a path relative to the root, without dots, doubled slashes, and slashes at the start or the end."""
    path = path.removeprefix("./").strip("/")
    if "//" in path or "./" in path or path.endswith(("/.", "/..")) or path in (".", ".."):
        return posixpath.normpath(f"/{path}").strip("/")
    return path


def _ustar_path(header: bytes) -> str:
    name = _text(header[:100])
    # GNU's format uses this field for other things; in the POSIX format it holds the start of a long path.
    prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" and header[345] else ""
    return f"{prefix}/{name}" if prefix else name


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode(errors="surrogateescape")


def _number(field: bytes) -> int:
    if field[0] & 0x80:  # a binary number of GNU tar
        return int.from_bytes(field[1:], "big")
    try:
        number = int(field.partition(b"\0")[0].strip() or b"0", 8)
    except ValueError:
        raise NotATarError from None
    if number < 0:
        raise NotATarError
    return number


def _decimal(text: str) -> int:
    if not text.isdecimal() or len(text) > 20:  # noqa: PLR2004
        raise NotATarError
    return int(text)


def _checksum_fits(header: bytes) -> bool:
    return _number(header[148:156]) == sum(header[:148]) + sum(header[156:]) + 8 * ord(" ")


def _header(tar: PieceReader) -> bytes:
    """Return the next header; empty at the end of the tar."""
    header = tar.read(_BLOCK)
    if len(header) < _BLOCK:
        raise NotATarError
    if not header[0] and not header.strip(b"\0"):
        return b""
    if header[257:262] != b"ustar" and not _checksum_fits(header):
        raise NotATarError
    return header


def _extended_header(tar: PieceReader, kind: bytes, size: int) -> dict[str, str]:
    """Read an extended header, and return the values that it sets for the next member."""
    if size > _LONGEST_HEADER:
        raise NotATarError
    content = tar.read(size)
    _skip(tar, -size % _BLOCK)
    if len(content) < size:
        raise NotATarError
    if kind == _PAX:
        return _pax_records(content)
    return {_EXTENDING[kind]: _text(content)} if _EXTENDING[kind] else {}


def _pax_records(content: bytes) -> dict[str, str]:
    """Return the values of a pax header that this module uses. Its records have the form ``LENGTH KEY=VALUE``."""
    found = {}
    while content:
        length, _, _ = content.partition(b" ")
        if not length.isdigit() or len(length) > 7 or not len(length) < int(length) <= len(content):  # noqa: PLR2004
            break
        key, _, value = content[len(length) + 1 : int(length) - 1].partition(b"=")
        if key in (b"path", b"linkpath", b"size"):
            found[key.decode()] = value.decode(errors="surrogateescape")
        content = content[int(length) :]
    return found


def _skip_sparse_map(tar: PieceReader, header: bytes) -> None:
    more = header[482]
    while more:
        block = tar.read(_BLOCK)
        if len(block) < _BLOCK:
            raise NotATarError
        more = block[504]


def _skip(tar: PieceReader, size: int) -> None:
    if tar.skip(size) < size:
        raise NotATarError
