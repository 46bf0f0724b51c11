"""What goes wrong, and what Prefect's user is told: a `BuildError` that says what failed and what to do."""

from __future__ import annotations

import io
import logging
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from prefect.utilities.dockerutils import BuildError, build_image, docker_client
from prefect_docker.deployments.steps import build_docker_image

if TYPE_CHECKING:
    from pathlib import Path

    from private_docker import Engine

pytestmark = pytest.mark.usefixtures("switched_on")


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "context").mkdir()
    (tmp_path / "context" / "Dockerfile").write_text("FROM busybox\n")
    monkeypatch.chdir(tmp_path / "context")
    return tmp_path / "context"


FAILURES: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "a RUN fails": (
        "FROM busybox\nRUN cat /no/such/file; exit 7\n",
        {},
        [
            'process "/bin/sh -c cat /no/such/file; exit 7" did not complete successfully: exit code: 7',
            "Failed step: [2/2] RUN cat /no/such/file; exit 7",
            "returned a non-zero code: 7",
        ],
    ),
    "there is no Dockerfile": (
        "FROM busybox\n",
        {"dockerfile": "Dockerfile.none"},
        ["failed to read dockerfile: open Dockerfile.none", "Cannot locate specified Dockerfile", "/Dockerfile.none"],
    ),
    "the Dockerfile's folder is not there": (
        "FROM busybox\n",
        {"dockerfile": "none/Dockerfile"},
        ["Cannot locate specified Dockerfile", "/none/Dockerfile"],
    ),
    "the base image is nowhere": (
        "FROM no-such/image:1\n",
        {},
        ["docker.io/no-such/image:1", "Check the base image's name, tag and registry: `docker buildx imagetools"],
    ),
    "the base image has no such platform": (
        "FROM busybox\n",
        {"platform": "linux/s390x"},
        ["no match for platform in manifest", "The base image has no variant for the platform"],
    ),
    "the registry of the base image is not there": (
        "FROM 127.0.0.1:1/image:1\n",
        {},
        ['failed to do request: Head "https://127.0.0.1:1/v2/image/manifests/1"', "connection refused"],
    ),
    "the Dockerfile has a syntax error": (
        "FROM busybox\nCOPPY a b\n",
        {},
        ["dockerfile parse error on line 2: unknown instruction: COPPY"],
    ),
    "a file to copy is not in the context": (
        "FROM busybox\nCOPY not-here.txt /\n",
        {},
        ['"/not-here.txt": not found', "COPY failed: /not-here.txt is not in the build context", ".dockerignore"],
    ),
    "the stage is not in the Dockerfile": (
        "FROM busybox\n",
        {"target": "no-such-stage"},
        ['target stage "no-such-stage" could not be found'],
    ),
    "the builder does not exist": (
        "FROM busybox\n",
        {"builder": "no-such-builder"},
        ['no builder "no-such-builder" found', "`docker buildx ls` lists the builders"],
    ),
}


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("failure", FAILURES)
def test_a_failed_build_says_what_and_what_to_do(context: Path, failure: str) -> None:
    dockerfile, options, said = FAILURES[failure]
    (context / "Dockerfile").write_text(dockerfile)
    with pytest.raises(BuildError) as error:
        build_image(context, **options)
    assert [text for text in said if text not in str(error.value)] == []


@pytest.mark.usefixtures("engine")
def test_the_step_of_prefect_docker_fails_with_the_same_words(context: Path) -> None:
    (context / "Dockerfile").write_text("FROM busybox\nRUN exit 9\n")
    with pytest.raises(BuildError, match="returned a non-zero code: 9"):
        build_docker_image("failing-step", tag="x", pull=False, ignore_cache=True)


@pytest.mark.usefixtures("some_engine")
def test_a_bad_tag_is_refused_before_anything_is_built(context: Path) -> None:
    with pytest.raises(BuildError, match="invalid tag 'Bad:Tag:x': invalid reference format") as error:
        build_image(context, tag="Bad:Tag:x")
    assert isinstance(error.value, ValueError)


@pytest.mark.usefixtures("engine")
def test_what_a_step_printed_is_logged_and_streamed_but_is_no_part_of_the_error(
    context: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (context / "say").write_text("permission denied: connection reset by peer")
    (context / "Dockerfile").write_text("FROM busybox\nCOPY say /\nRUN cat /say; exit 1\n")
    stream = io.StringIO()
    with pytest.raises(BuildError) as error:
        build_image(context, stream_progress_to=stream)
    assert "connection reset" not in str(error.value)
    assert "connection reset by peer" in stream.getvalue()
    logged = [record for record in caplog.records if record.name == "prefect_docker_attest"]
    assert [record.levelno for record in logged] == [logging.ERROR]
    assert "permission denied: connection reset by peer" in logged[0].getMessage()


def _only_docker(engine: Engine, folder: Path, monkeypatch: pytest.MonkeyPatch, plugin: str | None) -> None:
    """A machine whose docker CLI finds no other plugin than the given script."""
    # A CLI looks for plugins beside those of the system: /usr/libexec/docker/cli-plugins may hold a real one.
    (folder / "cli-plugins").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    program = folder / "cli-plugins" / "docker-buildx"
    program.write_text(plugin or "not a program")
    program.chmod(0o755 if plugin else 0o644)
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    assert shutil.which("docker", path=engine.environment["PATH"])


def test_no_docker_command(context: Path, containerd_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert containerd_engine.host
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(BuildError) as error:
        build_image(context)
    assert "The `docker` command was not found (PATH=/nowhere)" in str(error.value)
    assert "`docker buildx version`" in str(error.value)


def test_no_buildx_plugin(
    context: Path, containerd_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _only_docker(containerd_engine, tmp_path / "config", monkeypatch, plugin=None)
    with pytest.raises(BuildError) as error:
        build_image(context)
    assert "The docker CLI has no usable buildx plugin: `docker buildx version` says" in str(error.value)
    assert "Install it" in str(error.value)


# Debian has no buildx this old: to the real docker CLI, a script that says what 0.9.1 says stands in for it.
BUILDX_0_9 = """#!/bin/sh
case " $* " in
" docker-cli-plugin-metadata ") echo '{"SchemaVersion":"0.1.0","Vendor":"Docker Inc.","Version":"v0.9.1"}' ;;
*" buildx version ") echo "github.com/docker/buildx v0.9.1 ed00243a0ce2a0aee75311b06e32d33b44729689" ;;
*) echo "unknown flag: --provenance" >&2; echo "See 'docker buildx build --help'." >&2; exit 125 ;;
esac
"""


def test_a_buildx_that_is_too_old(
    context: Path, containerd_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _only_docker(containerd_engine, tmp_path / "config", monkeypatch, plugin=BUILDX_0_9)
    with pytest.raises(BuildError, match=r"The buildx plugin is too old: 0\.9\.1, and 0\.10\.2 or newer is needed"):
        build_image(context)


def test_a_builder_that_leaves_no_image_in_this_engine(
    context: Path, containerd_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The CLI is led to another engine than docker-py's, as a wrapper script or an alias of `docker` may do.
    other = containerd_engine.host.replace("/containerd/", "/graphdriver/")
    docker = shutil.which("docker", path=containerd_engine.environment["PATH"])
    (tmp_path / "docker").write_text(f'#!/bin/sh\nDOCKER_HOST={other} exec {docker} "$@"\n')
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{containerd_engine.environment['PATH']}")
    with pytest.raises(BuildError) as error:
        build_image(context, tag="elsewhere:1")
    said = str(error.value)
    assert f"({containerd_engine.host}) does not hold its image (sha256:" in said
    assert "The builder is [Name: default, Driver: docker" in said
    with docker_client() as client:
        assert client.images.list("elsewhere") == []


def test_an_engine_that_is_down_is_the_one_thing_called_docker_not_running(
    context: Path, containerd_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert containerd_engine.host
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    with pytest.raises(RuntimeError, match="Docker is not running"):
        build_image(context)
