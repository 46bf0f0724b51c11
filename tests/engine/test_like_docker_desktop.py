"""Surroundings of Docker Desktop: contexts, a socket and a plugin in the home folder, and a credential helper.

The home folder has a blank and letters that are not ASCII. There is no `/var/run/docker.sock`, and `DOCKER_HOST` is not
set. The engine is a private one, so its virtual machine and its proxies are missing.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from conftest import missing
from engines.published import Published
from support.guarded import BASIC, GIVES_PASSWORD, PASSWORD, USER, guarded_registry
from support.names import BUSYBOX, PREFIX
from support.shipped import COMMAND

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from engines.private import Engine, PrivateDocker

pytestmark = pytest.mark.private("takes /run away from programs, which an existing engine needs")

BUILD_AND_PUSH = """
import os, sys
from prefect.docker import DockerImage

image = DockerImage(os.environ["IMAGE"], "v1", "Dockerfile", platform="linux/arm64")
image.build()
image.push()
"""
# Python imports `sitecustomize` when it starts.
WITHOUT_WAITID = "import os\n\ndel os.waitid\n"


@dataclass(frozen=True)
class Desktop:
    """The home folder of a user of Docker Desktop, and programs that run there."""

    home: Path
    engine: Engine

    @property
    def project(self) -> Path:
        return self.home / "my flows"

    def configure(self, **members: Any) -> None:
        """Change ~/.docker/config.json."""
        path = self.home / ".docker/config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **members}))

    def run(self, *command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a program in the project. It has a /run of its own, without the socket of an engine."""
        inherited = {
            name: value
            for name, value in self.engine.environment.items()
            if not name.startswith(("DOCKER_", "PREFECT_", "BUILDX_"))
        }
        private = {"HOME": str(self.home), "PATH": f"{self.home}/bin:{inherited['PATH']}", "DO_NOT_TRACK": "1"}
        own_run = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs tmpfs /run && exec "$@"', "sh"]
        return subprocess.run(
            [*own_run, *command],
            env={**inherited, **private, **variables},
            cwd=self.project,
            capture_output=True,
            text=True,
            check=False,
        )

    def deploy(self, image: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Build and push an image for another platform, with the setting on."""
        on = {"PREFECT_DOCKER_DISABLE_ATTESTATIONS": "true", "IMAGE": image, **variables}
        return self.run(sys.executable, "deploy.py", **on)

    def doctor(self, **variables: str) -> dict[str, dict[str, str]]:
        """Return the findings of the doctor."""
        on = {"PREFECT_DOCKER_DISABLE_ATTESTATIONS": "true", **variables}
        ran = self.run(COMMAND, "doctor", "--json", **on)
        return {check["name"]: check for check in json.loads(ran.stdout)["checks"]}


def problems(checks: Mapping[str, dict[str, str]]) -> dict[str, str]:
    return {name: check["found"] for name, check in checks.items() if check["status"] == "problem"}


@pytest.fixture
def desktop(some_engine: Engine) -> Iterator[Desktop]:
    # The paths of unix sockets have at most 107 characters, so this is not pytest's own folder.
    with tempfile.TemporaryDirectory(prefix="pda-") as folder:
        home = Path(folder) / "Zoë Müller"
        plugins, sockets = home / ".docker/cli-plugins", home / ".docker/run"
        for needed in (plugins, sockets, home / "my flows", home / "bin"):
            needed.mkdir(parents=True)
        (home / ".docker/config.json").write_text("{}")
        (plugins / "docker-buildx").symlink_to(
            (Path(some_engine.environment["DOCKER_CONFIG"]) / "cli-plugins/docker-buildx").resolve()
        )
        (sockets / "docker.sock").symlink_to(some_engine.host.removeprefix("unix://"))
        (home / "my flows/Dockerfile").write_text(f"FROM {BUSYBOX}\nCOPY . /opt/prefect/\n")
        (home / "my flows/deploy.py").write_text(BUILD_AND_PUSH)
        found = Desktop(home, some_engine)
        for command in (
            ("create", "desktop-linux", f"--docker=host=unix://{sockets}/docker.sock"),
            ("use", "desktop-linux"),
        ):
            done = found.run("docker", "context", *command)
            assert done.returncode == 0, done.stderr
        yield found


@pytest.fixture(scope="module", params=["7.1.0", "7.2.0"])
def docker_py(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[bool, str]:
    """Whether this version of docker-py uses contexts, and the value of PYTHONPATH for it."""
    folder = tmp_path_factory.mktemp("docker-py")
    install = ("-m", "uv", "pip", "install", "--quiet", "--no-config", "--no-deps", f"--target={folder}")
    command = [sys.executable, *install, f"docker=={request.param}"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        missing(f"docker-py {request.param} cannot be installed: {done.stderr}")
    return request.param != "7.1.0", str(folder)


@pytest.fixture
def image(private_docker: PrivateDocker) -> str:
    return f"{private_docker.registry.address}/desktop/{uuid4()}"


def check_published(image: str, password: str | None = None) -> None:
    published = Published(f"{image}:v1", password)
    assert published.is_one_manifest
    assert published.config()["architecture"] == "arm64"
    assert all(published.layers_match())


def test_the_context_of_docker_desktop(desktop: Desktop, docker_py: tuple[bool, str], image: str) -> None:
    follows_contexts, path = docker_py
    built = desktop.deploy(image, PYTHONPATH=path)
    checks = desktop.doctor(PYTHONPATH=path)
    if follows_contexts:
        assert built.returncode == 0, built.stderr
        assert problems(checks) == {}
    else:
        assert "Docker is not running" in built.stderr  # docker-py, in Prefect's words
        assert problems(checks).keys() == {"engine"}
        advice = checks["engine"]["advice"]
        assert "`export DOCKER_HOST=$(docker context inspect --format '{{.Endpoints.docker.Host}}')`" in advice
        inspect = desktop.run("docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}")
        host = inspect.stdout.strip()
        built = desktop.deploy(image, PYTHONPATH=path, DOCKER_HOST=host)
        assert built.returncode == 0, built.stderr
        assert problems(desktop.doctor(PYTHONPATH=path, DOCKER_HOST=host)) == {}
    check_published(image)


def test_a_python_without_waitid(desktop: Desktop, image: str) -> None:
    """Python for macOS has it since 3.13."""
    (desktop.project / "sitecustomize.py").write_text(WITHOUT_WAITID)
    elsewhere = {"PYTHONPATH": str(desktop.project), "DOCKER_HOST": desktop.engine.host}
    built = desktop.deploy(image, **elsewhere)
    assert built.returncode == 0, built.stderr
    check_published(image)

    (desktop.project / "Dockerfile").write_text(f"FROM {BUSYBOX}\nRUN exit 7\n")
    failed = desktop.deploy(image, **elsewhere)
    assert "did not complete successfully: exit code: 7" in failed.stderr


@pytest.fixture(scope="module")
def guarded(registry_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a registry that requires a password."""
    with guarded_registry(registry_program, tmp_path_factory.mktemp("guarded")) as address:
        yield address


HELPERS: dict[str, tuple[str, str]] = {
    # docker-py asks a helper for the list of its registries.
    "slow": (f"""sleep 3; [ "$1" = list ] && echo '{{"REGISTRY": "{USER}"}}' || {GIVES_PASSWORD}""", ""),
    "refusing": ("echo 'User interaction is not allowed.'; exit 1", "User interaction is not allowed"),
    "without the registry": (
        """[ "$1" = list ] && echo {} || { echo credentials not found in native keychain; exit 1; }""",
        "docker login REGISTRY",
    ),
}


@pytest.mark.parametrize("kind", HELPERS)
def test_the_credential_helper_of_docker_desktop(desktop: Desktop, guarded: str, kind: str) -> None:
    script, error = HELPERS[kind]
    helper = desktop.home / "bin/docker-credential-desktop"
    helper.write_text(f"#!/bin/sh\n{script.replace('REGISTRY', guarded)}\n")
    helper.chmod(0o755)
    desktop.configure(credsStore="desktop")
    image, there = f"{guarded}/{PREFIX}/{uuid4()}", {"DOCKER_HOST": desktop.engine.host}
    built = desktop.deploy(image, **there)
    inspected = desktop.run(COMMAND, "inspect", f"{image}:v1", "--fail-on-corruption", **there)
    printed = built.stdout + built.stderr + inspected.stdout + inspected.stderr
    assert not [secret for secret in (PASSWORD, BASIC) if secret in printed]
    if error:
        assert (built.returncode, inspected.returncode) == (1, 3)
        assert error.replace("REGISTRY", guarded) in inspected.stderr + built.stderr
    else:
        assert (built.returncode, inspected.returncode) == (0, 0), printed
        check_published(image, BASIC)
