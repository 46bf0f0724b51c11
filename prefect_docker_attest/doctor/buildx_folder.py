"""Checks that buildx can write its files. Every build writes some, such as the time of the builder's last activity."""

from __future__ import annotations

import os

ADVICE = "Make it a writable folder, or set BUILDX_CONFIG to one."

_FOLDERS, _WRITTEN = ("instances", "defaults", "activity", "refs"), "activity"
"""The folders that buildx makes if they do not exist, and the one in which each build writes (seen with buildx 0.13 and
0.29). Builds also work if the others and the folder with all of them cannot be written."""


def find_trouble() -> str:
    """Return why buildx cannot write its files; ``""`` if it can."""
    config, variable = os.environ.get("DOCKER_CONFIG"), "DOCKER_CONFIG"
    folder = os.path.join(config or os.path.expanduser("~/.docker"), "buildx")
    if own := os.environ.get("BUILDX_CONFIG"):
        folder, variable = own, "BUILDX_CONFIG"
    origin = f" ({variable})" if own or config else ""
    reasons = (_trouble(os.path.join(os.path.abspath(folder), name)) for name in _FOLDERS)
    reason = next(filter(None, reasons), "")
    return f"buildx cannot write its files: {reason}{origin}" if reason else ""


def _trouble(path: str) -> str:
    existing = path
    while not os.path.lexists(existing):
        existing = os.path.dirname(existing)
    if not os.path.isdir(existing):
        return f"{existing} is not a folder"
    is_written = existing != path or os.path.basename(path) == _WRITTEN
    if not is_written or os.access(existing, os.W_OK):
        return ""
    read_only = hasattr(os, "statvfs") and os.statvfs(existing).f_flag & os.ST_RDONLY
    return f"{existing} is on a read-only file system" if read_only else f"{existing} is not writable"
