"""Finds out what loads this package into a Python: it starts a new process of that Python."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import sysconfig
import time
from dataclasses import dataclass
from typing import Literal, cast

from prefect_docker_attest import startup, subprocesses
from prefect_docker_attest.doctor.check import NoAnswerError, first_line

Way = Literal["start-up file", "import", "not loaded", "not found"]
"""What loads the package when a Python starts: its start-up file, or an import, for example in ``sitecustomize``.
``not loaded``: nothing loads it, but it can be imported. ``not found``: it cannot be imported."""

FIND_WAY = f"""
import importlib.util, sys
if any(getattr(finder, "__name__", "") == {startup.SENTINEL!r} for finder in sys.meta_path):
    way = "start-up file"
elif {startup.__package__!r} in sys.modules:
    way = "import"
else:
    way = "not loaded" if importlib.util.find_spec({startup.__package__!r}) else "not found"
"""
"""The program that finds the `Way`, at the start of a Python."""

# The current directory is removed from sys.path, because the `prefect` command does not import from there.
_PROGRAM = f"import sys; sys.path = list(filter(None, sys.path)){FIND_WAY}print('', sys.prefix, way, sep='\\n')"


class ProbeError(Exception):
    """A Python cannot be started, or fails."""


@dataclass(frozen=True)
class Activation:
    """What loads this package into a Python.

    Attributes:
        prefix: folder of the Python's environment, ``sys.prefix``
        way: what loads the package
    """

    prefix: str
    way: Way


@dataclass(frozen=True)
class PrefectCommand:
    """The command ``prefect`` on ``PATH``.

    Attributes:
        path: path of the command; `None` if it is not on ``PATH``
        activation: what loads this package into its Python; `None` if this Python cannot be found
    """

    path: str | None
    activation: Activation | None


def probe(interpreter: str, limit: int) -> Activation:
    """Start an interpreter, and return what loads this package into it.

    Args:
        interpreter: path of the interpreter
        limit: seconds to wait

    Raises:
        ProbeError: the interpreter cannot be started, or fails
        NoAnswerError: the interpreter needs more time
    """
    end = time.monotonic() + limit
    try:
        answer = subprocesses.run_bounded([interpreter, "-c", _PROGRAM], timeout=limit)
    except OSError as error:
        raise ProbeError(first_line(error)) from error
    if answer.returncode == subprocesses.TIMED_OUT and time.monotonic() >= end:
        raise NoAnswerError(f"`{interpreter} -c pass` took longer than {limit} s")
    lines = answer.stdout.splitlines()
    if answer.returncode != 0 or len(lines) < 2:  # noqa: PLR2004 the prefix and the way
        raise ProbeError(f"{interpreter} fails: {first_line(answer.stderr)}")
    return Activation(lines[-2], cast("Way", lines[-1]))


def find_prefect_command(limit: int) -> PrefectCommand:
    """Return the command ``prefect`` on ``PATH``.

    Args:
        limit: seconds to wait for its Python

    Raises:
        NoAnswerError: its Python needs more time
    """
    command = shutil.which("prefect")
    interpreter = interpreter_of(command) if command else None
    try:
        return PrefectCommand(command, probe(interpreter, limit) if interpreter else None)
    except (ProbeError, ValueError):  # ValueError: a NUL character in the first line
        return PrefectCommand(command, None)


def interpreter_of(script: str) -> str | None:
    """Return the interpreter of a console script; `None` if its first lines do not name one."""
    if os.path.realpath(os.path.dirname(script)) == os.path.realpath(sysconfig.get_path("scripts")):
        return sys.executable
    try:
        with open(script, "rb") as file:
            first, _, rest = file.read(4096).decode(errors="replace").partition("\n")
    except OSError:
        return None
    words = _started_by(first, rest)
    return words[0] if words and "python" in os.path.basename(words[0]) else None


def _started_by(first: str, rest: str) -> list[str]:
    """Return the program that the first line of a script names, with its arguments."""
    words = first.removeprefix("#!").split() if first.startswith("#!") else []
    program = os.path.basename(words[0]) if words else ""
    if program == "env":
        return [shutil.which(words[-1]) or ""]
    if program == "sh" and rest.startswith("'''exec' "):
        # pip writes this form if the path is too long for the first line (its vendored distlib, scripts.py).
        return shlex.split(rest.partition("\n")[0])[1:]
    return words
