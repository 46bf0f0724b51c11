"""Runs the doctor's checks of this Python, its settings and Docker.

All questions are asked at the same time, each in a thread. Each check is a function in a thread of its own, which waits
for the answers and for the other checks that it needs.
"""

from __future__ import annotations

import dataclasses
import re
import time
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import TYPE_CHECKING, Any

from prefect_docker_attest.doctor import (
    activation,
    buildx_folder,
    docker_checks,
    docker_commands,
    engine_facts,
    prefect_facts,
    python_checks,
    setting_checks,
    setting_files,
)
from prefect_docker_attest.doctor.answers import Answer, Answers
from prefect_docker_attest.doctor.check import Finding, NoAnswerError, SeeOther, Status, first_line
from prefect_docker_attest.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

DEFAULT_LIMIT = 30
"""Seconds to wait for answers."""

CHECKS: Mapping[str, Callable[[Answers], Finding | None]] = {
    "package": python_checks.package,
    "Prefect": python_checks.prefect,
    "docker-py": python_checks.docker_py,
    "prefect on PATH": python_checks.prefect_on_path,
    "setting": setting_checks.setting,
    "docker CLI": docker_checks.docker_cli,
    "buildx": docker_checks.buildx,
    "engine": docker_checks.engine,
    "same engine": docker_checks.same_engine,
    "image store": docker_checks.image_store,
    "builder": docker_checks.builder,
    "emulation": docker_checks.emulation,
    "cross-platform": docker_checks.cross_platform,
    "build settings": setting_checks.build_settings,
    "misspelled settings": setting_checks.misspelled,
}
"""The checks by name, in the order in which they are shown."""

_OPTIONAL = ("build settings", "misspelled settings")
"""Checks that usually have no result. They are shown when they are done."""

_ONLY_FOR_BUILDX = ("docker CLI", "buildx", "builder")
"""Checks of what only images with buildx-only options need while all settings are off."""

_ALL_AT_ONCE = 64  # threads: more than there are questions and checks, because some wait for others
_LATE_COMMANDS = 2  # seconds to stop commands that take too long


def run_checks(
    limit: int = DEFAULT_LIMIT, show: Callable[[Mapping[str, Finding | None]], None] = lambda _findings: None
) -> dict[str, Finding]:
    """Run all checks, and return their results by name. It ends when all answers have arrived.

    Args:
        limit: seconds after which an answer is not waited for
        show: called with the results when another one is known; a check that still runs has none
    """
    running = start_checks(ask_all(limit))
    pending: set[Future[Finding | None]] = set(running.values())
    while pending:
        known = {name: future.result() if future.done() else None for name, future in running.items()}
        show({name: finding for name, finding in known.items() if finding or name not in _OPTIONAL})
        _, pending = wait(pending, return_when=FIRST_COMPLETED)
    findings = {name: finding for name, future in running.items() if (finding := future.result())}
    show(findings)
    return findings


def ask_all(limit: int) -> Answers:
    """Ask all questions.

    Args:
        limit: seconds after which an answer is not waited for
    """
    workers = Workers(_ALL_AT_ONCE)
    end = time.monotonic() + limit

    def ask(late: str, function: Callable[..., Any], *arguments: Any, extra: int = 0) -> Answer[Any]:
        return Answer(workers.submit(function, *arguments), end + extra, late)

    def run(function: Callable[..., Any], *arguments: Any) -> Answer[Any]:
        # A command is stopped at the limit, and its thread then says which one it was.
        return ask(f"a command took longer than {limit} s", function, *arguments, extra=_LATE_COMMANDS)

    files = {
        path: ask(f"{path} cannot be read within {limit} seconds", setting_files.check_file, path)
        for path in setting_files.setting_files()
    }
    return Answers(
        limit=limit,
        files=files,
        docker_py=ask(f"`import docker` took longer than {limit} s", engine_facts.import_docker_py),
        prefect=run(prefect_facts.ask_prefect, [file.future for file in files.values()], limit),
        command=ask(
            f"the Python of `prefect` was not found within {limit} s",
            activation.find_prefect_command,
            limit,
            extra=_LATE_COMMANDS,
        ),
        cli=run(docker_commands.ask_docker, limit, ["--version"]),
        buildx=run(docker_commands.ask_docker, limit, ["buildx", "version"]),
        folder=ask(f"the folder of buildx gave no answer within {limit} s", buildx_folder.find_trouble),
        api_version=run(docker_commands.refused_api_version, limit),
        cli_engine=run(docker_commands.ask_docker, limit, docker_commands.ENGINE_ID),
        build_engine=run(docker_commands.ask_builds, limit, docker_commands.ENGINE_ID),
        builder=run(docker_commands.ask_builds, limit, ["buildx", "inspect"]),
        engine=ask(f"no answer within {limit} s", engine_facts.ask_engine, limit),
    )


def start_checks(answers: Answers) -> dict[str, Future[Finding | None]]:
    """Start all checks, and return their future results by name.

    Args:
        answers: the answers that the checks wait for
    """
    workers = Workers(_ALL_AT_ONCE)
    answers.findings.update({name: Future() for name in CHECKS})
    for name, check in CHECKS.items():
        workers.submit(lambda name, check: answers.findings[name].set_result(_checked(check, answers)), name, check)
    return {
        name: workers.submit(_weighed, future, answers) if name in _ONLY_FOR_BUILDX else future
        for name, future in answers.findings.items()
    }


def _checked(check: Callable[[Answers], Finding | None], answers: Answers) -> Finding | None:
    """Run a check. If it fails because of a bug, this is its result, and the other checks still run."""
    try:
        finding = check(answers)
    except NoAnswerError as late:
        return Finding("unknown", f"not checked: {late}", f"If it is only slow, try {answers.more_time}.")
    except SeeOther as other:
        return Finding(other.status, str(other))
    except Exception as error:
        found = _masked(f"could not be checked: {type(error).__name__}: {first_line(error)}")
        return Finding("warning", found, "This is a bug of prefect-docker-attest. Please report it with this line.")
    if finding is None:
        return None
    return dataclasses.replace(finding, found=_masked(finding.found), advice=_masked(finding.advice))


def _weighed(future: Future[Finding | None], answers: Answers) -> Finding | None:
    finding = future.result()
    if finding and finding.status == "problem" and not answers.buildx_builds_all():
        return dataclasses.replace(finding, status="warning")
    return finding


def failing(*, strict: bool = False) -> tuple[Status, ...]:
    """Return the statuses for which the exit code is not 0.

    Args:
        strict: whether a warning counts as a problem
    """
    return ("problem", "unknown", "warning") if strict else ("problem", "unknown")


def exit_code(findings: Iterable[Finding], *, strict: bool = False) -> int:
    """Return the exit code of the doctor: 1 for a problem, 3 if there is none, but something could not be checked.

    Args:
        findings: results of the checks
        strict: whether a warning counts as a problem
    """
    failed = {finding.status for finding in findings}.intersection(failing(strict=strict))
    return (3 if failed == {"unknown"} else 1) if failed else 0


def _masked(text: str) -> str:
    # Errors quote DOCKER_HOST and addresses of proxies, which can contain a password.
    return re.sub(r"(?<=://)[^/@\s]*@", "***@", text)
