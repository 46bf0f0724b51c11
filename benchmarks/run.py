"""Measures builds and start-up, and writes benchmarks/results.md and docs/benchmark.svg.

It starts private engines with both image stores (Debian, root). Each result is a median. In each turn every way builds
once, and the order of the ways changes from turn to turn. `scripts/tox -e benchmark` measures everything;
`scripts/tox -e benchmark -- "3 files"` measures only the work with these words in its name.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from collections import deque
from pathlib import Path
from statistics import median
from typing import IO, TYPE_CHECKING, Any, cast

import picture
import report
import ways
from engines import private
from work import Work, pick

HERE = Path(__file__).resolve().parent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LEAST_TURNS, MOST_TURNS, SECONDS = 3, 15, 40
START_UP = {
    "python -I -c pass": (["-I", "-c", "pass"], 200),
    'python -c "import prefect"': (["-c", "import prefect"], 15),
    'python -c "import prefect.docker"': (["-c", "import prefect.docker"], 15),
    "prefect version": (["-m", "prefect", "version"], 7),
}


@contextlib.contextmanager
def worker(way: str, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Give a process that builds in one way. It has its own folder for temporary files."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], check=True)
        process = subprocess.Popen(
            [sys.executable, str(HERE / "ways.py"), way],
            env={**environment, "TMPDIR": folder, "PREFECT_DOCKER_DISABLE_ATTESTATIONS": str(way == "this package")},
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield process
        finally:
            process.communicate()
            subprocess.run(["umount", folder], check=True)


def build(process: subprocess.Popen[str], context: Path, at_once: int) -> dict[str, float] | None:
    """Run one build, and return its measurements; `None` if this way does not support the build."""
    questions, answers = cast("IO[str]", process.stdin), cast("IO[str]", process.stdout)
    with contextlib.suppress(BrokenPipeError):
        questions.write(json.dumps({"context": str(context), "at_once": at_once}) + "\n")
        questions.flush()
    answer = answers.readline()
    # The children of python-on-whales print the image's id to the same pipe.
    while answer and not answer.startswith("{"):
        answer = answers.readline()
    found: dict[str, float] | None = json.loads(answer) if answer else None
    return found


def measure(work: Work, environment: Mapping[str, str]) -> dict[str, list[dict[str, float]]]:
    """Return the measurements of each way. The first turn fills the caches and does not count.

    There are at least `LEAST_TURNS` turns. If these take less than `SECONDS`, there are up to `MOST_TURNS`.
    """
    runs: dict[str, list[dict[str, float]]] = {way: [] for way in ways.WAYS}
    with contextlib.ExitStack() as cleanup:
        # The folder is not in a git repository, where buildx would run git. This package disables that.
        folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory()))
        work.lay(folder)
        workers = {way: cleanup.enter_context(worker(way, environment)) for way in ways.WAYS}
        order, start = deque(workers), time.monotonic()
        for turn in range(MOST_TURNS + 1):
            if turn > LEAST_TURNS and time.monotonic() - start > SECONDS:
                break
            for way in order:
                work.renew(folder)
                figures = build(workers[way], folder, work.at_once)
                if figures and turn:
                    runs[way].append(figures)
            order.rotate()  # the engine is still busy after a build of the classic builder
    return {way: figures for way, figures in runs.items() if figures}


def start_up() -> dict[str, dict[str, list[float]]]:
    """Return the milliseconds of CPU time of programs with and without the package, measured in turns."""
    here = Path(sys.executable).parent.parent / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    found: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        pythons = {}
        for name in ("without", "with"):
            venv.create(f"{folder}/{name}", symlinks=True)
            site = next(Path(folder, name, "lib").glob("python*/site-packages"))
            # Both environments have Prefect and the package. Only one has the start-up file, which is measured.
            (site / "packages.pth").write_text(f"{here / 'site-packages'}\n", encoding="utf-8")
            if name == "with":
                for file in ("prefect_docker_attest.pth", "prefect_docker_attest_start.py"):
                    shutil.copy(HERE.parent / file, site)
            pythons[name] = f"{folder}/{name}/bin/python"
        environment = {**os.environ, "PREFECT_HOME": folder, "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for program, (arguments, runs) in START_UP.items():
            taken: dict[str, list[float]] = {name: [] for name in pythons}
            for turn in range(runs + 1):
                for name in sorted(pythons, reverse=turn % 2 == 0):
                    took = _milliseconds([pythons[name], *arguments], environment)
                    if turn:
                        taken[name].append(took)
            found[program] = taken
    return found


def _milliseconds(command: list[str], environment: Mapping[str, str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return (time.perf_counter() - start) * 1000


def machine() -> str:
    """Return a description of the machine in one line."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    model = next((line.partition(": ")[2] for line in text.splitlines() if line.startswith("model name")), "?")
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return f"{os.cpu_count()} cores of {model}, {memory:.0f} GiB, Linux, CPython {platform.python_version()}"


def main() -> None:
    words = sys.argv[1:]
    table = HERE / "results.md" if not words else Path(tempfile.gettempdir(), "results.md")
    results: dict[str, Any] = {"machine": machine(), "builds": {}, "start_up": {} if words else start_up()}
    wanted = pick(lambda name: not words or any(word in name for word in words))
    with private.start() as docker:
        results["versions"] = f"Docker {docker.docker_version}, buildx {docker.buildx_version}"
        for store, engine in docker.engines.items():
            environment = {**engine.environment, "PREFECT_LOGGING_LEVEL": "CRITICAL", "DO_NOT_TRACK": "1"}
            for work in wanted:
                runs = measure(work, environment)
                results["builds"].setdefault(store, {})[work.name] = runs
                # The results so far are written, so that a run that ends early is not lost.
                table.write_text(report.table(results), encoding="utf-8")
                medians = {way: round(median(run["seconds"] for run in found), 3) for way, found in runs.items()}
                print(f"{store}: {work.name}: {medians}", flush=True)
                # The layers of all ways and turns need gigabytes.
                engine.run("docker", "system", "prune", "--all", "--force")
    print(report.table(results))
    if not words:
        picture.main()


if __name__ == "__main__":
    main()
