"""Changes the machine for private engines, and undoes each change.

This module keeps no list of its changes. Each change contains the folder of its start or an address of its network. So
the cleanup finds the changes of one start, even after a crash, and while other starts are running.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import os
import platform
import re
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

# Folders that can contain the folder of a start, best first. They are short, because the paths of unix sockets have at
# most 107 characters. They do not depend on the environment, so that a cleanup finds all starts.
_BASES = (Path("/var/lib"), Path("/tmp"), Path("/dev/shm"))

# Addresses for engines. They avoid Docker's own 172.16.0.0/12 and addresses that private networks often use. The second
# range is for machines with a VPN that uses all of 10.0.0.0/8.
_ADDRESSES = ("10.192.0.0/10", "198.18.0.0/15")

_BINFMT = Path("/proc/sys/fs/binfmt_misc")
# The first bytes of an ELF executable for 64-bit Arm, and the mask for them, as in Debian's qemu-user-binfmt.
_AARCH64 = r"\x7fELF\x02\x01\x01" + r"\x00" * 9 + r"\x02\x00\xb7\x00"
_AARCH64_MASK = r"\xff" * 7 + r"\x00" + r"\xff" * 8 + r"\xfe\xff\xff\xff"

_CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21}

# The programs that `start_daemon` starts. Each one starts the next.
_DAEMONS = ("setpriv", "unshare", "tini", "dockerd", "docker-registry")

_children: list[subprocess.Popen[bytes]] = []


class EngineUnavailable(RuntimeError):
    """No private engine can be started. The text says what failed and what to do about it."""


class CommandFailed(RuntimeError):
    """A command could not be run, or its exit code is not 0. The text contains its error output."""


def run(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run a command, and return its exit code and output.

    Args:
        command: the program and its arguments.
        environment: the whole environment of the command; `None` for the environment of this process.
        folder: current directory of the command.
        check: whether to raise an error if the command fails.

    Raises:
        CommandFailed: the command cannot be run, or it fails and `check` is set.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, check=False)
    except OSError as error:
        raise CommandFailed(f"cannot run {command[0]}: {error}") from error
    if check and done.returncode:
        printed = (done.stderr or done.stdout).strip()[-3000:]
        raise CommandFailed(f"`{' '.join(command)}` failed with exit code {done.returncode}: {printed}")
    return done


def why_not() -> str | None:
    """Return a sentence that says why private engines cannot run here; None if they can."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return f"private engines need Linux on x86_64; this machine has {sys.platform} on {platform.machine()}"
    if not re.search(r"^ID=\"?debian\b", Path("/etc/os-release").read_text(), re.MULTILINE):
        return "private engines need Debian; /etc/os-release names another system"
    missing = [name for name in ("apt-get", "dpkg", "unshare", "setpriv") if not shutil.which(name)]
    if missing:
        return f"private engines need the programs {', '.join(missing)}: install them"
    if os.geteuid() != 0:
        return "private engines need root: run this with sudo, or set DOCKER_HOST to an engine"
    status = Path("/proc/self/status").read_text()
    capabilities = int(status.partition("CapEff:")[2].split()[0], 16)
    lost = [name for name, bit in _CAPABILITIES.items() if not capabilities >> bit & 1]
    if lost:
        return f"private engines need {', '.join(lost)}: run the container with --privileged"
    return None


@contextlib.contextmanager
def lock() -> Iterator[None]:
    """Let only one process at a time start or remove private engines. Other processes wait."""
    # A folder can be locked like a file. This folder always exists, so no lock file has to be removed.
    descriptor = os.open(_BASES[0], os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def new_folder(prefix: str) -> Path:
    """Create a folder on a file system that can be the upper layer of an overlay.

    Raises:
        EngineUnavailable: there is no such file system, as in a container without a volume.
    """
    refusals = []
    for base in _BASES:
        folder = Path(tempfile.mkdtemp(prefix=f"{prefix}-", dir=base))
        try:
            _try_overlay(folder / "probe")
        except CommandFailed as error:
            refusals.append(f"{base}: {error}")
            shutil.rmtree(folder)
        else:
            return folder
    raise EngineUnavailable(
        f"image stores need overlay mounts, which no folder here supports. In a container, mount a volume on "
        f"{_BASES[0]} ({'; '.join(refusals)})"
    )


def _try_overlay(folder: Path) -> None:
    """Mount an overlay in `folder`. The mount is in a namespace that ends with the command."""
    for name in ("lower", "upper", "scratch", "merged"):
        (folder / name).mkdir(parents=True)
    layers = f"lowerdir={folder}/lower,upperdir={folder}/upper,workdir={folder}/scratch"
    run(["unshare", "--mount", "mount", "-t", "overlay", "-o", layers, "overlay", f"{folder}/merged"])
    shutil.rmtree(folder)


def folders(prefix: str) -> list[Path]:
    """Return the existing folders that `new_folder` made."""
    return [found for base in _BASES for found in sorted(base.glob(f"{prefix}-????????"))]


def start_daemon(
    command: Sequence[str], log: Path, environment: Mapping[str, str], *, detached: bool
) -> subprocess.Popen[bytes]:
    """Start a daemon in its own mount and process namespaces, with `tini` to reap processes.

    Its mounts and its child processes, including containers, end with it. It has its own /run and /opt, so that two
    engines do not share containerd's fixed paths there.

    Args:
        command: a program on the environment's PATH, and its arguments. One argument must contain the folder of the
            start, by which `stop_daemons` finds the daemon.
        log: file for the output.
        environment: the whole environment of the daemon.
        detached: whether the daemon continues after the calling thread has ended.
    """
    # Without a new session, Ctrl-C in the terminal would end the daemon before the tests.
    tied = [] if detached else ["setpriv", "--pdeathsig", "KILL", "--"]
    namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]
    private = 'mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /opt && exec tini -- "$@"'
    with log.open("wb") as output:
        child = subprocess.Popen(
            [*tied, *namespaces, "sh", "-c", private, "sh", *command],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    _children.append(child)
    return child


def wait_for(what: str, daemon: subprocess.Popen[bytes], probe: Callable[[], object], seconds: int = 180) -> None:
    """Wait until `probe` succeeds.

    Args:
        what: name of the daemon in error messages.
        daemon: the process that must answer.
        probe: function that raises an OSError or a CommandFailed while the daemon does not answer.
        seconds: maximum time to wait.

    Raises:
        EngineUnavailable: the daemon ends, or does not answer in time.
    """
    end = time.monotonic() + seconds
    while error := _error_of(probe):
        if daemon.poll() is not None:
            raise EngineUnavailable(f"{what} ended with exit code {daemon.returncode}") from error
        if time.monotonic() > end:
            raise EngineUnavailable(f"{what} did not answer within {seconds} seconds: {error}") from error
        time.sleep(0.05)


def _error_of(probe: Callable[[], object]) -> Exception | None:
    try:
        probe()
    except (OSError, CommandFailed) as error:
        return error
    return None


def stop_daemons(folder: Path) -> None:
    """Kill the daemons of the start in `folder`, and wait until all their processes have ended.

    Raises:
        EngineUnavailable: a process does not end.
    """
    while found := daemons(folder):
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                _kill(pid)
    _children[:] = [child for child in _children if child.poll() is None]


def _kill(pid: int) -> None:
    """Kill a process, and wait until it has ended."""
    descriptor = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        # The first process of a namespace ends after all other processes in the namespace.
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        if not poll.poll(30_000):
            raise EngineUnavailable(f"process {pid} does not end; see `ps -f {pid}`")
    finally:
        os.close(descriptor)


def daemons(folder: Path) -> list[int]:
    """Return the process ids of the daemons of the start in `folder`, and of their wrappers."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            arguments = (process / "cmdline").read_bytes().split(b"\0")
            program = os.path.basename(os.fsdecode(arguments[0]))
            if program in _DAEMONS and any(os.fsencode(folder) in argument for argument in arguments):
                found.append(int(process.name))
    return found


def started(pid: int) -> str:
    """Return the start time of a process; "" if there is none. It distinguishes processes with the same pid."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def remove_control_groups(name: str) -> None:
    """Remove the control groups called `name`. They must not contain processes."""
    root = Path("/sys/fs/cgroup")
    for group in (root / name, *root.glob(f"*/{name}")):
        for folder, _, _ in os.walk(group, topdown=False):
            os.rmdir(folder)


def emulate_arm64(name: str, emulator: Path) -> None:
    """Register an emulator with the kernel, so that it runs arm64 programs, also in containers.

    Args:
        name: name of the kernel's entry. Every start has its own entry, so that it can be removed independently.
        emulator: path of the emulator.
    """
    if not (_BINFMT / "register").exists():
        # The source of this mount shows `stop_emulating` that this package mounted it.
        run(["mount", "--no-mtab", "-t", "binfmt_misc", "prefect-docker-attest", str(_BINFMT)])
    # F opens the emulator now, so that it does not have to exist in containers. The other flags are Debian's: P keeps
    # argv[0], O passes the opened program, C applies the program's set-uid bits.
    rule = f":{name}:M::{_AARCH64}:{_AARCH64_MASK}:{emulator}:POCF"
    (_BINFMT / "register").write_text(rule)


def stop_emulating(name: str) -> None:
    """Undo `emulate_arm64`."""
    entry = _BINFMT / name
    if entry.exists():
        entry.write_text("-1")
    ours = f"prefect-docker-attest {_BINFMT} " in Path("/proc/mounts").read_text()
    if ours and {file.name for file in _BINFMT.iterdir()} == {"register", "status"}:
        run(["umount", "--no-mtab", str(_BINFMT)])


def free_port() -> int:
    """Return an unused TCP port of 127.0.0.1, which no program gets by chance before it is used."""
    while True:
        # Kernels give ports above these to programs that do not name one.
        port = 20_000 + secrets.randbelow(12_768)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


def free_network(ip: Sequence[str], prefix: int) -> ipaddress.IPv4Network:
    """Return a range of addresses that this machine does not use and has no route to.

    Args:
        ip: the command `ip`.
        prefix: length of the range's prefix, which determines its size.

    Raises:
        EngineUnavailable: all ranges are in use.
    """
    used = [address.network for _, address in _addresses(ip)]
    for line in run([*ip, "-4", "route"]).stdout.splitlines():
        target = re.match(r"(?:\w+ )?([\d.]+(?:/\d+)?) ", line)
        if target:
            used.append(ipaddress.IPv4Network(target[1]))
    for addresses in map(ipaddress.IPv4Network, _ADDRESSES):
        for network in addresses.subnets(new_prefix=prefix):
            # Some VPNs use routes wider than /8 as default routes.
            if not any(network.overlaps(other) for other in used if other.prefixlen >= 8):
                return network
    raise EngineUnavailable(f"this machine has routes to all of {' and '.join(_ADDRESSES)}")


def add_bridge(ip: Sequence[str], name: str, network: ipaddress.IPv4Network) -> None:
    """Create a bridge with the first address of `network`."""
    run([*ip, "link", "add", name, "type", "bridge"])
    run([*ip, "addr", "add", f"{network[1]}/{network.prefixlen}", "dev", name])
    run([*ip, "link", "set", name, "up"])


def remove_links(ip: Sequence[str], network: ipaddress.IPv4Network) -> None:
    """Remove the links that have an address in `network`, and the interfaces that are connected to them."""
    for name, address in _addresses(ip):
        if address.ip in network:
            for port in Path(f"/sys/class/net/{name}/brif").glob("*"):
                # The container has ended, so the kernel may remove this interface at the same time.
                run([*ip, "link", "del", port.name], check=False)
            run([*ip, "link", "del", name])


def _addresses(ip: Sequence[str]) -> list[tuple[str, ipaddress.IPv4Interface]]:
    """Return links and their addresses, from lines such as `2: eth0    inet 192.0.2.2/24 ...`."""
    lines = run([*ip, "-o", "-4", "addr"]).stdout
    pairs = re.findall(r"^\d+: ([^\s:@]+)\S* +inet ([\d./]+)", lines, re.MULTILINE)
    return [(name, ipaddress.IPv4Interface(address)) for name, address in pairs]
