"""Reads a layer's tar: its programs and links, and the files of lower layers that it removes or replaces."""

from __future__ import annotations

import threading
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from prefect_docker_attest.images import tar_stream
from prefect_docker_attest.images.executables import HEAD, MAGIC, Executable, may_be_executable, read_executable
from prefect_docker_attest.images.tar_stream import FOLDER, GLOBAL, HARD_LINK, InvalidTarError
from prefect_docker_attest.images.unpacking import OPAQUE, WHITEOUT, NotUnpackableError, Unpacker

if TYPE_CHECKING:
    from prefect_docker_attest.images.stream import PieceReader
    from prefect_docker_attest.images.tar_stream import Member

_SMALLEST = 4  # size of the smallest program, in bytes: `#!/x`
_LONGEST_LINE = 256  # bytes of a script's first line; Linux reads the same number
_ENTRY, _HASH = 300, 8  # bytes of memory for an entry without its path and link target, and for a hash


class Script(NamedTuple):
    """An executable text file.

    Attributes:
        line: the first line of the file, after ``#!``
    """

    line: str

    @property
    def interpreter(self) -> list[str]:
        """The interpreter and its arguments. ``env`` splits them at spaces; Linux passes one argument."""
        words = self.line.split(None, 1) or [""]
        return self.line.split() if words[0].endswith("/env") else words


class Link(NamedTuple):
    """A symbolic link, or a hard link to a file of this layer or of a lower layer."""

    target: str
    hard: bool


Entry = Executable | Script | Link


class Budget:
    """The memory that the entries of all layers of an image may use.

    Args:
        size: in bytes
    """

    def __init__(self, size: int) -> None:
        self._left = size
        self._lock = threading.Lock()

    def take(self, size: int) -> bool:
        """Take this number of bytes, and return whether they were available."""
        with self._lock:
            self._left -= size
            return self._left >= 0


@dataclass
class LayerFiles:
    """The files of one layer. Paths are relative to the root, without a slash at the start or the end.

    Attributes:
        entries: programs, scripts and links by their paths
        removed: paths of files and folders of lower layers that this layer removes
        emptied: paths of folders whose content in lower layers this layer removes
        folders: hashes of the paths of all folders
        others: hashes of the paths of all other files
        complete: whether programs and links of the whole tar were recorded
        problem: why engines refuse the tar, or do not all unpack it; ``""`` for a sound tar
        refused: whether engines refuse the tar
    """

    entries: dict[str, Entry] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    emptied: set[str] = field(default_factory=set)
    folders: array[int] = field(default_factory=lambda: array("q"))
    others: array[int] = field(default_factory=lambda: array("q"))
    complete: bool = True
    problem: str = ""
    refused: bool = False


def read_files(tar: PieceReader, budget: Budget) -> LayerFiles:
    """Read a layer's tar. The result is incomplete if the tar has a problem, or if the budget is used up."""
    files, unpacker = LayerFiles(), Unpacker()
    try:
        for member in tar_stream.members(tar):
            unpacker.add(member)
            files.complete = files.complete and budget.take(_record(files, member, tar))
    except (InvalidTarError, NotUnpackableError) as error:
        files.complete, files.problem, files.refused = False, str(error), isinstance(error, InvalidTarError)
    return files


def _record(files: LayerFiles, member: Member, tar: PieceReader) -> int:
    """Record a member, and return the number of bytes of memory that it needs."""
    path = member.path
    if member.kind == GLOBAL:
        return 0
    folder, _, name = path.rpartition("/")
    if name.startswith(WHITEOUT):
        if name == OPAQUE:
            files.emptied.add(folder)
        else:
            files.removed.add(path[: -len(name)] + name[len(WHITEOUT) :])
    elif member.link:
        files.entries[path] = Link(member.link, member.kind == HARD_LINK)
    elif member.kind == FOLDER:
        files.folders.append(hash(path))
        return _HASH
    else:
        entry = _executable(member, tar)
        if entry is None:
            files.entries.pop(path, None)
            files.others.append(hash(path))
            return _HASH
        files.entries[path] = entry
    return _ENTRY + len(path) + len(member.link)


def _executable(member: Member, tar: PieceReader) -> Executable | Script | None:
    if member.size < _SMALLEST:
        return None
    start = member.read(tar, MAGIC)
    if start.startswith(b"#!"):
        if not member.mode & 0o111:
            return None
        line = (start + member.read(tar, _LONGEST_LINE)).partition(b"\n")[0]
        return Script(line[2:].decode(errors="replace").strip())
    if not may_be_executable(start):
        return None
    return read_executable(start + member.read(tar, HEAD - MAGIC))
