"""Runs ``docker buildx build`` in place of docker-py's ``APIClient.build``, with the same options and events."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from docker import utils

from prefect_docker_attest.buildx import causes, docker_cli, failure, from_builder, result, run
from prefect_docker_attest.buildx.base_images import BaseImages
from prefect_docker_attest.buildx.engine import address, is_podman, uses_containerd_store
from prefect_docker_attest.errors import BuildFailed, OptionError
from prefect_docker_attest.names import logger
from prefect_docker_attest.options import default_values
from prefect_docker_attest.options import docker_py as docker_py_options

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping, Sequence

    from docker import APIClient

    from prefect_docker_attest.buildx.result import Metadata
    from prefect_docker_attest.options.defaults import Defaults
    from prefect_docker_attest.options.table import BuildxOptions

Event = dict[str, Any]
"""One event of docker-py's build output. Its key is ``stream``, ``aux`` or ``error``."""


def build(
    api: APIClient,
    given: Mapping[str, Any],
    *,
    disable_attestations: bool,
    defaults: Defaults,
    image: str = "",
    returns_image: bool = False,
) -> Generator[Event | bytes, None, bool]:
    """Build an image in the engine of a docker-py client.

    Args:
        api: docker-py's low-level client
        given: parameters of docker-py's ``build`` and those in `docker_py_options.BUILDX_ONLY`, by name
        disable_attestations: build without attestations, whatever the image requests
        defaults: settings for options that the image does not set
        image: name that the caller will give an untagged image
        returns_image: whether docker-py's ``client.images.build`` returns the image

    Returns:
        docker-py's events during the build: dicts if ``decode`` is set, else lines of JSON. The last event of a failed
        build has the key ``error``. The generator returns `True`, unless it is closed before its end.

    Raises:
        TypeError: as docker-py raises it: neither ``path`` nor ``fileobj`` is set, or ``path`` is not a folder
        OSError: the Dockerfile is outside the context and cannot be read
        OptionError: buildx does not support an option, or the value of an option or setting is wrong
        docker.errors.DockerException: the engine does not answer
    """
    call = docker_py_options.read(given)
    for warning in call.warnings:
        logger.warning("%s", warning)
    pushes = bool(defaults.push_from_builder) and _builder_pushes(call.options, returns_image=returns_image)
    if call.options.annotations and not pushes and not uses_containerd_store(api.info()):
        raise OptionError(
            "annotations",
            "is not supported: the image store of this Docker Engine does not store annotations",
            tip="Use the containerd image store (https://docs.docker.com/engine/storage/containerd/).",
        )
    call = _with_proxies(api, call, given.get("buildargs") or ())
    defaults = defaults.without(default_values.named(call.options, given))
    options = replace(call.options, platforms=tuple(_full_platform(api, one) for one in call.options.platforms))
    options = default_values.apply(defaults, options, image, lambda: "{Os}/{Arch}".format(**api.version()))
    if disable_attestations:
        options = run.without_attestations(options)
    if options.media_types == "oci" and not pushes and not uses_containerd_store(api.info()):
        raise default_values.oci_refused(defaults.origin("media_types"))
    if pushes:
        options = replace(options, pushed_to=utils.parse_repository_tag(options.tags[0])[0])
    call = replace(call, options=options)
    events = _events(api, call, defaults, disable_attestations=disable_attestations)
    return events if call.decode else _as_json_lines(events)


def _builder_pushes(options: BuildxOptions, *, returns_image: bool) -> bool:
    reason = from_builder.reason_to_load(options, docker_cli.docker_command(), returns_image=returns_image)
    if reason:
        logger.debug("%s: the image is loaded into the engine, because %s", from_builder.VARIABLE, reason)
    return not reason


def _with_proxies(
    api: APIClient, call: docker_py_options.DockerPyBuild, names: Iterable[str]
) -> docker_py_options.DockerPyBuild:
    """Merge the configured proxies as docker-py does if the build arguments contain a proxy.

    In docker-py a build argument replaces the configured proxy, even if its value is `None` or the case of its name is
    different. The docker CLI compares names with their case, so BuildKit would use the configured proxy.
    """
    named = {name.lower() for name in names if name.lower().endswith("_proxy")}
    if not (named and call.config_proxies):
        return call
    configured: dict[str, str] = api._proxy_configs.get_environment()  # type: ignore[attr-defined]  # noqa: SLF001
    others = {name: value for name, value in configured.items() if name.lower() not in named}
    options = replace(call.options, build_args={**others, **call.options.build_args})
    return replace(call, options=options, config_proxies=False)


def _full_platform(api: APIClient, platform: str) -> str:
    # prefect-docker's documentation uses `amd64`. The engine adds its own operating system. buildx adds that of the
    # machine it runs on, such as darwin/amd64 on a Mac.
    if "/" in platform or platform == "local":  # buildx's name for the platform of the builder
        return platform
    engine = api.version()
    if platform.lower() in ("linux", "windows", "darwin", "freebsd"):
        return f"{platform}/{engine['Arch']}"
    return f"{engine['Os']}/{platform}"


def _events(
    api: APIClient, call: docker_py_options.DockerPyBuild, defaults: Defaults, *, disable_attestations: bool
) -> Generator[Event, None, bool]:
    options, docker = call.options, docker_cli.docker_command()
    base_images = BaseImages(api, options)
    try:
        replaced = result.inspect_by_docker_py(api, options.tags[0]) if options.pushed_to else None
        with (
            causes.naming_settings(defaults),
            call.stdin or contextlib.nullcontext(),
            run.start(
                options,
                disable_attestations=disable_attestations,
                docker=docker,
                stdin=call.stdin,
                idle_timeout=call.idle_timeout,
                config_proxies=call.config_proxies,
            ) as build,
        ):
            for line in build.lines():
                base_images.read(line)
                if not options.quiet:  # with quiet, buildx prints an id that can be wrong
                    yield {"stream": line}
            metadata = build.finish()
        if options.pushed_to:
            image_id, closing = _pushed(api, options, metadata, replaced, disable_attestations=disable_attestations)
        else:
            image_id, closing = _loaded(api, options, metadata, docker, disable_attestations=disable_attestations)
    except BuildFailed as error:
        failure.log_output_of(error)
        message = _podman_hint(api, str(error))
        yield {"errorDetail": {"message": message}, "error": message}
        return True
    for warning in base_images.warnings():
        logger.warning("%s", warning)
        if not options.quiet:
            yield {"stream": f"WARNING: {warning}\n"}
    yield {"aux": {"ID": image_id}}
    if options.quiet:
        yield {"stream": f"{image_id}\n"}
        return True
    # docker-py's `client.images.build` and Prefect's own tests search for this sentence.
    yield {"stream": f"Successfully built {image_id.removeprefix('sha256:')[:12]}\n"}
    for line in closing:
        yield {"stream": f"{line}\n"}
    return True


def _loaded(
    api: APIClient, options: BuildxOptions, metadata: Metadata, docker: Sequence[str], *, disable_attestations: bool
) -> tuple[str, list[str]]:
    """Return the id of an image in the engine, and the last lines of the output."""
    engine = f"the Docker Engine at {address(api)}"
    inspect = partial(result.inspect_by_docker_py, api)
    image_id = result.image_id(metadata, options, inspect, engine=engine, docker=docker)
    for tag in options.tags:
        from_builder.forget(api, tag)
    if options.multi_platform and disable_attestations:
        result.check_index_in_engine(api, image_id)
    return image_id, [f"Successfully tagged {tag}" for tag in options.tags]


def _pushed(
    api: APIClient, options: BuildxOptions, metadata: Metadata, replaced: str | None, *, disable_attestations: bool
) -> tuple[str, list[str]]:
    """Return the digest of an image that its builder has pushed, and the last lines of the output."""
    if not metadata.get("containerimage.digest"):
        raise BuildFailed(
            f"The builder pushed the image to {options.pushed_to}, but did not report its digest.\n"
            f"TIP Set {from_builder.VARIABLE}=false to load images into the engine."
        )
    if options.multi_platform and disable_attestations:
        result.check_index_in_registry(options.pushed_to, metadata)
    image = from_builder.remember(api, options.tags[0], metadata, replaced)
    return image.digest, [f"Its builder pushed {image}. The tag {image.name.tag} moves to it with the push."]


def _as_json_lines(events: Generator[Event, None, bool]) -> Generator[bytes, None, bool]:
    with contextlib.closing(events):
        for event in events:
            yield json.dumps(event).encode() + b"\r\n"
    return True


def _podman_hint(api: APIClient, message: str) -> str:
    """Return an error message with a hint if the engine is Podman."""
    try:
        if not is_podman(api.version()):
            return message
    except Exception:  # the engine does not answer: keep the error of the build
        return message
    return causes.with_other_tip(
        message,
        f"The engine at {address(api)} is Podman. It has no BuildKit, so buildx runs the image moby/buildkit there.",
        "Set DOCKER_HOST to a Docker Engine, or select a builder outside Podman with `docker buildx use`.",
    )
