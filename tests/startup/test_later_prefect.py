"""A future Prefect whose settings have a group `docker`: our settings are added to this group."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from support.environment import SETTING, write
from support.pickles import assert_loaded, loaded, pickled

if TYPE_CHECKING:
    from pathlib import Path

    from support.environment import Environment

REGISTRY = "PREFECT_DOCKER_REGISTRY"

GROUP = """
from pydantic import Field
from prefect.settings.base import PrefectBaseSettings, build_settings_config

class DockerSettings(PrefectBaseSettings):
    model_config = build_settings_config(("docker",))
    registry: str = Field(default="none", description="Prefect's own")
"""
OUR_FIELD_OF_THEIRS = """\
    disable_attestations: bool = Field(default=False, description="Prefect's own")
"""


def _later(folder: Path, dependencies: Path, group: str) -> dict[str, str]:
    """Return variables for a Prefect with this group. It consists of links, except for its root settings."""
    for package in ("prefect", "prefect/settings", "prefect/settings/models"):
        (folder / package).unlink(missing_ok=True)
        (folder / package).mkdir()
        for entry in (dependencies / package).iterdir():
            (folder / package / entry.name).symlink_to(entry)
    models = folder / "prefect/settings/models"
    root = (models / "root.py").read_text(encoding="utf-8")
    for name in ("root.py", "__pycache__"):
        (models / name).unlink()
    field = "    docker: DockerSettings = Field(default_factory=DockerSettings, description='Theirs')\n"
    first_field, first_import = "    debug_mode: bool", "from .api import"
    assert root.count(first_field) == root.count(first_import) == 1
    root = root.replace(first_field, f"{field}{first_field}")
    root = root.replace(first_import, f"from .docker import DockerSettings\n{first_import}")
    write(models, {"root.py": root, "docker.py": group})
    return {"PYTHONPATH": str(folder)}


@pytest.fixture(scope="module")
def lacking(tmp_path_factory: pytest.TempPathFactory, dependencies: Path) -> dict[str, str]:
    """Variables for a Prefect whose group does not have our setting."""
    return _later(tmp_path_factory.mktemp("lacking"), dependencies, GROUP)


@pytest.fixture(scope="module")
def having(tmp_path_factory: pytest.TempPathFactory, dependencies: Path) -> dict[str, str]:
    """Variables for a Prefect whose group has a setting with the name of ours."""
    return _later(tmp_path_factory.mktemp("having"), dependencies, GROUP + OUR_FIELD_OF_THEIRS)


@pytest.fixture(scope="module")
def pickles(
    _from_wheel: Environment, lacking: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    environment = replace(_from_wheel, project=tmp_path_factory.mktemp("pickles"))
    return environment.call(pickled, variables={**lacking, SETTING: "true", REGISTRY: "r"})


def values() -> list[object]:
    from prefect.settings import PREFECT_DOCKER_DISABLE_ATTESTATIONS, get_current_settings

    from prefect_docker_attest import startup
    from prefect_docker_attest.patches.settings_reader import read_settings

    group: Any = get_current_settings()
    return [
        group.docker.registry,
        group.docker.disable_attestations,
        PREFECT_DOCKER_DISABLE_ATTESTATIONS.value(),
        read_settings().disable_attestations,
        list(startup.failures),
    ]


@pytest.mark.parametrize("later", ["lacking", "having"])
def test_both_settings_of_the_group_are_read(
    request: pytest.FixtureRequest, from_wheel: Environment, later: str
) -> None:
    variables: dict[str, str] = request.getfixturevalue(later)
    assert from_wheel.call(values, variables={**variables, SETTING: "true", REGISTRY: "r"}) == ["r", *[True] * 3, []]


def test_an_empty_variable_is_unset(from_wheel: Environment, lacking: dict[str, str]) -> None:
    assert from_wheel.call(values, variables={**lacking, SETTING: ""}) == ["none", *[False] * 3, []]


def test_prefects_own_field_stays_prefects_own(from_wheel: Environment, having: dict[str, str]) -> None:
    def description() -> str | None:
        from prefect.settings import Settings

        group: Any = Settings.model_fields["docker"].annotation
        field = group.model_fields["disable_attestations"]
        return str(field.description)

    assert from_wheel.call(description, variables=having) == "Prefect's own"


def test_the_profile_keeps_both_settings(from_wheel: Environment, lacking: dict[str, str]) -> None:
    profile = f'[profiles.mine]\n{SETTING} = "true"\n{REGISTRY} = "r"\n'
    write(from_wheel.project, {"profiles.toml": f'active = "mine"\n\n{profile}'})
    from_wheel.prefect("config", "set", "PREFECT_LOGGING_LEVEL=INFO", variables=lacking)
    assert profile in from_wheel.profiles.read_text(encoding="utf-8")


def test_settings_are_the_same_in_another_process(
    from_wheel: Environment, lacking: dict[str, str], pickles: dict[str, str]
) -> None:
    assert_loaded(
        from_wheel.call(loaded, pickles, [SETTING, REGISTRY], variables=lacking),
        docker={"registry": "r", "disable_attestations": True, "push_from_builder": False},
        variables={SETTING: "True", REGISTRY: "r"},
    )


def test_a_process_without_the_package_loads_prefects_own_settings(
    without_us: Environment, lacking: dict[str, str], pickles: dict[str, str]
) -> None:
    assert_loaded(
        without_us.call(loaded, pickles, [SETTING, REGISTRY], variables=lacking),
        docker={"registry": "r"},
        variables={REGISTRY: "r"},
    )


def test_settings_of_a_process_without_the_package_take_the_value_of_the_process_that_loads_them(
    from_wheel: Environment, without_us: Environment, lacking: dict[str, str]
) -> None:
    pickles = without_us.call(pickled, variables={**lacking, REGISTRY: "r"})
    assert_loaded(
        from_wheel.call(loaded, pickles, [SETTING, REGISTRY], variables={**lacking, SETTING: "true"}),
        docker={"registry": "r", "disable_attestations": True, "push_from_builder": False},
        variables={SETTING: "True", REGISTRY: "r"},
    )
