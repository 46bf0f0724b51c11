"""Unpacks programs from Debian packages into the cache, without installing them, for tests that run them."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from conftest import debian_only, missing
from engines import machine
from engines.machine import CommandFailed, EngineUnavailable
from engines.packages import cache_folder, mirror_of_the_machine, new_in_cache, private_apt
from engines.progress import step

if TYPE_CHECKING:
    from pathlib import Path

# A part of the cache folder's name. Increase it when the content below changes.
_REVISION = 1


def unpacked(name: str, *more: str) -> Path:
    """Return a folder with the unpacked packages, and with the libraries that the machine lacks.

    If they cannot be downloaded, the test is skipped; in CI it fails.

    Args:
        name: name of a package in the machine's release.
        more: additional packages that it needs at run time.
    """
    debian_only()
    try:
        with machine.lock():
            mirror = mirror_of_the_machine()
            folder = cache_folder() / f"{name}-on-{mirror.suite}-{_REVISION}"
            if not folder.is_dir():
                with step(f"Unpacking {name} into {folder}"), new_in_cache(folder) as part:
                    apt = part / "apt"
                    apt_get = private_apt(apt, [mirror.source(mirror.suite, "amd64")], {})
                    options = ("--download-only", "--yes", "--no-install-recommends")
                    machine.run([*apt_get, "install", *options, name, *more])
                    for package in (apt / "archives").glob("*.deb"):
                        machine.run(["dpkg", "-x", str(package), str(part)])
                    shutil.rmtree(apt)
    except (CommandFailed, EngineUnavailable) as error:
        missing(f"{name} is not in the cache, and apt cannot download it: {error}")
    return folder


def variables(folder: Path) -> dict[str, str]:
    """Return the environment variables for programs in an unpacked folder."""
    libraries = [f"{folder}/{parent}/x86_64-linux-gnu" for parent in ("usr/lib", "lib")]
    return {"PATH": f"{folder}/usr/bin:{os.environ['PATH']}", "LD_LIBRARY_PATH": ":".join(libraries)}
