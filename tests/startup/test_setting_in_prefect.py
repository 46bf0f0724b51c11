"""The setting is available in all ways in which Prefect provides settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from support.environment import SETTING

if TYPE_CHECKING:
    from support.environment import Environment


def test_a_new_process_reads_the_variable(installed: Environment) -> None:
    def values() -> list[bool]:
        from prefect.settings import PREFECT_DOCKER_DISABLE_ATTESTATIONS, get_current_settings

        settings: Any = get_current_settings()
        return [settings.docker.disable_attestations, PREFECT_DOCKER_DISABLE_ATTESTATIONS.value()]

    assert installed.call(values, variables={SETTING: "true"}) == [True, True]


def test_temporary_settings_change_it(from_wheel: Environment) -> None:
    def values() -> list[bool]:
        from prefect.settings import PREFECT_DOCKER_DISABLE_ATTESTATIONS, temporary_settings

        from prefect_docker_attest.patches.settings_reader import read_settings

        seen = [bool(read_settings().disable_attestations)]
        with temporary_settings({PREFECT_DOCKER_DISABLE_ATTESTATIONS: True}):
            seen.append(bool(read_settings().disable_attestations))
            with temporary_settings({PREFECT_DOCKER_DISABLE_ATTESTATIONS: False}):
                seen.append(bool(read_settings().disable_attestations))
            with temporary_settings(restore_defaults={PREFECT_DOCKER_DISABLE_ATTESTATIONS}):
                seen.append(bool(read_settings().disable_attestations))
        return [*seen, bool(read_settings().disable_attestations)]

    assert from_wheel.call(values) == [False, True, False, False, False]


def test_a_set_value_is_passed_to_other_processes_as_a_variable(from_wheel: Environment) -> None:
    def variables(name: str) -> list[str | None]:
        from prefect.settings import PREFECT_DOCKER_DISABLE_ATTESTATIONS, get_current_settings, temporary_settings

        unset = get_current_settings().to_environment_variables(exclude_unset=True)
        with temporary_settings({PREFECT_DOCKER_DISABLE_ATTESTATIONS: True}):
            set_ = get_current_settings().to_environment_variables(exclude_unset=True)
        return [unset.get(name), set_.get(name)]

    assert from_wheel.call(variables, SETTING) == [None, "True"]


def test_it_is_in_the_json_schema_with_its_variable(from_wheel: Environment) -> None:
    def described() -> dict[str, Any]:
        from prefect.settings import Settings

        schema = Settings.model_json_schema()
        group = schema["properties"]["docker"]["$ref"].rpartition("/")[2]
        setting: dict[str, Any] = schema["$defs"][group]["properties"]["disable_attestations"]
        return setting

    setting = from_wheel.call(described)
    assert (setting["type"], setting["default"]) == ("boolean", False)
    assert setting["supported_environment_variables"] == [SETTING]
    assert "docker buildx build" in setting["description"]
