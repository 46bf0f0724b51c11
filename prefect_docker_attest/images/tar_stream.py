"""Reads the members of a tar as a stream, and refuses what Go's ``archive/tar`` refuses, which engines use.

It reads POSIX ustar and pax, and GNU's long names. The standard library's `tarfile` is not used: it accepts other tars,
reads headers of any length into memory, and is several times slower.
"""

from __future__ import annotations

import posixpath
import re
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prefect_docker_attest.images.stream import PieceReader

_BLOCK = 512  # bytes
_LONGEST_HEADER = 1 << 20  # bytes of an extended header; Go has the same limit
_LONGEST_PATH = 4096
_PIECE = 1 << 18  # bytes
HARD_LINK, SYMLINK, FOLDER, FILE, GLOBAL = b"1", b"2", b"5", b"0", b"g"
# Members of these types have no content, even if their headers name a size.
_WITHOUT_CONTENT = (HARD_LINK, SYMLINK, b"3", b"4", FOLDER, b"6")
_OLD_FILE = b"\0"
_PAX, _GNU_SPARSE = b"x", b"S"
_LONG = {b"L": "path", b"K": "linkpath"}  # GNU's long names and link targets
_USTAR, _GNU, _STAR = b"ustar\0", b"ustar  \0", b"tar\0"
# The fields mode, uid, gid, size, mtime and checksum, and devmajor and devminor, as most programs write them.
_USUAL = re.compile(rb"(?:[0-7]{7}[\0 ]){3}([0-7]{11})[\0 ][0-7]{11}[\0 ]([0-7]{6})\0 ")
_USUAL_DEVICES = (bytes(16), b"0000000\0" * 2)
_OCTAL, _DECIMAL = re.compile(rb"[0-7]{1,21}"), re.compile(r"[+-]?[0-9]{1,19}")
_TIME = re.compile(r"[+-]?[0-9]{1,19}(\.[0-9]*)?")
_NUMBERS = {"size": _DECIMAL, "uid": _DECIMAL, "gid": _DECIMAL, "mtime": _TIME, "atime": _TIME, "ctime": _TIME}
_WITHOUT_NUL = ("path", "linkpath", "uname", "gname")  # other values of pax may contain NUL
_SMALLEST_RECORD = 5  # bytes
_LENGTH = re.compile(rb"\+?[0-9]{1,18}")


class InvalidTarError(Exception):
    """Engines refuse the tar. The text says why."""


class Member:
    """One file, link, folder or special file.

    Attributes:
        path: path relative to the root, without a slash at the start or the end; ``""`` for the root itself
        size: size of the content, in bytes
        mode: permissions
        kind: type of the member, such as `FOLDER`
        link: target of a link; ``""`` for other members
        records: values of the pax headers
    """

    __slots__ = ("_left", "kind", "link", "mode", "path", "records", "size")

    def __init__(self, header: bytes, kind: bytes, size: int, mode: int, records: dict[str, str]) -> None:
        path = records.get("path") or _ustar_path(header)
        if kind == _OLD_FILE:  # old tars mark folders by a slash
            kind = FOLDER if path.endswith("/") else FILE
        self.path = normal(path)
        self.size = self._left = 0 if kind in _WITHOUT_CONTENT else size
        self.mode = mode
        self.kind = kind
        self.link = ""
        if kind in (HARD_LINK, SYMLINK):
            link = records.get("linkpath") or _text(header[157:257])
            self.link = normal(link) if kind == HARD_LINK else link
        self.records = records

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
        """Skip the rest of the content, and its padding, which a tar may lack at its end."""
        if tar.skip(self._left) < self._left:
            raise InvalidTarError("it ends in the content of a file")
        tar.skip(-self.size % _BLOCK)


def members(tar: PieceReader) -> Iterator[Member]:
    """Yield the members of a tar.

    Raises:
        InvalidTarError: engines refuse the tar
    """
    records: dict[str, str] = {}
    longer: dict[str, str] = {}
    while header := _header(tar):
        kind = header[156:157]
        mode, size = _fields(header)
        size = _size({}, kind, size)
        if kind == _GNU_SPARSE:
            raise InvalidTarError("it has a sparse file of GNU tar, which engines refuse")
        if kind == _PAX:
            records = _pax_records(_content(tar, size))
            continue
        if kind in _LONG:
            longer[_LONG[kind]] = _text(_content(tar, size))
            continue
        if kind == GLOBAL:
            _pax_records(_content(tar, size), numbers=False)
            size, records, longer = 0, {}, {}
        elif records or longer:
            size = _size(records, kind, size)
            records |= {name: text for name, text in longer.items() if text}
        yield (member := Member(header, kind, size, mode, records))
        records, longer = {}, {}
        member.skip(tar)


def _size(records: dict[str, str], kind: bytes, size: int) -> int:
    size = int(records.get("size", size))
    if size < 0 and kind not in _WITHOUT_CONTENT:
        raise InvalidTarError("it has a member of a negative size")
    return size


def normal(path: str) -> str:
    """Return a path relative to the root, without dots, doubled slashes, and slashes at the start or the end."""
    path = path.removeprefix("./").strip("/")
    if "//" in path or "./" in path or path.endswith(("/.", "/..")) or path in (".", ".."):
        return posixpath.normpath(f"/{path}").strip("/")
    return path


def _ustar_path(header: bytes) -> str:
    name = _text(header[:100])
    # In GNU's format this field has other values; in the POSIX format it holds the start of a long path.
    prefix = _text(header[345:500]) if header[345] and header[257:263] == _USTAR else ""
    return f"{prefix}/{name}" if prefix else name


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode(errors="surrogateescape")


def _fields(header: bytes) -> tuple[int, int]:
    """Return the mode and the size in a header, and check its other numbers."""
    usual = _USUAL.fullmatch(header, 100, 156)
    if usual:
        mode, size = int(header[100:107], 8), int(usual[1], 8)
    else:
        mode, *_, size, _ = (
            _number(header[at:end]) for at, end in ((100, 108), (108, 116), (116, 124), (124, 136), (136, 148))
        )
    if header[329:345] not in _USUAL_DEVICES and (header[257:263] == _USTAR or header[257:265] == _GNU):
        _number(header[329:337])
        _number(header[337:345])
    return mode, size


def _number(field: bytes) -> int:
    if field[0] & 0x80:  # a binary number of GNU tar
        number = int.from_bytes(bytes([field[0] & 0x7F | (field[0] & 0x40) << 1]) + field[1:], "big", signed=True)
        if not -1 << 63 <= number < 1 << 63:
            raise InvalidTarError("it has a header with an invalid number")
        return number
    digits = field.strip(b" \0").partition(b"\0")[0]
    if digits and not _OCTAL.fullmatch(digits):
        raise InvalidTarError("it has a header with an invalid number")
    return int(digits or b"0", 8)


def _header(tar: PieceReader) -> bytes:
    """Return the next header; empty at the end of the tar."""
    header = tar.read(_BLOCK)
    if not header[:1].strip(b"\0") and not header.strip(b"\0"):
        # The end is two blocks of zeros. The second one, or both, may be missing.
        end = header + tar.read(_BLOCK)
        if len(end) % _BLOCK:
            raise InvalidTarError("it ends in a header")
        if end.strip(b"\0"):
            raise InvalidTarError("it has an empty header before its end")
        return b""
    if len(header) < _BLOCK:
        raise InvalidTarError("it ends in a header")
    usual = header[154:156] == b"\0 " and _OCTAL.fullmatch(header, 148, 154)
    checksum = int(usual[0], 8) if usual else _number(header[148:156])
    if checksum != _sum(header) - sum(header[148:156]) + 8 * ord(" ") and checksum != _signed_sum(header):
        raise InvalidTarError("it has a header with a wrong checksum")
    return header


def _sum(header: bytes) -> int:
    # The lower half of Adler-32 is 1 + the sum of the bytes, if that is small: ten times faster than `sum`.
    return (zlib.adler32(header) & 0xFFFF) - 1 if header.isascii() else sum(header)


def _signed_sum(header: bytes) -> int:
    """Return the sum as some old programs compute it: bytes from 128 count as negative."""
    unsigned = header[:148] + b" " * 8 + header[156:]
    return sum(unsigned) - 256 * sum(byte > 127 for byte in unsigned)  # noqa: PLR2004


def _content(tar: PieceReader, size: int) -> bytes:
    """Return the content of an extended header."""
    if size > _LONGEST_HEADER:
        raise InvalidTarError("it has an extended header of more than 1 MiB")
    content = tar.read(size)
    if len(content) < size:
        raise InvalidTarError("it ends in an extended header")
    tar.skip(-size % _BLOCK)
    return content


def _pax_records(content: bytes, *, numbers: bool = True) -> dict[str, str]:
    """Return the values of a pax header. Its records have the form ``LENGTH KEY=VALUE``. Empty values are left out.

    Args:
        content: content of the header
        numbers: whether to check the values that are numbers
    """
    found = {}
    while content:
        digits, _, rest = content.partition(b" ")
        length = int(digits) if _LENGTH.fullmatch(digits) else 0
        if not _SMALLEST_RECORD <= length <= len(content):
            raise InvalidTarError("it has an invalid extended header")
        key, value = _pax_record(rest[: max(length - len(digits) - 1, 0)])
        if numbers and value and key in _NUMBERS and not _NUMBERS[key].fullmatch(value):
            raise InvalidTarError(f"it has an extended header with an invalid {key}")
        found[key] = value
        content = content[length:]
    return {key: value for key, value in found.items() if value}


def _pax_record(record: bytes) -> tuple[str, str]:
    key, equals, value = record[:-1].decode(errors="surrogateescape").partition("=")
    if record[-1:] != b"\n" or not key or not equals:
        raise InvalidTarError("it has an invalid extended header")
    if "\0" in (value if key in _WITHOUT_NUL else key):
        raise InvalidTarError("it has an extended header with NUL in a name")
    return key, value
