"""Builds at the same time, long output and large contexts: correct, in order, and with little memory."""

from __future__ import annotations

import contextvars
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from docker.errors import APIError, NotFound
from prefect.utilities.dockerutils import BuildError, build_image, docker_client

from support.names import BUSYBOX, PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from engines.private import Engine

pytestmark = pytest.mark.usefixtures("switched_on")


def content_of(client: Any, image_id: str, path: str) -> bytes:
    """Return a file of an image without running a container."""
    container = client.api.create_container(image_id)["Id"]
    try:
        archive = io.BytesIO(b"".join(client.api.get_archive(container, path)[0]))
    finally:
        client.api.remove_container(container, v=True)
    with tarfile.open(fileobj=archive) as tar:
        file = tar.extractfile(os.path.basename(path))
        assert file
        return file.read()


@pytest.mark.usefixtures("engine")
def test_32_builds_at_once_each_have_their_own_image(tmp_path: Path) -> None:
    all_ready = threading.Barrier(32)

    def build(number: int) -> str:
        context = tmp_path / str(number)
        context.mkdir()
        (context / "own").write_text(f"content {number}")
        (context / "Dockerfile").write_text(f"FROM {BUSYBOX}\nARG NUMBER\nCOPY own /own\nLABEL number=$NUMBER\n")
        stream = io.StringIO()
        all_ready.wait(60)
        image_id = build_image(
            context, tag=f"{PREFIX}/at-once:{number}", buildargs={"NUMBER": str(number)}, stream_progress_to=stream
        )
        assert f"\nSuccessfully tagged {PREFIX}/at-once:{number}\nBuilt by docker buildx with" in stream.getvalue()
        return image_id

    with ThreadPoolExecutor(32) as threads:
        # The setting is in the context of this thread.
        futures = [threads.submit(contextvars.copy_context().run, build, number) for number in range(32)]
        images = [future.result() for future in futures]

    assert len(set(images)) == 32
    with docker_client() as client:
        for number, image_id in enumerate(images):
            image = client.images.get(f"{PREFIX}/at-once:{number}")
            assert image.id == image_id
            assert image.labels["number"] == str(number)
            assert content_of(client, image_id, "/own") == f"content {number}".encode()


@pytest.mark.usefixtures("engine")
def test_8_builds_of_one_tag_return_their_own_image_or_report_the_tag_conflict(tmp_path: Path) -> None:
    all_ready = threading.Barrier(8)

    def build(number: int) -> str:
        context = tmp_path / str(number)
        context.mkdir()
        (context / "own").write_text(f"content {number}")
        (context / "Dockerfile").write_text(f"FROM {BUSYBOX}\nCOPY own /own\n")
        all_ready.wait(60)
        try:
            image_id = build_image(context, tag=f"{PREFIX}/one-tag:of-all", stream_progress_to=io.StringIO())
        except BuildError as error:
            return str(error)
        with docker_client() as client:
            try:
                assert content_of(client, image_id, "/own") == f"content {number}".encode()
            except APIError as error:  # the image, or a container's image, is gone, or is being removed
                if not isinstance(error, NotFound):
                    with pytest.raises(NotFound):
                        client.images.get(image_id)
                return "another build used the tag after this one"
        return image_id

    with ThreadPoolExecutor(8) as threads:
        # The setting is in the context of this thread.
        futures = [threads.submit(contextvars.copy_context().run, build, number) for number in range(8)]
        outcomes = [future.result() for future in futures]

    with docker_client() as client:
        assert client.images.get(f"{PREFIX}/one-tag:of-all").id in outcomes
    errors = [outcome for outcome in outcomes if not outcome.startswith("sha256:")]
    assert all(re.search("nother build used the (same )?tag", error) for error in errors), errors


# A deployment script whose stream only counts and measures its input.
MEASURED = """
import json, re, sys, time
from pathlib import Path
from prefect.utilities.dockerutils import build_image

def memory(name):
    return int(re.search(name + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

class Figures:
    def __init__(self):
        self.next = self.lines = self.longest = self.run = 0
        self.in_order, self.times, self.said = True, {}, []
        self.on_this_line = 0

    def write(self, text):
        self.on_this_line += text.count("x")
        self.longest = max(self.longest, self.on_this_line)
        if text.endswith("\\n"):
            self.on_this_line = 0
        number = re.fullmatch(r"#\\d+ \\d+\\.\\d+ (\\d+)\\n", text)
        if number:
            self.lines += 1
            # Each step counts from 1.
            self.in_order &= int(number[1]) in (self.next, 1)
            self.next = int(number[1]) + 1
        said = re.fullmatch(r"#\\d+ \\d+\\.\\d+ said: (.*)\\n", text, re.DOTALL)
        if said:
            self.said.append(said[1])
            self.times[said[1]] = time.monotonic()

    def flush(self):
        pass

build_image(Path(sys.argv[1]), dockerfile="Dockerfile.warm", stream_progress_to=Figures())
figures = Figures()
Path("/proc/self/clear_refs").write_text("5")  # begins a new peak
before = memory("VmRSS")
build_image(Path(sys.argv[1]), stream_progress_to=figures)
print(json.dumps({**vars(figures), "grown": memory("VmHWM") - before}))
"""


def figures_of(context: Path, dockerfile: str) -> dict[str, Any]:
    (context / "Dockerfile.warm").write_text(f"FROM {BUSYBOX}\n")
    (context / "Dockerfile").write_text(dockerfile)
    environment = {**os.environ, "PREFECT_DOCKER_DISABLE_ATTESTATIONS": "1"}
    command = [sys.executable, "-c", MEASURED, str(context)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    figures: dict[str, Any] = json.loads(done.stdout)
    assert figures["grown"] < 10_000_000
    return figures


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc of Linux")
@pytest.mark.usefixtures("some_engine")
def test_200_000_lines_come_in_order_and_in_little_memory(tmp_path: Path) -> None:
    # There are ten steps, because BuildKit shows at most 200 KiB a second and 2 MiB in total for one.
    steps = "".join(f"RUN : {uuid4()} && seq 20000\n" for _ in range(10))
    figures = figures_of(tmp_path, f"FROM {BUSYBOX}\n{steps}")
    assert figures["lines"] == 200_000
    assert figures["in_order"]


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc of Linux")
@pytest.mark.usefixtures("some_engine")
def test_a_line_of_1_mb_comes_whole_and_others_while_the_build_runs(tmp_path: Path) -> None:
    long_line = "for part in 1 2 3 4 5 6; do head -c 175000 /dev/zero | tr '\\0' x; sleep 1.1; done; echo"
    others = r"printf 'said: 10%%\r20%%\nsaid: not \377\376 UTF-8\nsaid: end\r\n'"
    figures = figures_of(tmp_path, f"FROM {BUSYBOX}\nRUN : {uuid4()}; echo 'said: begin'; {long_line}; {others}\n")
    assert figures["longest"] == 1_050_000
    assert figures["said"] == ["begin", "10%\r20%", "not \ufffd\ufffd UTF-8", "end\r"]
    # The step sleeps between its lines. If lines were buffered, they would arrive together.
    assert figures["times"]["end\r"] - figures["times"]["begin"] > 5


@pytest.mark.usefixtures("some_engine")
def test_output_that_buildkit_clips_is_marked(tmp_path: Path) -> None:
    stream = io.StringIO()
    (tmp_path / "Dockerfile").write_text(f"FROM {BUSYBOX}\nRUN : {uuid4()}; seq 300000; sleep 1; echo the end > /end\n")
    image_id = build_image(tmp_path, stream_progress_to=stream)
    assert "[output clipped, log limit 200KiB/s reached]" in stream.getvalue()
    with docker_client() as client:
        assert content_of(client, image_id, "/end") == b"the end\n"


@pytest.mark.usefixtures("some_engine")
def test_a_context_of_20_000_files(tmp_path: Path) -> None:
    files: dict[str, str] = {}
    for folder in range(100):
        (tmp_path / f"folder {folder}").mkdir()
        for number in range(200):
            name = f"folder {folder}/{number}"
            files[name] = f"content of {name}\n"
            (tmp_path / name).write_text(files[name])
    count = "cd /context && find folder* -type f | sort | tr '\\n' '\\0' | xargs -0 cat | sha256sum > /sum"
    (tmp_path / "Dockerfile").write_text(f"FROM {BUSYBOX}\nRUN --mount=type=bind,target=/context {count}\n")
    image_id = build_image(tmp_path)
    expected = hashlib.sha256("".join(files[name] for name in sorted(files)).encode()).hexdigest()
    with docker_client() as client:
        assert content_of(client, image_id, "/sum").split()[0].decode() == expected


def test_a_context_of_1_gb(some_engine: Engine, forget: Callable[[Engine], None], tmp_path: Path) -> None:
    block, expected = os.urandom(1024 * 1024), hashlib.md5(usedforsecurity=False)
    for number in range(4):
        with (tmp_path / f"part{number}").open("wb") as file:
            for _ in range(256):
                file.write(block)
                expected.update(block)
    # The files are mounted instead of copied, so that only the context is large, not the image.
    command = "RUN --mount=type=bind,target=/context cat /context/part* | md5sum > /sum"
    (tmp_path / "Dockerfile").write_text(f"FROM {BUSYBOX}\n{command}\n")
    try:
        image_id = build_image(tmp_path)
    finally:
        for part in tmp_path.glob("part*"):
            part.unlink()
    with docker_client() as client:
        assert content_of(client, image_id, "/sum").split()[0].decode() == expected.hexdigest()
    forget(some_engine)
