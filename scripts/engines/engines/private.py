"""Starts private Docker Engines for tests, as root on Debian.

It starts two engines, one with each image store, and a registry that takes the place of Docker Hub. Their programs are
unpacked into a cache folder. They do not affect other programs on the machine, and are removed completely at the end.

    with private.start() as docker:
        docker.engines["containerd"].run("docker", "info")

The same from a shell:

    eval "$(scripts/private-docker start)"
    docker info
    scripts/private-docker stop

Containers can reach the machine and each other, but not other networks, and they cannot look up each other's names. The
reason is that the engines do not change the machine's packet filter and forwarding.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import ipaddress
import json
import os
import shlex
import shutil
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, final

from engines import machine
from engines.base_images import push_busybox
from engines.machine import CommandFailed, EngineUnavailable, why_not
from engines.packages import unpacked

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping, Sequence

__all__ = [
    "STORES",
    "CommandFailed",
    "Engine",
    "EngineUnavailable",
    "PrivateDocker",
    "Registry",
    "Store",
    "start",
    "why_not",
]

Store = Literal["graphdriver", "containerd"]
STORES: tuple[Store, ...] = ("graphdriver", "containerd")

_NAME = "prefect-docker-attest"


@dataclass(frozen=True)
class Registry:
    """A registry with plain HTTP and without authentication. The engines use it as a mirror of Docker Hub."""

    address: str
    """Host and port, `127.0.0.1:PORT`: the first part of an image's name."""


@dataclass(frozen=True)
class Engine:
    """A running engine."""

    store: Store
    host: str
    """The value of `DOCKER_HOST`, `unix://...`."""
    environment: Mapping[str, str]
    """A complete environment in which `docker`, buildx and docker-py use this engine."""
    containerd_address: str
    """Socket of the engine's containerd. Images of the containerd store are in its namespace `moby`."""

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in the engine's environment, and return its exit code and output.

        Raises:
            CommandFailed: the command fails and `check` is set. The text contains its error output.
        """
        return machine.run(command, environment=self.environment, check=check)

    def output_of(self, *arguments: str) -> str:
        """Return what a container prints to standard output. `docker run` loses it at times if the container is short.

        Args:
            arguments: of `docker run`: flags, the image, and the command.

        Raises:
            CommandFailed: the container cannot be run, or its command fails. The text contains its error output.
        """
        container = self.run("docker", "run", "--detach", *arguments).stdout.split()[-1]
        try:
            code = self.run("docker", "wait", container).stdout.strip()
            logs = self.run("docker", "logs", container)
        finally:
            self.run("docker", "rm", "--force", "--volumes", container)
        if code != "0":
            raise machine.CommandFailed(f"a container of {arguments} ended with exit code {code}: {logs.stderr}")
        return logs.stdout

    def ctr(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run containerd's client `ctr` for the engine's containerd. Results and errors are those of `run`."""
        return self.run("ctr", f"--address={self.containerd_address}", *arguments, check=check)


@final
@dataclass(frozen=True)
class PrivateDocker:
    """The engines and the registry of one `start`. As a context manager it stops them at the end."""

    folder: Path
    """Folder of all files, including the logs `dockerd-*.log`."""
    suite: str
    engines: Mapping[Store, Engine]
    registry: Registry
    docker_version: str
    buildx_version: str

    def stop(self) -> None:
        """Remove everything except the cached packages. A second call does nothing.

        Raises:
            EngineUnavailable: a process does not end.
            CommandFailed: a link or a mount cannot be removed.
        """
        with machine.lock():
            _clear(self.folder)

    def __enter__(self) -> PrivateDocker:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()


@dataclass(frozen=True)
class _State:
    """The state of a start, which other processes can read later."""

    suite: str
    stores: list[Store]
    packages: str
    network: str
    registry: str
    owner: tuple[int, str] | None
    """Id and start time of the process that uses the start; None if it is detached. After that process has ended, the
    start is a leftover."""
    docker_version: str = ""
    buildx_version: str = ""

    @classmethod
    def read(cls, folder: Path) -> _State | None:
        """Read the state of the start in `folder`; None if the start failed before it wrote its state."""
        with contextlib.suppress(FileNotFoundError):
            return cls(**json.loads((folder / "state.json").read_text()))
        return None

    def write(self, folder: Path) -> None:
        """Write the state of the start in `folder`."""
        part = folder / "state.json.part"
        part.write_text(json.dumps(dataclasses.asdict(self)))
        part.rename(folder / "state.json")


def start(suite: str = "trixie", stores: Sequence[Store] = STORES, *, detached: bool = False) -> PrivateDocker:
    """Start an engine for each store, and a registry with a `busybox` for two platforms.

    The leftovers of starts that were killed are removed first.

    Args:
        suite: suite of Debian's archive from which Docker comes: `trixie` or `sid`.
        stores: image stores; each gets its own engine.
        detached: whether the daemons continue after this process. Otherwise they end with the calling thread.

    Raises:
        EngineUnavailable: the start failed. Everything that had been started is removed again.
    """
    if reason := why_not():
        raise EngineUnavailable(reason)
    with machine.lock():
        folder: Path | None = None
        try:
            _sweep()
            packages = unpacked(suite)
            folder = machine.new_folder(_NAME)
            return _bring_up(folder, packages, suite, stores, detached)
        except BaseException as error:
            logs = ""
            if folder:
                logs = _log_tails(folder)
                _clear(folder)
            if isinstance(error, (OSError, CommandFailed, EngineUnavailable)):
                raise EngineUnavailable(f"no private engines of {suite}: {error}{logs}") from error
            raise


def _bring_up(folder: Path, packages: Path, suite: str, stores: Sequence[Store], detached: bool) -> PrivateDocker:
    """Start everything in `folder`. If this fails at any point, `_clear` removes what was started."""
    ip = _ip(packages)
    network = machine.free_network(ip, 19)
    state = _State(
        suite=suite,
        stores=list(stores),
        packages=str(packages),
        network=str(network),
        registry=f"127.0.0.1:{machine.free_port()}",
        # Until everything runs, this process is the owner, even of a detached start.
        owner=(os.getpid(), machine.started(os.getpid())),
    )
    state.write(folder)
    machine.emulate_arm64(folder.name, packages / "amd64/usr/bin/qemu-aarch64")
    daemon = functools.partial(machine.start_daemon, environment=_environment(packages), detached=detached)
    registry = daemon(_registry_command(folder, state), folder / "registry.log")
    dockerds = {}
    for store, block in zip(stores, network.subnets(new_prefix=20), strict=False):
        # Half of the addresses are for networks that users of the engine create.
        pool, rest = block.subnets()
        bridge = f"pda{folder.name.rpartition('-')[2]}{store[0]}"
        machine.add_bridge(ip, bridge, next(rest.subnets(new_prefix=24)))
        command = _dockerd_command(folder, state, store, bridge, pool)
        dockerds[store] = daemon(command, folder / f"dockerd-{store}.log")
    host, _, port = state.registry.partition(":")
    machine.wait_for("the registry", registry, lambda: socket.create_connection((host, int(port))).close())
    push_busybox(state.registry, packages)
    engines = _engines(folder, state)
    for store, engine in engines.items():
        machine.wait_for(f"dockerd ({store})", dockerds[store], functools.partial(engine.run, "docker", "version"))
    some = engines[stores[0]]
    docker_version = some.run("docker", "version", "--format={{.Server.Version}}").stdout.strip()
    buildx_version = some.run("docker", "buildx", "version").stdout.split()[1]
    state = dataclasses.replace(
        state,
        docker_version=docker_version,
        buildx_version=buildx_version,
        owner=None if detached else state.owner,
    )
    state.write(folder)
    return _running(folder, state)


def _registry_command(folder: Path, state: _State) -> list[str]:
    """Write the registry's configuration, and return the command that runs the registry."""
    storage = {"filesystem": {"rootdirectory": f"{folder}/registry"}, "delete": {"enabled": True}}
    config = {"version": "0.1", "storage": storage, "http": {"addr": state.registry}}
    # The registry reads YAML. JSON is a subset of YAML.
    path = folder / "registry.json"
    path.write_text(json.dumps(config))
    return ["docker-registry", "serve", str(path)]


def _dockerd_command(folder: Path, state: _State, store: Store, bridge: str, pool: ipaddress.IPv4Network) -> list[str]:
    """Write the configuration of an engine and its client, and return the command that runs the engine."""
    home = folder / store
    plugin = "libexec/docker/cli-plugins/docker-buildx"
    client = home / "client" / "cli-plugins" / "docker-buildx"
    client.parent.mkdir(parents=True)
    client.symlink_to(Path(state.packages) / "amd64/usr" / plugin)
    config = {
        "features": {"containerd-snapshotter": store == "containerd"},
        "registry-mirrors": [f"http://{state.registry}"],
        # Engines that share a bridge delete it for each other.
        "bridge": bridge,
        "default-address-pools": [{"base": str(pool), "size": 24}],
        # The machine has one NAT table, and two engines would overwrite each other's rules.
        "iptables": False,
        "ip6tables": False,
        # Forwarding without iptables would make the machine an open router.
        "ip-forward": False,
        # `_clear` finds the control groups of containers by this name.
        "cgroup-parent": f"/{folder.name}",
        "exec-opts": ["native.cgroupdriver=cgroupfs"],
    }
    (home / "dockerd.json").write_text(json.dumps(config))
    return [
        "dockerd",
        f"--config-file={home}/dockerd.json",
        f"--data-root={home}/data",
        f"--exec-root={home}/exec",
        f"--pidfile={home}/dockerd.pid",
        f"--host=unix://{home}/docker.sock",
    ]


def _running(folder: Path, state: _State) -> PrivateDocker:
    """Return the engines and the registry of a start from its state."""
    return PrivateDocker(
        folder=folder,
        suite=state.suite,
        engines=MappingProxyType(_engines(folder, state)),
        registry=Registry(state.registry),
        docker_version=state.docker_version,
        buildx_version=state.buildx_version,
    )


def _engines(folder: Path, state: _State) -> dict[Store, Engine]:
    """Return the engines of a start. Their environments are based on that of this process."""
    engines: dict[Store, Engine] = {}
    for store in state.stores:
        home = folder / store
        host = f"unix://{home}/docker.sock"
        environment = _environment(Path(state.packages))
        environment.update(DOCKER_HOST=host, DOCKER_CONFIG=f"{home}/client")
        socket_path = f"{home}/exec/containerd/containerd.sock"
        engines[store] = Engine(store, host, MappingProxyType(environment), socket_path)
    return engines


def _environment(packages: Path) -> dict[str, str]:
    """Return this process's environment with the unpacked programs on PATH, and without Docker's variables."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("DOCKER_", "BUILDX_", "BUILDKIT_"))
    }
    usr = packages / "amd64/usr"
    path = environment.get("PATH", os.defpath)
    environment["PATH"] = os.pathsep.join([f"{usr}/bin", f"{usr}/sbin", path])
    return environment


def _ip(packages: Path) -> list[str]:
    """Return the command `ip` of the machine, or that of busybox if the machine has none."""
    ip = shutil.which("ip")
    return [ip] if ip else [f"{packages}/amd64/usr/bin/busybox", "ip"]


def _clear(folder: Path) -> None:
    """Remove all traces of a complete or incomplete start in `folder`. The folder is removed last."""
    if not folder.exists():
        return
    machine.stop_daemons(folder)
    state = _State.read(folder)
    if state:
        machine.remove_links(_ip(Path(state.packages)), ipaddress.IPv4Network(state.network))
    machine.stop_emulating(folder.name)
    machine.remove_control_groups(folder.name)
    shutil.rmtree(folder)


def _sweep() -> list[Path]:
    """Remove the starts whose process has ended, and return their folders."""
    leftovers = []
    for folder in machine.folders(_NAME):
        state = _State.read(folder)
        if not state or not _is_up(folder, state):
            _clear(folder)
            leftovers.append(folder)
    return leftovers


def _is_up(folder: Path, state: _State) -> bool:
    """Return whether the start in `folder` can still be in use."""
    if state.owner:
        return machine.started(state.owner[0]) == state.owner[1]
    return bool(machine.daemons(folder))


def _log_tails(folder: Path) -> str:
    """Return the last lines of each daemon's log, for an error message."""
    return "".join(
        f"\n--- {log.name}:\n" + "\n".join(log.read_text(errors="replace").splitlines()[-8:])
        for log in sorted(folder.glob("*.log"))
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line `start`, `stop` or `status`, and return the exit code."""
    parser = argparse.ArgumentParser(description="Start and stop private Docker Engines.")
    commands = parser.add_subparsers(dest="command", required=True)
    starting = commands.add_parser("start", help='start engines: eval "$(scripts/private-docker start)"')
    starting.add_argument("--suite", choices=["trixie", "sid"], default="trixie", help="release of Debian")
    starting.add_argument("--store", choices=[*STORES, "both"], default="both", help="image store")
    commands.add_parser("stop", help="remove the engines that `start` started, and leftovers of killed runs")
    commands.add_parser("status", help="list the engines that run")
    options = parser.parse_args(arguments)
    try:
        _run_command(options)
    except (EngineUnavailable, CommandFailed, OSError) as error:
        print(f"ERROR {error}", file=sys.stderr)
        return 1
    return 0


def _run_command(options: argparse.Namespace) -> None:
    if reason := why_not():
        raise EngineUnavailable(reason)
    if options.command == "start":
        stores = STORES if options.store == "both" else (options.store,)
        print(_exports(_detached(options.suite, stores)))
    elif options.command == "stop":
        _stop_detached()
    else:
        print("\n".join(map(_describe, machine.folders(_NAME))) or "no engines run")


def _detached(suite: str, stores: Sequence[Store]) -> PrivateDocker:
    """Return the running engines of an earlier detached start, or start new ones."""
    for folder in machine.folders(_NAME):
        state = _State.read(folder)
        if not state or state.owner or not _is_up(folder, state):
            continue
        if state.suite == suite and {*stores} <= {*state.stores}:
            print(f"the engines in {folder} already run", file=sys.stderr)
            return _running(folder, state)
    docker = start(suite, stores, detached=True)
    versions = f"Docker {docker.docker_version}, buildx {docker.buildx_version}"
    print(f"{versions}; log files in {docker.folder}", file=sys.stderr)
    return docker


def _exports(docker: PrivateDocker) -> str:
    """Return shell commands that set the environment for an engine of `docker`."""
    # The containerd store is preferred, because Docker Desktop and new installations use it.
    engine = docker.engines.get("containerd") or next(iter(docker.engines.values()))
    values = {name: engine.environment[name] for name in ("DOCKER_HOST", "DOCKER_CONFIG", "PATH")}
    values["REGISTRY"] = docker.registry.address
    for store, other in docker.engines.items():
        values[f"{store.upper()}_HOST"] = other.host
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in values.items())


def _stop_detached() -> None:
    with machine.lock():
        gone = _sweep()
        for folder in machine.folders(_NAME):
            state = _State.read(folder)
            if state and not state.owner:
                _clear(folder)
                gone.append(folder)
    print("\n".join(f"stopped {folder}" for folder in gone) or "no engines were running", file=sys.stderr)


def _describe(folder: Path) -> str:
    """Return a line about the start in `folder`."""
    state = _State.read(folder)
    if not state:
        return f"{folder}: incomplete"
    stores = " and ".join(state.stores)
    owner = f"of process {state.owner[0]}" if state.owner else "detached"
    versions = f"Docker {state.docker_version}, buildx {state.buildx_version}"
    return f"{folder}: {versions} from {state.suite}, {stores}, registry {state.registry}, {owner}"
