"""Checks that buildx can write its files. Every build writes some, such as the time of the builder's last activity."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ADVICE = "Make it a writable folder, or set BUILDX_CONFIG to one."

_FOLDERS, _LOCK = ("instances", "defaults", "activity", "refs"), ".lock"
_MOST_FOLDERS = 200  # to look at


def find_trouble() -> str:
    """Return why buildx cannot write its files; ``""`` if it can."""
    config, variable = os.environ.get("DOCKER_CONFIG"), "DOCKER_CONFIG"
    folder = os.path.join(config or os.path.expanduser("~/.docker"), "buildx")
    if own := os.environ.get("BUILDX_CONFIG"):
        folder, variable = own, "BUILDX_CONFIG"
    origin = f" ({variable})" if own or config else ""
    path = next(filter(None, map(_trouble, _paths(os.path.abspath(folder)))), "")
    return f"buildx cannot write its files: {path}{origin}" if path else ""


def _paths(folder: str) -> Iterator[str]:
    """Give the paths in which buildx writes. If its folder does not exist, it is made in the next one that does."""
    existing = folder
    while not os.path.lexists(existing):
        existing = os.path.dirname(existing)
    yield existing
    if existing == folder:
        yield from filter(os.path.lexists, (os.path.join(folder, name) for name in (*_FOLDERS, _LOCK)))
        for inner, folders, _ in itertools.islice(os.walk(folder), _MOST_FOLDERS):
            yield from (os.path.join(inner, name) for name in folders)


def _trouble(path: str) -> str:
    if not os.path.isdir(path) and os.path.basename(path) != _LOCK:
        return f"{path} is not a folder"
    if os.access(path, os.W_OK):
        return ""
    read_only = hasattr(os, "statvfs") and os.statvfs(path).f_flag & os.ST_RDONLY
    return f"{path} is on a read-only file system" if read_only else f"{path} is not writable"
