"""Measures a build on a fresh CI machine, if the dependencies have not changed since the build on another machine.

It starts private engines with both image stores (Debian, root), and deletes their contents before each build. The step
that installs dependencies takes 20 seconds. The table of results is printed and written to benchmarks/fresh_machine.md.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import docker  # noqa: F401 Prefect loads it lazily
import prefect.settings
from prefect.settings import temporary_settings
from prefect.utilities.dockerutils import build_image, docker_client

from engines import private

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engines.private import Engine, Store

TURNS = 3
DOCKERFILE = """FROM busybox
COPY requirements.txt /
RUN sleep 20 && dd if=/dev/urandom of=/dependencies bs=1M count=20
COPY flow.py /
"""
ON = {"disable_attestations": True}
CACHE = "type=registry,ref={image}:cache"
WAYS: dict[str, tuple[dict[str, Any], bool]] = {
    # The settings, and whether the user pulls the previous image and uses it as docker-py's cache_from.
    "classic builder": ({}, False),
    "classic builder, `docker pull` and `cache_from`": ({}, True),
    "this package": (ON, False),
    "this package, shared cache": ({**ON, "cache_from": CACHE, "cache_to": f"{CACHE},mode=max"}, False),
}
INLINE = {"cache_from": "type=registry,ref={image}:last", "cache_to": "type=inline"}


def build(engine: Engine, folder: Path, name: str, settings: Mapping[str, Any], *, pulls: bool) -> float:
    """Return the seconds that one build takes on a machine without images and build cache."""
    engine.run("docker", "system", "prune", "--all", "--force")
    engine.run("docker", "buildx", "prune", "--all", "--force")
    (folder / "flow.py").write_text(str(uuid4()), encoding="ascii")
    start = time.perf_counter()
    options: dict[str, Any] = {}
    if pulls:
        engine.run("docker", "pull", name, check=False)  # it does not exist before the first build
        options["cache_from"] = [name]
    variables = {getattr(prefect.settings, f"PREFECT_DOCKER_{key.upper()}"): value for key, value in settings.items()}
    with temporary_settings(variables):
        build_image(folder, tag=name, **options)
    return time.perf_counter() - start


def measure(engine: Engine, store: Store, registry: str, way: str) -> list[float]:
    """Return the seconds of each turn of one way. Before each turn, the image of the previous build is pushed."""
    settings, pulls = WAYS[way]
    if "cache_to" in settings and store == "graphdriver":
        settings = {**settings, **INLINE}
    name = f"{registry}/{uuid4()}:last"
    with tempfile.TemporaryDirectory() as folder:
        for file, text in (("Dockerfile", DOCKERFILE), ("requirements.txt", "prefect\n")):
            (Path(folder) / file).write_text(text, encoding="ascii")
        build(engine, Path(folder), name, settings, pulls=pulls)
        turns = []
        for _ in range(TURNS):
            with docker_client() as client:
                client.api.push(name)
            turns.append(build(engine, Path(folder), name, settings, pulls=pulls))
    return turns


def main() -> None:
    lines = []
    with private.start() as machine:
        for way in WAYS:
            row = []
            for store, engine in machine.engines.items():
                os.environ.update({name: engine.environment[name] for name in ("DOCKER_HOST", "DOCKER_CONFIG", "PATH")})
                seconds = measure(engine, store, machine.registry.address, way)
                row.append(f"{median(seconds):.1f} ({min(seconds):.1f} - {max(seconds):.1f})")
            lines.append(f"| {way} | {' | '.join(row)} |")
            print(lines[-1], flush=True)
        stores = " | ".join(f"{store}, seconds" for store in machine.engines)
        versions = f"Docker {machine.docker_version}, buildx {machine.buildx_version}"
    text = (
        "# A fresh CI machine, dependencies unchanged\n\n"
        f"The step that installs dependencies takes 20 s. Medians of {TURNS} builds (least - most), {versions}.\n\n"
        f"| way | {stores} |\n|---|{'---|' * len(machine.engines)}\n" + "\n".join(lines) + "\n"
    )
    Path(__file__).with_name("fresh_machine.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
