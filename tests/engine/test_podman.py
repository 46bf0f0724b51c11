"""Podman's socket, which serves docker-py but has no BuildKit."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from typing import TYPE_CHECKING

import docker
import pytest
from prefect.utilities.dockerutils import BuildError, build_image

from conftest import missing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from private_docker import Engine


def _podman(folder: Path) -> tuple[str, dict[str, str]]:
    """The machine's Podman; else Debian's, unpacked but not installed, with the libraries that the machine lacks."""
    if podman := shutil.which("podman"):
        return podman, {}
    (folder / "archives" / "partial").mkdir(parents=True)
    download = ["apt-get", "install", "--yes", "--no-install-recommends", "--download-only", "podman"]
    try:
        subprocess.run([*download, f"--option=Dir::Cache={folder}"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        missing(f"there is no podman, and apt-get does not have it: {error}")
    root = folder / "root"
    for package in (folder / "archives").glob("*.deb"):
        subprocess.run(["dpkg", "-x", package, root], check=True)
    configuration = folder / "containers.conf"
    configuration.write_text(f'[engine]\nconmon_path = ["{root}/usr/bin/conmon"]\nruntime = "crun"\n')
    environment = {
        "PATH": f"{root}/usr/bin:{os.environ['PATH']}",
        "LD_LIBRARY_PATH": f"{root}/usr/lib/x86_64-linux-gnu",
        "CONTAINERS_CONF": str(configuration),
    }
    return f"{root}/usr/bin/podman", environment


@pytest.fixture
def podman(containerd_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a Podman, which docker-py and the engine's docker CLI talk to."""
    program, environment = _podman(tmp_path / "podman")
    address = f"unix://{tmp_path}/podman.sock"
    run = tempfile.mkdtemp()  # Podman takes no path as long as tmp_path
    storage = [f"--root={tmp_path}/storage", f"--runroot={run}", "--storage-driver=vfs"]
    service = subprocess.Popen(
        [program, *storage, "--cgroup-manager=cgroupfs", "system", "service", "--time=0", address],
        env={**containerd_engine.environment, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        deadline = time.monotonic() + 30
        while service.poll() is None and not (tmp_path / "podman.sock").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        if service.poll() is not None and service.stderr:
            missing(f"podman does not serve: {service.stderr.read().decode()}")
        monkeypatch.setenv("DOCKER_HOST", address)
        yield address
    finally:
        service.terminate()
        service.communicate()
        shutil.rmtree(run)


@pytest.mark.usefixtures("switched_on")
def test_a_build_that_fails_on_podman_says_that_it_is_podman(podman: str, tmp_path: Path) -> None:
    assert docker.from_env().ping()
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM scratch\n")
    with pytest.raises(BuildError) as failure:
        build_image(context)
    assert f"The engine at {podman} is Podman. It has no BuildKit" in str(failure.value)
    assert "DOCKER_HOST" in str(failure.value)
