"""Finds out from BuildKit's plain progress whether a build makes progress. Pure."""

from __future__ import annotations

import re

# `#4 sha256:... 1.05MB / 3.01MB 15.5s`. A line of a step's output has the step's time directly after its number.
_TRANSFER = re.compile(
    r"(?P<what>#\d+ (?!\d+\.\d+ ).+?) (?P<said>\d[\d.]*[kMGTPE]?B(?: / \d[\d.]*[kMGTPE]?B)?) \d+\.\d+s$"
)
# `#4 [1/2] FROM ...`. buildx repeats this line when it switches between the output of two steps.
_STEP = re.compile(r"(?P<what>#\d+ \[.*)(?P<said>)$")
_SWITCH = re.compile(r"(?:#\d+ \.\.\.)?$")


class ProgressTracker:
    """Distinguishes lines that show progress from lines that buildx repeats.

    During a stalled download, for example, buildx shows the same size every five seconds, with a longer time. These
    lines must not count as output, or the idle timeout would never end the build.
    """

    def __init__(self) -> None:
        self._said: dict[str, str] = {}

    def __call__(self, line: str) -> bool:
        """Whether a line shows progress: it differs from the last line about the same transfer or step."""
        line = line.rstrip("\r\n")
        if _SWITCH.match(line):
            return False
        found = _TRANSFER.match(line) or _STEP.match(line)
        if not found:
            return True
        made_progress = self._said.get(found["what"]) != found["said"]
        self._said[found["what"]] = found["said"]
        return made_progress
