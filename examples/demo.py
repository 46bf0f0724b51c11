"""Deploys examples/hello twice, with the setting off and on, and compares the images in the registry.

It uses the existing Docker, with a registry in a container. If there is no Docker, it starts private engines (Debian,
root). At the end it removes everything that it created. Run it with `scripts/tox -e demo`.
"""

from __future__ import annotations

import contextlib
import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from engines import existing, private
from engines.machine import EngineUnavailable
from engines.published import Published

HERE = Path(__file__).resolve().parent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SETTING = "PREFECT_DOCKER_DISABLE_ATTESTATIONS"
OTHER_PLATFORM = "linux/amd64" if platform.machine() in {"arm64", "aarch64"} else "linux/arm64"


@dataclass(frozen=True)
class Setup:
    """The engine and the registry of the demo."""

    environment: Mapping[str, str]
    """Environment in which programs use the engine."""
    registry: str
    """Host and port of the registry."""
    base_image: str
    cluster: private.Engine | None = None
    """A second engine that pulls images like a cluster; None if there is only one engine."""


@contextlib.contextmanager
def engine() -> Iterator[Setup]:
    """Give the existing engine, or start private engines if there is none."""
    try:
        found = existing.find()
    except EngineUnavailable as error:
        found, reason = None, str(error)
    if not found:
        print(f"{reason}\nStarting private engines and a registry.")
        with private.start() as engines:
            print(f"Docker {engines.docker_version}, buildx {engines.buildx_version}, containerd image store.")
            containerd, graphdriver = engines.engines["containerd"], engines.engines["graphdriver"]
            containerd.run("docker", "pull", "--quiet", "busybox")
            yield Setup(containerd.environment, engines.registry.address, "busybox", graphdriver)
        return
    print(f"Using the engine at {found.host}: Docker {found.docker_version}, {found.store} image store.")
    with existing.start(found) as docker:
        if not docker.registry or OTHER_PLATFORM not in docker.base_platforms:
            sys.exit(docker.no_registry or f"`busybox` cannot be pulled for {OTHER_PLATFORM}")
        yield Setup(docker.engine.environment, docker.registry.address, found.base_image)


def deploy(folder: Path, environment: Mapping[str, str], name: str, tag: str) -> None:
    """Run the deployment script like a user."""
    image = {"IMAGE_NAME": name, "IMAGE_TAG": tag, "IMAGE_PLATFORM": OTHER_PLATFORM}
    print(f"\n$ {SETTING}={environment.get(SETTING, '')} python deploy.py")
    subprocess.run([sys.executable, "deploy.py"], env={**environment, **image}, cwd=folder, check=True)


def findings(published: Published, cluster: private.Engine | None) -> dict[str, str]:
    """Return properties of the image in the registry, and whether a cluster can pull it."""
    manifest = published.manifest()
    found = {"Media type": str(manifest["mediaType"]).removeprefix("application/")}
    if published.is_one_manifest:
        matching = published.layers_match()
        found["Platform"] = "{os}/{architecture}".format(**published.config())
        found["Layers as in config"] = f"{sum(matching)} of {len(matching)}"
    else:
        found["Platforms"] = ", ".join(published.platforms())
    if cluster:
        pull = ["images", "pull", "--plain-http", f"--platform={OTHER_PLATFORM}", published.reference]
        pulled = cluster.ctr("--namespace=cluster", *pull, check=False)
        problem = pulled.stderr.strip().rpartition("\n")[2].rpartition(": ")[2].partition(' "')[0]
        found["Pulled by containerd"] = "yes" if pulled.returncode == 0 else f"no: {problem}"
    return found


def main() -> None:
    with engine() as setup, tempfile.TemporaryDirectory() as home:
        folder = Path(shutil.copytree(HERE / "hello", Path(home) / "hello"))
        dockerfile = folder / "Dockerfile"
        dockerfile.write_text(dockerfile.read_text().replace("busybox", setup.base_image))
        mine = {name: value for name, value in setup.environment.items() if not name.startswith("PREFECT_")}
        mine |= {
            "PREFECT_HOME": home,
            "PREFECT_PROFILES_PATH": f"{home}/profiles.toml",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
            # The default of 20 seconds is too short for a busy machine, and for an emulated one.
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "900",
            "DO_NOT_TRACK": "1",
        }
        prefect = [sys.executable, "-m", "prefect"]
        subprocess.run([*prefect, "work-pool", "create", "demo", "--type=docker"], env=mine, check=True)
        name = f"{setup.registry}/hello"
        columns = {}
        for value, tag in (("false", "off"), ("true", "on")):
            deploy(folder, {**mine, SETTING: value}, name, tag)
            columns[f"Setting {tag}"] = findings(Published(f"{name}:{tag}"), setup.cluster)

    rows = list(dict.fromkeys(row for column in columns.values() for row in column))
    table = Table("", title=f"Images in the registry, built for {OTHER_PLATFORM}")
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(row, *(column.get(row, "") for column in columns.values()))
    Console().print(table)


if __name__ == "__main__":
    main()
