"""Values of `PREFECT_DOCKER` and `docker` that do not belong to this package have no effect."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from support.environment import Environment

PROFILE = 'active = "mine"\n[profiles.mine]\nPREFECT_DOCKER_DISABLE_ATTESTATIONS = "true"\n'

# For each case: the environment variable and files, and the resulting value of the setting.
CASES: dict[str, tuple[dict[str, str], bool]] = {
    "the variable is 1": ({"PREFECT_DOCKER": "1"}, False),
    "the variable is a word": ({"PREFECT_DOCKER": "foo"}, False),
    "the variable is empty": ({"PREFECT_DOCKER": ""}, False),
    "the variable is a JSON list": ({"PREFECT_DOCKER": "[1]"}, False),
    "the variable is a JSON object of others": ({"PREFECT_DOCKER": '{"registry": "x"}'}, False),
    ".env has a word": ({".env": "PREFECT_DOCKER=foo\n"}, False),
    "prefect.toml has a boolean": ({"prefect.toml": "docker = true\n"}, False),
    "prefect.toml has a text": ({"prefect.toml": 'docker = "x"\n'}, False),
    "prefect.toml has a list": ({"prefect.toml": "docker = [1]\n"}, False),
    "pyproject.toml has a text": ({"pyproject.toml": '[tool.prefect]\ndocker = "x"\n'}, False),
    "the variable is a word, the profile has the setting": ({"PREFECT_DOCKER": "foo", "profiles.toml": PROFILE}, True),
    "prefect.toml has a boolean, the profile the setting": (
        {"prefect.toml": "docker = true\n", "profiles.toml": PROFILE},
        True,
    ),
}


def outcomes(cases: Sequence[Mapping[str, str]]) -> list[object]:
    """Return for each case the value of the setting, `None` without this package, or the error."""
    import os
    import tempfile
    from pathlib import Path

    from prefect.settings import Settings

    seen: list[object] = []
    for case in cases:
        # Prefect caches the content of a file by its path and time.
        os.chdir(tempfile.mkdtemp(dir=os.environ["HOME"]))
        os.environ["PREFECT_PROFILES_PATH"] = os.path.abspath("profiles.toml")
        os.environ.pop("PREFECT_DOCKER", None)
        for name, text in case.items():
            if name == "PREFECT_DOCKER":
                os.environ[name] = text
            else:
                Path(name).write_text(text, encoding="utf-8")
        try:
            seen.append(getattr(getattr(Settings(), "docker", None), "disable_attestations", None))
        except Exception as error:
            seen.append(repr(error))
    return seen


@pytest.fixture(scope="module")
def seen(
    _from_wheel: Environment, _without_us: Environment, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[object, object]]:
    """Return the outcome of each case with this package, and without it."""
    cases = [case for case, _ in CASES.values()]
    environments = [
        replace(environment, project=tmp_path_factory.mktemp("names")) for environment in (_from_wheel, _without_us)
    ]
    both = (environment.call(outcomes, cases) for environment in environments)
    return dict(zip(CASES, zip(*both, strict=True), strict=True))


@pytest.mark.parametrize("case", CASES)
def test_a_foreign_value_has_no_effect(seen: dict[str, tuple[object, object]], case: str) -> None:
    assert seen[case] == (CASES[case][1], None)


def test_a_json_object_with_the_setting_is_read(from_wheel: Environment) -> None:
    assert from_wheel.call(outcomes, [{"PREFECT_DOCKER": '{"disable_attestations": true}'}]) == [True]
