"""Warns if a build cache was not written, or if buildx ignores it. The image is built without the cache."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prefect_docker_attest.options.table import BuildxOptions

_EXPORTING = re.compile(r"#(?P<step>\d+) exporting (?:cache|to GitHub Actions Cache)")
_ERROR = re.compile(r"#(?P<step>\d+) ERROR: (?P<text>.*)")


class CacheExports:
    """Finds caches that could not be written in the output of one build."""

    def __init__(self) -> None:
        self._steps: set[str] = set()
        self._errors: list[str] = []

    def read(self, line: str) -> None:
        """Read a line of the build's output."""
        if found := _EXPORTING.match(line):
            self._steps.add(found["step"])
        elif self._steps and (found := _ERROR.match(line)) and found["step"] in self._steps:
            self._errors.append(found["text"].strip())

    def warnings(self) -> Iterator[str]:
        """Yield warnings for the user. Call it after the build has succeeded."""
        for error in dict.fromkeys(self._errors):
            yield f"The image was built, but its build cache was not written: {error}"


def inactive(options: BuildxOptions, environment: Mapping[str, str]) -> Iterator[str]:
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
