"""Starts Podman of a suite of Debian, whose socket docker-py and the docker CLI use like that of a Docker Engine."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shlex
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import docker
import pytest

from conftest import missing
from engines import machine, progress
from engines.machine import CommandFailed, EngineUnavailable
from engines.packages import cache_folder, downloaded, new_in_cache
from support.processes import wait_until
from support.remote_builder import configuration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engines.private import PrivateDocker

SUITES = ("bookworm", "trixie")
"""Suites of Debian with Podman 4.3 and 5.4."""

# runc works in control groups of both versions at the same time, as on some machines of tests. crun does not.
_PACKAGES = ("podman", "netavark", "runc")
# A part of the cache folder's name. Increase it when the content below changes.
_REVISION = 1

# The kernel kills the processes of the namespaces when this process ends.
_NAMESPACES = (
    *("setpriv", "--pdeathsig", "KILL", "--"),
    *("unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child", "--"),
)
# The arguments are the root folder, the service's own folder, and the command. The mounts end with the process.
_START = """
root=$1 folder=$2
shift 2
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
for name in run tmp var/tmp; do mount -t tmpfs tmpfs "$root/$name"; done
for name in hosts passwd resolv.conf; do mount --bind "/etc/$name" "$root/etc/$name"; done
mkdir -p "$root$folder"
mount --bind "$folder" "$root$folder"
exec chroot "$root" "$@"
"""


@dataclass(frozen=True)
class Podman:
    """A running Podman."""

    version: str
    address: str
    """The value of `DOCKER_HOST`, ``unix://...``."""
    staging: Path
    """The folder in which it keeps the build contexts of running builds."""
    programs: Path
    """The folder of a program `docker` that is Podman's command."""

    def leftovers(self) -> dict[str, int]:
        """Return how many build contexts, folders of running steps and containers of builds there are."""
        with self.client() as client:
            url = f"{client.api.base_url}/v4.0.0/libpod/containers/json?all=true&external=true"
            containers = client.api.get(url).json()
        names = [folder.name for folder in self.staging.iterdir()]
        return {
            "contexts": sum(name.startswith("libpod_builder") for name in names),
            "steps": sum(name.startswith("buildah") for name in names),
            "containers": len(containers),
        }

    @contextlib.contextmanager
    def client(self) -> Iterator[docker.DockerClient]:
        with contextlib.closing(docker.DockerClient(self.address, timeout=60)) as client:
            yield client


@contextlib.contextmanager
def started_podman(suite: str, registry: str) -> Iterator[Podman]:
    """Start Podman's service, and stop it and all its processes at the end.

    Args:
        suite: suite of Debian that it comes from
        registry: registry with plain HTTP, which is also its mirror of Docker Hub
    """
    root = _unpacked(suite)
    folder = Path(tempfile.mkdtemp(prefix="pda-podman-"))  # paths of sockets are short
    (folder / "registries.conf").write_text(
        f'[[registry]]\nlocation = "{registry}"\ninsecure = true\n'
        f'[[registry]]\nlocation = "docker.io"\n[[registry.mirror]]\nlocation = "{registry}"\ninsecure = true\n'
    )
    limits = {"nofile": resource.RLIMIT_NOFILE, "nproc": resource.RLIMIT_NPROC}
    # Podman raises limits above those of this process, which only some machines allow.
    ours = [f"{name}={':'.join(map(str, resource.getrlimit(limit)))}" for name, limit in limits.items()]
    (folder / "containers.conf").write_text(
        f'[containers]\nnetns = "host"\ndefault_ulimits = {[limit for limit in ours if "-1" not in limit]}\n'
        '[engine]\ncgroup_manager = "cgroupfs"\nruntime = "runc"\nevents_logger = "file"\n'
        '[network]\nnetwork_backend = "netavark"\n'
    )
    (folder / "staging").mkdir()
    address = f"unix://{folder}/podman.sock"
    variables = {
        "PATH": "/usr/sbin:/usr/bin",
        "HOME": "/root",
        "TMPDIR": f"{folder}/staging",
        "CONTAINERS_CONF": f"{folder}/containers.conf",
        "CONTAINERS_REGISTRIES_CONF": f"{folder}/registries.conf",
    }
    storage = [f"--root={folder}/storage", f"--runroot={folder}/run", "--storage-driver=vfs"]
    podman = [*_NAMESPACES, "sh", "-euc", _START, "sh", str(root), str(folder), "podman", *storage]
    command = folder / "bin" / "docker"
    command.parent.mkdir()
    environment = [f"{name}={value}" for name, value in variables.items()]
    command.write_text(f'#!/bin/sh\nexec {shlex.join(["env", "-i", *environment, *podman])} "$@"\n')
    command.chmod(0o755)
    with (folder / "log").open("wb") as log:
        serve = [*podman, "system", "service", "--time=0", address]
        service = subprocess.Popen(serve, env=variables, stdout=log, stderr=log)
    try:
        machine.wait_for(f"Podman of {suite}", service, lambda: _version(address))
        yield Podman(_version(address), address, folder / "staging", command.parent)
    except EngineUnavailable as error:
        missing(f"{error}: {(folder / 'log').read_text()[-2000:]}")
    finally:
        service.kill()  # the first process of a namespace ends after all others
        service.wait()
        for step in (folder / "staging").glob("buildah*"):  # that ran
            wait_until(partial(_is_removed, f"buildah-{step.name}"))
        while folder.exists():  # its last processes may still write
            shutil.rmtree(folder, ignore_errors=True)


def _is_removed(name: str) -> bool:
    """Remove the control groups with this name, and return whether it worked: their processes may still be ending."""
    try:
        for group in Path("/sys/fs/cgroup").rglob(name):
            group.rmdir()
    except OSError:
        return False
    return True


def _version(address: str) -> str:
    if not Path(address.removeprefix("unix://")).exists():  # docker-py would leave its socket open
        raise OSError(f"{address} does not exist")
    try:
        with contextlib.closing(docker.DockerClient(address, version="1.24")) as client:
            return str(client.version()["Version"])
    except (docker.errors.DockerException, OSError) as error:
        raise OSError(str(error)) from error


def _unpacked(suite: str) -> Path:
    """Return a root folder with Podman and all its libraries, which it runs in on any release of Debian."""
    folder = cache_folder() / f"podman-of-{suite}-{_REVISION}"
    try:
        with machine.lock():
            if not folder.is_dir():
                with progress.step(f"Unpacking Podman of {suite} into {folder}"), new_in_cache(folder) as part:
                    _unpack(suite, part)
    except (CommandFailed, EngineUnavailable) as error:
        missing(f"Podman of {suite} is not in the cache, and apt cannot download it: {error}")
    return folder


def _unpack(suite: str, root: Path) -> None:
    for name in ("bin", "lib", "lib64", "sbin"):
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    for name in ("dev", "etc", "proc", "run", "sys", "tmp", "var/tmp"):
        (root / name).mkdir(parents=True)
    with downloaded("amd64", _PACKAGES, root, suite) as packages:
        for package in packages:
            unpack = f'dpkg-deb --fsys-tarfile "$1" | tar --extract --keep-directory-symlink --directory="{root}"'
            machine.run(["sh", "-c", unpack, "sh", str(package)])
    for name in ("hosts", "passwd", "resolv.conf"):
        (root / "etc" / name).touch()


@pytest.fixture(scope="session", params=SUITES)
def podman_service(request: pytest.FixtureRequest, private_docker: PrivateDocker) -> Iterator[Podman]:
    """Podman 4 and 5."""
    with started_podman(request.param, private_docker.registry.address) as podman:
        yield podman


@pytest.fixture
def podman(
    podman_service: Podman, private_docker: PrivateDocker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Podman:
    """Podman as the engine that docker-py and the docker CLI use, with a configuration of the CLI for this test."""
    engine = private_docker.engines["containerd"]
    for name in [name for name in os.environ if re.match("DOCKER_|BUILDX_|BUILDKIT_", name)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", engine.environment["PATH"])
    monkeypatch.setenv("DOCKER_CONFIG", configuration(engine, tmp_path / "configuration"))
    monkeypatch.setenv("DOCKER_HOST", podman_service.address)
    return podman_service
