"""Translates the options of a build for Podman's own builder, Buildah, which docker-py's build uses. Pure.

Buildah adds no attestations. A buildx-only option and a setting for one are refused, unless Buildah does the same
without them. `options.table` knows which options are buildx-only, so a new one is refused too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prefect_docker_attest.errors import OptionError
from prefect_docker_attest.layer_compression import GZIP, Compression
from prefect_docker_attest.names import SELECT_BUILDER, variable
from prefect_docker_attest.options import table, values
from prefect_docker_attest.options.default_values import apply_defaults
from prefect_docker_attest.options.docker_py_options import BUILDX_ONLY, cache_entries
from prefect_docker_attest.options.request import own_defaults
from prefect_docker_attest.options.table import BuildxOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from prefect_docker_attest.build_settings import BuildSettings
    from prefect_docker_attest.platforms import Platform

_SERVED_SETTINGS = ("platform", "media_types", "compression")
# The values of buildx-only options that ask for what Buildah does anyway.
_FULFILLED: Mapping[str, Callable[[BuildxOptions], bool]] = {
    "platforms": lambda _options: True,  # one platform
    "media_types": lambda options: options.media_types == "docker",
    "compression": lambda options: options.compression == GZIP,  # Podman compresses layers when it pushes them
    **dict.fromkeys(("provenance", "sbom", "attest"), lambda options: not options.requested_attestations),
}


@dataclass(frozen=True)
class PodmanOptions:
    """The options of one build by Podman.

    Attributes:
        docker_py: parameters of docker-py's ``build``, by name
        platform: the platform of the image; `None` if neither the image nor a setting names one
        overruled: requested attestations that the image does not get, such as ``provenance=mode=max``
        settings: the settings that the build uses
    """

    docker_py: Mapping[str, Any]
    platform: Platform | None
    overruled: Sequence[str]
    settings: BuildSettings


def podman_options(
    given: Mapping[str, Any], settings: BuildSettings, podman: str, engine_platform: Callable[[], Platform | None]
) -> PodmanOptions:
    """Check the buildx-only options of a build, and return its options for docker-py.

    Args:
        given: docker-py's parameters and those in `BUILDX_ONLY`, by name
        settings: the settings of the build
        podman: version of Podman, for messages
        engine_platform: returns the platform of Podman, or `None` if it is not known

    Raises:
        OptionError: Podman's own builder does not support an option or setting, or its value is wrong
    """
    options = _wanted(given)
    settings = settings.without(own_defaults(options, given))
    for name in settings_for_buildkit(settings):
        shown = getattr(settings, name) if name in _SERVED_SETTINGS else ...
        raise _refused(variable(name), podman, "Unset it", shown)
    overruled: Sequence[str] = ()
    if settings.disable_attestations:
        overruled = options.requested_attestations
        options = options.without_attestations()
    _refuse_options(options, given, podman)
    options = apply_defaults(settings, options, "", engine_platform)
    own = {name: value for name, value in given.items() if name not in BUILDX_ONLY}
    platform = _complete(options.platforms[0], engine_platform()) if options.platforms else None
    if platform:
        own["platform"] = str(platform)
    return PodmanOptions(own, platform, overruled, settings)


def settings_for_buildkit(settings: BuildSettings) -> list[str]:
    """Return the names of the settings that only BuildKit can fulfil.

    Args:
        settings: the settings, without those for options that the image sets itself

    Raises:
        OptionError: the value of a setting is wrong
    """
    names = [name for name in settings.defaults if name not in _SERVED_SETTINGS]
    if settings.media_types and values.media_types(variable("media_types"), settings.media_types) != "docker":
        names.append("media_types")
    if settings.compression and values.compression(variable("compression"), settings.compression) != GZIP:
        names.append("compression")
    return names


def backend_refused(podman: str) -> OptionError:
    """Return the error for Prefect's ``build_backend="buildx"``."""
    return _refused("build_backend", podman, "Omit it (Podman's own builder adds no attestations)", "buildx")


def _wanted(given: Mapping[str, Any]) -> BuildxOptions:
    """Return what a call asks of BuildKit. docker-py's own options stay as they are, except for the platform."""
    rows = [row for row in table.ROWS if row.name in BUILDX_ONLY and given.get(row.name) is not None]
    converted = {row.name: row.convert(row.name, given[row.name]) for row in rows}
    platforms = (*values.platforms("platform", given.get("platform")), *converted.get("platforms", ()))
    converted["platforms"] = tuple(dict.fromkeys(platforms))
    caches = values.strings("cache_from", cache_entries(given.get("cache_from")))
    return BuildxOptions(context="", cache_from=caches, **converted)


def _refuse_options(options: BuildxOptions, given: Mapping[str, Any], podman: str) -> None:
    if options.multi_platform:
        name = "platforms" if given.get("platforms") else "platform"
        raise _refused(name, podman, "Build for one platform", ",".join(map(str, options.platforms)))
    unset = BuildxOptions(context="")
    for row in table.ROWS:
        value, is_fulfilled = getattr(options, row.name), _FULFILLED.get(row.name)
        if value == getattr(unset, row.name) or (is_fulfilled and is_fulfilled(options)):
            continue
        # Collections can contain credentials.
        shown = str(value) if isinstance(value, (str, Compression)) else ...
        raise _refused(row.name, podman, "Omit it", shown)


def _refused(option: str, podman: str, remedy: str, value: object = ...) -> OptionError:
    reason = f"is not supported by Podman {podman}, which builds with Buildah instead of BuildKit"
    return OptionError(option, reason, value, tip=f"{remedy}, or {SELECT_BUILDER}.")


def _complete(platform: Platform, engine: Platform | None) -> Platform | None:
    if platform.is_local:
        return engine
    return platform.completed(engine) if engine else platform
