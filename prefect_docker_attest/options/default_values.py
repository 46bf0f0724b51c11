"""Applies settings as defaults of the options that an image does not set itself. Pure.

Values are checked here, when a build is called. Prefect loads its settings in every process, and a wrong value must not
stop a process that builds nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from prefect_docker_attest.errors import OptionError
from prefect_docker_attest.names import variable
from prefect_docker_attest.options import values
from prefect_docker_attest.options.cache_entries import entries_of_setting, placeholders, with_ignored_errors

if TYPE_CHECKING:
    from collections.abc import Callable

    from prefect_docker_attest.build_settings import BuildSettings
    from prefect_docker_attest.options.table import BuildxOptions
    from prefect_docker_attest.platforms import Platform

_USE_CONTAINERD = "Use the containerd image store (https://docs.docker.com/engine/storage/containerd/)."


def apply_defaults(
    settings: BuildSettings, options: BuildxOptions, image: str, engine_platform: Callable[[], Platform | None]
) -> BuildxOptions:
    """Return the options of an image with the settings as defaults.

    Args:
        settings: the settings, without those for options that the image sets itself
        options: options of the image
        image: name of the image, ``registry/repository:tag`` or ``""``, used if `options` has no tag
        engine_platform: returns the engine's platform, or `None` if it is not known; it is called only if a value
            needs it

    Raises:
        OptionError: the value of a setting is wrong
    """
    if settings.platform:
        options = replace(options, platforms=(_platform(settings.platform, engine_platform),))
    if settings.media_types:
        options = replace(options, media_types=values.media_types(variable("media_types"), settings.media_types))
    if settings.cache_from or settings.cache_to:
        platforms = options.platforms
        if "{platform}" in f"{settings.cache_from} {settings.cache_to}" and not platforms:
            native = engine_platform()
            platforms = (native,) if native else ()
        texts = placeholders(options.tags[0] if options.tags else image, platforms)
        written = entries_of_setting("cache_to", settings.cache_to, texts)
        options = replace(
            options,
            cache_from=options.cache_from + entries_of_setting("cache_from", settings.cache_from, texts),
            cache_to=options.cache_to + tuple(map(with_ignored_errors, written)),
        )
    return options


def _platform(value: str, engine_platform: Callable[[], Platform | None]) -> Platform:
    name = variable("platform")
    if "," in value or value.split()[1:]:
        raise OptionError(name, "must be exactly one platform, such as linux/amd64", value)
    platform = values.platform(name, value)
    engine = None if platform.is_complete else engine_platform()
    return platform.completed(engine) if engine else platform


def oci_refused(option: str) -> OptionError:
    """Return the error for OCI media types in an engine without the containerd image store.

    Args:
        option: name of the option or setting that requires them
    """
    reason = "is not supported: the image store of this Docker Engine pushes only Docker's media types"
    return OptionError(option, reason, "oci", tip=_USE_CONTAINERD)


def annotations_refused() -> OptionError:
    """Return the error for annotations in an engine without the containerd image store."""
    reason = "is not supported: the image store of this Docker Engine does not store annotations"
    return OptionError("annotations", reason, tip=_USE_CONTAINERD)
