"""What the command makes of what it was told: pure functions, without Docker."""

from __future__ import annotations

import gzip
import hashlib
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from prefect_docker_attest import doctor_engine, doctor_python, layers, manifest
from prefect_docker_attest.doctor import gather
from prefect_docker_attest.inspection import Image, ImageError, Inspection, republishing
from prefect_docker_attest.registry import Reference

if TYPE_CHECKING:
    from pathlib import Path

DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("busybox", ("busybox", "docker.io", "library/busybox", "latest", None)),
        ("busybox:1.36", ("busybox", "docker.io", "library/busybox", "1.36", None)),
        ("prefecthq/prefect", ("prefecthq/prefect", "docker.io", "prefecthq/prefect", "latest", None)),
        ("docker.io/busybox", ("docker.io/busybox", "docker.io", "library/busybox", "latest", None)),
        ("ghcr.io/a/b/c:v1", ("ghcr.io/a/b/c", "ghcr.io", "a/b/c", "v1", None)),
        ("localhost/app", ("localhost/app", "localhost", "app", "latest", None)),
        ("registry:5000/app", ("registry:5000/app", "registry:5000", "app", "latest", None)),
        ("[::1]:5000/app", ("[::1]:5000/app", "[::1]:5000", "app", "latest", None)),
        (f"a/b@{DIGEST}", ("a/b", "docker.io", "a/b", None, DIGEST)),
        (f"127.0.0.1:5000/a:v1@{DIGEST}", ("127.0.0.1:5000/a", "127.0.0.1:5000", "a", "v1", DIGEST)),
    ],
)
def test_the_parts_of_a_name(text: str, parts: tuple[str | None, ...]) -> None:
    assert Reference.parse(text) == Reference(*parts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text", ["", ":", "@", "UPPER", "https://ghcr.io/a", "../a", "a//b:", "host:x/a", "a@sha256:1", "-a"]
)
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(ImageError, match="is not an image's name"):
        Reference.parse(text)


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


TAR = os.urandom(3 * layers.PIECE)


@pytest.mark.parametrize(
    "blob",
    [TAR, gzip.compress(TAR, 1), gzip.compress(TAR[:100]) + gzip.compress(TAR[100:], 0)],
    ids=["plain", "gzip", "two gzip members, as of eStargz"],
)
@pytest.mark.parametrize("size", [4, 1000, 1 << 30])
def test_the_diff_id_of_a_layer(blob: bytes, size: int) -> None:
    pieces = [blob[start : start + size] for start in range(0, min(len(blob), size * 2000), size)]
    pieces.append(blob[size * 2000 :])

    assert layers.diff_id(pieces, _digest(blob)) == _digest(TAR)


@pytest.mark.parametrize(
    ("blob", "digest"),
    [
        (gzip.compress(TAR)[:-5000], None),
        (gzip.compress(TAR)[:-8] + b"12345678", None),
        (gzip.compress(TAR) + b"rubbish", None),
        (b"\x1f\x8b\x08\x00" + b"x" * 100, None),
        (TAR, DIGEST),
    ],
    ids=["cut off", "wrong checksum", "more than gzip", "no gzip", "another digest"],
)
def test_a_damaged_layer(blob: bytes, digest: str | None) -> None:
    with pytest.raises(layers.LayerDamaged):
        layers.diff_id([blob], digest or _digest(blob))


def test_a_layer_in_zstd_cannot_be_verified() -> None:
    with pytest.raises(layers.LayerUnverifiable, match="zstd"):
        layers.diff_id([b"\x28\xb5\x2f\xfd" + b"x" * 100], DIGEST)


def test_names_of_predicates_and_platforms() -> None:
    types = [
        "https://slsa.dev/provenance/v1",
        "https://spdx.dev/Document",
        "https://cyclonedx.org/bom",
        "https://x.org/y",
    ]
    assert [manifest.predicate_kind(one) for one in types] == ["provenance", "SBOM", "SBOM", "https://x.org/y"]
    assert manifest.platform_name({"os": "linux", "architecture": "arm64", "variant": "v8"}) == "linux/arm64/v8"
    assert manifest.platform_name({"os": "linux"}) is None
    assert manifest.platform_name(None) is None


def _inspection(*platforms: str) -> Inspection:
    images = [Image(f"sha256:{name}", "", f"linux/{name}", 0, (), "unchecked", "") for name in platforms]
    return Inspection("", "", "", "", tuple(images), (), (), "unchecked")


def test_the_command_that_publishes_again() -> None:
    one, two = _inspection("amd64"), _inspection("amd64", "arm64")
    create = "docker buildx imagetools create"

    assert republishing(one, "r/a", "v1", prefer_index_flag=True) == (
        f"{create} --prefer-index=false --tag=r/a:v1 r/a@sha256:amd64"
    )
    assert republishing(one, "r/a", "v1", prefer_index_flag=False) == (
        "docker pull r/a@sha256:amd64 && docker tag r/a@sha256:amd64 r/a:v1 && docker push r/a:v1"
    )
    for flag in (True, False):
        assert republishing(two, "r/a", "v1", prefer_index_flag=flag) == (
            f"{create} --tag=r/a:v1 r/a@sha256:amd64 r/a@sha256:arm64"
        )


@pytest.mark.parametrize(
    ("lines", "interpreter"),
    [
        ("#!{python}\nimport prefect\n", sys.executable),
        ("#!{python} -sE\r\n", sys.executable),
        ("#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\"\n' '''\n", sys.executable),
        ("#!/usr/bin/env bash\nexec pyenv exec prefect\n", None),
        ("#!/bin/sh\nexec something else\n", None),
        ("MZ\x00\x00", None),
        ("", None),
    ],
)
def test_the_interpreter_of_a_console_script(tmp_path: Path, lines: str, interpreter: str | None) -> None:
    script = tmp_path / "prefect"
    script.write_bytes(lines.replace("{python}", sys.executable).encode())

    assert doctor_python.interpreter_of(str(script)) == interpreter


INSPECT = """Name:          {name}
Driver:        {driver}

Nodes:
Name:      node0
Status:    {status}
Platforms: linux/amd64*, linux/amd64/v2, linux/386{more}
"""
ENGINE = {"ID": "one", "Os": "linux", "Arch": "amd64", "Name": "here", "ServerVersion": "28.5.2", "Driver": "overlayfs"}
DOWN = RuntimeError("Cannot connect")
HEALTHY: dict[str, Any] = {
    "cli": "Docker version 28.5.2, build ecc6942",
    "buildx": "github.com/docker/buildx v0.29.1 abcdef",
    "cli engine": "one",
    "build engine": "one",
    "builder": INSPECT.format(name="default", driver="docker", status="running", more=", linux/arm64"),
    "engine": ENGINE,
}


@pytest.mark.parametrize(
    ("changes", "name", "status", "seen"),
    [
        ({}, "docker CLI", "ok", "28.5.2"),
        ({}, "buildx", "ok", "0.29.1"),
        ({}, "emulation", "ok", "RUN steps work for linux/amd64 and linux/arm64"),
        ({"cli": "podman version 5.4.2"}, "docker CLI", "problem", "it is Podman's"),
        ({"cli": "Docker version 20.10.24+dfsg1, build 297e128"}, "docker CLI", "warning", "20.10.24+dfsg1 is older"),
        ({"buildx": "github.com/docker/buildx v0.9.1 x"}, "buildx", "problem", "0.9.1 is too old, 0.10.2 is needed"),
        ({"engine": DOWN, "cli engine": DOWN}, "engine", "problem", "Cannot connect"),
        ({"engine": DOWN, "cli engine": DOWN}, "cross-platform", "skipped", "see builder"),
        ({"engine": {**ENGINE, "Components": [{"Name": "Podman Engine"}]}}, "engine", "problem", "Podman"),
        ({"cli engine": "two"}, "same engine", "warning", "Prefect's images are in docker-py's"),
        ({"cli engine": "two", "build engine": "two"}, "same engine", "problem", "cannot push"),
        ({"cli engine": DOWN, "build engine": DOWN}, "same engine", "problem", "Cannot connect"),
        ({"builder": DOWN}, "builder", "problem", "Cannot connect"),
        (
            {"builder": INSPECT.format(name="far", driver="remote", status="inactive", more="")},
            *("builder", "warning", "far, driver remote, not started"),
        ),
        (
            {"builder": INSPECT.format(name="far", driver="remote", status="running\nError:     no route", more="")},
            *("builder", "problem", "far, driver remote: no route"),
        ),
        (
            {"builder": INSPECT.format(name="default", driver="docker", status="running", more="")},
            *("emulation", "warning", "RUN steps work for linux/amd64 alone"),
        ),
    ],
)
def test_findings_about_docker(changes: dict[str, Any], name: str, status: str, seen: str) -> None:
    found = doctor_engine.findings({**HEALTHY, **changes}, disabled=True)[name]

    assert (found[0], seen in found[1]) == (status, True), found
    assert bool(found[2]) is (status in ("problem", "warning"))


def test_questions_are_asked_at_once_and_not_waited_for() -> None:
    def never() -> None:
        threading.Event().wait()

    answers = gather({"one": lambda: 1, "bad": lambda: 1 / 0, "never": never}, seconds=0.2)

    assert answers["one"] == 1
    assert [type(answers[name]) for name in ("bad", "never")] == [ZeroDivisionError, TimeoutError]


def test_importing_the_package_imports_nothing_of_the_command() -> None:
    script = "import sys, prefect_docker_attest as p; print(*(n for n in sys.modules if n.startswith(p.__name__)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert set(done.stdout.split()) == {"prefect_docker_attest", "prefect_docker_attest.startup"}
