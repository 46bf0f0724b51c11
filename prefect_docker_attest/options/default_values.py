"""Applies settings as defaults of the options that an image does not set itself. Pure.

Values are checked here, when a build is called. Prefect loads its settings in every process, and a wrong value must not
stop a process that builds nothing.
"""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from docker import utils

from prefect_docker_attest.errors import OptionError
from prefect_docker_attest.names import variable
from prefect_docker_attest.options import values

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from prefect_docker_attest.build_settings import BuildSettings
    from prefect_docker_attest.options.table import BuildxOptions
    from prefect_docker_attest.platforms import Platform

_CACHES = {
    "cache_from": ("registry", "local", "gha", "s3", "azblob"),
    "cache_to": ("registry", "inline", "local", "gha", "s3", "azblob"),
}
"""The types of caches that BuildKit reads and writes. BuildKit skips an unknown type without an error."""
_ENTRY = re.compile(r'(?:[^\s"]|"[^"]*")+')
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_CREDENTIAL = re.compile(r"secret|token|passw|credential|signature|account_?key|^sig$", re.IGNORECASE)

_USE_CONTAINERD = "Use the containerd image store (https://docs.docker.com/engine/storage/containerd/)."
_OMIT_CREDENTIAL = (
    "Omit it. buildx uses the credentials of `docker login` for registries, and variables such as "
    "AWS_SECRET_ACCESS_KEY and ACTIONS_RUNTIME_TOKEN for other caches."
)


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
        options = replace(options, platforms=(_platform(settings.platform),))
    if settings.media_types:
        options = replace(options, media_types=values.media_types(variable("media_types"), settings.media_types))
    if settings.cache_from or settings.cache_to:
        platforms = options.platforms
        if "{platform}" in f"{settings.cache_from} {settings.cache_to}" and not platforms:
            native = engine_platform()
            platforms = (native,) if native else ()
        texts = placeholders(options.tags[0] if options.tags else image, platforms)
        options = replace(
            options,
            cache_from=options.cache_from + caches("cache_from", settings.cache_from, texts),
            cache_to=options.cache_to + tuple(map(_ignoring_errors, caches("cache_to", settings.cache_to, texts))),
        )
    return options


def _platform(value: str) -> Platform:
    name = variable("platform")
    if "," in value or value.split()[1:]:
        raise OptionError(name, "must be exactly one platform, such as linux/amd64", value)
    platform = values.platform(name, value)
    if not platform.is_complete:
        raise OptionError(name, "must be exactly one platform, such as linux/amd64", value)
    return platform


def placeholders(image: str, platforms: Sequence[Platform]) -> dict[str, str]:
    """Return the values of the placeholders in cache entries; ``""`` for a value that the build does not have.

    Args:
        image: ``registry/repository:tag``
        platforms: platforms of the image
    """
    repository, tag = utils.parse_repository_tag(image) if image else ("", "")
    # A tag cannot contain a slash.
    platform = "-".join(map(str, platforms)).replace("/", "-")
    return {"image": repository, "tag": "latest" if tag is None else tag, "platform": platform}


def caches(setting: str, value: str, texts: Mapping[str, str]) -> tuple[str, ...]:
    """Check the cache entries of a setting, and replace their placeholders.

    Args:
        setting: ``cache_from`` or ``cache_to``
        value: value of the setting
        texts: values of the placeholders (see `placeholders`)

    Raises:
        OptionError: an entry is wrong, or contains a credential
    """
    name = variable(setting)
    # Credentials are checked first, because the messages of other errors show the entry.
    keys = re.findall(r"([\w-]+)['\"]?\s*[=:]", value)
    if credential := next(filter(_CREDENTIAL.search, keys), ""):
        raise OptionError(
            name, f"must not contain the credential {credential}: other users can see it", tip=_OMIT_CREDENTIAL
        )
    if re.search(r"://[^/@\s]*@", value):
        raise OptionError(
            name, "must not contain a URL with a credential: other users can see it", tip=_OMIT_CREDENTIAL
        )
    entries = []
    for entry in _ENTRY.findall(value):
        fields = _fields(entry)
        if fields is None or "type" not in fields:
            raise OptionError(
                name,
                "is not a valid cache entry",
                entry,
                tip="Write for example type=registry,ref=registry.example.com/app:cache",
            )
        if fields["type"] not in _CACHES[setting]:
            raise OptionError(name, f"has an unknown type; it must be one of {', '.join(_CACHES[setting])}", entry)
        for placeholder in _PLACEHOLDER.findall(entry):
            if placeholder not in texts:
                known = ", ".join(map("{{{}}}".format, texts))
                raise OptionError(name, f"has the unknown placeholder {{{placeholder}}}; known are {known}", entry)
            if not texts[placeholder]:
                missing = "platform" if placeholder == "platform" else "name"
                raise OptionError(name, f"uses {{{placeholder}}}, but the build has no {missing}", entry)
        entries.append(_PLACEHOLDER.sub(lambda match: texts[match[1]], entry))
    return tuple(entries)


def _fields(entry: str) -> dict[str, str] | None:
    try:
        (row,) = csv.reader([entry], strict=True)
    except csv.Error:
        return None
    if not all("=" in field for field in row):
        return None
    return {name.strip().lower(): value for name, _, value in (field.partition("=") for field in row)}


def _ignoring_errors(entry: str) -> str:
    """Add ``ignore-error=true`` to a cache entry, so that a build does not fail because its cache cannot be written."""
    fields = _fields(entry) or {}
    return entry if fields.get("type") == "inline" or "ignore-error" in fields else f"{entry},ignore-error=true"


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
