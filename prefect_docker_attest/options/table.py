"""The options of ``docker buildx build``, and the command line that they make. Pure."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prefect_docker_attest.errors import OptionError

_OF_A_SECRET = frozenset(("type", "id", "src", "source", "env"))


@dataclass(frozen=True, kw_only=True)
class BuildxOptions:
    """One build, in the terms of ``docker buildx build --help``.

    Attributes:
        context: an absolute path, a URL, or ``-`` for what comes on standard input
        file: the Dockerfile's absolute path, or its place in a remote or tar context
        build_args: values by name; they are not secrets, yet are kept off the command line
        shm_size: bytes
        add_hosts: ``host:address`` each
        cache_from, cache_to, attest, secrets, ssh: as buildx reads them, ``type=registry,ref=...``
        provenance, sbom: ``true``, ``false``, or attributes such as ``mode=max``; ``None`` leaves buildx its default
        push: push to the registry in place of loading into the engine
    """

    context: str
    file: str | None = None
    tags: tuple[str, ...] = ()
    platforms: tuple[str, ...] = ()
    build_args: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    target: str | None = None
    network: str | None = None
    no_cache: bool = False
    pull: bool = False
    quiet: bool = False
    shm_size: int | None = None
    add_hosts: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    cache_from: tuple[str, ...] = ()
    cache_to: tuple[str, ...] = ()
    provenance: str | None = None
    sbom: str | None = None
    attest: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    ssh: tuple[str, ...] = ()
    build_contexts: Mapping[str, str] = field(default_factory=dict)
    builder: str | None = None
    annotations: tuple[str, ...] = ()
    push: bool = False

    @property
    def multi_platform(self) -> bool:
        """Whether the result is an image index by its nature."""
        return len(self.platforms) > 1


def arguments(options: BuildxOptions, build_args: Sequence[str], metadata_file: str) -> list[str]:
    """What follows ``docker buildx build``.

    Every value is bound to its flag, and the context comes last, after ``--``: what starts with a dash stays a value.

    Args:
        options: what to build
        build_args: build arguments as they may stand on a command line (see `prefect_docker_attest.build_args`)
        metadata_file: where buildx writes what it built
    """
    flags = [
        "--progress=quiet" if options.quiet else "--progress=plain",
        "--push" if options.push else "--load",
        f"--metadata-file={metadata_file}",
    ]
    single: dict[str, str | int | None] = {
        "builder": options.builder,
        "file": options.file,
        "target": options.target,
        "network": options.network,
        "shm-size": options.shm_size,
        "provenance": options.provenance,
        "sbom": options.sbom,
    }
    flags += [f"--{name}={value}" for name, value in single.items() if value is not None]
    flags += [f"--{name}" for name, given in (("no-cache", options.no_cache), ("pull", options.pull)) if given]
    repeated: dict[str, Sequence[str]] = {
        "tag": options.tags,
        "platform": options.platforms,
        "build-arg": build_args,
        "label": [f"{name}={value}" for name, value in options.labels.items()],
        # pflag's StringSlice: the only list of buildx that splits each value at commas.
        "add-host": [as_csv([host]) for host in options.add_hosts],
        "allow": options.allow,
        "cache-from": options.cache_from,
        "cache-to": options.cache_to,
        "attest": options.attest,
        "secret": options.secrets,
        "ssh": options.ssh,
        "build-context": [f"{name}={value}" for name, value in options.build_contexts.items()],
        "annotation": options.annotations,
    }
    flags += [f"--{name}={value}" for name, values in repeated.items() for value in values]
    return [*flags, "--", options.context]


def as_csv(fields: Sequence[str]) -> str:
    """One line of comma-separated values, quoted where buildx's reader needs it."""
    line = io.StringIO()
    # Python before 3.13 puts quotes around those line ends only that it writes itself.
    csv.writer(line, lineterminator="\r\n").writerow(fields)
    return line.getvalue().removesuffix("\r\n")


def text(option: str, value: object) -> str:
    """The value of an option that is a text.

    Raises:
        OptionError: it is none, or it would not arrive as it is (a NUL, a lone surrogate: BuildKit reads UTF-8)
    """
    found = path(option, value)
    try:
        found.encode()
    except UnicodeEncodeError as error:
        raise OptionError(option, f"the text holds {found[error.start]!r}, which is not Unicode", value) from None
    return found


def path(option: str, value: object) -> str:
    """The value of an option that is a path, which may be any bytes that the system takes for one."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str):
        raise OptionError(option, f"a text is needed, not {type(value).__name__}", value)
    try:
        usable = b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        usable = False
    if not usable:
        raise OptionError(option, "the text holds a character that no command line can", value)
    return value


def texts(option: str, value: object) -> tuple[str, ...]:
    """The values of an option that takes one text, or several; a mapping is read as ``key=value,...``."""
    if value is None:
        return ()
    if isinstance(value, Mapping):
        return (attributes(option, value),)
    if isinstance(value, (str, os.PathLike)):
        return (text(option, value),)
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return tuple(one for each in value for one in texts(option, each))
    raise OptionError(option, f"a text or a list of texts is needed, not {type(value).__name__}", value)


def attributes(option: str, value: Mapping[Any, Any]) -> str:
    """``type=registry,ref=...`` of a mapping, as buildx reads it."""
    return as_csv([f"{text(option, key)}={_scalar(option, one)}" for key, one in value.items()])


def secrets(value: object) -> tuple[str, ...]:
    """The secrets of a build: where each is, never what it is.

    Raises:
        OptionError: one says something else than where it is. It does not reach the command line.
    """
    found = texts("secrets", value)
    if not all(map(_says_where, found)):
        raise OptionError(
            "secrets", "each is a text that says where the secret is: 'id=NAME,env=VARIABLE' or 'id=NAME,src=FILE'"
        )
    return found


def _says_where(secret: str) -> bool:
    try:
        fields = next(csv.reader([secret], strict=True))
    except csv.Error:
        return False
    return all("=" in each and each.partition("=")[0].strip().lower() in _OF_A_SECRET for each in fields)


def pairs(option: str, value: object) -> dict[str, str]:
    """The names and values of an option such as ``labels``.

    Raises:
        OptionError: no mapping, a value that is no text, a name that is empty or holds ``=``
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise OptionError(option, f"a mapping of names to texts is needed, not {type(value).__name__}")
    found = {}
    for name, one in value.items():
        if not isinstance(name, str) or not name or "=" in name:
            raise OptionError(option, f"the name {name!r} is empty, holds '=', or is no text")
        if not isinstance(one, (str, os.PathLike)):
            raise OptionError(
                option, f"the value of {name!r} is of type {type(one).__name__}: write it as a text, in quotes"
            )
        found[text(option, name)] = text(f"{option}[{name!r}]", one)
    return found


def attestation(option: str, value: object) -> str | None:
    """``--provenance`` or ``--sbom``: ``true``, ``false``, attributes, or ``None`` where nothing is asked."""
    if value is None:
        return None
    if isinstance(value, Mapping):
        return attributes(option, value)
    return _scalar(option, value)


def _scalar(option: str, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    return text(option, value)
