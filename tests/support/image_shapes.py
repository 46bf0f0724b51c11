"""Makes layers for amd64 and arm64 from the files in Debian's packages."""

from __future__ import annotations

import functools
import gzip
import io
import shutil
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from conftest import debian_only, missing
from engines import machine
from engines.machine import CommandFailed, EngineUnavailable
from engines.packages import cache_folder, downloaded, mirror_of_the_machine, new_in_cache

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

ARCHITECTURES = ("amd64", "arm64")
_PACKAGES = ("base-files", "bash", "busybox-static", "coreutils", "dash", "gosu", "hello", "python3-minimal")
# A part of the cache folder's name. Increase it when the content below changes.
_REVISION = 1

DEBIAN = ("base-files", "bash", "coreutils", "dash", "libacl1", "libc6", "libselinux1", "libtinfo6")


def packages() -> Path:
    """Return the folder with the unpacked packages, such as `amd64/bash/bin/bash`.

    If they cannot be downloaded, the test is skipped; in CI it fails.
    """
    debian_only()
    try:
        with machine.lock():
            mirror = mirror_of_the_machine()
            folder = cache_folder() / f"shapes-on-{mirror.suite}-{_REVISION}"
            if not folder.is_dir():
                with new_in_cache(folder) as part:
                    for architecture in ARCHITECTURES:
                        _fetch(part, architecture)
    except (CommandFailed, EngineUnavailable) as error:
        missing(f"apt cannot download packages for images: {error}")
    return folder


def _fetch(part: Path, architecture: str) -> None:
    with downloaded(architecture, _PACKAGES, part) as packages:
        for package in packages:
            target = part / architecture / package.name.partition("_")[0]
            target.mkdir(parents=True)
            machine.run(["dpkg", "-x", str(package), str(target)])
            shutil.rmtree(target / "usr/share", ignore_errors=True)


@dataclass(frozen=True)
class File:
    """A member of a layer: a file with this content, or a link if `link` is set."""

    path: str
    content: bytes = b""
    link: str = ""
    kind: bytes = tarfile.REGTYPE
    mode: int = 0o755


def whiteout(path: str) -> File:
    """Return the file that removes a file of a lower layer."""
    folder, slash, name = path.rpartition("/")
    return File(f"{folder}{slash}.wh.{name}")


def tree(folder: Path) -> Iterator[File]:
    """Yield the files below a folder."""
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            yield File(name, link=str(path.readlink()), kind=tarfile.SYMTYPE)
        elif path.is_dir():
            yield File(name, kind=tarfile.DIRTYPE)
        elif path.is_file():
            yield File(name, path.read_bytes(), mode=path.stat().st_mode & 0o7777)


def layer(files: Iterable[File], tar_format: int = tarfile.GNU_FORMAT) -> bytes:
    """Return a layer as a gzip file."""
    return _layer(tuple(files), tar_format)


@functools.cache
def _layer(files: tuple[File, ...], tar_format: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as archive:
        for file in files:
            entry = tarfile.TarInfo(file.path)
            entry.mode, entry.linkname, entry.size = file.mode, file.link, len(file.content)
            entry.type = file.kind
            archive.addfile(entry, io.BytesIO(file.content))
    return gzip.compress(buffer.getvalue(), 1, mtime=0)
