"""One child process: its output is streamed, it is always terminated, and nothing is left."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from prefect_docker_attest.buildx import output_pipe, process
from prefect_docker_attest.buildx.output_pipe import LONGEST_PIECE
from prefect_docker_attest.buildx.process import Command
from prefect_docker_attest.buildx.progress import ProgressTracker, RunningSteps
from support.processes import allowed, is_gone, wait_until

if TYPE_CHECKING:
    from pathlib import Path

# A child that ignores SIGTERM, and prints a line when it does so.
STUBBORN = """
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(987)
"""
# A child that starts another, like the docker CLI and its plugin, and prints both process ids.
WITH_CHILD = """
import os, subprocess, sys, time
OUTPUT = None
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(987)"], stdout=OUTPUT, stderr=OUTPUT)
print(os.getpid(), child.pid, flush=True)
time.sleep(987)
"""


def python(program: str, *arguments: str, **options: Any) -> Command:
    # coverage.py does not measure these children: it starts slowly, and some tests wait only a moment.
    environment = {name: value for name, value in os.environ.items() if name != "COVERAGE_PROCESS_CONFIG"}
    return Command([sys.executable, "-c", program, *arguments], environment=environment, **options)


def shell(program: str, **options: Any) -> Command:
    """A child that starts faster than Python."""
    return Command(["sh", "-c", program], environment=os.environ, **options)


def output_of(program: str, *arguments: str) -> tuple[list[str], int]:
    with python(program, *arguments) as command:
        return list(command.lines()), command.wait()


def test_standard_output_and_error_come_in_order_and_the_exit_code_after_them() -> None:
    program = "import sys\nfor i in range(3): print(i, flush=True); print(-i, file=sys.stderr, flush=True)\nsys.exit(7)"
    assert output_of(program) == (["0\n", "0\n", "1\n", "-1\n", "2\n", "-2\n"], 7)


def test_a_line_is_there_while_the_child_still_runs() -> None:
    with python("import time; print('first', flush=True); time.sleep(987)") as command:
        assert next(iter(command.lines())) == "first\n"


def test_line_ends_are_kept_and_invalid_utf8_is_replaced() -> None:
    written = r"b'10%\r20%\r\nx\xff\xfey\nno end'"
    lines, _ = output_of(f"import sys; sys.stdout.buffer.write({written})")
    assert lines == ["10%\r20%\r\n", "x\ufffd\ufffdy\n", "no end"]


def test_a_character_that_is_split_between_two_writes_is_joined() -> None:
    program = r"import os, time; os.write(1, b'\xe2\x82'); time.sleep(0.2); os.write(1, b'\xac\n')"
    assert output_of(program)[0] == ["€\n"]


def test_a_very_long_line_comes_in_pieces() -> None:
    lines, _ = output_of("print('x' * 1_000_000)")
    assert "".join(lines) == "x" * 1_000_000 + "\n"
    assert max(map(len, lines)) == LONGEST_PIECE


def test_a_line_that_is_written_in_parts_is_joined() -> None:
    program = "import os\nfor part in ['one ', 'two\\nthree ', 'four\\n', 'five']: os.write(1, part.encode())"
    assert output_of(program)[0] == ["one two\n", "three four\n", "five"]


def test_the_output_ends_soon_after_the_child_if_another_program_keeps_it_open() -> None:
    # Like a wrapper of docker that leaves a daemon behind.
    with shell("sleep 987 & echo $!; head -c 60000 /dev/zero; exit 7") as command:
        number, *output = command.lines()
        assert sum(map(len, output)) == 60_000
        assert command.wait() == 7
        assert not is_gone(int(number))
    wait_until(lambda: is_gone(int(number)))


def test_the_output_ends_although_another_program_prints_without_end() -> None:
    with shell("yes & exit 7") as command:
        assert set(command.lines()) == {"y\n"}
        assert command.wait() == 7


def test_the_last_output_is_read_although_the_caller_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_pipe, "_LAST_OUTPUT", 0.01)
    monkeypatch.setattr(output_pipe, "_CHUNK", 10_000)
    with shell("sleep 987 & head -c 60000 /dev/zero | tr '\\0' '\\n'; exit 7") as command:
        output = []
        for number, line in enumerate(command.lines()):
            output.append(line)
            if not number % 10_000:
                time.sleep(0.3)
    assert len(output) == 60_000


def test_output_of_a_program_that_ends_after_the_child_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_pipe, "_LAST_OUTPUT", 987)
    with shell("(sleep 0.5; echo last) & echo first") as command:
        assert list(command.lines()) == ["first\n", "last\n"]


def test_a_silence_is_reported_once() -> None:
    with shell("echo 1; sleep 3; echo 2; sleep 3; printf 3", silence=0.5) as command:
        lines = list(command.lines())
    # On a busy machine, the shell starts slowly.
    assert lines[not lines[0] :] == ["1\n", "", "2\n", "", "3"]


def test_a_silence_is_no_progress() -> None:
    with shell("exec sleep 987", silence=0.2, idle_timeout=allowed(3)) as command:
        assert list(command.lines()) == [""]
        assert command.timed_out


def test_a_timeout_of_a_prefect_task_in_a_thread_ends_a_silent_child() -> None:
    # Prefect raises an exception in the thread in this way. It is delivered only when the thread runs Python code.
    started = threading.Event()
    command = shell("echo ready; exec sleep 987")

    def read() -> None:
        with contextlib.suppress(TimeoutError), command:
            for _ in command.lines():
                started.set()

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    assert started.wait(60)
    assert thread.ident
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(TimeoutError))
    thread.join(60)
    assert command._process.returncode == -signal.SIGTERM


def test_without_a_file_standard_input_is_empty(tmp_path: Path) -> None:
    assert output_of("import sys; print(repr(sys.stdin.read()))")[0] == ["''\n"]
    (tmp_path / "input").write_text("hello")
    with (tmp_path / "input").open("rb") as file, python("print(input())", stdin=file) as command:
        assert list(command.lines()) == ["hello\n"]


def test_a_program_that_cannot_be_started_is_an_oserror() -> None:
    with pytest.raises(FileNotFoundError), Command(["/no/such/program"], environment={}):
        pytest.fail("it started")


@pytest.mark.parametrize("raised", [ZeroDivisionError, KeyboardInterrupt, GeneratorExit])
def test_leaving_ends_the_child_and_its_child(raised: type[BaseException]) -> None:
    pids: list[int] = []

    def leave() -> None:
        with python(WITH_CHILD) as command:
            pids.extend(map(int, next(iter(command.lines())).split()))
            raise raised

    with pytest.raises(raised):
        leave()
    assert len(pids) == 2
    wait_until(lambda: all(map(is_gone, pids)))


def test_an_orphaned_grandchild_is_ended(tmp_path: Path) -> None:
    # Like docker's plugin after the docker CLI was killed. Its output is redirected, or the pipe would stay open.
    with python(
        WITH_CHILD.replace("OUTPUT = None", "OUTPUT = open(sys.argv[1], 'w')"), str(tmp_path / "output")
    ) as command:
        lines = command.lines()
        parent, child = map(int, next(iter(lines)).split())
        os.kill(parent, signal.SIGKILL)
        assert list(lines) == []
        assert command.wait() == -signal.SIGKILL
        assert not is_gone(child)
    wait_until(lambda: is_gone(child))


def test_a_child_that_ignores_sigterm_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_GRACE", 0.2)
    with python(STUBBORN) as command:
        assert next(iter(command.lines())) == "ready\n"
    assert command._process.returncode == -signal.SIGKILL


def test_a_child_that_is_blocked_in_writing_ends() -> None:
    with python("while True: print('x' * 10_000)") as command:
        next(iter(command.lines()))
    assert command._process.returncode < 0


def test_a_second_ctrl_c_kills_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_GRACE", 987)
    command = python(STUBBORN)

    def interrupt() -> None:
        wait_until(command._over.is_set)
        while command._process.returncode is None:
            time.sleep(0.5)
            os.kill(os.getpid(), signal.SIGINT)
            with contextlib.suppress(AssertionError):
                wait_until(lambda: command._process.returncode is not None, 30)

    def leave() -> None:
        with command:
            assert next(iter(command.lines())) == "ready\n"
            again.start()
            raise KeyboardInterrupt

    again = threading.Thread(target=interrupt)
    with pytest.raises(KeyboardInterrupt):
        leave()
    again.join()
    assert command._process.returncode == -signal.SIGKILL


def test_the_idle_timeout_ends_the_child() -> None:
    with shell("echo begun; exec sleep 987", idle_timeout=allowed(3)) as command:
        assert list(command.lines()) == ["begun\n"]
        assert command.wait() == -signal.SIGTERM
        assert command.timed_out


def test_the_idle_timeout_ends_a_child_that_has_closed_its_output() -> None:
    program = "import os, time; os.close(1); os.close(2); time.sleep(987)"
    with python(program, idle_timeout=allowed(3)) as command:
        assert list(command.lines()) == []
        assert command.wait() == -signal.SIGTERM
        assert command.timed_out


def test_the_idle_timeout_kills_a_child_that_ignores_sigterm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_GRACE", 0.2)
    with shell("trap '' TERM; echo ready; exec sleep 987", idle_timeout=allowed(3)) as command:
        assert list(command.lines()) == ["ready\n"]
        assert command.wait() == -signal.SIGKILL


def test_time_of_the_caller_does_not_count_as_idle() -> None:
    limit = allowed(3)
    with shell("echo 0; echo 1", idle_timeout=limit) as command:
        for _ in command.lines():
            time.sleep(limit + 0.3)
        assert command.wait() == 0
        assert not command.timed_out


def test_lines_without_progress_count_as_idle() -> None:
    program = "echo new; while :; do echo the same; sleep 0.1; done"
    with shell(program, idle_timeout=allowed(5), made_progress=lambda line: line != "the same\n") as command:
        assert next(iter(command.lines())) == "new\n"
        assert set(command.lines()) == {"the same\n"}
        assert command.timed_out


def test_no_watching_thread_is_left() -> None:
    before = threading.active_count()
    with python("print()", idle_timeout=60) as command:
        list(command.lines())
    wait_until(lambda: threading.active_count() <= before)


def test_the_child_is_ended_if_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    command = python(STUBBORN.replace("SIG_IGN", "SIG_DFL"), idle_timeout=60)
    with pytest.raises(RuntimeError, match="can't start new thread"), command:
        pytest.fail("it started")
    assert command._process.returncode == -signal.SIGTERM


# The output of buildx 0.13 and 0.29 during a stalled download, and during a normal one.
STUCK = """#4 [1/2] FROM 127.0.0.1:5000/library/busybox:fresh@sha256:ff669a119fdb
#4 resolve 127.0.0.1:5000/library/busybox:fresh@sha256:ff669a119fdb 0.0s done
#4 sha256:c9c3333bab18 1.05MB / 3.01MB 0.2s
#4 sha256:c9c3333bab18 1.05MB / 3.01MB 5.3s
#4 sha256:c9c3333bab18 1.05MB / 3.01MB 10.4s

#5 [internal] load build context
#5 transferring context: 1.05GB 10.1s
#5 ...

#4 [1/2] FROM 127.0.0.1:5000/library/busybox:fresh@sha256:ff669a119fdb
#4 sha256:c9c3333bab18 1.05MB / 3.01MB 15.5s
#4 ...

#5 [internal] load build context
#5 transferring context: 1.05GB 15.3s
#5 transferring context: 1.06GB 20.4s
#4 sha256:c9c3333bab18 3.01MB / 3.01MB 20.5s done
#6 0.100 downloading 5MB 1.0s
#6 5.100 downloading 5MB 1.0s
"""


def test_repeated_lines_of_buildx_show_no_progress() -> None:
    news = ProgressTracker()
    assert [line for line in STUCK.splitlines(keepends=True) if news(line)] == [
        "#4 [1/2] FROM 127.0.0.1:5000/library/busybox:fresh@sha256:ff669a119fdb\n",
        "#4 resolve 127.0.0.1:5000/library/busybox:fresh@sha256:ff669a119fdb 0.0s done\n",
        "#4 sha256:c9c3333bab18 1.05MB / 3.01MB 0.2s\n",
        "#5 [internal] load build context\n",
        "#5 transferring context: 1.05GB 10.1s\n",
        "#5 transferring context: 1.06GB 20.4s\n",
        "#4 sha256:c9c3333bab18 3.01MB / 3.01MB 20.5s done\n",
        "#6 0.100 downloading 5MB 1.0s\n",
        "#6 5.100 downloading 5MB 1.0s\n",
    ]


def test_output_of_steps_is_not_stored() -> None:
    news = ProgressTracker()
    assert all(news(f"#6 {second}.100 downloading 5MB {second}.0s\n") for second in range(1000))
    assert not news._said


STEPS = """#0 building with "default" instance using docker driver

#1 [internal] load build definition from Dockerfile
#1 transferring dockerfile: 297B done
#1 DONE 0.0s

#2 [b 2/3] RUN pip install -r requirements.txt
#2 1.070 #2 DONE, or so pip says

#3 [a 2/3] RUN make
#3 2.070 other
#3 DONE 4.2s

#2 [b 2/3] RUN pip install -r requirements.txt
#2 5.070 more
"""


def test_running_steps_are_named() -> None:
    steps = RunningSteps()
    seen = []
    for line in STEPS.splitlines(keepends=True):
        steps.read_line(line)
        seen.append(str(steps))
    assert list(dict.fromkeys(seen)) == [
        "",
        "[internal] load build definition from Dockerfile",
        "[b 2/3] RUN pip install -r requirements.txt",
        "[b 2/3] RUN pip install -r requirements.txt, [a 2/3] RUN make",
    ]
    assert str(steps) == "[b 2/3] RUN pip install -r requirements.txt"


def test_a_long_name_of_a_step_is_shortened() -> None:
    steps = RunningSteps()
    steps.read_line("\n")
    steps.read_line(f"#2 [2/3] RUN {'x' * 1000}\n")
    assert str(steps) == f"[2/3] RUN {'x' * 70}..."
