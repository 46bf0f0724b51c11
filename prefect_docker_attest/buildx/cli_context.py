"""The engine of the docker CLI's current context."""

from __future__ import annotations

import json
import re
from functools import cached_property
from typing import TYPE_CHECKING, Any

from prefect_docker_attest.buildx import docker_cli
from prefect_docker_attest.buildx.docker_py_engine import podman_of_context
from prefect_docker_attest.buildx.target import is_containerd_store, no_answer
from prefect_docker_attest.errors import BuildFailed
from prefect_docker_attest.platforms import Platform
from prefect_docker_attest.subprocesses import TIMED_OUT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Of the docker CLI, if the engine's socket does not exist or does not answer. The second is Docker 29's.
_NO_ANSWER = re.compile(
    r"cannot connect to the docker daemon|failed to connect to the docker api|error during connect", re.IGNORECASE
)


class CliContext:
    """The engine of the docker CLI's current context: a `Target`."""

    docker = docker_cli.DOCKER
    name = "the Docker Engine of the docker CLI's current context"

    @cached_property
    def podman(self) -> str:
        """The version of Podman, if the engine is Podman; ``""`` if it is not, or does not answer."""
        return podman_of_context()

    @cached_property
    def platform(self) -> Platform | None:
        answer = docker_cli.run_docker(("version", "--format={{.Server.Os}}/{{.Server.Arch}}"))
        return Platform.of_text(answer.stdout) if answer.returncode == 0 else None

    @cached_property
    def uses_containerd_store(self) -> bool | None:
        answer = docker_cli.run_docker(("info", "--format={{json .}}"))
        return is_containerd_store(json.loads(answer.stdout)) if answer.returncode == 0 else None

    def image_id(self, name: str) -> str | None:
        answer = docker_cli.run_docker(("image", "inspect", "--format={{.Id}}", name))
        if answer.returncode == TIMED_OUT or (answer.returncode and _NO_ANSWER.search(answer.stderr)):
            raise BuildFailed(no_answer(self, f"`docker image inspect {name}`"))
        return answer.stdout.strip() if answer.returncode == 0 else None

    def lists_attestations(self, _image: str) -> bool:
        return False

    def base_platforms(self, _name: str) -> Sequence[Platform]:
        return ()

    def proxies(self) -> Mapping[str, Any]:
        return {}
