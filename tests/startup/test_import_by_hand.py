"""`import prefect_docker_attest` where no `.pth` file is read, and the variable that leaves the builds alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from startup.environment import AUTOLOAD, FAKE_PREFECT, SETTING, builder_of, write

if TYPE_CHECKING:
    from pathlib import Path

    from startup.environment import Environment


@pytest.fixture(params=["-S", "PYTHONPATH"])
def unread(
    request: pytest.FixtureRequest, from_wheel: Environment, without_us: Environment, dependencies: Path
) -> tuple[Environment, tuple[str, ...], dict[str, str]]:
    """An environment, flags and variables with which the package is importable and its `.pth` file was not read."""
    if request.param == "-S":
        return from_wheel, ("-S",), {"PYTHONPATH": f"{from_wheel.site_packages}:{dependencies}"}
    return without_us, (), {"PYTHONPATH": str(from_wheel.package.parent)}


def test_before_prefect_it_does_what_the_file_does(
    unread: tuple[Environment, tuple[str, ...], dict[str, str]],
) -> None:
    def found() -> list[object]:
        import importlib
        import sys

        assert not any(getattr(each, "__name__", "").endswith("Sentinel") for each in sys.meta_path), "it was read"
        importlib.import_module("prefect_docker_attest")

        from prefect.settings import get_current_settings
        from prefect.utilities.dockerutils import docker_client

        settings: Any = get_current_settings()
        return [settings.docker.disable_attestations, builder_of(docker_client)]

    environment, flags, variables = unread
    variables = {**variables, SETTING: "true"}
    assert environment.call(found, using=[builder_of], flags=flags, variables=variables) == [True, "buildx"]


def test_after_prefect_it_switches_every_module_that_bound_the_client(
    unread: tuple[Environment, tuple[str, ...], dict[str, str]],
) -> None:
    def builders() -> list[str]:
        import importlib
        import sys
        from types import ModuleType

        from prefect.docker import docker_image
        from prefect.utilities import dockerutils
        from prefect_docker.deployments import steps

        user: Any = sys.modules.setdefault("deploy", ModuleType("deploy"))
        user.docker_client = dockerutils.docker_client

        importlib.import_module("prefect_docker_attest")
        modules: list[Any] = [dockerutils, docker_image, steps, user]
        return [builder_of(module.docker_client) for module in modules]

    environment, flags, variables = unread
    variables = {**variables, SETTING: "true"}
    assert environment.call(builders, using=[builder_of], flags=flags, variables=variables) == ["buildx"] * 4


def test_after_prefect_the_value_is_read_from_prefects_sources_as_of_now(
    from_wheel: Environment, without_us: Environment
) -> None:
    def values(name: str) -> list[bool]:
        import os
        from pathlib import Path

        import prefect.settings

        prefect.settings.get_current_settings()
        from prefect_docker_attest.switch import attestations_disabled

        of_profile = attestations_disabled()
        Path("prefect.toml").write_text("[docker]\ndisable_attestations = false\n", encoding="utf-8")
        of_file = attestations_disabled()
        os.environ[name] = "true"
        return [of_profile, of_file, attestations_disabled()]

    without_us.profiles.write_text(f'active = "p"\n[profiles.p]\n{SETTING} = "true"\n', encoding="utf-8")
    # Prefect warns of a profile whose setting it does not know.
    variables = {"PYTHONPATH": str(from_wheel.package.parent), "PYTHONWARNINGS": "ignore::UserWarning"}
    assert without_us.call(values, SETTING, variables=variables) == [True, False, True]


@pytest.mark.parametrize("seed", ["1", "2", "3", "4"])
def test_after_a_prefect_without_the_client_its_step_refuses_in_whatever_order_hooks_are_kept(
    from_wheel: Environment, without_us: Environment, seed: str
) -> None:
    def refusal() -> str:
        import prefect.utilities.dockerutils  # noqa: F401
        from prefect_docker.deployments import steps

        import prefect_docker_attest  # noqa: F401

        try:
            return str(steps.build_docker_image("image"))
        except RuntimeError as error:
            return str(error)

    other_shape = {
        "prefect/utilities/dockerutils.py": "",
        "prefect_docker/__init__.py": "",
        "prefect_docker/deployments/steps.py": "def build_docker_image(name): return 'built'",
    }
    write(without_us.project, {**FAKE_PREFECT, **other_shape})
    variables = {"PYTHONPATH": str(from_wheel.package.parent), SETTING: "true", "PYTHONHASHSEED": seed}
    assert without_us.call(refusal, variables=variables).startswith(
        f"{SETTING} is on, but prefect-docker-attest cannot"
    )


def test_without_autoload_builds_are_left_alone_and_the_setting_is_known(from_wheel: Environment) -> None:
    def found() -> list[object]:
        from prefect.settings import get_current_settings
        from prefect.utilities import dockerutils

        settings: Any = get_current_settings()
        before = builder_of(dockerutils.docker_client)
        import prefect_docker_attest

        prefect_docker_attest.install()
        return [settings.docker.disable_attestations, before, builder_of(dockerutils.docker_client)]

    variables = {AUTOLOAD: "0", SETTING: "true"}
    assert from_wheel.call(found, using=[builder_of], variables=variables) == [True, "docker-py", "buildx"]
