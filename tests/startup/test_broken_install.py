"""Whatever is missing or broken: an interpreter that starts, or imports Prefect, does not notice."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from startup.environment import DOCKERUTILS, FAKE_PREFECT, ROOT_SETTINGS, write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from startup.environment import Environment


def failures(*modules: str) -> dict[str, str]:
    """What the package keeps of its failures once these modules have been imported."""
    import importlib

    for module in modules:
        importlib.import_module(module)
    from prefect_docker_attest import startup

    return {name: type(error).__name__ for name, error in startup.failures.items()}


@contextlib.contextmanager
def moved_away(path: Path) -> Iterator[None]:
    away = path.rename(path.with_name(f"{path.name}.away"))
    try:
        yield
    finally:
        away.rename(path)


@contextlib.contextmanager
def holding(path: Path, text: str) -> Iterator[None]:
    with moved_away(path):
        path.write_text(text, encoding="utf-8")
        try:
            yield
        finally:
            path.unlink()


def assert_unnoticed(environment: Environment) -> None:
    assert environment.output("-c", "pass") == ""
    assert environment.output("-c", f"import {DOCKERUTILS}, {ROOT_SETTINGS}") == ""


def test_nothing_is_printed_or_kept_where_all_is_well(installed: Environment) -> None:
    assert installed.output("-c", "pass") == ""
    assert installed.call(failures, DOCKERUTILS, ROOT_SETTINGS) == {}


def test_a_package_that_was_removed_is_not_noticed(from_wheel: Environment) -> None:
    with moved_away(from_wheel.package):
        assert_unnoticed(from_wheel)


def test_an_editable_source_that_was_moved_away_is_not_noticed(editable: Environment) -> None:
    with moved_away(editable.source):
        assert_unnoticed(editable)


@pytest.mark.parametrize("text", ["raise RuntimeError", "def (", "import nothing_of_this_name"])
@pytest.mark.parametrize("file", ["__init__.py", "startup.py"])
def test_a_package_that_cannot_be_imported_is_not_noticed(from_wheel: Environment, file: str, text: str) -> None:
    write(from_wheel.project, FAKE_PREFECT)
    with holding(from_wheel.package / file, text):
        assert_unnoticed(from_wheel)


@pytest.mark.parametrize(
    ("text", "error"), [("raise RuntimeError", "RuntimeError"), ("def (", "SyntaxError"), ("", "AttributeError")]
)
@pytest.mark.parametrize(("file", "hook"), [("settings.py", ROOT_SETTINGS), ("client.py", DOCKERUTILS)])
def test_a_hook_that_fails_is_not_noticed_and_its_error_kept(
    from_wheel: Environment, file: str, hook: str, text: str, error: str
) -> None:
    write(from_wheel.project, FAKE_PREFECT)
    with holding(from_wheel.package / file, text):
        assert from_wheel.call(failures, DOCKERUTILS, ROOT_SETTINGS) == {hook: error}


def test_prefect_works_where_every_hook_fails(from_wheel: Environment) -> None:
    def value() -> str:
        import prefect.utilities.dockerutils
        from prefect.settings import PREFECT_LOGGING_LEVEL

        from prefect_docker_attest import startup

        assert startup.failures.keys() == {"prefect.settings.models.root", prefect.utilities.dockerutils.__name__}
        return str(PREFECT_LOGGING_LEVEL.value())

    package, variables = from_wheel.package, {"PREFECT_LOGGING_LEVEL": "ERROR"}
    with holding(package / "settings.py", "raise RuntimeError"), holding(package / "client.py", "raise RuntimeError"):
        assert from_wheel.call(value, variables=variables) == "ERROR"


def test_prefect_is_missing_as_ever_where_it_is_not_installed(from_wheel: Environment) -> None:
    def missing() -> list[object]:
        import importlib.util

        try:
            import prefect  # noqa: F401
        except ModuleNotFoundError as error:
            return [error.name, error.msg, importlib.util.find_spec("prefect")]
        return []

    with moved_away(from_wheel.site_packages / "dependencies.pth"):
        assert from_wheel.call(missing) == ["prefect", "No module named 'prefect'", None]


# What differs in a Prefect of another shape, and what is kept of it.
OTHER_SHAPES = {
    "as-known": ({}, {}),
    "settings-of-another-kind": (
        {"prefect/settings/models/root.py": "class Settings: pass"},
        {ROOT_SETTINGS: "TypeError"},
    ),
    "settings-that-are-no-class": ({"prefect/settings/models/root.py": "Settings = 1"}, {ROOT_SETTINGS: "TypeError"}),
    "no-settings": ({"prefect/settings/models/root.py": ""}, {ROOT_SETTINGS: "TypeError"}),
    "no-base-of-settings": (
        {"prefect/settings/base.py": "", "prefect/settings/models/root.py": ""},
        {ROOT_SETTINGS: "ImportError"},
    ),
    "no-docker-client": ({"prefect/utilities/dockerutils.py": ""}, {DOCKERUTILS: "TypeError"}),
    "docker-client-that-is-no-function": (
        {"prefect/utilities/dockerutils.py": "docker_client = 1"},
        {DOCKERUTILS: "TypeError"},
    ),
}


@pytest.mark.parametrize(("files", "kept"), OTHER_SHAPES.values(), ids=OTHER_SHAPES)
def test_a_prefect_of_another_shape_is_left_alone(
    from_wheel: Environment, files: dict[str, str], kept: dict[str, str]
) -> None:
    write(from_wheel.project, {**FAKE_PREFECT, **files})
    assert from_wheel.call(failures, ROOT_SETTINGS, DOCKERUTILS) == kept


def test_a_prefect_without_the_modules_is_left_alone(from_wheel: Environment) -> None:
    def found() -> list[object]:
        import importlib.util

        return [
            importlib.util.find_spec(name) for name in ("prefect.utilities.dockerutils", "prefect.settings.models.root")
        ]

    write(
        from_wheel.project,
        {f"prefect/{name}__init__.py": "" for name in ("", "utilities/", "settings/", "settings/models/")},
    )
    assert from_wheel.call(found) == [None, None]
    assert from_wheel.call(failures, "prefect") == {}
