"""Podman's socket supports docker-py, but has no BuildKit."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from typing import TYPE_CHECKING

import docker
import pytest
from prefect.utilities.dockerutils import BuildError, build_image

from conftest import missing
from support.debian_programs import unpacked, variables

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from engines.private import Engine


def _podman(folder: Path) -> tuple[str, dict[str, str]]:
    """The machine's Podman or Debian's, and the variables that it needs."""
    if podman := shutil.which("podman"):
        return podman, {}
    # Podman 4 needs a network backend to start, but its package does not depend on one.
    root = unpacked("podman", "netavark")
    configuration = folder / "containers.conf"
    configuration.write_text(
        f'[engine]\nconmon_path = ["{root}/usr/bin/conmon"]\nruntime = "crun"\n'
        f'helper_binaries_dir = ["{root}/usr/lib/podman"]\n[network]\nnetwork_backend = "netavark"\n'
    )
    return f"{root}/usr/bin/podman", {**variables(root), "CONTAINERS_CONF": str(configuration)}


def _answers(address: str) -> bool:
    try:
        return bool(docker.DockerClient(address).ping())
    except docker.errors.DockerException:
        return False


@pytest.fixture
def podman(some_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a Podman that docker-py and the docker CLI use."""
    program, environment = _podman(tmp_path)
    address = f"unix://{tmp_path}/podman.sock"
    run = tempfile.mkdtemp()  # tmp_path is too long for Podman
    storage = [f"--root={tmp_path}/storage", f"--runroot={run}", "--storage-driver=vfs"]
    service = subprocess.Popen(
        [program, *storage, "--cgroup-manager=cgroupfs", "system", "service", "--time=0", address],
        env={**some_engine.environment, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        deadline = time.monotonic() + 30
        while service.poll() is None and not _answers(address):
            assert time.monotonic() < deadline, "podman does not answer"
            time.sleep(0.05)
        if service.poll() is not None and service.stderr:
            missing(f"podman does not serve: {service.stderr.read().decode()}")
        monkeypatch.setenv("DOCKER_HOST", address)
        yield address
    finally:
        service.terminate()
        service.communicate()
        shutil.rmtree(run)


@pytest.mark.usefixtures("switched_on", "podman")
def test_a_failed_build_on_podman_names_podman(tmp_path: Path) -> None:
    assert docker.from_env().ping()
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM scratch\n")
    with pytest.raises(BuildError) as failure:
        build_image(context)
    assert "The engine is Podman " in str(failure.value)
    assert "\nTIP Set DOCKER_HOST to a Docker Engine" in str(failure.value)
