"""The checks of the doctor, and their results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Status = Literal["ok", "warning", "problem", "skipped"]
Finding = tuple[Status, str, str]
"""The status of a check, what was found, and what to do next (``""`` if there is nothing to do)."""

_LONGEST_LINE = 300  # characters


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        name: name of the check
        status: ``problem``: builds fail, or images are wrong; ``warning``: this is possible; ``skipped``: another check
            found a problem first
        found: what was found, with values
        advice: what to do next; ``""`` if there is nothing to do
    """

    name: str
    status: Status
    found: str
    advice: str = ""


class Pending(Exception):
    """A check needs an answer that has not arrived yet."""


class Answers(dict[str, Any]):
    """The answers to the doctor's questions, by name. The answer of a question that failed is its exception.

    Reading an answer that has not arrived yet raises `Pending`.
    """

    def __missing__(self, name: str) -> Any:
        raise Pending(name)


def judge_all(
    judges: Mapping[str, Callable[[], Finding]], needs: Mapping[str, Sequence[str]]
) -> dict[str, Finding | None]:
    """Run functions that evaluate answers, and return their findings by check.

    The finding is `None` if an answer has not arrived yet. If a function fails because of a bug, this is the finding of
    its check, and the other checks still run.

    Args:
        judges: the function for each check
        needs: for each check, the checks that must not have found a problem; otherwise it is skipped
    """
    found: dict[str, Finding | None] = {}
    for name, judge in judges.items():
        before = {need: found[need] for need in needs.get(name, ())}
        missing = [need for need, finding in before.items() if finding and finding[0] in ("problem", "skipped")]
        if missing:
            found[name] = "skipped", f"see {missing[0]}", ""
        elif None in before.values():
            found[name] = None
        else:
            found[name] = _judged(judge)
    return found


def _judged(judge: Callable[[], Finding]) -> Finding | None:
    try:
        return judge()
    except Pending:
        return None
    except Exception as error:
        found = f"could not be checked: {type(error).__name__}: {first_line(error)}"
        return "warning", found, "This is a bug of prefect-docker-attest. Please report it with this line."


def all_passed(checks: Sequence[Check]) -> bool:
    """Whether no check found a problem. Warnings are allowed."""
    return all(check.status != "problem" for check in checks)


def first_line(error: object) -> str:
    """Return the first line of an error's text, or the name of its class if it has no text."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line[:_LONGEST_LINE] for line in lines if line), type(error).__name__)
