"""The settings that are defaults of build options: sources, values of any type, `prefect config`, pickles."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from support.environment import write
from support.pickles import assert_loaded, loaded, pickled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from support.environment import Environment

PREFIX = "PREFECT_DOCKER_"
SOURCES = ("environment", ".env", "prefect.toml", "pyproject.toml", "profiles.toml")

# The content of the sources of `platform`, and the resulting value. Prefect starts with any content.
CASES: dict[str, tuple[Mapping[str, str], str | None]] = {
    "nothing": ({}, None),
    **{f"{source} has it": ({source: '"linux/arm64"'}, "linux/arm64") for source in SOURCES},
    **{
        f"{source} and all that is weaker": (
            {source: '"linux/arm64"', **dict.fromkeys(SOURCES[place + 1 :], '"linux/386"')},
            "linux/arm64",
        )
        for place, source in enumerate(SOURCES)
    },
    **{
        f"{source} is empty, the profile has it": ({source: '""', "profiles.toml": '"linux/arm64"'}, "linux/arm64")
        for source in SOURCES[:-1]
    },
    "prefect.toml has an empty list, the profile has it": (
        {"prefect.toml": "[]", "profiles.toml": '"linux/arm64"'},
        "linux/arm64",
    ),
    "the environment has blanks": ({"environment": "  "}, None),
    "the environment has JSON": ({"environment": '["a", "b"]'}, '["a", "b"]'),
    "prefect.toml has a number": ({"prefect.toml": "5"}, "5"),
    "prefect.toml has a boolean": ({"prefect.toml": "true"}, "True"),
    "prefect.toml has a list": ({"prefect.toml": '["a,b=c", "d"]'}, "a,b=c\nd"),
    "prefect.toml has a table": ({"prefect.toml": '{type = "registry", ref = "a"}'}, "type=registry,ref=a"),
    "pyproject.toml has a list of tables": (
        {"pyproject.toml": '[{type = "gha"}, {type = "inline"}]'},
        "type=gha\ntype=inline",
    ),
}


def values(cases: Sequence[Mapping[str, str]]) -> list[object]:
    """Return for each case the value of the setting in Prefect, and the value that a build reads."""
    import os
    import tempfile
    from pathlib import Path

    from prefect.settings import Settings

    name = "PREFECT_DOCKER_PLATFORM"
    texts = {
        ".env": f"{name}=%s\n",
        "prefect.toml": "[docker]\nplatform = %s\n",
        "pyproject.toml": "[tool.prefect.docker]\nplatform = %s\n",
        "profiles.toml": f'active = "mine"\n[profiles.mine]\n{name} = %s\n',
    }
    seen: list[object] = []
    for sources in cases:
        # Prefect caches the content of a file by its path and time.
        os.chdir(tempfile.mkdtemp(dir=os.environ["HOME"]))
        os.environ["PREFECT_PROFILES_PATH"] = os.path.abspath("profiles.toml")
        os.environ.pop(name, None)
        for source, value in sources.items():
            if source == "environment":
                os.environ[name] = value.strip('"')
            else:
                Path(source).write_text(texts[source] % value, encoding="utf-8")
        settings: Any = Settings()
        seen.append(settings.docker.platform)
    return seen


@pytest.fixture(scope="module")
def seen(_from_wheel: Environment, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    environment = replace(_from_wheel, project=tmp_path_factory.mktemp("sources"))
    return dict(zip(CASES, environment.call(values, [sources for sources, _ in CASES.values()]), strict=True))


@pytest.mark.parametrize("case", CASES)
def test_a_string_is_read_from_every_source(seen: dict[str, object], case: str) -> None:
    assert seen[case] == CASES[case][1]


FIELDS = {
    "platform": "linux/arm64",
    "media_types": "oci",
    "compression": "zstd:3",
    "cache_from": "type=registry,ref=a/{image}:1 type=gha",
    "cache_to": "type=local,dest=/a",
    "push_from_builder": "true",
}
VARIABLES = {f"{PREFIX}{name.upper()}": value for name, value in FIELDS.items()}


def test_prefect_config_knows_them(from_wheel: Environment) -> None:
    write(from_wheel.project, {"profiles.toml": 'active = "mine"\n\n[profiles.mine]\n'})
    set_ = from_wheel.prefect("config", "set", *(f"{name}={value}" for name, value in VARIABLES.items()))
    assert all(f"Set '{name}' to " in set_ for name in VARIABLES)
    assert "Configuration valid!" in from_wheel.prefect("config", "validate")
    shown = from_wheel.prefect("config", "view", "--show-sources").splitlines()
    assert [line for line in shown if line.startswith(PREFIX)] == [
        f"{name}='{value}' (from profile)" for name, value in sorted(VARIABLES.items())
    ]
    from_wheel.prefect("config", "unset", "--yes", *VARIABLES)
    assert PREFIX not in from_wheel.profiles.read_text(encoding="utf-8")


def test_pickled_settings_are_equal_in_another_process(from_wheel: Environment, without_us: Environment) -> None:
    pickles = from_wheel.call(pickled, variables=VARIABLES)
    assert_loaded(
        from_wheel.call(loaded, pickles, [*VARIABLES]),
        docker={"disable_attestations": False, **FIELDS, "push_from_builder": True},
        variables={**VARIABLES, f"{PREFIX}PUSH_FROM_BUILDER": "True"},
    )
    assert_loaded(without_us.call(loaded, pickles, [*VARIABLES]), docker=None, variables={})


def of_a_build() -> dict[str, object]:
    from prefect_docker_attest.build_settings import DEFAULTS
    from prefect_docker_attest.patches.settings_reader import read_settings

    settings = read_settings()
    return {name: getattr(settings, name) for name in DEFAULTS}


def test_a_build_reads_them(from_wheel: Environment) -> None:
    assert from_wheel.call(of_a_build, variables=VARIABLES) == {**FIELDS, "push_from_builder": True}
    assert from_wheel.call(of_a_build) == {**dict.fromkeys(FIELDS, ""), "push_from_builder": False}


def test_a_build_reads_them_if_the_package_is_imported_after_prefect(
    without_us: Environment, from_wheel: Environment
) -> None:
    write(without_us.project, {"prefect.toml": f'[docker]\nplatform = "{FIELDS["platform"]}"\n'})

    def read_late() -> str:
        import prefect.context  # noqa: F401

        from prefect_docker_attest.patches.settings_reader import read_settings

        return read_settings().platform

    variables = {"PYTHONPATH": str(from_wheel.site_packages)}
    assert without_us.call(read_late, variables=variables) == FIELDS["platform"]


def test_the_decision_imports_nothing_of_prefect(from_wheel: Environment) -> None:
    # The module is loaded while Python looks up Prefect.
    def loaded_modules() -> list[str]:
        import sys

        import prefect_docker_attest.patches.docker_py_client  # noqa: F401

        return [name for name in sys.modules if name.partition(".")[0] in ("prefect", "docker", "pydantic")]

    assert from_wheel.call(loaded_modules) == []
