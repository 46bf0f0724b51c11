"""docker-py's ``APIClient.build``, done by ``docker buildx build``: its options in, its events out."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from docker import DockerClient
from docker import errors as docker_errors

from prefect_docker_attest import buildx, docker_py_options, errors, manifest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping

    from docker import APIClient

Event = dict[str, Any]
"""One event of docker-py's stream: ``stream``, ``aux`` or ``error``."""


def build(api: APIClient, given: Mapping[str, Any], *, attestations: bool) -> Generator[Event | bytes, None, None]:
    """Build an image in the engine that `api` talks to.

    Args:
        api: docker-py's low-level client
        given: docker-py's parameters of ``build`` and those of `docker_py_options.BUILDX_ONLY`, by name
        attestations: ``False`` builds without any, whatever the image asks for

    Returns:
        docker-py's events, as they come: dicts with ``decode``, else JSON lines. A failed build ends with an ``error``.

    Raises:
        TypeError, OptionError: an option is wrong, or cannot be carried out; nothing is built
    """
    call = docker_py_options.read(given)
    for warning in call.warnings:
        buildx.logger.warning("%s", warning)
    if call.options.annotations and not _keeps_manifests(api):
        raise errors.OptionError(
            "annotations",
            "the image store of this Docker Engine has no place for them, and they would be lost. Use the containerd "
            "image store (https://docs.docker.com/engine/storage/containerd/)",
        )
    call = _with_proxies(api, call, given.get("buildargs") or ())
    options = replace(call.options, platforms=tuple(_full_platform(api, one) for one in call.options.platforms))
    if not attestations:
        options = buildx.without_attestations(options)
    events = _events(api, replace(call, options=options), attestations=attestations)
    return events if call.decode else _as_json_lines(events)


def cli() -> list[str]:
    """The docker CLI, talking to the engine that docker-py's ``from_env`` finds.

    docker-py before 7.2 follows ``DOCKER_HOST`` and the default socket, yet not the CLI's current context;
    the context ``default`` is just that. With 7.2 both follow the context (docker-py, docker/client.py, ``from_env``).
    """
    return ["docker"] if hasattr(DockerClient, "from_context") else ["docker", "--context", "default"]


def _with_proxies(
    api: APIClient, call: docker_py_options.DockerPyBuild, names: Iterable[str]
) -> docker_py_options.DockerPyBuild:
    """Where a call names a proxy, merge the configured ones as docker-py does: its own value wins, ``None`` too.

    The docker CLI looks for the same letter case alone, and BuildKit, which heeds none, takes the configured one.
    """
    named = {name.lower() for name in names if name.lower().endswith("_proxy")}
    if not (named and call.config_proxies):
        return call
    configured: dict[str, str] = api._proxy_configs.get_environment()  # type: ignore[attr-defined]  # noqa: SLF001
    others = {name: value for name, value in configured.items() if name.lower() not in named}
    options = replace(call.options, build_args={**others, **call.options.build_args})
    return replace(call, options=options, config_proxies=False)


def _keeps_manifests(api: APIClient) -> bool:
    # A graphdriver image store keeps an image's config and layers, and makes a manifest up at each push.
    return ["driver-type", "io.containerd.snapshotter.v1"] in (api.info().get("DriverStatus") or [])


def _full_platform(api: APIClient, platform: str) -> str:
    # `amd64` is what prefect-docker's own documentation writes. The engine would take it for its own
    # operating system's, buildx takes it for that of the machine it runs on: darwin/amd64 on a Mac.
    if "/" in platform:
        return platform
    engine = api.version()
    if platform.lower() in ("linux", "windows", "darwin", "freebsd"):
        return f"{platform}/{engine['Arch']}"
    return f"{engine['Os']}/{platform}"


def _events(
    api: APIClient, call: docker_py_options.DockerPyBuild, *, attestations: bool
) -> Generator[Event, None, None]:
    options = call.options
    build = buildx.Build(
        options,
        attestations=attestations,
        docker=cli(),
        stdin=call.stdin,
        silence_limit=call.silence_limit,
        config_proxies=call.config_proxies,
    )
    try:
        with call.stdin or contextlib.nullcontext(), contextlib.closing(build.output()) as lines:
            for line in lines:
                if not options.quiet:  # what it prints then is an id that the engine may not have
                    yield {"stream": line}
        image_id = _image_in_engine(api, build.metadata)
        if options.multi_platform and not attestations:
            _check_index(api, image_id)
    except errors.BuildFailed as failure:
        buildx.log_output_of(failure)
        message = f"{failure}{_podman(api)}"
        yield {"errorDetail": {"message": message}, "error": message}
        return
    yield {"aux": {"ID": image_id}}
    if options.quiet:
        yield {"stream": f"{image_id}\n"}
        return
    # What `client.images.build` of docker-py and Prefect's own tests look for.
    yield {"stream": f"Successfully built {image_id.removeprefix('sha256:')[:12]}\n"}
    for tag in options.tags:
        yield {"stream": f"Successfully tagged {tag}\n"}


def _as_json_lines(events: Generator[Event, None, None]) -> Generator[bytes, None, None]:
    with contextlib.closing(events):
        for event in events:
            yield json.dumps(event).encode() + b"\r\n"


def _image_in_engine(api: APIClient, metadata: buildx.Metadata) -> str:
    """The image's id: whichever digest of the metadata this engine holds.

    That is the config's with the graphdriver image store, the manifest's or index's with the containerd image store.
    And it tells that the image is here: a builder may have left it elsewhere, and a tag may be an older image's.
    """
    digests = manifest.image_ids(metadata)
    for digest in digests:
        with contextlib.suppress(docker_errors.NotFound):
            image: dict[str, Any] = api.inspect_image(digest)  # type: ignore[no-untyped-call]
            return str(image["Id"])
    raise errors.BuildFailed(buildx.image_is_elsewhere(cli(), f"docker-py's client ({_address(api)})", digests))


def _check_index(api: APIClient, image_id: str) -> None:
    """Fail for attestations in an index, where the engine lists its manifests (API 1.48: Docker 28)."""
    url = api._url("/images/{0}/json", image_id)  # type: ignore[attr-defined]  # noqa: SLF001
    answer: Any = api._get(url, params={"manifests": 1})  # type: ignore[attr-defined]  # noqa: SLF001
    if any(each["Kind"] == "attestation" for each in answer.json().get("Manifests") or ()):
        raise errors.BuildFailed(
            f"The image was built with attestations, although they are off. {errors.INSTALL_BUILDX}"
        )


def _address(api: APIClient) -> str:
    # To docker-py a socket's address is http+docker://localhost, which tells a user nothing.
    socket = getattr(getattr(api, "_custom_adapter", None), "socket_path", None)
    return f"unix://{socket}" if socket else str(api.base_url)


def _podman(api: APIClient) -> str:
    """A sentence to add where the engine is Podman, whose socket serves docker-py but not BuildKit; else nothing."""
    try:
        components = [component.get("Name", "") for component in api.version().get("Components") or ()]
    except Exception:
        return ""
    if not any("Podman" in name for name in components):
        return ""
    return (
        f"\nThe engine at {_address(api)} is Podman. It has no BuildKit, so buildx starts one in a container there "
        "(image moby/buildkit). Where that fails, let DOCKER_HOST or `docker context use` name a Docker Engine, or "
        "`docker buildx use` a builder elsewhere."
    )
