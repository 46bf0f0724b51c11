"""The log at debug level shows which builder is used, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.environment import SETTING, write

if TYPE_CHECKING:
    from support.environment import Environment

PROFILES = f'active = "mine"\n[profiles.mine]\n{SETTING} = "true"\n'


def logged(wants_buildx: bool = False, temporary: bool = False) -> list[str]:
    import contextlib
    import logging

    from prefect.settings import PREFECT_DOCKER_DISABLE_ATTESTATIONS, temporary_settings

    from prefect_docker_attest.patches import decision

    lines: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(f"{record.levelname} {record.getMessage()}")

    logger = logging.getLogger("prefect_docker_attest")
    logger.addHandler(Handler())
    logger.propagate = False
    setting = temporary_settings({PREFECT_DOCKER_DISABLE_ATTESTATIONS: True}) if temporary else contextlib.nullcontext()
    with setting:
        decision.decide("docker-py", wants_buildx=wants_buildx)
        logger.setLevel(logging.DEBUG)
        decision.decide("docker-py", wants_buildx=wants_buildx)
    return lines


@pytest.mark.parametrize(
    ("files", "variables", "expected"),
    [
        ({"profiles.toml": PROFILES}, {}, f"docker buildx: {SETTING}=true (profile 'mine')"),
        ({}, {SETTING: "1"}, f"docker buildx: {SETTING}=true (environment)"),
        ({"profiles.toml": PROFILES}, {SETTING: "0"}, f"docker-py: {SETTING}=false (environment)"),
        ({}, {}, f"docker-py: {SETTING}=false (default)"),
    ],
    ids=["profile", "environment", "off by the environment", "default"],
)
def test_the_log_names_the_builder_and_where_the_value_comes_from(
    from_wheel: Environment, files: dict[str, str], variables: dict[str, str], expected: str
) -> None:
    write(from_wheel.project, files)
    assert from_wheel.call(logged, variables=variables) == [f"DEBUG Building with {expected}"]


def test_the_log_names_the_options_that_need_buildx(from_wheel: Environment) -> None:
    assert from_wheel.call(logged, True) == [
        f"DEBUG Building with docker buildx: {SETTING}=false (default), and this image has buildx-only options"
    ]


def test_a_value_from_no_source_is_logged_as_such(from_wheel: Environment) -> None:
    assert from_wheel.call(logged, False, True) == [
        f"DEBUG Building with docker buildx: {SETTING}=true (temporary_settings, or a source that has changed)"
    ]
