"""Makes the error message of a failed build: BuildKit's error lines, then at most three lines of this package.

The lines of this package say what failed, with a last line that starts with ``TIP`` if there is advice.

The message becomes the text of Prefect's ``BuildError``, and Prefect searches that text. Words such as "connection
reset" make it build again (``_is_transient_build_error`` in prefect/utilities/dockerutils.py). The word "denied" makes
it add a hint about ``docker login`` (``_build_error_with_guidance`` in prefect-docker's steps). So the message never
contains output of the build, and the lines of this package never contain these words.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from itertools import pairwise
from typing import TYPE_CHECKING

from prefect_docker_attest.buildx import docker_cli
from prefect_docker_attest.names import logger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prefect_docker_attest.errors import BuildFailed

_PREFECT_READS = re.compile(
    r"502 bad gateway|503 service unavailable|500 internal server error|i/o timeout"
    r"|tls handshake timeout|connection reset|context deadline exceeded|denied",
    re.IGNORECASE,
)
_PROCESS = re.compile(r'process "(?P<command>.*)" did not complete successfully: (?P<how>[^"]*)$')
_EXIT_CODE = re.compile(r"did not complete successfully: exit code: (\d+)")
_STEP = re.compile(r"^ > (?P<step>\[[^\]]*\]) ?(?P<instruction>.*?):?$")
_SEPARATOR = "------"

_CONTAINERD_STORE_URL = "https://docs.docker.com/engine/storage/containerd/"
_USE_CONTAINERD_STORE = (
    f"Use the containerd image store ({_CONTAINERD_STORE_URL}), or a BuildKit builder with Prefect's "
    'build_backend="buildx" and push=True.'
)

# Explanations by a pattern of BuildKit's error: a sentence, which can be empty, and a tip. The first that matches is
# used. The first two sentences are those of the classic builder, which users and scripts know.
_EXPLANATIONS: tuple[tuple[str, str, str], ...] = (
    (
        r"(?:failed to read dockerfile: open|resolve : lstat) \S+: no such file",
        "Cannot locate specified Dockerfile: {dockerfile}",
        "Check the path. It is relative to the build context.",
    ),
    (
        r'failed to (?:compute cache key|calculate checksum)[^\n]*?"(?P<file>[^"]+)": not found',
        "COPY failed: {file} is not in the build context.",
        "Check the path and .dockerignore.",
    ),
    (
        r"no match for platform in manifest|no matching manifest for",
        "The base image has no variant for the platform.",
        "`docker buildx imagetools inspect IMAGE` lists the platforms of the base image.",
    ),
    (
        r"401 Unauthorized|403 Forbidden|insufficient_scope|authorization failed|no basic auth credentials",
        "The registry did not accept the credentials.",
        "Run `docker login REGISTRY`, and build again.",
    ),
    (
        r"failed to resolve source metadata for [^\n]*(?:not found|does not exist|no such host)",
        "",
        "Check the base image's name, tag and registry: `docker buildx imagetools inspect IMAGE`. If only this Docker "
        "Engine has the base image, push it to a registry, or run `docker buildx use default`.",
    ),
    (
        r'exporter "\w+" could not be found',
        "This builder cannot export images: it is part of a Docker Engine with the graphdriver image store.",
        "Use a builder of `docker buildx create`, or an engine with the containerd image store as builder.",
    ),
    (
        r"exporting manifest lists|[Mm]ulti-platform build is not supported",
        "Several platforms need the containerd image store.",
        _USE_CONTAINERD_STORE,
    ),
    (
        r"[Aa]ttestation is not supported",
        "Attestations need the containerd image store.",
        _USE_CONTAINERD_STORE,
    ),
    (
        r"multi-node builds currently not supported",
        "A builder with several nodes cannot load an image for several platforms.",
        'Use Prefect\'s build_backend="buildx" with push=True.',
    ),
    (
        r"[Cc]annot connect to the Docker daemon|error during connect|(?<!Service )Unavailable(?: desc =|:)",
        "",
        "Check that Docker runs: `docker info`. Check DOCKER_HOST and `docker context ls`, which select the engine.",
    ),
    (
        r"no builder \S+ found",
        "",
        "`docker buildx ls` lists the builders. builder=, BUILDX_BUILDER or `docker buildx use` selects one.",
    ),
    (
        r"image \"[^\"]+\": already exists",
        "Another build used the same tag at the same time.",
        "Use a different tag for each build, or run the builds one after another.",
    ),
    (
        r"header list size to send violates the maximum size|grpc: received message larger than max",
        "The .dockerignore is too long for BuildKit.",
        "List folders or patterns in it instead of single files.",
    ),
    (
        r"no space left on device",
        "",
        "`docker system df` shows what uses the disk. `docker buildx prune` deletes the build cache.",
    ),
    (
        r"Cache export is not supported|cache exporter",
        "",
        f"Use the containerd image store ({_CONTAINERD_STORE_URL}), or the cache type=inline, which is stored in the "
        "image.",
    ),
)
_EXEC_FORMAT = (
    "The build ran a program for another processor (exec format error).",
    "Run `docker run --privileged --rm tonistiigi/binfmt --install all`, or use a builder on a machine with that "
    "processor.",
)

TIP = "TIP "
"""How the last line of a message starts if it says what to do."""


def explain(returncode: int, lines: Sequence[str], dockerfile: str, docker: Sequence[str]) -> str:
    """Return the error message of a failed build, or that of an unusable buildx plugin if no build started.

    Args:
        returncode: exit code of the command
        lines: last lines of its output, without their line ends
        dockerfile: path of the Dockerfile on the command line
        docker: the docker CLI that ran the build
    """
    started = any(line.startswith(("#", "ERROR: failed to")) for line in lines)
    return (not started and docker_cli.plugin_error(docker, lines)) or failure_text(returncode, lines, dockerfile)


def failure_text(returncode: int, lines: Sequence[str], dockerfile: str) -> str:
    """Return the error message of a failed ``docker buildx build``.

    Args:
        returncode: exit code of the command; negative for a signal
        lines: last lines of its output, without their line ends
        dockerfile: path of the Dockerfile on the command line
    """
    error = _error_lines(lines)
    # The command helps users, so it is removed only if it contains words that Prefect searches for.
    process = _PROCESS.search(error)
    if process and _PREFECT_READS.search(process["command"]):
        error = f"{error[: process.start()]}process did not complete successfully: {process['how']}"
        process = None
    sentences, tip = [], ""
    if returncode < 0:
        sentences.append(f"`docker buildx build` was killed by signal {-returncode}.")
        tip = "The system may be out of memory: see `dmesg`."
    elif not error:
        sentences.append(f"`docker buildx build` failed without an error message (exit code {returncode}).")
        tip = "It may have been killed. `dmesg` shows whether the system was out of memory."
    step = _failing_step(lines)
    if step or _EXIT_CODE.search(error):
        sentences.append(_step_sentence(step, process["command"] if process else "", error))
    if any(line.endswith("exec format error") for line in lines):
        sentences.append(_EXEC_FORMAT[0])
        tip = tip or _EXEC_FORMAT[1]
    for pattern, sentence, its_tip in _EXPLANATIONS:
        if found := re.search(pattern, error):
            sentences.append(sentence.format(dockerfile=dockerfile, **found.groupdict()))
            tip = tip or its_tip
            break
    return "\n".join(filter(None, [error, *sentences, tip and f"{TIP}{tip}"]))


def _step_sentence(step: str, command: str, error: str) -> str:
    """Name the failed step; with the classic builder's sentence about the command if it ended with an exit code."""
    parts = [f"Failed step: {step}"] if step else []
    if code := _EXIT_CODE.search(error):
        shown = f" '{_unquoted(command)}'" if command else ""
        parts.append(f"The command{shown} returned a non-zero code: {code[1]}")
    return ". ".join(parts)


def _unquoted(command: str) -> str:
    # BuildKit quotes the command as Go does. For most commands, JSON has the same rules.
    try:
        return str(json.loads(f'"{command}"'))
    except ValueError:
        return command


def _error_lines(lines: Sequence[str]) -> str:
    # The output of commands in the build has a step number or a time at the start of each line, never "ERROR: ".
    starts = [number for number, line in enumerate(lines) if line.startswith("ERROR: ")]
    if starts:
        return "\n".join(line for line in lines[starts[-1] :] if not _is_hint_of_docker(line)).strip()
    others = [line.strip() for line in lines if not line.startswith("#") and not _is_hint_of_docker(line)]
    return "\n".join(others[-3:])


def _is_hint_of_docker(line: str) -> bool:
    return not line.strip() or line.startswith(
        ("View build details:", "See 'docker", "Run 'docker", "Usage:", "What's next")
    )


def _failing_step(lines: Sequence[str]) -> str:
    steps = [found for before, line in pairwise(lines) if before == _SEPARATOR and (found := _STEP.match(line))]
    if not steps:
        return ""
    step, instruction = steps[-1]["step"], steps[-1]["instruction"]
    return f"{step} {instruction.split(' ')[0]}" if _PREFECT_READS.search(instruction) else f"{step} {instruction}"


def failed_output(lines: Sequence[str]) -> str:
    """Return the output of the failed step that BuildKit repeats at the end; ``""`` if there is none.

    Args:
        lines: last lines of the build's output, without their line ends
    """
    separators = [number for number, line in enumerate(lines) if line == _SEPARATOR]
    repeated = lines[separators[-2] + 1 : separators[-1]] if len(separators) > 1 else []
    # The first line is the name of the step.
    return "\n".join(repeated) if repeated[1:] else ""


def cannot_start(error: OSError) -> str:
    """Return the error message for a docker command that could not be started."""
    if isinstance(error, FileNotFoundError):
        return (
            f"The `docker` command was not found (PATH={os.environ.get('PATH', '')}).\n"
            "TIP Install the docker CLI and its buildx plugin, then run `docker buildx version`."
        )
    if error.errno == errno.E2BIG:
        return (
            "The command line or a build argument is longer than this system allows (Linux: 128 KiB for one value).\n"
            "TIP Put the value into a file in the build context, or use secrets=['id=NAME,src=FILE']."
        )
    return (
        f"`{shutil.which('docker')} buildx build` cannot be started: {error}.\n"
        "TIP Check the docker CLI with `docker buildx version`."
    )


def no_metadata(error: OSError | ValueError) -> str:
    """Return the error message for a build that succeeded without writing its metadata file."""
    return (
        f"`{shutil.which('docker')} buildx build` ended with exit code 0, but wrote no metadata "
        f"(--metadata-file: {type(error).__name__}).\n"
        "TIP Check with `docker buildx version` that this program is the docker CLI."
    )


def log_output_of(error: BuildFailed) -> None:
    """Log the output of the failed step, because not all callers show the progress of the build."""
    if error.output:
        logger.error("Output of the failed step:\n%s", error.output)
