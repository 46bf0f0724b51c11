"""The options of docker-py's ``build``, said as options of ``docker buildx build``.

Three rules. Where the result would differ, the option is refused by name. Where only speed differs, there is a warning.
Where nothing differs, nothing is said. What docker-py checks before it builds is checked here, in the same words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO, Any

from docker import utils

from prefect_docker_attest import docker_py_context, options
from prefect_docker_attest.errors import OptionError
from prefect_docker_attest.options import BuildxOptions

BUILDX_ONLY = frozenset(
    (
        "provenance",
        "sbom",
        "attest",
        "secrets",
        "ssh",
        "cache_to",
        "build_contexts",
        "platforms",
        "builder",
        "annotations",
        "push",
    )
)
"""Options that docker-py does not know, named as python-on-whales and buildx name them."""

MEANINGLESS = {
    "rm": "BuildKit leaves no intermediate containers",
    "forcerm": "BuildKit leaves no intermediate containers",
    "gzip": "it compressed the build context on its way to the engine",
}
"""Options of docker-py that change nothing here, with the reason."""


@dataclass(frozen=True)
class DockerPyBuild:
    """A call of docker-py's ``build``, checked.

    Attributes:
        options: what buildx is to build
        stdin: the build context, or the Dockerfile, that goes to buildx's standard input
        decode: whether events are dicts, or JSON lines
        silence_limit: seconds without output after which the build is stopped
        config_proxies: whether the docker CLI's configured proxies become build arguments
        warnings: sentences for the user
    """

    options: BuildxOptions
    stdin: IO[bytes] | None
    decode: bool
    silence_limit: float | None
    config_proxies: bool
    warnings: tuple[str, ...]


def wants_buildx(given: Mapping[str, Any]) -> bool:
    """Whether a call names something that docker-py's own build could not do."""
    return (
        any(given.get(name) is not None for name in BUILDX_ONLY)
        or any(isinstance(entry, Mapping) or "=" in str(entry) for entry in _entries(given.get("cache_from")))
        or "," in str(given.get("platform") or "")
    )


def read(given: Mapping[str, Any]) -> DockerPyBuild:
    """Check the options of a build, every one of them, and say them in buildx's terms.

    Args:
        given: docker-py's parameters and those of `BUILDX_ONLY`, by name

    Raises:
        TypeError: as docker-py's build raises it: neither ``path`` nor ``fileobj``, a path that is no folder
        OptionError: an option that buildx cannot carry out, or whose value is wrong
    """
    # None is a value of this one alone: docker-py reads it as False.
    config_proxies = bool(given.get("use_config_proxy", True))
    rest = {name: value for name, value in given.items() if value is not None and name != "use_config_proxy"}
    source = {name: rest.pop(name, None) for name in ("path", "fileobj", "dockerfile", "custom_context")}
    encoding = rest.pop("encoding", None)
    if source["path"] is None and source["fileobj"] is None:
        raise TypeError("Either path or fileobj needs to be provided.")
    if rest.get("gzip") and encoding is not None:
        raise OptionError("encoding", "Can not use custom encoding if gzip is enabled", encoding)
    for name in MEANINGLESS:
        rest.pop(name, None)
    tag = rest.pop("tag", None)
    if tag is not None and not utils.match_tag(options.text("tag", tag)):
        raise OptionError("tag", f"invalid tag {tag!r}: invalid reference format", tag)
    _refuse(rest)
    warnings: list[str] = []
    values: dict[str, Any] = {name: convert(rest.pop(name)) for name, convert in _CONVERT.items() if name in rest}
    cache_from = tuple(_cache_sources(rest.pop("cache_from", None), warnings))
    platforms = _platforms(rest.pop("platform", None), rest.pop("platforms", None))
    decode, silence_limit = bool(rest.pop("decode", False)), _silence_limit(rest.pop("timeout", None))
    if rest:
        name, value = next(iter(rest.items()))
        raise OptionError(
            name, "this version of prefect-docker-attest does not know the option. Upgrade it, or leave it out", value
        )
    context = docker_py_context.read(**source)
    if context.is_remote:
        # The classic builder leaves a repository its folder .git.
        values["buildargs"] = {"BUILDKIT_CONTEXT_KEEP_GIT_DIR": "1", **values.get("buildargs", {})}
    built = BuildxOptions(
        context=context.place,
        file=context.file,
        tags=() if tag is None else (tag,),
        platforms=platforms,
        cache_from=cache_from,
        **{_FIELD.get(name, name): value for name, value in values.items()},
    )
    return DockerPyBuild(built, context.stdin, decode, silence_limit, config_proxies, tuple(warnings))


def _shm_size(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, (int, str)) or not str(value).isdecimal():
        raise OptionError("shmsize", "a number of bytes is needed", value)
    return int(value) or None


def _build_args(value: object) -> dict[str, str]:
    # docker-py's null in place of a value unsets the argument, a bare --build-arg NAME would import the host's.
    given = value if not isinstance(value, Mapping) else {k: v for k, v in value.items() if v is not None}
    return options.pairs("buildargs", given or {})


def _hosts(value: object) -> tuple[str, ...]:
    return options.texts("extra_hosts", utils.format_extra_hosts(value) if isinstance(value, dict) else value)


def _network(value: object) -> str | None:
    network = options.text("network_mode", value)
    if network in ("", "default", "bridge"):
        return None
    if network not in ("none", "host"):
        raise OptionError(
            "network_mode",
            "BuildKit knows only the networks 'default', 'none' and 'host'. Choose one of these",
            network,
        )
    return network


def _annotations(value: object) -> tuple[str, ...]:
    if isinstance(value, Mapping):
        return tuple(f"{name}={one}" for name, one in options.pairs("annotations", value).items())
    return options.texts("annotations", value)


# One function an option that is said by one flag; the others are read in `read`.
_CONVERT: dict[str, Callable[[Any], Any]] = {
    "nocache": bool,
    "pull": bool,
    "quiet": bool,
    "shmsize": _shm_size,
    "buildargs": _build_args,
    "labels": lambda value: options.pairs("labels", value),
    "target": lambda value: options.text("target", value) or None,
    "network_mode": _network,
    "extra_hosts": _hosts,
    "provenance": lambda value: options.attestation("provenance", value),
    "sbom": lambda value: options.attestation("sbom", value),
    "attest": lambda value: options.texts("attest", value),
    "secrets": options.secrets,
    "ssh": lambda value: options.texts("ssh", value),
    "cache_to": lambda value: options.texts("cache_to", value),
    "build_contexts": lambda value: options.pairs("build_contexts", value),
    "builder": lambda value: options.text("builder", value) or None,
    "annotations": _annotations,
}

_FIELD = {
    "nocache": "no_cache",
    "shmsize": "shm_size",
    "buildargs": "build_args",
    "network_mode": "network",
    "extra_hosts": "add_hosts",
}


def _refuse(rest: dict[str, Any]) -> None:
    limits = rest.pop("container_limits", None)
    if limits:
        raise OptionError(
            "container_limits",
            "BuildKit does not limit the resources of a build, and limits that silently vanish are worse. Leave it "
            "out, and limit the builder instead: `docker buildx create --driver-opt memory=...,cpu-quota=...`",
            limits,
        )
    if rest.pop("squash", None):
        raise OptionError("squash", "BuildKit does not squash layers. Use a multi-stage Dockerfile", True)
    isolation = rest.pop("isolation", None)
    if isolation not in (None, "", "default"):
        raise OptionError("isolation", "BuildKit has no choice of it. Leave it out", isolation)
    if rest.pop("push", None):
        raise OptionError(
            "push",
            "Prefect pushes what is in the Docker Engine after the build, and would replace this image in the registry "
            'by an older one of the same tag. Leave it out, or use build_backend="buildx"',
            True,
        )


def _entries(value: object) -> list[object]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _cache_sources(value: object, warnings: list[str]) -> list[str]:
    sources = [source for entry in _entries(value) for source in options.texts("cache_from", entry)]
    plain = [source for source in sources if "=" not in source]
    if plain:
        warnings.append(
            f"cache_from={plain}: unlike the classic builder, BuildKit reads a cache only where a build wrote one: "
            "into the image (cache_to='type=inline') or beside it (cache_to='type=registry,ref=...'), in a registry. "
            "From any other image nothing is reused."
        )
    return sources


def _platforms(platform: object, platforms: object) -> tuple[str, ...]:
    given = [*options.texts("platform", platform), *options.texts("platforms", platforms)]
    named = [one.strip() for each in given for one in each.split(",")]
    return tuple(dict.fromkeys(one for one in named if one))


def _silence_limit(timeout: Any) -> float | None:
    # requests takes a pair too: how long to connect, and how long without an answer.
    limit = timeout[1] if isinstance(timeout, tuple) else timeout
    if limit is None:
        return None
    if isinstance(limit, bool) or not isinstance(limit, (int, float)) or limit <= 0:
        raise OptionError("timeout", "seconds without output are needed, more than 0", timeout)
    return float(limit)
