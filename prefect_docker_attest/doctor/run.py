"""Runs the doctor's checks of this Python, its settings and Docker."""

from __future__ import annotations

import re
import threading
import time
from typing import TYPE_CHECKING, Any

from prefect_docker_attest.doctor import docker_checks, python_checks, setting_checks
from prefect_docker_attest.doctor.check import Answers, Check
from prefect_docker_attest.doctor.setting_files import UnansweredError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from prefect_docker_attest.doctor.check import Finding

    Group = Mapping[str, Callable[[], Any]]
    """Questions by name, which are asked one after the other."""

_QUESTION_TIME, _ALL_TIME = 5, 8  # seconds
_REFRESH = 0.05  # seconds between two updates of the output


def run_checks(show: Callable[[Mapping[str, Check | None]], None] = lambda _checks: None) -> list[Check]:
    """Run all checks. It takes at most 9 seconds, even if Docker, Prefect or a settings file never answers.

    Args:
        show: called with the checks by name whenever an answer has arrived; checks that still run are `None`
    """
    groups = [*python_checks.questions(_QUESTION_TIME), *docker_checks.questions(_QUESTION_TIME)]
    answers = Answers()
    threads = ask(groups, answers)
    end = time.monotonic() + _ALL_TIME
    seen = -1
    while any(thread.is_alive() for thread in threads) and time.monotonic() < end:
        if seen != len(answers):
            seen = len(answers)
            show(checks_of(_findings(answers)))
        time.sleep(_REFRESH)
    late = TimeoutError(f"no answer within {_ALL_TIME} seconds")
    findings = _findings(Answers({name: answers.get(name, late) for group in groups for name in group}))
    checks = checks_of(findings)
    show(checks)
    return [check for check in checks.values() if check is not None]


def ask(groups: Sequence[Group], answers: dict[str, Any]) -> list[threading.Thread]:
    """Ask the questions of each group in a separate daemon thread, and return the threads.

    Args:
        groups: the questions
        answers: dict to which the answers are added; the answer of a question that fails is its exception
    """

    def work(group: Group) -> None:
        unanswered: UnansweredError | None = None
        for name, question in group.items():
            # The next question of the group would wait for the same file.
            answers[name] = answer = unanswered or _answer(question)
            unanswered = answer if isinstance(answer, UnansweredError) else None

    threads = [threading.Thread(target=work, args=(group,), daemon=True) for group in groups]
    for thread in threads:
        thread.start()
    return threads


def _answer(question: Callable[[], Any]) -> Any:
    try:
        return question()
    except BaseException as error:  # also SystemExit, which some modules raise when they are imported
        return error


def _findings(answers: Answers) -> dict[str, Finding | None]:
    disabled = python_checks.disabled(answers)
    return {
        **python_checks.findings(answers),
        **docker_checks.findings(answers, buildx=setting_checks.buildx_builds_all(answers, disabled=disabled)),
        **setting_checks.findings(answers, disabled=disabled),
    }


def checks_of(findings: Mapping[str, Finding | None]) -> dict[str, Check | None]:
    """Convert findings into checks, by name. Passwords in addresses are masked."""
    return {
        name: Check(name, finding[0], _masked(finding[1]), _masked(finding[2])) if finding else None
        for name, finding in findings.items()
    }


def _masked(text: str) -> str:
    # Errors quote DOCKER_HOST and addresses of proxies, which can contain a password.
    return re.sub(r"(?<=://)[^/@\s]*@", "***@", text)
