"""Failed builds: the `BuildError` says what failed and what to do."""

from __future__ import annotations

import io
import logging
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from prefect.utilities.dockerutils import BuildError, build_image, docker_client
from prefect_docker.deployments.steps import build_docker_image

from support.names import BUSYBOX, PREFIX

if TYPE_CHECKING:
    from pathlib import Path

    from engines.private import Engine

pytestmark = pytest.mark.usefixtures("switched_on")


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "context").mkdir()
    (tmp_path / "context" / "Dockerfile").write_text(f"FROM {BUSYBOX}\n")
    monkeypatch.chdir(tmp_path / "context")
    return tmp_path / "context"


FAILURES: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "a RUN fails": (
        f"FROM {BUSYBOX}\nRUN cat /no/such/file; exit 7\n",
        {},
        [
            'process "/bin/sh -c cat /no/such/file; exit 7" did not complete successfully: exit code: 7',
            "Failed step: [2/2] RUN cat /no/such/file; exit 7",
            "The command '/bin/sh -c cat /no/such/file; exit 7' returned a non-zero code: 7",
        ],
    ),
    "there is no Dockerfile": (
        f"FROM {BUSYBOX}\n",
        {"dockerfile": "Dockerfile.none"},
        ["failed to read dockerfile: open Dockerfile.none", "Cannot locate specified Dockerfile", "/Dockerfile.none"],
    ),
    "the Dockerfile's folder is not there": (
        f"FROM {BUSYBOX}\n",
        {"dockerfile": "none/Dockerfile"},
        ["Cannot locate specified Dockerfile", "/none/Dockerfile"],
    ),
    "the base image is nowhere": (
        "FROM REGISTRY/busybox-nowhere\n",
        {},
        ["/busybox-nowhere:latest", "Check the base image's name, tag and registry: `docker buildx imagetools"],
    ),
    "the base image has no such platform": (
        f"FROM {BUSYBOX}\n",
        {"platform": "linux/s390x"},
        ["no match for platform in manifest", "The base image has no variant for the platform"],
    ),
    "the registry of the base image is not there": (
        "FROM 127.0.0.1:1/image:1\n",
        {},
        ['failed to do request: Head "https://127.0.0.1:1/v2/image/manifests/1"', "connection refused"],
    ),
    "the Dockerfile has a syntax error": (
        f"FROM {BUSYBOX}\nCOPPY a b\n",
        {},
        ["dockerfile parse error on line 2: unknown instruction: COPPY"],
    ),
    "a file to copy is not in the context": (
        f"FROM {BUSYBOX}\nCOPY not-here.txt /\n",
        {},
        [
            '"/not-here.txt": not found',
            "COPY failed: /not-here.txt is not in the build context",
            "TIP Check the path and .dockerignore.",
        ],
    ),
    "the stage is not in the Dockerfile": (
        f"FROM {BUSYBOX}\n",
        {"target": "no-such-stage"},
        ['target stage "no-such-stage" could not be found'],
    ),
    "the builder does not exist": (
        f"FROM {BUSYBOX}\n",
        {"builder": "no-such-builder"},
        ['no builder "no-such-builder" found', "`docker buildx ls` lists the builders"],
    ),
}


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("failure", FAILURES)
def test_a_failed_build_has_a_message_with_advice(request: pytest.FixtureRequest, context: Path, failure: str) -> None:
    dockerfile, options, expected = FAILURES[failure]
    if failure in ("the base image is nowhere", "the base image has no such platform"):
        # It says so. After an engine's mirror, the network would have the last word.
        dockerfile = dockerfile.replace("REGISTRY", request.getfixturevalue("registry").address)
    (context / "Dockerfile").write_text(dockerfile)
    with pytest.raises(BuildError) as error:
        build_image(context, **options)
    assert [text for text in expected if text not in str(error.value)] == []


@pytest.mark.usefixtures("engine")
def test_the_step_of_prefect_docker_fails_with_the_same_message(context: Path) -> None:
    (context / "Dockerfile").write_text(f"FROM {BUSYBOX}\nRUN exit 9\n")
    with pytest.raises(BuildError, match="returned a non-zero code: 9"):
        build_docker_image(f"{PREFIX}/failing-step", tag="x", pull=False, ignore_cache=True)


@pytest.mark.usefixtures("some_engine")
def test_a_bad_tag_is_refused_before_anything_is_built(context: Path) -> None:
    with pytest.raises(BuildError, match="invalid tag 'Bad:Tag:x': invalid reference format") as error:
        build_image(context, tag="Bad:Tag:x")
    assert isinstance(error.value, ValueError)


@pytest.mark.usefixtures("engine")
def test_output_of_a_step_is_logged_and_streamed_but_not_in_the_error(
    context: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (context / "say").write_text("permission denied: connection reset by peer")
    (context / "Dockerfile").write_text(f"FROM {BUSYBOX}\nCOPY say /\nRUN cat /say; exit 1\n")
    stream = io.StringIO()
    with pytest.raises(BuildError) as error:
        build_image(context, stream_progress_to=stream)
    assert "connection reset" not in str(error.value)
    assert "connection reset by peer" in stream.getvalue()
    logged = [record for record in caplog.records if record.name == "prefect_docker_attest"]
    assert [record.levelno for record in logged] == [logging.ERROR]
    assert "permission denied: connection reset by peer" in logged[0].getMessage()


def _only_docker(engine: Engine, folder: Path, monkeypatch: pytest.MonkeyPatch, plugin: str | None) -> None:
    """Make the docker CLI find only this script as a plugin."""
    # The CLI also looks for plugins in /usr/libexec/docker/cli-plugins, which can contain a real one.
    (folder / "cli-plugins").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    program = folder / "cli-plugins" / "docker-buildx"
    program.write_text(plugin or "not a program")
    program.chmod(0o755 if plugin else 0o644)
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    assert shutil.which("docker", path=engine.environment["PATH"])


def test_no_docker_command(context: Path, some_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert some_engine.host
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(BuildError) as error:
        build_image(context)
    assert "The `docker` command was not found (PATH=/nowhere)" in str(error.value)
    assert "`docker buildx version`" in str(error.value)


def test_no_buildx_plugin(context: Path, some_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _only_docker(some_engine, tmp_path / "config", monkeypatch, plugin=None)
    with pytest.raises(BuildError) as error:
        build_image(context)
    assert "The docker CLI has no usable buildx plugin: " in str(error.value)
    assert "TIP Install buildx: `apt-get install docker-buildx`" in str(error.value)


# Debian has no buildx this old, so a script with its output takes its place. The docker CLI is real.
OLD_BUILDX = """#!/bin/sh
case " $* " in
" docker-cli-plugin-metadata ") echo '{{"SchemaVersion":"0.1.0","Vendor":"Docker Inc.","Version":"v{version}"}}' ;;
*" buildx version ") echo "github.com/docker/buildx v{version} ed00243a0ce2a0aee75311b06e32d33b44729689" ;;
*) echo "unknown flag: {flag}" >&2; echo "See 'docker buildx build --help'." >&2; exit 125 ;;
esac
"""


def test_a_buildx_that_is_too_old(
    context: Path, some_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = OLD_BUILDX.format(version="0.9.1", flag="--provenance")
    _only_docker(some_engine, tmp_path / "config", monkeypatch, plugin=plugin)
    with pytest.raises(
        BuildError, match=r"The buildx plugin is too old: 0\.9\.1\. prefect-docker-attest needs 0\.10\.2 or newer"
    ):
        build_image(context)


def test_a_buildx_that_is_too_old_for_an_option(
    context: Path, containerd_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = OLD_BUILDX.format(version="0.11.2", flag="--annotation")
    _only_docker(containerd_engine, tmp_path / "config", monkeypatch, plugin=plugin)
    options: dict[str, Any] = {"annotations": {"a": "b"}}
    with pytest.raises(BuildError, match=r"too old: 0\.11\.2\. The option annotations needs 0\.12\.0 or newer"):
        build_image(context, **options)


@pytest.mark.private("leads the docker CLI to a second engine")
def test_a_builder_that_leaves_no_image_in_this_engine(
    context: Path, some_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The CLI uses another engine than docker-py, for example because of a wrapper script for `docker`.
    other = some_engine.host.replace("/containerd/", "/graphdriver/")
    docker = shutil.which("docker", path=some_engine.environment["PATH"])
    (tmp_path / "docker").write_text(f'#!/bin/sh\nDOCKER_HOST={other} exec {docker} "$@"\n')
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{some_engine.environment['PATH']}")
    with pytest.raises(BuildError) as error:
        build_image(context, tag=f"{PREFIX}/elsewhere:1")
    message = str(error.value)
    assert f"the Docker Engine at {some_engine.host} does not hold the image sha256:" in message
    assert "(builder default, driver docker)" in message
    with docker_client() as client:
        assert client.images.list(f"{PREFIX}/elsewhere") == []


def test_only_a_stopped_engine_is_reported_as_docker_not_running(
    context: Path, some_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert some_engine.host
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    with pytest.raises(RuntimeError, match="Docker is not running"):
        build_image(context)


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("lines", [20_000, 200_000])  # BuildKit has different errors for these
def test_a_dockerignore_that_is_too_long_for_buildkit_has_a_tip(context: Path, lines: int) -> None:
    (context / "Dockerfile").write_text(f"FROM {BUSYBOX}\nCOPY . /x/\n")
    (context / ".dockerignore").write_text(
        "".join(f"a-folder/with-a-file-of-a-long-name-and-number-{number}\n" for number in range(lines))
    )
    with pytest.raises(BuildError, match=r"\.dockerignore is too long for BuildKit"):
        build_image(context, stream_progress_to=io.StringIO())
