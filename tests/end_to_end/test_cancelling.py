"""A flow run is cancelled while it builds an image."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil
import pytest
from prefect import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelling

from support.prefect_server import PATIENCE, SETTING, Prefect
from support.processes import wait_until
from support.slow_build import SlowBuild

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from prefect.client.orchestration import SyncPrefectClient

SERVED = """
import sys
from pathlib import Path
from prefect import flow
from prefect.utilities.dockerutils import build_image

@flow
def deploying():
    build_image(Path({context!r}), stream_progress_to=sys.stdout)

if __name__ == "__main__":
    deploying.serve(name="cancelled")
"""


# The first test of a run that uses the base image of flows makes it.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def client(prefect: Prefect) -> Iterator[SyncPrefectClient]:
    with temporary_settings({PREFECT_API_URL: prefect.url}), get_client(sync_client=True) as client:
        yield client


@pytest.fixture
def slow(prefect: Prefect, tmp_path: Path) -> Iterator[SlowBuild]:
    """A build that sleeps, in a flow that another process serves."""
    slow = SlowBuild(tmp_path)
    script = tmp_path / "serve.py"
    script.write_text(SERVED.format(context=str(slow.context)))
    environment = prefect.environment(
        "containerd", **slow.variables, **{SETTING: "true"}, PREFECT_RUNNER_POLL_FREQUENCY="1"
    )
    with (tmp_path / "served").open("wb") as output:
        served = subprocess.Popen([sys.executable, script], env=environment, cwd=tmp_path, stdout=output, stderr=output)
    yield slow
    served.send_signal(signal.SIGTERM)
    for process in slow.processes():
        with suppress(psutil.NoSuchProcess):
            process.kill()
    served.wait()


def test_a_cancelled_flow_run_ends_its_build(client: SyncPrefectClient, slow: SlowBuild) -> None:
    def is_deployed() -> bool:
        return any(each.name == "cancelled" for each in client.read_deployments())

    wait_until(is_deployed, PATIENCE)
    deployment = client.read_deployment_by_name("deploying/cancelled")
    flow_run = client.create_flow_run_from_deployment(deployment.id)
    wait_until(slow.works, PATIENCE)
    (flow_runs_process,) = {process.parent() for process in slow.docker()} - set(slow.docker())
    assert isinstance(flow_runs_process, psutil.Process)
    client.set_flow_run_state(flow_run.id, Cancelling())
    flow_runs_process.wait(PATIENCE)
    slow.check_it_ends()

    def is_cancelled() -> bool:
        state = client.read_flow_run(flow_run.id).state
        return state is not None and state.is_cancelled()

    wait_until(is_cancelled, PATIENCE)
