"""Ways to load the package: its start-up file, an import, Prefect's plugin hook. The doctor reports which one works."""

from __future__ import annotations

import json
import subprocess
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest
from packaging.version import Version

from support.environment import SETTING, builder_of, write

if TYPE_CHECKING:
    from pathlib import Path

    from support.environment import Environment

# Prefect has plugins since 3.4.24. Before 3.7 they were an experiment.
_EXPERIMENT = "" if Version(version("prefect")) >= Version("3.7") else "EXPERIMENTS_"
PLUGINS_ENABLED = {f"PREFECT_{_EXPERIMENT}PLUGINS_ENABLED": "true"}
with_plugins = pytest.mark.skipif(
    not any(find_spec(f"prefect.{place}.plugins") for place in ("_internal", "_experimental")),
    reason="this Prefect has no plugin hook",
)


@pytest.fixture
def importable(from_wheel: Environment) -> dict[str, str]:
    """Return variables with which another environment can import the package, but does not read its start-up file."""
    return {"PYTHONPATH": str(from_wheel.site_packages), SETTING: "true"}


def package_check(environment: Environment, variables: dict[str, str]) -> dict[str, str]:
    """Return the doctor's check of the package."""
    done = environment.run("-m", "prefect_docker_attest", "doctor", "--json", variables=variables)
    return next(check for check in json.loads(done.stdout)["checks"] if check["name"] == "package")


def builder() -> str:
    from prefect.utilities.dockerutils import docker_client

    return builder_of(docker_client)


@with_plugins
def test_prefects_plugin_hook_patches_builds(without_us: Environment, importable: dict[str, str]) -> None:
    variables = {**importable, **PLUGINS_ENABLED}
    assert without_us.call(builder, using=[builder_of], variables=variables) == "buildx"
    assert without_us.call(builder, using=[builder_of], variables=importable) == "docker-py"


@with_plugins
def test_prefects_plugin_hook_and_the_start_up_file_work_together(from_wheel: Environment) -> None:
    def found() -> list[object]:
        import sys

        from prefect.settings import get_current_settings
        from prefect.utilities.dockerutils import docker_client

        settings: Any = get_current_settings()
        finders = [finder for finder in sys.meta_path if type(finder).__module__ == "prefect_docker_attest.import_hook"]
        return [settings.docker.disable_attestations, builder_of(docker_client), len(finders)]

    variables = {SETTING: "true", **PLUGINS_ENABLED}
    assert from_wheel.call(found, using=[builder_of], variables=variables) == [True, "buildx", 1]


def test_the_doctor_reports_the_start_up_file_as_the_loader(installed: Environment) -> None:
    check = package_check(installed, {})
    assert check["status"] == "ok"
    assert check["found"].endswith("active: its start-up file loads it")


@with_plugins
def test_the_doctor_reports_the_plugin_hook_and_its_limits(without_us: Environment, importable: dict[str, str]) -> None:
    check = package_check(without_us, {**importable, **PLUGINS_ENABLED})
    assert check["status"] == "warning"
    assert "active: Prefect's plugin hook loads it. This is too late for `prefect config`" in check["found"]
    assert check["advice"].endswith(f"or set the environment variable {SETTING}.")


def test_the_doctor_reports_an_import_as_the_loader(without_us: Environment, importable: dict[str, str]) -> None:
    write(without_us.project, {"sitecustomize.py": "import prefect_docker_attest"})
    folders = f"{without_us.project}:{importable['PYTHONPATH']}"
    check = package_check(without_us, {**importable, "PYTHONPATH": folders})
    assert check["status"] == "ok"
    assert check["found"].endswith("active: an import at Python's start loads it")


@pytest.mark.parametrize(("setting", "status"), [("true", "problem"), ("false", "warning")])
def test_the_doctor_says_first_that_nothing_loads_the_package(
    without_us: Environment, importable: dict[str, str], setting: str, status: str
) -> None:
    done = without_us.run("-m", "prefect_docker_attest", "doctor", "--json", variables={**importable, SETTING: setting})
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert next(iter(checks)) == "package"
    assert checks["package"]["status"] == status
    assert checks["package"]["found"].endswith(f"{SETTING} has no effect, because nothing loads this package")
    shown = checks["setting"]
    assert (shown["status"], "but has no effect" in shown["found"]) == (status, setting == "true")
    assert checks["cross-platform"]["status"] != "ok"


def test_the_command_that_the_doctor_shows_for_a_folder_of_pythonpath_loads_the_package(
    without_us: Environment, from_wheel: Environment, importable: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "a b"
    folder.mkdir()
    for name in ("prefect_docker_attest", next(from_wheel.site_packages.glob("prefect_docker_attest-*")).name):
        (folder / name).symlink_to(from_wheel.site_packages / name)
    variables = {**importable, "PYTHONPATH": str(folder)}
    advice = package_check(without_us, variables)["advice"]
    command = advice.partition("\nor `")[2].removesuffix("`")
    subprocess.run(command, shell=True, check=True)
    assert without_us.call(builder, using=[builder_of], variables=variables) == "buildx"
    check = package_check(without_us, variables)
    assert (check["status"], check["advice"]) == ("ok", "")
