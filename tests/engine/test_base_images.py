"""A build for a platform that its base image does not have logs a warning."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

import pytest
from prefect.utilities.dockerutils import docker_client

from engines.base_images import base_image, programs_layer, push_image
from prefect_docker_attest.buildx import base_images
from support.names import BUSYBOX
from support.processes import allowed

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import DockerInUse
    from engines.private import Registry

pytestmark = pytest.mark.usefixtures("switched_on")

ARM64, AMD64 = "linux/arm64", "linux/amd64"


@pytest.fixture
def only_arm64_of_oci(registry: Registry) -> str:
    """The name of a base image for linux/arm64 only, with the media types of OCI. Engines do not name its platform."""
    image = base_image("arm64", programs_layer(b"no program", []))
    push_image(registry.address, "only-arm64-of-oci", "latest", image)
    return f"{registry.address}/only-arm64-of-oci"


@pytest.fixture
def only_arm64(docker_in_use: DockerInUse, both_platforms: None, registry: Registry, tmp_path: Path) -> str:  # noqa: ARG001
    """The name of a base image for linux/arm64 only."""
    context = tmp_path / "only-arm64"
    context.mkdir()
    (context / "Dockerfile").write_text(f"FROM {BUSYBOX}\nCOPY . /base/\n")
    name = f"{registry.address}/only-arm64"
    engine = next(iter(docker_in_use.engines.values()))
    build = ["docker", "buildx", "build", "--provenance=false", f"--platform={ARM64}", f"--tag={name}", "--load"]
    engine.run(*build, str(context))
    engine.run("docker", "push", name)
    engine.run("docker", "image", "rm", name)
    return name


def _build(folder: Path, dockerfile: str, **options: Any) -> list[str]:
    """Build with Prefect, and return the warnings in the stream."""
    context = folder / "context"
    context.mkdir(exist_ok=True)
    (context / "Dockerfile").write_text(dockerfile)
    with docker_client() as client:
        events = list(client.api.build(path=str(context), decode=True, **options))
    assert any("aux" in event for event in events), events
    return [event["stream"] for event in events if event.get("stream", "").startswith("WARNING: ")]


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("base", ["only_arm64", "only_arm64_of_oci"])
def test_a_base_image_of_another_platform_is_named(
    base: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    only_arm64: str = request.getfixturevalue(base)
    monkeypatch.setattr(base_images, "_PATIENCE", 30)  # the build can end before the engine has answered
    with caplog.at_level(logging.WARNING, logger="prefect_docker_attest"):
        (warning,) = _build(tmp_path, f"FROM {only_arm64}\nCOPY . /x/\n", platform=AMD64)
    assert only_arm64 in warning
    assert ARM64 in warning
    assert AMD64 in warning
    (logged,) = [record.getMessage() for record in caplog.records]
    assert f"WARNING: {logged}\n" == warning


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("platform", [ARM64, f"{ARM64}/v8", "linux/AARCH64", "aarch64", None], ids=str)
def test_a_base_image_of_this_platform_is_not_warned_of(only_arm64: str, tmp_path: Path, platform: str | None) -> None:
    name = only_arm64 if platform else BUSYBOX
    assert _build(tmp_path, f"FROM {name}\nCOPY . /x/\n", platform=platform) == []


@pytest.mark.usefixtures("engine", "both_platforms")
def test_an_index_is_asked_for_all_of_its_platforms(tmp_path: Path) -> None:
    assert _build(tmp_path, f"FROM {BUSYBOX}\nCOPY . /x/\n", platform=ARM64) == []


@pytest.mark.usefixtures("engine")
def test_a_base_image_that_is_pinned_on_purpose_is_not_warned_of(only_arm64: str, tmp_path: Path) -> None:
    dockerfile = f"FROM --platform={ARM64} {only_arm64} AS files\nFROM {BUSYBOX}\nCOPY --from=files /base /x\n"
    assert _build(tmp_path, dockerfile, platform=AMD64) == []


@pytest.mark.usefixtures("engine", "both_platforms")
def test_a_platform_makes_a_cached_build_hardly_slower(tmp_path: Path) -> None:
    def seconds(platform: str | None) -> float:
        start = time.monotonic()
        _build(tmp_path, f"FROM {BUSYBOX}\nCOPY . /x/\n", platform=platform)
        return time.monotonic() - start

    unnamed, named = zip(*((seconds(None), seconds(AMD64)) for _ in range(7)), strict=True)
    for _ in range(23):  # a busy machine makes some of them slower
        if min(named) - min(unnamed) < allowed(0.2):
            return
        unnamed, named = (*unnamed, seconds(None)), (*named, seconds(AMD64))
    pytest.fail(f"{min(named):.2f} s instead of {min(unnamed):.2f} s")
