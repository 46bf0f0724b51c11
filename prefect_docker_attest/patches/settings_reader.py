"""Reads the settings of a build, and their sources. It also works with unsupported versions of Prefect."""

from __future__ import annotations

import functools
import os
from types import SimpleNamespace
from typing import Any

from prefect_docker_attest.build_settings import DEFAULTS, BuildSettings
from prefect_docker_attest.names import SETTING, bare, is_on, logger, variable


def read_settings() -> BuildSettings:
    """Return the settings as they are now.

    If they are not registered with Prefect (see the package's docstring), they are read from Prefect's sources. With an
    unsupported version of Prefect, they are read from the environment.

    Raises:
        pydantic.ValidationError: a switch is not true or false (only if the settings are not registered)
    """
    try:
        from prefect.settings import get_current_settings

        from prefect_docker_attest.patches.docker_settings import DockerSettings
    except Exception as error:
        _warn(f"{type(error).__name__}: {error}")
        return _of_environment()
    try:
        group: Any = getattr(get_current_settings(), "docker", None)
    except ValueError:  # another setting of Prefect is wrong, which Prefect reports where it needs it
        group = None
    if not all(hasattr(group, name) for name in ("disable_attestations", *DEFAULTS)):
        group = _merged(group, DockerSettings())
    defaults = {name: getattr(group, name) for name in DEFAULTS}
    values: dict[str, Any] = {name: "" if value is None else value for name, value in defaults.items()}
    is_set = group.disable_attestations or "disable_attestations" in group.model_fields_set
    return BuildSettings(
        **values,
        disable_attestations=group.disable_attestations if is_set else None,
        find_source=functools.partial(_source_of_value, group.disable_attestations),
    )


def _merged(group: Any, own: Any) -> Any:
    """Return the attributes of a group, with those of our own settings that it lacks."""
    names = ("disable_attestations", *DEFAULTS, "model_fields_set")
    return SimpleNamespace(**{name: getattr(group if hasattr(group, name) else own, name) for name in names})


def _of_environment() -> BuildSettings:
    texts: dict[str, Any] = {
        name: bare(os.environ.get(variable(name), "")) for name in ("disable_attestations", *DEFAULTS)
    }
    switch = texts.pop("disable_attestations")
    pushes = is_on(texts.pop("push_from_builder"))
    return BuildSettings(
        disable_attestations=is_on(switch) if switch else None,
        push_from_builder=pushes,
        find_source=lambda _setting: "environment",
        **texts,
    )


def source_of(name: str) -> tuple[Any, str]:
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
        from prefect_docker_attest.patches.docker_settings import value_and_source
    except Exception:  # an unsupported version of Prefect
        return os.environ.get(variable(name)), "environment"
    value, kind = value_and_source(name)
    return value, f"profile {_profile()}" if kind == "profile" else kind


def _source_of_value(disables: bool, name: str) -> str:
    """Return the source of a setting, or what else it can be if the sources have another value now."""
    try:
        from prefect_docker_attest.patches.docker_settings import DockerSettings

        if name != "disable_attestations" or DockerSettings().disable_attestations == disables:
            return source_of(name)[1]
    except Exception as error:  # an error in a log line must not stop the build
        return type(error).__name__
    return "temporary_settings, or a source that has changed"


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
