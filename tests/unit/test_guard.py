"""The guard of a build: what it ends and removes when its caller is killed."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from prefect_docker_attest.buildx import guard
from prefect_docker_attest.buildx.guard import Guard
from prefect_docker_attest.buildx.process import Command
from support.processes import is_gone, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

needs_proc = pytest.mark.skipif(not Path("/proc/self").exists(), reason="reads /proc")

# A caller of a command that starts another, like the docker CLI and its plugin. It prints the ids of all processes.
CALLER = """
import os, sys, time
from prefect_docker_attest.buildx.guard import Guard
from prefect_docker_attest.buildx.process import Command

CHILD = '''
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, getattr(signal, sys.argv[1]))
child = subprocess.Popen(["sleep", "987"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(os.getpid(), child.pid, flush=True)
time.sleep(987)
'''
with Guard() as guard, Command(
    [sys.executable, "-c", CHILD, sys.argv[1], str(guard.folder)], environment=dict(os.environ), guard=guard
) as command:
    print(next(iter(command.lines())).strip(), guard._helper._shell.pid, guard.folder, flush=True)
    time.sleep(987)
"""


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "987"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def killed_caller(disposition: str) -> tuple[list[int], Path]:
    """Kill a caller, and return the process ids of its command, the command's child and the guard, and the folder."""
    caller = subprocess.Popen([sys.executable, "-c", CALLER, disposition], stdout=subprocess.PIPE, text=True)
    assert caller.stdout
    *numbers, folder = caller.stdout.readline().split()
    assert Path(folder).is_dir()
    caller.kill()
    caller.wait()
    caller.stdout.close()
    return [int(number) for number in numbers], Path(folder)


def die(of: Guard) -> subprocess.Popen[bytes]:
    """Close the guard's pipe as if this process had died, and return the guard."""
    assert of._helper
    of._helper._close_write_end()
    return of._helper._shell


def test_a_killed_caller_ends_the_command_and_its_child_and_removes_the_folder() -> None:
    pids, folder = killed_caller("SIG_DFL")
    wait_until(lambda: all(map(is_gone, pids[:2])), 15)
    wait_until(lambda: is_gone(pids[2]) and not folder.exists(), 15)


def test_a_command_that_does_not_end_is_killed_after_two_seconds() -> None:
    pids, folder = killed_caller("SIG_IGN")
    time.sleep(1)
    assert not is_gone(pids[0])
    assert folder.is_dir()  # the process can still write to the folder
    wait_until(lambda: all(map(is_gone, pids)) and not folder.exists(), 15)


def test_a_command_that_was_started_but_not_yet_named_is_ended() -> None:
    guarded = Guard().__enter__()
    command = [sys.executable, "-c", "import time; time.sleep(987)", str(guarded.folder)]
    process = subprocess.Popen(command, start_new_session=True)
    die(guarded).wait(60)
    assert process.wait(60) == -signal.SIGTERM
    assert not guarded.folder.exists()


def test_ctrl_c_while_the_command_is_started_ends_it() -> None:
    processes = []

    def start() -> None:
        with Guard() as guarded:
            command = [sys.executable, "-c", "import time; time.sleep(987)", str(guarded.folder)]
            processes.append(subprocess.Popen(command, start_new_session=True))
            raise KeyboardInterrupt  # as inside Popen, before the guard knows the process

    with pytest.raises(KeyboardInterrupt):
        start()
    assert processes[0].wait(60) == -signal.SIGTERM


def test_a_released_process_is_not_ended(sleeper: subprocess.Popen[bytes]) -> None:
    guarded = Guard().__enter__()
    guarded.watch(sleeper)
    guarded.release()
    die(guarded).wait(60)
    assert sleeper.poll() is None
    assert not guarded.folder.exists()


def test_an_unused_guard_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", ".")
    with Guard() as guarded:
        assert guarded.folder.parent == tmp_path
        assert guarded.folder.stat().st_mode & 0o777 == 0o700
        assert guarded._helper
        shell = guarded._helper._shell
        (guarded.folder / "folder").mkdir()
    assert list(tmp_path.iterdir()) == []
    assert shell.returncode == -signal.SIGKILL
    assert not guard._write_ends


@needs_proc
def test_the_guard_inherits_nothing_from_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "s3cret")
    with Guard() as guarded:
        assert guarded._helper
        shell = psutil.Process(guarded._helper._shell.pid)
        assert set(shell.environ()) <= {"PATH", "PWD", "OLDPWD", "SHLVL", "_"}
        assert shell.cwd() == "/"
        assert os.getsid(shell.pid) == shell.pid
        (tmp,) = {os.readlink(f"/proc/{shell.pid}/fd/{number}") for number in (1, 2)}
        assert tmp == os.devnull


@needs_proc
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_a_guard_outlives_a_signal_to_all_processes(sleeper: subprocess.Popen[bytes], number: signal.Signals) -> None:
    guarded = Guard().__enter__()
    guarded.watch(sleeper)
    assert guarded._helper
    shell = guarded._helper._shell
    status = Path(f"/proc/{shell.pid}/status")
    wait_until(lambda: int(status.read_text().split("SigIgn:")[1].split()[0], 16) & (1 << number - 1))
    shell.send_signal(number)
    die(guarded).wait(60)
    assert sleeper.wait(60) == -signal.SIGTERM
    assert not guarded.folder.exists()


def test_a_killed_guard_is_not_an_error(sleeper: subprocess.Popen[bytes]) -> None:
    with Guard() as guarded:
        assert guarded._helper
        guarded._helper._shell.kill()
        guarded._helper._shell.wait()
        guarded.watch(sleeper)
        guarded.release()
    assert not guarded.folder.exists()


def test_an_existing_folder_is_not_removed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("secrets.token_hex", lambda _count: "x")
    theirs = tmp_path / "prefect-docker-attest-build-x"
    theirs.mkdir()
    with pytest.raises(FileExistsError), Guard():
        pytest.fail("it took the folder")
    assert theirs.is_dir()
    assert not guard._write_ends


def test_without_a_shell_one_warning_says_so(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(guard, "_SHELL", "/no/such/shell")
    guard._warn.cache_clear()
    for _ in range(2):
        with Guard() as guarded, Command(["echo", "hello"], environment={}, guard=guarded) as command:
            assert list(command.lines()) == ["hello\n"]
            assert command.wait() == 0
        assert not guarded.folder.exists()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "No such file or directory: '/no/such/shell'" in record.getMessage()
    assert not guard._write_ends


@pytest.mark.parametrize("leave", ["raise SystemExit", "os._exit(0)", "pass", "1 / 0"])
def test_a_forked_child_that_leaves_the_context_does_not_end_the_build(leave: str) -> None:
    program = f"""
import os
from prefect_docker_attest.buildx.guard import Guard
from prefect_docker_attest.buildx.process import Command
parent = os.getpid()
with Guard() as guard, Command(
    ["sh", "-c", "read -r line; echo $line"], environment={{}}, guard=guard, stdin=open({str(Path(__file__))!r}, "rb")
) as command:
    if not os.fork():
        {leave}
    else:
        os.wait()
        assert guard.folder.is_dir()
        assert len(list(command.lines())) == 1
        assert command.wait() == 0
if os.getpid() == parent:
    print("built" if not guard.folder.exists() else "folder left")
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "built\n"), ran.stderr


def test_a_caller_that_ignores_the_end_of_children_does_not_hang() -> None:
    program = """
import os, signal
from prefect_docker_attest.buildx.guard import Guard
from prefect_docker_attest.buildx.process import Command
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
with Guard() as guard, Command(["echo", "hello"], environment={}, guard=guard) as command:
    print(*command.lines(), end="")
    command.wait()
print(guard.folder.exists())
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.stdout, ran.stderr) == ("hello\nFalse\n", "")


def test_builds_at_the_same_time_have_separate_guards() -> None:
    def build() -> None:
        with Guard() as guarded, Command(["sleep", "0.1"], environment={}, guard=guarded) as command:
            outcomes.append((list(command.lines()), command.wait()))

    outcomes: list[Any] = []
    threads = [threading.Thread(target=build) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [([], 0)] * 16
    assert not guard._write_ends
