"""Emulates an arm64 machine: a Debian with Docker and Python, which runs one program and powers off.

The machine's packages are unpacked, but their scripts are not run: to emulate these takes ten minutes and more.
`_configure` writes the few files that the scripts would write. So the machine is made in a minute. It is kept in the
cache folder. What a run writes to its disk is not kept.

Nothing is installed on this machine. The emulator and the Python that compiles modules come from packages, too, and run
with their own C library.
"""

from __future__ import annotations

import lzma
import os
import shutil
import subprocess
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engines import machine
from engines.machine import EngineUnavailable
from engines.packages import cache_folder, downloaded, new_in_cache, unpacked
from engines.progress import step

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

SUITE = "trixie"
"""The release of Debian in the machine."""
PYTHON = "python3.13"
"""Its Python."""
PACKAGES = f"lib/{PYTHON}/dist-packages"
"""The path of the Python packages in the files of `run`."""
PROGRAM = "bin/start"
"""The path of the program in the files of `run`."""

_PACKAGES = (
    *("base-files", "base-passwd", "bash", "coreutils", "dash", "findutils", "grep", "gzip", "libc-bin", "sed", "tar"),
    *("linux-image-cloud-arm64", "kmod", "mount", "systemd-sysv", "udev", "util-linux", "dbus", "iproute2", "iptables"),
    *("docker.io", "docker-cli", "docker-buildx", "docker-registry", "qemu-user-binfmt", "ca-certificates", "procps"),
    *("python3", "libstdc++6"),
)
_TOOLS = ("qemu-system-arm", "python3", "e2fsprogs")
# A part of the cache folder's name. Increase it when the lists above or the files below change.
_REVISION = 1
_DISK = "6G"
_HOST = "10.0.2.2"  # the address of this machine's 127.0.0.1 in the emulated machine
_LAST_LINES = 60  # of the console, in errors

# The files that the packages' scripts would write, and the settings of this machine.
_FILES: Mapping[str, str] = {
    "etc/hostname": "emulated\n",
    "etc/hosts": "127.0.0.1 localhost emulated\n::1 localhost\n",
    "etc/machine-id": f"{'0' * 31}1\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n",
    "etc/systemd/network/10-any.network": (
        "[Match]\nName=e*\n\n[Network]\nAddress=10.0.2.15/24\nGateway=10.0.2.2\nDNS=10.0.2.3\nLinkLocalAddressing=no\n"
    ),
    "etc/systemd/system/program.service": (
        "[Unit]\nAfter=basic.target docker.socket\nRequires=docker.socket\n"
        "SuccessAction=poweroff-force\nFailureAction=poweroff-force\n\n"
        f"[Service]\nType=oneshot\nExecStart=/usr/local/{PROGRAM}\nEnvironment=HOME=/root TERM=dumb LANG=C.UTF-8\n"
        "WorkingDirectory=/root\nStandardOutput=tty\nStandardError=tty\nTTYPath=/dev/console\nTimeoutStartSec=infinity\n"
    ),
}
_LINKS: Mapping[str, str] = {
    "etc/systemd/system/default.target": "/usr/lib/systemd/system/multi-user.target",
    "etc/systemd/system/multi-user.target.wants/program.service": "/etc/systemd/system/program.service",
    "etc/systemd/system/multi-user.target.wants/systemd-networkd.service": (
        "/usr/lib/systemd/system/systemd-networkd.service"
    ),
    "etc/systemd/system/sockets.target.wants/docker.socket": "/usr/lib/systemd/system/docker.socket",
    # The console is for the output of the program.
    "etc/systemd/system/serial-getty@.service": "/dev/null",
    "var/run": "/run",
    "usr/sbin/iptables": "iptables-nft",
    "usr/sbin/ip6tables": "ip6tables-nft",
}

# The first program of the machine. The kernel has a driver for the file system, but not for the disks.
_INIT = """#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox insmod /virtio_blk.ko
until [ -b /dev/vda ] && [ -b /dev/vdb ]; do /bin/busybox sleep 0.1; done
/bin/busybox mount -t ext4 /dev/vda /root
/bin/busybox mount -t ext4 /dev/vdb /root/usr/local
exec /bin/busybox switch_root /root /sbin/init
"""


@dataclass(frozen=True)
class Arm64Machine:
    """The files of the machine."""

    folder: Path

    @property
    def _tools(self) -> Path:
        return self.folder / "tools"

    def compile(self, tree: Path) -> None:
        """Compile all Python modules in a tree, so that the emulated Python does not have to."""
        _compile(self._tools, tree)

    def run(self, files: Path, ports: Sequence[int], limit: float) -> Iterator[str]:
        """Start the machine, and give the lines that its program prints. It ends when the machine has powered off.

        Args:
            files: the content of /usr/local in the machine. `PROGRAM` in it is run.
            ports: ports of 127.0.0.1 on this machine, which are the same ports of 127.0.0.1 there.
            limit: seconds after which the machine is ended.

        Raises:
            EngineUnavailable: the machine does not end in time. The text contains the last lines of its console.
        """
        for port in ports:
            _forward(files, port)
        disk = files.with_name(f"{files.name}.img")
        _make_disk(self._tools, files, disk, "3G")
        drive = "if=virtio,format=raw,snapshot=on,cache=unsafe,file="
        command = [
            *("setpriv", "--pdeathsig", "KILL", "--"),
            *_program(self._tools, "qemu-system-aarch64"),
            *("-L", str(self._tools / "usr/share/qemu")),
            *("-M", "virt", "-cpu", "cortex-a72", "-smp", "2", "-m", "4096", "-accel", "tcg,thread=multi"),
            *("-nographic", "-no-reboot", "-monitor", "none", "-serial", "stdio"),
            *("-kernel", str(self.folder / "vmlinuz"), "-initrd", str(self.folder / "initrd")),
            *("-append", "console=ttyAMA0 quiet loglevel=1 systemd.show_status=0 panic=-1"),
            *("-drive", f"{drive}{self.folder / 'system.img'}", "-drive", f"{drive}{disk}"),
            *("-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile="),
        ]
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as qemu:
            late = threading.Timer(limit, qemu.kill)
            late.start()
            try:
                yield from _lines(qemu, limit)
            finally:
                late.cancel()
                qemu.kill()
                disk.unlink()


def _forward(files: Path, port: int) -> None:
    """Write units of systemd that forward a port."""
    units = files / "lib/systemd/system"
    wanted = units / "sockets.target.wants"
    wanted.mkdir(parents=True, exist_ok=True)
    name = f"forward-{port}"
    (units / f"{name}.socket").write_text(f"[Socket]\nListenStream=127.0.0.1:{port}\n")
    proxy = f"/usr/lib/systemd/systemd-socket-proxyd {_HOST}:{port}"
    (units / f"{name}.service").write_text(f"[Service]\nExecStart={proxy}\n")
    (wanted / f"{name}.socket").symlink_to(f"../{name}.socket")


def _lines(qemu: subprocess.Popen[bytes], limit: float) -> Iterator[str]:
    last: deque[str] = deque(maxlen=_LAST_LINES)
    console = qemu.stdout
    assert console
    for raw in console:
        line = raw.decode(errors="replace").rstrip("\r\n")
        last.append(line)
        yield line
    if code := qemu.wait():
        printed = "\n".join(last)
        raise EngineUnavailable(f"the emulated machine ended with {code} (limit: {limit:.0f} s):\n{printed}")


def made() -> Arm64Machine:
    """Return the machine from the cache. Make it if necessary.

    Raises:
        EngineUnavailable: this machine has no mirror of Debian.
        CommandFailed: a package cannot be downloaded or unpacked.
    """
    if reason := machine.why_not():
        raise EngineUnavailable(reason)
    with machine.lock():
        folder = cache_folder() / f"arm64-machine-{SUITE}-{_REVISION}"
        if not folder.is_dir():
            programs = unpacked(SUITE)
            with step(f"Making an arm64 machine in {folder}"), new_in_cache(folder) as part:
                _make(part, programs)
    return Arm64Machine(folder)


def _make(folder: Path, programs: Path) -> None:
    """Make the machine in `folder`, with `busybox` and `qemu-aarch64` of the unpacked programs for engines."""
    tools, root = folder / "tools", folder / "root"
    for architecture, names, tree in (("amd64", _TOOLS, tools), ("arm64", _PACKAGES, root)):
        with downloaded(architecture, names, folder, SUITE) as packages:
            tree.mkdir()
            # This package has the links from /bin, /lib and /sbin, through which the others are unpacked.
            packages.sort(key=lambda package: not package.name.startswith("base-files_"))
            for package in packages:
                machine.run(["dpkg", "-x", str(package), str(tree)])
    for unused in ("doc", "locale", "man"):
        shutil.rmtree(root / "usr/share" / unused, ignore_errors=True)
    modules = _configure(root, programs / "amd64/usr/bin/qemu-aarch64")
    _make_initrd(folder, modules, programs)
    shutil.move(next((root / "boot").glob("vmlinuz-*")), folder / "vmlinuz")
    _compile(tools, root)
    _make_disk(tools, root, folder / "system.img", _DISK)
    shutil.rmtree(root)


def _configure(root: Path, emulator: Path) -> Path:
    """Write what the scripts of the packages would write, and return the folder of the kernel's modules."""
    for name in ("passwd", "group"):
        shutil.copy(root / f"usr/share/base-passwd/{name}.master", root / "etc" / name)
    with (root / "etc/group").open("a") as groups:
        groups.write("docker:x:900:\n")
    for name, text in _FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "usr/local").mkdir()
    (root / "var/run").rmdir()
    for name, target in _LINKS.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)
    modules = next((root / "usr/lib/modules").iterdir())
    depmod = [str(emulator), "-0", "depmod", "-L", str(root), str(root / "usr/bin/kmod")]
    machine.run([*depmod, "-b", str(root), modules.name])
    return modules


def _make_initrd(folder: Path, modules: Path, programs: Path) -> None:
    """Write an archive with the first program of the machine, `_INIT`."""
    tree = folder / "initrd.tree"
    for name in ("bin", "dev", "root"):
        (tree / name).mkdir(parents=True)
    shutil.copy(programs / "arm64/usr/bin/busybox", tree / "bin/busybox")
    packed = next(modules.rglob("virtio_blk.ko.xz"))
    (tree / "virtio_blk.ko").write_bytes(lzma.decompress(packed.read_bytes()))
    (tree / "init").write_text(_INIT)
    (tree / "init").chmod(0o755)
    cpio = f"find . | {programs}/amd64/usr/bin/busybox cpio -o -H newc > ../initrd"
    machine.run(["sh", "-c", cpio], folder=tree)
    shutil.rmtree(tree)


def _make_disk(tools: Path, tree: Path, disk: Path, size: str) -> None:
    """Make a disk with a file system that contains this tree."""
    machine.run([*_program(tools, "mke2fs"), "-q", "-t", "ext4", "-F", "-d", str(tree), str(disk), size])


def _program(tools: Path, name: str) -> list[str]:
    """Return the start of a command that runs an unpacked program with the libraries that are unpacked beside it."""
    libraries = tools / "usr/lib/x86_64-linux-gnu"
    path = next(path for folder in ("bin", "sbin") if (path := tools / "usr" / folder / name).exists())
    return [str(libraries / "ld-linux-x86-64.so.2"), "--library-path", str(libraries), str(path)]


def _compile(tools: Path, tree: Path) -> None:
    """Compile all modules in a tree with the unpacked Python, in two processes."""
    modules = sorted(map(str, tree.rglob("*.py")))
    environment = {**os.environ, "PYTHONHOME": f"{tools}/usr", "PYTHONPATH": ""}

    def compile_part(number: int) -> None:
        # compileall's own processes would be started without the loader.
        listed = tree.with_name(f"{tree.name}.{number}")
        listed.write_text("\n".join(modules[number::2]))
        options = ("-qq", "--invalidation-mode=unchecked-hash", "-s", str(tree), "-p", "/", "-i", str(listed))
        # Some packages contain templates of modules, which cannot be compiled.
        machine.run([*_program(tools, PYTHON), "-m", "compileall", *options], environment=environment, check=False)
        listed.unlink()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(compile_part, range(2)))
