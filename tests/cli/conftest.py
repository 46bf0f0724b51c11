"""Runs of the command, and images for it to inspect."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from cli.shipped import COMMAND, Images, Run, Said

if TYPE_CHECKING:
    from pathlib import Path

    from private_docker import Engine, PrivateDocker, Registry


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def run(*arguments: str, **changes: str | None) -> Said:
        changes.setdefault("PATH", os.pathsep.join([os.path.dirname(COMMAND), os.environ["PATH"]]))
        environment = {name: value for name, value in {**os.environ, **changes}.items() if value is not None}
        done = subprocess.run(
            [COMMAND, *arguments],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert "Traceback" not in done.stderr
        return Said(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def images(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Images:
    context = tmp_path_factory.mktemp("context")
    (context / "Dockerfile").write_text("FROM busybox\nCOPY . /app/\n")
    return Images(registry, context)


@pytest.fixture
def builder(private_docker: PrivateDocker) -> Engine:
    """The engine that images of every kind are built in, whichever one the command uses."""
    return private_docker.engines["containerd"]


@pytest.fixture
def attested(images: Images, builder: Engine) -> str:
    """The name of an image that was pushed with its provenance: buildx's default."""
    return images.push(builder)


@pytest.fixture
def plain(images: Images, builder: Engine) -> str:
    """The name of an image that was pushed as one manifest."""
    return images.push(builder, "--provenance=false")


@pytest.fixture
def program(containerd_engine: Engine) -> str:
    """The registry's program, of the packages that the engine comes from."""
    found = shutil.which("docker-registry", path=containerd_engine.environment["PATH"])
    assert found
    return found
