"""Runs short docker commands, and checks the buildx plugin."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from docker import DockerClient

from prefect_docker_attest import subprocesses

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


def run_docker(
    arguments: Sequence[str], timeout: float = 10, *, docker: Sequence[str] = DOCKER
) -> subprocess.CompletedProcess[str]:
    """Run a short docker command.

    Args:
        arguments: arguments after ``docker``
        timeout: seconds after which the command is stopped; its exit code is then 124
        docker: the docker CLI, with the flags that select its engine

    Raises:
        OSError: the docker CLI cannot be started
    """
    return subprocesses.run_bounded([*docker, *arguments], timeout=timeout)


def parse_version(output: str) -> tuple[int, ...] | None:
    """Return the version in the output of ``docker buildx version``, such as ``(0, 29, 1)``; `None` without one."""
    found = re.search(r"\bv?(\d+)\.(\d+)\.(\d+)", output)
    return tuple(map(int, found.groups())) if found else None


def format_version(version: Sequence[int]) -> str:
    """Return a version as text, for example ``0.29.1`` for ``(0, 29, 1)``."""
    return ".".join(map(str, version))


def plugin_error(docker: Sequence[str], lines: Sequence[str]) -> str | None:
    """Return the error message for an unusable buildx plugin; `None` if the plugin is usable.

    It takes 60 ms, so call it only after a failed build.

    Args:
        docker: the docker CLI, with the flags that select its engine
        lines: output of the failed build
    """
    answer = run_docker(("buildx", "version"), docker=docker)
    version = parse_version(answer.stdout) if answer.returncode == 0 else None
    if version is None:
        reason = (answer.stderr or answer.stdout).strip().splitlines()
        if not reason:
            return None
        return f"The docker CLI has no usable buildx plugin: {reason[0]}\nTIP {INSTALL_BUILDX}"
    return too_old(version, lines)


def too_old(version: tuple[int, ...], lines: Sequence[str]) -> str | None:
    """Return the error message if buildx is too old for this package or for an option of the build; else `None`. Pure.

    Args:
        version: version of buildx
        lines: output of the failed build
    """
    from prefect_docker_attest.options import table  # imports Prefect, so the doctor and `inspect` must not import it

    unknown_flags = [found[1] for line in lines if (found := re.search(r"unknown flag: (--[\w-]+)", line))]
    option, since = next(filter(None, map(table.first_version, unknown_flags)), ("", MINIMUM_BUILDX))
    needed = max(since, MINIMUM_BUILDX)
    if version >= needed:
        return None
    user = f"The option {option}" if option else "prefect-docker-attest"
    return (
        f"The buildx plugin is too old: {format_version(version)}. {user} needs {format_version(needed)} or newer.\n"
        f"TIP {INSTALL_BUILDX}"
    )


class Builder(NamedTuple):
    """A builder of buildx.

    Attributes:
        name: name of the builder; ``""`` if docker does not show it
        driver: driver of the builder, such as ``remote``; ``docker`` for the engine's own builder
        nodes: number of its nodes; 0 if docker does not show them
    """

    name: str
    driver: str
    nodes: int = 0

    @property
    def is_engine(self) -> bool:
        """Whether this is the engine's own builder."""
        return self.driver == "docker"

    def __str__(self) -> str:
        return f"builder {self.name}, driver {self.driver}" if self.name else "unknown builder"


def builder(docker: Sequence[str], name: str | None = None) -> Builder:
    """Return a builder.

    Args:
        docker: the docker CLI, with the flags that select its engine
        name: name of the builder; `None` for the current one
    """
    answer = run_docker(("buildx", "inspect", *([name] if name else [])), docker=docker).stdout
    general, _, nodes = answer.partition("\nNodes:")
    found = dict(re.findall(r"^(Name|Driver): +(\S.*)$", general, re.MULTILINE))
    return Builder(found.get("Name", ""), found.get("Driver", ""), len(re.findall("^Name:", nodes, re.MULTILINE)))


def engine_platform() -> str:
    """Return the platform of the current engine, such as ``linux/amd64``; ``""`` if docker does not answer."""
    return run_docker(("version", "--format={{.Server.Os}}/{{.Server.Arch}}")).stdout.strip()
