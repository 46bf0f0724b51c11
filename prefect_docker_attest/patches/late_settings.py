"""Warns if the setting was turned on in a way that Prefect does not see.

Prefect reads its settings when it is imported, so a variable that is set later, or a file that is changed later, has no
effect. `temporary_settings` is valid for one thread: a thread that is started inside it has the settings of the
process.
"""

from __future__ import annotations

import contextlib
import functools
import os

from prefect_docker_attest.names import SETTING, is_on, logger


def warn_of_late_settings() -> None:
    """Log a warning, at most once in a process for each reason. Call it for a build with the setting off."""
    try:
        from prefect import context

        from prefect_docker_attest.patches import docker_settings
    except ImportError:  # an unsupported version of Prefect, whose settings are not read
        return
    # Another context was entered on purpose, for example with temporary_settings.
    if context.SettingsContext.get() is not getattr(context, "GLOBAL_SETTINGS_CONTEXT", None):
        return
    variable = os.environ.get(SETTING, "")
    if variable != docker_settings.variable_at_import and is_on(variable):
        _warn_once(
            f"{SETTING}={variable} was set after Prefect was imported, and Prefect does not see it. This image is "
            "built without the setting. Set the variable before `import prefect`."
        )
    elif docker_settings.switched_on:
        _warn_once(
            f"{SETTING} is on in temporary_settings of another thread, and off in this one. This image is built "
            "without the setting. Start the thread with `contextvars.copy_context().run`."
        )
    elif path := _file_that_turns_on():
        _warn_once(
            f"{path} turned {SETTING} on after Prefect was imported, and Prefect does not see it. This image is built "
            "without the setting. Start the process again."
        )


def _file_that_turns_on() -> str:
    """Return the changed settings file that turns the setting on; ``""`` if there is none."""
    from prefect_docker_attest.patches import docker_settings

    changed = {os.path.basename(path): path for path in docker_settings.files_at_import.changed()}
    if not changed:
        return ""
    with contextlib.suppress(Exception):  # a file is invalid now
        value, source = docker_settings.value_and_source("disable_attestations")
        if value is not None and is_on(str(value)):
            return changed.get("profiles.toml" if source == "profile" else source, "")
    return ""


@functools.cache
def _warn_once(text: str) -> None:
    logger.warning("%s", text)
