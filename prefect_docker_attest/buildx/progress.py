"""What BuildKit's plain progress tells of whether a build gets on. Pure."""

from __future__ import annotations

import re

# `#4 sha256:... 1.05MB / 3.01MB 15.5s`; a line that a step printed has the step's time after its number.
_TRANSFER = re.compile(
    r"(?P<what>#\d+ (?!\d+\.\d+ ).+?) (?P<said>\d[\d.]*[kMGTPE]?B(?: / \d[\d.]*[kMGTPE]?B)?) \d+\.\d+s$"
)
# `#4 [1/2] FROM ...`, said again whenever the lines of two steps take turns.
_STEP = re.compile(r"(?P<what>#\d+ \[.*)(?P<said>)$")
_TURN = re.compile(r"(?:#\d+ \.\.\.)?$")


class News:
    """Tells the lines that are news from those that buildx repeats, whatever happens.

    Of a download that is stuck, say, it shows the same size every five seconds, with the time grown: a limit of
    silence would never be passed.
    """

    def __init__(self) -> None:
        self._said: dict[str, str] = {}

    def __call__(self, line: str) -> bool:
        """Whether a line says something that its like has not said before."""
        line = line.rstrip("\r\n")
        if _TURN.match(line):
            return False
        found = _TRANSFER.match(line) or _STEP.match(line)
        if not found:
            return True
        news = self._said.get(found["what"]) != found["said"]
        self._said[found["what"]] = found["said"]
        return news
