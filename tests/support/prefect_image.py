"""Makes a replacement for Prefect's base image, and pushes it to a registry for two platforms.

It takes the place of `prefecthq/prefect:X-pythonY` on Docker Hub. It contains what flow runs need: the machine's
release of Debian with its Python, and Prefect with the versions that are installed here. Like Prefect's image, it does
not contain prefect-docker-attest.
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

from engines import machine
from engines.base_images import BaseImage, push_index
from engines.packages import cache_folder, downloaded, mirror_of_the_machine, new_in_cache
from engines.progress import step

_PACKAGES = ("base-files", "coreutils", "dash", "python3", "tzdata")
# A part of the cache folder's name. Increase it when the content below changes.
_REVISION = 1

# Debian's names of architectures, with uv's names of the platforms.
_PLATFORMS = {"amd64": "x86_64-manylinux_2_28", "arm64": "aarch64-manylinux_2_28"}


def push_prefect(registry: str) -> str:
    """Push the base image of Prefect's generated Dockerfiles, and return its name.

    Args:
        registry: host and port of a registry that uses plain HTTP.

    Raises:
        EngineUnavailable: the machine has no mirror of Debian.
        CommandFailed: a package cannot be downloaded.
        OSError: the registry does not answer, or answers with an error.
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
    """Return the folder with the layers and their `digests.json`. Make them if necessary."""
    mirror = mirror_of_the_machine()
    # The image has the versions of this environment, which can be older than the newest ones.
    pins = sorted({f"{package.metadata['Name']}=={package.version}" for package in distributions()})
    key = hashlib.sha256("\n".join([*_PACKAGES, *pins]).encode()).hexdigest()[:12]
    folder = cache_folder() / f"prefect-{version('prefect')}-on-{mirror.suite}-{key}-{_REVISION}"
    if folder.is_dir():
        return folder
    with step(f"Making the image of Prefect {version('prefect')} in {folder}"), new_in_cache(folder) as part:
        (part / "pins.txt").write_text("\n".join(pins))
        roots = {architecture: _system(part, architecture) for architecture in _PLATFORMS}
        trees = {architecture: _prefect(part, root, architecture) for architecture, root in roots.items()}
        # The amd64 Python compiles both trees: an emulated Python is slow, and the result is the same.
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
    """Unpack Debian's packages. Their scripts are not run, because Python and a shell work without them."""
    root = part / architecture
    with downloaded(architecture, _PACKAGES, part) as packages:
        for package in packages:
            machine.run(["dpkg", "-x", str(package), str(root)])
    for unused in ("doc", "locale", "man"):
        shutil.rmtree(root / "usr/share" / unused, ignore_errors=True)
    # The scripts of Debian's packages would create these files.
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    (root / "usr/bin/python").symlink_to("python3")
    return root


def _prefect(part: Path, root: Path, architecture: str) -> Path:
    """Install Prefect for the Python in `root`, into a separate tree."""
    python = _python(root)
    tree = part / f"{architecture}-prefect"
    packages = tree / f"usr/local/lib/{python}/dist-packages"
    machine.run(
        [
            *(sys.executable, "-m", "uv", "pip", "install", "--quiet", f"--target={packages}"),
            f"--python-version={python.removeprefix('python')}",
            f"--python-platform={_PLATFORMS[architecture]}",
            "--only-binary=:all:",
            # uv must not use the configuration of this project.
            "--no-config",
            f"--constraints={part / 'pins.txt'}",
            f"prefect=={version('prefect')}",
        ],
        folder=part,
    )
    # The first lines of these scripts name this machine's Python.
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
    """Compile all modules in the trees with the Python in `root`, so that containers do not have to."""
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
            # Some packages contain templates of modules, which cannot be compiled.
            check=False,
        )


def _layer(tree: Path, tar: Path) -> str:
    """Replace a tree with a compressed tar of it, and return the digest of the uncompressed tar."""
    # With these options the same files make the same tar.
    owner = ("--owner=0", "--group=0", "--numeric-owner", "--mtime=@0", "--sort=name")
    machine.run(["tar", "--create", f"--file={tar}", f"--directory={tree}", *owner, "."])
    with tar.open("rb") as content:
        digest = hashlib.new("sha256")
        while block := content.read(1 << 20):
            digest.update(block)
    machine.run(["gzip", "-1", "--no-name", str(tar)])
    shutil.rmtree(tree)
    return f"sha256:{digest.hexdigest()}"
