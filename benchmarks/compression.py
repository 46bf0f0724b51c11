"""Measures builds with one changed layer of real Python packages: by hand, and with this package's compressions.

It starts private engines (Debian, root): one with the containerd store that builds, and one of each store that pulls.
In each turn one file changes, so that the layer is new, and every way builds, pushes and pulls it. The order of the
ways changes from turn to turn. The first turn fills caches and does not count. The table is written to
benchmarks/compression.md. `python benchmarks/compression.py 20 200` measures only these sizes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING
from uuid import uuid4

import docker  # noqa: F401 Prefect loads it lazily
import prefect.settings
import psutil
from prefect.settings import temporary_settings
from prefect.utilities.dockerutils import build_image

from engines import private
from engines.machine import daemons

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from engines.private import Engine, PrivateDocker, Store

# The number of turns for each size of the layer in MB.
TURNS = {20: 5, 200: 3, 800: 3}
PACKAGES = (
    *("pyarrow", "scipy", "scikit-learn", "scikit-image", "statsmodels", "pandas", "matplotlib", "polars", "duckdb"),
    *("sqlalchemy", "boto3", "dask", "plotly", "sympy", "lxml", "grpcio", "cryptography"),
)
FIGURES = Path(__file__).with_name("compression.md")
MB = 1_000_000


def by_hand(name: str, folder: Path) -> None:
    flags = ("--load", "--provenance=false", "--sbom=false", "--progress=plain")
    subprocess.run(["docker", "buildx", "build", *flags, f"--tag={name}", folder], check=True, capture_output=True)


def with_compression(text: str) -> Callable[[str, Path], None]:
    """Return a function that builds through Prefect, with this compression."""
    values = {"DISABLE_ATTESTATIONS": True, "COMPRESSION": text}
    settings = {getattr(prefect.settings, f"PREFECT_DOCKER_{name}"): value for name, value in values.items()}

    def build(name: str, folder: Path) -> None:
        with temporary_settings(settings):
            build_image(folder, tag=name)

    return build


BY_HAND, GZIP, ZSTD = "by hand", "this package, gzip", "this package, zstd"
WAYS = {BY_HAND: by_hand, GZIP: with_compression("gzip"), ZSTD: with_compression("zstd")}


@dataclass(frozen=True)
class Turn:
    """One image: seconds, megabytes of its new layer, and CPU seconds and peak memory (MB) of dockerd in its build."""

    build: float
    push: float
    containerd_pull: float
    graphdriver_pull: float
    layer: float
    cpu: float
    memory: float


def lay(folder: Path, size: int, packages: Path) -> None:
    """Make a context of files of packages, small packages first, until it has this size in MB."""
    files = {entry: [entry] if entry.is_file() else sorted(entry.rglob("*")) for entry in packages.iterdir()}
    sizes = {entry: sum(file.stat().st_size for file in files[entry] if file.is_file()) for entry in files}
    room = size * MB
    for entry in sorted(sizes, key=lambda entry: sizes[entry]):
        for file in files[entry]:
            if file.is_file() and (length := file.stat().st_size) <= room:
                room -= length
                target = folder / "packages" / file.relative_to(packages)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, target)
    (folder / "Dockerfile").write_text("FROM busybox\nCOPY packages /packages\n", encoding="ascii")


class Engines:
    """The engine that builds, its process, and the engines that pull."""

    def __init__(self, machine: PrivateDocker, pulling: Mapping[Store, Engine]) -> None:
        self.builder = machine.engines["containerd"]
        self.registry = machine.registry.address
        self.pulling = pulling
        processes = map(psutil.Process, daemons(machine.folder))
        self.dockerd = next(process for process in processes if process.name() == "dockerd")

    def cpu(self) -> float:
        return sum(self.dockerd.cpu_times()[:2])

    def forget_peak(self) -> None:
        Path(f"/proc/{self.dockerd.pid}/clear_refs").write_text("5", encoding="ascii")

    def peak(self) -> float:
        """Return the peak of the memory of dockerd, in MB. BuildKit compresses layers in this process."""
        status = Path(f"/proc/{self.dockerd.pid}/status").read_text(encoding="ascii")
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / MB

    def measure(self, way: str, folder: Path) -> Turn:
        """Build, push and pull an image that nobody has built before."""
        (folder / "packages" / "changed.py").write_text(f"# {uuid4()}\n", encoding="ascii")
        name = f"{self.registry}/compression/{uuid4()}:v1"
        self.forget_peak()
        before, start = self.cpu(), time.perf_counter()
        WAYS[way](name, folder)
        seconds, cpu, memory = time.perf_counter() - start, self.cpu() - before, self.peak()
        push = timed(self.builder, "push", name)
        pulls = {store: timed(engine, "pull", name) for store, engine in self.pulling.items()}
        manifest = self.builder.run("docker", "buildx", "imagetools", "inspect", "--raw", name).stdout
        layer = json.loads(manifest)["layers"][-1]
        expected = "zstd" if way == ZSTD else "gzip"
        if not layer["mediaType"].endswith(expected):
            raise RuntimeError(f"{way} made {layer}")
        for engine in (self.builder, *self.pulling.values()):
            engine.run("docker", "image", "rm", "--force", name)
        # The layers of all turns need gigabytes. The transferred context stays.
        self.builder.run("docker", "buildx", "prune", "--force", "--filter=type=regular")
        return Turn(seconds, push, pulls["containerd"], pulls["graphdriver"], layer["size"] / MB, cpu, memory)


def timed(engine: Engine, *command: str) -> float:
    start = time.perf_counter()
    engine.run("docker", *command)
    return time.perf_counter() - start


def measure_size(size: int, packages: Path, engines: Engines) -> dict[str, list[Turn]]:
    found: dict[str, list[Turn]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        lay(folder, size, packages)
        order = deque(WAYS)
        for number in range(TURNS[size] + 1):
            for way in order:
                turn = engines.measure(way, folder)
                print(size, number, way, json.dumps(asdict(turn)), f"load {os.getloadavg()[0]:.1f}", flush=True)
                found[way] += [turn] if number else []
            order.rotate()
    return found


def rows(size: int, found: Mapping[str, list[Turn]]) -> list[str]:
    lines = []
    for way, turns in found.items():
        seconds = [turn.build for turn in turns]
        ratio = median(turn.build / hand.build for turn, hand in zip(turns, found[BY_HAND], strict=True))
        middle = {name: median(asdict(turn)[name] for turn in turns) for name in asdict(turns[0])}
        lines.append(
            f"| {size} MB, {way} | {len(turns)} | {middle['build']:.1f} ({min(seconds):.1f} - {max(seconds):.1f}) "
            f"| {ratio:.2f} | {middle['cpu']:.1f} | {middle['push']:.2f} | {middle['layer']:.1f} "
            f"| {middle['containerd_pull']:.2f} | {middle['graphdriver_pull']:.2f} | {middle['memory']:.0f} |"
        )
    return lines


def main() -> None:
    sizes = [int(word) for word in sys.argv[1:]] or list(TURNS)
    lines: list[str] = []
    loads = []
    with (
        private.start(stores=["containerd"]) as machine,
        private.start() as others,
        tempfile.TemporaryDirectory() as own,
    ):
        packages = Path(own) / "packages"
        install = (sys.executable, "-m", "uv", "pip", "install", "--quiet", f"--target={packages}", *PACKAGES)
        subprocess.run(install, check=True)
        engines = Engines(machine, others.engines)
        names = ("DOCKER_HOST", "DOCKER_CONFIG", "PATH")
        os.environ.update({name: engines.builder.environment[name] for name in names})
        for size in sizes:
            lines += rows(size, measure_size(size, packages, engines))
            loads.append(os.getloadavg()[0])
            text = (
                "# A changed layer of real Python packages\n\n"
                f"Docker {machine.docker_version}, buildx {machine.buildx_version}, the containerd store builds, "
                f"{os.cpu_count()} cores. Medians (least - most); the ratio is to the build by hand in the same turn. "
                "CPU seconds and peak memory are those of dockerd during the build. "
                f"The load of the machine at the ends was {' and '.join(f'{load:.1f}' for load in loads)}.\n\n"
                "| changed layer | turns | build, s | ratio | CPU, s | push, s | layer, MB | pull containerd, s "
                "| pull graphdriver, s | memory, MB |\n"
                "|---|---|---|---|---|---|---|---|---|---|\n" + "\n".join(lines) + "\n"
            )
            FIGURES.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
