"""`doctor` with parts that are slow, hang or are broken. It says nothing about what it has not seen."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from engines.private import Engine
    from support.shipped import Result, Run

SETTING = "PREFECT_DOCKER_DISABLE_ATTESTATIONS"
NOWHERE = "unix:///nonexistent/docker.sock"
SLOW = 7  # seconds: more than the doctor used to wait
SHORT = 25  # seconds for tests in which something never answers: everything else must answer in this time

# Python imports `sitecustomize` when it starts. It waits at its start, and when Prefect is imported.
SITECUSTOMIZE = """
import sys, time

class Slow:
    def find_spec(name, path=None, target=None):
        if name == "prefect":
            time.sleep({prefect})

time.sleep({start})
sys.meta_path.insert(0, Slow)
"""


def slow_python(folder: Path, *, prefect: int, start: int = 0) -> str:
    """Return a value of PYTHONPATH with which `import prefect` and Python's start take longer, in seconds."""
    (folder / "sitecustomize.py").write_text(SITECUSTOMIZE.format(prefect=prefect, start=start))
    return str(folder)


def program(path: Path, script: str) -> str:
    """Write a shell script, and return a value of PATH with its folder."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return f"{path.parent}{os.pathsep}{os.environ['PATH']}"


def of_status(result: Result, status: str) -> dict[str, str]:
    return {check["name"]: check["found"] for check in result.json["checks"] if check["status"] == status}


@contextlib.contextmanager
def slow_socket(target: str, path: Path, seconds: float) -> Iterator[str]:
    """Forward connections to a socket after some seconds, and give the new address."""

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(1 << 16):
                sink.sendall(piece)
            sink.shutdown(socket.SHUT_WR)

    def serve(client: socket.socket) -> None:
        time.sleep(seconds)
        engine = socket.socket(socket.AF_UNIX)
        engine.connect(target.removeprefix("unix://"))
        threading.Thread(target=pump, args=(engine, client), daemon=True).start()
        pump(client, engine)

    def accept(listening: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the test has ended
            while True:
                threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen(50)
        threading.Thread(target=accept, args=(listening,), daemon=True).start()
        yield f"unix://{path}"


def test_a_slow_machine_has_no_problems(run: Run, some_engine: Engine, tmp_path: Path) -> None:
    """Python, Prefect, docker and the engine are slow, and all answer."""
    real = os.path.join(some_engine.environment["PATH"].partition(os.pathsep)[0], "docker")
    path = program(tmp_path / "docker", f'sleep {SLOW}; exec {real} "$@"')
    with slow_socket(some_engine.host, tmp_path / "s", SLOW) as host:
        python = slow_python(tmp_path, prefect=SLOW, start=SLOW)
        result = run(
            "doctor", "--json", "--timeout=90", PYTHONPATH=python, DOCKER_HOST=host, PATH=path, **{SETTING: "1"}
        )

    assert of_status(result, "problem") == {}
    assert of_status(result, "ok").keys() >= {
        *("package", "Prefect", "docker-py", "setting", "docker CLI", "buildx", "engine", "same engine", "image store"),
    }


@pytest.mark.parametrize("on", ["true", None], ids=["on", "off"])
@pytest.mark.usefixtures("containerd_engine")
def test_what_waits_for_prefect_is_unknown(run: Run, tmp_path: Path, on: str | None) -> None:
    python = slow_python(tmp_path, prefect=1000)
    result = run("doctor", "--json", f"--timeout={SHORT}", PYTHONPATH=python, **{SETTING: on})

    late = f"not checked: `import prefect` took longer than {SHORT} s"
    assert of_status(result, "unknown") == {
        **dict.fromkeys(("package", "Prefect", "setting"), late),
        "cross-platform": "see setting",
    }
    assert (result.code, result.json["ok"], of_status(result, "problem")) == (3, False, {})
    assert not any(text in result.out for text in ("CORRUPT", "export", "cannot be imported", "Fix"))


def test_the_summary_counts_what_is_unknown(run: Run, tmp_path: Path) -> None:
    python = slow_python(tmp_path, prefect=1000)
    result = run("doctor", f"--timeout={SHORT}", PYTHONPATH=python, DOCKER_HOST=NOWHERE)

    assert result.code == 1
    assert result.out.endswith(", not checked: 3\n")
    assert f"unknown  setting          not checked: `import prefect` took longer than {SHORT} s" in result.out
    assert f"-> If it is only slow, try `--timeout {2 * SHORT}`." in result.text


def test_a_python_of_the_prefect_command_that_never_starts(run: Run, tmp_path: Path) -> None:
    program(tmp_path / "python", "sleep 1000")
    (tmp_path / "prefect").write_text(f"#!{tmp_path}/python\n")
    (tmp_path / "prefect").chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    result = run("doctor", "--json", "--timeout=3", DOCKER_HOST=NOWHERE, PATH=path)

    late = f"not checked: `{tmp_path}/python -c pass` took longer than 3 s"
    assert of_status(result, "unknown")["prefect on PATH"] == late


@pytest.mark.parametrize(
    ("package", "content", "reason"),
    [
        ("prefect", "import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("prefect", "raise SystemExit(3)", "SystemExit: 3"),
        ("prefect", "import os; os._exit(3)", "Python ended with exit code 3: it prints nothing"),
        ("prefect", "", "ModuleNotFoundError: No module named 'prefect.settings'"),
        ("prefect", "from prefect import settings", "ImportError: cannot import name 'settings' from "),
        ("docker", "import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("docker", "", "ModuleNotFoundError: No module named 'docker.api'"),
    ],
)
def test_a_package_that_cannot_be_imported_is_the_only_problem(
    run: Run, tmp_path: Path, package: str, content: str, reason: str
) -> None:
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text(content)
    result = run("doctor", "--json", PYTHONPATH=str(tmp_path), DOCKER_HOST=NOWHERE, **{SETTING: "true"})

    name = "Prefect" if package == "prefect" else "docker-py"
    problems = of_status(result, "problem")
    assert problems.keys() - {"engine", "docker CLI"} == {name}
    assert f" cannot be imported: {reason}" in problems[name]
    assert of_status(result, "skipped")["package"] == f"see {name}"
    assert "could not be checked" not in result.out
