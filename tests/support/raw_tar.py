"""Makes tar files member by member. Any field of a header can be invalid."""

from __future__ import annotations

END = bytes(1024)
_BLOCK = 512


def entry(
    name: str | bytes,
    content: bytes = b"",
    kind: str = "0",
    *,
    link: str | bytes = "",
    size: int | bytes | None = None,
    magic: bytes = b"ustar\x0000",
    fields: dict[int, bytes] | None = None,
    checksum: bytes | None = None,
) -> bytes:
    """Return one member of a tar: its header, and its content with padding.

    Args:
        name: path of the member
        content: content of the file
        kind: type of the member
        link: target of a link
        size: size that the header names, as a number or as the bytes of the field; `None` for the right one
        magic: magic number and version
        fields: bytes to write into the header, by their position
        checksum: bytes of the field; `None` for the right checksum
    """
    size = len(content) if size is None else size
    header = bytearray(_BLOCK)
    parts = {
        0: _encoded(name)[:100],
        100: b"0000755\0",
        108: b"0000000\0",
        116: b"0000000\0",
        124: size if isinstance(size, bytes) else b"%011o\0" % size,
        136: b"14000000000\0",
        148: b" " * 8,
        156: kind.encode("latin-1"),
        157: _encoded(link)[:100],
        257: magic,
        329: b"0000000\0",
        337: b"0000000\0",
        **(fields or {}),
    }
    for at, part in parts.items():
        header[at : at + len(part)] = part
    header[148:156] = checksum if checksum is not None else b"%06o\0 " % sum(header)
    return bytes(header) + content + bytes(-len(content) % _BLOCK)


def pax(*records: str | bytes, kind: str = "x") -> bytes:
    """Return an extended header. A record is ``KEY=VALUE``, or the bytes of an invalid record."""
    return entry("pax", b"".join(map(_record, records)), kind)


def _record(record: str | bytes) -> bytes:
    if isinstance(record, bytes):
        return record
    text = f" {record}\n".encode()
    length = len(text)
    while length != len(str(length)) + len(text):
        length = len(str(length)) + len(text)
    return f"{length}".encode() + text


def _encoded(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()
