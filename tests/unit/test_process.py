"""One child process: its output as it comes, an end to it in every case, nothing left behind."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from prefect_docker_attest import process
from prefect_docker_attest.process import LONGEST_PIECE, Command
from prefect_docker_attest.progress import News

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# A child that ends at no signal but the last one, and says when that holds.
STUBBORN = """
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(987)
"""
# One that starts another, as the docker CLI starts its plugin, and tells both numbers.
WITH_CHILD = """
import os, subprocess, sys, time
OUTPUT = None
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(987)"], stdout=OUTPUT, stderr=OUTPUT)
print(os.getpid(), child.pid, flush=True)
time.sleep(987)
"""


def python(program: str, *arguments: str, **options: Any) -> Command:
    return Command([sys.executable, "-c", program, *arguments], environment=dict(os.environ), **options)


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "this did not come to be"
        time.sleep(0.02)


def is_gone(pid: int) -> bool:
    # One whose parent has died waits for the machine's first process to notice.
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def output_of(program: str, *arguments: str) -> tuple[list[str], int]:
    with python(program, *arguments) as command:
        return list(command.lines()), command.wait()


def test_standard_output_and_error_come_in_order_and_the_exit_code_after_them() -> None:
    program = "import sys\nfor i in range(3): print(i, flush=True); print(-i, file=sys.stderr, flush=True)\nsys.exit(7)"
    assert output_of(program) == (["0\n", "0\n", "1\n", "-1\n", "2\n", "-2\n"], 7)


def test_a_line_is_there_while_the_child_still_runs() -> None:
    with python("import time; print('first', flush=True); time.sleep(987)") as command:
        assert next(iter(command.lines())) == "first\n"


def test_line_ends_are_as_the_child_wrote_them_and_what_is_not_utf8_is_replaced() -> None:
    written = r"b'10%\r20%\r\nx\xff\xfey\nno end'"
    lines, _ = output_of(f"import sys; sys.stdout.buffer.write({written})")
    assert lines == ["10%\r20%\r\n", "x\ufffd\ufffdy\n", "no end"]


def test_a_character_that_falls_apart_between_two_writes_is_whole() -> None:
    program = r"import os, time; os.write(1, b'\xe2\x82'); time.sleep(0.2); os.write(1, b'\xac\n')"
    assert output_of(program)[0] == ["€\n"]


def test_a_very_long_line_comes_in_pieces() -> None:
    lines, _ = output_of("print('x' * 1_000_000)")
    assert "".join(lines) == "x" * 1_000_000 + "\n"
    assert max(map(len, lines)) == LONGEST_PIECE


def test_without_a_file_standard_input_is_empty(tmp_path: Path) -> None:
    assert output_of("import sys; print(repr(sys.stdin.read()))")[0] == ["''\n"]
    (tmp_path / "input").write_text("hello")
    with (tmp_path / "input").open("rb") as file, python("print(input())", stdin=file) as command:
        assert list(command.lines()) == ["hello\n"]


def test_what_cannot_be_started_is_an_oserror() -> None:
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


def test_a_child_that_its_parent_left_behind_is_ended(tmp_path: Path) -> None:
    # As docker's plugin is, where the docker CLI was killed. Its output goes elsewhere: else it would not end.
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


def test_a_child_that_does_not_heed_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
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
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.5)

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


def test_silence_beyond_the_limit_ends_the_child() -> None:
    with python("import time; print('begun', flush=True); time.sleep(987)", silence_limit=0.5) as command:
        assert list(command.lines()) == ["begun\n"]
        assert command.wait() == -signal.SIGTERM
        assert command.silent


def test_silence_after_the_last_of_the_output_ends_the_child() -> None:
    program = "import os, time; os.close(1); os.close(2); time.sleep(987)"
    with python(program, silence_limit=0.5) as command:
        assert list(command.lines()) == []
        assert command.wait() == -signal.SIGTERM
        assert command.silent


def test_silence_kills_a_child_that_does_not_heed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_GRACE", 0.2)
    with python(STUBBORN, silence_limit=0.5) as command:
        assert list(command.lines()) == ["ready\n"]
        assert command.wait() == -signal.SIGKILL


def test_a_caller_that_takes_its_time_is_not_the_childs_silence() -> None:
    with python("for i in range(3): print(i, flush=True)", silence_limit=0.5) as command:
        for _ in command.lines():
            time.sleep(0.8)
        assert command.wait() == 0
        assert not command.silent


def test_lines_that_are_no_news_are_silence() -> None:
    program = "import time\nprint('new', flush=True)\nwhile True: print('the same', flush=True); time.sleep(0.1)"
    with python(program, silence_limit=1, news=lambda line: line != "the same\n") as command:
        assert next(iter(command.lines())) == "new\n"
        assert set(command.lines()) == {"the same\n"}
        assert command.silent


def test_no_thread_is_left_of_the_watch() -> None:
    before = threading.active_count()
    with python("print()", silence_limit=60) as command:
        list(command.lines())
    wait_until(lambda: threading.active_count() <= before)


def test_where_no_thread_can_be_had_the_child_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    command = python(STUBBORN.replace("SIG_IGN", "SIG_DFL"), silence_limit=60)
    with pytest.raises(RuntimeError, match="can't start new thread"), command:
        pytest.fail("it started")
    assert command._process.returncode == -signal.SIGTERM


# As buildx 0.13 and 0.29 print it while a download is stuck, and while one goes on.
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


def test_what_buildx_repeats_is_no_news() -> None:
    news = News()
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


def test_what_steps_print_is_not_kept() -> None:
    news = News()
    assert all(news(f"#6 {second}.100 downloading 5MB {second}.0s\n") for second in range(1000))
    assert not news._said
