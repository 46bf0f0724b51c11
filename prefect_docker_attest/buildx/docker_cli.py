"""Runs short docker commands, and checks the buildx plugin."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from docker import DockerClient

from prefect_docker_attest import subprocesses
from prefect_docker_attest.buildx.builder import Builder
from prefect_docker_attest.failures import Failure

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence

DOCKER = ("docker",)
"""The docker CLI, with its current context."""

MINIMUM_BUILDX = (0, 10, 2)
"""The oldest version of buildx that supports ``--provenance=false``: 0.9 lacks the flag, 0.10.0 handles it wrongly
(docker/buildx, release notes of 0.10.1 and 0.10.2)."""

INSTALL_BUILDX = (
    "Install buildx: `apt-get install docker-buildx` (Debian, Ubuntu), `apt-get install docker-buildx-plugin` "
    "(Docker's repository), or Docker Desktop."
)


def docker_command() -> tuple[str, ...]:
    """Return the docker CLI with the flags that select the engine of docker-py's ``from_env``.

    Since docker-py 7.2, ``from_env`` uses the CLI's current context, as the CLI does (docker-py, docker/client.py).
    Older versions use only ``DOCKER_HOST`` or the default socket. The CLI does the same with the context ``default``.
    """
    return DOCKER if hasattr(DockerClient, "from_context") else (*DOCKER, "--context", "default")


_PATIENCE = 60
"""Seconds for a short command. An emulated machine needs 12 s for ``docker buildx inspect`` (Docker 26.1)."""


def run_docker(arguments: Sequence[str], *, docker: Sequence[str] = DOCKER) -> subprocess.CompletedProcess[str]:
    """Run a short docker command. If it does not end within a minute, it is stopped, and its exit code is 124.

    Args:
        arguments: arguments after ``docker``
        docker: the docker CLI, with the flags that select its engine

    Raises:
        OSError: the docker CLI cannot be started
    """
    return subprocesses.run_bounded([*docker, *arguments], timeout=_PATIENCE)


def parse_version(output: str) -> tuple[int, ...] | None:
    """Return the version in the output of ``docker buildx version``, such as ``(0, 29, 1)``; `None` without one."""
    if output.startswith("buildah"):  # `docker` is Podman's command
        return None
    version = re.search(r"\bv?(\d+)\.(\d+)\.(\d+)", output)
    return tuple(map(int, version.groups())) if version else None


def format_version(version: Sequence[int]) -> str:
    """Return a version as text, for example ``0.29.1`` for ``(0, 29, 1)``."""
    return ".".join(map(str, version))


def plugin_failure(docker: Sequence[str], unknown_flags: Sequence[str]) -> Failure | None:
    """Return the failure of an unusable buildx plugin; `None` if the plugin is usable.

    It takes 60 ms, so call it only after a failed build.

    Args:
        docker: the docker CLI, with the flags that select its engine
        unknown_flags: flags that the build's error calls unknown
    """
    answer = run_docker(("buildx", "version"), docker=docker)
    if answer.returncode == subprocesses.TIMED_OUT:  # it is not known whether the plugin is usable
        return None
    version = parse_version(answer.stdout) if answer.returncode == 0 else None
    if version:
        return too_old(version, unknown_flags)
    reason = (answer.stderr or answer.stdout).strip().splitlines()
    if not reason:
        return None
    return Failure(notes=(f"The docker CLI has no usable buildx plugin: {reason[0]}",), tip=INSTALL_BUILDX)


def too_old(version: tuple[int, ...], unknown_flags: Sequence[str]) -> Failure | None:
    """Return the failure if buildx is too old for this package or for an option of the build; else `None`. Pure.

    Args:
        version: version of buildx
        unknown_flags: flags that the build's error calls unknown
    """
    from prefect_docker_attest.options import table  # imports Prefect, so the doctor and `inspect` must not import it

    option, since = next(filter(None, map(table.first_version, unknown_flags)), ("", MINIMUM_BUILDX))
    needed = max(since, MINIMUM_BUILDX)
    if version >= needed:
        return None
    user = f"The option {option}" if option else "prefect-docker-attest"
    note = f"The buildx plugin is too old: {format_version(version)}. {user} needs {format_version(needed)} or newer."
    return Failure(notes=(note,), tip=INSTALL_BUILDX)


def find_builder(docker: Sequence[str], name: str | None = None) -> Builder | None:
    """Return a builder; `None` if docker does not describe it.

    Args:
        docker: the docker CLI, with the flags that select its engine
        name: name of the builder; `None` for the current one
    """
    return Builder.parse(run_docker(("buildx", "inspect", *([name] if name else [])), docker=docker).stdout)
