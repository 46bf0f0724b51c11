"""Explains a failed build: functions that make a `Failure` from evidence, or add to one what can be its cause.

An explanation is chosen from BuildKit's own words, docker's exit code, the builder and the engine. No explanation reads
text that a user wrote, such as the command or the output of a step. If two causes are possible, the tip names both.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from prefect_docker_attest.failures import Failure
from prefect_docker_attest.names import logger, variable

if TYPE_CHECKING:
    from prefect_docker_attest.build_settings import BuildSettings
    from prefect_docker_attest.buildx.builder import Builder
    from prefect_docker_attest.buildx.evidence import Evidence
    from prefect_docker_attest.buildx.target import Target
    from prefect_docker_attest.errors import BuildFailed

_PREFECT_READS = re.compile(
    r"502 bad gateway|503 service unavailable|500 internal server error|i/o timeout"
    r"|tls handshake timeout|connection reset|context deadline exceeded|denied",
    re.IGNORECASE,
)

_CONTAINERD_STORE_URL = "https://docs.docker.com/engine/storage/containerd/"
_USE_CONTAINERD_STORE = (
    f"Use the containerd image store ({_CONTAINERD_STORE_URL}), or a BuildKit builder with Prefect's "
    'build_backend="buildx" and push=True.'
)


class _Explanation(NamedTuple):
    """An explanation of an error.

    Attributes:
        cause: pattern of `Evidence.cause`
        note: sentence; ``""`` if the error says enough. It can contain groups of the pattern
        tip: what to do
        concerns: the settings that can be the cause
    """

    cause: str
    note: str
    tip: str
    concerns: tuple[str, ...] = ()


# The first that matches is used. The first two sentences are those of the classic builder, which users and scripts
# know.
_EXPLANATIONS = (
    _Explanation(
        r"(?:failed to read dockerfile: open|resolve : lstat) \S+: no such file",
        "Cannot locate specified Dockerfile: {dockerfile}",
        "Check the path. It is relative to the build context.",
    ),
    _Explanation(
        r'failed to (?:compute cache key|calculate checksum)[^\n]*?"(?P<file>[^"]+)": not found',
        "COPY failed: {file} is not in the build context.",
        "Check the path and .dockerignore.",
    ),
    _Explanation(
        r"no match for platform in manifest|no matching manifest for",
        "The base image has no variant for the platform.",
        "`docker buildx imagetools inspect IMAGE` lists the platforms of the base image.",
        ("platform",),
    ),
    _Explanation(
        r"401 Unauthorized|403 Forbidden|insufficient_scope|authorization failed|no basic auth credentials",
        "The registry did not accept the credentials.",
        "Run `docker login REGISTRY`, and build again.",
    ),
    _Explanation(
        r"failed to resolve source metadata for [^\n]*(?:not found|does not exist|no such host)",
        "",
        "Check the base image's name, tag and registry: `docker buildx imagetools inspect IMAGE`. If only this Docker "
        "Engine has the base image, push it to a registry, or run `docker buildx use default`.",
    ),
    _Explanation(
        r'exporter "\w+" could not be found',
        "This builder cannot export images: it is part of a Docker Engine with the graphdriver image store.",
        "Use a builder of `docker buildx create`, or an engine with the containerd image store as builder.",
    ),
    _Explanation(
        r"exporting manifest lists|[Mm]ulti-platform build is not supported",
        "Several platforms need the containerd image store.",
        _USE_CONTAINERD_STORE,
    ),
    _Explanation(
        r"[Aa]ttestation is not supported",
        "Attestations need the containerd image store.",
        _USE_CONTAINERD_STORE,
    ),
    _Explanation(
        r"multi-node builds currently not supported",
        "A builder with several nodes cannot load an image for several platforms.",
        'Use Prefect\'s build_backend="buildx" with push=True.',
    ),
    _Explanation(
        r"[Cc]annot connect to the Docker daemon|error during connect|(?<!Service )Unavailable(?: desc =|:)",
        "",
        "Check that Docker runs: `docker info`. Check DOCKER_HOST and `docker context ls`, which select the engine.",
    ),
    _Explanation(
        r"no builder \S+ found",
        "",
        "`docker buildx ls` lists the builders. builder=, BUILDX_BUILDER or `docker buildx use` selects one.",
    ),
    _Explanation(
        r"image \"[^\"]+\": already exists",
        "Another build used the same tag at the same time.",
        "Use a different tag for each build, or run the builds one after another.",
    ),
    _Explanation(
        r"header list size to send violates the maximum size|grpc: received message larger than max",
        "The .dockerignore is too long for BuildKit.",
        "List folders or patterns in it instead of single files.",
    ),
    _Explanation(
        r"no space left on device",
        "",
        "`docker system df` shows what uses the disk. `docker buildx prune` deletes the build cache.",
    ),
    _Explanation(
        r"Cache export is not supported|cache exporter",
        "",
        f"Use the containerd image store ({_CONTAINERD_STORE_URL}), or the cache type=inline, which is stored in the "
        "image.",
        ("cache_to",),
    ),
)
_EXEC_FORMAT = "The build ran a program for another processor (exec format error)."
_EMULATE = (
    "Run `docker run --privileged --rm tonistiigi/binfmt --install all`, or use a builder on a machine with that "
    "processor."
)


def explain(evidence: Evidence, dockerfile: str) -> Failure:
    """Return the failure of a ``docker buildx build``, with an explanation if the evidence is certain.

    Args:
        evidence: what the output of the build proves
        dockerfile: path of the Dockerfile on the command line
    """
    failure = _ended(evidence)
    if evidence.step or evidence.exit_code is not None:
        failure = failure.with_note(_step_sentence(evidence))
    if evidence.is_exec_format_error:
        return replace(failure.with_note(_EXEC_FORMAT, tip=_EMULATE), concerns=("platform",))
    for explanation in _EXPLANATIONS:
        if named := re.search(explanation.cause, evidence.cause):
            note = explanation.note.format(dockerfile=dockerfile, **named.groupdict())
            return replace(failure.with_note(note, tip=explanation.tip), concerns=explanation.concerns)
    if evidence.cause.startswith("failed to push"):
        failure = replace(failure, concerns=("push_from_builder",))
    return failure


def _ended(evidence: Evidence) -> Failure:
    """Return the failure with BuildKit's error, and with how docker ended if that says more."""
    error = evidence.error
    # The command helps users, so it is removed only if it contains words that Prefect searches for.
    if _PREFECT_READS.search(evidence.process):
        error = error.replace(f'process "{evidence.process}"', "process")
    failure = Failure(error, output=evidence.output)
    if evidence.returncode < 0:
        note = f"`docker buildx build` was killed by signal {-evidence.returncode}."
        return failure.with_note(note, tip="The system may be out of memory: see `dmesg`.")
    if not error:
        note = f"`docker buildx build` failed without an error message (exit code {evidence.returncode})."
        return failure.with_note(note, tip="It may have been killed. `dmesg` shows whether the system was out of memory.")
    return failure


def _step_sentence(evidence: Evidence) -> str:
    """Name the failed step; with the classic builder's sentence about the command if it ended with an exit code."""
    parts = []
    if evidence.step:
        instruction = evidence.instruction
        if _PREFECT_READS.search(instruction):
            instruction = instruction.split(" ")[0]
        parts.append(f"Failed step: {evidence.step} {instruction}")
    if evidence.exit_code is not None:
        shown = "" if _PREFECT_READS.search(evidence.process) else f" '{_unquoted(evidence.process)}'"
        parts.append(f"The command{shown} returned a non-zero code: {evidence.exit_code}")
    return ". ".join(parts)


def _unquoted(command: str) -> str:
    # BuildKit quotes the command as Go does. For most commands, JSON has the same rules.
    try:
        return str(json.loads(f'"{command}"'))
    except ValueError:
        return command


def naming_builder(failure: Failure, builder: Builder | None) -> Failure:
    """Add the builder to a failure, unless it is the engine's own, or is not known."""
    if builder is None or builder.is_engine:
        return failure
    note = f"The builder {builder.name} (driver {builder.driver}) is outside this Docker Engine."
    return failure.with_note(note, tip=f"Check the builder with `docker buildx inspect {builder.name}`.")


# What a failure that concerns a setting says about it.
_ORIGINS = {
    "platform": "The platform {value} comes from {variable}.",
    "media_types": "The media types come from {variable}={value}.",
    "cache_to": "The cache comes from {variable}.",
    "push_from_builder": "The builder pushes the image itself, because {variable} is on. It must be able to reach the "
    "registry.",
}


def naming_settings(failure: Failure, settings: BuildSettings) -> Failure:
    """Add to a failure the settings that can be its cause.

    Args:
        failure: why the build failed
        settings: the settings that the build uses
    """
    return failure.with_note(
        *(
            _ORIGINS[name].format(variable=variable(name), value=getattr(settings, name))
            for name in failure.concerns
            if name in settings.defaults
        )
    )


def naming_engine(failure: Failure, target: Target) -> Failure:
    """Add to a failure that the engine is Podman, with a tip for it. If the engine does not answer, add nothing."""
    try:
        podman = target.podman
    except Exception:  # docker-py raises different ones; the error of the build is more important
        return failure
    if not podman:
        return failure
    note = f"The engine is Podman {podman}. It has no BuildKit, so buildx runs the image moby/buildkit there."
    tip = "Set DOCKER_HOST to a Docker Engine, or select a builder outside Podman with `docker buildx use`."
    return replace(failure.with_note(note), tip=tip)


def cannot_start(error: OSError) -> Failure:
    """Return the failure of a docker command that could not be started."""
    if isinstance(error, FileNotFoundError):
        return Failure(
            notes=(f"The `docker` command was not found (PATH={os.environ.get('PATH', '')}).",),
            tip="Install the docker CLI and its buildx plugin, then run `docker buildx version`.",
        )
    if error.errno == errno.E2BIG:
        return Failure(
            notes=(
                "The command line or a build argument is longer than this system allows (Linux: 128 KiB for one "
                "value).",
            ),
            tip="Put the value into a file in the build context, or use secrets=['id=NAME,src=FILE'].",
        )
    return Failure(
        notes=(f"`{shutil.which('docker')} buildx build` cannot be started: {error}.",),
        tip="Check the docker CLI with `docker buildx version`.",
    )


def no_metadata(error: OSError | ValueError) -> Failure:
    """Return the failure of a build that succeeded without writing its metadata file."""
    return Failure(
        notes=(
            f"`{shutil.which('docker')} buildx build` ended with exit code 0, but wrote no metadata "
            f"(--metadata-file: {type(error).__name__}).",
        ),
        tip="Check with `docker buildx version` that this program is the docker CLI.",
    )


def log_output_of(error: BuildFailed) -> None:
    """Log the output of the failed step, because not all callers show the progress of the build."""
    if error.output:
        logger.error("Output of the failed step:\n%s", error.output)
