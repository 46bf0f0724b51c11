"""The sources of the setting's value, and their precedence."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from support.environment import Environment

STRONGEST_FIRST = ("environment", ".env", "prefect.toml", "pyproject.toml", "profiles.toml")

# The content of the sources in each case, and the resulting value.
CASES: dict[str, tuple[Mapping[str, str], bool]] = {
    "nothing": ({}, False),
    **{
        f"{name} says {value}": ({name: value}, value == "true")
        for name in STRONGEST_FIRST
        for value in ("true", "false")
    },
    **{
        f"{name} says {value}, all that is weaker the contrary": (
            {name: value, **dict.fromkeys(STRONGEST_FIRST[place + 1 :], contrary)},
            value == "true",
        )
        for place, name in enumerate(STRONGEST_FIRST[:-1])
        for value, contrary in (("true", "false"), ("false", "true"))
    },
    "environment says 1": ({"environment": "1"}, True),
    "environment says ON": ({"environment": "ON"}, True),
    "environment says no": ({"environment": "no"}, False),
    # CI systems export variables without a value as empty.
    "environment is empty": ({"environment": ""}, False),
    "environment is empty, .env says true": ({"environment": "", ".env": "true"}, True),
    "environment is empty, profile says true": ({"environment": "", "profiles.toml": "true"}, True),
    ".env is empty": ({".env": ""}, False),
    ".env is empty, prefect.toml says true": ({".env": "", "prefect.toml": "true"}, True),
    "profile is empty": ({"profiles.toml": ""}, False),
    # TOML has no other empty value than an empty string.
    "prefect.toml is empty, profile says true": ({"prefect.toml": '""', "profiles.toml": "true"}, True),
    "pyproject.toml is empty, profile says true": ({"pyproject.toml": '""', "profiles.toml": "true"}, True),
    "prefect.toml is empty, pyproject.toml says true": ({"prefect.toml": '""', "pyproject.toml": "true"}, True),
}


def values_of(sources_of_cases: Iterable[Mapping[str, str]]) -> list[bool]:
    import os
    import tempfile
    from pathlib import Path

    name = "PREFECT_DOCKER_DISABLE_ATTESTATIONS"
    texts = {
        ".env": f"{name}=%s\n",
        "prefect.toml": "[docker]\ndisable_attestations = %s\n",
        "pyproject.toml": "[tool.prefect.docker]\ndisable_attestations = %s\n",
        "profiles.toml": f'active = "mine"\n[profiles.mine]\n{name} = "%s"\n',
    }
    from prefect.settings import Settings

    values: list[bool] = []
    for sources in sources_of_cases:
        # Prefect caches the content of a file by its path and time.
        os.chdir(tempfile.mkdtemp(dir=os.environ["HOME"]))
        os.environ["PREFECT_PROFILES_PATH"] = os.path.abspath("profiles.toml")
        os.environ.pop(name, None)
        for source, value in sources.items():
            if source == "environment":
                os.environ[name] = value
            else:
                Path(source).write_text(texts[source] % value, encoding="utf-8")
        settings: Any = Settings()
        values.append(settings.docker.disable_attestations)
    return values


@pytest.fixture(scope="module")
def values(_from_wheel: Environment, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bool]:
    """Return the value in each case. One process reads all of them, because Prefect takes a second to start."""
    environment = replace(_from_wheel, project=tmp_path_factory.mktemp("sources"))
    return dict(zip(CASES, environment.call(values_of, [sources for sources, _ in CASES.values()]), strict=True))


@pytest.mark.parametrize("case", CASES)
def test_the_source_with_the_highest_precedence_wins(values: dict[str, bool], case: str) -> None:
    assert values[case] is CASES[case][1]
