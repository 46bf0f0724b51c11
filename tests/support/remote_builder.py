"""A builder on another machine: the BuildKit of an engine of its own, at the end of a link that counts bytes."""

from __future__ import annotations

import contextlib
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from engines import private
from engines.links import Link, buildkit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engines.private import Engine, PrivateDocker


@dataclass(frozen=True)
class RemoteBuilder:
    """A builder with the driver `remote`."""

    name: str
    engine: Engine
    """Whose BuildKit it is."""
    link: Link
    """Between buildx and the builder."""


def configuration(engine: Engine, folder: Path) -> str:
    """A configuration of the docker CLI that tests may change."""
    (folder / "cli-plugins").mkdir(parents=True)
    plugin = "cli-plugins/docker-buildx"
    (folder / plugin).symlink_to(Path(engine.environment["DOCKER_CONFIG"]) / plugin)
    # Without the file, docker-py 7.2 does not find the contexts beside it; the docker CLI does.
    (folder / "config.json").write_text("{}")
    return str(folder)


@contextlib.contextmanager
def remote_builder(engine: Engine, folder: Path) -> Iterator[RemoteBuilder]:
    """Make an engine's BuildKit a builder of the docker CLI's present configuration."""
    name, link = f"far-{uuid4().hex[:8]}", Link()
    with buildkit(engine, folder / f"{name}.sock", link) as address:
        create = ("docker", "buildx", "create", f"--name={name}", "--driver=remote", address)
        subprocess.run(create, check=True, capture_output=True)
        yield RemoteBuilder(name, engine, link)


@pytest.fixture(scope="session")
def builder_machine(request: pytest.FixtureRequest, private_docker: PrivateDocker) -> Iterator[Engine]:
    """An engine that nothing but its BuildKit is used of."""
    assert private_docker.engines
    with private.start(request.config.getoption("--suite") or "trixie", ["containerd"]) as machine:
        yield machine.engines["containerd"]


@pytest.fixture
def own_configuration(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the docker CLI's configuration, for this test only."""
    folder = tmp_path / "configuration"
    monkeypatch.setenv("DOCKER_CONFIG", configuration(engine, folder))
    return folder


@pytest.fixture
def far(own_configuration: Path, builder_machine: Engine, tmp_path: Path) -> Iterator[RemoteBuilder]:
    """A builder outside the engine."""
    assert own_configuration
    with remote_builder(builder_machine, tmp_path) as builder:
        yield builder


@pytest.fixture
def far_in_use(far: RemoteBuilder, monkeypatch: pytest.MonkeyPatch) -> RemoteBuilder:
    """The same, chosen for all builds."""
    monkeypatch.setenv("BUILDX_BUILDER", far.name)
    return far


@pytest.fixture
def fleet_in_use(
    own_configuration: Path,
    builder_machine: Engine,
    private_docker: PrivateDocker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[dict[str, Link]]:
    """The links of a builder with a node for each of two platforms, which is chosen for all builds."""
    assert own_configuration
    links = {"linux/amd64": Link(), "linux/arm64": Link()}
    monkeypatch.setenv("BUILDX_BUILDER", "fleet")
    # buildx gives the builds on all nodes the same id, so the nodes must be two BuildKits.
    machines = builder_machine, private_docker.engines["containerd"]
    with contextlib.ExitStack() as stack:
        for number, (machine, (platform, link)) in enumerate(zip(machines, links.items(), strict=True)):
            address = stack.enter_context(buildkit(machine, tmp_path / f"node-{number}.sock", link))
            node = (*(["--append"] if number else []), "--name=fleet", f"--platform={platform}", "--driver=remote")
            subprocess.run(("docker", "buildx", "create", *node, address), check=True, capture_output=True)
        yield links
