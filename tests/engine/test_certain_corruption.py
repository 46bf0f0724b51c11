"""Unset is not false: a build that is certain to be corrupt logs one warning, and nothing else changes."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from prefect_docker_attest.patches import corruption_warning
from support.names import BUSYBOX
from support.socket_proxy import socket_proxy
from support.ways import WAYS

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Setting
    from engines.private import Engine, Registry

pytestmark = pytest.mark.usefixtures("both_platforms", "amd64")

ARM64 = "linux/arm64"


@pytest.fixture(autouse=True)
def not_yet_warned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corruption_warning, "_warned", threading.Event())


@pytest.fixture
def context(tmp_path: Path) -> Path:
    (tmp_path / "context").mkdir()
    (tmp_path / "context" / "Dockerfile").write_text(f"FROM {BUSYBOX}\nCOPY . /x/\n")
    return tmp_path / "context"


def _build(context: Path, registry: Registry, caplog: pytest.LogCaptureFixture, way: str, platform: str) -> list[str]:
    with caplog.at_level(logging.WARNING, logger="prefect_docker_attest"):
        WAYS[way](f"{registry.address}/certain:{uuid4()}", context, platform=platform)
    return [record.getMessage() for record in caplog.records if record.name == "prefect_docker_attest"]


@pytest.mark.parametrize("way", ["build_image", "DockerImage", "step"])
def test_unset_one_warning_before_a_corrupt_build(
    context: Path, registry: Registry, engine: Engine, caplog: pytest.LogCaptureFixture, way: str
) -> None:
    engine.run("docker", "pull", BUSYBOX)  # otherwise the classic builder fails
    warnings = _build(context, registry, caplog, way, ARM64)
    if engine.store == "graphdriver":
        assert warnings == []
        return
    (warning,) = warnings
    assert f"This image for platform='{ARM64}' will be corrupt" in warning
    assert "PREFECT_DOCKER_DISABLE_ATTESTATIONS=true" in warning
    assert _build(context, registry, caplog, way, ARM64) == [warning]


@pytest.mark.parametrize("platform", ["linux/amd64", "amd64", "linux", ""])
def test_a_native_platform_is_not_warned_of_and_costs_no_request(  # noqa: PLR0917 fixtures
    context: Path,
    registry: Registry,
    containerd_engine: Engine,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    platform: str,
) -> None:
    with socket_proxy(tmp_path / "proxy.sock", containerd_engine.host, lambda *_: False) as requests:
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/proxy.sock")
        assert _build(context, registry, caplog, "build_image", platform) == []
    asked = [request for request in requests if request.endswith("/info")]
    assert asked == []


def test_false_is_a_decision(
    context: Path, registry: Registry, containerd_engine: Engine, caplog: pytest.LogCaptureFixture, setting: Setting
) -> None:
    containerd_engine.run("docker", "pull", BUSYBOX)
    with setting(False):
        assert _build(context, registry, caplog, "build_image", ARM64) == []
    assert len(_build(context, registry, caplog, "build_image", ARM64)) == 1
