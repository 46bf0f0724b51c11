"""The settings files of this process: whether they have changed.

The paths are those of the time when Prefect read the files. So a later change of the current directory is no change of
a file.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self

_State = tuple[int, int] | None
"""The time of the last change and the size of a file; `None` if it does not exist."""


@dataclass(frozen=True)
class FileStates:
    """The settings files of a process at one time.

    Attributes:
        states: the state of each file by its absolute path, in the order of Prefect's sources
    """

    states: Mapping[str, _State]

    @classmethod
    def of_this_process(cls) -> Self:
        """Return the current states of the files that Prefect reads (prefect/settings: sources.py, context.py)."""
        home = os.environ.get("PREFECT_HOME") or "~/.prefect"
        profiles = os.environ.get("PREFECT_PROFILES_PATH") or os.path.join(home, "profiles.toml")
        paths: list[str] = []
        with contextlib.suppress(OSError):  # the current directory was deleted
            for name in (".env", "prefect.toml", "pyproject.toml", os.path.expanduser(profiles)):
                paths.append(os.path.abspath(name))  # noqa: PERF401 those before an error are kept
        return cls({path: _state(path) for path in paths})

    def changed(self) -> list[str]:
        """Return the paths of those files that have changed since."""
        return [path for path, state in self.states.items() if _state(path) != state]


def _state(path: str) -> _State:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
