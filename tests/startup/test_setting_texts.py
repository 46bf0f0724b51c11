"""The texts of a switch: what shells and containers make of a value, and values that are neither true nor false."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.environment import SETTING

if TYPE_CHECKING:
    from support.environment import Environment

PUSH = "PREFECT_DOCKER_PUSH_FROM_BUILDER"

TEXTS = {
    " true": True,
    "true ": True,
    "true\n": True,
    '"true"': True,
    "'1'": True,
    ' "on" ': True,
    " false ": False,
    '"false"': False,
    "' '": False,
    " ": False,
    '""': False,
}


def switches(variables: list[str], texts: list[str]) -> list[list[bool]]:
    import os

    from prefect.settings import Settings

    seen = []
    for text in texts:
        os.environ.update(dict.fromkeys(variables, text))
        group = Settings().docker
        seen.append([group.disable_attestations, group.push_from_builder])
    return seen


def test_blanks_and_one_pair_of_quotes_do_not_count(from_wheel: Environment) -> None:
    expected = [[value, value] for value in TEXTS.values()]
    assert from_wheel.call(switches, [SETTING, PUSH], list(TEXTS)) == expected


def test_other_texts_stop_prefect_with_the_variable_and_its_source(from_wheel: Environment) -> None:
    for variable in (SETTING, PUSH):
        done = from_wheel.run("-c", "import prefect.context", variables={variable: "enabled"})
        assert done.returncode == 1
        assert f"{variable}='enabled' is not true or false (environment)" in done.stderr
    (from_wheel.project / "prefect.toml").write_text("[docker]\ndisable_attestations = 5\n", encoding="utf-8")
    done = from_wheel.run("-c", "import prefect.context")
    assert f"{SETTING}=5 is not true or false (prefect.toml)" in done.stderr


def test_quotes_around_a_text_do_not_count(from_wheel: Environment) -> None:
    def texts(values: list[str]) -> list[str]:
        import os

        from prefect.settings import Settings

        seen = []
        for value in values:
            os.environ["PREFECT_DOCKER_CACHE_FROM"] = value
            seen.append(Settings().docker.cache_from)
        return seen

    entry, two = "type=gha", '"type=local,src=/a b" "type=gha"'
    assert from_wheel.call(texts, [f'"{entry}"', f" '{entry}' ", two]) == [entry, entry, two]


def test_a_wrong_setting_of_prefect_itself_does_not_hide_ours(from_wheel: Environment) -> None:
    program = (
        "from prefect_docker_attest.patches.settings_reader import read_settings\nprint(read_settings().variables())"
    )
    variables = {SETTING: "true", "PREFECT_API_REQUEST_TIMEOUT": "abc"}
    done = from_wheel.run("-c", f"import prefect.utilities.dockerutils\n{program}", variables=variables)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str([SETTING])
