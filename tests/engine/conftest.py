"""Fixtures for a build that sleeps, and for removing a test's build cache."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil
import pytest

from engines.contents import cache_records, remove_cache_since
from support.podman import podman, podman_service  # noqa: F401 fixtures
from support.slow_build import SlowBuild

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import DockerInUse
    from engines.private import Engine


@pytest.fixture
def forget(docker_in_use: DockerInUse) -> Callable[[Engine], None]:
    """A function that removes the build cache of this test from an engine."""
    before = {engine.host: cache_records(engine) for engine in docker_in_use.engines.values()}
    return lambda engine: remove_cache_since(engine, before[engine.host])


@pytest.fixture
def slow(
    engine_is_here: None,  # noqa: ARG001
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[SlowBuild]:
    # The path is short, because multiprocessing binds a socket in the folder. `tmp_path` has the name of the test.
    slow = SlowBuild(tmp_path_factory.mktemp("slow"))
    for name, value in slow.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(tempfile, "tempdir", str(slow.temporary))
    yield slow
    for process in slow.processes():
        with suppress(psutil.Error):
            process.kill()
