"""A Prefect server with its workers for the whole session, and a user's folder for each test."""

from __future__ import annotations

import time
import urllib.request
from typing import TYPE_CHECKING

import pytest

from engines.machine import free_port
from support.prefect_image import push_prefect
from support.prefect_server import FLOWS, PATIENCE, SETTING, MakeProject, Prefect, Project

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from engines.private import PrivateDocker, Store


@pytest.fixture(scope="session")
def base_image(private_docker: PrivateDocker) -> str:
    """The base image of this version of Prefect, in the mirror of the engines."""
    return push_prefect(private_docker.registry.address)


@pytest.fixture(scope="session")
def prefect(
    private_docker: PrivateDocker,
    base_image: str,  # noqa: ARG001 who deploys needs it
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Prefect]:
    """A Prefect server on loopback for the whole session."""
    port = free_port()
    prefect = Prefect(tmp_path_factory.mktemp("prefect"), f"http://127.0.0.1:{port}/api", private_docker.engines)
    try:
        command = ("server", "start", "--host=127.0.0.1", f"--port={port}")
        server = prefect.start("server", *command, environment=prefect.environment())
        end = time.monotonic() + PATIENCE
        while not _answers(f"{prefect.url}/health"):
            if server.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the Prefect server does not start\n{prefect.logs()}")
            time.sleep(0.2)
        yield prefect
    finally:
        prefect.stop()


def _answers(url: str) -> bool:
    # No proxies: a proxy cannot reach a loopback address of this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=5):
            return True
    except OSError:
        return False


@pytest.fixture
def project(prefect: Prefect, tmp_path: Path) -> MakeProject:
    """A function that makes the folder of a user with this engine and this value of the setting."""

    def make(store: Store, setting: str = "true") -> Project:
        # Prefect copies the folder to /opt/prefect/project, with the same name.
        folder = tmp_path / "project"
        folder.mkdir()
        (folder / "flows.py").write_text(FLOWS)
        return Project(folder, prefect.environment(store, **{SETTING: setting}))

    return make
