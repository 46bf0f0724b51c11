"""The sources of the setting, with Prefect's command line and a separate home folder."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from support.prefect_server import PREFECT, SETTING, run

if TYPE_CHECKING:
    from pathlib import Path

READ = (
    "from prefect_docker_attest.patches.settings_reader import read_settings; "
    "print(read_settings().disable_attestations)"
)


class User:
    """A user in a project folder, with Prefect's home in this folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.profiles = folder / "home/profiles.toml"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")},
            "PREFECT_HOME": str(folder / "home"),
            "PREFECT_PROFILES_PATH": str(self.profiles),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
        }

    def prefect(self, *arguments: str) -> str:
        """Run `prefect`, and return its output."""
        return run([PREFECT, *arguments], self.environment, self.folder)

    def has_it_on(self) -> bool:
        """Whether a new process would build without attestations."""
        return run([sys.executable, "-c", READ], self.environment, self.folder).strip() == "True"


@pytest.fixture
def user(tmp_path: Path) -> User:
    return User(tmp_path)


def test_each_source_overrides_the_next(user: User) -> None:
    assert not user.has_it_on()
    user.prefect("config", "set", f"{SETTING}=true")
    assert user.has_it_on()
    (user.folder / "pyproject.toml").write_text("[tool.prefect.docker]\ndisable_attestations = false\n")
    assert not user.has_it_on()
    (user.folder / "prefect.toml").write_text("[docker]\ndisable_attestations = true\n")
    assert user.has_it_on()
    (user.folder / ".env").write_text(f"{SETTING}=false\n")
    assert not user.has_it_on()
    user.environment[SETTING] = "true"
    assert user.has_it_on()
    # CI systems export variables without a value as empty.
    user.environment[SETTING] = ""
    assert not user.has_it_on()


def test_a_profile_keeps_the_setting_when_it_is_saved_again(user: User) -> None:
    user.prefect("config", "set", f"{SETTING}=true")
    user.prefect("config", "set", "PREFECT_LOGGING_LEVEL=DEBUG")
    user.prefect("profile", "create", "other")
    user.prefect("config", "unset", "PREFECT_LOGGING_LEVEL", "--yes")
    assert f'{SETTING} = "true"' in user.profiles.read_text()
    assert user.has_it_on()

    user.prefect("config", "unset", SETTING, "--yes")
    assert SETTING not in user.profiles.read_text()
    assert not user.has_it_on()


def test_config_view_shows_the_variable_as_the_source(user: User) -> None:
    user.environment[SETTING] = "true"
    shown = user.prefect("config", "view", "--show-sources").lower()
    assert f"{SETTING}='true' (from env)".lower() in shown
