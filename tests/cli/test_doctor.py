"""`prefect-docker-attest doctor` on real engines, without problems and with each problem."""

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

from support.processes import allowed
from support.shipped import COMMAND

if TYPE_CHECKING:
    from engines.private import Engine, PrivateDocker
    from support.remote_builder import RemoteBuilder
    from support.shipped import Result, Run

ON = {"PREFECT_DOCKER_DISABLE_ATTESTATIONS": "true"}
NOWHERE = "unix:///nonexistent/docker.sock"


def checks(result: Result) -> dict[str, dict[str, str]]:
    return {check["name"]: check for check in result.json["checks"]}


@pytest.mark.usefixtures("engine", "emulation")
def test_without_problems_the_exit_code_is_0(run: Run) -> None:
    result = run("doctor", "--json", **ON)

    assert (result.code, result.err) == (0, "")
    assert result.json["ok"] is True
    found = checks(result)
    assert list(found) == [
        *("package", "Prefect", "docker-py", "prefect on PATH", "setting"),
        *("docker CLI", "buildx", "engine", "same engine", "image store", "builder", "emulation", "cross-platform"),
    ]
    assert all(check.keys() == {"name", "status", "found", "advice"} for check in found.values())
    assert {name: check for name, check in found.items() if check["status"] == "problem"} == {}
    assert found["setting"]["found"].endswith("is on (environment)")
    assert found["builder"]["found"] == "default, driver docker"
    assert "linux/arm64" in found["emulation"]["found"]


def test_the_setting_off_is_a_problem_on_the_containerd_image_store(run: Run, containerd_engine: Engine) -> None:
    result = run("doctor")

    assert result.code == 1
    assert re.search(r"warning +setting +PREFECT_DOCKER_DISABLE_ATTESTATIONS is off \(default\)", result.out)
    assert "-> `export PREFECT_DOCKER_DISABLE_ATTESTATIONS=true`" in result.text
    assert re.search(r"problem +cross-platform +CORRUPT while the setting is off", result.out)
    assert result.out.endswith("problems: 1, warnings: 1\n")
    assert containerd_engine.store == "containerd"


def test_the_setting_off_is_a_warning_on_the_graphdriver_image_store(run: Run, graphdriver_engine: Engine) -> None:
    result = run("doctor", "--json")

    found = checks(result)
    assert (result.code, found["setting"]["status"], found["cross-platform"]["status"]) == (0, "warning", "ok")
    assert found["image store"]["found"].startswith(graphdriver_engine.store)


@pytest.mark.usefixtures("containerd_engine")
def test_any_other_setting_makes_buildx_build_images_for_other_platforms(run: Run, tmp_path: Path) -> None:
    settings = {"PREFECT_DOCKER_PLATFORM": "linux/amd64", "PREFECT_DOCKER_DISABLE_ATTESTATIONS": "false"}
    result = run("doctor", "--json", **settings)
    assert (result.code, checks(result)["cross-platform"]["status"]) == (0, "ok")

    without_docker = run("doctor", "--json", PATH=str(tmp_path), **settings)
    assert (without_docker.code, checks(without_docker)["docker CLI"]["status"]) == (1, "problem")


@pytest.mark.usefixtures("some_engine")
def test_buildx_missing(run: Run, tmp_path: Path) -> None:
    plugins = tmp_path / "docker" / "cli-plugins"
    plugins.mkdir(parents=True)
    # An invalid plugin comes before a plugin of the machine.
    (plugins / "docker-buildx").write_text("#!/bin/sh\nexit 1\n")
    (plugins / "docker-buildx").chmod(0o755)
    on = run("doctor", "--json", DOCKER_CONFIG=str(plugins.parent), **ON)

    assert on.code == 1
    found = checks(on)
    assert found["buildx"]["status"] == "problem"
    assert found["buildx"]["found"].startswith("`docker buildx version`: docker: ")
    assert found["buildx"]["advice"].startswith("Install buildx")
    assert [found[name]["status"] for name in ("builder", "emulation", "cross-platform")] == ["skipped"] * 3

    off = run("doctor", "--json", DOCKER_CONFIG=str(plugins.parent))
    assert checks(off)["buildx"]["status"] == "warning"


@pytest.mark.usefixtures("some_engine")
def test_no_docker_command(run: Run, tmp_path: Path) -> None:
    result = run("doctor", "--json", PATH=str(tmp_path), **ON)

    found = checks(result)
    assert (result.code, found["docker CLI"]["found"]) == (1, "the command `docker` is not on PATH")
    assert found["engine"]["status"] == "ok"
    assert found["prefect on PATH"] == {
        "name": "prefect on PATH",
        "status": "warning",
        "found": "not on PATH",
        "advice": "Activate the environment before `prefect deploy`.",
    }


@pytest.mark.usefixtures("some_engine")
def test_an_engine_that_is_down(run: Run) -> None:
    result = run("doctor", DOCKER_HOST=NOWHERE, **ON)

    assert result.code == 1
    assert f"docker-py gets no answer from {NOWHERE}" in result.text
    assert "-> Start Docker, or select a running engine" in result.text
    assert re.search(r"skipped +image store +see engine", result.out)


@pytest.mark.usefixtures("some_engine")
def test_an_engine_that_never_answers_is_not_waited_for(run: Run, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen(50)
        start = time.monotonic()
        result = run("doctor", "--json", DOCKER_HOST=f"unix://{tmp_path}/s", **ON)

    assert time.monotonic() - start < allowed(10)
    assert (result.code, checks(result)["engine"]["status"]) == (1, "problem")


def test_a_docker_context_is_used_or_the_mismatch_is_reported(
    run: Run, some_engine: Engine, private_docker: PrivateDocker, tmp_path: Path
) -> None:
    other = private_docker.engines["graphdriver"]
    config = tmp_path / "docker"
    plugins = Path(some_engine.environment["DOCKER_CONFIG"], "cli-plugins")
    config.mkdir()
    (config / "cli-plugins").symlink_to(plugins)
    environment = {**os.environ, "DOCKER_CONFIG": str(config)}
    del environment["DOCKER_HOST"]
    for words in (["create", "other", f"--docker=host={other.host}"], ["use", "other"]):
        subprocess.run(["docker", "context", *words], env=environment, capture_output=True, check=True)
    result = run("doctor", "--json", DOCKER_CONFIG=str(config), DOCKER_HOST=None, **ON)

    found = checks(result)
    if hasattr(docker.DockerClient, "from_context"):  # docker-py 7.2
        assert (result.code, found["same engine"]["status"]) == (0, "ok")
        assert found["image store"]["found"].startswith("graphdriver")
    else:
        assert (result.code, found["engine"]["status"]) == (1, "problem")
        assert "docker context inspect" in found["engine"]["advice"]


@pytest.mark.usefixtures("some_engine")
def test_a_docker_command_that_talks_to_another_engine(run: Run, private_docker: PrivateDocker, tmp_path: Path) -> None:
    other = private_docker.engines["graphdriver"]
    real = os.path.join(other.environment["PATH"].partition(os.pathsep)[0], "docker")
    wrapper = tmp_path / "docker"
    wrapper.write_text(f'#!/bin/sh\nDOCKER_HOST={other.host} exec {real} "$@"\n')
    wrapper.chmod(0o755)
    result = run("doctor", "--json", PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}", **ON)

    found = checks(result)["same engine"]
    assert (result.code, found["status"]) == (1, "problem")
    assert "Prefect cannot push the images that buildx builds" in found["found"]


@pytest.mark.usefixtures("some_engine")
def test_a_builder_that_does_not_exist(run: Run) -> None:
    result = run("doctor", "--json", BUILDX_BUILDER="nosuch", **ON)

    found = checks(result)["builder"]
    assert (result.code, found["status"]) == (1, "problem")
    assert 'no builder "nosuch" found' in found["found"]
    assert "BUILDX_BUILDER" in found["advice"]


PROFILES = 'active = "mine"\n[profiles.mine]\nPREFECT_DOCKER_DISABLE_ATTESTATIONS = "true"\n'


@pytest.mark.parametrize(
    ("file", "content", "source"),
    [
        (".env", "PREFECT_DOCKER_DISABLE_ATTESTATIONS=true\n", ".env"),
        ("prefect.toml", "[docker]\ndisable_attestations = true\n", "prefect.toml"),
        ("pyproject.toml", "[tool.prefect.docker]\ndisable_attestations = true\n", "pyproject.toml"),
        ("profiles.toml", PROFILES, "profile 'mine'"),
    ],
)
def test_the_source_of_the_value_is_shown(run: Run, tmp_path: Path, file: str, content: str, source: str) -> None:
    (tmp_path / file).write_text(content)
    result = run("doctor", "--json", DOCKER_HOST=NOWHERE, PREFECT_PROFILES_PATH=str(tmp_path / "profiles.toml"))

    assert checks(result)["setting"]["found"].endswith(f"is on ({source})")


def test_an_invalid_boolean_is_shown_with_its_source(run: Run) -> None:
    secret = {"PREFECT_SERVER_DATABASE_TIMEOUT": "postgres-s3cret"}  # Prefect refuses another setting
    result = run("doctor", "--json", DOCKER_HOST=NOWHERE, PREFECT_DOCKER_DISABLE_ATTESTATIONS="maybe", **secret)

    found = checks(result)["setting"]
    assert (result.code, found["status"]) == (1, "problem")
    assert "PREFECT_DOCKER_DISABLE_ATTESTATIONS is 'maybe' (environment)" in found["found"]
    assert "s3cret" not in result.out


def test_disabled_autoload_is_reported(run: Run) -> None:
    result = run("doctor", "--json", DOCKER_HOST=NOWHERE, PREFECT_DOCKER_ATTEST_AUTOLOAD="0", **ON)

    found = checks(result)["package"]
    assert (found["status"], found["advice"]) == ("problem", "`unset PREFECT_DOCKER_ATTEST_AUTOLOAD`")


def test_a_prefect_command_from_another_environment_is_reported(run: Run, tmp_path: Path) -> None:
    command = tmp_path / "prefect"
    command.write_text(f"#!{os.path.realpath(sys.executable)}\nimport prefect\n")
    command.chmod(0o755)
    result = run("doctor", "--json", DOCKER_HOST=NOWHERE, PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}", **ON)

    found = checks(result)["prefect on PATH"]
    assert found["status"] == "problem"
    assert found["found"] == f"{command} runs in another environment, {sys.base_prefix}, without the package"
    assert "pipx inject prefect prefect-docker-attest" in found["advice"]


def test_no_password_is_printed(run: Run) -> None:
    result = run("doctor", DOCKER_HOST="tcp://me:s3cret@127.0.0.1:1", **ON)

    assert result.code == 1
    assert "s3cret" not in result.out + result.err


@pytest.mark.parametrize("columns", [80, 200])
def test_lines_are_no_longer_than_the_terminal_and_without_colour_in_a_pipe(run: Run, columns: int) -> None:
    result = run("doctor", DOCKER_HOST=NOWHERE, COLUMNS=str(columns))

    assert max(map(len, result.out.splitlines())) <= columns
    assert "\x1b" not in result.out


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


def test_usage_errors_exit_with_2(run: Run) -> None:
    result = run("doctor", "--nosuch")

    assert result.code == 2
    assert "No such option" in result.err


def test_the_module_can_be_run(run: Run) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "prefect_docker_attest", "--help"], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout) == (0, run("--help").out)
    assert "Usage: prefect-docker-attest" in done.stdout


@pytest.mark.parametrize(
    ("variables", "status", "result"),
    [
        ({"PLATFORM": "linux/arm64"}, "warning", "PREFECT_DOCKER_PLATFORM=linux/arm64 (environment): buildx adds att"),
        ({"PLATFORM": "linux/arm64", **ON}, "ok", "PREFECT_DOCKER_PLATFORM=linux/arm64 (environment)"),
        ({"PLATFORM": "linux/s390x", **ON}, "warning", "RUN steps need an emulator for it"),
        ({"PLATFORM": "arm64", **ON}, "problem", "PREFECT_DOCKER_PLATFORM='arm64' must be exactly one"),
        ({"MEDIA_TYPES": "docker"}, "problem", "attestations need OCI media types"),
        ({"CACHE_TO": "type=s3,token=HIDDEN", **ON}, "problem", "PREFECT_DOCKER_CACHE_TO must not contain"),
        ({"CACHE_TO": "type=registry,ref=HIDDEN/a:c", **ON}, "ok", "PREFECT_DOCKER_CACHE_TO (environment)"),
    ],
)
@pytest.mark.usefixtures("containerd_engine", "emulation")
def test_settings_that_are_defaults_of_options(run: Run, variables: dict[str, str], status: str, result: str) -> None:
    named = {name if name in ON else f"PREFECT_DOCKER_{name}": value for name, value in variables.items()}
    done = run("doctor", "--json", **named)
    found = checks(done)["build settings"]
    assert (found["status"], result in found["found"]) == (status, True), found
    assert "HIDDEN" not in done.out + done.err


@pytest.mark.parametrize(
    ("name", "value", "result"),
    [
        ("MEDIA_TYPES", "oci", "this image store pushes only Docker's media types"),
        ("CACHE_TO", "type=registry,ref=a/b:c", "this builder cannot write a cache"),
    ],
)
@pytest.mark.usefixtures("graphdriver_engine")
def test_settings_that_this_image_store_does_not_support(run: Run, name: str, value: str, result: str) -> None:
    found = checks(run("doctor", "--json", **{f"PREFECT_DOCKER_{name}": value}, **ON))["build settings"]
    assert (found["status"], result in found["found"]) == ("problem", True), found


@pytest.mark.usefixtures("engine")
def test_a_builder_on_another_machine(run: Run, far_in_use: RemoteBuilder) -> None:
    loads = run("doctor", "--json", **ON)
    builder = checks(loads)["builder"]
    assert (loads.code, builder["status"]) == (0, "ok")
    name = re.escape(far_in_use.name)
    shown = rf"{name}, driver remote, unix:///.*{name}\.sock, for linux/amd64, linux/arm64; "
    assert re.match(shown, builder["found"])
    assert "twice over this machine's link" in builder["found"]
    assert "PREFECT_DOCKER_PUSH_FROM_BUILDER=true" in builder["advice"]
    pushes = run("doctor", "--json", PREFECT_DOCKER_PUSH_FROM_BUILDER="true", **ON)
    builder = checks(pushes)["builder"]
    assert "it pushes images to their registry itself (PREFECT_DOCKER_PUSH_FROM_BUILDER)" in builder["found"]
    assert builder["advice"] == ""
    assert checks(pushes)["build settings"]["status"] == "ok"


@pytest.mark.usefixtures("engine", "far_in_use")
def test_a_builder_on_another_machine_that_pushes_attestations(run: Run) -> None:
    found = checks(run("doctor", "--json", PREFECT_DOCKER_PUSH_FROM_BUILDER="true"))["build settings"]
    assert (found["status"], "adds attestations" in found["found"]) == ("warning", True)


@pytest.mark.usefixtures("engine")
def test_a_builder_that_cannot_push_from_elsewhere(run: Run) -> None:
    found = checks(run("doctor", "--json", PREFECT_DOCKER_PUSH_FROM_BUILDER="true", **ON))["build settings"]
    assert found["status"] == "warning"
    assert "the engine's own builder loads images" in found["found"]
