"""Defines Prefect's group of settings ``docker``, and finds the sources of their values."""

from __future__ import annotations

import contextlib
import os
import weakref
from typing import Annotated, Any

from prefect.settings.base import PrefectBaseSettings, build_settings_config
from pydantic import BeforeValidator, Field

from prefect_docker_attest.names import SETTING, bare, variable
from prefect_docker_attest.patches.file_states import FileStates

_BOOLEANS = frozenset("0 1 f t false true n y no yes off on".split())  # as pydantic reads them


def _switch(name: str) -> BeforeValidator:
    """Return the validator of a boolean setting. It reads what shells and ``docker --env-file`` make of a value."""

    def normal(value: object) -> object:
        # CI systems export variables without a value as empty. A boolean field that refused an empty value would stop
        # every `prefect` command.
        text = bare(value) if isinstance(value, str) else value
        if text == "":
            return False
        if isinstance(text, bool) or str(text).lower() in _BOOLEANS:
            return text
        raise ValueError(f"{variable(name)}={value!r} is not true or false{_where(name, value)}")

    return BeforeValidator(normal)


def _where(name: str, value: object) -> str:
    """Return the source of a wrong value, such as `` (environment)``; ``""`` if it cannot be known now."""
    with contextlib.suppress(Exception):  # Prefect's settings are loaded now, so its sources may not work yet
        found, source = value_and_source(name)
        # temporary_settings is no source, and `prefect config set` checks a value before it saves it.
        return f" ({source})" if found == value else ""
    return ""


def _as_text(value: object) -> str | None:
    """Convert a value of any type in a settings file into a string.

    Nothing is refused here, because that would stop every Prefect process. Builds check the value. The setting is not a
    list: Prefect passes lists to other processes sorted and joined with commas, which are also part of cache entries.
    """
    if isinstance(value, dict):
        value = ",".join(f"{name}={entry}" for name, entry in value.items())
    elif isinstance(value, list):
        value = "\n".join(filter(None, map(_as_text, value)))
    return None if value is None else bare(str(value)) or None


_Text = Annotated[str | None, BeforeValidator(_as_text)]


# For an empty variable the next source is used, as for a variable that is not set.
_CONFIG = build_settings_config(("docker",))
_CONFIG["env_ignore_empty"] = True


variable_at_import = os.environ.get(SETTING, "")
"""The environment variable when Prefect read its settings. This module is imported at the same time."""

files_at_import = FileStates.of_this_process()
"""The settings files when Prefect read its settings."""


switched_on: weakref.WeakValueDictionary[int, DockerSettings] = weakref.WeakValueDictionary()
"""The settings of this process that are turned on, including those of `temporary_settings`, as long as they exist."""


class DockerSettings(PrefectBaseSettings):
    """Settings of image builds: Prefect's group ``docker``."""

    model_config = _CONFIG

    disable_attestations: Annotated[bool, _switch("disable_attestations")] = Field(
        default=False,
        description="Whether all Docker images are built by `docker buildx build` without provenance and SBOM "
        "attestations, instead of by the Docker Engine's classic builder.",
    )
    platform: _Text = Field(
        default=None,
        description="The platform of Docker images that do not set one, such as `linux/amd64`. If set, images are "
        "built by `docker buildx build`.",
    )
    media_types: _Text = Field(
        default=None,
        description="The media types, `docker` or `oci`, of Docker images in the registry. If set, images are built by "
        "`docker buildx build`.",
    )
    compression: _Text = Field(
        default=None,
        description="The compression, `zstd`, `gzip` or `uncompressed`, of new layers of Docker images, with an "
        "optional level such as `zstd:3`. If set, images are built by `docker buildx build`.",
    )
    cache_from: _Text = Field(
        default=None,
        description="Caches that builds of Docker images read, such as `type=registry,ref=NAME`, separated by white "
        "space. If set, images are built by `docker buildx build`.",
    )
    cache_to: _Text = Field(
        default=None,
        description="Where builds of Docker images write a cache, such as `type=registry,ref=NAME`; several separated "
        "by white space. If set, images are built by `docker buildx build`.",
    )
    push_from_builder: Annotated[bool, _switch("push_from_builder")] = Field(
        default=False,
        description="Whether a builder outside the Docker Engine pushes Docker images itself, instead of loading them "
        "into the engine, which pushes them. If set, images are built by `docker buildx build`.",
    )

    def model_post_init(self, context: Any, /) -> None:
        """Record settings that are turned on in `switched_on`."""
        super().model_post_init(context)
        if self.disable_attestations:
            switched_on[id(self)] = self

    @classmethod
    def settings_customise_sources(cls, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Return Prefect's sources. For an empty value in a file the next source is used, as for an empty variable."""
        sources = super().settings_customise_sources(*args, **kwargs)
        for source in sources:
            for attribute in ("toml_data", "profile_settings"):
                if hasattr(source, attribute):
                    data = getattr(source, attribute)
                    # Prefect's source fails if `docker` is not a table.
                    settings = data.items() if isinstance(data, dict) else ()
                    # Prefect's source reads a table as another group of settings.
                    values = {name: [value] if isinstance(value, dict) else value for name, value in settings}
                    setattr(source, attribute, {name: value for name, value in values.items() if value not in ("", [])})
        return sources


# Names of Prefect's sources of settings, by the name of their class (prefect/settings/sources.py, since 3.1).
_SOURCES = {
    "EnvFilterSettingsSource": "environment",
    "FilteredDotEnvSettingsSource": ".env",
    "PrefectTomlConfigSettingsSource": "prefect.toml",
    "PyprojectTomlConfigSettingsSource": "pyproject.toml",
    "ProfileSettingsTomlLoader": "profile",
}


def setting_sources() -> tuple[Any, ...]:
    """Return Prefect's sources of these settings, the strongest first. Calling a source gives its values by field."""
    # Prefect does not use these four arguments: it creates its own sources.
    unused: Any = dict
    return DockerSettings.settings_customise_sources(DockerSettings, unused, unused, unused, unused)


def value_and_source(name: str) -> tuple[Any, str]:
    """Return a setting's value, and the kind of the source that has it, such as ``environment`` or ``profile``.

    Without a source, it is the default and ``"default"``.
    """
    for source in setting_sources():
        values = source()
        if name in values:
            kind = type(source).__name__
            return values[name], _SOURCES.get(kind, kind)
    return DockerSettings.model_fields[name].default, "default"
