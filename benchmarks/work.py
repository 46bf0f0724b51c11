"""The builds to measure: contexts of different sizes, and their changes before each build."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import uuid4

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

COPY = "FROM busybox\nCOPY . /app/\n"
STAGES = "".join(f"FROM busybox AS s{n}\nRUN : NEW && sleep 2 && echo {n} > /{n}\n" for n in range(4))
STAGES += "FROM busybox\n" + "".join(f"COPY --from=s{n} /{n} /\n" for n in range(4))
# BuildKit shows at most 200 KiB a second and 2 MiB in total for one step, so there are ten steps.
LINES = "FROM busybox\n" + "RUN : NEW && seq 20000\n" * 10


@dataclass(frozen=True)
class Work:
    """One kind of build.

    Attributes:
        name: name in the table
        dockerfile: content of the Dockerfile; ``NEW`` is replaced by another text in each build
        files: number of other files in the context
        size: size of each of these files, in bytes
        changed: whether one of these files changes before each build
        at_once: number of such builds at the same time
    """

    name: str
    dockerfile: str = COPY
    files: int = 3
    size: int = 4096
    changed: bool = False
    at_once: int = 1

    def lay(self, folder: Path) -> None:
        """Write the contexts below a folder, one for each of the builds that run at the same time."""
        for number in range(self.at_once):
            context = folder / str(number)
            for file in range(self.files):
                path = context / f"{file // 1000:03}" / f"{file:06}"
                path.parent.mkdir(parents=True, exist_ok=True)
                _write(path, self.size)
            (context / "Dockerfile").write_text(self.dockerfile, encoding="ascii")

    def renew(self, folder: Path) -> None:
        """Make the changes before a build."""
        for number in range(self.at_once):
            context = folder / str(number)
            if "NEW" in self.dockerfile:
                renewed = self.dockerfile.replace(": NEW", f": {uuid4()}")
                (context / "Dockerfile").write_text(renewed, encoding="ascii")
            if self.changed:
                (context / "000" / "000000").write_bytes(os.urandom(min(self.size, 4096)))


def _write(path: Path, size: int) -> None:
    with path.open("wb") as file:
        for start in range(0, size, 1 << 20):
            file.write(os.urandom(min(1 << 20, size - start)))


def _both(name: str, files: int, size: int) -> list[Work]:
    return [
        Work(f"{name}, all cached", files=files, size=size),
        Work(f"{name}, one changed", files=files, size=size, changed=True),
    ]


MB = 1 << 20
WORK = [
    Work("3 files, all cached"),
    *_both("1,000 files", 1000, 4096),
    *_both("5,000 files", 5000, 4096),
    *_both("20,000 files", 20_000, 4096),
    *_both("50,000 files", 50_000, 4096),
    *_both("64 MB in 8 files", 8, 8 * MB),
    *_both("256 MB in 8 files", 8, 32 * MB),
    *_both("1 GB in 8 files", 8, 128 * MB),
    Work("4 independent stages of 2 s", STAGES),
    Work("200,000 lines of output", LINES),
    Work("8 builds at once, all cached", at_once=8),
]


def pick(words: Callable[[str], bool]) -> list[Work]:
    """Return the work whose name the function accepts."""
    return [work for work in WORK if words(work.name)]
