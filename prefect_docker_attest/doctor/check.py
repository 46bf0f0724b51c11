"""What a check of the doctor finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Status = Literal["ok", "warning", "problem", "unknown", "skipped"]

STATUSES: tuple[Status, ...] = get_args(Status)

_LONGEST_LINE = 300  # characters


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        status: ``problem``: builds fail, or images are wrong; ``warning``: this is possible; ``unknown``: an answer did
            not arrive in time, so nothing is known; ``skipped``: another check found a problem first
        found: what was found, with values
        advice: what to do next; ``""`` if there is nothing to do
    """

    status: Status
    found: str
    advice: str = ""


class SeeOther(Exception):
    """A check has no result of its own, because of another check.

    Attributes:
        name: name of the other check
        status: ``skipped`` if the other check found a problem, ``unknown`` if its result is not known
    """

    def __init__(self, name: str, status: Literal["unknown", "skipped"] = "skipped") -> None:
        super().__init__(f"see {name}")
        self.status = status


def first_line(error: object) -> str:
    """Return the first line of an error's text, or the name of its class if it has no text."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line[:_LONGEST_LINE] for line in lines if line), type(error).__name__)


def is_caused_by(error: BaseException, kind: type[BaseException]) -> bool:
    """Return whether an exception is of this type, or has one as its cause or, like those of requests, inside."""
    found = [error]
    for each in found:  # grows
        inner = [each.__cause__, each.__context__, *each.args]
        found += [one for one in inner if isinstance(one, BaseException) and one not in found]
    return any(isinstance(each, kind) for each in found)


class NoAnswerError(Exception):
    """An answer did not arrive in time. The text names the question."""
