"""A build logs a warning if the setting was turned on in a way that Prefect does not see."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.environment import SETTING

if TYPE_CHECKING:
    from support.environment import Environment


def warnings_of(case: str) -> list[str]:
    """Return the warnings of two builds in a process."""
    import logging
    import os
    import threading

    # Prefect 3.1 reads its settings when this module is imported, newer versions always import it.
    import prefect.context  # noqa: F401
    from prefect.settings import PREFECT_DOCKER_DISABLE_ATTESTATIONS, temporary_settings

    from prefect_docker_attest.patches import decision

    seen: list[str] = []
    logger = logging.getLogger("prefect_docker_attest")
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    logger.propagate = False

    def build_twice() -> None:
        decision.decide("docker-py")
        decision.decide("docker-py")

    if case.startswith("a file"):
        from pathlib import Path

        Path("prefect.toml").write_text(
            f"[docker]\ndisable_attestations = {case.rsplit(maxsplit=1)[-1]}\n", encoding="utf-8"
        )
    if case.startswith("a folder"):
        folder = "other" if case.endswith("other") else "."
        os.makedirs("other", exist_ok=True)
        with open("other/prefect.toml", "w", encoding="utf-8") as file:
            file.write("[docker]\ndisable_attestations = true\n")
        os.chdir(folder)
    if case.startswith("a variable"):
        os.environ["PREFECT_DOCKER_DISABLE_ATTESTATIONS"] = "false" if case.endswith("off") else "true"
    if case == "a variable, and temporary settings":
        with temporary_settings({PREFECT_DOCKER_DISABLE_ATTESTATIONS: False}):
            build_twice()
    elif case == "a thread of temporary settings":
        with temporary_settings({PREFECT_DOCKER_DISABLE_ATTESTATIONS: True}):
            thread = threading.Thread(target=build_twice)
            thread.start()
            thread.join()
    elif case == "after temporary settings":
        with temporary_settings({PREFECT_DOCKER_DISABLE_ATTESTATIONS: True}):
            build_twice()
        build_twice()
    else:
        build_twice()
    return seen


def test_one_warning_if_the_variable_is_set_after_the_import(from_wheel: Environment) -> None:
    (warning,) = from_wheel.call(warnings_of, "a variable")
    assert f"{SETTING}=true was set after Prefect was imported" in warning
    assert "Set the variable before `import prefect`" in warning


def test_one_warning_if_a_thread_lacks_the_temporary_settings(from_wheel: Environment) -> None:
    (warning,) = from_wheel.call(warnings_of, "a thread of temporary settings")
    assert f"{SETTING} is on in temporary_settings of another thread" in warning


def test_no_warning_for_intended_values(from_wheel: Environment) -> None:
    cases = (
        "nothing",
        "a variable that says off",
        "a variable, and temporary settings",
        "after temporary settings",
        "a folder other",
        "a folder .",
        "a file false",
    )
    warnings = from_wheel.call_each((warnings_of, (case,)) for case in cases)
    assert dict(zip(cases, warnings, strict=True)) == {case: [] for case in cases}
    assert from_wheel.call(warnings_of, "a variable", variables={SETTING: "true"}) == []
    assert from_wheel.call(warnings_of, "a variable", variables={SETTING: "false"}) != []


def test_one_warning_if_a_file_is_changed_after_the_import(from_wheel: Environment) -> None:
    (warning,) = from_wheel.call(warnings_of, "a file true")
    assert f"/prefect.toml turned {SETTING} on after Prefect was imported" in warning
    assert from_wheel.call(warnings_of, "a file true", variables={SETTING: "false"}) == []
