"""If the caller of a build is killed or ends, the build ends too, as with docker-py."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import termios
import time
from contextlib import suppress
from importlib.util import find_spec
from typing import IO, TYPE_CHECKING, Any
from uuid import uuid4

import psutil
import pytest

from support.names import PREFIX
from support.processes import allowed, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.slow_build import SlowBuild

# A user's script. `told` waits for a line from the test.
START = """
import multiprocessing, os, signal, sys, threading
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from prefect.utilities.asyncutils import run_coro_as_sync
from prefect.utilities.dockerutils import build_image

context, tag = Path(sys.argv[1]), sys.argv[2]
told = lambda: os.read(0, 1)  # no more than one line: another thread can wait for the next one
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup, under which tests may run, ignores it

def build(**options):
    build_image(context, tag=tag, stream_progress_to=sys.stdout, **options)

async def build_in_loop():
    build()
"""
MAIN_THREAD = "build()"
LOOP = "run_coro_as_sync(build_in_loop())"
THREAD = "threading.Thread(target=build).start()"
QUIET = "build(quiet=True)"
BACKEND = """
from prefect.docker import DockerImage
os.chdir(context)
name, _, version = tag.partition(":")
DockerImage(name, version, "Dockerfile", sys.stdout, build_backend="buildx").build()
"""
STDIN = """
import io, tarfile
made = io.BytesIO()
with tarfile.open(fileobj=made, mode="w") as tar:
    tar.add(context / "Dockerfile", "Dockerfile")
made.seek(0)
build(fileobj=made, custom_context=True)
"""


class Script:
    """A user's script that builds, in a separate process."""

    def __init__(self, slow: SlowBuild, code: str, *, prefix: tuple[str, ...] = (), **options: Any) -> None:
        self.slow = slow
        self.tag = f"{PREFIX}/killed:{uuid4()}"
        self._output = slow.context.parent / "output"
        with self._output.open("wb") as output:
            self.process: subprocess.Popen[bytes] = subprocess.Popen(
                [*prefix, sys.executable, "-c", START + code, str(slow.context), self.tag],
                env={**os.environ, "PREFECT_DOCKER_DISABLE_ATTESTATIONS": "1"},
                **{"stdin": subprocess.PIPE, "stdout": output, "stderr": output, **options},
            )

    @property
    def output(self) -> str:
        return self._output.read_text(errors="replace")

    def wait_until_asleep(self) -> None:
        """Wait until the engine runs the step of the build."""
        wait_until(lambda: self.slow.works() or self.process.poll() is not None)
        assert self.slow.works(), self.output
        assert len(self.slow.docker()) == 2  # the docker CLI and its plugin
        assert len(self.slow.guards()) == 1
        assert list(self.slow.temporary.iterdir()) != []

    def tell(self) -> None:
        stdin: IO[bytes] | None = self.process.stdin
        assert stdin
        stdin.write(b"\n")
        stdin.flush()

    def check_the_build_has_ended(self) -> None:
        """Check that the build ends, that nothing of it remains, and that there is no image."""
        self.slow.check_it_ends()
        assert not self.has_image()

    def has_image(self) -> bool:
        found = subprocess.run(["docker", "image", "inspect", self.tag], capture_output=True, check=False)
        return found.returncode == 0


@pytest.fixture
def script(slow: SlowBuild) -> Iterator[Callable[..., Script]]:
    """A function that starts a user's script."""
    started: list[Script] = []

    def start(code: str, **options: Any) -> Script:
        started.append(Script(slow, code, **options))
        return started[-1]

    yield start
    for each in started:
        with suppress(psutil.Error):
            for child in psutil.Process(each.process.pid).children(recursive=True):
                child.kill()
        each.process.kill()
        each.process.wait()


@pytest.mark.usefixtures("some_engine")
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGKILL, signal.SIGTERM], ids=lambda n: n.name)
@pytest.mark.parametrize("code", [MAIN_THREAD, LOOP, THREAD], ids=["main-thread", "loop", "thread"])
def test_a_signal_that_ends_the_caller_ends_the_build(
    script: Callable[..., Script], code: str, number: signal.Signals
) -> None:
    caller = script(code)
    caller.wait_until_asleep()
    caller.process.send_signal(number)
    caller.process.wait(allowed(90))
    caller.check_the_build_has_ended()


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("code", [MAIN_THREAD, QUIET, BACKEND, STDIN], ids=["usual", "quiet", "build_backend", "stdin"])
def test_every_kind_of_build_ends_with_its_caller(script: Callable[..., Script], code: str) -> None:
    if code == BACKEND and not any(map(find_spec, ("prefect._internal.buildx", "prefect.docker._buildx"))):
        pytest.skip("this Prefect has no build_backend")
    caller = script(code)
    caller.wait_until_asleep()
    caller.process.kill()
    caller.process.wait()
    caller.check_the_build_has_ended()


@pytest.mark.usefixtures("some_engine")
@pytest.mark.parametrize(
    "code",
    [
        "threading.Thread(target=lambda: told() and os._exit(3), daemon=True).start(); build()",
        "threading.Thread(target=build, daemon=True).start(); told()",
    ],
    ids=["os._exit", "end-of-main-thread"],
)
def test_a_caller_that_ends_without_its_build_ends_it(script: Callable[..., Script], code: str) -> None:
    caller = script(code)
    caller.wait_until_asleep()
    caller.tell()
    caller.process.wait(allowed(90))
    caller.check_the_build_has_ended()


@pytest.mark.usefixtures("some_engine")
def test_a_caller_that_timeout_ends_ends_the_build(script: Callable[..., Script]) -> None:
    for seconds in (8, 24, 80):  # a busy machine takes longer to start a build
        caller = script(MAIN_THREAD, prefix=("timeout", str(seconds)))
        with suppress(AssertionError):
            caller.wait_until_asleep()
            break
        caller.process.wait()
        caller.check_the_build_has_ended()
    assert caller.process.wait(allowed(90)) == 124
    caller.check_the_build_has_ended()


@pytest.mark.usefixtures("some_engine")
def test_a_closed_terminal_ends_the_build(script: Callable[..., Script]) -> None:
    keyboard, device = os.openpty()
    try:
        code = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); build()"
        caller = script(code, stdin=device, start_new_session=True)
        caller.wait_until_asleep()
    finally:
        os.close(keyboard)
        os.close(device)
    assert caller.process.wait(allowed(90)) == -signal.SIGHUP
    caller.check_the_build_has_ended()


@pytest.mark.usefixtures("some_engine")
def test_a_terminal_is_as_it_was_after_its_caller_was_killed(script: Callable[..., Script]) -> None:
    keyboard, device = os.openpty()
    before = termios.tcgetattr(device)
    caller = script(MAIN_THREAD, stdin=device, stdout=device, stderr=device)
    caller.wait_until_asleep()
    caller.process.kill()
    caller.process.wait()
    caller.check_the_build_has_ended()
    os.set_blocking(keyboard, False)
    assert b"\x1b[?" not in os.read(keyboard, 1_000_000)  # the cursor is visible, and the main screen is active
    assert termios.tcgetattr(device) == before
    assert os.get_blocking(device)
    os.close(keyboard)
    os.close(device)


@pytest.mark.usefixtures("some_engine")
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_a_worker_of_a_pool_that_dies_ends_its_build(
    script: Callable[..., Script], slow: SlowBuild, method: str
) -> None:
    # The workers import this module from a file.
    (slow.context / "work.py").write_text(START)
    caller = script(f"""
sys.path.insert(0, str(context))
import work
if __name__ == "__main__":
    with ProcessPoolExecutor(1, multiprocessing.get_context("{method}")) as pool:
        building = pool.submit(work.build)
        told()
        for worker in list(pool._processes.values()):
            worker.kill()
        print(repr(building.exception()), flush=True)
        told()
""")
    caller.wait_until_asleep()
    caller.tell()
    wait_until(lambda: "BrokenProcessPool" in caller.output)
    caller.check_the_build_has_ended()
    assert caller.process.poll() is None


@pytest.mark.usefixtures("some_engine")
def test_python_waits_for_a_build_in_a_thread(script: Callable[..., Script], slow: SlowBuild) -> None:
    slow.write_step(f"sleep 2; : {slow.seconds}")
    caller = script(THREAD)
    assert caller.process.wait(allowed(90)) == 0, caller.output
    assert caller.has_image()


@pytest.mark.usefixtures("some_engine")
def test_a_forked_child_that_ends_does_not_end_the_build(script: Callable[..., Script], slow: SlowBuild) -> None:
    slow.write_step(f"sleep 10; : {slow.seconds}")
    caller = script("""
class Stream:
    def write(self, line):
        if line.endswith("asleep at last\\n"):
            if not os.fork():
                raise SystemExit  # through all of the build's frames
            os.wait()
            told()
    def flush(self): pass

def fork():
    multiprocessing.get_context("fork").Process(target=print).start()
    for leave in sys.exit, os._exit:
        if not os.fork():
            leave(0)
        os.wait()

threading.Thread(target=lambda: told() and fork()).start()
build_image(context, tag=tag, stream_progress_to=Stream())
""")
    caller.wait_until_asleep()
    caller.tell()
    caller.tell()
    assert caller.process.wait(allowed(90)) == 0, caller.output
    assert caller.has_image()
    slow.check_nothing_is_left()


@pytest.mark.usefixtures("some_engine")
def test_a_forked_child_that_lives_on_does_not_keep_the_build_alive(script: Callable[..., Script]) -> None:
    caller = script("""
threading.Thread(target=build, daemon=True).start()
told()
if not os.fork():
    import time
    print("the child lives", flush=True)
    time.sleep(987)
told()
""")
    caller.wait_until_asleep()
    caller.tell()
    wait_until(lambda: "the child lives" in caller.output)
    (child,) = [
        process
        for process in psutil.Process(caller.process.pid).children()
        if not process.name().startswith(("docker", "sh"))
    ]
    caller.process.kill()
    caller.process.wait()
    caller.check_the_build_has_ended()
    assert child.is_running()
    child.kill()


@pytest.mark.parametrize("code", [MAIN_THREAD, QUIET], ids=["usual", "quiet"])
@pytest.mark.usefixtures("engine")
def test_no_tag_moves_afterwards(script: Callable[..., Script], slow: SlowBuild, code: str) -> None:
    slow.write_step(f"sleep 15; : {slow.seconds}")
    caller = script(code)
    caller.wait_until_asleep()
    caller.process.kill()
    caller.process.wait()
    caller.check_the_build_has_ended()
    time.sleep(16)
    assert not caller.has_image()
