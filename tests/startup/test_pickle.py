"""Settings that are pickled in one process and loaded in another, with or without this package.

Prefect uses `cloudpickle` for the settings of a flow run if a task runs in another process.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from support.environment import SETTING
from support.pickles import assert_loaded, loaded, pickled

if TYPE_CHECKING:
    from support.environment import Environment

VARIABLES = {SETTING: "true", "PREFECT_LOGGING_LEVEL": "ERROR"}


@pytest.fixture(scope="module")
def pickles(_from_wheel: Environment, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return replace(_from_wheel, project=tmp_path_factory.mktemp("pickles")).call(pickled, variables=VARIABLES)


def test_settings_are_the_same_in_another_process(from_wheel: Environment, pickles: dict[str, str]) -> None:
    assert_loaded(
        from_wheel.call(loaded, pickles, [*VARIABLES]),
        docker={"disable_attestations": True, "push_from_builder": False},
        variables={SETTING: "True", "PREFECT_LOGGING_LEVEL": "ERROR"},
    )


def test_a_value_that_is_not_set_is_not_set_in_another_process(from_wheel: Environment) -> None:
    pickles = from_wheel.call(pickled)
    assert_loaded(
        from_wheel.call(loaded, pickles, [SETTING], variables={SETTING: "true"}),
        docker={"disable_attestations": False, "push_from_builder": False},
        variables={},
    )


def test_a_process_without_the_package_loads_prefects_own_settings(
    without_us: Environment, pickles: dict[str, str]
) -> None:
    assert_loaded(
        without_us.call(loaded, pickles, [*VARIABLES]), docker=None, variables={"PREFECT_LOGGING_LEVEL": "ERROR"}
    )


def test_settings_of_a_process_without_the_package_take_the_value_of_the_process_that_loads_them(
    from_wheel: Environment, without_us: Environment
) -> None:
    pickles = without_us.call(pickled, variables={"PREFECT_LOGGING_LEVEL": "ERROR"})
    assert_loaded(
        from_wheel.call(loaded, pickles, [*VARIABLES], variables={SETTING: "true"}),
        docker={"disable_attestations": True, "push_from_builder": False},
        variables={SETTING: "True", "PREFECT_LOGGING_LEVEL": "ERROR"},
    )


def test_the_group_by_itself_is_the_same_in_another_process(from_wheel: Environment) -> None:
    def group() -> str:
        import pickle

        from prefect.settings import get_current_settings

        settings: Any = get_current_settings()
        return pickle.dumps(settings.docker).hex()

    def value(data: str) -> bool:
        import pickle

        return bool(pickle.loads(bytes.fromhex(data)).disable_attestations)

    assert from_wheel.call(value, from_wheel.call(group, variables=VARIABLES)) is True
