"""`prefect-docker-attest --version`: the versions for a bug report, within 2 seconds whatever Docker does."""

from __future__ import annotations

import platform
import socket
import subprocess
import sys
import time
from importlib.metadata import version
from typing import TYPE_CHECKING

import pytest

from support.processes import allowed
from support.shipped import COMMAND

if TYPE_CHECKING:
    from pathlib import Path

    from engines.private import Engine
    from support.shipped import Result, Run

LIMIT = 2  # seconds

INSTALLED = (
    f"prefect-docker-attest {version('prefect-docker-attest')}, Prefect {version('prefect')}, "
    f"docker-py {version('docker')}, Python {platform.python_version()}, "
)


def _timed(run: Run, *, answers: bool = True, **environment: str) -> Result:
    for _ in range(5):  # the machine can be busy with something else
        began = time.monotonic()
        result = run("--version", **environment)
        assert (result.code, result.err) == (0, "")
        if time.monotonic() - began < allowed(LIMIT) and not (answers and "no answer" in result.out):
            return result
    pytest.fail(f"it takes more than {LIMIT} seconds, or docker does not answer, five times")


def test_all_versions_are_shown_in_one_line(run: Run, some_engine: Engine) -> None:
    cli = some_engine.run("docker", "version", "--format={{.Client.Version}}").stdout.strip()
    engine = some_engine.run("docker", "version", "--format={{.Server.Version}}").stdout.strip()
    buildx = some_engine.run("docker", "buildx", "version").stdout.split()[1].removeprefix("v")
    assert _timed(run).out == f"{INSTALLED}docker CLI {cli}, buildx {buildx}, engine {engine}\n"


def test_docker_is_not_needed(run: Run, tmp_path: Path) -> None:
    result = _timed(run, PATH=str(tmp_path))
    assert result.out == f"{INSTALLED}docker CLI not found, buildx not found, engine not found\n"


def test_a_stopped_engine_is_not_found(run: Run, some_engine: Engine) -> None:
    cli = some_engine.run("docker", "version", "--format={{.Client.Version}}").stdout.strip()
    result = _timed(run, DOCKER_HOST="unix:///nonexistent/docker.sock")
    assert f"docker CLI {cli}, buildx " in result.out
    assert result.out.endswith(", engine not found\n")


def test_an_engine_that_never_answers_is_not_waited_for(run: Run, some_engine: Engine, tmp_path: Path) -> None:
    assert some_engine.host
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen(50)
        result = _timed(run, answers=False, DOCKER_HOST=f"unix://{tmp_path}/s")
    assert result.out.endswith(", engine no answer\n")


def test_podman_is_named(run: Run, tmp_path: Path) -> None:
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\necho podman version 5.4.2\n")
    docker.chmod(0o755)
    assert "docker CLI Podman 5.4.2, " in _timed(run, PATH=f"{tmp_path}:/usr/bin:/bin").out


def test_prefect_and_docker_py_are_not_imported() -> None:
    command = [sys.executable, "-X", "importtime", COMMAND, "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "prefect_docker_attest.versions" in imported
    assert not imported & {"prefect", "docker"}
