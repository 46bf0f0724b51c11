"""The table "Why not just ...?" of the README: what other ways out of issue 19337 give on each image store."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pytest
from packaging.version import Version
from prefect.docker import DockerImage
from prefect.utilities.dockerutils import BuildError

from engines.published import Published
from support.names import BUSYBOX
from support.ways import HAS_BUILD_BACKEND

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import Setting
    from engines.private import Engine, Registry

needs_build_backend = pytest.mark.skipif(not HAS_BUILD_BACKEND, reason="this Prefect has no build_backend")


@pytest.fixture(autouse=True)
def setting_off(setting: Setting) -> Iterator[None]:
    with setting(False):
        yield


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A context like the one that Prefect generates: FROM, then COPY."""
    (tmp_path / "Dockerfile").write_text(f"FROM {BUSYBOX}\nCOPY . /opt/prefect/flows/\n")
    (tmp_path / "flow.py").write_text("print('hello')\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def deployed(context: Path, registry: Registry, both_platforms: None) -> Callable[..., Published]:  # noqa: ARG001
    """A function that builds an image for another platform and pushes it, as `flow.deploy` does."""

    def deploy(engine: Engine, **options: Any) -> Published:
        engine.run("docker", "pull", "--platform", "linux/amd64", BUSYBOX)
        name = f"{registry.address}/alternatives-{engine.store}"
        options = {"stream_progress_to": io.StringIO(), "platform": "linux/arm64", **options}
        image = DockerImage(name, "v1", "Dockerfile", **options)
        image.build()
        image.push()
        return Published(image.reference)

    return deploy


@pytest.mark.usefixtures("amd64")
def test_the_variable_of_buildx_does_not_fix_the_layers(
    containerd_engine: Engine, deployed: Callable[..., Published], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUILDX_NO_DEFAULT_ATTESTATIONS", "1")
    assert not all(deployed(containerd_engine).layers_match())


@needs_build_backend
def test_build_backend_fixes_the_layers_and_adds_attestations(
    containerd_engine: Engine, deployed: Callable[..., Published]
) -> None:
    published = deployed(containerd_engine, build_backend="buildx")
    image, attestation = published.manifest()["manifests"]
    assert all(published.layers_match(image["digest"]))
    assert attestation["platform"] == {"os": "unknown", "architecture": "unknown"}


@needs_build_backend
@pytest.mark.parametrize("way", ["option", "variable"])
def test_build_backend_without_attestations_needs_a_newer_buildx(
    containerd_engine: Engine, deployed: Callable[..., Published], way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"provenance": False} if way == "option" else {}
    if way == "variable":
        monkeypatch.setenv("BUILDX_NO_DEFAULT_ATTESTATIONS", "1")
    version = containerd_engine.run("docker", "buildx", "version").stdout.split()[1].removeprefix("v")
    if Version(version.partition("+")[0]) >= Version("0.36"):
        assert deployed(containerd_engine, build_backend="buildx", **options).is_one_manifest
    else:
        with pytest.raises(BuildError, match="No such image: sha256:"):
            deployed(containerd_engine, build_backend="buildx", **options)


@needs_build_backend
@pytest.mark.usefixtures("containerd_engine")
def test_prefect_cannot_retry_a_failed_build_of_build_backend(context: Path) -> None:
    # Prefect looks for words such as "connection reset" in the error.
    (context / "Dockerfile").write_text("FROM 127.0.0.1:1/none\n")
    with pytest.raises(BuildError) as raised:
        DockerImage("none", "v1", "Dockerfile", io.StringIO(), build_backend="buildx").build()
    assert "connection refused" not in str(raised.value)


@pytest.mark.usefixtures("amd64")
def test_the_graphdriver_store_gives_sound_layers_without_attestations(
    graphdriver_engine: Engine, deployed: Callable[..., Published]
) -> None:
    published = deployed(graphdriver_engine)
    assert published.is_one_manifest
    assert published.config()["architecture"] == "arm64"
    assert all(published.layers_match())
