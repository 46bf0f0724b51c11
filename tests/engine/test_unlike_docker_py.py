"""Differences between BuildKit and the classic builder, as docs/builder-differences.md lists them."""

from __future__ import annotations

import http.server
import io
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from docker.errors import ImageNotFound
from prefect.utilities.dockerutils import docker_client

from support.both_builders import Built, Failed, build, differences
from support.names import BUSYBOX, CONTEXTS, PREFIX

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from engines.private import Engine, Registry

COPY_ALL = "FROM scratch\nCOPY . /\n"

# The results of the classic builder and of this package.
UNLIKE = {
    "/copied": ("file 0755", "file 4755"),
    "/owned": ("folder 0755 0:0", "folder 0755 5:7"),
    "/seen/set": ("'environment\\n'", "'argument\\n'"),
    "/seen/here-document": ("''", "'text\\n'"),
    "/seen/hostname": ("'id\\n'", "'buildkitsandbox\\n'"),
    "/seen/hostname-is-a-variable": ("'1\\n'", "'0\\n'"),
    "/seen/hosts": ("'7\\n'", "'2\\n'"),
    "/seen/platform": ("'\\n'", "'linux/amd64\\n'"),
    "/seen/proxies": ("'HTTPS_PROXY=x\\n'", "'HTTPS_PROXY=x\\nhttps_proxy=x\\n'"),
    "/volume/written": ("None", "file 0644 0:0"),
    "/place": ("folder 0755 0:0", "folder 0755 1000:1000"),
    "/place/folder": ("folder 0755 0:0", "folder 0755 1000:1000"),
    # The classic builder drops the files that a step writes to a volume, and then the whole step.
    "layers": ("8", "9"),
}


def written(folder: Path, files: Mapping[str, str]) -> str:
    for name, text in {"Dockerfile": COPY_ALL, **files}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return str(folder)


def both(path: str, **options: object) -> tuple[Built, Built]:
    return build(switched_on=False, path=path, **options), build(switched_on=True, path=path, **options)


@pytest.mark.usefixtures("engine", "amd64")
def test_instructions_that_behave_differently(tmp_path: Path) -> None:
    shutil.copy(CONTEXTS / "unlike/Dockerfile", tmp_path)
    (tmp_path / "runs-as-owner").touch()
    (tmp_path / "runs-as-owner").chmod(0o4755)
    with tarfile.open(tmp_path / "archive.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("x"))

    found = differences(*both(str(tmp_path), buildargs={"HTTPS_PROXY": "x"}))
    found.pop("/owned/x", None)  # since 0.13.2 or later, BuildKit also changes the owner of the archive's files
    assert found.keys() == UNLIKE.keys()
    for name, seen in found.items():
        assert [words in str(each) for words, each in zip(UNLIKE[name], seen, strict=True)] == [True, True], (
            name,
            seen,
        )


@pytest.mark.usefixtures("engine")
def test_dockerignore_patterns_that_match_differently(tmp_path: Path) -> None:
    patterns = ("mark", "[^a].txt", "**.md", "**/deep", "!**/kept", "\\#hash", "../up", "docker")
    names = ("mark", "a.txt", "b.txt", "docs/x.md", "src/deep/kept", "#hash", "up")
    files = {**dict.fromkeys(names, ""), ".dockerignore": "\ufeff" + "\n".join(patterns), "docker/file": COPY_ALL}
    found = differences(*both(written(tmp_path, files), dockerfile="docker/file"))
    in_classic = {name for name, (_, ours) in found.items() if ours is None}
    in_ours = {name for name, (classic, _) in found.items() if classic is None}
    assert in_classic == {"/mark", "/b.txt", "/docs/x.md", "/#hash", "/docker"}
    assert in_ours == {"/a.txt", "/src/deep", "/src/deep/kept", "/up"}


@pytest.mark.usefixtures("some_engine")
def test_a_dockerfile_can_have_its_own_dockerignore(tmp_path: Path) -> None:
    files = {"a": "", "b": "", ".dockerignore": "a\n", "Dockerfile.dockerignore": "b\n"}
    found = differences(*both(written(tmp_path, files)))
    assert {name: ours is None for name, (_, ours) in found.items()} == {"/a": False, "/b": True}


@pytest.mark.usefixtures("some_engine")
def test_the_dockerignore_is_copied_unchanged(tmp_path: Path) -> None:
    path = written(tmp_path, {"context/.dockerignore": "x\n"})
    found = differences(*both(f"{path}/context", dockerfile="../Dockerfile"))
    classic, ours = found.pop("/.dockerignore")
    assert ".dockerfile." in classic
    assert "'x\\n'" in ours
    assert not found


@pytest.mark.usefixtures("some_engine")
def test_a_socket_is_an_empty_file(tmp_path: Path) -> None:
    path = written(tmp_path, {})
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(f"{path}/socket")
        found = differences(*both(path))
    assert found.keys() == {"/socket"}
    assert "''" in found["/socket"][1]


BUILDS_HERE_ALONE = {
    "a stage that nothing needs fails": (f"FROM {BUSYBOX} AS needless\nRUN false\nFROM scratch\nLABEL x=1\n", ""),
    "a pattern matches nothing": ("FROM scratch\nCOPY nothing* /\n", ""),
    "a path leads out of the context": ("FROM scratch\nCOPY ../a /x\n", "content of a"),
    "two files have one destination": ("FROM scratch\nCOPY a b /x\n", "content of b"),
}
FAILS_HERE_ALONE = {
    "a frontend that cannot be had": {"Dockerfile": f"# syntax=127.0.0.1:1/frontend\n{COPY_ALL}"},
    "a lone exclamation mark": {".dockerignore": "!\n"},
}


@pytest.mark.usefixtures("some_engine")
@pytest.mark.parametrize("name", BUILDS_HERE_ALONE)
def test_dockerfiles_that_only_buildkit_can_build(name: str, tmp_path: Path) -> None:
    dockerfile, expected = BUILDS_HERE_ALONE[name]
    path = written(tmp_path, {"Dockerfile": dockerfile, "a": "content of a", "b": "content of b"})
    with pytest.raises(Failed):
        build(switched_on=False, path=path)
    assert expected in build(switched_on=True, path=path).files.get("/x", "")


@pytest.mark.usefixtures("some_engine")
@pytest.mark.parametrize("name", FAILS_HERE_ALONE)
def test_dockerfiles_that_only_the_classic_builder_can_build(name: str, tmp_path: Path) -> None:
    path = written(tmp_path, FAILS_HERE_ALONE[name])
    assert build(switched_on=False, path=path)
    with pytest.raises(Failed):
        build(switched_on=True, path=path)


@pytest.mark.usefixtures("engine")
def test_a_base_image_is_not_pulled_into_the_engine(registry: Registry) -> None:
    name = f"{registry.address}/library/busybox"
    with docker_client() as client:
        build(switched_on=True, fileobj=io.BytesIO(f"FROM {name}\n".encode()))
        with pytest.raises(ImageNotFound):
            client.images.get(name)
        build(switched_on=False, fileobj=io.BytesIO(f"FROM {name}\n".encode()))
        client.images.remove(name)


@pytest.mark.usefixtures("amd64")
def test_a_local_base_image_for_another_platform_is_not_used(graphdriver_engine: Engine, registry: Registry) -> None:
    # The containerd image store keeps both.
    name = f"{registry.address}/library/busybox"
    graphdriver_engine.run("docker", "pull", "--quiet", "--platform=linux/arm64", name)
    try:
        dockerfile = f"FROM {name}\n".encode()
        classic, ours = (
            build(switched_on=switched_on, fileobj=io.BytesIO(dockerfile)) for switched_on in (False, True)
        )
    finally:
        graphdriver_engine.run("docker", "image", "rm", name)
    assert (classic.config["Architecture"], ours.config["Architecture"]) == ("arm64", "amd64")


@pytest.mark.parametrize("switched_on", [False, True])
def test_a_rebuilt_tag_deletes_the_previous_image_of_the_containerd_store(
    containerd_engine: Engine, switched_on: bool
) -> None:
    tag = f"{PREFIX}/rebuilt:v1"
    first, second = (
        build(switched_on=switched_on, fileobj=io.BytesIO(f"FROM {BUSYBOX}\nLABEL x={uuid4()}\n".encode()), tag=tag)
        for _ in range(2)
    )
    kept = [containerd_engine.run("docker", "inspect", each.image, check=False).returncode for each in (first, second)]
    assert kept == [int(switched_on), 0]


@pytest.mark.usefixtures("some_engine", "engine_is_here")
def test_a_url_without_a_file_name_makes_another_file(tmp_path: Path) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        path = written(
            tmp_path, {"Dockerfile": f"FROM scratch\nADD http://127.0.0.1:{server.server_address[1]}/ /x/\n"}
        )
        with pytest.raises(Failed, match="cannot determine filename"):
            build(switched_on=False, path=path)
        files = build(switched_on=True, path=path).files
        server.shutdown()
    assert "/x/__unnamed__" in files


@pytest.mark.usefixtures("some_engine")
def test_standard_error_of_a_step_has_no_colour() -> None:
    dockerfile = f"FROM {BUSYBOX}\nRUN echo warning >&2\n".encode()
    classic, ours = (
        "".join(event.get("stream", "") for event in build(switched_on=on, fileobj=io.BytesIO(dockerfile)).events)
        for on in (False, True)
    )
    assert "\x1b[91mwarning" in classic
    assert "\x1b" not in ours


@pytest.mark.usefixtures("some_engine")
def test_a_function_in_the_place_of_process_dockerfile_has_no_effect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, {"Dockerfile": "FROM scratch\nLABEL x=1\n"})
    replacement = ("Dockerfile.other", "FROM scratch\nLABEL x=2\n")
    monkeypatch.setattr("docker.api.build.process_dockerfile", lambda *_: replacement)
    assert differences(*both(path))["Labels"] == ({"x": "2"}, {"x": "1"})


BUILDS = """
import os, sys
from prefect.settings import PREFECT_DOCKER_DISABLE_ATTESTATIONS, temporary_settings
from prefect.utilities.dockerutils import build_image
os.chmod("closed", 0)
os.chmod("ignored", 0)
for switched_on in False, True:
    try:
        with temporary_settings({PREFECT_DOCKER_DISABLE_ATTESTATIONS: switched_on}):
            print(build_image(".", stream_progress_to=sys.stderr))
    except Exception as error:
        print(error)
"""


@pytest.mark.usefixtures("some_engine")
def test_a_file_that_cannot_be_read_becomes_an_empty_file_with_a_warning(tmp_path: Path) -> None:
    dockerfile = "FROM scratch\nCOPY closed /\n"
    path = written(tmp_path, {"Dockerfile": dockerfile, "closed": "text", "ignored": "", ".dockerignore": "ignored"})
    # root can read all files, unless it lacks these capabilities.
    lacking = "-dac_override,-dac_read_search"
    limited = [] if os.geteuid() else ["setpriv", f"--bounding-set={lacking}", f"--inh-caps={lacking}"]
    done = subprocess.run(
        [*limited, sys.executable, "-c", BUILDS], cwd=path, capture_output=True, text=True, check=True
    )
    classic, image = done.stdout.splitlines()
    assert classic.startswith("Can not read file in context: ")
    warning = "WARNING: You cannot read 'closed' in the build context"
    assert [line for line in done.stderr.splitlines() if line.startswith(warning)]
    with docker_client() as client:
        container = client.api.create_container(image, command=["nothing"])["Id"]
        _, file = client.api.get_archive(container, "/closed")
        client.api.remove_container(container)
    assert file["size"] == 0
