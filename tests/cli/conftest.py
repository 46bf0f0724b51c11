"""Fixtures that run the command, and images to inspect."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from support.shipped import COMMAND, Images, Result, Run

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import DockerInUse
    from engines.private import Engine, Registry


# ru_maxrss includes memory of the parent process. VmHWM is the peak of the process itself.
_MEASURED = """
import atexit, re, sys
from prefect_docker_attest.cli import main

def report():
    peak = re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]
    print("peak", peak, file=sys.stderr)

atexit.register(report)
sys.argv[0] = "prefect-docker-attest"
main()
"""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def run(*arguments: str, **changes: str | None) -> Result:
        changes.setdefault("PATH", os.pathsep.join([os.path.dirname(COMMAND), os.environ["PATH"]]))
        environment = {name: value for name, value in {**os.environ, **changes}.items() if value is not None}
        done = subprocess.run(
            [sys.executable, "-c", _MEASURED, *arguments],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert "Traceback" not in done.stderr
        # The line is missing if the command left threads behind.
        peak = re.search(r"peak (\d+)\n$", done.stderr)
        errors = done.stderr[: peak.start()] if peak else done.stderr
        return Result(done.returncode, done.stdout, errors, int(peak[1]) << 10 if peak else 0)

    return run


@pytest.fixture
def images(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Images:
    from support.names import BUSYBOX

    context = tmp_path_factory.mktemp("context")
    (context / "Dockerfile").write_text(f"FROM {BUSYBOX}\nCOPY . /app/\n")
    return Images(registry, context)


@pytest.fixture
def builder(docker_in_use: DockerInUse) -> Engine:
    """The engine that builds all images. The command can use another engine."""
    builder = docker_in_use.engines.get("containerd")
    if not builder:
        pytest.skip("needs the containerd image store to build in")
    return builder


@pytest.fixture
def attested(images: Images, builder: Engine) -> str:
    """The name of an image with a provenance attestation, buildx's default."""
    return images.push(builder)


@pytest.fixture
def plain(images: Images, builder: Engine) -> str:
    """The name of an image that is a single manifest."""
    return images.push(builder, "--provenance=false")


@pytest.fixture
def program(registry_program: str, some_engine: Engine) -> str:  # noqa: ARG001 the command asks an engine too
    """The path of the registry program."""
    return registry_program
