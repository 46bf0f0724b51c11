"""A build that is stopped leaves no process, no file and no work in the engine, and an error says why."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import termios
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import anyio
import anyio.from_thread
import anyio.to_thread
import psutil
import pytest
from docker.errors import ImageNotFound
from prefect.docker import DockerImage
from prefect.utilities.dockerutils import BuildError, build_image, docker_client

from engines import machine, private
from support.names import PREFIX
from support.processes import allowed, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.slow_build import SlowBuild

pytestmark = pytest.mark.usefixtures("switched_on")

TAG = f"{PREFIX}/stopped:tag"


class Stream:
    """A stream for Prefect's progress that calls a function when the command of the step runs."""

    def __init__(self, slow: SlowBuild, once_asleep: Callable[[], object]) -> None:
        self._slow = slow
        self._once_asleep = once_asleep
        self.lines: list[str] = []

    def write(self, text: str) -> None:
        self.lines.append(text)
        if self._slow.is_asleep(text):
            wait_until(self._slow.works)
            self._once_asleep()

    def flush(self) -> None:
        """Do nothing: nothing is buffered."""


def build(slow: SlowBuild, once_asleep: Callable[[], object], **options: Any) -> list[str]:
    stream = Stream(slow, once_asleep)
    build_image(slow.context, stream_progress_to=stream, **options)  # type: ignore[arg-type]
    return stream.lines


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(
    "raised", [OSError(28, "No space left on device"), KeyboardInterrupt(), SystemExit(3)], ids=repr
)
def test_an_exception_in_write_stops_the_build(slow: SlowBuild, raised: BaseException) -> None:
    def fail() -> None:
        assert len(slow.processes()) == 2  # the docker CLI and its plugin
        assert list(slow.temporary.iterdir()) != []
        raise raised

    with pytest.raises(type(raised)) as error:
        build(slow, fail)
    assert error.value is raised
    slow.check_nothing_is_left()


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("decode", [True, False])
def test_partly_read_events_end_with_the_client(slow: SlowBuild, decode: bool) -> None:
    with docker_client() as client:
        for event in slow.events(client, decode=decode):
            if "asleep at last" in str(event):
                break
        wait_until(slow.works)
    slow.check_nothing_is_left()


@pytest.mark.usefixtures("some_engine")
def test_events_in_a_traceback_end_with_the_client(slow: SlowBuild) -> None:
    def read() -> None:
        with docker_client() as client:
            for event in slow.events(client, decode=True):
                if slow.is_asleep(event.get("stream", "")):
                    wait_until(slow.works)
                    raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as error:
        read()
    slow.check_nothing_is_left()
    assert error.traceback  # the traceback has the frames, which have the events


@pytest.mark.usefixtures("some_engine")
def test_events_that_are_closed_end_at_once(slow: SlowBuild) -> None:
    with docker_client() as client:
        events: Any = slow.events(client, decode=True)
        assert any(slow.is_asleep(event.get("stream", "")) for event in events)
        wait_until(slow.works)
        events.close()
        slow.check_nothing_is_left()


@pytest.mark.usefixtures("some_engine")
def test_unread_events_start_no_build(slow: SlowBuild) -> None:
    with docker_client() as client:
        slow.events(client, decode=True)
        assert slow.processes() == []
    slow.check_nothing_is_left()


@pytest.mark.usefixtures("containerd_engine")
@pytest.mark.parametrize("begun", [True, False])
def test_events_that_are_read_after_the_client_was_closed_are_an_error(slow: SlowBuild, begun: bool) -> None:
    with docker_client() as client:
        events: Any = slow.events(client, decode=True)
        assert not begun or next(events)
    with pytest.raises(BuildError, match=r"TIP Read the output inside the `with docker_client\(\)` block"):
        list(events)
    assert list(events) == []
    slow.check_nothing_is_left()


@pytest.mark.usefixtures("engine")
def test_a_build_without_output_is_stopped_by_timeout(slow: SlowBuild) -> None:
    limit = round(allowed(8))
    with pytest.raises(BuildError) as error:
        build(slow, lambda: None, timeout=limit)
    assert str(error.value) == (
        f"The build was stopped: it printed nothing new for {limit} seconds (timeout={limit}); "
        f"running: [2/2] RUN echo asleep at last; sleep {slow.seconds}\n"
        "TIP If it only needs more time, increase or omit timeout."
    )
    slow.check_nothing_is_left()


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("program", ["docker", "docker-buildx"])
def test_a_killed_docker_is_a_failed_build(slow: SlowBuild, program: str) -> None:
    def kill() -> None:
        (process,) = [one for one in slow.processes() if os.path.basename(one.cmdline()[0]) == program]
        process.kill()

    message = r"`docker buildx build` (was killed by signal 9|failed without an error message \(exit code (255|1)\))\."
    with pytest.raises(BuildError, match=message):
        build(slow, kill)
    slow.check_nothing_is_left()


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("abandoned", [False, True])
def test_a_cancelled_scope_stops_a_build_in_a_thread_of_anyio(slow: SlowBuild, abandoned: bool) -> None:
    async def build_until_it_sleeps() -> None:
        with anyio.CancelScope() as scope:

            def build_here() -> None:
                try:
                    build(slow, partial(anyio.from_thread.run_sync, scope.cancel), tag=TAG)
                finally:
                    ended.set()

            await anyio.to_thread.run_sync(build_here, abandon_on_cancel=abandoned)
            pytest.fail("the scope was not cancelled")
        assert scope.cancelled_caught
        assert await anyio.to_thread.run_sync(ended.wait, allowed(60))

    ended = threading.Event()
    anyio.run(build_until_it_sleeps)
    slow.check_nothing_is_left()
    with docker_client() as client, pytest.raises(ImageNotFound):
        client.images.get(TAG)


@pytest.mark.usefixtures("some_engine")
def test_fail_after_ends_a_build_in_a_thread_of_anyio_with_a_timeout_error(slow: SlowBuild) -> None:
    async def build_for(seconds: float) -> None:
        with anyio.fail_after(seconds):
            await anyio.to_thread.run_sync(partial(build, slow, lambda: None))

    with pytest.raises(TimeoutError):
        anyio.run(build_for, 1)
    slow.check_nothing_is_left()


@dataclass
class EngineOfItsOwn:
    """An engine that a test stops."""

    docker: private.PrivateDocker
    engine: private.Engine

    @property
    def dockerd(self) -> psutil.Process:
        folder = str(self.docker.folder)
        return next(  # the oldest one: it forks before it starts other programs
            process
            for process in psutil.process_iter(["name", "cmdline"])
            if process.info["name"] == "dockerd" and any(folder in each for each in process.info["cmdline"] or ())
        )

    def stop(self) -> None:
        """Stop the engine as a service manager does."""
        dockerd = self.dockerd
        dockerd.terminate()
        dockerd.wait(allowed(60))

    def restart(self) -> None:
        """Stop the engine, start it again, and wait until it answers."""
        command, environment = self.dockerd.cmdline(), self.dockerd.environ()
        self.stop()
        daemon = machine.start_daemon(command, self.docker.folder / "again.log", environment, detached=False)
        machine.wait_for("dockerd", daemon, partial(self.engine.run, "docker", "version"))


@pytest.fixture
def engine_of_its_own(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[EngineOfItsOwn]:
    suite = request.getfixturevalue("private_docker").suite  # this skips the test if there is no such engine
    store: private.Store = getattr(request, "param", "containerd")
    with private.start(suite, [store]) as docker:
        for name in ("DOCKER_HOST", "DOCKER_CONFIG", "PATH"):
            monkeypatch.setenv(name, docker.engines[store].environment[name])
        yield EngineOfItsOwn(docker, docker.engines[store])


def test_an_engine_that_is_killed_is_a_failed_build(engine_of_its_own: EngineOfItsOwn, slow: SlowBuild) -> None:
    # If the error contains "connection reset", Prefect builds again, and finds that Docker is not running.
    with pytest.raises((BuildError, RuntimeError), match=r"Check that Docker runs|Docker is not running"):
        build(slow, engine_of_its_own.dockerd.kill)
    slow.check_nothing_is_left()


@pytest.mark.parametrize("engine_of_its_own", private.STORES, indirect=True)
def test_an_engine_that_is_restarted_is_a_failed_build(engine_of_its_own: EngineOfItsOwn, slow: SlowBuild) -> None:
    with pytest.raises(BuildError, match=r"The connection to the Docker Engine broke\.\nTIP Check that Docker runs"):
        build(slow, engine_of_its_own.restart, tag=TAG)
    slow.check_nothing_is_left()
    with docker_client() as client, pytest.raises(ImageNotFound):
        client.images.get(TAG)
    slow.write_step("echo the engine works")
    assert build_image(slow.context, tag=TAG)
    slow.check_nothing_is_left()


@pytest.mark.parametrize("backend", ["docker-py", "buildx"])
def test_an_engine_that_stops_before_it_shows_the_image_is_a_failed_build(
    engine_of_its_own: EngineOfItsOwn,
    slow: SlowBuild,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    backend: str,
) -> None:
    if backend == "buildx" and not any(map(find_spec, ("prefect._internal.buildx", "prefect.docker._buildx"))):
        pytest.skip("this Prefect has no build_backend")
    # The engine stops when buildx has ended: this docker tells it, and then ends.
    stopped, docker = tmp_path / "stopped", tmp_path / "docker"
    docker.write_text(
        f"""#!/bin/sh
{shutil.which("docker")} "$@"
code=$?
case "$*" in *--metadata-file*) touch {tmp_path}/built; while ! [ -e {stopped} ]; do sleep 0.1; done; esac
exit $code
"""
    )
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def stop() -> None:
        wait_until((tmp_path / "built").exists)
        engine_of_its_own.stop()
        stopped.touch()

    slow.write_step("echo awake")
    stopping = threading.Thread(target=stop)
    stopping.start()
    monkeypatch.chdir(slow.context)
    options: Any = {} if backend == "docker-py" else {"build_backend": backend}
    image = DockerImage(PREFIX, "stopped", "Dockerfile", **options)
    with pytest.raises(BuildError) as error:
        image.build()
    stopping.join()
    message, tip = str(error.value).splitlines()
    assert message.startswith("There was no answer from the Docker Engine ")
    assert tip == "TIP Check that Docker runs: `docker info`. Then build again."
    slow.check_nothing_is_left()


SCRIPT = """
import fcntl, os, sys, termios
from pathlib import Path
if os.isatty(0):
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # the terminal is this session's, as in a shell
from prefect.utilities.dockerutils import build_image
build_image(Path(sys.argv[1]), stream_progress_to=sys.stdout)
"""


class Terminal:
    """A terminal that runs a script."""

    def __init__(self, slow: SlowBuild) -> None:
        self._keyboard, self.device = os.openpty()
        self.output = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self.settings = termios.tcgetattr(self.device)
        environment = {**os.environ, "PREFECT_DOCKER_DISABLE_ATTESTATIONS": "1", "TERM": "xterm"}
        self.script = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(slow.context)],
            stdin=self.device,
            stdout=self.device,
            stderr=self.device,
            env=environment,
            start_new_session=True,
        )
        self._reader.start()

    def _read(self) -> None:
        with suppress(OSError):
            while True:
                self.output += os.read(self._keyboard, 10_000).decode(errors="replace")

    def press_ctrl_c(self) -> None:
        os.write(self._keyboard, b"\x03")


@pytest.mark.usefixtures("some_engine")
@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_in_a_terminal_stops_the_build(slow: SlowBuild, times: int) -> None:
    terminal = Terminal(slow)
    wait_until(lambda: slow.works() or terminal.script.poll() is not None)
    for _ in range(times):
        terminal.press_ctrl_c()
        time.sleep(0.02)
    assert terminal.script.wait(90) == -signal.SIGINT, terminal.output
    slow.check_nothing_is_left()
    assert terminal.output.count("KeyboardInterrupt") >= 1
    assert "\x1b[?" not in terminal.output  # the cursor is visible, and the main screen is active
    assert termios.tcgetattr(terminal.device) == terminal.settings
    assert fcntl.fcntl(terminal.device, fcntl.F_GETFL) & os.O_NONBLOCK == 0
