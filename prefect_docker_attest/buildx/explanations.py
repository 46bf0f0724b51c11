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
from typing import TYPE_CHECKING

from prefect_docker_attest.buildx.explanation_table import SOCKET_TIP, matching_explanation
from prefect_docker_attest.failures import Failure
from prefect_docker_attest.names import logger, variable
from prefect_docker_attest.options.encodings import is_utf16

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prefect_docker_attest.build_settings import BuildSettings
    from prefect_docker_attest.buildx.builder import Builder
    from prefect_docker_attest.buildx.evidence import Evidence
    from prefect_docker_attest.buildx.target import Target
    from prefect_docker_attest.errors import BuildFailed
    from prefect_docker_attest.options.table import BuildxOptions

_PREFECT_READS = re.compile(
    r"502 bad gateway|503 service unavailable|500 internal server error|i/o timeout"
    r"|tls handshake timeout|connection reset|context deadline exceeded|denied",
    re.IGNORECASE,
)

_START = 4096  # bytes of a Dockerfile that show its encoding

_EXEC_FORMAT = "The build ran a program for another processor (exec format error)."
_EMULATE = (
    "Run `docker run --privileged --rm tonistiigi/binfmt --install all`, or use a builder on a machine with that "
    "processor."
)


def explain(evidence: Evidence, options: BuildxOptions, builder: Builder | None, *, named_id: str = "") -> Failure:
    """Return the failure of a ``docker buildx build``, with an explanation if the evidence is certain.

    Args:
        evidence: what the output of the build proves
        options: options of the build
        builder: the builder; `None` if it is not known
        named_id: the ID of an image of the engine that the Dockerfile names as a base image (see `named_image_id`)
    """
    failure = _ended(evidence)
    if evidence.step or evidence.exit_code is not None:
        failure = failure.with_note(_step_sentence(evidence))
    if evidence.is_exec_format_error:
        return replace(failure.with_note(_EXEC_FORMAT, tip=_EMULATE), concerns=("platform",))
    if encoding := _encoding(options, evidence):
        return failure.with_note(encoding, tip="Save it as UTF-8. In PowerShell: `Set-Content -Encoding utf8`.")
    if named_id:
        return failure.with_note(
            f"{named_id} is the ID of an image in the Docker Engine. BuildKit takes names of images, not IDs.",
            tip=f"Run `docker tag {named_id} NAME`, and write NAME in the Dockerfile.",
        )
    explained = matching_explanation(evidence, builder)
    if explained is None:
        return failure
    row, match = explained
    named = match.groupdict()
    values = {
        **named,
        "dockerfile": options.file or "Dockerfile",
        "frontend": evidence.frontend,
        "frontend_source": _frontend_source(options),
        "builder": builder.name if builder else "",
        "credentials_registry": evidence.credentials_registry,
        "cache_to": _shown_entry(options.cache_to, named.get("type", "")),
    }
    failure = failure.with_note(row.note.format(**values), tip=row.tip.format(**values))
    return replace(failure, concerns=row.concerns)


def _frontend_source(options: BuildxOptions) -> str:
    by_argument = "BUILDKIT_SYNTAX" in options.build_args
    return "the build argument BUILDKIT_SYNTAX" if by_argument else "its line `syntax=`"


def _shown_entry(entries: Sequence[str], wrong_type: str) -> str:
    """Return the cache entry of this type, without the attributes that can be credentials."""
    for entry in entries:
        parts = [part.strip() for part in entry.split(",")]
        if f"type={wrong_type}" in parts or len(entries) == 1:
            shown = ",".join(part for part in parts if part.partition("=")[0] in ("type", "ref", "dest", "mode"))
            return re.sub(r"[^,=/]*@(?!sha\d+:)", "***@", shown)
    return f"type={wrong_type}"


def _encoding(options: BuildxOptions, evidence: Evidence) -> str:
    """Return a sentence about the Dockerfile if it is in UTF-16, as PowerShell's ``>`` writes it; else ``""``."""
    path = options.local_dockerfile
    if evidence.process or path is None:
        return ""
    try:
        with open(path, "rb") as file:
            start = file.read(_START)
    except (OSError, ValueError):
        return ""
    return f"{path} is in UTF-16, but BuildKit reads UTF-8." if is_utf16(start) else ""


def named_image_id(evidence: Evidence, target: Target) -> str:
    """Return the image ID that the Dockerfile names as a base image, if the engine has that image; else ``""``.

    A name of 12 hexadecimal digits can also be a repository.
    """
    image = evidence.hexadecimal_name
    try:
        known = target.image_id(image) if image else None
    except Exception:  # docker-py raises different ones; the error of the build is more important
        return ""
    return image if known and known.removeprefix("sha256:").startswith(image.removeprefix("sha256:")) else ""


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
        return failure.with_note(
            note, tip="It may have been killed. `dmesg` shows whether the system was out of memory."
        )
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
    if not builder.is_substitute:
        note = f"The builder {builder.name} (driver {builder.driver}) is outside this Docker Engine."
        return failure.continued(note, tip=f"Check the builder with `docker buildx inspect {builder.name}`.")
    note = (
        f"buildx gets no BuildKit from the engine's socket, so it starts one in a container (driver {builder.driver})."
    )
    return failure.with_note(note, tip=SOCKET_TIP)


# What a failure that concerns a setting says about it.
_ORIGINS = {
    "platform": "The platform {value} comes from {variable}.",
    "media_types": "The media types come from {variable}={value}.",
    "cache_to": "The cache comes from {variable}.",
    "push_from_builder": "The builder pushes the image itself, because {variable} is on. It must be able to reach the "
    "registry.",
}

_OF_THE_IMAGE = ("platform", "media_types")  # a sentence about these continues the line about the image


def naming_settings(failure: Failure, settings: BuildSettings) -> Failure:
    """Add to a failure the settings that can be its cause.

    Args:
        failure: why the build failed
        settings: the settings that the build uses
    """
    for name in failure.concerns:
        if name in settings.defaults:
            origin = _ORIGINS[name].format(variable=variable(name), value=getattr(settings, name))
            failure = failure.continued(origin) if name in _OF_THE_IMAGE else failure.with_note(origin)
    return failure


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
