"""Runs a command on a bare machine: a minimal Debian in a folder, with only Python and git.

    scripts/bare-machine trixie scripts/tox
    scripts/bare-machine sid sh -c 'scripts/tox -e tests -- tests/unit'

The committed state of this checkout is cloned into the machine. The machine has its own processes and mounts, which end
when this process ends, even if it is killed. It shares kernel, network and devices with the host. The folder is removed
at the end. If this process was killed, the next run removes the folder.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from engines import machine
from engines.installers import configure, environment
from engines.machine import CommandFailed, EngineUnavailable, why_not
from engines.packages import mirror_of_the_machine
from engines.progress import step

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_NAME = "prefect-docker-attest-bare"
_PACKAGES = ("python3", "ca-certificates", "git")
_SCRIPTS = Path("/usr/share/debootstrap/scripts")

# When this process ends, the kernel kills `unshare`, then the first process of the namespace, and then all other
# processes in the namespace.
_NAMESPACES = (
    *("setpriv", "--pdeathsig", "KILL", "--"),
    *("unshare", "--mount", "--propagation=private", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--"),
)

# The first process of the machine. It remains a shell, which reaps orphaned processes.
_INIT = """
mount --bind "$1" "$1"
cd "$1"
mount -t proc proc proc
mount -t binfmt_misc binfmt_misc proc/sys/fs/binfmt_misc
mount --rbind /sys sys
mount --rbind /dev dev
mount -t tmpfs tmpfs dev/shm
mount -t tmpfs tmpfs run
mkdir -p .host
pivot_root . .host
umount --lazy .host
rmdir .host
cd /root/project
unset OLDPWD
shift
"$@" || exit
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code of the command."""
    parser = argparse.ArgumentParser(prog="bare-machine", description="Run a command on a minimal Debian.")
    parser.add_argument("suite", help="release of Debian: bookworm, trixie, forky or sid")
    parser.add_argument(
        "command", nargs=argparse.REMAINDER, help="command to run in a clone of this checkout's committed state"
    )
    options = parser.parse_args(arguments)
    if not options.command:
        parser.error("the command is missing, for example scripts/tox")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _exit)
    try:
        with _root_folder() as (root, lock):
            _install(root, options.suite)
            command = " ".join(options.command)
            print(f"Debian {options.suite} $ {command}", file=sys.stderr, flush=True)
            return _run(root, options.command, lock)
    except (CommandFailed, EngineUnavailable, OSError) as error:
        print(f"ERROR {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _exit(number: int, _: object) -> None:
    # This raises SystemExit, so that the folder is removed.
    sys.exit(128 + number)


@contextlib.contextmanager
def _root_folder() -> Iterator[tuple[Path, int]]:
    """Give a new folder, and a descriptor that locks it. The folder is in use while a process has the descriptor."""
    if reason := why_not():
        raise EngineUnavailable(reason)
    with machine.lock():
        for leftover in machine.folders(_NAME):
            lock = os.open(leftover, os.O_RDONLY)
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(leftover, lock)
            os.close(lock)
        root = machine.new_folder(_NAME)
        lock = os.open(root, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield root, lock
    finally:
        # Processes of the machine share the lock, so this waits until all of them have ended.
        os.close(lock)
        lock = os.open(root, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        _remove(root, lock)
        os.close(lock)


def _install(root: Path, suite: str) -> None:
    """Install a minimal Debian into `root`, and clone this checkout into /root/project there."""
    if not shutil.which("debootstrap"):
        with step("Installing debootstrap"):
            machine.run(["apt-get", "update"])
            machine.run(["apt-get", "install", "--yes", "--no-install-recommends", "debootstrap"])
    # debootstrap's script for sid also works for releases that are newer than debootstrap.
    script = [] if (_SCRIPTS / suite).exists() else [str(_SCRIPTS / "sid")]
    root.chmod(0o755)
    with step(f"Installing a minimal Debian {suite} in {root}"):
        options = ["--variant=minbase", f"--include={','.join(_PACKAGES)}"]
        mirror = mirror_of_the_machine().uri
        machine.run([*_NAMESPACES, "debootstrap", *options, suite, str(root), mirror, *script])
        configure(root)
        machine.run([*_NAMESPACES, "chroot", str(root), "update-ca-certificates"])
    checkout = machine.run(["git", "rev-parse", "--show-toplevel"], folder=Path(__file__).parent).stdout.strip()
    machine.run(["git", "clone", "--quiet", "--depth=1", f"file://{checkout}", str(root / "root/project")])


def _run(root: Path, command: Sequence[str], lock: int) -> int:
    """Run a command on the machine in `root`, end all its processes, and return its exit code."""
    init = [*_NAMESPACES, "sh", "-euc", _INIT, "sh", str(root), *command]
    process = subprocess.Popen(init, env=environment(root), pass_fds=[lock])
    try:
        return process.wait()
    finally:
        process.kill()
        process.wait()


def _remove(root: Path, lock: int) -> None:
    """Remove the folder of a machine without processes, and the traces of its private engines."""
    if any((root / "var/lib").glob("prefect-docker-attest-*")):
        # The engines' bridges and emulators belong to the network and the kernel of the host.
        _run(root, ["scripts/private-docker", "stop"], lock)
    machine.run(["rm", "--recursive", "--force", "--one-file-system", str(root)])


if __name__ == "__main__":
    sys.exit(main())
