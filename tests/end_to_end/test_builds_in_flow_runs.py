"""Flow runs build images: in the flow, in tasks, in threads, in other processes, and with a worker."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil
import pytest
from prefect import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from support.names import BUSYBOX, PREFIX
from support.prefect_server import PATIENCE, PREFECT, SETTING, Prefect, run
from support.processes import wait_until
from support.slow_build import SlowBuild

if TYPE_CHECKING:
    from collections.abc import Iterator

# The first test of a run that uses the base image of flows makes it.
pytestmark = pytest.mark.timeout(900)

FLOWS = """
import docker  # Prefect loads it lazily. Before Python 3.13, this fails if two threads do so at once.
import contextlib, io, os, sys
from pathlib import Path

import anyio
from prefect import flow, task
from prefect.docker import DockerImage
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.utilities.dockerutils import build_image
from prefect_docker.deployments.steps import build_docker_image
try:
    from prefect.task_runners import ProcessPoolTaskRunner
except ImportError:
    ProcessPoolTaskRunner = ThreadPoolTaskRunner

FOLDER = Path(__file__).parent

class Stream(io.StringIO):
    def write(self, text):
        print(text, end="", flush=True)
        return super().write(text)

def build(where, context="quick", stream=None):
    stream = stream or Stream()
    build_image(FOLDER / context, tag=f"{PREFIX}/flow-run:{context}-{where}", stream_progress_to=stream)
    return where, "[internal] load build definition" in stream.getvalue()

@task
def in_task(where, context="quick"):
    return build(where, context)

@flow
def in_flow(context="quick"):
    return build("flow", context)

@flow(task_runner=ThreadPoolTaskRunner())
def in_threads(context="quick"):
    return [future.result() for future in [in_task.submit(f"thread-{number}", context) for number in range(3)]]

@flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
def in_processes(context="quick"):
    return in_task.submit("process", context).result()

@flow
async def in_async_flow(context="quick"):
    return [build("loop", context), await anyio.to_thread.run_sync(build, "anyio", context)]

@flow
def deploys():
    os.chdir(FOLDER / "quick")
    stream = Stream()
    image = DockerImage(f"{PREFIX}/flow-run", "quick-deployed", "Dockerfile", stream_progress_to=stream)
    in_flow.from_source(str(FOLDER), "flows.py:in_flow").deploy(
        "image", work_pool_name=sys.argv[1], image=image, push=False, print_next_steps=False
    )
    return "deployed", "[internal] load build definition" in stream.getvalue()

@flow
def in_worker():
    _, with_buildx = build("flow", "worker")
    os.chdir(FOLDER / "worker")
    with contextlib.redirect_stdout(io.StringIO()) as output:
        build_docker_image(f"{PREFIX}/flow-run", "Dockerfile", "worker-step")
    assert with_buildx and "[internal] load build definition" in output.getvalue()

@task(timeout_seconds=float(os.environ.get("SECONDS", 0)) or None)
def in_timed_task(stream):
    return build("task", "slow", stream)

@flow(timeout_seconds=float(os.environ.get("SECONDS", 0)) or None)
def timed_flow(stream):
    return build("flow", "slow", stream)

@flow(task_runner=ThreadPoolTaskRunner())
def timed_task_in_a_thread(stream):
    return in_timed_task.submit(stream).result()
"""

ALL = """
import asyncio, json, sys
from prefect.settings import PREFECT_DOCKER_DISABLE_ATTESTATIONS, temporary_settings
import flows

if __name__ == "__main__":
    with temporary_settings({PREFECT_DOCKER_DISABLE_ATTESTATIONS: True}):
        built = [flows.in_flow(), *flows.in_threads(), flows.in_processes(), *asyncio.run(flows.in_async_flow())]
        built.append(flows.deploys())
    print(json.dumps(built))
"""

TIMED = """
import sys
import flows
stream = flows.Stream()
try:
    getattr(flows, sys.argv[1])(stream)
except TimeoutError as error:
    print(f"TimeoutError: {error}")
"""


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlowBuild]:
    """A folder with flows, which build the contexts `quick` and `slow`."""
    slow = SlowBuild(tmp_path_factory.mktemp("flows"))
    folder = slow.context.parent
    slow.context = slow.context.rename(folder / "slow")
    for context in "quick", "worker":
        (folder / context).mkdir()
        (folder / context / "Dockerfile").write_text(f"FROM {BUSYBOX}\nRUN echo {context}\n")
    (folder / "flows.py").write_text(FLOWS.replace("{PREFIX}", PREFIX))
    yield slow
    for process in slow.processes():
        with suppress(psutil.Error):
            process.kill()


def tags(prefect: Prefect, context: str) -> set[str]:
    """Return the tags of the images that the flows have built from a context."""
    command = ("docker", "images", "--format={{.Tag}}", f"{PREFIX}/flow-run")
    found = prefect.engines["containerd"].run(*command).stdout.split()
    return {tag for tag in found if tag.startswith(context)}


def test_every_place_in_a_flow_run_builds_with_the_setting(prefect: Prefect, slow: SlowBuild) -> None:
    run([PREFECT, "work-pool", "create", "docker-builds", "--type=docker"], prefect.environment())
    folder = slow.context.parent
    (folder / "all.py").write_text(ALL)
    environment = prefect.environment("containerd", **slow.variables)
    output = run([sys.executable, "all.py", "docker-builds"], environment, folder)
    built = json.loads(output.splitlines()[-1])
    places = ["flow", "thread-0", "thread-1", "thread-2", "process", "loop", "anyio", "deployed"]
    # BuildKit makes its images without attestations, because the package checks each image of a build.
    assert built == [[place, True] for place in places]
    assert tags(prefect, "quick") == {f"quick-{place}" for place in places}
    slow.check_nothing_is_left()


@pytest.mark.parametrize("flow", ["timed_flow", "timed_task_in_a_thread"])
def test_timeout_seconds_ends_the_build(prefect: Prefect, slow: SlowBuild, flow: str) -> None:
    folder = slow.context.parent
    (folder / "timed.py").write_text(TIMED)
    for seconds in ("3", "15", "75"):  # a busy machine takes longer to start a build
        environment = prefect.environment("containerd", **slow.variables, **{SETTING: "true"}, SECONDS=seconds)
        output = run([sys.executable, "timed.py", flow], environment, folder)
        assert f"TimeoutError: Scope timed out after {seconds}.0 second(s)." in output
        slow.check_nothing_is_left()
        assert tags(prefect, "slow") == set()
        if "asleep at last\n" in output:
            break
    else:
        pytest.fail(output)


def ends_with_its_group() -> bool:
    """Whether a worker ends a flow run together with the processes that it has started."""
    try:
        from prefect.runner import _process_manager
    except ImportError:
        return False
    return hasattr(_process_manager, "_PosixProcessGroupTerminationScope")


def test_flow_runs_of_a_worker_build_and_are_cancelled(prefect: Prefect, slow: SlowBuild) -> None:
    run([PREFECT, "work-pool", "create", "builds", "--type=process"], prefect.environment())
    environment = prefect.environment(
        "containerd",
        **slow.variables,
        **{SETTING: "true"},
        PREFECT_RUNNER_POLL_FREQUENCY="1",
        PREFECT_WORKER_QUERY_SECONDS="1",
    )
    folder = slow.context.parent
    # A task runner's process can outlive a flow run that older versions of Prefect cancel, also without this package.
    flow = "in_processes" if ends_with_its_group() else "in_flow"
    step = {"prefect.deployments.steps.set_working_directory": {"directory": str(folder)}}
    deployments = [
        {"name": "a", "entrypoint": f"flows.py:{function}", "work_pool": {"name": "builds"}}
        for function in ("in_worker", flow)
    ]
    (folder / "prefect.yaml").write_text(json.dumps({"pull": [step], "deployments": deployments}))
    run([PREFECT, "--no-prompt", "deploy", "--all"], environment, folder)
    prefect.start("builds", "worker", "start", "--pool=builds", "--type=process", environment=environment)
    with temporary_settings({PREFECT_API_URL: prefect.url}), get_client(sync_client=True) as client:
        found = client.read_deployment_by_name("in-worker/a")
        building = client.create_flow_run_from_deployment(found.id).id
        states = iter(lambda: client.read_flow_run(building).state, None)
        wait_until(lambda: next(states).is_final(), PATIENCE)
        assert next(states).is_completed()
        found = client.read_deployment_by_name(f"{flow.replace('_', '-')}/a")
        flow_run = client.create_flow_run_from_deployment(found.id, parameters={"context": "slow"})
        wait_until(slow.works, PATIENCE)
    run([PREFECT, "flow-run", "cancel", str(flow_run.id)], environment)
    wait_until(lambda: not (slow.docker() or slow.works() or slow.guards() or slow.leftovers()), 60)
    assert tags(prefect, "slow") == set()
