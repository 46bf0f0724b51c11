"""Warns of files in a build context that the user cannot read.

buildx sends such a file as an empty one if a step copies it, and reports no error (fsutil, send.go: a file that cannot
be opened is sent without data). docker-py refuses a build context with such a file.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

from docker.utils.build import PatternMatcher

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prefect_docker_attest.options.table import BuildxOptions


def unreadable_warnings(options: BuildxOptions) -> list[str]:
    """Return a warning for each local build context of an image that has files the user cannot read.

    Reading the folders takes about 2 µs of CPU time for each file.
    """
    folders = [options.context, *options.build_contexts.values()]
    return [warning for folder in folders if os.path.isdir(folder) and (warning := _warning(folder, options))]


def _warning(folder: str, options: BuildxOptions) -> str:
    """Return the warning for a folder; ``""`` if no file needs one."""
    unreadable = [os.path.relpath(path, folder) for path in _unreadable(folder) if os.path.exists(path)]
    if not unreadable:
        return ""
    ignored: Any = PatternMatcher(_ignore_patterns(folder, options))
    sent = sorted(path for path in unreadable if not ignored.matches(path))
    if not sent:
        return ""
    others = f" and {len(sent) - 1} more" if len(sent) > 1 else ""
    return (
        f"You cannot read {sent[0]!r}{others} in the build context {folder}. If a step copies such a file, it is empty "
        "in the image. Make it readable, or add it to .dockerignore."
    )


def _unreadable(folder: str) -> Iterator[str]:
    """Yield the paths of files that the user cannot read. BuildKit itself reports folders that cannot be read."""
    folders = [folder]
    while folders:
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif entry.is_file(follow_symlinks=False) and not os.access(entry.path, os.R_OK):
                    yield entry.path


def _ignore_patterns(folder: str, options: BuildxOptions) -> list[str]:
    """Return the patterns of the .dockerignore that BuildKit uses for a folder."""
    own = f"{options.local_dockerfile}.dockerignore" if folder == options.context else ""
    for path in (own, os.path.join(folder, ".dockerignore")):
        try:
            with open(path, encoding="utf-8-sig", errors="replace") as file:
                lines = [line.strip() for line in file]
        except (OSError, ValueError):  # it does not exist
            continue
        return [line for line in lines if line and not line.startswith("#")]
    return []
