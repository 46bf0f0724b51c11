"""Reads the current value of the setting, and its source. It also works with unsupported versions of Prefect."""

from __future__ import annotations

import functools
import os
from typing import Any

from prefect_docker_attest.names import SETTING, logger, variable

# Names of Prefect's sources of settings, by the name of their class (prefect/settings/sources.py, since 3.1).
_SOURCES = {
    "EnvFilterSettingsSource": "environment",
    "FilteredDotEnvSettingsSource": ".env",
    "PrefectTomlConfigSettingsSource": "prefect.toml",
    "PyprojectTomlConfigSettingsSource": "pyproject.toml",
    "ProfileSettingsTomlLoader": "profile",
}


def disable_attestations() -> bool:
    """Whether all images are built without attestations.

    If the setting is not registered with Prefect (see the package's docstring), it is read directly from Prefect's
    sources.

    Raises:
        pydantic.ValidationError: the value is not a boolean
    """
    try:
        from prefect.settings import get_current_settings

        from prefect_docker_attest.patches.settings import DockerSettings
    except Exception as error:
        _warn(f"{type(error).__name__}: {error}")
        # Any other value counts as on: a refused build can be retried, a bad image cannot be unshipped.
        return os.environ.get(SETTING, "").strip().lower() not in ("", "0", "false", "f", "no", "n", "off")
    registered = getattr(get_current_settings(), "docker", None)
    value = getattr(registered, "disable_attestations", None)
    return bool(DockerSettings().disable_attestations if value is None else value)


def source(name: str = "disable_attestations") -> tuple[Any, str]:
    """Return a setting's value and its source, such as ``("true", "profile 'local'")``.

    The value is the one that the source contains. Without a source, it is the default and ``"default"``. The sources
    are Prefect's, in their order. `temporary_settings` is not a source, and changes of a source after Prefect has read
    it are visible here.

    Args:
        name: field of the group ``docker``

    Raises:
        Exception: a source has a form that Prefect does not expect
    """
    try:
        from prefect_docker_attest.patches.settings import DockerSettings
    except Exception:  # an unsupported version of Prefect: see `disable_attestations`
        return os.environ.get(variable(name)), "environment"
    # Prefect does not use these four arguments: it creates its own sources.
    unused: Any = dict
    for settings_source in DockerSettings.settings_customise_sources(DockerSettings, unused, unused, unused, unused):
        found = settings_source()
        if name in found:
            kind = type(settings_source).__name__
            profile = f" {_profile()}" if kind == "ProfileSettingsTomlLoader" else ""
            return found[name], _SOURCES.get(kind, kind) + profile
    return DockerSettings.model_fields[name].default, "default"


def _profile() -> str:
    try:
        from prefect.context import get_settings_context

        return repr(get_settings_context().profile.name)
    except Exception:  # pydantic's ValidationError: the settings are loaded together with the profile
        return "in use"


@functools.cache
def _warn(reason: str) -> None:
    logger.warning(
        "prefect-docker-attest does not support the settings of this version of Prefect (%s). It reads %s only from "
        "the environment, not from profiles and files. Upgrade prefect-docker-attest.",
        reason,
        SETTING,
    )
