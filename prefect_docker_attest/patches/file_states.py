"""The settings files of this process: whether they have changed, and what they say now about the setting.

The paths are those of the time when Prefect read the files. So a later change of the current directory is no change of
a file.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect_docker_attest.names import SETTING

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

    def changed(self) -> bool:
        """Whether one of the files has changed since."""
        return any(_state(path) != state for path, state in self.states.items())

    def value_now(self) -> tuple[Any, str]:
        """Return the value of the setting in the first file that has one, and its path; else `None` and ``""``."""
        for path in self.states:
            with contextlib.suppress(Exception):  # the file was removed, or is invalid
                value = _value(Path(path))
                if value is not None:
                    return value, path
        return None, ""


def _state(path: str) -> _State:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _value(path: Path) -> Any:
    text = path.read_text(encoding="utf-8")
    if path.name == ".env":
        from dotenv import dotenv_values

        return dotenv_values(path).get(SETTING)
    document = _parsed(text)
    if path.name == "pyproject.toml":
        document = document.get("tool", {}).get("prefect", {})
    if path.name in ("prefect.toml", "pyproject.toml"):
        return document.get("docker", {}).get("disable_attestations", document.get(SETTING))
    from prefect.context import get_settings_context

    return document.get("profiles", {}).get(get_settings_context().profile.name, {}).get(SETTING)


def _parsed(text: str) -> dict[str, Any]:
    try:
        import tomllib
    except ImportError:  # Python 3.10, where Prefect brings `toml`
        import toml as tomllib  # type: ignore[import-untyped,no-redef]
    document: dict[str, Any] = tomllib.loads(text)
    return document
