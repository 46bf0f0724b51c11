"""Imports Prefect and docker-py, and finds out whether this package has patched Prefect.

Their import can block or fail, so the doctor imports them in threads, and modules that import them only in functions.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prefect_docker_attest import startup
from prefect_docker_attest.doctor.check import first_line

if TYPE_CHECKING:
    from collections.abc import Iterable
    from concurrent.futures import Future


class ImportFailedError(Exception):
    """A package cannot be imported. The text is the reason."""


@dataclass(frozen=True)
class Patches:
    """Whether this package has patched Prefect in this process.

    Attributes:
        failures: why modules could not be patched
        complete: whether all patches are installed
        by_plugin: whether Prefect has loaded this package as a plugin
    """

    failures: tuple[str, ...]
    complete: bool
    by_plugin: bool


def import_prefect(files: Iterable[Future[None]]) -> None:
    """Import Prefect's settings. They must be imported before this package's own settings.

    Args:
        files: whether Prefect's settings files can be read. They are waited for, because Prefect would wait for them

    Raises:
        UnreadableError: a settings file cannot be read
        ImportFailedError: Prefect cannot be imported
    """
    for file in files:
        file.result()
    import_package("prefect.settings")


def import_package(name: str) -> None:
    """Import a package.

    Raises:
        ImportFailedError: it cannot be imported
    """
    try:
        importlib.import_module(name)
    except BaseException as error:  # also SystemExit, which some modules raise when they are imported
        raise ImportFailedError(f"{type(error).__name__}: {first_line(error)}") from error


def find_patches(prefect: Future[None]) -> Patches:
    """Import the modules to patch.

    Args:
        prefect: the result of `import_prefect`, whose exceptions this raises too
    """
    prefect.result()
    from prefect.settings import Settings

    from prefect_docker_attest.patches import docker_py_client

    # Importing a module runs its hook. prefect-docker is not imported: it takes seconds, and uses the same modules.
    for name in startup.HOOKS:
        with contextlib.suppress(Exception):  # this Prefect does not have the module, or refuses its settings
            if name.startswith("prefect."):
                importlib.import_module(name)
    failures = tuple(f"{name}: {first_line(error)}" for name, error in startup.failures.items())
    patched = startup.autoload() and docker_py_client.is_installed(importlib.import_module(startup.DOCKER_PY))
    by_plugin = f"{startup.__package__}.plugin" in sys.modules
    return Patches(failures, patched and "docker" in Settings.model_fields, by_plugin)
