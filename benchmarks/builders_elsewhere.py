"""Measure the deployment of an image of 100 MB from a machine whose builder and registry are elsewhere.

Brings up private engines (Debian, root): those of the user's machine, one with each image store, and that of the
builder. What goes from the user's machine to the builder and to the registry crosses one link of 20 MBit/s in each
direction; the builder reaches the registry directly. Prints a table, and writes it to
benchmarks/builders_elsewhere.md.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple
from uuid import uuid4

import docker  # noqa: F401 Prefect loads it lazily
import prefect.settings
from prefect.docker import DockerImage
from prefect.settings import temporary_settings

from engines import private
from engines.links import Link, buildkit, proxy
from engines.machine import daemons

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from engines.private import Engine

TURNS = 11
RATE = 20e6 / 8  # bytes a second
DOCKERFILE = "FROM busybox\nRUN head -c 100000000 /dev/urandom > /data && : {unique}\n"


class Turn(NamedTuple):
    """One deployment."""

    seconds: float
    megabytes: float


def by_hand(name: str, folder: Path) -> None:
    flags = ("--push", "--provenance=false", "--sbom=false", "--progress=plain")
    subprocess.run(["docker", "buildx", "build", *flags, f"--tag={name}", folder], check=True, capture_output=True)


def by_prefect(name: str, folder: Path) -> None:
    image = DockerImage(name, dockerfile="Dockerfile", context=folder, stream_progress_to=None)
    image.build()
    image.push()


class Way(NamedTuple):
    """A way to deploy an image, and the settings of `PREFECT_DOCKER_` that it uses."""

    deploy: Callable[[str, Path], None]
    settings: Sequence[str] = ()


BY_HAND = "`docker buildx build --push` by hand"
FROM_BUILDER = "this package, `PREFECT_DOCKER_PUSH_FROM_BUILDER=true`"
THROUGH_ENGINE = "this package"
WAYS = {
    BY_HAND: Way(by_hand),
    FROM_BUILDER: Way(by_prefect, ["DISABLE_ATTESTATIONS", "PUSH_FROM_BUILDER"]),
    THROUGH_ENGINE: Way(by_prefect, ["DISABLE_ATTESTATIONS"]),
}


def measure(way: str, engine: Engine, registry: str, link: Link) -> Turn:
    """Deploy an image that nobody has built before."""
    name = f"{registry}/benchmark/{uuid4()}:v1"
    settings = {getattr(prefect.settings, f"PREFECT_DOCKER_{setting}"): True for setting in WAYS[way].settings}
    before = link.carried
    # Prefect's `temporary_settings` takes 25 ms, which a user's environment variables do not.
    with tempfile.TemporaryDirectory() as folder, temporary_settings(settings):
        (Path(folder) / "Dockerfile").write_text(DOCKERFILE.format(unique=uuid4()), encoding="ascii")
        start = time.perf_counter()
        WAYS[way].deploy(name, Path(folder))
        seconds = time.perf_counter() - start
    engine.run("docker", "image", "rm", "--force", name, check=False)
    return Turn(seconds, (link.carried - before) / 1e6)


def configure(engine: Engine, folder: Path, builder: str) -> None:
    """Let this process use an engine, and a builder elsewhere."""
    own = shutil.copytree(engine.environment["DOCKER_CONFIG"], folder / engine.store, symlinks=True)
    os.environ.update({name: engine.environment[name] for name in ("DOCKER_HOST", "PATH")}, DOCKER_CONFIG=str(own))
    subprocess.run(["docker", "buildx", "create", "--use", "--driver=remote", builder], check=True, capture_output=True)


def measure_all(engine: Engine, registry: str, link: Link) -> dict[str, list[Turn]]:
    """Measure all ways in turn, the first two in alternating order. Turn 0, which fills caches, is left out."""
    found: dict[str, list[Turn]] = {way: [] for way in WAYS}
    for number in range(TURNS + 1):
        ways = [BY_HAND, FROM_BUILDER] if number % 2 else [FROM_BUILDER, BY_HAND]
        for way in [*ways, THROUGH_ENGINE] if number == 1 else ways:
            turn = measure(way, engine, registry, link)
            print(engine.store, number, way, f"{turn.seconds:.2f} s, {turn.megabytes:.1f} MB", flush=True)
            found[way] += [turn] if number else []
    return found


def row(way: str, found: dict[str, list[Turn]]) -> str:
    """One way on one store: seconds, their ratio to those by hand in the same turn, and megabytes; medians."""
    seconds = [turn.seconds for turn in found[way]]
    ratios = [turn.seconds / by_hand.seconds for turn, by_hand in zip(found[way], found[BY_HAND], strict=False)]
    megabytes = median(turn.megabytes for turn in found[way])
    spread = f"{median(seconds):.1f} ({min(seconds):.1f} - {max(seconds):.1f})"
    return f"{spread} | {median(ratios):.2f} | {megabytes:.1f}"


def main() -> None:
    found: dict[str, dict[str, list[Turn]]] = {}
    with (
        private.start() as machine,
        private.start(stores=["containerd"]) as far,
        tempfile.TemporaryDirectory() as temporary,
    ):
        users, builders_own = Link(RATE), Link()
        folder, port = Path(temporary), int(machine.registry.address.rpartition(":")[2])
        with (
            buildkit(far.engines["containerd"], folder / "buildkit.sock", users) as builder,
            proxy(port, users, daemons(far.folder), builders_own) as near,
        ):
            for store, engine in machine.engines.items():
                configure(engine, folder, builder)
                found[store] = measure_all(engine, f"127.0.0.1:{near}", users)
        versions = f"Docker {machine.docker_version}, buildx {machine.buildx_version}"
    columns = " | ".join(f"{store}, seconds | ratio | MB over the link" for store in found)
    lines = [
        "# An image of 100 MB, with builder and registry elsewhere",
        "",
        "The link of the user's machine carries 20 MBit/s in each direction. Medians of "
        f"{TURNS} deployments (least - most), and one deployment for the last way. The ratio is to the deployment by "
        f"hand in the same turn. {versions}.",
        "",
        f"| way | {columns} |",
        f"|---|{'---|---|---|' * len(found)}",
        *(f"| {way} | {' | '.join(row(way, of_store) for of_store in found.values())} |" for way in WAYS),
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    Path(__file__).with_name("builders_elsewhere.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
