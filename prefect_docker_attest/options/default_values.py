"""Applies settings as defaults of the options that an image does not set itself. Pure.

Values are checked here, when a build is called. Prefect loads its settings in every process, and a wrong value must not
stop a process that builds nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from prefect_docker_attest.errors import OptionError
from prefect_docker_attest.layer_compression import GZIP
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
        OptionError: the value of a setting is wrong, or media types and compression exclude each other
    """
    if settings.platform:
        options = replace(options, platforms=(_platform(settings.platform, engine_platform),))
    if settings.media_types:
        options = replace(options, media_types=values.media_types(variable("media_types"), settings.media_types))
    if settings.compression:
        options = replace(options, compression=values.compression(variable("compression"), settings.compression))
    options = _with_form(settings, options)
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


def _with_form(settings: BuildSettings, options: BuildxOptions) -> BuildxOptions:
    """Return the options with the media types that the compression needs, or the compression that they need."""
    compression, media_types = options.compression, options.media_types
    if compression is None:
        # Layers that the builder has in its cache with zstd would get a media type that engines refuse.
        return replace(options, compression=GZIP) if media_types == "docker" else options
    if compression.method == "gzip":
        return options
    if compression.method == "zstd" and media_types == "docker":
        raise OptionError(
            settings.origin("compression"),
            f"is not supported with {settings.origin('media_types')}='docker': Docker's media types have no zstd",
            str(compression),
            tip="Omit the media types, or use compression gzip.",
        )
    return options if media_types else replace(options, media_types="oci")


def refused_by_graphdriver(settings: BuildSettings, options: BuildxOptions) -> OptionError | None:
    """Return why an engine without the containerd image store cannot hold an image; `None` if it can.

    Args:
        settings: the settings of the build
        options: the options of the image, with these settings
    """
    store = "is not supported: the image store of this Docker Engine"
    if options.compression not in (None, GZIP):
        reason = f"{store} pushes only layers that it compresses itself with gzip"
        return OptionError(settings.origin("compression"), reason, str(options.compression), tip=_USE_CONTAINERD)
    if options.media_types == "oci":
        reason = f"{store} pushes only Docker's media types"
        return OptionError(settings.origin("media_types"), reason, "oci", tip=_USE_CONTAINERD)
    if options.annotations:
        return OptionError("annotations", f"{store} does not store annotations", tip=_USE_CONTAINERD)
    return None
