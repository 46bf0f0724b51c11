"""Runs a registry in a container of an existing engine."""

from __future__ import annotations

import contextlib
import shlex
import time
import urllib.request
from typing import TYPE_CHECKING

from engines import machine

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from engines.private import Engine

IMAGE = "registry:2"
_PATIENCE = 120  # seconds: an emulated machine starts containers slowly


def start(engine: Engine, address: str, pulling: Mapping[str, str], prefix: str, options: Sequence[str]) -> None:
    """Run a registry without authentication, and wait until it answers.

    Args:
        engine: the engine to run it in.
        address: host and port of this machine.
        pulling: environment for pulling the registry's image, with the user's credentials.
        prefix: prefix for the image's name if it has to be pulled, so that it is removed later.
        options: options of `docker run`.

    Raises:
        CommandFailed: the image is not present and cannot be pulled.
        OSError: the registry does not answer.
    """
    image = IMAGE
    if engine.run("docker", "image", "inspect", image, check=False).returncode:
        machine.run(["docker", "pull", "--quiet", image], environment=pulling)
        image = f"{prefix}/{image}"
        engine.run("docker", "tag", IMAGE, image)
        engine.run("docker", "image", "rm", IMAGE)
    port = f"--publish={address}:5000"
    deleting = "--env=REGISTRY_STORAGE_DELETE_ENABLED=true"
    engine.run("docker", "run", "--detach", "--pull=never", *options, port, deleting, image)
    end = time.monotonic() + _PATIENCE
    while not _answers(f"http://{address}/v2/"):
        if time.monotonic() > end:
            raise TimeoutError(f"the registry does not answer at {address}")
        time.sleep(0.1)


def _answers(url: str) -> bool:
    # No proxies: a proxy cannot reach a loopback address of this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with contextlib.suppress(OSError), opener.open(url, timeout=5):
        return True
    return False


def program(engine: Engine, container: str, label: str, folder: Path) -> str:
    """Write a program with the command line of `docker-registry`, and return its path.

    Args:
        engine: the engine that runs the registries, on this machine's network.
        container: a registry that runs in the engine; its image is used.
        label: label of the containers.
        folder: folder for the program.
    """
    image = engine.run("docker", "inspect", "--format={{.Config.Image}}", container).stdout.strip()
    names = ("DOCKER_HOST", "DOCKER_CONFIG", "PATH")
    exports = [f"export {name}={shlex.quote(engine.environment[name])}" for name in names]
    run = f"docker run --detach --rm --label={label} --network=host"
    as_here = '--user="$(id -u):$(id -g)" --volume="$folder:$folder"'
    lines = [
        "#!/bin/sh",
        *exports,
        'folder="$(dirname "$2")"',
        f'id="$({run} {as_here} {image} serve "$2")" || exit 1',
        """trap 'docker rm --force --volumes "$id"' TERM""",
        'docker wait "$id" & wait $!',
    ]
    path = folder / "docker-registry"
    path.write_text("\n".join(lines) + "\n")
    path.chmod(0o755)
    return str(path)
