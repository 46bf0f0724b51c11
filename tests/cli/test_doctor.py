"""`prefect-docker-attest doctor`: healthy, and everything that can be wrong, on real engines."""

from __future__ import annotations

import contextlib
import os
import re
import select
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import docker
import pytest

from cli.shipped import COMMAND

if TYPE_CHECKING:
    from cli.shipped import Run, Said
    from private_docker import Engine, PrivateDocker

ON = {"PREFECT_DOCKER_DISABLE_ATTESTATIONS": "true"}
NOWHERE = "unix:///nonexistent/docker.sock"


def checks(said: Said) -> dict[str, dict[str, str]]:
    return {check["name"]: check for check in said.json["checks"]}


@pytest.mark.usefixtures("engine")
def test_where_all_is_well_it_says_so_and_ends_with_0(run: Run) -> None:
    said = run("doctor", "--json", **ON)

    assert (said.code, said.err) == (0, "")
    assert said.json["ok"] is True
    found = checks(said)
    assert list(found) == [
        *("package", "Prefect", "docker-py", "prefect on PATH", "setting"),
        *("docker CLI", "buildx", "engine", "same engine", "image store", "builder", "emulation", "cross-platform"),
    ]
    assert all(check.keys() == {"name", "status", "found", "advice"} for check in found.values())
    assert {name: check for name, check in found.items() if check["status"] == "problem"} == {}
    assert found["setting"]["found"].endswith("is on, from the environment")
    assert found["builder"]["found"] == "default, driver docker"
    assert "linux/arm64" in found["emulation"]["found"]


def test_the_setting_off_is_a_problem_on_the_containerd_image_store(run: Run, containerd_engine: Engine) -> None:
    said = run("doctor")

    assert said.code == 1
    assert re.search(r"warning +setting +PREFECT_DOCKER_DISABLE_ATTESTATIONS is off, from its", said.out)
    assert "-> `export PREFECT_DOCKER_DISABLE_ATTESTATIONS=true`" in said.text
    assert re.search(r"problem +cross-platform +CORRUPT while the setting is off", said.out)
    assert said.out.endswith("problems: 1, warnings: 1\n")
    assert containerd_engine.store == "containerd"


def test_the_setting_off_is_a_warning_on_the_graphdriver_image_store(run: Run, graphdriver_engine: Engine) -> None:
    said = run("doctor", "--json")

    found = checks(said)
    assert (said.code, found["setting"]["status"], found["cross-platform"]["status"]) == (0, "warning", "ok")
    assert found["image store"]["found"].startswith(graphdriver_engine.store)


@pytest.mark.usefixtures("containerd_engine")
def test_buildx_missing(run: Run, tmp_path: Path) -> None:
    plugins = tmp_path / "docker" / "cli-plugins"
    plugins.mkdir(parents=True)
    # In front of one that the machine may have, what is no plugin.
    (plugins / "docker-buildx").write_text("#!/bin/sh\nexit 1\n")
    (plugins / "docker-buildx").chmod(0o755)
    on = run("doctor", "--json", DOCKER_CONFIG=str(plugins.parent), **ON)

    assert on.code == 1
    found = checks(on)
    assert found["buildx"]["status"] == "problem"
    assert found["buildx"]["found"].startswith("`docker buildx version`: docker: ")
    assert found["buildx"]["advice"].startswith("Install it")
    assert [found[name]["status"] for name in ("builder", "emulation", "cross-platform")] == ["skipped"] * 3

    off = run("doctor", "--json", DOCKER_CONFIG=str(plugins.parent))
    assert checks(off)["buildx"]["status"] == "warning"


@pytest.mark.usefixtures("containerd_engine")
def test_no_docker_command(run: Run, tmp_path: Path) -> None:
    said = run("doctor", "--json", PATH=str(tmp_path), **ON)

    found = checks(said)
    assert (said.code, found["docker CLI"]["found"]) == (1, "there is no `docker` on PATH")
    assert found["engine"]["status"] == "ok"
    assert found["prefect on PATH"] == {
        "name": "prefect on PATH",
        "status": "warning",
        "found": "not on PATH",
        "advice": "Activate the environment before `prefect deploy`.",
    }


@pytest.mark.usefixtures("containerd_engine")
def test_an_engine_that_is_down(run: Run) -> None:
    said = run("doctor", DOCKER_HOST=NOWHERE, **ON)

    assert said.code == 1
    assert f"docker-py gets no answer from {NOWHERE}" in said.text
    assert "-> Start Docker, or let DOCKER_HOST" in said.text
    assert re.search(r"skipped +image store +see engine", said.out)


@pytest.mark.usefixtures("containerd_engine")
def test_an_engine_that_never_answers_is_not_waited_for(run: Run, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen(50)
        start = time.monotonic()
        said = run("doctor", "--json", DOCKER_HOST=f"unix://{tmp_path}/s", **ON)

    assert time.monotonic() - start < 10
    assert (said.code, checks(said)["engine"]["status"]) == (1, "problem")


def test_a_docker_context_is_followed_or_the_mismatch_is_named(
    run: Run, containerd_engine: Engine, private_docker: PrivateDocker, tmp_path: Path
) -> None:
    other = private_docker.engines["graphdriver"]
    config = tmp_path / "docker"
    plugins = Path(containerd_engine.environment["DOCKER_CONFIG"], "cli-plugins")
    config.mkdir()
    (config / "cli-plugins").symlink_to(plugins)
    environment = {**os.environ, "DOCKER_CONFIG": str(config)}
    del environment["DOCKER_HOST"]
    for words in (["create", "other", f"--docker=host={other.host}"], ["use", "other"]):
        subprocess.run(["docker", "context", *words], env=environment, capture_output=True, check=True)
    said = run("doctor", "--json", DOCKER_CONFIG=str(config), DOCKER_HOST=None, **ON)

    found = checks(said)
    if hasattr(docker.DockerClient, "from_context"):  # docker-py 7.2
        assert (said.code, found["same engine"]["status"]) == (0, "ok")
        assert found["image store"]["found"].startswith("graphdriver")
    else:
        assert (said.code, found["engine"]["status"]) == (1, "problem")
        assert "docker context inspect" in found["engine"]["advice"]


@pytest.mark.usefixtures("containerd_engine")
def test_a_docker_command_that_talks_to_another_engine(run: Run, private_docker: PrivateDocker, tmp_path: Path) -> None:
    other = private_docker.engines["graphdriver"]
    real = os.path.join(other.environment["PATH"].partition(os.pathsep)[0], "docker")
    wrapper = tmp_path / "docker"
    wrapper.write_text(f'#!/bin/sh\nDOCKER_HOST={other.host} exec {real} "$@"\n')
    wrapper.chmod(0o755)
    said = run("doctor", "--json", PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}", **ON)

    found = checks(said)["same engine"]
    assert (said.code, found["status"]) == (1, "problem")
    assert "Prefect cannot push what buildx builds" in found["found"]


@pytest.mark.usefixtures("containerd_engine")
def test_a_builder_that_does_not_exist(run: Run) -> None:
    said = run("doctor", "--json", BUILDX_BUILDER="nosuch", **ON)

    found = checks(said)["builder"]
    assert (said.code, found["status"]) == (1, "problem")
    assert 'no builder "nosuch" found' in found["found"]
    assert "BUILDX_BUILDER" in found["advice"]


PROFILES = 'active = "mine"\n[profiles.mine]\nPREFECT_DOCKER_DISABLE_ATTESTATIONS = "true"\n'


@pytest.mark.parametrize(
    ("file", "content", "source"),
    [
        (".env", "PREFECT_DOCKER_DISABLE_ATTESTATIONS=true\n", "the file .env here"),
        ("prefect.toml", "[docker]\ndisable_attestations = true\n", "the file prefect.toml here"),
        ("pyproject.toml", "[tool.prefect.docker]\ndisable_attestations = true\n", "the file pyproject.toml here"),
        ("profiles.toml", PROFILES, "the profile 'mine'"),
    ],
)
def test_where_the_value_comes_from(run: Run, tmp_path: Path, file: str, content: str, source: str) -> None:
    (tmp_path / file).write_text(content)
    said = run("doctor", "--json", DOCKER_HOST=NOWHERE, PREFECT_PROFILES_PATH=str(tmp_path / "profiles.toml"))

    assert checks(said)["setting"]["found"].endswith(f"is on, from {source}")


def test_a_value_that_is_no_boolean_is_named_with_its_place(run: Run) -> None:
    secret = {"PREFECT_SERVER_DATABASE_TIMEOUT": "postgres-s3cret"}  # another setting that Prefect refuses
    said = run("doctor", "--json", DOCKER_HOST=NOWHERE, PREFECT_DOCKER_DISABLE_ATTESTATIONS="maybe", **secret)

    found = checks(said)["setting"]
    assert (said.code, found["status"]) == (1, "problem")
    assert "PREFECT_DOCKER_DISABLE_ATTESTATIONS is 'maybe', from the environment" in found["found"]
    assert "s3cret" not in said.out


def test_the_escape_hatch_is_named(run: Run) -> None:
    said = run("doctor", "--json", DOCKER_HOST=NOWHERE, PREFECT_DOCKER_ATTEST_AUTOLOAD="0", **ON)

    found = checks(said)["package"]
    assert (found["status"], found["advice"]) == ("problem", "`unset PREFECT_DOCKER_ATTEST_AUTOLOAD`")


def test_a_prefect_command_of_another_environment_is_named(run: Run, tmp_path: Path) -> None:
    command = tmp_path / "prefect"
    command.write_text(f"#!{os.path.realpath(sys.executable)}\nimport prefect\n")
    command.chmod(0o755)
    said = run("doctor", "--json", DOCKER_HOST=NOWHERE, PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}", **ON)

    found = checks(said)["prefect on PATH"]
    assert found["status"] == "problem"
    assert found["found"] == f"{command} runs in another environment, {sys.base_prefix}, without the package"
    assert "pipx inject prefect prefect-docker-attest" in found["advice"]


def test_no_password_is_printed(run: Run) -> None:
    said = run("doctor", DOCKER_HOST="tcp://me:s3cret@127.0.0.1:1", **ON)

    assert said.code == 1
    assert "s3cret" not in said.out + said.err


@pytest.mark.parametrize("columns", [80, 200])
def test_lines_are_no_longer_than_the_terminal_and_without_colour_in_a_pipe(run: Run, columns: int) -> None:
    said = run("doctor", DOCKER_HOST=NOWHERE, COLUMNS=str(columns))

    assert max(map(len, said.out.splitlines())) <= columns
    assert "\x1b" not in said.out


@pytest.mark.parametrize("no_color", [None, "1"])
def test_a_terminal_gets_colours_unless_it_wants_none(no_color: str | None) -> None:
    ours, theirs = os.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "DOCKER_HOST": NOWHERE}
    if no_color:
        environment["NO_COLOR"] = no_color
    child = subprocess.Popen([COMMAND, "doctor"], env=environment, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # Linux: the other end is closed
        while select.select([ours], [], [], 30)[0]:
            shown += os.read(ours, 65536)
    os.close(ours)

    assert child.wait() == 1
    assert b"problem" in shown
    assert (b"\x1b[1;31m" in shown) is (no_color is None)


def test_usage_errors_end_with_2(run: Run) -> None:
    said = run("doctor", "--nosuch")

    assert said.code == 2
    assert "No such option" in said.err


def test_it_is_a_module_too(run: Run) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "prefect_docker_attest", "--help"], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout) == (0, run("--help").out)
    assert "Usage: prefect-docker-attest" in done.stdout
