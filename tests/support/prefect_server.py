"""Runs a Prefect server, and work pools for Docker with one worker each; deploys and runs flows like a user."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from prefect import get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.settings import PREFECT_API_URL, temporary_settings

from engines.machine import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from engines.private import Engine, Store

SETTING = "PREFECT_DOCKER_DISABLE_ATTESTATIONS"
PREFECT = str(Path(sys.executable).with_name("prefect"))
# Ends a command with the tests, also if they are killed.
_TIED = ("setpriv", "--pdeathsig", "KILL", "--") if shutil.which("setpriv") else ()
# Seconds. This is long, because the machine can be busy, and can emulate another platform.
PATIENCE = 280

FLOWS = """\
import importlib.util
import os
import platform

from prefect import flow


@flow(log_prints=True)
def hello() -> None:
    print(f"hello from {platform.machine()}")
    print(f"attestations disabled: {os.environ.get('PREFECT_DOCKER_DISABLE_ATTESTATIONS')}")
    print(f"the package is installed: {importlib.util.find_spec('prefect_docker_attest') is not None}")


@flow(log_prints=True)
def goodbye() -> None:
    print(f"goodbye from {platform.machine()}")
"""
SCRIPT = """\
from flows import goodbye, hello
from prefect import deploy
from prefect.docker import DockerImage

"""


def run(command: list[str], environment: Mapping[str, str], folder: Path | None = None) -> str:
    """Run a command, and return its output. If the command fails, raise an error with its output."""
    ran = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise RuntimeError(f"{command} ended with {ran.returncode}\n{ran.stdout}\n{ran.stderr}")
    return ran.stdout


@dataclass(frozen=True)
class Run:
    """A flow run that has ended."""

    state: str
    log: str
    """The message of the state, and the log of the flow run."""


@dataclass(frozen=True)
class Prefect:
    """A Prefect server with its own home folder, and the workers of its work pools."""

    home: Path
    url: str
    engines: Mapping[Store, Engine]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def environment(self, store: Store | None = None, **more: str) -> dict[str, str]:
        """Return the environment of a user who uses the engine with this image store."""
        theirs = self.engines[store].environment if store else os.environ
        return {
            **{name: value for name, value in theirs.items() if not name.startswith("PREFECT_")},
            "PREFECT_HOME": str(self.home),
            # Old versions of Prefect do not use PREFECT_HOME for profiles.
            "PREFECT_PROFILES_PATH": str(self.home / "profiles.toml"),
            "PREFECT_API_URL": self.url,
            "PREFECT_API_REQUEST_TIMEOUT": str(PATIENCE),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            **more,
        }

    def start(self, name: str, *arguments: str, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Start a `prefect` command that keeps running. Its output goes to a file in the home folder."""
        with (self.home / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [*_TIED, PREFECT, *arguments],
                env=environment,
                cwd=self.home,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes[name] = process
        return process

    def worker(self, store: Store) -> str:
        """Return a work pool whose worker runs containers in the engine with this image store."""
        pool = f"docker-{store}"
        if pool not in self.processes:
            run([PREFECT, "work-pool", "create", pool, "--type=docker"], self.environment())
            # The worker has the setting too, and passes it to the containers, which do not have this package.
            environment = self.environment(store, **{SETTING: "true"}, PREFECT_WORKER_QUERY_SECONDS="1")
            self.start(pool, "worker", "start", f"--pool={pool}", "--type=docker", environment=environment)
        return pool

    def finish(self, deployment: str, **job_variables: Any) -> Run:
        """Run a deployment, `flow/name`, with the worker, and wait until it ends."""
        # The container uses the machine's network, to reach the server.
        variables = {"network_mode": "host", "networks": [], "env": {"PREFECT_API_URL": self.url}, **job_variables}
        with temporary_settings({PREFECT_API_URL: self.url}), get_client(sync_client=True) as client:
            found = client.read_deployment_by_name(deployment)
            flow_run = client.create_flow_run_from_deployment(found.id, job_variables=variables)
            of_this = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[flow_run.id]))

            def log() -> str:
                return "\n".join(log.message for log in client.read_logs(of_this))

            end = time.monotonic() + PATIENCE
            while True:
                state = client.read_flow_run(flow_run.id).state
                # The log of a flow run arrives after its final state.
                if state and state.is_final() and (not state.is_completed() or "Finished in state" in log()):
                    return Run(str(state.name), f"{state.message}\n{log()}")
                if time.monotonic() > end:
                    raise TimeoutError(f"{deployment} does not end: {state}\n{log()}\n{self.logs()}")
                time.sleep(0.5)

    def logs(self) -> str:
        """The last of what the server and the workers printed."""
        return "\n".join(
            f"--- {name}\n{(self.home / f'{name}.log').read_text(errors='replace')[-4000:]}" for name in self.processes
        )

    def stop(self) -> None:
        """Stop the workers and the server, and what they started; nothing of theirs is to be kept."""
        for process in self.processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextlib.contextmanager
def serving(home: Path, engines: Mapping[Store, Engine]) -> Iterator[Prefect]:
    """Run a Prefect server on loopback inside a ``with``."""
    port = free_port()
    prefect = Prefect(home, f"http://127.0.0.1:{port}/api", engines)
    try:
        command = ("server", "start", "--host=127.0.0.1", f"--port={port}")
        server = prefect.start("server", *command, environment=prefect.environment())
        end = time.monotonic() + PATIENCE
        while not _answers(f"{prefect.url}/health"):
            if server.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the Prefect server does not start\n{prefect.logs()}")
            time.sleep(0.2)
        yield prefect
    finally:
        prefect.stop()


def _answers(url: str) -> bool:
    # No proxies: a proxy cannot reach a loopback address of this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=5):
            return True
    except OSError:
        return False


@dataclass(frozen=True)
class Project:
    """A user's folder with flows, and the environment of the user."""

    folder: Path
    environment: Mapping[str, str]

    def script(self, code: str) -> str:
        """Run a script of the user, and return its output."""
        (self.folder / "deploy.py").write_text(SCRIPT + textwrap.dedent(code))
        return run([sys.executable, "deploy.py"], self.environment, self.folder)

    def deploy_all(self, prefect_yaml: str) -> str:
        """Run `prefect deploy --all` with this prefect.yaml, and return its output."""
        (self.folder / "prefect.yaml").write_text(textwrap.dedent(prefect_yaml))
        return run([PREFECT, "--no-prompt", "deploy", "--all"], self.environment, self.folder)


class MakeProject(Protocol):
    """Makes the folder of a user who has an engine with this image store, and this value of the setting."""

    def __call__(self, store: Store, setting: str = "true") -> Project: ...
