"""Finds settings without effect: of a profile that is not active, of a source that another overrides, misspelled.

Prefect must have been imported. All functions can raise exceptions of Prefect, for files of a form that it does not
expect.
"""

from __future__ import annotations

import difflib
import os
import warnings
from typing import TYPE_CHECKING, Any

from prefect_docker_attest import startup
from prefect_docker_attest.build_settings import DEFAULTS
from prefect_docker_attest.names import SETTING, bare, variable

if TYPE_CHECKING:
    from collections.abc import Iterator

_FIELDS = {variable(name): name for name in ("disable_attestations", *DEFAULTS)}
_VARIABLES = (*_FIELDS, startup.AUTOLOAD)
_TRUE = ("1", "true", "t", "yes", "y", "on")

# Ratios of `difflib`: what two names have in common. A letter too many in the shortest of the names gives 0.98.
_SAME_NAME, _SAME_WORDS = 0.95, 0.93


def misspelled_names() -> dict[str, str]:
    """Return names in all sources that are almost right, with their sources, and the right names for them."""
    import prefect.settings

    from prefect_docker_attest.patches.docker_settings import setting_sources

    return {
        f"{name} ({_title(source)})": right
        for source in setting_sources()
        for name, right in _misspelled(source)
        if not hasattr(prefect.settings, name.upper())  # another setting of Prefect
    }


def sources_that_turn_on() -> list[str]:
    """Return the sources that turn `SETTING` on, whether it has an effect or not."""
    from prefect_docker_attest.patches.docker_settings import setting_sources

    return [_title(source) for source in setting_sources() if _is_true(source().get("disable_attestations"))]


def profiles_that_turn_on() -> list[str]:
    """Return the profiles that turn `SETTING` on and are not active."""
    from prefect.settings import load_profiles

    with warnings.catch_warnings():  # Prefect has shown its warnings about the profiles already
        warnings.simplefilter("ignore")
        profiles = load_profiles(include_defaults=False)
    values = {name: profiles[name].to_environment_variables().get(SETTING) for name in profiles}
    active = _active_profile()
    return [name for name, value in values.items() if name != active and _is_true(value)]


def _active_profile() -> str:
    from prefect.context import get_settings_context

    return get_settings_context().profile.name


def right_name(name: str) -> str:
    """Return the variable of this package that a name is probably meant to be; ``""`` if it is none, or is right. Pure.

    Upper and lower case do not matter, as in Prefect.
    """
    name = name.upper()
    if name in _VARIABLES:
        return ""
    if {"PREFECT", "ATTESTATIONS"} <= set(name.split("_")):
        return SETTING
    for variable_name in _VARIABLES:
        # DISABLE_ATTESTATIONS is unusual enough without PREFECT. PLATFORM can belong to any program.
        same_words = _ratio(_words(name), _words(variable_name)) >= _SAME_WORDS
        if same_words and ("PREFECT" in name or variable_name == SETTING):
            return variable_name
        if _ratio(name, variable_name) >= _SAME_NAME:
            return variable_name
    return ""


def _words(name: str) -> str:
    return "_".join(word for word in name.split("_") if word not in ("", "PREFECT", "DOCKER"))


def _ratio(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()


def _misspelled(source: Any) -> Iterator[tuple[str, str]]:
    """Give the names in a source that are almost right, as they are written there, with the right names."""
    if hasattr(source, "toml_data"):
        for field in source.toml_data:
            if right := _FIELDS.get(right_name(variable(field))):
                yield field, right
        return
    if hasattr(source, "profile_settings"):
        names = list(source.profile_settings)
    else:
        # pydantic's source has the names in lower case.
        names = [name.upper() for name in source.env_vars] if hasattr(source, "env_file") else list(os.environ)
    for name in names:
        if right := right_name(name):
            yield name, right


def _title(source: Any) -> str:
    if hasattr(source, "toml_data"):
        return str(source.toml_file_path)
    if hasattr(source, "profile_settings"):
        return f"profile {_active_profile()!r}"
    return ".env" if hasattr(source, "env_file") else "environment"


def _is_true(value: object) -> bool:
    return bare(str(value)).lower() in _TRUE
