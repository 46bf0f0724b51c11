"""A process that builds in one way. It reads builds from standard input, and prints the measurements of each."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import resource
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from shutil import disk_usage
from tempfile import gettempdir
from typing import TYPE_CHECKING, Any

import docker  # noqa: F401 Prefect loads it lazily, which fails in eight threads at the same time
import prefect
from prefect.utilities.dockerutils import build_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def by_hand(context: Path, tag: str) -> None:
    """Run the command that a user types, with its output discarded. The other ways are compared with it."""
    label = f"--label=io.prefect.version={prefect.__version__}"
    flags = ["--progress=plain", "--load", "--provenance=false", "--sbom=false", label, f"--tag={tag}"]
    command = ["docker", "buildx", "build", *flags, str(context)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def docker_py(context: Path, tag: str) -> None:
    """Call Prefect's `build_image`. The setting decides which builder is used."""
    with Path(os.devnull).open("w", encoding="utf-8") as nobody:
        build_image(context, tag=tag, stream_progress_to=nobody)


def build_backend(context: Path, tag: str) -> None:
    """Call Prefect's own buildx backend."""
    from prefect._internal.buildx import buildx_build_image

    buildx_build_image(context, tag=tag)


WAYS: dict[str, Callable[[Path, str], None]] = {
    "by hand": by_hand,
    "classic": docker_py,
    "build_backend": build_backend,
    "this package": docker_py,
}


def _memory(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    return int(found[1]) * 1024 if found else 0


@contextlib.contextmanager
def _temporary_space() -> Iterator[list[int]]:
    """Measure the largest size of the folder for temporary files, in bytes. No other process uses the folder."""
    before = disk_usage(gettempdir()).used
    most, over = [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            most[0] = max(most[0], disk_usage(gettempdir()).used - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield most
    finally:
        over.set()
        watcher.join()


def measure(build: Callable[[Path, str], None], context: Path, at_once: int, memory: int) -> dict[str, float]:
    """Build, and return what this process needed: time and CPU time in seconds, memory and disk space in bytes.

    Args:
        build: function that builds a context under a tag
        context: folder with a context for each build
        at_once: number of builds at the same time
        memory: memory that this process used before, in bytes
    """
    with _temporary_space() as space:
        cpu, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        with ThreadPoolExecutor(at_once) as pool:
            list(pool.map(lambda number: build(context / str(number), f"benchmark:{number}"), range(at_once)))
        seconds, end = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    return {
        "seconds": seconds,
        "cpu": end.ru_utime + end.ru_stime - cpu.ru_utime - cpu.ru_stime,
        "memory": _memory("VmHWM") - memory,
        "space": space[0],
    }


def main() -> None:
    build = WAYS[sys.argv[1]]
    results = sys.stdout
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the peak that the imports caused
    memory = _memory("VmRSS")
    # The output of builds must not mix with the results. (Children of python-on-whales print to the pipe anyway.)
    with contextlib.redirect_stdout(io.StringIO()):
        for line in sys.stdin:
            asked: dict[str, Any] = json.loads(line)
            found = measure(build, Path(asked["context"]), asked["at_once"], memory)
            print(json.dumps(found), file=results, flush=True)


if __name__ == "__main__":
    main()
