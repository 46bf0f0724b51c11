"""Downloads Debian's packages of Docker, and unpacks them into a cache folder.

Nothing is installed. The machine's packages, package lists and architectures do not change. To undo everything, delete
the cache folder.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engines.machine import CommandFailed, EngineUnavailable, run
from engines.progress import step

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# These programs work with glibc 2.34 and newer, so those of any suite run on Debian 12.
_FROM_SUITE = (
    "docker.io",
    "docker-cli",
    "docker-buildx",
    "containerd",
    "docker-registry",
    "qemu-user",
    "busybox-static",
    "busybox-static:arm64",
)
# These programs need the C library of their release, so they come from the machine's release. dockerd runs `xz`.
_FROM_MACHINE = ("runc", "tini", "xz-utils")
# A part of the cache folder's name. Increase it when the lists above change.
_REVISION = 2

_APT = Path("/etc/apt")
_RELEASE = Path("/etc/os-release")
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def cache_folder() -> Path:
    """Return the cache folder, `prefect-docker-attest` in XDG_CACHE_HOME. It can be deleted at any time."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "prefect-docker-attest"


@contextlib.contextmanager
def new_in_cache(folder: Path) -> Iterator[Path]:
    """Give a temporary folder to fill. At the end it becomes `folder`; after an error it is removed.

    The caller must make sure that only one process does this at a time.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    # A folder with its final name is always complete. A process that is killed leaves a .part folder.
    for stale in folder.parent.glob("*.part"):
        shutil.rmtree(stale)
    part = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", suffix=".part", dir=folder.parent))
    try:
        yield part
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def unpacked(suite: str) -> Path:
    """Return the folder with the suite's unpacked packages, such as `amd64/usr/bin`. Download them if necessary.

    The caller must make sure that only one process does this at a time.

    Args:
        suite: a suite of Debian's archive that has Docker, such as `trixie` or `sid`.

    Raises:
        EngineUnavailable: apt cannot download the packages.
    """
    mirror = mirror_of_the_machine()
    folder = cache_folder() / f"{suite}-on-{mirror.suite}-{_REVISION}"
    if folder.is_dir():
        return folder
    try:
        with step(f"Unpacking Docker of Debian {suite} into {folder}"), new_in_cache(folder) as part:
            _fetch(mirror, suite, part)
    except CommandFailed as error:
        raise EngineUnavailable(
            f"cannot download Docker's packages of {suite} from {mirror.uri}, the mirror for {mirror.suite}: {error}. "
            f"Check that `apt-get update` works, and that the mirror has {suite}"
        ) from error
    return folder


@dataclass(frozen=True)
class Mirror:
    """The Debian archive that the machine's apt uses."""

    uri: str
    suite: str
    keyring: str

    def source(self, suite: str, architectures: str) -> str:
        """Return a line for apt's sources.list about one suite of this archive."""
        signed_by = f" signed-by={self.keyring}" if self.keyring else ""
        return f"deb [arch={architectures}{signed_by}] {self.uri} {suite} main"


def private_apt(folder: Path, sources: Sequence[str], settings: Mapping[str, str]) -> list[str]:
    """Set up an apt that uses only these sources, and return the start of its commands.

    Args:
        folder: folder for package lists and packages.
        sources: lines from `Mirror.source`.
        settings: additional apt settings.

    Raises:
        CommandFailed: apt cannot download the package lists.
    """
    for name in ("lists/partial", "archives/partial"):
        (folder / name).mkdir(parents=True)
    (folder / "sources.list").write_text("\n".join(sources))
    all_settings = {
        "Dir::Etc::sourcelist": folder / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        # The machine's pins are only for its own packages.
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::State::Lists": folder / "lists",
        "Dir::Cache": folder,
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
        **settings,
    }
    configuration = folder / "apt.conf"
    configuration.write_text("".join(f'{name} "{value}";\n' for name, value in all_settings.items()))
    # apt reads this file after the machine's own configuration, which has proxies and credentials.
    apt_get = ["apt-get", "-qq", f"--config-file={configuration}"]
    run([*apt_get, "update"])
    return apt_get


@contextlib.contextmanager
def downloaded(architecture: str, names: Sequence[str], folder: Path, suite: str = "") -> Iterator[list[Path]]:
    """Download packages with all their dependencies, installed ones included.

    Args:
        architecture: Debian's name of an architecture, such as `arm64`.
        names: names of packages.
        folder: an existing folder. The packages are in a folder below it, which is removed at the end.
        suite: a suite of Debian's archive; `""` for the machine's release.

    Raises:
        EngineUnavailable: the machine has no mirror of Debian.
        CommandFailed: a package cannot be downloaded.
    """
    mirror = mirror_of_the_machine()
    apt = folder / f"{architecture}-apt"
    settings = {
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        # With an empty status file, apt also downloads packages that are installed on the machine.
        "Dir::State::status": "/dev/null",
    }
    apt_get = private_apt(apt, [mirror.source(suite or mirror.suite, architecture)], settings)
    run([*apt_get, "install", "--download-only", "--yes", "--no-install-recommends", *names])
    yield sorted((apt / "archives").glob("*.deb"))
    shutil.rmtree(apt)


def _fetch(mirror: Mirror, suite: str, folder: Path) -> None:
    """Download all packages, and unpack them into one folder for each architecture below `folder`."""
    apt = folder / "apt"
    sources = [mirror.source(suite, "amd64,arm64")]
    if mirror.suite != suite:
        sources.append(mirror.source(mirror.suite, "amd64"))
    apt_get = private_apt(apt, sources, {"APT::Architectures": "amd64,arm64"})
    wanted = [f"{name}/{suite}" for name in _FROM_SUITE]
    wanted += [f"{name}/{mirror.suite}" for name in _FROM_MACHINE]
    run([*apt_get, "download", *wanted], folder=apt)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda deb: _unpack(deb, folder), apt.glob("*.deb")))
    shutil.rmtree(apt)
    for emulator in (folder / "amd64" / "usr" / "bin").glob("qemu-*"):
        if emulator.name != "qemu-aarch64":
            emulator.unlink()


def _unpack(package: Path, folder: Path) -> None:
    architecture = package.stem.rpartition("_")[2]
    run(["dpkg", "-x", str(package), str(folder / architecture)])


def mirror_of_the_machine() -> Mirror:
    """Find the mirror from which apt gets the machine's own release."""
    release = re.search(r"^VERSION_CODENAME=(\S+)", _RELEASE.read_text(), re.MULTILINE)
    suites = {release[1] if release else "sid", "stable", "testing", "unstable", "sid"}
    parts = sorted((_APT / "sources.list.d").glob("*"))
    # Debian's own file is first, because other vendors use Debian's suite names too.
    parts.sort(key=lambda part: part.name != "debian.sources")
    for source in (_APT / "sources.list", *parts):
        if source.suffix in (".list", ".sources") and source.is_file():
            parse = _stanzas if source.suffix == ".sources" else _lines
            for uri, suite, components, keyring in parse(source.read_text()):
                if suite in suites and "main" in components:
                    default = str(_KEYRING) if _KEYRING.exists() else ""
                    return Mirror(uri, suite, keyring if os.path.isfile(keyring) else default)
    raise EngineUnavailable(
        f"{_APT}/sources.list and {_APT}/sources.list.d name no Debian mirror for the suites "
        f"{', '.join(sorted(suites))}. Add one"
    )


def _lines(text: str) -> Iterator[tuple[str, str, list[str], str]]:
    """Read one-line sources: `deb [signed-by=KEYRING] URI SUITE COMPONENT...`."""
    for match in re.finditer(r"^deb\s+(?:\[([^]]*)\]\s+)?(\S+)\s+(\S+)\s+(.*)$", text, re.MULTILINE):
        keyring = re.search(r"signed-by=(\S+)", match[1] or "")
        yield match[2], match[3], match[4].split(), keyring[1] if keyring else ""


def _stanzas(text: str) -> Iterator[tuple[str, str, list[str], str]]:
    """Read deb822 sources: stanzas of `Field: values`."""
    for stanza in re.split(r"\n\s*\n", text):
        fields = dict(re.findall(r"^([A-Za-z-]+):[ \t]*(.*)$", stanza, re.MULTILINE))
        if "deb" in fields.get("Types", "").split() and fields.get("Enabled", "yes") != "no":
            for suite in fields.get("Suites", "").split():
                components = fields.get("Components", "").split()
                keyring = fields.get("Signed-By", "").strip()
                yield fields["URIs"].split()[0], suite, components, keyring
