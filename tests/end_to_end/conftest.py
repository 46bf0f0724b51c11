"""A Prefect server with its workers for the whole session, and a user's folder for each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.prefect_image import push_prefect
from support.prefect_server import FLOWS, SETTING, MakeProject, Prefect, Project, serving

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
    with serving(tmp_path_factory.mktemp("prefect"), private_docker.engines) as prefect:
        yield prefect


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
