"""Engines, and Prefect with its setting on or off, for all tests."""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import private_docker as machine

# After Prefect, which loads docker-py lazily, `from docker.errors import ...` of a test would load that module twice.
importlib.import_module("docker")

if TYPE_CHECKING:
    from private_docker import Engine, PrivateDocker, Registry

# What tests set for themselves. (pytest-env of 2025, which the matrix meets, cannot unset a variable.)
for name in ("PREFECT_DOCKER_DISABLE_ATTESTATIONS", "PREFECT_DOCKER_ATTEST_AUTOLOAD"):
    os.environ.pop(name, None)

# A shell that starts this in the background makes it and its children deaf to Ctrl-C, which some tests press.
signal.signal(signal.SIGINT, signal.default_int_handler)

Setting = Callable[[bool], AbstractContextManager[Any]]
"""Turns the setting on or off within a ``with``."""

ENGINES = pytest.StashKey[str]()
"""The versions of the private engines, once they are up."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--suite", default="trixie", help="the suite of Debian that the engines come from: trixie or sid")


def pytest_report_header() -> str:
    names = ("prefect", "prefect-docker", "docker", "pydantic-settings")
    return ", ".join(f"{name} {version(name)}" for name in names)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # A session of engines takes seconds to start: pure tests fail first.
    order = {"unit": 0, "startup": 1, "engine": 2}
    items.sort(key=lambda item: order.get(item.path.relative_to(Path(__file__).parent).parts[0], 3))


def missing(reason: str) -> None:
    """Skip a test that lacks something of the machine; in CI, where nothing may be missing, fail it."""
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def private_docker(request: pytest.FixtureRequest) -> Iterator[PrivateDocker]:
    """Two engines, one of each image store, and a registry, for the whole session."""
    reason = machine.why_not()
    if reason:
        missing(reason)
    with machine.start(request.config.getoption("--suite")) as docker:
        request.config.stash[ENGINES] = (
            f"Docker {docker.docker_version}, buildx {docker.buildx_version} ({docker.suite})"
        )
        yield docker


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    # Of a row of the matrix only the suite is known beforehand.
    if ENGINES in config.stash:
        terminalreporter.write_line(config.stash[ENGINES])


@pytest.fixture(scope="session")
def registry(private_docker: PrivateDocker) -> Registry:
    """A registry, which is also the engines' mirror of Docker Hub."""
    return private_docker.registry


def _used(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Engine:
    for name in [name for name in os.environ if name.startswith(("DOCKER_", "BUILDX_", "BUILDKIT_"))]:
        monkeypatch.delenv(name)
    for name in ("DOCKER_HOST", "DOCKER_CONFIG", "PATH"):
        monkeypatch.setenv(name, engine.environment[name])
    if engine.store == "graphdriver":
        # That store has one platform under a tag, and the test before may have left it another machine's.
        engine.run("docker", "image", "rm", "--force", "busybox", check=False)
    return engine


@pytest.fixture(params=machine.STORES)
def engine(request: pytest.FixtureRequest, private_docker: PrivateDocker, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """The engine that this process talks to, once with each image store."""
    return _used(private_docker.engines[request.param], monkeypatch)


@pytest.fixture
def containerd_engine(private_docker: PrivateDocker, monkeypatch: pytest.MonkeyPatch) -> Engine:
    return _used(private_docker.engines["containerd"], monkeypatch)


@pytest.fixture
def graphdriver_engine(private_docker: PrivateDocker, monkeypatch: pytest.MonkeyPatch) -> Engine:
    return _used(private_docker.engines["graphdriver"], monkeypatch)


@pytest.fixture
def some_engine(request: pytest.FixtureRequest) -> None:
    """Any engine with buildx: the one that is there, else a private one."""
    docker = shutil.which("docker")
    probes = (["info"], ["buildx", "version"])
    if docker and all(subprocess.run([docker, *p], capture_output=True, check=False).returncode == 0 for p in probes):
        return
    request.getfixturevalue("containerd_engine")


@pytest.fixture
def setting() -> Setting:
    """A function that turns the setting on or off within a ``with``."""
    from prefect.settings import PREFECT_DOCKER_DISABLE_ATTESTATIONS, temporary_settings

    return lambda value: temporary_settings({PREFECT_DOCKER_DISABLE_ATTESTATIONS: value})


@pytest.fixture
def switched_on(setting: Setting) -> Iterator[None]:
    """The setting on, for the whole test."""
    with setting(True):
        yield
