"""Applies settings as defaults of the options that an image does not set itself. Pure.

Values are checked here, when a build is called. Prefect loads its settings in every process, and a wrong value must not
stop a process that builds nothing.
"""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from docker import utils

from prefect_docker_attest.errors import OptionError
from prefect_docker_attest.names import variable
from prefect_docker_attest.options import values
from prefect_docker_attest.options.defaults import NAMES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from prefect_docker_attest.options.defaults import Defaults
    from prefect_docker_attest.options.table import BuildxOptions

_PLATFORM = re.compile(r"[a-z0-9]+(/[\w.-]+){1,2}")
_CACHES = {
    "cache_from": ("registry", "local", "gha", "s3", "azblob"),
    "cache_to": ("registry", "inline", "local", "gha", "s3", "azblob"),
}
"""The types of caches that BuildKit reads and writes. BuildKit skips an unknown type without an error."""
_ENTRY = re.compile(r'(?:[^\s"]|"[^"]*")+')
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_CREDENTIAL = re.compile(r"secret|token|passw|credential|signature|account_?key|^sig$", re.IGNORECASE)

_OMIT_CREDENTIAL = (
    "Omit it. buildx uses the credentials of `docker login` for registries, and variables such as "
    "AWS_SECRET_ACCESS_KEY and ACTIONS_RUNTIME_TOKEN for other caches."
)


def apply(defaults: Defaults, options: BuildxOptions, image: str, engine_platform: Callable[[], str]) -> BuildxOptions:
    """Return the options of an image with these defaults.

    Args:
        defaults: the settings, without those for options that the image sets itself (see `named`)
        options: options of the image
        image: name of the image, ``registry/repository:tag`` or ``""``, used if `options` has no tag
        engine_platform: returns the engine's platform, ``os/architecture``, or ``""`` if it is not known; it is called
            only if a cache entry needs it

    Raises:
        OptionError: the value of a setting is wrong
    """
    if defaults.platform:
        options = replace(options, platforms=(_platform(defaults.platform),))
    if defaults.media_types:
        options = replace(options, media_types=values.media_types(variable("media_types"), defaults.media_types))
    if defaults.cache_from or defaults.cache_to:
        text = f"{defaults.cache_from} {defaults.cache_to}"
        platforms = options.platforms
        if "{platform}" in text and not platforms:
            platforms = (engine_platform(),)
        found = placeholders(options.tags[0] if options.tags else image, platforms)
        options = replace(
            options,
            cache_from=options.cache_from + caches("cache_from", defaults.cache_from, found),
            cache_to=options.cache_to + tuple(map(_ignoring_errors, caches("cache_to", defaults.cache_to, found))),
        )
    return options


def named(options: BuildxOptions, given: Mapping[str, Any]) -> list[str]:
    """Return those of `NAMES` for which the image sets the option itself.

    Args:
        options: options of the image
        given: the options of the call by name, as docker-py or python-on-whales names them
    """
    by_other_names = {"platform": options.platforms, "media_types": options.media_types}
    return [name for name in NAMES if given.get(name) is not None or by_other_names.get(name)]


def _platform(value: str) -> str:
    if not _PLATFORM.fullmatch(value):
        raise OptionError(variable("platform"), "must be exactly one platform, such as linux/amd64", value)
    return value


def placeholders(image: str, platforms: Sequence[str]) -> dict[str, str]:
    """Return the values of the placeholders in cache entries; ``""`` for a value that the build does not have.

    Args:
        image: ``registry/repository:tag``
        platforms: platforms as ``os/architecture``
    """
    repository, tag = utils.parse_repository_tag(image) if image else ("", "")
    # A tag cannot contain a slash.
    platform = "-".join(platforms).replace("/", "-")
    return {"image": repository, "tag": "latest" if tag is None else tag, "platform": platform}


def caches(setting: str, value: str, found: Mapping[str, str]) -> tuple[str, ...]:
    """Check the cache entries of a setting, and replace their placeholders.

    Args:
        setting: ``cache_from`` or ``cache_to``
        value: value of the setting
        found: values of the placeholders (see `placeholders`)

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
            if placeholder not in found:
                known = ", ".join(map("{{{}}}".format, found))
                raise OptionError(name, f"has the unknown placeholder {{{placeholder}}}; known are {known}", entry)
            if not found[placeholder]:
                missing = "platform" if placeholder == "platform" else "name"
                raise OptionError(name, f"uses {{{placeholder}}}, but the build has no {missing}", entry)
        entries.append(_PLACEHOLDER.sub(lambda match: found[match[1]], entry))
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
    return OptionError(
        option,
        "is not supported: the image store of this Docker Engine pushes only Docker's media types",
        "oci",
        tip="Use the containerd image store (https://docs.docker.com/engine/storage/containerd/).",
    )
