"""Tests and the demo on an existing engine do not change its contents."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from engines import container_registry, contents, existing
from engines.machine import CommandFailed, EngineUnavailable
from engines.published import Published
from support.names import BUSYBOX

if TYPE_CHECKING:
    from pathlib import Path

    from engines.private import Engine, PrivateDocker

pytestmark = pytest.mark.private("uses private engines as somebody's")

# A replacement for the image `registry:2`.
DOCKERFILE = f"""\
FROM {BUSYBOX}
COPY . /
VOLUME /var/lib/registry
ENTRYPOINT ["/docker-registry"]
CMD ["serve", "/config.yml"]
"""
CONFIG = {
    "version": "0.1",
    "storage": {"filesystem": {"rootdirectory": "/var/lib/registry"}},
    "http": {"addr": ":5000"},
}


@pytest.fixture
def pulled_registry(private_docker: PrivateDocker, registry_program: str, tmp_path: Path) -> str:
    """The image that engines pull as `registry:2`."""
    folder = tmp_path / "image"
    folder.mkdir()
    (folder / "Dockerfile").write_text(DOCKERFILE)
    (folder / "config.yml").write_text(json.dumps(CONFIG))
    libraries = subprocess.run(["ldd", registry_program], capture_output=True, text=True, check=True).stdout
    for file in (registry_program, *re.findall(r"/\S+", libraries)):
        target = folder / (file if file != registry_program else "/docker-registry").lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    engine = private_docker.engines["graphdriver"]
    name = f"{private_docker.registry.address}/library/registry:2"
    engine.run("docker", "buildx", "build", f"--tag={name}", "--load", str(folder))
    engine.run("docker", "push", name)
    engine.run("docker", "image", "rm", name)
    return name


def holdings(engine: Engine) -> tuple[contents.Contents, str]:
    """Return the contents of the engine that a test run could remove or leave."""
    volumes = engine.run("docker", "volume", "ls", "--quiet").stdout
    return contents.of(engine), volumes + engine.run("docker", "network", "ls", "--quiet").stdout


@pytest.fixture
def users_engine(engine: Engine, tmp_path: Path) -> Engine:
    """An engine with images, containers and build cache of its user."""
    engine.run("docker", "pull", "busybox")
    (tmp_path / "Dockerfile").write_text(f"FROM busybox\nRUN echo {uuid4()} > /new\n")
    engine.run("docker", "buildx", "build", "--load", str(tmp_path))
    (tmp_path / "Dockerfile").write_text(f"FROM busybox\nRUN echo {uuid4()} > /new\n")
    engine.run("docker", "buildx", "build", "--load", "--tag=mine/app", str(tmp_path))
    engine.run("docker", "rm", "--force", "mine", check=False)
    engine.run("docker", "run", "--name=mine", "mine/app", "true")
    return engine


def use(docker: existing.ExistingDocker, folder: Path) -> None:
    """Build and run like tests: with and without a name, with both builders."""
    (folder / "Dockerfile").write_text(f"FROM {docker.found.base_image}\nRUN echo {uuid4()} > /ours\nRUN exit 1\n")
    with pytest.raises(CommandFailed):
        docker.engine.run("env", "DOCKER_BUILDKIT=0", "docker", "build", str(folder))
    (folder / "Dockerfile").write_text(f"FROM {docker.found.base_image}\nRUN echo {uuid4()} > /ours\nVOLUME /data\n")
    docker.engine.run("docker", "buildx", "build", "--load", str(folder))
    docker.engine.run("docker", "buildx", "build", "--load", f"--tag={existing.PREFIX}/ours", str(folder))
    docker.engine.run("docker", "run", f"{existing.PREFIX}/ours", "test", "-e", "/ours")


def test_an_engine_without_internet_is_used_and_left_as_it_was(
    users_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container_registry, "IMAGE", "nowhere/registry:2")
    before = holdings(users_engine)
    with existing.start(existing.find()) as docker:
        assert docker.engines.keys() == {users_engine.store}
        assert docker.registry is None
        assert "`docker pull --quiet nowhere/registry:2` failed with exit code" in docker.no_registry
        assert docker.base_platforms == {"linux/amd64"}
        use(docker, tmp_path)
        assert holdings(users_engine) != before
    assert holdings(users_engine) == before


@pytest.mark.usefixtures("pulled_registry")
def test_an_engine_with_a_registry_is_used_and_left_as_it_was(users_engine: Engine, tmp_path: Path) -> None:
    before = holdings(users_engine)
    with existing.start(existing.find()) as docker:
        assert docker.registry
        assert docker.base_platforms == {"linux/amd64", "linux/arm64"}
        use(docker, tmp_path)
        name = f"{docker.registry.address}/pushed:1"
        docker.engine.run("docker", "tag", f"{existing.PREFIX}/ours", name)
        docker.engine.run("docker", "push", name)
        assert Published(name).manifest()
        assert existing.reaches_this_machine(docker.engine)
        assert {*existing.platforms(docker.engine)} >= docker.base_platforms
    assert holdings(users_engine) == before


def test_two_runs_on_one_engine_are_refused_and_a_killed_one_is_removed(users_engine: Engine) -> None:
    # Earlier tests used the same engine with the same prefix.
    contents.remove_named(users_engine, existing.own_names(""))
    before = holdings(users_engine)
    with existing.start(existing.find()), pytest.raises(EngineUnavailable, match=f"process {os.getpid()}"):
        existing.start(existing.find()).__enter__()
    killed = f"""if True:
        import os
        from engines import existing
        started = existing.start(existing.find())
        started.__enter__()
        os.kill(os.getpid(), {signal.SIGKILL:d})
    """
    assert subprocess.run([sys.executable, "-c", killed], check=False).returncode == -signal.SIGKILL
    assert existing.PREFIX in users_engine.run("docker", "ps", "--all", "--format={{.Names}}").stdout
    with existing.start(existing.find()):
        pass
    # Untagged images of the killed run look like those of other users.
    (after, _), (then, _) = holdings(users_engine), before
    assert after.containers == then.containers
    assert after.images == then.images


@pytest.mark.usefixtures("engine")
def test_a_missing_engine_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    with pytest.raises(EngineUnavailable, match=r"no usable Docker Engine was found.*nowhere"):
        existing.find()
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(EngineUnavailable, match=r"no Docker with buildx was found: .*docker"):
        existing.find()
