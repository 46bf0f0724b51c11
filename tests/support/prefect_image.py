"""Puts Prefect's own base image into a registry, of the version that is installed here, for two platforms.

`prefecthq/prefect:X-pythonY` as Docker Hub has it, as far as flow runs need it: the machine's release
of Debian with its Python, and Prefect with the versions of everything that are installed here. Without
prefect-docker-attest, as in the images that users start from.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from importlib.metadata import distributions, version
from pathlib import Path

from prefect.utilities.dockerutils import get_prefect_image_name

import debian_machine as machine
from base_images import BaseImage, push_index
from debian_packages import cache_folder, mirror_of_the_machine, new_in_cache, private_apt

_PACKAGES = ("base-files", "coreutils", "dash", "python3", "tzdata")
# Part of the cache's name: to be raised when what is made below changes.
_REVISION = 1

# Debian's name of an architecture, and its first two in the names that uv gives platforms.
_PLATFORMS = {"amd64": "x86_64-manylinux_2_28", "arm64": "aarch64-manylinux_2_28"}


def push_prefect(registry: str) -> str:
    """Push the image that Prefect generates Dockerfiles from, and return its name.

    Args:
        registry: host and port of a registry that speaks plain HTTP.

    Raises:
        EngineUnavailable: there is no mirror of Debian.
        CommandFailed: something cannot be fetched.
        OSError: the registry cannot be reached, or refuses.
    """
    with machine.lock():
        folder = _made()
    digests = json.loads((folder / "digests.json").read_text())
    config = {"Env": ["PYTHONUNBUFFERED=1"], "WorkingDir": "/opt/prefect"}
    images = [
        BaseImage(
            architecture,
            [
                ((folder / f"{architecture}-{layer}.tar.gz").read_bytes(), digest)
                for layer, digest in digests[architecture].items()
            ],
            config,
        )
        for architecture in _PLATFORMS
    ]
    name = get_prefect_image_name()
    repository, _, tag = name.partition(":")
    push_index(registry, repository, tag, images)
    return name


def _made() -> Path:
    """Return the folder with the layers and their `digests.json`; make them if need be."""
    mirror = mirror_of_the_machine()
    # The versions of the day when this environment was made, not of today.
    pins = sorted({f"{each.metadata['Name']}=={each.version}" for each in distributions()})
    key = hashlib.sha256("\n".join([*_PACKAGES, *pins]).encode()).hexdigest()[:12]
    folder = cache_folder() / f"prefect-{version('prefect')}-on-{mirror.suite}-{key}-{_REVISION}"
    if folder.is_dir():
        return folder
    with new_in_cache(folder) as part:
        (part / "pins.txt").write_text("\n".join(pins))
        roots = {architecture: _system(part, architecture) for architecture in _PLATFORMS}
        trees = {architecture: _prefect(part, root, architecture) for architecture, root in roots.items()}
        # With one Python for both: an emulated one is slow, and what it compiles is the same.
        _compile(roots["amd64"], [*roots.values(), *trees.values()])
        digests = {
            architecture: {
                "system": _layer(roots[architecture], part / f"{architecture}-system.tar"),
                "prefect": _layer(trees[architecture], part / f"{architecture}-prefect.tar"),
            }
            for architecture in _PLATFORMS
        }
        (part / "digests.json").write_text(json.dumps(digests))
    return folder


def _system(part: Path, architecture: str) -> Path:
    """Unpack Debian's packages, whose scripts are not run: Python and a shell need none of that."""
    mirror = mirror_of_the_machine()
    root, apt = part / architecture, part / f"{architecture}-apt"
    settings = {
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        # Nothing counts as installed.
        "Dir::State::status": "/dev/null",
    }
    apt_get = private_apt(apt, [mirror.source(mirror.suite, architecture)], settings)
    machine.run([*apt_get, "install", "--download-only", "--yes", "--no-install-recommends", *_PACKAGES])
    for package in sorted((apt / "archives").glob("*.deb")):
        machine.run(["dpkg", "-x", str(package), str(root)])
    shutil.rmtree(apt)
    for unused in ("doc", "locale", "man"):
        shutil.rmtree(root / "usr/share" / unused, ignore_errors=True)
    # Debian makes these when it installs the packages.
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    (root / "usr/bin/python").symlink_to("python3")
    return root


def _prefect(part: Path, root: Path, architecture: str) -> Path:
    """Install Prefect for the Python in `root`, into a tree of its own."""
    python = _python(root)
    tree = part / f"{architecture}-prefect"
    packages = tree / f"usr/local/lib/{python}/dist-packages"
    machine.run(
        [
            *(sys.executable, "-m", "uv", "pip", "install", "--quiet", f"--target={packages}"),
            f"--python-version={python.removeprefix('python')}",
            f"--python-platform={_PLATFORMS[architecture]}",
            "--only-binary=:all:",
            # What the folder of a project says about uv is not about this.
            "--no-config",
            f"--constraints={part / 'pins.txt'}",
            f"prefect=={version('prefect')}",
        ],
        folder=part,
    )
    # Their first line names this machine's Python.
    shutil.rmtree(packages / "bin", ignore_errors=True)
    command = tree / "usr/local/bin/prefect"
    command.parent.mkdir(parents=True)
    command.write_text("#!/usr/bin/python3\nfrom prefect.cli import app\n\napp()\n")
    command.chmod(0o755)
    return tree


def _python(root: Path) -> str:
    """Return the name of the release's Python, such as `python3.11`."""
    return (root / "usr/bin/python3").readlink().name


def _compile(root: Path, trees: list[Path]) -> None:
    """Compile all modules of the trees with the Python in `root`: a container would do it anew in each run."""
    libraries = [f"{root}/lib/x86_64-linux-gnu", f"{root}/usr/lib/x86_64-linux-gnu"]
    loader = next(path for folder in libraries for path in Path(folder).glob("ld-linux-x86-64.so.2"))
    for tree in trees:
        machine.run(
            [
                *(str(loader), "--library-path", ":".join(libraries), f"{root}/usr/bin/{_python(root)}"),
                *("-m", "compileall", "-qq", "-j", "2", "--invalidation-mode=unchecked-hash"),
                *("-s", str(tree), "-p", "/", str(tree)),
            ],
            environment={**os.environ, "PYTHONHOME": f"{root}/usr", "PYTHONPATH": ""},
            # Some packages hold templates of modules, which are none.
            check=False,
        )


def _layer(tree: Path, tar: Path) -> str:
    """Make a compressed tar of a tree, in the place of it, and return the digest of what is compressed."""
    # Always the same for the same files.
    owner = ("--owner=0", "--group=0", "--numeric-owner", "--mtime=@0", "--sort=name")
    machine.run(["tar", "--create", f"--file={tar}", f"--directory={tree}", *owner, "."])
    with tar.open("rb") as content:
        digest = hashlib.new("sha256")
        while block := content.read(1 << 20):
            digest.update(block)
    machine.run(["gzip", "-1", "--no-name", str(tar)])
    shutil.rmtree(tree)
    return f"sha256:{digest.hexdigest()}"
