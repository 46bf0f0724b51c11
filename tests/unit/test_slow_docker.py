"""A docker CLI that gives no answer in time: nothing is said about what is then not known."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from prefect_docker_attest.buildx import docker_cli
from prefect_docker_attest.buildx.cli_context import CliContext
from prefect_docker_attest.buildx.docker_cli import plugin_failure
from prefect_docker_attest.errors import BuildFailed

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _slow_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command `docker` sleeps, and short commands wait for less than a second."""
    (tmp_path / "docker").write_text("#!/bin/sh\nsleep 1000\n")
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(docker_cli, "_PATIENCE", 0.2)


def test_a_buildx_that_gives_no_answer_is_not_called_unusable() -> None:
    assert plugin_failure(docker_cli.DOCKER, ()) is None


def test_an_image_that_nobody_looked_for_is_not_called_missing() -> None:
    with pytest.raises(BuildFailed, match=r"There was no answer from .* to `docker image inspect x:1`"):
        CliContext().image_id("x:1")
