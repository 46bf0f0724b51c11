"""What the output of a failed build proves: BuildKit's error, the failed step, and docker's exit code. Pure.

Users write the commands of a build, and these can print anything. So the command of a process is separate from
BuildKit's own words, and the output of a step is never searched for a cause.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self

# Go's %q escapes quotes and line ends.
_PROCESS = re.compile(r'process "(?P<command>(?:[^"\\]|\\.)*)" did not complete successfully: (?P<how>[^\n]*)')
_EXIT_CODE = re.compile(r"exit code: (\d+)")
_STEP = re.compile(r"^ > (?P<name>\[[^\]]*\]) ?(?P<instruction>.*?):?$")
_PREFIXES = re.compile(r"^(ERROR|failed to build|failed to solve|failed to receive status): ")
_UNKNOWN_FLAG = re.compile(r"unknown flag: (--[\w-]+)")
_FRONTEND = re.compile(r"^#\d+ resolve image config for (?:docker-image://)?(\S+)$", re.MULTILINE)
# `sha256:ID`, the first digits of an ID as a name, and BuildKit's refusal of all 64 digits.
_HEXADECIMAL = re.compile(
    r"^(?P<name>sha256:[0-9a-f]{64}|[0-9a-f]{4,63}): failed to resolve source metadata"
    r'|^failed to parse stage name "(?P<id>[0-9a-f]{64})"'
)
_OUTPUT_LINE = re.compile(r"^\d+\.\d+ ")
_CREDENTIALS = re.compile(r"\[auth\] sharing credentials for (?P<registry>\S+)")  # buildkit, session/auth/auth.go
_SEPARATOR = "------"
_HINTS_OF_DOCKER = ("View build details:", "See 'docker", "Run 'docker", "Usage:", "What's next")
_MOST_LINES = 3  # of an error that is not BuildKit's
_RUNC_CODES = (1, 255)  # exit codes of runc if it cannot execute the program of a step


@dataclass(frozen=True)
class Evidence:
    """What is known of a failed build.

    Attributes:
        returncode: exit code of docker; negative for a signal
        error: BuildKit's last error with its following lines, or the last lines that docker printed; ``""`` if none
        process: command of the process that failed in a step, as BuildKit quotes it; ``""`` if no process failed
        exit_code: exit code of that process; `None` if it had none
        cause: the words of `error` that are BuildKit's or docker's own: without prefixes, and without `process`
        step: number of the failed step, such as ``[2/3]``; ``""`` if it is not known
        instruction: instruction of the failed step
        output: output of the failed step, as BuildKit repeats it; ``""`` if there is none
        started: whether buildx started a build; otherwise docker refused the command
        unknown_flags: flags of the command that docker or buildx does not know
        frontend: image that the build used as the frontend of its Dockerfile; ``""`` if it used BuildKit's own
    """

    returncode: int
    error: str
    process: str = ""
    exit_code: int | None = None
    cause: str = ""
    step: str = ""
    instruction: str = ""
    output: str = ""
    started: bool = False
    unknown_flags: tuple[str, ...] = ()
    frontend: str = ""

    @classmethod
    def of_output(cls, returncode: int, lines: Sequence[str]) -> Self:
        """Read the last lines of a build's output, without their line ends."""
        error = _error_lines(lines)
        named = _PROCESS.search(error)
        code = _EXIT_CODE.match(named["how"]) if named else None
        cause = f"{error[: named.start()]}process: {named['how']}" if named else error
        while prefix := _PREFIXES.match(cause):
            cause = cause[prefix.end() :]
        step = _last_step(lines)
        return cls(
            returncode,
            error,
            named["command"] if named else "",
            int(code[1]) if code else None,
            cause,
            step["name"] if step else "",
            step["instruction"] if step else "",
            _repeated_output(lines),
            any(line.startswith(("#", "ERROR: failed to")) for line in lines),
            tuple(_UNKNOWN_FLAG.findall(error)),
            next(iter(_FRONTEND.findall("\n".join(lines))), ""),
        )

    @property
    def hexadecimal_name(self) -> str:
        """The base image that could not be found, if its name has the form of an image ID; else ``""``."""
        match = _HEXADECIMAL.match(self.cause)
        return (match["name"] or match["id"]) if match else ""

    @property
    def credentials_registry(self) -> str:
        """The registry whose credentials buildx could not read on this machine; ``""`` if that is not what failed."""
        match = _CREDENTIALS.fullmatch(f"{self.step} {self.instruction}")
        return match["registry"] if match else ""

    @property
    def is_exec_format_error(self) -> bool:
        """Whether the kernel refused to execute the program of the step.

        runc prints this instead of the program, so it is the only line of the step's output.
        """
        program = self.process.partition(" ")[0]
        printed = [_OUTPUT_LINE.sub("", line) for line in self.output.splitlines()[1:]]
        expected = f"exec {program}: exec format error"
        return self.exit_code in _RUNC_CODES and [line.strip() for line in printed if line.strip()] == [expected]


def _error_lines(lines: Sequence[str]) -> str:
    # The output of commands in the build has a step number or a time at the start of each line, never "ERROR: ".
    starts = [number for number, line in enumerate(lines) if line.startswith("ERROR: ")]
    if starts:
        return "\n".join(line for line in lines[starts[-1] :] if not _is_hint(line)).strip()
    others = [line.strip() for line in lines if not line.startswith("#") and not _is_hint(line)]
    panics = [line for line in others if line.startswith("panic: ")]
    return "\n".join(panics[:1] or others[-_MOST_LINES:])


def _last_step(lines: Sequence[str]) -> re.Match[str] | None:
    steps = [step for before, line in pairwise(lines) if before == _SEPARATOR and (step := _STEP.match(line))]
    return steps[-1] if steps else None


def _is_hint(line: str) -> bool:
    return not line.strip() or line.startswith(_HINTS_OF_DOCKER)


def _repeated_output(lines: Sequence[str]) -> str:
    separators = [number for number, line in enumerate(lines) if line == _SEPARATOR]
    repeated = lines[separators[-2] + 1 : separators[-1]] if len(separators) > 1 else []
    # The first line is the name of the step.
    return "\n".join(repeated) if repeated[1:] else ""
