"""Checks that the files that Prefect reads at its import can be read.

A file that never answers, such as a named pipe, blocks the import of Prefect. It would block the doctor too.
"""

from __future__ import annotations

import os
import threading

_LONGEST_FILE = 16 << 20  # bytes; Prefect would read a longer file completely


class UnansweredError(Exception):
    """A file cannot be read in time, or is too long."""


def check_answers(seconds: float) -> None:
    """Read all files in daemon threads.

    Args:
        seconds: maximum time to wait for each file

    Raises:
        UnansweredError: a file cannot be read in time, or is too long
    """
    troubles: dict[str, str] = dict.fromkeys(paths(), f"cannot be read within {seconds:g} seconds")
    threads = [threading.Thread(target=_try, args=(path, troubles), daemon=True) for path in troubles]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds)
    found = [f"{path} {trouble}" for path, trouble in dict(troubles).items() if trouble]
    if found:
        raise UnansweredError(f"Prefect cannot read a settings file: {'; '.join(found)}")


def paths() -> list[str]:
    """Return the paths of the files for this process (prefect/settings: sources.py, context.py)."""
    home = os.environ.get("PREFECT_HOME") or "~/.prefect"
    profiles = os.environ.get("PREFECT_PROFILES_PATH") or os.path.join(home, "profiles.toml")
    return [".env", "prefect.toml", "pyproject.toml", os.path.expanduser(profiles)]


def _try(path: str, troubles: dict[str, str]) -> None:
    try:
        with open(path, "rb") as file:
            content = file.read(_LONGEST_FILE + 1)
    except OSError:  # the file does not exist, or Prefect reports the error
        content = b""
    troubles[path] = f"is longer than {_LONGEST_FILE >> 20} MiB" if len(content) > _LONGEST_FILE else ""
