"""Asks the engine that docker-py finds for its properties."""

from __future__ import annotations

from typing import Any

from prefect_docker_attest.images import engine_api
from prefect_docker_attest.images.engine_api import InvalidResponseError

_TEXTS = ("ID", "Os", "Arch", "Name", "ServerVersion", "Driver")


def engine_answers(limit: int) -> dict[str, Any]:
    """Return the members of the engine's ``version`` and ``info`` in one dict.

    Args:
        limit: seconds for both requests together

    Raises:
        docker.errors.DockerException: docker-py's configuration names no usable engine
        requests.RequestException: the engine does not answer, or answers with an error
        InvalidResponseError: the response does not come from a Docker Engine
    """
    with engine_api.client(limit // 2) as api:
        found = {**engine_api.get(api, "version", limit / 2), **engine_api.get(api, "info", limit / 2)}
    for name in _TEXTS:
        if not isinstance(found.get(name), str):
            raise InvalidResponseError(f"its response has no {name}")
    return found
