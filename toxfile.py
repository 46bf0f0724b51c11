"""Shows what tox does with each environment. scripts/tox runs `tox -q`, which does not show this."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from tox.plugin import impl
from tox.tox_env.runner import RunToxEnv

if TYPE_CHECKING:
    from tox.tox_env.api import ToxEnv

_LONG = 5  # seconds

_began: dict[str, float] = {}


@impl
def tox_on_install(tox_env: ToxEnv, arguments: object, section: str, of_type: str) -> None:  # noqa: ARG001
    """Start the line at the first installation in an environment."""
    if isinstance(tox_env, RunToxEnv) and tox_env.name not in _began:
        _began[tox_env.name] = time.monotonic()
        _show(f"{tox_env.name}: installing packages ... ")


@impl
def tox_before_run_commands(tox_env: ToxEnv) -> None:
    """End the line, and name the programs that run now. The first line of pytest can take half a minute."""
    if tox_env.name in _began:
        seconds = time.monotonic() - _began.pop(tox_env.name)
        _show(f"{seconds:.0f} s\n" if seconds > _LONG else "done\n")
    if programs := dict.fromkeys(command.args[0] for command in tox_env.conf["commands"]):
        _show(f"{tox_env.name}: running {', '.join(programs)}\n")


def _show(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
