"""`prefect-docker-attest doctor` on real engines, without problems and with each problem."""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import docker
import pytest

from support.shipped import COMMAND

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engines.private import Engine, PrivateDocker
    from support.remote_builder import RemoteBuilder
    from support.shipped import Result, Run

ON = {"PREFECT_DOCKER_DISABLE_ATTESTATIONS": "true"}
NOWHERE = "unix:///nonexistent/docker.sock"


def checks(result: Result) -> dict[str, dict[str, str]]:
    return {check["name"]: check for check in result.json["checks"]}


@pytest.mark.usefixtures("engine", "emulation")
def test_without_problems_the_exit_code_is_0(run: Run) -> None:
    result = run("doctor", "--json", "--strict", "--timeout=3600", **ON)

    assert (result.code, result.err) == (0, "")  # it does not wait for the whole time
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
    strict = run("doctor", "--json", "--strict")
    assert (strict.code, strict.json["ok"]) == (1, False)


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
        result = run("doctor", "--json", "--timeout=10", DOCKER_HOST=f"unix://{tmp_path}/s", **ON)

    engine = checks(result)["engine"]
    assert (result.code, engine["status"]) == (1, "problem")
    assert engine["found"] == f"docker-py gets no answer from unix://{tmp_path}/s: no answer within 10 s"
    assert "try `--timeout 20`" in engine["advice"]


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


@pytest.mark.usefixtures("some_engine")
@pytest.mark.parametrize("version", ["1.99", "1.20", "none"])
def test_a_version_of_the_api_that_the_engine_refuses(run: Run, version: str) -> None:
    result = run("doctor", "--json", DOCKER_API_VERSION=version, **ON)

    found = checks(result)
    assert {name for name, check in found.items() if check["status"] == "problem"} == {"docker CLI"}
    assert f"the engine refuses DOCKER_API_VERSION={version}: " in found["docker CLI"]["found"]
    assert found["docker CLI"]["advice"].startswith("`unset DOCKER_API_VERSION`")
    assert "DOCKER_HOST" not in result.out
    assert checks(run("doctor", "--json", DOCKER_API_VERSION=version))["docker CLI"]["status"] == "warning"


@pytest.mark.usefixtures("some_engine")
def test_a_version_of_the_api_that_is_not_the_reason(run: Run) -> None:
    assert run("doctor", "--json", DOCKER_API_VERSION="1.40", **ON).code == 0
    stopped = run("doctor", "--json", DOCKER_API_VERSION="1.99", DOCKER_HOST=NOWHERE, **ON)
    assert {name for name, check in checks(stopped).items() if check["status"] == "problem"} == {"engine"}


@pytest.fixture
def configuration(some_engine: Engine, tmp_path: Path) -> Path:
    """A folder for DOCKER_CONFIG with the plugin buildx."""
    folder = tmp_path / "docker"
    folder.mkdir()
    (folder / "cli-plugins").symlink_to(Path(some_engine.environment["DOCKER_CONFIG"], "cli-plugins"))
    return folder


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Mount a folder on itself, read-only: root can write to a folder without permissions."""
    if subprocess.run(["mount", "--bind", folder, folder], capture_output=True, check=False).returncode:
        pytest.skip("cannot mount")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.parametrize("used", [True, False], ids=["used", "new"])
def test_a_configuration_that_cannot_be_written(run: Run, configuration: Path, used: bool) -> None:
    """With a folder that buildx has used before, `docker buildx inspect` works, and every build fails."""
    if used:
        assert run("doctor", "--json", DOCKER_CONFIG=str(configuration), **ON).code == 0
        assert (configuration / "buildx").is_dir()
    with read_only(configuration):
        result = run("doctor", "--json", DOCKER_CONFIG=str(configuration), **ON)
        elsewhere = str(configuration.parent / "buildx")
        moved = run("doctor", "--json", DOCKER_CONFIG=str(configuration), BUILDX_CONFIG=elsewhere, **ON)

    assert {name for name, check in checks(result).items() if check["status"] == "problem"} == {"buildx"}
    folder = configuration / "buildx/activity" if used else configuration
    reason = f"buildx cannot write its files: {folder} is on a read-only file system (DOCKER_CONFIG)"
    assert reason in checks(result)["buildx"]["found"]
    assert moved.code == 0


@pytest.mark.parametrize(("name", "fails"), [("buildx/activity", True), ("buildx", False), ("buildx/refs", False)])
def test_a_folder_that_cannot_be_written_is_a_problem_if_builds_fail(
    run: Run, some_engine: Engine, configuration: Path, name: str, fails: bool
) -> None:
    context = configuration.parent / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    environment = {**some_engine.environment, "DOCKER_CONFIG": str(configuration)}
    build = ["docker", "buildx", "build", str(context)]
    subprocess.run(build, env=environment, capture_output=True, check=True)
    if not shutil.which("chattr"):  # a minimal Debian has no e2fsprogs
        pytest.skip("there is no chattr")
    if subprocess.run(["chattr", "+i", configuration / name], capture_output=True, check=False).returncode:
        pytest.skip("this file system has no immutable folders")
    try:
        built = subprocess.run(build, env=environment, capture_output=True, check=False)
        found = checks(run("doctor", "--json", DOCKER_CONFIG=str(configuration), **ON))["buildx"]
    finally:
        subprocess.run(["chattr", "-i", configuration / name], check=True)

    assert (built.returncode != 0, found["status"]) == (fails, "problem" if fails else "ok")
    assert (f"{configuration / name} is not writable" in found["found"]) is fails


@pytest.mark.parametrize("name", ["buildx", "buildx/refs", "buildx/activity", "buildx/instances"])
def test_a_file_in_the_place_of_a_folder_of_buildx(run: Run, configuration: Path, name: str) -> None:
    (configuration / name).parent.mkdir(exist_ok=True)
    (configuration / name).write_text("")
    found = checks(run("doctor", "--json", DOCKER_CONFIG=str(configuration), **ON))

    assert f"cannot write its files: {configuration / name} is not a folder" in found["buildx"]["found"]
    assert found["buildx"]["status"] == "problem"


@pytest.mark.usefixtures("some_engine")
def test_a_configuration_that_is_a_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = checks(run("doctor", "--json", DOCKER_CONFIG=str(tmp_path / "file"), **ON))["buildx"]

    assert f"{tmp_path / 'file'} is not a folder (DOCKER_CONFIG)" in found["found"]
    assert "Set DOCKER_CONFIG to a writable folder" in found["advice"]


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


def test_the_profile_in_which_the_setting_is_on_is_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "profiles.toml").write_text(PROFILES.replace('"mine"', '"other"') + "[profiles.other]\n")
    profiles = {"DOCKER_HOST": NOWHERE, "PREFECT_PROFILES_PATH": str(tmp_path / "profiles.toml")}
    found = checks(run("doctor", "--json", **profiles))["setting"]

    assert found["found"].endswith("is off (default). It is on in the profile 'mine', which is not active")
    assert found["advice"].endswith("or `prefect profile use mine`")
    by_variable = checks(run("doctor", "--json", **profiles, PREFECT_PROFILE="other"))["setting"]
    assert by_variable["advice"].endswith("or `export PREFECT_PROFILE=mine`")
    assert (
        "is on (profile 'mine')"
        in checks(run("doctor", "--json", **profiles, PREFECT_PROFILE="mine"))["setting"]["found"]
    )


def test_a_source_that_another_one_overrides_is_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "prefect.toml").write_text("[docker]\ndisable_attestations = true\n")
    result = run("doctor", "--json", DOCKER_HOST=NOWHERE, PREFECT_DOCKER_DISABLE_ATTESTATIONS="false")

    seen = "is off (environment). It is on in prefect.toml, which the environment overrides"
    assert checks(result)["setting"]["found"].endswith(seen)


@pytest.mark.parametrize(
    ("file", "content", "name"),
    [
        ("", "", "PREFECT_DISABLE_ATTESTATIONS (environment)"),
        (".env", "PREFECT_DOCKER_DISABLE_ATTESTATION=true\n", "PREFECT_DOCKER_DISABLE_ATTESTATION (.env)"),
        ("prefect.toml", "[docker]\ndisable_attestation = true\n", "disable_attestation (prefect.toml)"),
        ("pyproject.toml", "[tool.prefect.docker]\nno_attestations = 1\n", "no_attestations (pyproject.toml)"),
        ("profiles.toml", PROFILES.replace("IONS", "ION"), "PREFECT_DOCKER_DISABLE_ATTESTATION (profile 'mine')"),
    ],
)
def test_names_that_are_almost_right_are_shown(run: Run, tmp_path: Path, file: str, content: str, name: str) -> None:
    variables = {} if file else {"PREFECT_DISABLE_ATTESTATIONS": "true"}
    if file:
        (tmp_path / file).write_text(content)
    profiles = str(tmp_path / "profiles.toml")
    result = run("doctor", "--json", DOCKER_HOST=NOWHERE, PREFECT_PROFILES_PATH=profiles, **variables)

    found = checks(result)["misspelled settings"]
    right = "disable_attestations" if file.endswith("t.toml") else "PREFECT_DOCKER_DISABLE_ATTESTATIONS"
    assert (found["status"], found["found"]) == ("warning", f"{name} has no effect: the name is {right}")


@pytest.mark.parametrize("other", [None, "postgres-s3cret"])
@pytest.mark.parametrize("name", ["DISABLE_ATTESTATIONS", "PUSH_FROM_BUILDER"])
def test_an_invalid_boolean_is_shown_with_its_source(run: Run, name: str, other: str | None) -> None:
    """Prefect can refuse another setting too, whose value can be a secret."""
    variables = {f"PREFECT_DOCKER_{name}": "maybe", "PREFECT_SERVER_DATABASE_TIMEOUT": other}
    result = run("doctor", "--json", DOCKER_HOST=NOWHERE, **variables)

    found = checks(result)["setting"]
    assert (result.code, found["status"]) == (1, "problem")
    assert found["found"].startswith(f"PREFECT_DOCKER_{name}='maybe' is not true or false (environment)")
    assert found["advice"] == "Set it to true or false, or unset it."
    assert "s3cret" not in result.out


def test_an_invalid_setting_of_prefect_is_not_taken_for_ours(run: Run) -> None:
    result = run("doctor", "--json", DOCKER_HOST=NOWHERE, PREFECT_SERVER_DATABASE_TIMEOUT="s3cret", **ON)

    found = checks(result)["setting"]
    assert re.match(r"Prefect refuses its settings \(.*timeout: Input should be a valid number", found["found"])
    assert found["advice"].startswith("`prefect config view` shows the error.")
    assert not any(text in result.out for text in ("s3cret", "Set it to true or false"))


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


def test_in_a_pipe_lines_are_not_wrapped_and_without_colour(run: Run) -> None:
    result = run("doctor", DOCKER_HOST=NOWHERE, COLUMNS="80")

    assert re.search(r"^problem +engine +docker-py gets no answer from .{80}", result.out, re.MULTILINE)
    assert re.search(r"^ +-> Start Docker, or select a running engine .*: `docker info`\.$", result.out, re.MULTILINE)
    assert "\x1b" not in result.out


@pytest.mark.parametrize("strict", [False, True])
def test_quiet_shows_what_decides_the_exit_code(run: Run, strict: bool) -> None:
    result = run("doctor", "-q", *(["--strict"] if strict else []), DOCKER_HOST=NOWHERE)

    shown = set(re.findall(r"^(\w+) {2,}\S", result.out, re.MULTILINE))
    assert (result.code, shown) == (1, {"problem", "warning"} if strict else {"problem"})
    assert re.search(r"\nproblems: 1, warnings: \d+\n$" if strict else r"\nproblems: 1\n$", result.out)


@pytest.mark.usefixtures("some_engine", "emulation")
def test_quiet_shows_nothing_if_there_are_no_problems(run: Run) -> None:
    result = run("doctor", "--quiet", "--strict", **ON)
    assert (result.code, result.out, result.err) == (0, "", "")


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


@pytest.mark.parametrize("option", ["--nosuch", "--timeout=0", "--timeout=nan", "--timeout=-1", "--timeout=1e9"])
def test_usage_errors_exit_with_2(run: Run, option: str) -> None:
    result = run("doctor", option)

    assert result.code == 2
    assert option.partition("=")[0] in result.err


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
        *(
            ({"PLATFORM": name, **ON}, "ok", f"PREFECT_DOCKER_PLATFORM={name} (environment)")
            for name in ("linux/aarch64", "linux/arm64/v8", "linux/x86_64", "linux/amd64/v3")
        ),
        ({"PLATFORM": "amd46", **ON}, "problem", "PREFECT_DOCKER_PLATFORM='amd46' is not a platform"),
        ({"PLATFORM": "linux/armhf", **ON}, "warning", "=linux/armhf (environment): RUN steps need an emulator for it"),
        ({"PLATFORM": "linux/amd46", **ON}, "problem", "PREFECT_DOCKER_PLATFORM='linux/amd46'"),
        ({"MEDIA_TYPES": "docker"}, "problem", "attestations need OCI media types"),
        ({"COMPRESSION": "zstd:3", **ON}, "ok", "PREFECT_DOCKER_COMPRESSION=zstd:3 (environment)"),
        ({"COMPRESSION": "zstd:23", **ON}, "problem", "PREFECT_DOCKER_COMPRESSION='zstd:23' must have a level from"),
        ({"COMPRESSION": "zstd", "MEDIA_TYPES": "docker", **ON}, "problem", "with PREFECT_DOCKER_MEDIA_TYPES='docker'"),
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
        ("COMPRESSION", "zstd", "this image store pushes only layers that it compresses itself with gzip"),
        ("CACHE_TO", "type=registry,ref=a/b:c", "this builder cannot write a cache"),
    ],
)
@pytest.mark.usefixtures("graphdriver_engine")
def test_settings_that_this_image_store_does_not_support(run: Run, name: str, value: str, result: str) -> None:
    found = checks(run("doctor", "--json", **{f"PREFECT_DOCKER_{name}": value}, **ON))["build settings"]
    assert (found["status"], result in found["found"]) == ("problem", True), found


@pytest.mark.usefixtures("graphdriver_engine")
def test_the_compression_of_this_image_store(run: Run) -> None:
    assert checks(run("doctor", "--json", PREFECT_DOCKER_COMPRESSION="gzip", **ON))["build settings"]["status"] == "ok"


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
