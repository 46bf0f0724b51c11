"""PrefectHQ/prefect issue 19337: images for another platform that can be built and pushed, but not started.

Prefect generates Dockerfiles with COPY directly after FROM. For such a cross-platform image on the containerd image
store, the classic builder uses the base image's layers for this machine, and the config for the other platform.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from prefect.docker import DockerImage
from prefect.utilities.dockerutils import build_image, docker_client

from engines.machine import CommandFailed
from engines.published import Published
from support.names import BUSYBOX

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Setting
    from engines.private import Engine, PrivateDocker, Registry


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A context like the one that Prefect generates: FROM, then COPY."""
    (tmp_path / "Dockerfile").write_text(f"FROM {BUSYBOX}\nCOPY . /opt/prefect/flows/\nWORKDIR /opt/prefect/flows/\n")
    (tmp_path / "flow.py").write_text("print('hello')\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def cluster(private_docker: PrivateDocker) -> Engine:
    """The containerd of another machine, which starts the image later and has none of its layers."""
    return private_docker.engines["graphdriver"]


def _pull(cluster: Engine, reference: str) -> None:
    pull = ("images", "pull", "--plain-http", "--platform=linux/arm64", reference)
    cluster.ctr("--namespace=cluster", *pull)


def test_setting_off_the_classic_builder_pushes_layers_that_no_cluster_can_extract(
    containerd_engine: Engine, cluster: Engine, registry: Registry, context: Path, setting: Setting
) -> None:
    containerd_engine.run("docker", "pull", "--platform", "linux/amd64", BUSYBOX)
    image = f"{registry.address}/issue-19337:off"
    with setting(False):
        build_image(context, tag=image, platform="linux/arm64")
        with docker_client() as client:
            client.api.push(image)

    published = Published(image)
    assert published.config()["architecture"] == "arm64"
    assert not all(published.layers_match())
    with pytest.raises(CommandFailed, match="wrong diff id calculated on extraction"):
        _pull(cluster, image)


@pytest.mark.usefixtures("context")
def test_setting_on_the_image_is_pulled_and_runs_on_its_platform(
    containerd_engine: Engine, cluster: Engine, registry: Registry, setting: Setting
) -> None:
    containerd_engine.run("docker", "pull", "--platform", "linux/amd64", BUSYBOX)
    image = DockerImage(f"{registry.address}/issue-19337", tag="on", dockerfile="Dockerfile", platform="linux/arm64")
    with setting(True):
        image.build()
        image.push()

    published = Published(image.reference)
    assert published.is_one_manifest
    assert published.config()["architecture"] == "arm64"
    assert all(published.layers_match())
    _pull(cluster, image.reference)
    assert cluster.output_of("--platform=linux/arm64", image.reference, "uname", "-m") == "aarch64\n"
