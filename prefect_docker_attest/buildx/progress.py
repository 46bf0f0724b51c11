"""Finds out from BuildKit's plain progress whether a build makes progress, and which steps run. Pure."""

from __future__ import annotations

import re

# `#4 sha256:... 1.05MB / 3.01MB 15.5s`. A line of a step's output has the step's time directly after its number.
_TRANSFER = re.compile(
    r"(?P<what>#\d+ (?!\d+\.\d+ ).+?) (?P<said>\d[\d.]*[kMGTPE]?B(?: / \d[\d.]*[kMGTPE]?B)?) \d+\.\d+s$"
)
# `#4 [1/2] FROM ...`. buildx repeats this line when it switches between the output of two steps.
_STEP = re.compile(r"(?P<what>#\d+ \[.*)(?P<said>)$")
_HEADING = re.compile(r"#(?P<number>\d+) (?P<name>.*)")
_END = re.compile(r"#(?P<number>\d+) (DONE|CACHED|CANCELED|ERROR)\b")
_LONGEST_NAME = 80  # characters
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


class RunningSteps:
    """The steps that run at the moment."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._previous = ""

    def read_line(self, line: str) -> None:
        """Read the next line of the output.

        BuildKit prints an empty line before the name of a step, and after the line that ends a step.
        """
        if line == "\n":
            if end := _END.match(self._previous):
                self._names.pop(end["number"], None)
        elif self._previous == "\n" and (heading := _HEADING.match(line)):
            self._names[heading["number"]] = heading["name"]
        self._previous = line

    def __str__(self) -> str:
        return ", ".join(_shortened(name) for name in self._names.values())


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}..."
