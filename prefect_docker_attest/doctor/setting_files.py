"""Checks that the files that Prefect reads at its import can be read.

A file that never answers, such as a named pipe, blocks the import of Prefect. It would block the doctor too.
"""

from __future__ import annotations

import os

_LONGEST_FILE = 16 << 20  # bytes; Prefect would read a longer file completely


class UnreadableError(Exception):
    """Prefect cannot read a settings file. The text names the file."""


def check_file(path: str) -> None:
    """Read a settings file. If it never answers, this never returns.

    Raises:
        UnreadableError: the file is too long
    """
    try:
        with open(path, "rb") as file:
            content = file.read(_LONGEST_FILE + 1)
    except OSError:  # the file does not exist, or Prefect reports the error
        return
    if len(content) > _LONGEST_FILE:
        raise UnreadableError(f"{path} is longer than {_LONGEST_FILE >> 20} MiB")


def setting_files() -> list[str]:
    """Return the paths of the files for this process (prefect/settings: sources.py, context.py)."""
    home = os.environ.get("PREFECT_HOME") or "~/.prefect"
    profiles = os.environ.get("PREFECT_PROFILES_PATH") or os.path.join(home, "profiles.toml")
    return [".env", "prefect.toml", "pyproject.toml", os.path.expanduser(profiles)]
