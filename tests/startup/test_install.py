"""`install` and `uninstall`: once, undone everywhere, and in nobody else's way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from startup.environment import AUTOLOAD, SETTING, builder_of

if TYPE_CHECKING:
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
