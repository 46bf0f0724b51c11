"""Reads responses of a Docker Engine's API. Their size and the time to read them are limited."""

from __future__ import annotations

import contextlib
import json
import time
from typing import TYPE_CHECKING, Any

import docker

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import requests
    from docker import APIClient

_LONGEST, _PIECE = 4 << 20, 1 << 16  # bytes
# Without a version, docker-py asks the engine for its API version, and reads a response of any length.
_OLDEST_API = "1.24"


class InvalidResponseError(Exception):
    """The response does not come from a Docker Engine, or is too long or too slow."""


def client(timeout: int) -> APIClient:
    """Return a client of the engine that docker-py's ``from_env`` finds.

    Args:
        timeout: seconds to wait for each piece of a response

    Raises:
        docker.errors.DockerException: the configuration names no usable engine
    """
    return docker.from_env(version=_OLDEST_API, timeout=timeout).api


@contextlib.contextmanager
def stream(api: APIClient, path: str, parameters: Mapping[str, str] | None = None) -> Iterator[Iterator[bytes]]:
    """Request a path of the API, and give the response in pieces. Arguments and errors are those of `get`."""
    url = f"{api.base_url}/{path}"
    response: requests.Response = api.get(url, params=parameters, stream=True, timeout=api.timeout)
    with response:
        response.raise_for_status()
        yield response.iter_content(_PIECE)


def get(api: APIClient, path: str, seconds: float, parameters: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Request a path of the API, and return the JSON object that it answers.

    Args:
        api: a client made by `client`
        path: path without an API version, so the engine uses its newest version
        seconds: maximum time for the whole response
        parameters: query parameters

    Raises:
        requests.RequestException: the engine does not answer, or answers with an error
        InvalidResponseError: the response is not a JSON object, is too long, or takes too long
    """
    end = time.monotonic() + seconds
    content = bytearray()
    with stream(api, path, parameters) as pieces:
        for piece in pieces:
            content += piece
            if len(content) > _LONGEST:
                raise InvalidResponseError(f"the response to /{path} is longer than {_LONGEST >> 20} MiB")
            if time.monotonic() > end:
                raise InvalidResponseError(f"the response to /{path} takes more than {seconds:g} seconds")
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        raise InvalidResponseError(f"the response to /{path} is not JSON") from None
    if not isinstance(answer, dict):
        raise InvalidResponseError(f"the response to /{path} is not a JSON object")
    return answer
