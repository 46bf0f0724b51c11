"""Checks the values of options, and converts them into the values of buildx's flags. Pure.

Every converter takes the option's name, as the caller wrote it, and the value. It raises `OptionError` for a value that
has the wrong type, or that cannot be passed to buildx unchanged.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from typing import Any

from docker import utils

from prefect_docker_attest.errors import OptionError
from prefect_docker_attest.layer_compression import Compression, NotACompressionError
from prefect_docker_attest.platforms import NotAPlatformError, Platform

SECRET_KEYS = frozenset(("type", "id", "src", "source", "env"))
"""The keys that a reference to a secret can have. None of their values is the secret itself."""


def string(option: str, value: object) -> str:
    """A string of Unicode characters without NUL, because BuildKit reads UTF-8."""
    found = path(option, value)
    try:
        found.encode()
    except UnicodeEncodeError as error:
        raise OptionError(option, f"contains {found[error.start]!r}, which is not Unicode", value) from None
    return found


def path(option: str, value: object) -> str:
    """A path. It can contain any bytes that the operating system accepts in a path."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str):
        raise OptionError(option, f"must be a string, not {type(value).__name__}", value)
    try:
        usable = b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        usable = False
    if not usable:
        raise OptionError(option, "contains a character that is not allowed on a command line", value)
    return value


def absolute_path(option: str, value: object) -> str:
    """The absolute form of a path, which buildx cannot read as a flag, as ``-`` (standard input) or as a URL."""
    named = path(option, value)
    # The current directory can be deleted: only a relative path needs it.
    return os.path.normpath(named) if os.path.isabs(named) else os.path.abspath(named)


def optional_string(option: str, value: object) -> str | None:
    """A string, or ``None`` for an empty one."""
    return string(option, value) or None if value is not None else None


def strings(option: str, value: object) -> tuple[str, ...]:
    """One string or several strings. A mapping becomes one string, ``key=value,...``."""
    if value is None:
        return ()
    if isinstance(value, Mapping):
        return (attributes(option, value),)
    if isinstance(value, (str, os.PathLike)):
        return (string(option, value),)
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return tuple(found for entry in value for found in strings(option, entry))
    raise OptionError(option, f"must be a string or a list of strings, not {type(value).__name__}", value)


def string_map(option: str, value: object) -> Mapping[str, str]:
    """Names and values. A name is not empty and does not contain ``=``."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise OptionError(option, f"must be a mapping of names to strings, not {type(value).__name__}")
    found = {}
    for name, entry in value.items():
        if not isinstance(name, str) or not name or "=" in name:
            raise OptionError(option, f"has the name {name!r}; a name must be a string that is not empty, without '='")
        if not isinstance(entry, (str, os.PathLike)):
            raise OptionError(
                f"{option}[{name!r}]",
                f"must be a string, not {type(entry).__name__}",
                tip='Write the value in quotes, for example "8080".',
            )
        found[string(option, name)] = string(f"{option}[{name!r}]", entry)
    return found


def attributes(option: str, value: Mapping[Any, Any]) -> str:
    """A mapping as comma-separated attributes, such as ``type=registry,ref=...``."""
    return as_csv([f"{string(option, key)}={_scalar(option, entry)}" for key, entry in value.items()])


def as_csv(fields: Sequence[str]) -> str:
    """One line of comma-separated values, with quotes where buildx's CSV reader needs them."""
    line = io.StringIO()
    # Python before 3.13 quotes only line ends that are in its own line terminator.
    csv.writer(line, lineterminator="\r\n").writerow(fields)
    return line.getvalue().removesuffix("\r\n")


def switch(option: str, value: object) -> bool:  # noqa: ARG001 a converter like all others
    """On or off. A string is read as the engine reads docker-py's query (moby, api/server/httputils, ``BoolValue``)."""
    if isinstance(value, str):
        return value.strip().lower() not in ("", "0", "no", "false", "none")
    return bool(value)


def build_args(option: str, value: object) -> Mapping[str, str]:
    """Build arguments. Those with the value `None` are omitted: ``--build-arg=NAME`` would use the host's value."""
    if isinstance(value, Mapping):
        value = {name: entry for name, entry in value.items() if entry is not None}
    return string_map(option, value or {})


def size(option: str, value: object) -> int | None:
    """A number of bytes, as an int or a string of digits; `None` for 0, which means buildx's default."""
    if isinstance(value, bool) or not isinstance(value, (int, str)) or not str(value).isdecimal():
        raise OptionError(option, "must be a number of bytes", value)
    return int(value) or None


def hosts(option: str, value: object) -> tuple[str, ...]:
    """Entries of ``/etc/hosts``: a mapping of names to addresses, or ``name:address`` strings."""
    found = strings(option, utils.format_extra_hosts(value) if isinstance(value, dict) else value)
    # buildx splits the values of this flag at commas (pflag's StringSlice), unlike those of all other flags.
    return tuple(as_csv([host]) for host in found)


def network(option: str, value: object) -> str | None:
    """The network of ``RUN`` steps; `None` for the default network."""
    found = optional_string(option, value)
    if found in (None, "default", "bridge"):
        return None
    if found not in ("none", "host"):
        raise OptionError(
            option, "is not supported: BuildKit has only the networks 'default', 'none' and 'host'", found
        )
    return found


def platforms(option: str, value: object) -> tuple[Platform, ...]:
    """Platforms, without duplicates. One string can contain several, separated by commas."""
    names = [name.strip() for entry in strings(option, value) for name in entry.split(",")]
    return tuple(dict.fromkeys(platform(option, name) for name in names if name))


def platform(option: str, value: str) -> Platform:
    """One platform, such as ``linux/amd64``, or a part of it. BuildKit would build for any word."""
    try:
        return Platform.of_user(value)
    except NotAPlatformError as error:
        nearest = f"Write {error.nearest!r}. " if error.nearest else ""
        raise OptionError(
            option, "is not a platform", value, tip=f"{nearest}A platform is OS/ARCHITECTURE, such as linux/amd64."
        ) from None


def key_values(option: str, value: object) -> tuple[str, ...]:
    """``key=value`` strings, from strings or a mapping."""
    if isinstance(value, Mapping):
        return tuple(f"{name}={entry}" for name, entry in string_map(option, value).items())
    return strings(option, value)


def media_types(option: str, value: object) -> str | None:
    """``docker`` or ``oci``, in upper or lower case; `None` for an empty string."""
    found = (optional_string(option, value) or "").strip().lower()
    if found not in ("", "docker", "oci"):
        raise OptionError(option, "must be 'docker' or 'oci'", value)
    return found or None


def compression(option: str, value: object) -> Compression | None:
    """``zstd``, ``gzip`` or ``uncompressed``, the first two with an optional level; `None` for an empty string."""
    found = (optional_string(option, value) or "").strip()
    try:
        return Compression.of_user(found) if found else None
    except NotACompressionError as error:
        tip = "The levels are gzip:0 to gzip:9 and zstd:0 to zstd:22."
        raise OptionError(option, str(error), value, tip=tip) from None


def attestation(option: str, value: object) -> str | None:
    """``true``, ``false``, or attributes such as ``mode=max``."""
    if value is None:
        return None
    return attributes(option, value) if isinstance(value, Mapping) else _scalar(option, value)


def builder(option: str, value: object) -> str | None:
    """The name of a builder. python-on-whales also accepts its ``Builder`` objects."""
    return optional_string(option, value if isinstance(value, str) else getattr(value, "name", value))


def secrets(option: str, value: object) -> tuple[str, ...]:
    """References to secrets. Other strings are refused, so that no secret can reach the command line."""
    found = strings(option, value)
    if not all(map(is_secret_reference, found)):
        raise OptionError(option, "must be strings of the form 'id=NAME,env=VARIABLE' or 'id=NAME,src=FILE'")
    return found


def is_secret_reference(secret: str) -> bool:
    """Whether a string has only `SECRET_KEYS`: it names the place of a secret, and does not contain the secret."""
    try:
        fields = next(csv.reader([secret], strict=True))
    except csv.Error:
        return False
    return all("=" in entry and entry.partition("=")[0].strip().lower() in SECRET_KEYS for entry in fields)


def _scalar(option: str, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else string(option, value)
