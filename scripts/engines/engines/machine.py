"""What private engines need of the machine around them, each with its undoing.

Nothing here remembers what it did. A trace carries the name of the start that it belongs to, or an
address of its network, so that whoever cleans up finds it by looking: also after a crash, and
beside other starts that go on.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import os
import platform
import re
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

# Where the folder of a start may lie, best first. Short, because it holds unix sockets, whose paths
# end at 107 characters; and none of the machine's own, so that a sweep knows where to look.
_BASES = (Path("/var/lib"), Path("/tmp"), Path("/dev/shm"))

# Addresses for engines: neither Docker's own 172.16.0.0/12, nor what a private network is likely to
# use; the second is for machines whose VPN claims all of 10.0.0.0/8.
_ADDRESSES = ("10.192.0.0/10", "198.18.0.0/15")

_BINFMT = Path("/proc/sys/fs/binfmt_misc")
# How an ELF executable for 64-bit Arm begins, and which of these bits count: as Debian has them.
_AARCH64 = r"\x7fELF\x02\x01\x01" + r"\x00" * 9 + r"\x02\x00\xb7\x00"
_AARCH64_MASK = r"\xff" * 7 + r"\x00" + r"\xff" * 8 + r"\xfe\xff\xff\xff"

_CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21}

# The first argument of what `start_daemon` starts, from the outside in.
_DAEMONS = ("setpriv", "unshare", "tini-static", "dockerd", "docker-registry")

_children: list[subprocess.Popen[bytes]] = []


class EngineUnavailable(RuntimeError):
    """No private engine can be had; the text says what failed and what to do about it."""


class CommandFailed(RuntimeError):
    """A command could not be run or ended with another code than 0; the text has what it said."""


def run(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and return what it printed.

    Args:
        command: the program and its arguments.
        environment: all of its environment; this process's unless given.
        folder: where to run it.
        check: whether a failure of the command is one of this function.

    Raises:
        CommandFailed: it cannot be run, or fails and `check` is set.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, check=False)
    except OSError as error:
        raise CommandFailed(f"cannot run {command[0]}: {error}") from error
    if check and done.returncode:
        said = (done.stderr or done.stdout).strip()[-3000:]
        raise CommandFailed(f"`{' '.join(command)}` ended with {done.returncode}: {said}")
    return done


def why_not() -> str | None:
    """Return a sentence that says why private engines cannot run here, or None if they can."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return f"private engines need Linux on x86_64; this is {sys.platform}, {platform.machine()}"
    if not re.search(r"^ID=\"?debian\b", Path("/etc/os-release").read_text(), re.MULTILINE):
        return "private engines come from Debian's archive, and /etc/os-release names another system"
    missing = [name for name in ("apt-get", "dpkg", "unshare", "setpriv") if not shutil.which(name)]
    if missing:
        return f"private engines need the programs {', '.join(missing)}: install them"
    if os.geteuid() != 0:
        return "private engines need root: run this with sudo, or set DOCKER_HOST to an engine"
    status = Path("/proc/self/status").read_text()
    capabilities = int(status.partition("CapEff:")[2].split()[0], 16)
    lost = [name for name, bit in _CAPABILITIES.items() if not capabilities >> bit & 1]
    if lost:
        return f"private engines need {', '.join(lost)}: in a container, run that as privileged"
    return None


@contextlib.contextmanager
def lock() -> Iterator[None]:
    """Let one process at a time change what the machine has of ours; others wait."""
    # A folder can be locked as well as a file, and this one needs no cleaning up.
    descriptor = os.open(_BASES[0], os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def new_folder(prefix: str) -> Path:
    """Create a folder whose file system can be the upper layer of an overlay.

    Raises:
        EngineUnavailable: there is none, as in a container without a volume.
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
        f"no folder takes overlay mounts, of which image stores are made; in a container, mount a "
        f"volume on {_BASES[0]} ({'; '.join(refusals)})"
    )


def _try_overlay(folder: Path) -> None:
    """Mount an overlay in `folder`, in a namespace that ends with the command."""
    for name in ("lower", "upper", "scratch", "merged"):
        (folder / name).mkdir(parents=True)
    layers = f"lowerdir={folder}/lower,upperdir={folder}/upper,workdir={folder}/scratch"
    run(["unshare", "--mount", "mount", "-t", "overlay", "-o", layers, "overlay", f"{folder}/merged"])
    shutil.rmtree(folder)


def folders(prefix: str) -> list[Path]:
    """Return the folders that `new_folder` made and nobody removed."""
    return [found for base in _BASES for found in sorted(base.glob(f"{prefix}-????????"))]


def start_daemon(
    command: Sequence[str], log: Path, environment: Mapping[str, str], *, detached: bool
) -> subprocess.Popen[bytes]:
    """Start a daemon in mount and process namespaces of its own, with `tini-static` to reap.

    Its mounts and whatever it starts, containers included, end with it. Fixed paths in /run and
    /opt (containerd's shims and plugins) are not the machine's, and so not another engine's.

    Args:
        command: a program on the environment's PATH, and arguments that hold a path of the folder
            of its start, by which `stop_daemons` knows it.
        log: file for what it prints.
        environment: all of its environment.
        detached: whether it outlives the thread that calls this.
    """
    # Without a new session, Ctrl-C in the terminal would reach the daemon before the tests' end.
    tied = [] if detached else ["setpriv", "--pdeathsig", "KILL", "--"]
    namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]
    private = 'mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /opt && exec tini-static -- "$@"'
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


def wait_for(what: str, daemon: subprocess.Popen[bytes], probe: Callable[[], object], seconds: int = 60) -> None:
    """Return when `probe` no longer raises an error of the network or of a command.

    Raises:
        EngineUnavailable: the daemon ends before, or time runs out.
    """
    end = time.monotonic() + seconds
    while refusal := _refusal(probe):
        if daemon.poll() is not None:
            raise EngineUnavailable(f"{what} ended with {daemon.returncode}") from refusal
        if time.monotonic() > end:
            raise EngineUnavailable(f"{what} gave no answer in {seconds} s: {refusal}") from refusal
        time.sleep(0.05)


def _refusal(probe: Callable[[], object]) -> Exception | None:
    try:
        probe()
    except (OSError, CommandFailed) as error:
        return error
    return None


def stop_daemons(folder: Path) -> None:
    """Kill the daemons of the start in `folder`, and return when all of their processes are gone.

    Raises:
        EngineUnavailable: one does not die.
    """
    while found := daemons(folder):
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                _kill(pid)
    _children[:] = [child for child in _children if child.poll() is None]


def _kill(pid: int) -> None:
    """Kill a process and wait for its end; not asked to end, as nothing of it is to be kept."""
    descriptor = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        # The first process of a namespace is gone when all others in there are.
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        if not poll.poll(30_000):
            raise EngineUnavailable(f"process {pid} does not die; see `ps -f {pid}`")
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
    """Return when a process started, or "" if there is none: pids come round, these times do not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def remove_control_groups(name: str) -> None:
    """Remove the control groups called `name`, in which no process is left."""
    root = Path("/sys/fs/cgroup")
    for group in (root / name, *root.glob(f"*/{name}")):
        for folder, _, _ in os.walk(group, topdown=False):
            os.rmdir(folder)


def emulate_arm64(name: str, emulator: Path) -> None:
    """Have the kernel run arm64 programs, in containers too, through an entry called `name`.

    Every start has one of its own: each may go without regard to the others.
    """
    if not (_BINFMT / "register").exists():
        # The mount's source is what tells later that it is ours to undo.
        run(["mount", "--no-mtab", "-t", "binfmt_misc", "prefect-docker-attest", str(_BINFMT)])
    # F opens the emulator here and now, so that containers need not have it. The rest is Debian's:
    # P keeps argv[0], O hands over the opened program, C obeys its set-uid bits.
    rule = f":{name}:M::{_AARCH64}:{_AARCH64_MASK}:{emulator}:POCF"
    (_BINFMT / "register").write_text(rule)


def stop_emulating(name: str) -> None:
    """Undo `emulate_arm64`."""
    entry = _BINFMT / name
    if entry.exists():
        entry.write_text("-1")
    ours = f"prefect-docker-attest {_BINFMT} " in Path("/proc/mounts").read_text()
    if ours and {each.name for each in _BINFMT.iterdir()} == {"register", "status"}:
        run(["umount", "--no-mtab", str(_BINFMT)])


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def free_network(ip: Sequence[str], prefix: int) -> ipaddress.IPv4Network:
    """Return a range of addresses that nothing on this machine has or has a route to.

    Args:
        ip: the command `ip`.
        prefix: the size of the range, as the length of its prefix.

    Raises:
        EngineUnavailable: all are taken.
    """
    used = [address.network for _, address in _addresses(ip)]
    for line in run([*ip, "-4", "route"]).stdout.splitlines():
        target = re.match(r"(?:\w+ )?([\d.]+(?:/\d+)?) ", line)
        if target:
            used.append(ipaddress.IPv4Network(target[1]))
    for addresses in map(ipaddress.IPv4Network, _ADDRESSES):
        for network in addresses.subnets(new_prefix=prefix):
            # Routes wider than /8 are a VPN's way to say `default`.
            if not any(network.overlaps(other) for other in used if other.prefixlen >= 8):
                return network
    raise EngineUnavailable(f"this machine has routes to all of {' and '.join(_ADDRESSES)}")


def add_bridge(ip: Sequence[str], name: str, network: ipaddress.IPv4Network) -> None:
    """Create a bridge with the first address of `network`."""
    run([*ip, "link", "add", name, "type", "bridge"])
    run([*ip, "addr", "add", f"{network[1]}/{network.prefixlen}", "dev", name])
    run([*ip, "link", "set", name, "up"])


def remove_links(ip: Sequence[str], network: ipaddress.IPv4Network) -> None:
    """Remove the links that have an address in `network`, and what is plugged into them."""
    for name, address in _addresses(ip):
        if address.ip in network:
            for port in Path(f"/sys/class/net/{name}/brif").glob("*"):
                # The kernel removes it too, in its own time, as its container has ended.
                run([*ip, "link", "del", port.name], check=False)
            run([*ip, "link", "del", name])


def _addresses(ip: Sequence[str]) -> list[tuple[str, ipaddress.IPv4Interface]]:
    """Return links and their addresses, from lines like `2: eth0    inet 192.0.2.2/24 ...`."""
    lines = run([*ip, "-o", "-4", "addr"]).stdout
    pairs = re.findall(r"^\d+: ([^\s:@]+)\S* +inet ([\d./]+)", lines, re.MULTILINE)
    return [(name, ipaddress.IPv4Interface(address)) for name, address in pairs]
