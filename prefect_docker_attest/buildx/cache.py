"""Finds build caches that were not read or written, or that buildx ignores. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prefect_docker_attest.options.table import BuildxOptions

_EXPORTING = re.compile(r"#(?P<step>\d+) exporting (?:cache|to GitHub Actions Cache)")
_IMPORTING = re.compile(r"#(?P<step>\d+) importing cache manifest from (?P<cache>\S+)")
_MISSING = re.compile(r": not found$")
_ERROR = re.compile(r"#(?P<step>\d+) ERROR: (?P<text>.*)")


class CacheErrors:
    """Collects the errors of caches from the output of one build, which BuildKit builds without these caches.

    Attributes:
        unwritten: errors of caches that could not be written, each once
        unread: errors of caches that could not be read, although they may exist, each once
    """

    def __init__(self) -> None:
        self._exports: set[str] = set()
        self._imports: dict[str, str] = {}
        self.unwritten: dict[str, None] = {}
        self.unread: dict[str, None] = {}

    def read_line(self, line: str) -> str:
        """Read a line of the build's output, and return a line to show after it; ``""`` if there is none."""
        if not line.startswith("#"):
            return ""
        if export := _EXPORTING.match(line):
            self._exports.add(export["step"])
        elif start := _IMPORTING.match(line):
            self._imports[start["step"]] = start["cache"]
        elif (self._exports or self._imports) and (error := _ERROR.match(line)):
            text = error["text"].strip()
            if error["step"] in self._exports:
                self.unwritten[text] = None
            elif cache := self._imports.get(error["step"]):
                if _MISSING.search(text):
                    return f"#{error['step']} no cache yet: this is normal for the first build\n"
                self.unread[f"{cache}: {text}"] = None
        return ""


def ignored_caches(options: BuildxOptions, environment: Mapping[str, str]) -> Iterator[str]:
    """Yield a warning if buildx ignores a cache of GitHub Actions, because it does not know the cache's address.

    Args:
        options: options of the build
        environment: environment of the build
    """
    entries = [entry for entry in (*options.cache_from, *options.cache_to) if re.search(r"(^|,)type=gha(,|$)", entry)]
    told = environment.get("ACTIONS_RUNTIME_TOKEN") or any("token=" in entry for entry in entries)
    if entries and not told:
        yield (
            "buildx ignores the cache type=gha, because ACTIONS_RUNTIME_TOKEN is not set. In GitHub Actions, pass the "
            "variables ACTIONS_* to the step that builds (docs/settings.md)."
        )
