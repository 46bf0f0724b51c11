"""Deploys, builds and checks on the emulated arm64 machine that `scripts/arm64.py` starts.

The machine runs this program as root. For each row of the table it prints a line: `ROW`, and JSON with what was seen.
All builds but one run in this process, because the import of Prefect takes a minute there.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import logging
import os
import resource
import shutil
import subprocess
import sys
import time
import traceback
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FLOW = "from prefect import flow\n\n\n@flow\ndef hello() -> None: ...\n"
DOCKERFILE = "FROM busybox\nCOPY . /opt/prefect/\n"
STEPS = """\
build:
  - prefect_docker.deployments.steps.build_docker_image:
      id: build
      image_name: {image}
      tag: v1
      dockerfile: Dockerfile
      platform: linux/amd64
push:
  - prefect_docker.deployments.steps.push_docker_image:
      image_name: "{{{{ build.image_name }}}}"
      tag: "{{{{ build.tag }}}}"
"""
BUILD_AND_PUSH = """
from prefect.docker import DockerImage

image = DockerImage("{image}", "v1", "Dockerfile")
image.build()
image.push()
"""
# The helper of Docker Desktop answers so where nobody has logged in. docker-py asks for the list of registries.
HELPER = """#!/bin/sh
[ "$1" = list ] && echo "{}" && exit
echo credentials not found in native keychain
exit 1
"""
# In a mount namespace of its own, a program sees the engine's socket and buildx only in the home folder.
AS_WITH_DESKTOP = """
touch "$HOME/.docker/run/docker.sock"
mount --bind /run/docker.sock "$HOME/.docker/run/docker.sock"
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /usr/libexec/docker
docker context create desktop-linux "--docker=host=unix://$HOME/.docker/run/docker.sock"
docker context use desktop-linux
python3 deploy.py
"""
AMD64 = "linux/amd64"
POOL = "docker-pool"
START_UPS = 25
REGISTRY_CONFIG = "version: 0.1\nstorage: {filesystem: {rootdirectory: /var/lib/registry}}\nhttp: {addr: ':5000'}\n"


class Rows:
    """Runs the rows on one image store after the other.

    Args:
        registry: host and port of the registry.
        api: address of Prefect's API.
        only: words in the names of the rows to run; empty for all.
    """

    def __init__(self, registry: str, api: str, only: list[str]) -> None:
        self._registry, self._api, self._only, self._store = registry, api, only, ""

    def run(self) -> None:
        """Run all rows, and print what was seen."""
        print(flush=True)  # systemd resets the terminal in the first line
        os.environ.update(PREFECT_API_URL=self._api, DO_NOT_TRACK="1", PREFECT_SERVER_ANALYTICS_ENABLED="false")
        self._row("import prefect", self._import)
        shared = {
            "flow.deploy": self._flow_deploy,
            "YAML steps": self._steps,
            'build_backend="buildx"': self._build_backend,
        }
        self._use_store("containerd")
        for name, function in {
            "setting off, flow.deploy": self._setting_off,
            **shared,
            "RUN step for amd64": self._run_step,
            "native, attestations wanted": self._attestations,
            "base image for arm64 only": self._wrong_base,
            "base image for arm64 only, in an index": self._missing_base,
            "start-up": self._start_up,
            "versions": self._versions,
            "inspect": self._inspect,
            "doctor": self._doctor,
            "doctor, --timeout 900": lambda: self._doctor("--timeout=900"),
            "PREFECT_DOCKER_PLATFORM by profile": self._profile,
            "context desktop-linux": self._desktop,
        }.items():
            self._row(name, function)
        self._use_store("graphdriver")
        for name, function in shared.items():
            self._row(name, function)
        self._use_store("containerd")
        self._row("demo", self._demo)

    def _row(self, name: str, function: Callable[[], dict[str, Any]]) -> None:
        if self._only and not any(word in name for word in self._only):
            return
        began = time.monotonic()
        try:
            found = function()
        except BaseException:
            found = {"error": traceback.format_exc()[-3000:]}
        row = {"name": name, "store": self._store, "seconds": round(time.monotonic() - began), **found}
        print("ROW", json.dumps(row), flush=True)

    def _use_store(self, store: str) -> None:
        config = {
            "features": {"containerd-snapshotter": store == "containerd"},
            "registry-mirrors": [f"http://{self._registry}"],
        }
        Path("/etc/docker").mkdir(exist_ok=True)
        Path("/etc/docker/daemon.json").write_text(json.dumps(config))
        _run("systemctl", "restart", "docker")
        _run("docker", "pull", "--quiet", "busybox")
        self._store = store

    def _import(self) -> dict[str, Any]:
        import prefect.docker
        import prefect_docker.deployments.steps  # noqa: F401

        logging.getLogger("prefect_docker_attest").addHandler(logging.StreamHandler(sys.stdout))
        return {"versions": prefect.__version__}

    @contextlib.contextmanager
    def _context(self, dockerfile: str = DOCKERFILE) -> Iterator[Path]:
        """Give a new folder with a flow and a Dockerfile, which is the current folder meanwhile."""
        folder = Path("/root/context")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "Dockerfile").write_text(dockerfile)
        (folder / "flows.py").write_text(FLOW)
        with contextlib.chdir(folder):
            sys.path.insert(0, str(folder))
            yield folder
            sys.path.remove(str(folder))

    def _image(self, name: str) -> str:
        return f"{self._registry}/arm64/{name}-{self._store}"

    @contextlib.contextmanager
    def _setting(self, value: bool) -> Iterator[None]:
        from prefect.settings import PREFECT_DOCKER_DISABLE_ATTESTATIONS, temporary_settings

        with temporary_settings({PREFECT_DOCKER_DISABLE_ATTESTATIONS: value}):
            yield

    def _deployed(self, name: str, *, setting: bool) -> dict[str, Any]:
        from prefect.docker import DockerImage

        with self._context(), self._setting(setting):
            hello = importlib.import_module("flows").hello
            image = DockerImage(self._image(name), tag="v1", dockerfile="Dockerfile", platform=AMD64)
            hello.deploy(name=f"{name}-{self._store}", work_pool_name=POOL, image=image, print_next_steps=False)
        return {"image": image.reference}

    def _setting_off(self) -> dict[str, Any]:
        return self._deployed("off", setting=False)

    def _flow_deploy(self) -> dict[str, Any]:
        return self._deployed("deployed", setting=True)

    def _steps(self) -> dict[str, Any]:
        import asyncio

        from prefect.deployments.steps.core import run_steps

        async def run() -> None:
            steps = importlib.import_module("yaml").safe_load(STEPS.format(image=self._image("steps")))
            outputs = await run_steps(steps["build"])
            await run_steps(steps["push"], outputs)

        with self._context(), self._setting(True):
            asyncio.run(run())
        return {"image": f"{self._image('steps')}:v1"}

    def _built(
        self, name: str, dockerfile: str = DOCKERFILE, *, setting: bool = True, **options: Any
    ) -> dict[str, Any]:
        from prefect.docker import DockerImage

        with self._context(dockerfile), self._setting(setting):
            output = io.StringIO()
            image = DockerImage(self._image(name), "v1", "Dockerfile", stream_progress_to=output, **options)
            image.build()
            image.push()
        warnings = [line for line in output.getvalue().splitlines() if line.startswith("WARNING: ")]
        return {"image": image.reference, "warnings": warnings}

    def _build_backend(self) -> dict[str, Any]:
        return self._built("backend", platform=AMD64, build_backend="buildx")

    def _run_step(self) -> dict[str, Any]:
        return self._built("run-step", f"{DOCKERFILE}RUN uname -m > /built-on\n", platform=AMD64)

    def _attestations(self) -> dict[str, Any]:
        return self._built("attested", setting=False, provenance="mode=max")

    def _wrong_base(self) -> dict[str, Any]:
        return self._built(
            "wrong-base", DOCKERFILE.replace("busybox", f"{self._registry}/library/only-arm64"), platform=AMD64
        )

    def _missing_base(self) -> dict[str, Any]:
        from prefect.utilities.dockerutils import BuildError

        try:
            return self._built("missing-base", DOCKERFILE.replace("busybox", "only-arm64:index"), platform=AMD64)
        except BuildError as error:
            return {"refused": str(error)}

    def _profile(self) -> dict[str, Any]:
        home = {**os.environ, "PREFECT_HOME": "/root/.prefect", "PREFECT_PROFILES_PATH": "/root/profiles.toml"}
        _run(
            *("prefect", "config", "set", f"PREFECT_DOCKER_PLATFORM={AMD64}"),
            "PREFECT_DOCKER_DISABLE_ATTESTATIONS=true",
            environment=home,
        )
        with self._context() as folder:
            (folder / "deploy.py").write_text(BUILD_AND_PUSH.format(image=self._image("profile")))
            _run("python3", "deploy.py", environment=home)
        return {"image": f"{self._image('profile')}:v1"}

    def _desktop(self) -> dict[str, Any]:
        home = Path("/root/Zoë Müller")
        settings = {"PREFECT_DOCKER_DISABLE_ATTESTATIONS": "true", "PREFECT_DOCKER_PLATFORM": AMD64}
        path = f"{home}/bin:{os.environ['PATH']}"
        (home / ".docker/run").mkdir(parents=True)
        (home / ".docker/config.json").write_text('{"credsStore": "desktop"}')
        shutil.copytree("/usr/libexec/docker/cli-plugins", home / ".docker/cli-plugins")
        (home / "bin").mkdir()
        helper = home / "bin/docker-credential-desktop"
        helper.write_text(HELPER)
        helper.chmod(0o755)
        with self._context() as folder:
            (folder / "deploy.py").write_text(BUILD_AND_PUSH.format(image=self._image("desktop")))
            in_namespace = ("unshare", "--mount", "sh", "-euxc", AS_WITH_DESKTOP)
            _run(*in_namespace, environment={**os.environ, **settings, "HOME": str(home), "PATH": path})
        return {"image": f"{self._image('desktop')}:v1"}

    def _doctor(self, *arguments: str) -> dict[str, Any]:
        environment = {**os.environ, "PREFECT_DOCKER_DISABLE_ATTESTATIONS": "true"}
        command = ["prefect-docker-attest", "doctor", "--json", *arguments]
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        return {"code": ran.returncode, "checks": json.loads(ran.stdout)["checks"]}

    def _versions(self) -> dict[str, Any]:
        return {"versions": _run("prefect-docker-attest", "--version").strip()}

    def _inspect(self) -> dict[str, Any]:
        command = ["prefect-docker-attest", "inspect", "--json", "--fail-on-corruption"]
        codes = {
            name: subprocess.run([*command, f"{self._image(name)}:v1"], capture_output=True, check=False).returncode
            for name in ("off", "deployed")
        }
        return {"codes": codes}

    def _start_up(self) -> dict[str, Any]:
        """Measure the CPU time of Python's start with and without the start-up file, in turn."""
        import prefect_docker_attest

        pth = Path(prefect_docker_attest.__file__).parents[1] / "prefect_docker_attest.pth"
        away = pth.with_suffix(".away")
        pairs = []
        for _ in range(START_UPS):
            with_it = _cpu_time()
            pth.rename(away)
            without = _cpu_time()
            away.rename(pth)
            pairs.append((without, with_it - without))
        bare, added = (median(values) for values in zip(*pairs, strict=True))
        return {"bare": round(bare * 1000, 1), "added": round(added * 1000, 1)}

    def _demo(self) -> dict[str, Any]:
        _make_registry_image()
        printed = []
        with subprocess.Popen(
            [sys.executable, "/usr/local/examples/demo.py"],
            env={**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "120"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as demo:
            for line in demo.stdout or ():
                print(line, end="", flush=True)
                printed.append(line)
        return {"code": demo.returncode, "printed": "".join(printed)[-6000:]}


def _make_registry_image() -> None:
    """Make the image `registry:2` of the Docker Hub from the program of this machine, for the demo."""
    folder = Path("/root/registry")
    config = folder / "etc/docker/registry/config.yml"
    config.parent.mkdir(parents=True)
    config.write_text(REGISTRY_CONFIG)
    program = "/usr/bin/docker-registry"
    libraries = {word for word in _run("ldd", program).split() if word.startswith("/")}
    for file in {program, *libraries}:
        target = folder / file.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    changes = (f'--change=ENTRYPOINT ["{program}"]', '--change=CMD ["serve", "/etc/docker/registry/config.yml"]')
    _run("tar", "--create", "--file=/root/registry.tar", f"--directory={folder}", ".")
    _run("docker", "import", *changes, "/root/registry.tar", "registry:2")


def _cpu_time() -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    _run(sys.executable, "-c", "pass")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _run(*command: str, environment: dict[str, str] | None = None) -> str:
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise RuntimeError(f"{command} ended with {ran.returncode}\n{ran.stdout}\n{ran.stderr}")
    return ran.stdout


def main() -> None:
    """Run the rows that `scripts/arm64.py` has written into the file beside this one."""
    given = json.loads((Path(__file__).parent / "rows.json").read_text())
    Rows(given["registry"], given["api"], given["only"]).run()
