"""Real Docker Engines for tests, on a Debian machine with root that has none.

Two engines, one with each image store, and a registry that stands in for Docker Hub: unpacked into
a cache folder, started beside whatever else the machine runs, gone without a trace at the end.

    with private_docker.start() as docker:
        docker.engines["containerd"].run("docker", "info")

The same from a shell:

    eval "$(python tests/private_docker.py start)"
    docker info
    python tests/private_docker.py stop

Containers reach the machine and each other, not the outside, and find each other by address, not
by name: the engines leave the machine's packet filter and forwarding alone.
"""

# ruff: noqa: T201 - its other half is a command line.

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

import debian_machine as machine
from base_images import push_busybox
from debian_machine import CommandFailed, EngineUnavailable, why_not
from debian_packages import unpacked

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
    """A registry over plain HTTP that allows everything; to the engines it is Docker Hub."""

    address: str
    """Host and port, as image names begin: `127.0.0.1:PORT`."""


@dataclass(frozen=True)
class Engine:
    """A running engine, and what programs need to use it."""

    store: Store
    host: str
    """`unix://...`, as in `DOCKER_HOST`."""
    environment: Mapping[str, str]
    """A whole environment in which `docker`, buildx and docker-py use this engine."""
    containerd_address: str
    """Socket of the engine's own containerd. A containerd store's images are in `moby` there."""

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in the engine's environment and return what it printed.

        Raises:
            CommandFailed: it fails and `check` is set; the text has what it printed.
        """
        return machine.run(command, environment=self.environment, check=check)

    def ctr(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run containerd's client `ctr` on the engine's containerd, as `run` does."""
        return self.run("ctr", f"--address={self.containerd_address}", *arguments, check=check)


@final
@dataclass(frozen=True)
class PrivateDocker:
    """What one `start` brought up. As a context manager it stops that at the end."""

    folder: Path
    """Home of all its files, `dockerd-*.log` among them."""
    suite: str
    engines: Mapping[Store, Engine]
    registry: Registry
    docker_version: str
    buildx_version: str

    def stop(self) -> None:
        """Remove everything but the cached packages; a second time this does nothing.

        Raises:
            EngineUnavailable: a process does not die.
            CommandFailed: the machine refuses to give up a link or a mount.
        """
        with machine.lock():
            _clear(self.folder)

    def __enter__(self) -> PrivateDocker:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()


@dataclass(frozen=True)
class _State:
    """What is to be known of a start later, by other processes too."""

    suite: str
    stores: list[Store]
    packages: str
    network: str
    registry: str
    owner: tuple[int, str] | None
    """Process without which this is a leftover, and when that started; None if detached."""
    docker_version: str = ""
    buildx_version: str = ""

    @classmethod
    def read(cls, folder: Path) -> _State | None:
        """Read the state of the start in `folder`; None if it did not come as far as to have one."""
        with contextlib.suppress(FileNotFoundError):
            return cls(**json.loads((folder / "state.json").read_text()))
        return None

    def write(self, folder: Path) -> None:
        """Keep this as the state of the start in `folder`."""
        part = folder / "state.json.part"
        part.write_text(json.dumps(dataclasses.asdict(self)))
        part.rename(folder / "state.json")


def start(suite: str = "trixie", stores: Sequence[Store] = STORES, *, detached: bool = False) -> PrivateDocker:
    """Bring up an engine for each store, and a registry with a two-platform `busybox`.

    What an earlier start left that was killed is removed.

    Args:
        suite: the suite of Debian's archive to take Docker from: `trixie` or `sid`.
        stores: the image stores to have engines of.
        detached: whether to outlive this process; else the daemons end with the calling thread.

    Raises:
        EngineUnavailable: this failed; whatever had been started is gone again.
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
    """Start everything with `folder` as its home; `_clear` undoes it from wherever this stops."""
    ip = _ip(packages)
    network = machine.free_network(ip, 19)
    state = _State(
        suite=suite,
        stores=list(stores),
        packages=str(packages),
        network=str(network),
        registry=f"127.0.0.1:{machine.free_port()}",
        # Of this process until all is up, detached or not.
        owner=(os.getpid(), machine.started(os.getpid())),
    )
    state.write(folder)
    machine.emulate_arm64(folder.name, packages / "amd64/usr/bin/qemu-aarch64")
    daemon = functools.partial(machine.start_daemon, environment=_environment(packages), detached=detached)
    registry = daemon(_registry_command(folder, state), folder / "registry.log")
    dockerds = {}
    for store, block in zip(stores, network.subnets(new_prefix=20), strict=False):
        # Half of the block is for networks that users of the engine create.
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
    """Write the registry's configuration and return the command that runs it."""
    storage = {"filesystem": {"rootdirectory": f"{folder}/registry"}, "delete": {"enabled": True}}
    config = {"version": "0.1", "storage": storage, "http": {"addr": state.registry}}
    # The registry reads YAML, which JSON is.
    path = folder / "registry.json"
    path.write_text(json.dumps(config))
    return ["docker-registry", "serve", str(path)]


def _dockerd_command(folder: Path, state: _State, store: Store, bridge: str, pool: ipaddress.IPv4Network) -> list[str]:
    """Write an engine's and its client's configuration; return the command that runs the engine."""
    home = folder / store
    plugin = "libexec/docker/cli-plugins/docker-buildx"
    client = home / "client" / "cli-plugins" / "docker-buildx"
    client.parent.mkdir(parents=True)
    client.symlink_to(Path(state.packages) / "amd64/usr" / plugin)
    config = {
        "features": {"containerd-snapshotter": store == "containerd"},
        "registry-mirrors": [f"http://{state.registry}"],
        # Without a bridge of their own, engines delete each other's.
        "bridge": bridge,
        "default-address-pools": [{"base": str(pool), "size": 24}],
        # The machine has one NAT table, in which two engines get in each other's way.
        "iptables": False,
        "ip6tables": False,
        # Forwarding would turn the machine into a router, and without iptables an open one.
        "ip-forward": False,
        # So that `_clear` finds the containers' groups.
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
    """Describe a start from its state."""
    return PrivateDocker(
        folder=folder,
        suite=state.suite,
        engines=MappingProxyType(_engines(folder, state)),
        registry=Registry(state.registry),
        docker_version=state.docker_version,
        buildx_version=state.buildx_version,
    )


def _engines(folder: Path, state: _State) -> dict[Store, Engine]:
    """Describe the engines of a start, for users with this process's environment."""
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
    """Return this process's environment with the unpacked programs, and no one's Docker settings."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("DOCKER_", "BUILDX_", "BUILDKIT_"))
    }
    usr = packages / "amd64/usr"
    path = environment.get("PATH", os.defpath)
    environment["PATH"] = os.pathsep.join([f"{usr}/bin", f"{usr}/sbin", path])
    return environment


def _ip(packages: Path) -> list[str]:
    """Return the command `ip`: the machine's if it has one, else busybox's."""
    ip = shutil.which("ip")
    return [ip] if ip else [f"{packages}/amd64/usr/bin/busybox", "ip"]


def _clear(folder: Path) -> None:
    """Remove all traces of the start in `folder`, however far it came; the folder goes last."""
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
    """Remove what is left of starts whose process is gone, and return their folders."""
    leftovers = []
    for folder in machine.folders(_NAME):
        state = _State.read(folder)
        if not state or not _is_up(folder, state):
            _clear(folder)
            leftovers.append(folder)
    return leftovers


def _is_up(folder: Path, state: _State) -> bool:
    """Return whether somebody can still want the start in `folder`."""
    if state.owner:
        return machine.started(state.owner[0]) == state.owner[1]
    return bool(machine.daemons(folder))


def _log_tails(folder: Path) -> str:
    """Return the last lines of every daemon's log, for an error's text."""
    return "".join(
        f"\n--- {log.name}:\n" + "\n".join(log.read_text(errors="replace").splitlines()[-8:])
        for log in sorted(folder.glob("*.log"))
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line: `start`, `stop` or `status`; return the exit code."""
    parser = argparse.ArgumentParser(description="Docker Engines for trying things out.")
    commands = parser.add_subparsers(dest="command", required=True)
    starting = commands.add_parser("start", help='bring engines up: eval "$(... start)"')
    starting.add_argument("--suite", choices=["trixie", "sid"], default="trixie")
    starting.add_argument("--store", choices=[*STORES, "both"], default="both")
    commands.add_parser("stop", help="remove all that start brought up, and leftovers")
    commands.add_parser("status", help="show what is up")
    options = parser.parse_args(arguments)
    try:
        _obey(options)
    except (EngineUnavailable, CommandFailed, OSError) as error:
        print(f"ERROR {error}", file=sys.stderr)
        return 1
    return 0


def _obey(options: argparse.Namespace) -> None:
    if reason := why_not():
        raise EngineUnavailable(reason)
    if options.command == "start":
        stores = STORES if options.store == "both" else (options.store,)
        print(_exports(_detached(options.suite, stores)))
    elif options.command == "stop":
        _stop_detached()
    else:
        print("\n".join(map(_describe, machine.folders(_NAME))) or "nothing is up")


def _detached(suite: str, stores: Sequence[Store]) -> PrivateDocker:
    """Return what an earlier `start` of this kind brought up, or start."""
    for folder in machine.folders(_NAME):
        state = _State.read(folder)
        if not state or state.owner or not _is_up(folder, state):
            continue
        if state.suite == suite and {*stores} <= {*state.stores}:
            print(f"{folder} is up already", file=sys.stderr)
            return _running(folder, state)
    print(f"starting Docker of {suite}, for which packages are fetched the first time", file=sys.stderr)
    docker = start(suite, stores, detached=True)
    versions = f"Docker {docker.docker_version}, buildx {docker.buildx_version}"
    print(f"{versions}; log files in {docker.folder}", file=sys.stderr)
    return docker


def _exports(docker: PrivateDocker) -> str:
    """Return shell commands that make an engine of `docker` the shell's own."""
    # Where there are both, the one that Docker Desktop and fresh installations have.
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
    print("\n".join(f"stopped {folder}" for folder in gone) or "nothing was up", file=sys.stderr)


def _describe(folder: Path) -> str:
    """Return a line about the start in `folder`."""
    state = _State.read(folder)
    if not state:
        return f"{folder}: incomplete"
    stores = " and ".join(state.stores)
    owner = f"of process {state.owner[0]}" if state.owner else "detached"
    versions = f"Docker {state.docker_version}, buildx {state.buildx_version}"
    return f"{folder}: {versions} from {state.suite}, {stores}, registry {state.registry}, {owner}"


if __name__ == "__main__":
    sys.exit(main())
