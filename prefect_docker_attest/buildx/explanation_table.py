"""The table of explanations: what an error of BuildKit or docker means, and what to do. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from prefect_docker_attest.buildx.builder import Builder
    from prefect_docker_attest.buildx.evidence import Evidence

_CONTAINERD_STORE_URL = "https://docs.docker.com/engine/storage/containerd/"
_USE_CONTAINERD_STORE = (
    f"Use the containerd image store ({_CONTAINERD_STORE_URL}), or a BuildKit builder with Prefect's "
    'build_backend="buildx" and push=True.'
)
_CHECK_ENGINE = (
    "Check that Docker runs: `docker info`. Check DOCKER_HOST and `docker context ls`, which select the engine."
)
_CHECK_BASE = "Check the base image's name, tag and registry: `docker buildx imagetools inspect IMAGE`."
_ONLY_HERE = "If only this Docker Engine has the base image, push it to a registry, or run `docker buildx use default`."
_CACHE_ENTRY = "Write for example type=registry,ref=registry.example.com/app:cache."
_SEE_CREDENTIALS = (
    "Check credsStore, credHelpers and auths in docker's config.json, or run `docker login REGISTRY`. Then build again."
)
_SOCKET_NOTE = "The engine's socket refused a request of buildx, which calls POST /grpc and POST /session."
SOCKET_TIP = (
    "If a proxy such as docker-socket-proxy owns the socket, set its variables POST, GRPC, SESSION and IMAGES to 1."
)
_METADATA = r"failed to resolve source metadata for (?P<image>\S+): "
_FRONTEND = rf"^(?:failed with build-arg:BUILDKIT_SYNTAX = \S+: )?{_METADATA}"
_BROKEN = r"(?:EOF|connection reset by peer|broken pipe|i/o timeout|closed network connection)$"
_UNREACHABLE = r"(?:no such host|connection refused|no route to host|network is unreachable|server misbehaving)$"


class Explanation(NamedTuple):
    """An explanation of an error.

    Attributes:
        cause: pattern of `Evidence.cause`, which contains no text of commands
        note: sentence; ``""`` if the error says enough. It can contain groups of the pattern
        tip: what to do
        concerns: the settings that can be the cause
        outside: whether the builder must be outside the engine (`True`) or the engine's own (`False`); `None` for any
        needs: attribute of `Evidence` that must not be empty
    """

    cause: str
    note: str
    tip: str
    concerns: tuple[str, ...] = ()
    outside: bool | None = None
    needs: str = ""


# The first row that matches is used. The first two sentences are those of the classic builder, which users and scripts
# know.
EXPLANATIONS = (
    Explanation(
        r"(?:failed to read dockerfile: open|resolve : lstat) [^\0]*: no such file or directory$",
        "Cannot locate specified Dockerfile: {dockerfile}",
        "Check the path. It is relative to the build context.",
    ),
    Explanation(
        r'failed to (?:compute cache key|calculate checksum)[^\n]*?"(?P<file>[^"]+)": not found$',
        "COPY failed: {file} is not in the build context.",
        "Check the path and .dockerignore.",
    ),
    Explanation(r"^dockerfile parse error", "", ""),
    Explanation(
        r'header key "followpaths" contains value with non-printable ASCII',
        "The name of the Dockerfile, {dockerfile!r}, contains a line end or another character that BuildKit cannot "
        "send.",
        "Rename the file.",
    ),
    Explanation(
        r"no match for platform in manifest|no matching manifest for",
        "The base image has no variant for the platform.",
        "`docker buildx imagetools inspect IMAGE` lists the platforms of the base image.",
        ("platform",),
    ),
    Explanation(
        r"error getting credentials - ",  # docker-credential-helpers, client/client.go
        "docker's credential helper failed.",
        _SEE_CREDENTIALS,
    ),
    Explanation(
        r"",
        "docker's configuration or credential helper gives no usable credentials for {credentials_registry}.",
        _SEE_CREDENTIALS,
        needs="credentials_registry",
    ),
    Explanation(
        rf"^(?:failed to push |.*{_METADATA}).*invalid character .+ looking for beginning of value$",
        "docker's credential helper, or the registry's token server, did not answer with JSON.",
        _SEE_CREDENTIALS,
    ),
    Explanation(
        rf"{_FRONTEND}",
        "{image} is not a base image but the frontend of the Dockerfile, named by {frontend_source}.",
        "Check its name and its registry. Most Dockerfiles do not need a frontend: omit it to use BuildKit's own.",
        needs="frontend",
    ),
    Explanation(
        r"^(?:exit code: \d+|frontend grpc server closed unexpectedly|[^\n]*runc run failed[^\n]*)$",
        "{frontend}, the frontend of the Dockerfile named by {frontend_source}, failed.",
        "Check that it is a frontend, such as docker/dockerfile:1, or omit it to use BuildKit's own.",
        needs="frontend",
    ),
    Explanation(
        r"^(?:failed to dial gRPC: )?unable to upgrade to h2c, received 40[13]$",
        _SOCKET_NOTE,
        SOCKET_TIP,
    ),
    Explanation(r"^Error response from daemon: \s*<html", _SOCKET_NOTE, SOCKET_TIP),
    Explanation(
        rf"{_METADATA}.*{_UNREACHABLE}",
        "The builder cannot reach the registry of {image}.",
        f"{_CHECK_BASE} Check the network of the builder. {_ONLY_HERE}",
        outside=True,
    ),
    Explanation(
        rf"{_METADATA}.*{_UNREACHABLE}",
        "The builder cannot reach the registry of {image}.",
        f"{_CHECK_BASE} Check the network of the builder.",
    ),
    Explanation(
        rf"{_METADATA}.*insufficient_scope",
        "The image does not exist, or the credentials for its registry do not allow reading it.",
        f"{_CHECK_BASE} Run `docker login REGISTRY`.",
    ),
    Explanation(
        rf"(?:{_METADATA}|^failed to push |cache exporter).*(?:request to \S+: 40[13] |no basic auth credentials)",
        "The registry did not accept the credentials.",
        "Run `docker login REGISTRY`, and build again.",
    ),
    Explanation(
        rf"{_METADATA}.*(?:not found|does not exist)",
        "",
        f"{_CHECK_BASE} {_ONLY_HERE}",
        outside=True,
    ),
    Explanation(rf"{_METADATA}.*(?:not found|does not exist)", "", _CHECK_BASE),
    Explanation(
        r'exporter "\w+" could not be found',
        "This builder cannot export images: it is part of a Docker Engine with the graphdriver image store.",
        "Use a builder of `docker buildx create`, or an engine with the containerd image store as builder.",
    ),
    Explanation(
        r"exporting manifest lists|[Mm]ulti-platform build is not supported",
        "Several platforms need the containerd image store.",
        _USE_CONTAINERD_STORE,
    ),
    Explanation(
        r"[Aa]ttestation is not supported",
        "Attestations need the containerd image store.",
        _USE_CONTAINERD_STORE,
    ),
    Explanation(
        r"multi-node builds currently not supported",
        "A builder with several nodes cannot load an image for several platforms.",
        'Use Prefect\'s build_backend="buildx" with push=True.',
    ),
    Explanation(
        # The second is Docker 29's, for a socket that does not exist (moby, client/request.go).
        r"(?:[Cc]annot connect to the Docker daemon|[Ff]ailed to connect to the docker API) at (?P<address>\S+?)"
        r"(?:\.?(?: Is the docker daemon running\?)?$|[;:] )",
        "The docker CLI cannot reach the engine at {address}.",
        _CHECK_ENGINE,
    ),
    Explanation(r"error during connect", "The docker CLI cannot reach the engine.", _CHECK_ENGINE),
    Explanation(
        r"(?<!Service )Unavailable(?: desc =|:)|error reading from server|transport is closing",
        "The connection to the builder broke.",
        "Check the builder with `docker buildx inspect {builder}`, and the network.",
        outside=True,
    ),
    Explanation(
        r"(?<!Service )Unavailable(?: desc =|:)|error reading from server|transport is closing",
        "The connection to the Docker Engine broke.",
        _CHECK_ENGINE,
        outside=False,
    ),
    Explanation(
        r"^no builder \S+ found$",
        "",
        "`docker buildx ls` lists the builders. builder=, BUILDX_BUILDER or `docker buildx use` selects one.",
    ),
    Explanation(
        r"image \"[^\"]+\": already exists",
        "Another build used the same tag at the same time.",
        "Use a different tag for each build, or run the builds one after another.",
    ),
    Explanation(
        r"header list size to send violates the maximum size|grpc: received message larger than max",
        "The .dockerignore is too long for BuildKit.",
        "List folders or patterns in it instead of single files.",
    ),
    Explanation(
        r"error from sender: (?:\S+: )?(?:open|lstat|readlink) (?P<file>[^\n]+): permission",
        "You cannot read {file}, which is in the build context.",
        "Make it readable, or list it in .dockerignore.",
    ),
    Explanation(
        r"no space left on device$",
        "",
        "`docker system df` shows what uses the disk. `docker buildx prune` deletes the build cache.",
    ),
    Explanation(
        r"^(?P<type>\S+) cache exporter requires (?P<field>\w+)",
        "The entry {cache_to} of cache_to has no {field}.",
        _CACHE_ENTRY,
        ("cache_to",),
    ),
    Explanation(
        r"failed to configure (?P<type>\S+) cache exporter: invalid reference format",
        "The ref in the entry {cache_to} of cache_to is not the name of an image.",
        _CACHE_ENTRY,
        ("cache_to",),
    ),
    Explanation(
        r'unknown cache exporter: "?(?P<type>[^"\s]+)',
        "The entry {cache_to} of cache_to has a type that this builder does not know.",
        _CACHE_ENTRY,
        ("cache_to",),
    ),
    Explanation(
        r"Cache export is not supported",
        "",
        f"Use the containerd image store ({_CONTAINERD_STORE_URL}), or the cache type=inline, which is stored in the "
        "image.",
        ("cache_to",),
    ),
    Explanation(
        rf"^failed to push .*(?:{_BROKEN}|{_UNREACHABLE})",
        "",
        "Check the network between the builder and the registry, and build again.",
        ("push_from_builder",),
    ),
    Explanation(r"^failed to push", "", "", ("push_from_builder",)),
    Explanation(r"^panic: ", "docker or its buildx plugin crashed.", ""),
)


def matching_explanation(evidence: Evidence, builder: Builder | None) -> tuple[Explanation, re.Match[str]] | None:
    """Return the first explanation that the evidence supports, with the match of its pattern; `None` if there is none.

    Args:
        evidence: what the output of the build proves
        builder: the builder; `None` if it is not known
    """
    for row in EXPLANATIONS:
        if row.outside is not None and (builder is None or row.outside == builder.is_engine):
            continue
        if row.needs and not getattr(evidence, row.needs):
            continue
        if match := re.search(row.cause, evidence.cause):
            return row, match
    return None
