"""Uses the existing Docker Engine for tests and the demo.

    with existing.start(existing.find()) as docker:
        docker.engine.run("docker", "run", "--rm", docker.found.base_image, "uname", "-m")

Existing contents of the engine are not changed or removed. Names of new images start with `PREFIX`, or with the address
of a registry, which is a container named `PREFIX`. At the end these images are removed. Untagged images and build cache
that were added meanwhile are removed too, including those of other users who built on that engine at the same time.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from engines import container_registry, contents, machine
from engines.base_images import BaseImage, base_image, docker_archive, programs_layer, push_index
from engines.machine import CommandFailed, EngineUnavailable
from engines.private import Engine, Registry, Store
from engines.progress import step

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PREFIX = "pda-tests"
"""Prefix of the names that are used in the engine."""

# The kernel's names of processors, with their names in Go and Docker.
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Found:
    """An engine that answers, and the buildx plugin of the docker CLI."""

    host: str
    store: Store
    architecture: str
    """As in a platform, such as `amd64`."""
    docker_version: str
    buildx_version: str
    buildx_plugin: str
    registry_address: str
    """Host and port of the registry that will be started."""

    @property
    def base_image(self) -> str:
        """The name of the base image."""
        return f"{self.registry_address}/{PREFIX}/busybox"


@dataclass(frozen=True)
class ExistingDocker:
    """The engine, and the things that were created in it."""

    found: Found
    engine: Engine
    registry: Registry | None
    no_registry: str
    """Why there is no registry; `""` if there is one."""
    base_platforms: frozenset[str]
    """The platforms of the base image."""

    @property
    def engines(self) -> Mapping[Store, Engine]:
        """The engine, by its image store."""
        return MappingProxyType({self.engine.store: self.engine})

    @property
    def docker_version(self) -> str:
        return self.found.docker_version


def find() -> Found:
    """Find the engine of the docker CLI.

    Raises:
        EngineUnavailable: there is no engine or no buildx. The text contains docker's error.
    """
    try:
        info = json.loads(_ask("docker", "info", "--format={{json .}}"))
        buildx_version = _ask("docker", "buildx", "version").split()[1]
        host = _ask("docker", "context", "inspect", "--format={{.Endpoints.docker.Host}}").strip()
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        printed = getattr(error, "stderr", None) or error
        raise EngineUnavailable(f"no Docker with buildx was found: {printed}".strip()) from error
    if not info.get("ServerVersion") or info.get("OSType") != "linux":
        errors = "; ".join(info.get("ServerErrors") or ["it is not a Docker Engine for Linux"])
        raise EngineUnavailable(f"no usable Docker Engine was found: {errors}")
    (plugin,) = [plugin["Path"] for plugin in info["ClientInfo"]["Plugins"] if plugin["Name"] == "buildx"]
    has_snapshotter = ["driver-type", "io.containerd.snapshotter.v1"] in (info.get("DriverStatus") or [])
    architecture = _ARCHITECTURES.get(info["Architecture"], info["Architecture"])
    store: Store = "containerd" if has_snapshotter else "graphdriver"
    registry_address = f"127.0.0.1:{machine.free_port()}"
    return Found(host, store, architecture, info["ServerVersion"], buildx_version, plugin, registry_address)


def _ask(*command: str) -> str:
    """Run a docker command. The timeout is for a Docker Desktop that hangs."""
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout


@contextlib.contextmanager
def start(found: Found) -> Iterator[ExistingDocker]:
    """Provide a base image in the engine, and a registry if its image is present or can be pulled.

    Raises:
        EngineUnavailable: the engine cannot run a container, or another run uses the engine.
    """
    with tempfile.TemporaryDirectory() as folder:
        engine = _engine(found, Path(folder))
        _remove_leftover(engine)
        before = contents.of(engine)
        try:
            with step(f"Preparing a registry and a base image in the engine at {found.host}"):
                docker = _prepare(found, engine, Path(folder))
            yield docker
        finally:
            with step(f"Removing what was created in the engine at {found.host}"):
                contents.remove_labelled(engine, PREFIX)
                contents.remove_new(engine, before, own_names(found.registry_address))


def own_names(registry: str) -> re.Pattern[str]:
    """Return a pattern for the names of images to remove: those in this registry, and those that start with PREFIX."""
    return re.compile(rf"({re.escape(registry)}|(127\.0\.0\.1:\d+/)?{PREFIX})/")


def _remove_leftover(engine: Engine) -> None:
    """Remove the containers and the images of a run that was killed.

    Raises:
        EngineUnavailable: the other run has not ended.
    """
    label = f'--format={{{{index .Config.Labels "{PREFIX}"}}}}'
    inspected = engine.run("docker", "container", "inspect", label, PREFIX, check=False)
    if inspected.returncode:
        return
    owner, _, address = inspected.stdout.strip().partition(" ")
    if not owner or _runs(int(owner)):
        raise EngineUnavailable(
            f"another run (process {owner}) uses the engine at {engine.host}, which has a container {PREFIX}. Wait "
            f"until that run ends, or run `docker rm --force --volumes {PREFIX}`"
        )
    contents.remove_labelled(engine, PREFIX)
    contents.remove_named(engine, own_names(address))


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError as error:
        return isinstance(error, PermissionError)
    return True


def _engine(found: Found, folder: Path) -> Engine:
    """Describe the engine, with its own configuration of the docker CLI instead of the user's."""
    plugins = folder / "client" / "cli-plugins"
    plugins.mkdir(parents=True)
    (plugins / "docker-buildx").symlink_to(found.buildx_plugin)
    environment = {**_users_environment(found), "DOCKER_CONFIG": str(plugins.parent)}
    return Engine(found.store, found.host, MappingProxyType(environment), containerd_address="")


def _users_environment(found: Found) -> dict[str, str]:
    """Return this process's environment, changed so that docker-py and the docker CLI use the same engine."""
    others = ("DOCKER_CONTEXT", "DOCKER_DEFAULT_PLATFORM", "BUILDX_", "BUILDKIT_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(others)}
    return {**environment, "DOCKER_HOST": found.host}


def _prepare(found: Found, engine: Engine, folder: Path) -> ExistingDocker:
    images = _base_images(found, folder)
    try:
        registry, no_registry = _registry_with(images, found, engine), ""
    except (CommandFailed, OSError) as error:
        registry, no_registry = None, f"the engine at {found.host} cannot run a registry: {error}"
        # Only the base image for the engine's own platform can be used.
        del images[1:]
    try:
        if not registry:
            (folder / "image.tar").write_bytes(docker_archive(f"{found.base_image}:latest", images[0]))
            engine.run("docker", "load", "--quiet", f"--input={folder}/image.tar")
            # This container takes the place of the registry, so that another run finds it.
            engine.run("docker", "create", *_container_options(found), found.base_image, check=False)
        engine.run("docker", "run", "--rm", found.base_image, "true")
    except CommandFailed as error:
        raise EngineUnavailable(f"the engine at {found.host} cannot run the base image: {error}") from error
    platforms = frozenset(f"linux/{image.architecture}" for image in images)
    return ExistingDocker(found, engine, registry, no_registry, platforms)


def _registry_with(images: list[BaseImage], found: Found, engine: Engine) -> Registry:
    """Start a registry, and push the base images to it."""
    address = found.registry_address
    container_registry.start(engine, address, _users_environment(found), PREFIX, _container_options(found))
    for repository in (f"{PREFIX}/busybox", "library/busybox"):
        push_index(address, repository, "latest", images)
    engine.run("docker", "pull", "--quiet", found.base_image)
    return Registry(address)


def _base_images(found: Found, folder: Path) -> list[BaseImage]:
    """Make base images from `busybox`. An image `busybox` in the engine is not changed, and none is added.

    Raises:
        EngineUnavailable: no base image for the engine's own platform can be made.
    """
    (folder / "Dockerfile").write_text("FROM busybox\n")
    native, other = sorted(_ARCHITECTURES.values(), key=lambda name: name != found.architecture)
    try:
        images = [_base_image(found, native, folder)]
    except CommandFailed as error:
        program = shutil.which("busybox")
        if not program:
            raise EngineUnavailable(
                f"busybox cannot be pulled, and is not installed on this machine: {error}"
            ) from error
        applets = machine.run([program, "--list"]).stdout.split()
        return [base_image(native, programs_layer(Path(program).read_bytes(), applets))]
    with contextlib.suppress(CommandFailed):
        images.append(_base_image(found, other, folder))
    return images


def _base_image(found: Found, architecture: str, folder: Path) -> BaseImage:
    """Make a base image for one platform from `busybox`, which BuildKit pulls if necessary."""
    tar = folder / f"{architecture}.tar"
    output = (f"--platform=linux/{architecture}", "--provenance=false", f"--output=type=tar,dest={tar}")
    build = ("docker", "buildx", "build", "--builder=default", "--progress=plain", *output, str(folder))
    machine.run(build, environment=_users_environment(found))
    return base_image(architecture, tar.read_bytes())


def _container_options(found: Found) -> tuple[str, ...]:
    """Return the options of the container by which other runs find this run."""
    return f"--name={PREFIX}", f"--label={PREFIX}={os.getpid()} {found.registry_address}"


def platforms(engine: Engine) -> list[str]:
    """Return the platforms whose programs the engine can run, including emulated ones."""
    output = engine.run("docker", "buildx", "inspect").stdout
    return re.findall(r"[\w/]+", output.partition("Platforms:")[2].partition("\n")[0])


def reaches_this_machine(engine: Engine) -> bool:
    """Return whether the engine reaches servers on 127.0.0.1. Docker Desktop and remote engines do not."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        command = ["docker", "pull", f"127.0.0.1:{server.getsockname()[1]}/{PREFIX}/nothing"]
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        pull = subprocess.Popen(command, env=engine.environment, **quiet)
        try:
            server.accept()[0].close()
        except TimeoutError:
            return False
        finally:
            pull.kill()
            pull.wait()
    return True
