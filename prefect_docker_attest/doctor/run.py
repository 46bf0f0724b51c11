"""Whether images that Prefect builds are safe here: what this Python and this Docker Engine are found to be."""

from __future__ import annotations

import re
import threading
import time
from typing import TYPE_CHECKING, Any

from prefect_docker_attest.checks import Check, first_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_LIMIT = 5  # seconds, for importing Prefect and for the answer to a question


def examine() -> list[Check]:
    """Look at everything. Takes 10 seconds at most, whatever the engine does."""
    start = time.monotonic()
    try:
        from prefect_docker_attest import doctor_engine, doctor_python
    except Exception as error:
        found = f"it cannot be imported: {type(error).__name__}: {first_line(error)}"
        return [Check("Prefect", "problem", _masked(found), "`python -c 'import prefect'` shows why.")]
    limit = round(max(2, _LIMIT - (time.monotonic() - start)))
    answers = gather({**doctor_python.questions(limit), **doctor_engine.questions(limit)}, seconds=limit + 1)
    disabled, findings = doctor_python.findings(answers)
    findings |= doctor_engine.findings(answers, disabled=disabled)
    return [Check(name, status, _masked(found), _masked(advice)) for name, (status, found, advice) in findings.items()]


def gather(questions: Mapping[str, Callable[[], Any]], *, seconds: float) -> dict[str, Any]:
    """Ask all questions at once; the answer is an exception where one raised it, or did not come in time."""
    answers: dict[str, Any] = dict.fromkeys(questions, TimeoutError(f"no answer within {seconds:g} seconds"))

    def ask(name: str, question: Callable[[], Any]) -> None:
        try:
            answers[name] = question()
        except Exception as error:
            answers[name] = error

    # No pool: Python would wait for its threads at the end.
    threads = [threading.Thread(target=ask, args=item, daemon=True) for item in questions.items()]
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return dict(answers)


def _masked(text: str) -> str:
    # DOCKER_HOST and proxies may hold a password, and errors quote them.
    return re.sub(r"(?<=://)[^/@\s]*@", "***@", text)
