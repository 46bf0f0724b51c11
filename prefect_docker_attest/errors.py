"""What can go wrong, in words that say what to do next.

Every text here ends up in Prefect's ``BuildError``, whose *whole text* Prefect reads: it rebuilds on
words like "connection reset", and hints at ``docker login`` on "denied" (``_is_transient_build_error`` in
prefect/utilities/dockerutils.py, ``_build_error_with_guidance`` in prefect-docker's steps). So a
text holds BuildKit's own error lines and advice, never what the build printed.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

from prefect.utilities.dockerutils import BuildError

if TYPE_CHECKING:
    from collections.abc import Sequence

MINIMUM_BUILDX = (0, 10, 2)
"""The oldest buildx that heeds ``--provenance=false``: 0.9 lacks the flag, 0.10.0 mishandled it
(docker/buildx, release notes of 0.10.1 and 0.10.2)."""

INSTALL_BUILDX = (
    "Install it (Docker Desktop brings it; Debian and Ubuntu: `apt-get install docker-buildx-plugin` from Docker's "
    "repository, or `docker-buildx` from the distribution's), then check it with `docker buildx version`."
)


NEVER_SHOWN = frozenset(("buildargs", "build_args", "secrets"))
"""Options whose values stand in no message: they may be secrets."""


class OptionError(BuildError, ValueError):
    """A build option that ``docker buildx build`` cannot carry out as docker-py's build would.

    Raised when the build is called, before anything is built. It is a `ValueError`, as a bad value is
    elsewhere in Python, and Prefect's `BuildError`, which callers of Prefect catch.

    Args:
        option: the option's name, as the caller wrote it
        value: what was given, shown in the message unless the option is one of `NEVER_SHOWN`
        reason: why it cannot be, and what to do instead
    """

    def __init__(self, option: str, reason: str, value: object = ...) -> None:
        seen = option if value is ... or option.partition("[")[0] in NEVER_SHOWN else f"{option}={value!r}"
        super().__init__(f"{seen} cannot be built by docker buildx: {reason}")


_PREFECT_READS = re.compile(
    r"502 bad gateway|503 service unavailable|500 internal server error|i/o timeout"
    r"|tls handshake timeout|connection reset|context deadline exceeded|denied",
    re.IGNORECASE,
)
_PROCESS = re.compile(r'process "(?P<command>.*)" did not complete successfully: (?P<how>[^"]*)$')
_STEP = re.compile(r"^ > (?P<step>\[[^\]]*\]) ?(?P<instruction>.*?):?$")
_SEPARATOR = "------"

# What users and scripts know from the classic builder, for what BuildKit says in its place.
_CLASSIC_PHRASES: tuple[tuple[str, str], ...] = (
    (
        r"(?:failed to read dockerfile: open|resolve : lstat) \S+: no such file",
        "Cannot locate specified Dockerfile: {dockerfile}",
    ),
    (
        r'failed to (?:compute cache key|calculate checksum)[^\n]*?"(?P<file>[^"]+)": not found',
        "COPY failed: {file} is not in the build context. Check its name, and .dockerignore.",
    ),
    (
        r"did not complete successfully: exit code: (?P<code>\d+)",
        "The command returned a non-zero code: {code}",
    ),
)

_CONTAINERD_STORE = (
    "the containerd image store (https://docs.docker.com/engine/storage/containerd/), or a BuildKit builder with "
    'Prefect\'s build_backend="buildx" and push=True.'
)

# The first that fits is given.
_ADVICE: tuple[tuple[str, str], ...] = (
    (
        r"no match for platform in manifest|no matching manifest for",
        "The base image has no variant for the platform: `docker buildx imagetools inspect IMAGE` lists those it has.",
    ),
    (
        r"401 Unauthorized|403 Forbidden|insufficient_scope|authorization failed|no basic auth credentials",
        "The registry wants other credentials: `docker login REGISTRY`, then build again.",
    ),
    (
        r"failed to resolve source metadata for [^\n]*(?:not found|does not exist|no such host)",
        "Check the base image's name, tag and registry: `docker buildx imagetools inspect IMAGE`. A builder outside "
        "this Docker Engine (`docker buildx ls`) does not see images that only this engine has: push the base image to "
        "a registry, or build with `docker buildx use default`.",
    ),
    (
        r"exporting manifest lists|[Mm]ulti-platform build is not supported",
        f"Several platforms need {_CONTAINERD_STORE}",
    ),
    (r"[Aa]ttestation is not supported", f"Attestations need {_CONTAINERD_STORE}"),
    (
        r"[Cc]annot connect to the Docker daemon|error during connect|(?<!Service )Unavailable(?: desc =|:)",
        "Check that Docker runs, and that DOCKER_HOST and `docker context ls` name the engine you mean: `docker info`.",
    ),
    (
        r"no builder \S+ found",
        "`docker buildx ls` lists the builders. One is named by builder=, BUILDX_BUILDER or `docker buildx use`.",
    ),
    (r"no space left on device", "`docker system df` shows what takes space, `docker buildx prune` frees the cache."),
)
_EXEC_FORMAT = (
    "The build ran a program for another processor (exec format error). Register an emulator for the platform, as with "
    "`docker run --privileged --rm tonistiigi/binfmt --install all`, or use a builder on such a machine."
)


def failure_text(returncode: int, lines: Sequence[str], dockerfile: str) -> str:
    """What a failed ``docker buildx build`` says, as the text of a `BuildError`.

    Args:
        returncode: the exit code of the command
        lines: the last lines that it printed, without their line ends
        dockerfile: the Dockerfile's path, as the command was given it

    Returns:
        the failing step, BuildKit's error, the classic builder's phrase for it, and what to do where that is known
    """
    error = _error_lines(lines)
    # Only what Prefect would misread is left out: the command tells a user most.
    process = _PROCESS.search(error)
    if process and _PREFECT_READS.search(process["command"]):
        error = f"{error[: process.start()]}process did not complete successfully: {process['how']}"
    text = [error] if error else []
    if returncode < 0 or not error:
        text.append(
            f"`docker buildx build` was ended from outside (exit code {returncode}): something killed it, the system "
            "for want of memory perhaps (`dmesg`)."
        )
    step = _failing_step(lines)
    if step:
        text.append(f"Failed step: {step}")
    text += [
        phrase.format(dockerfile=dockerfile, **found.groupdict())
        for pattern, phrase in _CLASSIC_PHRASES
        if (found := re.search(pattern, error))
    ]
    text += [advice for pattern, advice in _ADVICE if re.search(pattern, error)][:1]
    if any(line.endswith("exec format error") for line in lines):
        text.append(_EXEC_FORMAT)
    return "\n".join(text)


def _error_lines(lines: Sequence[str]) -> str:
    # Output of the build's own commands has a step number or a time before it: no line of it starts with this.
    starts = [number for number, line in enumerate(lines) if line.startswith("ERROR: ")]
    if starts:
        return "\n".join(line for line in lines[starts[-1] :] if not _is_chatter(line)).strip()
    spoken = [line.strip() for line in lines if not line.startswith("#") and not _is_chatter(line)]
    return "\n".join(spoken[-3:])


def _is_chatter(line: str) -> bool:
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
    """What BuildKit repeats of the failing step's output, or ``""``."""
    marks = [number for number, line in enumerate(lines) if line == _SEPARATOR]
    repeated = lines[marks[-2] + 1 : marks[-1]] if len(marks) > 1 else []
    # The first line of it is the step's.
    return "\n".join(repeated) if repeated[1:] else ""


class BuildFailed(BuildError):
    """A build that failed, or whose result is not what was asked for.

    Attributes:
        output: what the failing step printed, as far as BuildKit repeats it; no part of the message
    """

    def __init__(self, message: str, output: str = "") -> None:
        super().__init__(message)
        self.output = output
