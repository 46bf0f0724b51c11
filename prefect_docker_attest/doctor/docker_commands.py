"""Asks the docker CLI short questions."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

from prefect_docker_attest import subprocesses
from prefect_docker_attest.doctor.check import NoAnswerError, first_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DOCKER = ("docker",)

ENGINE_ID = ("info", "--format={{.ID}}")
"""Asks for the identifier of an engine."""

API_VERSION = "DOCKER_API_VERSION"
"""The variable with the version of the engine's API that the docker CLI uses. docker-py does not read it."""


class CommandError(Exception):
    """A docker command cannot be run, or fails. The text names the command and its error."""


def ask_docker(
    limit: int,
    words: Sequence[str],
    *,
    docker: Sequence[str] = DOCKER,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run a docker command, and return its output.

    Args:
        limit: seconds after which the command is stopped
        words: arguments of the command
        docker: the docker CLI, with the flags that select its engine
        environment: the whole environment of the command; `None` for the environment of this process

    Raises:
        CommandError: the command cannot be run, fails, or prints nothing
        NoAnswerError: the command takes longer
    """
    shown = f"`{' '.join([*docker, *words[:2]])}`"
    end = time.monotonic() + limit
    try:
        answer = subprocesses.run_bounded([*docker, *words], timeout=limit, environment=environment)
    except FileNotFoundError:
        raise CommandError("the command `docker` is not on PATH") from None
    except OSError as error:
        raise CommandError(first_line(error)) from error
    if answer.returncode == subprocesses.TIMED_OUT and time.monotonic() >= end:
        raise NoAnswerError(f"{shown} took longer than {limit} s")
    if answer.returncode != 0 or not answer.stdout.strip():
        raise CommandError(f"{shown}: {_reason(answer.stderr or answer.stdout)}")
    return answer.stdout.strip()


def ask_builds(limit: int, words: Sequence[str]) -> str:
    """Run a docker command in the engine in which this package builds, as `ask_docker` does."""
    from prefect_docker_attest.buildx.docker_cli import docker_command  # imports docker-py, which can fail

    return ask_docker(limit, words, docker=docker_command())


def refused_api_version(limit: int) -> str:
    """Return the engine's error if it refuses the value of `API_VERSION`, and answers without it; otherwise ``""``."""
    if not os.environ.get(API_VERSION):
        return ""
    others = {name: value for name, value in os.environ.items() if name != API_VERSION}
    try:
        ask_docker(limit, ENGINE_ID)
    except CommandError as refused:
        with contextlib.suppress(CommandError, NoAnswerError):  # the variable is not the reason
            ask_docker(limit, ENGINE_ID, environment=others)
            return str(refused)
    except NoAnswerError:  # other checks show it
        pass
    return ""


def _reason(output: str) -> str:
    # A warning about the configuration comes before the error.
    lines = [line for line in output.splitlines() if not line.startswith("WARNING: ")]
    return first_line("\n".join(lines) or output.strip() or "it prints nothing")
