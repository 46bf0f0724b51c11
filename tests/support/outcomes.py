"""What a test finds after a build: the published image, and the warnings of the package."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect.utilities.dockerutils import docker_client

from engines.published import Published

if TYPE_CHECKING:
    import pytest


def pushed(name: str) -> Published:
    """Push with docker-py, like Prefect, and return the published image."""
    with docker_client() as client:
        for event in client.api.push(name, stream=True, decode=True):
            assert "error" not in event, event
    return Published(name)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "prefect_docker_attest"]
