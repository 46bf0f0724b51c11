"""A build that is stopped half-way: no process, no file and no work in the engine is left, and it is said why."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import subprocess
import sys
import tempfile
import termios
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psutil
import pytest
from prefect.utilities.dockerutils import BuildError, build_image, docker_client

import private_docker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.usefixtures("switched_on")

_MARK = "PREFECT_DOCKER_ATTEST_TESTED"


def wait_until(condition: Callable[[], object], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "this did not come to be"
        time.sleep(0.05)


class SlowBuild:
    """A build that sleeps, and traces of it on this machine."""

    def __init__(self, folder: Path) -> None:
        self.mark = f"{_MARK}={uuid4()}"
        self.seconds = str(random.randrange(10**6, 10**7))
        self.context = folder / "context"
        self.temporary = folder / "temporary"
        self.context.mkdir()
        self.temporary.mkdir()
        (self.context / "Dockerfile").write_text(f"FROM busybox\nRUN echo asleep at last; sleep {self.seconds}\n")

    def processes(self) -> list[psutil.Process]:
        """The docker CLI, its plugin and whatever else has their environment, one that nobody waits for included."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if self.mark.encode() in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0"):
                    found.append(process)
        dead = [one for one in psutil.Process().children() if one.status() == psutil.STATUS_ZOMBIE]
        return found + [one for one in dead if one.name() == "docker"]

    def works(self) -> bool:
        """Whether the engine runs the command. Its processes have numbers of their own, but are seen from here."""
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if any(self.seconds in word for word in process.cmdline()):
                    return True
        return False

    def is_asleep(self, line: str) -> bool:
        return line.endswith(" asleep at last\n")

    def events(self, client: Any, **options: Any) -> Iterator[Any]:
        events: Iterator[Any] = client.api.build(path=str(self.context), **options)
        return events

    def check_nothing_is_left(self) -> None:
        assert self.processes() == []
        assert list(self.temporary.iterdir()) == []
        wait_until(lambda: not self.works())


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowBuild]:
    slow = SlowBuild(tmp_path)
    name, _, value = slow.mark.partition("=")
    monkeypatch.setenv(name, value)
    monkeypatch.setenv("TMPDIR", str(slow.temporary))
    monkeypatch.setattr(tempfile, "tempdir", str(slow.temporary))
    yield slow
    for process in slow.processes():
        with suppress(psutil.Error):
            process.kill()


class Stream:
    """What Prefect writes progress to, which does something once the command runs."""

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
        """Nothing is kept back."""


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
def test_events_that_nobody_reads_on_end_with_the_client(slow: SlowBuild, decode: bool) -> None:
    with docker_client() as client:
        for event in slow.events(client, decode=decode):
            if "asleep at last" in str(event):
                break
        wait_until(slow.works)
    slow.check_nothing_is_left()


@pytest.mark.usefixtures("containerd_engine")
def test_events_that_an_exception_holds_on_to_end_with_the_client(slow: SlowBuild) -> None:
    def read() -> None:
        with docker_client() as client:
            for event in slow.events(client, decode=True):
                if slow.is_asleep(event.get("stream", "")):
                    wait_until(slow.works)
                    raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as error:
        read()
    slow.check_nothing_is_left()
    assert error.traceback  # which has the frames, and these the events


@pytest.mark.usefixtures("containerd_engine")
def test_events_that_are_closed_end_at_once(slow: SlowBuild) -> None:
    with docker_client() as client:
        events: Any = slow.events(client, decode=True)
        assert any(slow.is_asleep(event.get("stream", "")) for event in events)
        wait_until(slow.works)
        events.close()
        slow.check_nothing_is_left()


@pytest.mark.usefixtures("containerd_engine")
def test_events_that_nobody_reads_at_all_start_nothing(slow: SlowBuild) -> None:
    with docker_client() as client:
        slow.events(client, decode=True)
        assert slow.processes() == []
    slow.check_nothing_is_left()


@pytest.mark.usefixtures("engine")
def test_silence_beyond_timeout_stops_the_build(slow: SlowBuild) -> None:
    with pytest.raises(BuildError) as error:
        build(slow, lambda: None, timeout=2)
    assert str(error.value) == (
        "The build was stopped: it printed nothing new for 2 seconds (timeout=2). Give a larger timeout, or none."
    )
    slow.check_nothing_is_left()


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("program", ["docker", "docker-buildx"])
def test_a_killed_docker_is_a_failed_build(slow: SlowBuild, program: str) -> None:
    def kill() -> None:
        (process,) = [one for one in slow.processes() if os.path.basename(one.cmdline()[0]) == program]
        process.kill()

    with pytest.raises(BuildError, match=r"`docker buildx build` was ended from outside \(exit code (-9|255|1)\)"):
        build(slow, kill)
    slow.check_nothing_is_left()


@pytest.fixture
def engine_of_its_own(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[psutil.Process]:
    request.getfixturevalue("private_docker")  # which skips the test where there can be none
    with private_docker.start(request.config.getoption("--suite"), ["containerd"]) as docker:
        for name in ("DOCKER_HOST", "DOCKER_CONFIG", "PATH"):
            monkeypatch.setenv(name, docker.engines["containerd"].environment[name])
        (dockerd,) = [
            process
            for process in psutil.process_iter(["name", "cmdline"])
            if process.info["name"] == "dockerd" and any(str(docker.folder) in each for each in process.info["cmdline"])
        ]
        yield dockerd


def test_an_engine_that_is_killed_is_a_failed_build(engine_of_its_own: psutil.Process, slow: SlowBuild) -> None:
    # Where the error says "connection reset", Prefect tries once more, and finds that Docker is not there.
    with pytest.raises((BuildError, RuntimeError), match=r"Check that Docker runs|Docker is not running"):
        build(slow, engine_of_its_own.kill)
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
    """A terminal with a script in it."""

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


@pytest.mark.usefixtures("containerd_engine")
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
    assert "\x1b[?" not in terminal.output  # no cursor hidden, no other screen
    assert termios.tcgetattr(terminal.device) == terminal.settings
    assert fcntl.fcntl(terminal.device, fcntl.F_GETFL) & os.O_NONBLOCK == 0


@pytest.mark.usefixtures("containerd_engine")
def test_a_killed_python_ends_the_build_with_its_next_line(slow: SlowBuild) -> None:
    # Nothing of Python is there to end it, as `kill -9` and a cancelled CI job leave it: buildx fails to write.
    command = f"while true; do echo tick; sleep 1; : {slow.seconds}; done"
    (slow.context / "Dockerfile").write_text(f"FROM busybox\nRUN {command}\n")
    environment = {**os.environ, "PREFECT_DOCKER_DISABLE_ATTESTATIONS": "1"}
    script = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(slow.context)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    )
    assert script.stdout
    assert any(line.endswith(" tick\n") for line in script.stdout)
    script.kill()
    script.wait()
    wait_until(lambda: slow.processes() == [])
    wait_until(lambda: not slow.works())
