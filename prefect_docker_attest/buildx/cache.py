"""Finds build caches that were not written, or that buildx ignores. The image is built without such a cache. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prefect_docker_attest.options.table import BuildxOptions

_EXPORTING = re.compile(r"#(?P<step>\d+) exporting (?:cache|to GitHub Actions Cache)")
_ERROR = re.compile(r"#(?P<step>\d+) ERROR: (?P<text>.*)")


class CacheExports:
    """Collects the errors of caches that could not be written, from the output of one build."""

    def __init__(self) -> None:
        self._steps: set[str] = set()
        self._errors: list[str] = []

    def read_line(self, line: str) -> None:
        """Read a line of the build's output."""
        if export := _EXPORTING.match(line):
            self._steps.add(export["step"])
        elif self._steps and (error := _ERROR.match(line)) and error["step"] in self._steps:
            self._errors.append(error["text"].strip())

    @property
    def errors(self) -> list[str]:
        """The errors, each once."""
        return list(dict.fromkeys(self._errors))


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
