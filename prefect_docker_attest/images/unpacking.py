"""Checks the members of a layer's tar as containerd unpacks them (pkg/archive/tar.go).

containerd's overlayfs snapshotter unpacks each layer into a folder of its own, so what a member needs must be in the
same layer. Only hashes of paths are kept: a layer can have a million files.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from prefect_docker_attest.images.tar_stream import FILE, FOLDER, GLOBAL, HARD_LINK, SYMLINK, InvalidTarError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prefect_docker_attest.images.tar_stream import Member

WHITEOUT, OPAQUE = ".wh.", ".wh..wh..opq"  # OCI image specification, layer.md
_LONGEST_NAME, _LONGEST_PATH = 255, 4095  # bytes; Linux's limits
_SAFE_NAME = 63  # characters: at most 252 bytes
_SAFE_PATH = 3500  # characters. The path of the folder that an engine unpacks into counts too
_MOST_LINKS = 255  # symbolic links in one path; containerd has the same limit
_KNOWN = (FILE, FOLDER, GLOBAL, b"3", b"4", b"6")
_FOLDER, _OTHER, _LINK = 1, 2, 3
_NUMBERS = {FOLDER: _FOLDER, SYMLINK: _LINK, GLOBAL: 0}
_ATTRIBUTE, _SPARSE, _CAPABILITY = "SCHILY.xattr.", "GNU.sparse.", "security.capability"
# Version and size of valid capabilities (linux/capability.h).
_CAPABILITIES = ((b"\1", 12), (b"\2", 20), (b"\3", 24))
_LINK_SIZE, _MOST_LINK_MEMORY = 200, 8 << 20  # bytes: a link without its texts, and all links
_MOST_SLOTS = 1 << 21  # places for 1.4 million paths; 16 MiB
_LONGEST_VALUE = 2048  # bytes; ext4 keeps the attributes of a file in one block


class NotUnpackableError(Exception):
    """Not all engines unpack the layer in the same way. The text says why."""


class Unpacker:
    """Follows what unpacking a layer would do. It writes nothing."""

    def __init__(self) -> None:
        self._paths = _Paths()
        self._links: dict[str, str] = {}
        self._links_size = 0
        self._parent = ""  # the last parent that was made

    def add(self, member: Member) -> None:
        """Unpack a member.

        Raises:
            InvalidTarError: engines refuse the member
            NotUnpackableError: engines differ
        """
        folder, _, name = member.path.rpartition("/")
        if not name:  # the root
            return
        if folder != self._parent:
            self._parent, folder = folder, self._made(folder)
            self._parent = folder if folder == self._parent else ""
        if len(name) > _SAFE_NAME:
            _check_length(name)
        if len(member.path) > _SAFE_PATH:
            raise NotUnpackableError(f"a path has more than {_SAFE_PATH} characters")
        path = f"{folder}/{name}" if folder else name
        if name.startswith(WHITEOUT):
            self._remove(path, folder, name)
        else:
            self._create(path, member)

    def _create(self, path: str, member: Member) -> None:
        kind = member.kind
        if kind == HARD_LINK:
            self._check_target(member, path)
        elif kind == SYMLINK:
            if not 0 < len(member.link.encode(errors="surrogateescape")) <= _LONGEST_PATH:
                raise InvalidTarError(f"the symbolic link {path!r} has no valid target")
            self._links[path] = member.link
            self._links_size += _LINK_SIZE + len(path) + len(member.link)
            if self._links_size > _MOST_LINK_MEMORY:
                raise NotUnpackableError(f"only its first {len(self._links):,} symbolic links were followed")
        elif kind not in _KNOWN:
            raise InvalidTarError(f"{path!r} has the type {kind.decode('latin-1')!r}, which engines refuse")
        if member.records:
            _check_records(path, member.records)
        if self._paths.set(path, _NUMBERS.get(kind, _OTHER)) == _FOLDER and kind != FOLDER:
            raise NotUnpackableError(f"{path!r} replaces a folder of the same layer")

    def _made(self, path: str) -> str:
        """Make a folder and its parents, and return its path without symbolic links."""
        if not path or self._paths.get(path) == _FOLDER:
            return path
        real = self._resolved(path)
        parts = real.split("/") if real else []
        for number in range(1, len(parts) + 1):
            parent = "/".join(parts[:number])
            kind = self._paths.get(parent)
            if kind in (_OTHER, _LINK):
                raise InvalidTarError(f"it has files in {parent!r}, which is not a folder")
            _check_length(parts[number - 1])
            if not kind:
                self._paths.set(parent, _FOLDER)
        return real

    def _resolved(self, path: str) -> str:
        left, real, links = path.split("/")[::-1], "", 0
        while left:
            name = left.pop()
            if name in ("", ".", ".."):
                real = real.rpartition("/")[0] if name == ".." else real
                continue
            path = f"{real}/{name}" if real else name
            target = self._links.get(path) if self._paths.get(path) == _LINK else None
            if target is None:
                real = path
                continue
            links += 1
            if links > _MOST_LINKS:
                raise InvalidTarError(f"it has a file behind more than {_MOST_LINKS} symbolic links")
            real = "" if target.startswith("/") else real
            left += target.split("/")[::-1]
        return real

    def _remove(self, path: str, folder: str, name: str) -> None:
        if name == OPAQUE:
            return
        removed = name[len(WHITEOUT) :]
        if removed in ("", ".", ".."):
            raise InvalidTarError(f"it has the whiteout {path!r}, which removes nothing")
        removed = f"{folder}/{removed}" if folder else removed
        if self._paths.get(removed):
            raise InvalidTarError(f"it has the file {removed!r}, and also its whiteout")
        self._paths.set(removed, _OTHER)

    def _check_target(self, member: Member, path: str) -> None:
        folder, _, name = member.link.rpartition("/")
        folder = self._resolved(folder)
        target = f"{folder}/{name}" if folder else name
        if self._paths.get(target) in (0, _FOLDER) or target == path:
            raise InvalidTarError(f"the hard link {path!r} leads to {member.link!r}, which is no file of this layer")


def _check_length(name: str) -> None:
    removed = name.removeprefix(WHITEOUT)
    if len(removed.encode(errors="surrogateescape")) > _LONGEST_NAME:
        raise InvalidTarError(f"it has a file name of more than {_LONGEST_NAME} bytes")


def _check_records(path: str, records: Mapping[str, str]) -> None:
    """Check extended attributes, which containerd sets, and refuse to judge sparse files."""
    for key, text in records.items():
        name, value = key.removeprefix(_ATTRIBUTE), text.encode(errors="surrogateescape")
        if key.startswith(_SPARSE):
            raise NotUnpackableError(f"{path!r} is a sparse file")
        if not key.startswith(_ATTRIBUTE):
            continue
        if not 0 < len(name) <= _LONGEST_NAME:
            raise InvalidTarError(f"{path!r} has an extended attribute with an invalid name")
        if name == _CAPABILITY and (value[3:4], len(value)) not in _CAPABILITIES:
            raise InvalidTarError(f"{path!r} has invalid capabilities")
        if name.startswith("system.") or len(value) > _LONGEST_VALUE:
            raise NotUnpackableError(f"{path!r} has the extended attribute {name!r}, which not all file systems accept")


class _Paths:
    """A number from 1 to 3 for each path, in about 16 bytes of memory for each: an open hash table of hashes."""

    def __init__(self) -> None:
        self._slots = array("q", [0]) * 1024
        self._used = 0

    def get(self, path: str) -> int:
        """Return the number of a path; 0 for an unknown path."""
        return self._slots[self._slot(hash(path) >> 2)] & 3

    def set(self, path: str, number: int) -> int:
        """Set the number of a path, and return its last one."""
        key = hash(path) >> 2
        slot = self._slot(key)
        last = self._slots[slot]
        self._slots[slot] = key << 2 | number
        if not last:
            self._used += 1
            if self._used * 3 > len(self._slots) * 2:
                self._grow()
        return last & 3

    def _slot(self, key: int) -> int:
        slots, mask = self._slots, len(self._slots) - 1
        slot = key & mask
        while slots[slot] and slots[slot] >> 2 != key:
            slot = (slot + 1) & mask
        return slot

    def _grow(self) -> None:
        old = self._slots
        if len(old) >= _MOST_SLOTS:
            raise NotUnpackableError(f"only its first {self._used:,} paths were compared")
        self._slots = array("q", [0]) * (len(old) * 2)
        for value in old:
            if value:
                self._slots[self._slot(value >> 2)] = value
