"""Finds the versions for a bug report. It does not import Prefect, which takes a second."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import threading
import time
from typing import TYPE_CHECKING

from prefect_docker_attest import subprocesses

if TYPE_CHECKING:
    from collections.abc import Sequence

_DISTRIBUTIONS = {"prefect-docker-attest": "prefect-docker-attest", "Prefect": "prefect", "docker-py": "docker"}
_COMMANDS = {
    "docker CLI": ("docker", "--version"),
    "buildx": ("docker", "buildx", "version"),
    "engine": ("docker", "version", "--format={{.Server.Version}}"),
}
_COMMAND_TIME = 1.2
"""Seconds for all commands, which run at the same time. If the engine never answers, the command takes 2 seconds."""

_VERSION = re.compile(r"\d+\.\d[\w.+~-]{0,40}")


def versions() -> str:
    """Return one line with the versions of this package, Prefect, docker-py, Python, docker CLI, buildx and engine.

    The version of a missing program or a stopped engine is ``not found``. If it takes too long, it is ``no answer``.
    """
    found: dict[str, str] = {}
    threads = [
        threading.Thread(target=_ask, args=(name, command, found), daemon=True) for name, command in _COMMANDS.items()
    ]
    for thread in threads:
        thread.start()
    end = time.monotonic() + _COMMAND_TIME
    installed = {name: _installed(distribution) for name, distribution in _DISTRIBUTIONS.items()}
    for thread in threads:
        thread.join(max(0, end - time.monotonic()))
    programs = {name: found.get(name, "no answer") for name in _COMMANDS}
    return ", ".join(
        f"{name} {version}" for name, version in {**installed, "Python": platform.python_version(), **programs}.items()
    )


def _installed(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not found"


def _ask(name: str, command: Sequence[str], found: dict[str, str]) -> None:
    try:
        answer = subprocesses.run_bounded(command, timeout=_COMMAND_TIME)
    except OSError:  # there is no docker CLI
        found[name] = "not found"
        return
    if answer.returncode == subprocesses.TIMED_OUT:
        return
    version = _VERSION.search(answer.stdout) if answer.returncode == 0 else None
    podman = "Podman " if "podman" in answer.stdout.lower() else ""
    found[name] = podman + version[0] if version else "not found"
