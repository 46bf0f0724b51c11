"""`import prefect_docker_attest` in a process that reads no `.pth` file, and the variable that disables patches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from support.environment import AUTOLOAD, SETTING, builder_of

if TYPE_CHECKING:
    from pathlib import Path

    from support.environment import Environment


@pytest.fixture(params=["-S", "PYTHONPATH"])
def unread(
    request: pytest.FixtureRequest, from_wheel: Environment, without_us: Environment, dependencies: Path
) -> tuple[Environment, tuple[str, ...], dict[str, str]]:
    """An environment, flags and variables with which Python can import the package, but reads no `.pth` file of it."""
    if request.param == "-S":
        return from_wheel, ("-S",), {"PYTHONPATH": f"{from_wheel.site_packages}:{dependencies}"}
    return without_us, (), {"PYTHONPATH": str(from_wheel.package.parent)}


def test_import_before_prefect_works_like_the_start_up_file(
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


def test_import_after_prefect_patches_every_module_that_imported_the_client(
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


def test_import_after_prefect_reads_the_current_value_from_prefects_sources(
    from_wheel: Environment, without_us: Environment
) -> None:
    def values(name: str) -> list[bool]:
        import os
        from pathlib import Path

        import prefect.settings

        prefect.settings.get_current_settings()
        from prefect_docker_attest.patches.settings_reader import read_settings

        of_profile = bool(read_settings().disable_attestations)
        Path("prefect.toml").write_text("[docker]\ndisable_attestations = false\n", encoding="utf-8")
        of_file = bool(read_settings().disable_attestations)
        os.environ[name] = "true"
        return [of_profile, of_file, bool(read_settings().disable_attestations)]

    without_us.profiles.write_text(f'active = "p"\n[profiles.p]\n{SETTING} = "true"\n', encoding="utf-8")
    # Prefect warns about an unknown setting in a profile.
    variables = {"PYTHONPATH": str(from_wheel.package.parent), "PYTHONWARNINGS": "ignore::UserWarning"}
    assert without_us.call(values, SETTING, variables=variables) == [True, False, True]


def test_without_autoload_builds_are_not_patched_and_the_setting_is_registered(from_wheel: Environment) -> None:
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
