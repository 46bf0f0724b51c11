"""Finds the versions for a bug report. It does not import Prefect, which takes a second."""

from __future__ import annotations

import importlib.metadata
import platform
import re
from concurrent.futures import wait

from prefect_docker_attest import subprocesses
from prefect_docker_attest.workers import Workers

_DISTRIBUTIONS = {"prefect-docker-attest": "prefect-docker-attest", "Prefect": "prefect", "docker-py": "docker"}
_COMMANDS = {
    "docker CLI": ["docker", "--version"],
    "buildx": ["docker", "buildx", "version"],
    "engine": ["docker", "version", "--format={{.Server.Version}} {{json .Server}}"],
}
_COMMAND_TIME, _LATE = 1.2, 0.3
"""Seconds for all commands, which run at the same time, and to stop them. All together takes 2 seconds."""

_VERSION = re.compile(r"\d+\.\d[\w.+~-]{0,40}")


def versions() -> str:
    """Return one line with the versions of this package, Prefect, docker-py, Python, docker CLI, buildx and engine.

    The version of a missing program or a stopped engine is ``not found``. If it takes too long, it is ``no answer``.
    """
    workers = Workers(len(_COMMANDS))
    answers = {name: workers.submit(_version, command) for name, command in _COMMANDS.items()}
    installed = {name: _installed(distribution) for name, distribution in _DISTRIBUTIONS.items()}
    wait(answers.values(), _COMMAND_TIME + _LATE)
    programs = {name: answer.result() if answer.done() else "no answer" for name, answer in answers.items()}
    return ", ".join(
        f"{name} {version}" for name, version in {**installed, "Python": platform.python_version(), **programs}.items()
    )


def _installed(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not found"


def _version(command: list[str]) -> str:
    """Return the version that a command prints."""
    try:
        answer = subprocesses.run_bounded(command, timeout=_COMMAND_TIME)
    except OSError:  # there is no docker CLI
        return "not found"
    if answer.returncode == subprocesses.TIMED_OUT:
        return "no answer"
    version = _VERSION.search(answer.stdout) if answer.returncode == 0 else None
    names = [f"{name} " for name in ("Podman", "Buildah") if name.lower() in answer.stdout.lower()]
    return "".join(names[:1]) + version[0] if version else "not found"
