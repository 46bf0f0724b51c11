"""`doctor` in broken environments: it ends, with JSON, at most 300 MB and no traceback."""

from __future__ import annotations

import json
import os
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from support.hostile import Answer, HostileServer, endless, hostile_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.shipped import Result, Run

NOWHERE = "unix:///nonexistent/docker.sock"
MEMORY = 300 << 20


@pytest.fixture
def server() -> Iterator[HostileServer]:
    with hostile_server() as server:
        yield server


def examined(run: Run, *, limit: int = 30, **environment: str | None) -> dict[str, dict[str, str]]:
    """Run the doctor, check that it ends as it always must, and return its findings.

    A test whose environment never answers waits for the whole limit, so it gives a short one.
    """
    environment.setdefault("DOCKER_HOST", NOWHERE)
    result = run("doctor", "--json", f"--timeout={limit}", **environment)

    assert result.code in (0, 1, 3)
    assert result.peak < MEMORY
    assert "\x1b" not in result.out + result.err
    found = {check["name"]: check for check in result.json["checks"]}
    assert len(found) == 13
    assert [name for name, check in found.items() if "could not be checked" in check["found"]] == []
    return found


PROFILES = {
    "no TOML": "active = 'mine\n[x",
    "no table": "active = 5\nprofiles = 3\n",
    "a profile that is none": "[profiles]\nx = 5\n",
    "a value that is none": 'active = "a"\n[profiles.a]\nPREFECT_API_URL = []\n',
    "no such profile": 'active = "zzz"\n[profiles.a]\n',
    "no UTF-8": b"active = '\xff\xfe'",
    "a wrong value": 'active = "a"\n[profiles.a]\nPREFECT_LOGGING_LEVEL = "NOPE"\n',
    "a wrong value of ours": 'active = "a"\n[profiles.a]\nPREFECT_DOCKER_DISABLE_ATTESTATIONS = "s3cret\\u001b[31m"\n',
    "nested": "a = " + "[" * 50_000,
    "NUL": "\0",
}


@pytest.mark.parametrize("content", PROFILES.values(), ids=PROFILES)
def test_invalid_profiles(run: Run, tmp_path: Path, content: str | bytes) -> None:
    profiles = tmp_path / "profiles.toml"
    profiles.write_bytes(content if isinstance(content, bytes) else content.encode())

    found = examined(run, PREFECT_PROFILES_PATH=str(profiles))
    assert found["Prefect"]["status"] == "ok"


@pytest.mark.parametrize("file", [".env", "prefect.toml", "pyproject.toml", "profiles.toml"])
def test_a_settings_file_that_never_answers(run: Run, tmp_path: Path, file: str) -> None:
    os.mkfifo(tmp_path / file)
    found = examined(run, limit=3, PREFECT_PROFILES_PATH=str(tmp_path / "profiles.toml"))

    assert found["setting"]["status"] == "problem"
    assert f"{file} cannot be read within 3 seconds" in found["setting"]["found"]
    assert found["package"] == {"name": "package", "status": "skipped", "found": "see setting", "advice": ""}


def test_an_endless_settings_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / ".env").symlink_to("/dev/zero")
    found = examined(run)

    assert ".env is longer than 16 MiB" in found["setting"]["found"]


def test_a_named_pipe_is_read_like_a_file(run: Run, tmp_path: Path) -> None:
    """1Password provides a `.env` as a named pipe."""
    pipe = tmp_path / ".env"
    os.mkfifo(pipe)

    def write() -> None:
        while True:
            with suppress(BrokenPipeError), open(pipe, "w") as file:  # a reader can stop early
                file.write("PREFECT_DOCKER_DISABLE_ATTESTATIONS=true\n")
            time.sleep(0.01)

    threading.Thread(target=write, daemon=True).start()
    assert examined(run)["setting"]["status"] in ("ok", "warning")  # not all versions of Prefect read pipes


def test_a_prefect_command_that_never_answers(run: Run, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "prefect", 0o755)
    found = examined(run, limit=3, PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    assert found["prefect on PATH"]["status"] == "unknown"
    assert found["prefect on PATH"]["found"] == "not checked: the Python of `prefect` was not found within 3 s"


SCRIPTS: dict[str, str] = {
    "100 MB": "head -c 100000000 /dev/zero | tr '\\0' x",
    "100 MB of errors": "head -c 100000000 /dev/zero | tr '\\0' x >&2; exit 1",
    "children that stay": "sleep 100 & echo Docker version 28.0.0",
    "nothing": "true",
    "failure": "exit 3",
    "escapes": "printf '\\033[31mred\\033]0;owned\\007'",
    "no text": "printf '\\377\\376\\000'",
    "JSON": "echo '{}'",
    "a version of nothing": "echo Docker version",
    "fields without values": "printf 'Name:\\nDriver: \\nPlatforms:\\n'",
}


NEVER = {"without end": "yes", "never": "sleep 100"}


@pytest.mark.parametrize("script", NEVER.values(), ids=NEVER)
def test_a_docker_command_that_never_ends(run: Run, tmp_path: Path, script: str) -> None:
    """Nothing is known about it, so there is no advice to install docker or buildx, or to use another engine."""
    docker = tmp_path / "docker"
    docker.write_text(f"#!/bin/sh\n{script}\n")
    docker.chmod(0o755)
    found = examined(run, limit=10, PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    late = "not checked: `docker --version` took longer than 10 s"
    assert (found["docker CLI"]["status"], found["docker CLI"]["found"]) == ("unknown", late)
    assert (found["buildx"]["status"], found["buildx"]["found"]) == ("unknown", "see docker CLI")
    assert "docker context inspect" not in json.dumps(found)


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
@pytest.mark.parametrize("on", ["true", None], ids=["on", "off"])
def test_a_docker_command_with_unexpected_output(run: Run, tmp_path: Path, script: str, on: str | None) -> None:
    docker = tmp_path / "docker"
    docker.write_text(f"#!/bin/sh\n{script}\n")
    docker.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    found = examined(run, PATH=path, PREFECT_DOCKER_DISABLE_ATTESTATIONS=on)

    assert found["engine"]["status"] == "problem"
    assert found["package"]["status"] == "ok"
    assert all(len(check["found"]) < 1500 for check in found.values())


def test_a_docker_file_that_is_not_a_program(run: Run, tmp_path: Path) -> None:
    (tmp_path / "docker").write_bytes(b"\x7fELF" + bytes(100))
    (tmp_path / "docker").chmod(0o755)
    found = examined(run, PATH=str(tmp_path))

    assert "Exec format error" in found["docker CLI"]["found"]


ENGINE = {"ID": "one", "Os": "linux", "Arch": "amd64", "Name": "x", "ServerVersion": "28.5.2", "Driver": "overlayfs"}
ENGINES: dict[str, tuple[Callable[[], Answer], str]] = {
    "without end": (lambda: Answer(endless()), "longer than 4 MiB"),
    "HTML": (lambda: Answer(b"<html>"), "is not JSON"),
    "a list": (lambda: Answer(b"[]"), "is not a JSON object"),
    "nothing": (lambda: Answer(b"{}"), "its response has no ID"),
    "numbers": (lambda: Answer(json.dumps({**ENGINE, "Driver": 5}).encode()), "its response has no Driver"),
    "nested": (lambda: Answer(b'{"a":' * 100_000), "is not JSON"),
    "an error": (lambda: Answer(b"no", 500), "500 Server Error"),
    "no HTTP": (lambda: Answer(raw=b"\x1b[31m\r\n\r\n"), "docker-py gets no answer"),
    "a redirect to itself": (lambda: Answer(b"", 302, {"Location": "/version"}), "Exceeded 30 redirects"),
}


@pytest.mark.parametrize(("answer", "reason"), ENGINES.values(), ids=ENGINES)
def test_an_address_without_an_engine(
    run: Run, server: HostileServer, answer: Callable[[], Answer], reason: str
) -> None:
    for path in ("/version", "/info"):
        server.answers[path] = answer()
    found = examined(run, DOCKER_HOST=f"tcp://{server.address}")["engine"]

    assert found["status"] == "problem"
    assert reason in found["found"]


ODD: dict[str, dict[str, Any]] = {
    "driver status of numbers": {"DriverStatus": 5},
    "components of numbers": {"Components": [5]},
    "components of nothing": {"Components": [{"Name": None}]},
    "a version of words": {"ServerVersion": "dev"},
    "escapes": {"Name": "\x1b[31m", "ServerVersion": "28\x1b[31m"},
}


@pytest.mark.parametrize("changes", ODD.values(), ids=ODD)
def test_an_unexpected_engine_response_does_not_stop_other_checks(
    run: Run, server: HostileServer, changes: dict[str, Any]
) -> None:
    for path in ("/version", "/info"):
        server.answers[path] = Answer(json.dumps({**ENGINE, **changes}).encode())
    result: Result = run("doctor", "--json", DOCKER_HOST=f"tcp://{server.address}")

    found = {check["name"]: check for check in result.json["checks"]}
    assert len(found) == 13
    assert found["package"]["status"] == "ok"
    assert "\x1b" not in run("doctor", DOCKER_HOST=f"tcp://{server.address}").out
