"""`prefect config` and profiles, with Prefect's real command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.environment import SETTING, write

if TYPE_CHECKING:
    from support.environment import Environment

PROFILES = f"""\
active = "mine"

[profiles.mine]
{SETTING} = "true"

[profiles.other]
{SETTING} = "false"
"""


@pytest.fixture
def configured(from_wheel: Environment) -> Environment:
    """A project with two profiles. The active profile has the setting on."""
    write(from_wheel.project, {"profiles.toml": PROFILES})
    return from_wheel


def test_set_writes_the_setting_into_the_active_profile(from_wheel: Environment) -> None:
    write(from_wheel.project, {"profiles.toml": 'active = "mine"\n\n[profiles.mine]\n'})
    assert f"Set '{SETTING}' to 'true'." in from_wheel.prefect("config", "set", f"{SETTING}=true")
    assert f'[profiles.mine]\n{SETTING} = "true"\n' in from_wheel.profiles.read_text(encoding="utf-8")


def test_set_refuses_an_invalid_boolean(configured: Environment) -> None:
    ours = configured.run_prefect("config", "set", f"{SETTING}=maybe")
    assert ours.returncode == 1
    # Prefect before 3.2 checks the type of the field only, with pydantic's own words.
    words = f"{SETTING}='maybe' is not true or false", "Input should be a valid boolean"
    assert any(text in " ".join(ours.stdout.split()) for text in words)
    assert configured.profiles.read_text(encoding="utf-8") == PROFILES


def test_set_of_another_setting_keeps_the_entries(configured: Environment) -> None:
    configured.prefect("config", "set", "PREFECT_LOGGING_LEVEL=INFO")
    saved = configured.profiles.read_text(encoding="utf-8")
    assert f'[profiles.mine]\n{SETTING} = "true"\nPREFECT_LOGGING_LEVEL = "INFO"\n' in saved
    assert f'[profiles.other]\n{SETTING} = "false"\n' in saved


def test_validate_keeps_the_entries(configured: Environment) -> None:
    assert "Configuration valid!" in configured.prefect("config", "validate")
    assert configured.profiles.read_text(encoding="utf-8").count(SETTING) == 2


def test_unset_removes_the_entry_of_the_active_profile(configured: Environment) -> None:
    assert f"Unset '{SETTING}'." in configured.prefect("config", "unset", "--yes", SETTING)
    saved = configured.profiles.read_text(encoding="utf-8")
    assert f'[profiles.other]\n{SETTING} = "false"\n' in saved
    assert saved.count(SETTING) == 1


@pytest.mark.parametrize(
    ("options", "variables", "shown"),
    [
        ([], {}, "'true' (from profile)"),
        (["--profile", "other"], {}, "'false' (from profile)"),
        ([], {"PREFECT_PROFILE": "other"}, "'false' (from profile)"),
    ],
    ids=["the active profile", "--profile", "PREFECT_PROFILE"],
)
def test_view_shows_the_value_and_its_source(
    configured: Environment, options: list[str], variables: dict[str, str], shown: str
) -> None:
    output = configured.prefect(*options, "config", "view", "--show-sources", variables=variables)
    assert f"{SETTING}={shown}" in output.splitlines()


def test_view_shows_the_default_with_show_defaults(from_wheel: Environment) -> None:
    output = from_wheel.prefect("config", "view", "--show-defaults", "--show-sources")
    assert f"{SETTING}='False' (from defaults)" in output.splitlines()
