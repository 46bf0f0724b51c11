"""Warns of files in a build context that the user cannot read.

buildx sends such a file as an empty one if a step copies it, and reports no error (fsutil, send.go: a file that cannot
be opened is sent without data). docker-py refuses a build context with such a file.
"""

from __future__ import annotations

import contextlib
import os
import re
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from docker.utils.build import PatternMatcher

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prefect_docker_attest.options.table import BuildxOptions


def unreadable_warnings(options: BuildxOptions) -> list[str]:
    """Return a warning for each local build context of an image that has files the user cannot read.

    Reading the folders takes about 2 µs of CPU time for each file.
    """
    folders = [options.context, *options.build_contexts.values()]
    return [warning for folder in folders if os.path.isdir(folder) and (warning := _warning(folder, options))]


def _warning(folder: str, options: BuildxOptions) -> str:
    """Return the warning for a folder; ``""`` if no file needs one."""
    matcher: Any = PatternMatcher(_ignore_patterns(folder, options))
    try:
        sent = sorted(_unreadable(folder, matcher.patterns))
    except re.error:  # BuildKit refuses the pattern, and names it
        return ""
    if not sent:
        return ""
    others = f" and {len(sent) - 1} more" if len(sent) > 1 else ""
    return (
        f"You cannot read {sent[0]!r}{others} in the build context {folder}. If a step copies such a file, it is empty "
        "in the image. Make it readable, or add it to .dockerignore."
    )


def _unreadable(folder: str, patterns: Sequence[Any]) -> Iterator[str]:
    """Yield the paths in a folder of files that are sent and that the user cannot read.

    BuildKit itself reports folders that cannot be read. Ignored folders are not entered, unless a pattern has a "!".
    """
    folders, enters_ignored = [""], any(pattern.exclusion for pattern in patterns[:-1])  # the last one is docker-py's
    while folders:
        parent = folders.pop()
        with contextlib.suppress(OSError), os.scandir(os.path.join(folder, parent)) as entries:
            for entry in entries:
                path = os.path.join(parent, entry.name)
                if entry.is_dir(follow_symlinks=False):
                    folders += [path] if enters_ignored or not _is_ignored(path, patterns) else []
                elif _cannot_be_read(entry) and not _is_ignored(path, patterns):
                    yield path


def _cannot_be_read(entry: os.DirEntry[str]) -> bool:
    """Whether this is a file that the user cannot read, and that was not deleted a moment ago."""
    return entry.is_file(follow_symlinks=False) and not os.access(entry.path, os.R_OK) and os.path.exists(entry.path)


def _is_ignored(path: str, patterns: Sequence[Any]) -> bool:
    """Whether the last pattern that matches the path, or a folder above it, ignores it, as BuildKit decides."""
    above = list(accumulate(path.split(os.sep), os.path.join))
    found = [pattern for pattern in patterns if any(map(pattern.match, above))]
    return bool(found) and not found[-1].exclusion


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
