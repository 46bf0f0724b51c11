"""The explanation of a failed build comes from evidence, never from text that a user wrote."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shutil
import threading
import time
from typing import TYPE_CHECKING, Any
from unittest import mock
from uuid import uuid4

import docker
import pytest
from prefect.utilities import dockerutils
from prefect.utilities.dockerutils import BuildError, build_image, docker_client

from support.names import BUSYBOX, PREFIX
from support.socket_proxy import socket_proxy
from support.ways import settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from engines.private import Engine, PrivateDocker
    from support.remote_builder import RemoteBuilder

pytestmark = pytest.mark.usefixtures("switched_on")

FROM = f"FROM {BUSYBOX}\n"


@pytest.fixture
def context(tmp_path: Path) -> Path:
    (tmp_path / "context").mkdir()
    (tmp_path / "context" / "Dockerfile").write_text(FROM)
    return tmp_path / "context"


def failure(context: Path, dockerfile: str = FROM, **options: Any) -> str:
    """Build, and return the text of the error."""
    (context / "Dockerfile").write_text(dockerfile)
    with pytest.raises(BuildError) as error:
        build_image(context, **options)
    return str(error.value)


@pytest.mark.usefixtures("some_engine")
@pytest.mark.parametrize(
    "printed",
    [
        "401 Unauthorized: check API_URL",
        "unexpected status from GET request to https://x/v2/: 403 Forbidden",
        "Cannot connect to the Docker daemon at unix:///x",
        "no space left on device",
        "exec format error",
        "no match for platform in manifest",
        "ERROR: failed to solve: failed to read dockerfile: open x: no such file or directory",
        "rpc error: code = Unavailable desc = x",
        "failed to push x",
    ],
)
def test_text_of_a_command_explains_nothing(context: Path, printed: str) -> None:
    text = failure(context, f"{FROM}RUN echo '{printed}' && exit 3\n")
    _, *ours = text.splitlines()
    assert len(ours) == 1
    assert ours[0].startswith("Failed step: [2/2] RUN echo")
    assert ours[0].endswith("returned a non-zero code: 3")


@pytest.mark.parametrize("refused", ["POST", "/grpc", "/session", "/images"])
def test_a_socket_that_refuses_requests_of_buildx_is_named(
    context: Path, some_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    path = tmp_path / "proxy.sock"
    with socket_proxy(
        path, some_engine.host, lambda method, target: refused == method or refused in target
    ) as requests:
        monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
        text = failure(context)
    assert "The registry did not accept" not in text
    assert "outside this Docker Engine" not in text
    assert {"POST /grpc", "POST /session"} & {*requests}
    if refused == "/images":
        assert "The engine's socket refused GET /images/sha256:" in text
    elif refused == "/grpc":
        # buildx then asks for a container with BuildKit, which these engines cannot pull.
        assert "buildx gets no BuildKit from the engine's socket" in text
    else:
        assert "The engine's socket refused a request of buildx, which calls POST /grpc and POST /session." in text
    if refused != "/grpc":
        assert "set its variables POST, GRPC, SESSION and IMAGES to 1" in text


def test_a_socket_that_refuses_only_the_info_of_the_engine_is_enough(
    context: Path, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build with Docker's media types asks for the image store, to convert layers where that is possible."""
    (context / "Dockerfile").write_text(f"{FROM}LABEL x=1\n")
    path = tmp_path / "proxy.sock"
    with (
        socket_proxy(path, engine.host, lambda _method, target: target.endswith("/info")) as requests,
        settings(media_types="docker"),
    ):
        monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
        assert build_image(context).startswith("sha256:")
    assert any(request.endswith("/info") for request in requests)


def test_an_address_that_only_docker_py_can_use_is_named(
    context: Path, some_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"{some_engine.host}/")
    text = failure(context)
    assert f"The docker CLI cannot reach the engine at {some_engine.host}/." in text
    assert "outside" not in text


@pytest.mark.usefixtures("containerd_engine")
@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("type=registry", "The entry type=registry of cache_to has no ref."),
        ("type=local", "The entry type=local of cache_to has no dest."),
        ("type=registry,ref=Bad:Ref:x", "The ref in the entry type=registry,ref=Bad:Ref:x of cache_to is not the name"),
        ("type=nosuch,token=HIDDEN", "The entry type=nosuch of cache_to has a type that this builder does not know."),
    ],
)
def test_a_wrong_cache_entry_is_named(context: Path, entry: str, said: str) -> None:
    text = failure(context, cache_to=entry)
    assert said in text
    assert "containerd image store" not in text
    assert "HIDDEN" not in text


@pytest.mark.usefixtures("registry", "engine")
@pytest.mark.parametrize("way", ["# syntax=", "//syntax=", "BUILDKIT_SYNTAX"])
def test_a_frontend_that_cannot_be_pulled_is_no_base_image(context: Path, way: str) -> None:
    if way == "BUILDKIT_SYNTAX":
        text = failure(context, buildargs={"BUILDKIT_SYNTAX": "docker/nosuch:1"})
        named = "the build argument BUILDKIT_SYNTAX"
    else:
        text = failure(context, f"{way}docker/nosuch:1\n{FROM}")
        named = "its line `syntax=`"
    assert f"is not a base image but the frontend of the Dockerfile, named by {named}." in text
    assert "base image's name" not in text


@pytest.mark.usefixtures("registry", "engine")
def test_an_image_that_is_no_frontend_is_named(context: Path) -> None:
    text = failure(context, f"# syntax={BUSYBOX}\n{FROM}RUN true\n")
    assert "busybox:latest, the frontend of the Dockerfile named by its line `syntax=`, failed." in text


@pytest.mark.parametrize("length", [71, 64, 12])
@pytest.mark.parametrize("instruction", ["FROM {}", f"{FROM}COPY --from={{}} /bin/sh /x"])
def test_an_image_id_as_base_is_explained_only_if_the_engine_has_it(
    context: Path, engine: Engine, registry: object, length: int, instruction: str
) -> None:
    assert registry
    with docker_client() as client:
        known = str(client.images.pull(BUSYBOX, "latest").id)
    named = known if length > 64 else known[7 : 7 + length]
    said = f"{named} is the ID of an image in the Docker Engine. BuildKit takes names of images, not IDs."
    assert said in failure(context, instruction.format(named))
    unknown = named[:-8] + "".join("0" if digit != "0" else "1" for digit in named[-8:])
    assert "is the ID of an image" not in failure(context, instruction.format(unknown))
    assert engine


PROGRAMS = {
    "panic": (
        "printf 'panic: runtime error: x\\n[signal SIGSEGV]\\n\\ngoroutine 1 [running]:\\nmain.main()\\n' >&2; exit 2",
        "panic: runtime error: x\ndocker or its buildx plugin crashed.",
    ),
    **{
        document: (f"printf '%s' '{document}' > $file; exit 0", "ended with exit code 0, but wrote no metadata")
        for document in (
            "null",
            "[]",
            '{"containerimage.digest": null}',
            '{"containerimage.digest": [1]}',
            '{"containerimage.descriptor": null}',
            '{"containerimage.descriptor": {"mediaType": 5}}',
        )
    },
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_strange_docker_is_a_build_error(
    context: Path, some_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    commands, said = PROGRAMS[program]
    real = shutil.which("docker", path=some_engine.environment["PATH"])
    script = tmp_path / "docker"
    script.write_text(
        "#!/bin/sh\n"
        'for word in "$@"; do case $word in --metadata-file=*) file=${word#*=} ;; esac; done\n'
        f'[ "$file" ] || exec {real} "$@"\n{commands}\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{some_engine.environment['PATH']}")
    assert said in failure(context)


@pytest.mark.usefixtures("some_engine")
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_a_dockerfile_in_utf_16_is_named(context: Path, encoding: str) -> None:
    (context / "Dockerfile").write_bytes(f"{FROM}RUN true\n".encode(encoding))
    with pytest.raises(BuildError, match=r"/Dockerfile is in UTF-16, but BuildKit reads UTF-8\.\nTIP Save it as UTF-8"):
        build_image(context)


@pytest.mark.usefixtures("some_engine")
@pytest.mark.parametrize("name", [".dockerignore", "Dockerfile.dockerignore"])
def test_a_dockerignore_in_utf_16_is_refused(context: Path, name: str) -> None:
    (context / "secret").write_text("")
    (context / name).write_text("secret\n", encoding="utf-16")
    text = failure(context, f"{FROM}COPY . /x/\n")
    assert f"/{name} is in UTF-16" in text
    (context / name).write_text("secret\n", encoding="utf-8-sig")
    assert build_image(context)


@pytest.mark.usefixtures("engine")
def test_a_deleted_current_folder_does_not_matter(
    context: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    try:
        assert build_image(context)
        assert build_image(context, dockerfile="Dockerfile")
    finally:
        os.chdir("/")


@pytest.fixture
def of_the_other(private_docker: PrivateDocker) -> Iterator[docker.DockerClient]:
    """A user's client of the graphdriver engine, while DOCKER_HOST names the containerd engine."""
    client = docker.DockerClient(base_url=private_docker.engines["graphdriver"].host)
    with mock.patch.object(dockerutils, "docker_client", return_value=contextlib.nullcontext(client)):
        yield client
    client.close()


def test_a_client_of_the_user_is_built_in_its_own_engine(
    context: Path, containerd_engine: Engine, of_the_other: docker.DockerClient
) -> None:
    name = f"{PREFIX}/own-client:{uuid4()}"
    image = dockerutils.build_image(context, tag=name)
    assert of_the_other.images.get(name).id == image
    assert containerd_engine.run("docker", "image", "inspect", name, check=False).returncode


@pytest.mark.usefixtures("containerd_engine")
def test_a_client_of_the_user_with_tls_settings_is_refused(context: Path) -> None:
    tls = docker.tls.TLSConfig(verify=False)
    client = docker.DockerClient(base_url="tcp://127.0.0.1:1", version="1.41", tls=tls)
    with mock.patch.object(dockerutils, "docker_client", return_value=contextlib.nullcontext(client)):
        assert "another engine than that of this docker-py client, https://127.0.0.1:1." in failure(context)


def test_a_builder_whose_connection_breaks_is_named(
    context: Path, engine: Engine, far_in_use: RemoteBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert engine
    # Prefect builds again after a "connection reset", which is one of the possible errors. The next connection works.
    monkeypatch.setattr(dockerutils, "_BUILD_MAX_RETRIES", 0, raising=False)
    name = f"{PREFIX}/cut:{uuid4()}"
    stream = io.StringIO()

    def cut() -> None:
        while "RUN sleep" not in stream.getvalue():
            time.sleep(0.05)
        far_in_use.link.cut()

    thread = threading.Thread(target=cut, daemon=True)
    thread.start()
    text = failure(context, f"{FROM}RUN sleep 120 # {uuid4()}\n", tag=name, stream_progress_to=stream)
    thread.join()
    assert "docker info" not in text
    assert f"docker buildx inspect {far_in_use.name}" in text


@pytest.mark.usefixtures("registry", "containerd_engine")
@pytest.mark.parametrize(
    ("cache", "warned"),
    [
        ("type=nosuch,ref=x", "unknown cache importer"),
        ("type=registry,ref=Bad:Ref:x", "invalid reference format"),
        ("type=registry,ref=127.0.0.1:1/x:c", "connection refused"),
    ],
)
def test_a_cache_that_cannot_be_read_is_warned_of(
    context: Path, caplog: pytest.LogCaptureFixture, cache: str, warned: str
) -> None:
    with caplog.at_level(logging.WARNING, logger="prefect_docker_attest"):
        build_image(context, cache_from=[cache])
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith("The image was built without a build cache, which cannot be read: ")
    assert warned in message


@pytest.mark.usefixtures("containerd_engine")
def test_a_cache_that_does_not_exist_yet_is_normal(
    context: Path, registry: Any, caplog: pytest.LogCaptureFixture
) -> None:
    stream = io.StringIO()
    cache = f"type=registry,ref={registry.address}/no-cache-yet:{uuid4()}"
    with caplog.at_level(logging.WARNING, logger="prefect_docker_attest"):
        build_image(context, cache_from=[cache], stream_progress_to=stream)
    lines = stream.getvalue().splitlines()
    (error,) = [number for number, line in enumerate(lines) if " ERROR: failed to configure registry cache" in line]
    assert lines[error + 1].endswith("no cache yet: this is normal for the first build")
    assert caplog.records == []


@pytest.mark.usefixtures("containerd_engine")
@pytest.mark.parametrize("entry", ["type=registry,ref={}", "mode=max,type=registry,ref={}"])
def test_a_cache_under_the_name_of_the_image_is_refused(context: Path, registry: Any, entry: str) -> None:
    name = f"{registry.address}/own-name:v1"
    text = failure(context, tag=name, cache_to=entry.format(name))
    assert f"cache_to writes the cache to {name}, which is the name of the image" in text
