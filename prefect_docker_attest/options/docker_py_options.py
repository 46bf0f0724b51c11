"""Translates docker-py build options into buildx options. Pure, except for `docker_py_context`.

An option is refused if buildx would build another image. An option that only changes the speed causes a warning. The
checks that docker-py makes before a build are made here too, with the same messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from docker import utils

from prefect_docker_attest.errors import OptionError
from prefect_docker_attest.options import docker_py_context, table, values
from prefect_docker_attest.options.request import BuildRequest, own_defaults
from prefect_docker_attest.options.table import BuildxOptions

SPECIAL = {
    "path": "The build context: a folder, or a git or http URL.",
    "fileobj": "A file that holds the Dockerfile of an empty build context.",
    "custom_context": "`True`: `fileobj` is a tar file that holds the build context.",
    "encoding": "It has no effect: the compression of that tar file (none, gzip, bzip2 or xz) is detected.",
    "platform": "One platform, or several separated by commas. If it has no slash, as in `amd64`, the engine's "
    "operating system is added.",
    "timeout": "Seconds without output after which the build is stopped. Progress counters do not count as output. "
    "Without this option a build is never stopped, but after 60 s without output a line shows the running steps.",
    "decode": "`True`: events are dicts. `False`: events are lines of JSON.",
    "use_config_proxy": "Whether the proxies in the docker CLI's configuration become build arguments.",
}
"""Options that are not a row of the table, with their meaning."""

IGNORED = {
    "rm": "BuildKit leaves no intermediate containers.",
    "forcerm": "BuildKit leaves no intermediate containers.",
    "gzip": "It compresses the whole build context. BuildKit transfers only the files that changed.",
}
"""Options that have no effect, with the reason."""

REFUSED = {
    "container_limits": (
        "buildx before 0.35 cannot limit the resources of a build, and engines before Docker 29.6 ignore its limits",
        "Omit it, and limit the builder: `docker buildx create --driver-opt memory=...,cpu-quota=...`.",
    ),
    "squash": ("BuildKit does not squash layers", "Omit it, and use a multi-stage Dockerfile."),
    "isolation": ("BuildKit has no isolation technologies", "Omit it."),
    "push": (
        "Prefect pushes the image of this tag in the Docker Engine after the build, which can be an older image",
        'Omit it, or use build_backend="buildx".',
    ),
}
"""Options that buildx does not support, with the reason and a tip. Empty values and ``isolation="default"`` are
accepted."""

BUILDX_ONLY = frozenset(row.name for row in table.ROWS if row.docker_py is None)
"""Options that docker-py does not have. They have their names in python-on-whales and buildx."""

_ROWS = {row.docker_py or row.name: row for row in table.ROWS}


def wants_buildx(docker_py_options: Mapping[str, Any]) -> bool:
    """Whether these options need buildx, because docker-py's own build does not support them."""
    return (
        any(docker_py_options.get(name) is not None for name in BUILDX_ONLY)
        or bool(cache_entries(docker_py_options.get("cache_from")))
        or "," in str(docker_py_options.get("platform") or "")
    )


def cache_entries(cache_from: object) -> list[Any]:
    """Return the entries of the option ``cache_from`` that only BuildKit understands, such as ``type=registry,...``."""
    sources = cache_from if isinstance(cache_from, (list, tuple)) else [cache_from]
    return [source for source in sources if isinstance(source, Mapping) or "=" in str(source)]


def docker_py_request(docker_py_options: Mapping[str, Any]) -> BuildRequest:
    """Check every option of a docker-py build, and translate it into buildx options.

    Args:
        docker_py_options: docker-py's parameters and those in `BUILDX_ONLY`, by name

    Raises:
        TypeError: as docker-py raises it: neither ``path`` nor ``fileobj`` is set, or ``path`` is not a folder
        OSError: the Dockerfile is outside the context and cannot be read
        OptionError: buildx does not support an option, or its value is wrong
    """
    given = {name: value for name, value in docker_py_options.items() if value is not None}
    _check_as_docker_py(given)
    _refuse(given)
    # docker-py reads the Dockerfile's path relative to the context.
    rows = {name: row for name, row in _ROWS.items() if name in given and row.name != "file"}
    converted = {row.name: row.convert(name, given[name]) for name, row in rows.items()}
    platforms = (*values.platforms("platform", given.get("platform")), *converted.get("platforms", ()))
    idle_timeout = _idle_timeout(given.get("timeout"))
    context = docker_py_context.build_context(
        path=given.get("path"),
        fileobj=given.get("fileobj"),
        dockerfile=given.get("dockerfile"),
        custom_context=given.get("custom_context"),
    )
    if context.is_remote:
        # The classic builder keeps the folder .git of a repository.
        converted["build_args"] = {"BUILDKIT_CONTEXT_KEEP_GIT_DIR": "1", **converted.get("build_args", {})}
    of_several_options = {"context": context.place, "file": context.file, "platforms": tuple(dict.fromkeys(platforms))}
    options = BuildxOptions(**{**converted, **of_several_options})
    names = map(str.lower, given.get("buildargs") or ())
    return BuildRequest(
        options,
        own_defaults(options, docker_py_options),
        context.stdin,
        idle_timeout,
        # docker-py reads None as False for this option.
        config_proxies=bool(docker_py_options.get("use_config_proxy", True)),
        replaced_proxies=frozenset(name for name in names if name.endswith("_proxy")),
        warnings=_warnings(converted.get("cache_from", ())),
    )


def _check_as_docker_py(given: Mapping[str, Any]) -> None:
    if "path" not in given and "fileobj" not in given:
        raise TypeError("Either path or fileobj needs to be provided.")
    if given.get("gzip") and "encoding" in given:
        # The part after the colon is docker-py's message.
        raise OptionError(
            "encoding", "is not supported: Can not use custom encoding if gzip is enabled", given["encoding"]
        )
    tag = given.get("tag")
    if tag is not None and not utils.match_tag(values.string("tag", tag)):
        raise OptionError("tag", f"is not supported: invalid tag {tag!r}: invalid reference format", tag)


def _refuse(given: Mapping[str, Any]) -> None:
    known = {*_ROWS, *SPECIAL, *IGNORED, *REFUSED}
    for name, value in given.items():
        if name not in known:
            raise OptionError(
                name,
                "is not supported by this version of prefect-docker-attest",
                value,
                tip="Run `pip install --upgrade prefect-docker-attest`, or omit the option.",
            )
        wanted = value not in ("", "default") if name == "isolation" else values.switch(name, value)
        if name in REFUSED and wanted:
            reason, tip = REFUSED[name]
            raise OptionError(name, f"is not supported: {reason}", value, tip=tip)


def _idle_timeout(timeout: Any) -> float | None:
    # requests also accepts a pair: seconds to connect, and seconds without data.
    limit = timeout[1] if isinstance(timeout, tuple) else timeout
    if limit is None:
        return None
    if isinstance(limit, bool) or not isinstance(limit, (int, float)) or limit <= 0:
        raise OptionError("timeout", "must be a number of seconds, more than 0", timeout)
    return float(limit)


def _warnings(cache_from: tuple[str, ...]) -> tuple[str, ...]:
    plain = [source for source in cache_from if "=" not in source]
    if not plain:
        return ()
    return (
        f"cache_from={plain} may have no effect: BuildKit reuses layers of an image only if its build wrote a cache, "
        "with cache_to='type=inline' or cache_to='type=registry,ref=...'.",
    )
