"""A broken installation of this package does not affect Python's start or `import prefect`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from support.environment import (
    DOCKER_PY,
    DOCKERUTILS,
    FAKE_DOCKER,
    FAKE_PREFECT,
    ROOT_SETTINGS,
    holding,
    moved_away,
    write,
)

if TYPE_CHECKING:
    from support.environment import Environment


def failures(*modules: str) -> dict[str, str]:
    """Import these modules, and return the failures that the package has recorded."""
    import importlib

    for module in modules:
        importlib.import_module(module)
    from prefect_docker_attest import startup

    return {name: type(error).__name__ for name, error in startup.failures.items()}


def assert_unnoticed(environment: Environment) -> None:
    assert environment.output("-c", "pass") == ""
    assert environment.output("-c", f"import {DOCKERUTILS}, {ROOT_SETTINGS}") == ""


def test_a_working_installation_prints_nothing_and_records_no_failure(installed: Environment) -> None:
    assert installed.output("-c", "pass") == ""
    assert installed.call(failures, DOCKERUTILS, ROOT_SETTINGS) == {}


def test_a_removed_package_causes_no_error(from_wheel: Environment) -> None:
    with moved_away(from_wheel.package):
        assert_unnoticed(from_wheel)


def test_a_moved_editable_source_causes_no_error(editable: Environment) -> None:
    with moved_away(editable.source):
        if sys.version_info < (3, 15):
            assert_unnoticed(editable)
        else:  # This version of Python warns about missing folders in a .pth file.
            (warning,) = editable.run("-c", f"import {DOCKERUTILS}, {ROOT_SETTINGS}").stderr.splitlines()
            assert warning.endswith(f"{editable.source} does not exist; skipping sys.path append")


@pytest.mark.parametrize("text", ["raise RuntimeError", "def (", "import nothing_of_this_name"])
@pytest.mark.parametrize("file", ["__init__.py", "startup.py"])
def test_a_package_that_cannot_be_imported_causes_no_error(from_wheel: Environment, file: str, text: str) -> None:
    write(from_wheel.project, FAKE_PREFECT)
    with holding(from_wheel.package / file, text):
        assert_unnoticed(from_wheel)


def test_a_package_that_cannot_be_imported_is_imported_only_once(from_wheel: Environment) -> None:
    write(from_wheel.project, FAKE_PREFECT)
    with holding(from_wheel.package / "__init__.py", "print('tried')\nraise RuntimeError"):
        assert from_wheel.output("-c", "import prefect, json, queue") == "tried\n"


@pytest.mark.parametrize(
    ("text", "error"), [("raise RuntimeError", "RuntimeError"), ("def (", "SyntaxError"), ("", "AttributeError")]
)
@pytest.mark.parametrize(
    ("file", "hook"), [("patches/registration.py", ROOT_SETTINGS), ("patches/docker_py_client.py", DOCKER_PY)]
)
def test_a_failing_hook_causes_no_error_and_is_recorded(
    from_wheel: Environment, file: str, hook: str, text: str, error: str
) -> None:
    write(from_wheel.project, FAKE_PREFECT)
    with holding(from_wheel.package / file, text):
        assert from_wheel.call(failures, DOCKERUTILS, ROOT_SETTINGS, "docker") == {hook: error}


def test_prefect_works_if_every_hook_fails(from_wheel: Environment) -> None:
    def value() -> str:
        import prefect.utilities.dockerutils  # noqa: F401
        from prefect.settings import PREFECT_LOGGING_LEVEL

        from prefect_docker_attest import startup

        assert startup.failures.keys() == {"prefect.settings.models.root", startup.DOCKER_PY}
        return str(PREFECT_LOGGING_LEVEL.value())

    package, variables = from_wheel.package, {"PREFECT_LOGGING_LEVEL": "ERROR"}
    with (
        holding(package / "patches/registration.py", "raise RuntimeError"),
        holding(package / "patches/docker_py_client.py", "raise RuntimeError"),
    ):
        assert from_wheel.call(value, variables=variables) == "ERROR"


def test_a_missing_prefect_is_reported_as_usual(from_wheel: Environment) -> None:
    def missing() -> list[object]:
        import importlib.util

        try:
            import prefect  # noqa: F401
        except ModuleNotFoundError as error:
            return [error.name, error.msg, importlib.util.find_spec("prefect")]
        return []

    with moved_away(from_wheel.site_packages / "dependencies.pth"):
        assert from_wheel.call(missing) == ["prefect", "No module named 'prefect'", None]


FIXED_CLIENT = """
class Fixed(type):
    def __setattr__(self, *_):
        raise TypeError("this class cannot be changed")

class APIClient(metaclass=Fixed):
    def build(self): pass
"""

# Unsupported versions of Prefect: changed files, and the recorded failures.
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
    "no-docker-client": ({"prefect/utilities/dockerutils.py": ""}, {}),
    "docker-client-that-is-no-function": ({"prefect/utilities/dockerutils.py": "docker_client = 1"}, {}),
    "docker-py-without-its-client": ({**FAKE_DOCKER, "docker/api/client.py": ""}, {DOCKER_PY: "TypeError"}),
    "docker-py-whose-client-does-not-build": (
        {**FAKE_DOCKER, "docker/api/client.py": "class APIClient: pass"},
        {DOCKER_PY: "TypeError"},
    ),
    "docker-py-whose-client-cannot-be-changed": (
        {**FAKE_DOCKER, "docker/api/client.py": FIXED_CLIENT},
        {DOCKER_PY: "TypeError"},
    ),
}


@pytest.mark.parametrize(("files", "kept"), OTHER_SHAPES.values(), ids=OTHER_SHAPES)
def test_an_unsupported_version_of_prefect_is_not_changed(
    from_wheel: Environment, files: dict[str, str], kept: dict[str, str]
) -> None:
    write(from_wheel.project, {**FAKE_PREFECT, **files})
    assert from_wheel.call(failures, ROOT_SETTINGS, DOCKERUTILS, "docker") == kept


def test_a_prefect_without_the_expected_modules_is_not_changed(from_wheel: Environment) -> None:
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
