"""Imports docker-py, and asks the engine that it finds for its properties."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prefect_docker_attest import startup
from prefect_docker_attest.buildx.target import is_containerd_store, podman_version
from prefect_docker_attest.doctor.check import first_line
from prefect_docker_attest.platforms import Platform
from prefect_docker_attest.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self


@dataclass(frozen=True)
class EngineFacts:
    """An engine.

    Attributes:
        identifier: its ``ID``, by which two ways to the same engine are recognized
        name: name of its machine
        version: version of Docker
        platform: platform of its machine
        driver: storage driver
        uses_containerd_store: whether its image store is containerd
        podman: version of Podman; ``""`` for another engine
    """

    identifier: str
    name: str
    version: str
    platform: Platform
    driver: str
    uses_containerd_store: bool
    podman: str

    @classmethod
    def of_responses(cls, version: Mapping[str, Any], info: Mapping[str, Any]) -> Self:
        """Return the facts in an engine's responses to ``GET /version`` and ``GET /info``.

        Raises:
            InvalidResponseError: the responses do not come from a Docker Engine
        """
        from prefect_docker_attest.images.engine_api import InvalidResponseError

        found = {**version, **info}
        for name in ("ID", "Os", "Arch", "Name", "ServerVersion", "Driver"):
            if not isinstance(found.get(name), str):
                raise InvalidResponseError(f"its response has no {name}")
        platform = Platform.of_document(found["Os"], found["Arch"])
        if platform is None:
            raise InvalidResponseError("its response has no platform")
        return cls(
            found["ID"],
            found["Name"],
            found["ServerVersion"],
            platform,
            found["Driver"],
            is_containerd_store(found),
            podman_version(found),
        )


def ask_engine(limit: int) -> EngineFacts:
    """Return the facts about docker-py's engine.

    Args:
        limit: seconds for both requests, which are sent at the same time

    Raises:
        docker.errors.DockerException: docker-py's configuration names no usable engine
        requests.RequestException: the engine does not answer, or answers with an error
        InvalidResponseError: the response does not come from a Docker Engine
    """
    from prefect_docker_attest.images import engine_api

    def ask(path: str) -> dict[str, Any]:
        with engine_api.client(limit) as api:
            return engine_api.get(api, path, limit)

    info = Workers(1).submit(ask, "info")
    return EngineFacts.of_responses(ask("version"), info.result())


def import_docker_py() -> str:
    """Import docker-py, and return why it cannot be imported; ``""`` if it can."""
    try:
        importlib.import_module(startup.DOCKER_PY)
    except BaseException as error:  # also SystemExit, which some modules raise when they are imported
        return f"{type(error).__name__}: {first_line(error)}"
    return ""
