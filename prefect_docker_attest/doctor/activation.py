"""Finds out what loads this package into a Python: it starts a new process of that Python."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from typing import Literal, cast

from prefect_docker_attest import startup

Way = Literal["start-up file", "import", "not loaded", "not found"]
"""What loads the package when a Python starts: its start-up file, or an import, for example in ``sitecustomize``.
``not loaded``: nothing loads it, but it can be imported. ``not found``: it cannot be imported."""

# The program removes the current directory from sys.path, because the `prefect` command does not import from there.
_PROGRAM = f"""
import importlib.util, sys
sys.path = [folder for folder in sys.path if folder]
if any(getattr(finder, "__name__", "") == {startup.SENTINEL!r} for finder in sys.meta_path):
    way = "start-up file"
elif {startup.__package__!r} in sys.modules:
    way = "import"
else:
    way = "not loaded" if importlib.util.find_spec({startup.__package__!r}) else "not found"
print("", sys.prefix, way, sep="\\n")
"""


@dataclass(frozen=True)
class Activation:
    """What loads this package into a Python.

    Attributes:
        prefix: folder of the Python's environment, ``sys.prefix``
        way: what loads the package
    """

    prefix: str
    way: Way


def probe(interpreter: str, limit: int) -> Activation:
    """Start an interpreter, and return what loads this package into it.

    Args:
        interpreter: path of the interpreter
        limit: seconds to wait

    Raises:
        OSError: the interpreter cannot be started
        subprocess.SubprocessError: the interpreter fails, or needs more time
    """
    answer = subprocess.run([interpreter, "-c", _PROGRAM], capture_output=True, text=True, timeout=limit, check=True)
    prefix, way = answer.stdout.splitlines()[-2:]
    return Activation(prefix, cast("Way", way))


def loaded_as_plugin() -> bool:
    """Whether Prefect has loaded this package as a plugin. Prefect must have been imported."""
    return f"{startup.__package__}.plugin" in sys.modules
