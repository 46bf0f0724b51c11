"""A build that sleeps, and functions that find its processes and files on this machine."""

from __future__ import annotations

import random
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psutil

from support.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

_MARK = "PREFECT_DOCKER_ATTEST_TESTED"


class SlowBuild:
    """A build that sleeps, and its processes and files on this machine."""

    def __init__(self, folder: Path) -> None:
        self.mark = f"{_MARK}={uuid4()}"
        self.seconds = str(random.randrange(10**6, 10**7))
        self.context = folder / "context"
        # The name is unique, because `guards` searches all command lines of the machine for it.
        self.temporary = folder / uuid4().hex[:8]
        self.context.mkdir()
        self.temporary.mkdir()
        self.write_step(f"sleep {self.seconds}")

    def write_step(self, command: str) -> None:
        """Set the command of the build's step. The step first prints that it is asleep."""
        from support.names import BUSYBOX

        (self.context / "Dockerfile").write_text(f"FROM {BUSYBOX}\nRUN echo asleep at last; {command}\n")

    def processes(self) -> list[psutil.Process]:
        """Return the docker CLI, its plugin and all other processes with their environment, including zombies."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if self.mark.encode() in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0"):
                    found.append(process)
        for child in psutil.Process().children():
            with suppress(psutil.Error):
                if child.status() == psutil.STATUS_ZOMBIE and child.name() == "docker":
                    found.append(child)
        return found

    def docker(self) -> list[psutil.Process]:
        """Return the docker CLI and its plugin."""
        return [process for process in self.processes() if _name(process).startswith("docker")]

    def guards(self) -> list[psutil.Process]:
        """Return the shells that would remove the build's temporary folder."""
        return [process for process in _with_argument(str(self.temporary)) if _name(process) == "sh"]

    def leftovers(self) -> list[Path]:
        """Return the temporary folders of builds."""
        return list(self.temporary.glob("prefect-docker-attest-*"))

    def works(self) -> bool:
        """Whether the engine runs the command of the step. Its processes are visible on this machine."""
        return bool(self.steps())

    def steps(self) -> list[psutil.Process]:
        """Return the processes of the step's command."""
        return _with_argument(self.seconds)

    @property
    def variables(self) -> dict[str, str]:
        """The variables that the environment of a caller must have."""
        name, _, value = self.mark.partition("=")
        return {name: value, "TMPDIR": str(self.temporary)}

    def is_asleep(self, line: str) -> bool:
        return line.endswith(" asleep at last\n")

    def events(self, client: Any, **options: Any) -> Iterator[Any]:
        events: Iterator[Any] = client.api.build(path=str(self.context), **options)
        return events

    def check_it_ends(self) -> None:
        """Check that docker and the step end long before the step would, and that nothing is left."""
        wait_until(lambda: not (self.docker() or self.works()), 15)
        wait_until(lambda: not (self.leftovers() or self.guards()), 15)

    def check_nothing_is_left(self) -> None:
        assert self.processes() == []
        assert list(self.temporary.iterdir()) == []
        assert self.guards() == []
        wait_until(lambda: not self.works())


def _name(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return str(process.name())
    return ""  # it has ended


def _with_argument(part: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if any(part in word for word in process.cmdline()):
                found.append(process)
    return found
