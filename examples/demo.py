"""Deploy examples/hello twice, setting off and on, and compare what landed in the registry.

Uses the Docker that is there, with a registry in a container; where there is none, private engines that are brought up
for it (Debian, root) and removed at the end. Run it with `scripts/tox -e demo`.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

import private_docker  # noqa: E402 its folder is on the path only now
from published import Published  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SETTING = "PREFECT_DOCKER_DISABLE_ATTESTATIONS"
OTHER_PLATFORM = "linux/amd64" if platform.machine() in {"arm64", "aarch64"} else "linux/arm64"


@contextlib.contextmanager
def engine() -> Iterator[tuple[Mapping[str, str], str, private_docker.Engine | None]]:
    """An environment that leads to an engine, a registry's address, and a second engine in the place of a cluster."""
    docker = shutil.which("docker")
    probes = ["docker info", "docker buildx version"]
    if docker and all(subprocess.run(p.split(), capture_output=True, check=False).returncode == 0 for p in probes):
        print(f"Using the Docker that is there ({docker}), with a registry in a container.")
        run = ["docker", "run", "--detach", "--rm", "--publish=127.0.0.1::5000", "registry:2"]
        container = subprocess.run(run, check=True, text=True, stdout=subprocess.PIPE).stdout.strip()
        try:
            port = ["docker", "port", container, "5000/tcp"]
            address = subprocess.run(port, check=True, text=True, stdout=subprocess.PIPE).stdout.split()[0]
            yield dict(os.environ), address, None
        finally:
            subprocess.run(["docker", "rm", "--force", container], check=False, stdout=subprocess.DEVNULL)
        return
    print("There is no Docker with buildx here: bringing up private engines and a registry.")
    with private_docker.start() as private:
        print(f"Docker {private.docker_version}, buildx {private.buildx_version}, containerd image store.")
        yield private.engines["containerd"].environment, private.registry.address, private.engines["graphdriver"]


def deploy(environment: Mapping[str, str], name: str, tag: str) -> None:
    """Run the user's script, as a user does."""
    image = {"IMAGE_NAME": name, "IMAGE_TAG": tag, "IMAGE_PLATFORM": OTHER_PLATFORM}
    print(f"\n$ {SETTING}={environment.get(SETTING, '')} python deploy.py")
    subprocess.run([sys.executable, "deploy.py"], env={**environment, **image}, cwd=HERE / "hello", check=True)


def findings(published: Published, cluster: private_docker.Engine | None) -> dict[str, str]:
    """What someone who pulls the image finds."""
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
    with engine() as (environment, registry, cluster), tempfile.TemporaryDirectory() as home:
        mine = {name: value for name, value in environment.items() if not name.startswith("PREFECT_")}
        mine |= {
            "PREFECT_HOME": home,
            "PREFECT_PROFILES_PATH": f"{home}/profiles.toml",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
            "DO_NOT_TRACK": "1",
        }
        prefect = [sys.executable, "-m", "prefect"]
        subprocess.run([*prefect, "work-pool", "create", "demo", "--type=docker"], env=mine, check=True)
        subprocess.run(["docker", "pull", "--quiet", "busybox"], env=mine, check=True)
        name = f"{registry}/hello"
        columns = {}
        for value, tag in (("false", "off"), ("true", "on")):
            deploy({**mine, SETTING: value}, name, tag)
            columns[f"Setting {tag}"] = findings(Published(f"{name}:{tag}"), cluster)

    rows = list(dict.fromkeys(row for column in columns.values() for row in column))
    table = Table("", title=f"What landed in the registry, built for {OTHER_PLATFORM}")
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(row, *(column.get(row, "") for column in columns.values()))
    Console().print(table)


if __name__ == "__main__":
    main()
