"""What a check of the doctor's found, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

Status = Literal["ok", "warning", "problem", "skipped"]
Finding = tuple[Status, str, str]
"""A check's status, what was found, and what to do next (``""`` where nothing is)."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: what
        status: ``problem`` where builds fail or images go wrong, ``warning`` where they may, ``skipped`` after one
        found: what was seen
        advice: what to do next, where something is
    """

    name: str
    status: Status
    found: str
    advice: str = ""


def well(checks: Sequence[Check]) -> bool:
    """Whether nothing needs to be done."""
    return all(check.status != "problem" for check in checks)


def first_line(error: object) -> str:
    """What an error says, in a line."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
