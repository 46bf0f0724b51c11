"""`install` and `uninstall`: once, undone everywhere, and in nobody else's way."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

from prefect_docker_attest import startup
from startup.environment import AUTOLOAD, SETTING, builder_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from startup.environment import Environment

ON = {SETTING: "true"}


def test_install_twice_is_install_once(from_wheel: Environment) -> None:
    def found() -> list[bool]:
        from prefect.utilities import dockerutils

        import prefect_docker_attest

        original: Any = dockerutils.docker_client
        prefect_docker_attest.install()
        ours: Any = dockerutils.docker_client
        prefect_docker_attest.install()
        return [ours is original, dockerutils.docker_client is ours, ours.__wrapped__ is original]

    # Without autoload the original can be seen.
    assert from_wheel.call(found, variables={AUTOLOAD: "0"}) == [False, True, True]


def test_uninstall_brings_back_what_prefect_did_in_every_module(from_wheel: Environment) -> None:
    def builders() -> list[list[str]]:
        import importlib
        import sys
        from types import ModuleType

        import prefect_docker_attest

        names = ["prefect.utilities.dockerutils", "prefect.docker.docker_image", "prefect_docker.deployments.steps"]
        modules: list[Any] = [importlib.import_module(name) for name in names]
        user: Any = sys.modules.setdefault("deploy", ModuleType("deploy"))
        user.opens_docker = modules[0].docker_client

        def now() -> list[str]:
            return [builder_of(function) for function in (*(each.docker_client for each in modules), user.opens_docker)]

        before = now()
        prefect_docker_attest.uninstall()
        without = now()
        prefect_docker_attest.uninstall()
        again = now()
        prefect_docker_attest.install()
        return [before, without, again, now()]

    assert from_wheel.call(builders, using=[builder_of], variables=ON) == [
        ["buildx"] * 4,
        ["docker-py"] * 4,
        ["docker-py"] * 4,
        ["buildx"] * 4,
    ]


@pytest.mark.skipif(
    not any(find_spec(name) for name in startup.BUILD_BACKENDS), reason="this Prefect has no build_backend"
)
def test_build_backend_is_switched_and_brought_back_with_the_rest(from_wheel: Environment) -> None:
    def found() -> list[list[bool]]:
        import importlib
        from importlib.util import find_spec

        import prefect_docker_attest
        from prefect_docker_attest import startup

        names = [name for name in startup.BUILD_BACKENDS if find_spec(name)]
        prefect_docker_attest.install()
        backends: list[Any] = [importlib.import_module(name) for name in names]

        def switched() -> list[bool]:
            return [
                hasattr(each._buildx_build_once, "builds_without_attestations")
                for each in backends
                if each.buildx_build_image.__module__ == each.__name__
            ]

        steps = [switched()]
        for change in ("uninstall", "uninstall", "install", "install"):
            getattr(prefect_docker_attest, change)()
            steps.append(switched())
        return steps

    for variables in ({}, {AUTOLOAD: "0"}):
        assert from_wheel.call(found, variables=variables) == [[True], [False], [False], [True], [True]]


def test_uninstall_leaves_anothers_wrapper_alone(from_wheel: Environment) -> None:
    def found() -> list[object]:
        import contextlib
        import functools

        from prefect.utilities import dockerutils

        import prefect_docker_attest

        ours: Any = dockerutils.docker_client
        opened: list[str] = []

        @functools.wraps(ours)
        @contextlib.contextmanager
        def theirs() -> Iterator[Any]:
            opened.append("theirs")
            with ours() as client:
                yield client

        dockerutils.docker_client = theirs
        prefect_docker_attest.uninstall()
        builder_of(dockerutils.docker_client)
        return [dockerutils.docker_client is theirs, opened]

    assert from_wheel.call(found, using=[builder_of], variables=ON) == [True, ["theirs"]]


def test_a_client_that_is_open_keeps_its_build(from_wheel: Environment) -> None:
    def built() -> str:
        from unittest import mock

        from prefect.utilities import dockerutils

        import prefect_docker_attest

        client = mock.Mock()
        with (
            mock.patch("docker.DockerClient.from_env", return_value=client),
            mock.patch("prefect_docker_attest.docker_py.build", return_value=(each for each in ["buildx"])),
            dockerutils.docker_client() as opened,
        ):
            prefect_docker_attest.uninstall()
            return str(next(opened.api.build(path=".")))

    assert from_wheel.call(built, variables=ON) == "buildx"


def test_modules_that_load_when_they_are_used_stay_unloaded(from_wheel: Environment) -> None:
    def lazy_modules() -> list[bool]:
        import importlib.util
        import sys

        def lazy(name: str) -> None:
            spec = importlib.util.find_spec(name)
            assert spec is not None
            assert spec.loader is not None
            spec.loader = importlib.util.LazyLoader(spec.loader)
            sys.modules[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(sys.modules[name])

        # As a user may have one that he never needs, and Prefect has docker.
        lazy("broken")
        import prefect.utilities.dockerutils  # noqa: F401

        from prefect_docker_attest import startup

        return [
            *(type(sys.modules[name]).__name__ == "_LazyModule" for name in ("broken", "docker")),
            not startup.failures,
        ]

    (from_wheel.project / "broken.py").write_text("raise RuntimeError", encoding="utf-8")
    assert from_wheel.call(lazy_modules) == [True, True, True]
