"""The functions of the command that do not need Docker."""

from __future__ import annotations

import gzip
import hashlib
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import requests
from urllib3.exceptions import ProtocolError

from prefect_docker_attest.doctor.activation import interpreter_of
from prefect_docker_attest.doctor.check import Finding
from prefect_docker_attest.doctor.checkup import exit_code
from prefect_docker_attest.doctor.docker_commands import CommandError
from prefect_docker_attest.doctor.other_sources import right_name
from prefect_docker_attest.doctor.prefect_facts import PrefectFacts
from prefect_docker_attest.doctor.setting_files import UnreadableError
from prefect_docker_attest.images import manifest
from prefect_docker_attest.images.documents import ImageError
from prefect_docker_attest.images.inspections import republishing
from prefect_docker_attest.images.layer_files import Budget
from prefect_docker_attest.images.layers import LayerReading, read_layer
from prefect_docker_attest.images.programs import MEMORY
from prefect_docker_attest.images.reference import Reference
from prefect_docker_attest.names import SETTING
from support.doctor_answers import ENGINE, INSPECT, Late, findings
from support.mutations import SKIPPABLE, zstd_file
from support.raw_tar import END, entry

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
        ("Registry.example.com/app", ("Registry.example.com/app", "Registry.example.com", "app", "latest", None)),
        ("[::1]:5000/app", ("[::1]:5000/app", "[::1]:5000", "app", "latest", None)),
        (f"a/b@{DIGEST}", ("a/b", "docker.io", "a/b", None, DIGEST)),
        (f"127.0.0.1:5000/a:v1@{DIGEST}", ("127.0.0.1:5000/a", "127.0.0.1:5000", "a", "v1", DIGEST)),
    ],
)
def test_the_parts_of_a_name(text: str, parts: tuple[str | None, ...]) -> None:
    assert Reference.parse(text) == Reference(*parts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "@",
        "UPPER",
        "https://ghcr.io/a",
        "../a",
        "a//b:",
        "host:x/a",
        "a@sha256:1",
        "-a",
        "a:",
        "a:v1\n",
        "/a",
        "[::1/a",
    ],
)
def test_an_invalid_reference_is_rejected(text: str) -> None:
    with pytest.raises(ImageError, match="is not a valid image name"):
        Reference.parse(text)


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _read(blob: bytes, digest: str | None = None) -> LayerReading:
    return read_layer([blob], digest or _digest(blob), len(blob), Budget(MEMORY))


TAR = entry("x", os.urandom(1 << 20)) + END


@pytest.mark.parametrize(
    "blob",
    [TAR, gzip.compress(TAR, 1), gzip.compress(TAR[:100]) + gzip.compress(TAR[100:], 0)],
    ids=["plain", "gzip", "two gzip members, as of eStargz"],
)
@pytest.mark.parametrize("size", [1, 1000, 1 << 30])
def test_the_diff_id_of_a_layer(blob: bytes, size: int) -> None:
    pieces = [blob[start : start + size] for start in range(0, min(len(blob), size * 2000), size)]
    pieces.append(blob[size * 2000 :])

    reading = read_layer(pieces, _digest(blob), len(blob), Budget(MEMORY))
    assert (reading.state, reading.diff_id, reading.size) == ("sound", _digest(TAR), len(blob))


@pytest.mark.parametrize(
    ("blob", "digest"),
    [
        (gzip.compress(TAR)[:-5000], None),
        (gzip.compress(TAR)[:-8] + b"12345678", None),
        (b"\x1f\x8b\x08\x00" + b"x" * 100, None),
        (TAR, DIGEST),
    ],
    ids=["cut off", "wrong checksum", "no gzip", "another digest"],
)
def test_a_damaged_layer(blob: bytes, digest: str | None) -> None:
    assert _read(blob, digest).state == "corrupt"


@pytest.mark.parametrize(
    "blob",
    [
        zstd_file(TAR),
        zstd_file(TAR[:1000]) + zstd_file(TAR[1000:]),
        zstd_file(TAR) + SKIPPABLE,
        SKIPPABLE + zstd_file(TAR),
        zstd_file(TAR, window_log=26),
    ],
    ids=["one frame", "two frames", "something at the end", "something in front", "the largest window"],
)
def test_the_diff_id_of_a_layer_in_zstd(blob: bytes) -> None:
    reading = _read(blob)
    assert (reading.state, reading.diff_id) == ("sound", _digest(TAR))


def test_a_damaged_layer_in_zstd() -> None:
    blob = zstd_file(TAR, checksum_flag=1)
    reading = _read(blob[:5000] + b"damaged" + blob[5007:])
    assert (reading.state, reading.detail.partition(" (")[0]) == ("corrupt", "it cannot be decompressed")


@pytest.mark.parametrize(
    ("blob", "detail"),
    [
        (zstd_file(TAR, window_log=27), "its zstd window is larger than 64 MiB"),
        (gzip.compress(TAR) + b"rubbish", "bytes follow its gzip data"),
    ],
    ids=["a large window", "something at the end"],
)
def test_a_layer_that_cannot_be_verified(blob: bytes, detail: str) -> None:
    reading = _read(blob)
    assert (reading.state, reading.detail.partition(":")[0]) == ("unverifiable", detail)


def test_names_of_predicates() -> None:
    types = [
        "https://slsa.dev/provenance/v1",
        "https://spdx.dev/Document",
        "https://cyclonedx.org/bom",
        "https://x.org/y",
    ]
    assert [manifest.predicate_kind(one) for one in types] == ["provenance", "SBOM", "SBOM", "https://x.org/y"]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("r/a", "r/a"),
        ("r/a:v1", "r/a:v1"),
        (f"r/a@sha256:{'0' * 64}", f"--tag TAG r/a@sha256:{'0' * 64}"),
        (f"r/a:v1@sha256:{'0' * 64}", f"--tag v1 r/a:v1@sha256:{'0' * 64}"),
    ],
)
def test_the_command_that_publishes_again(name: str, arguments: str) -> None:
    assert republishing(Reference.parse(name), name) == f"prefect-docker-attest strip {arguments}"


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

    assert interpreter_of(str(script)) == interpreter


DOWN = CommandError("Cannot connect")
PODMAN = {**ENGINE, "Components": [{"Name": "Podman Engine", "Version": "5.4.2"}]}
FAR = INSPECT.format(name="far", driver="remote", status="running", more="")
# buildx would start a BuildKit in a container of Podman.
SUBSTITUTE = INSPECT.format(name="default", driver="docker-container", status="inactive\nEndpoint:  default", more="")
OFF = PrefectFacts(settings={"disable_attestations": False}, sources={"disable_attestations": "default"})
CONTAINERD = [["driver-type", "io.containerd.snapshotter.v1"]]


@pytest.mark.parametrize(
    ("changes", "name", "status", "seen"),
    [
        ({}, "docker CLI", "ok", "28.5.2"),
        ({}, "buildx", "ok", "0.29.1"),
        ({}, "emulation", "ok", "RUN steps work for linux/amd64 and linux/arm64"),
        ({"cli": "podman version 5.4.2"}, "docker CLI", "problem", "`docker` is Podman's command"),
        (
            {"cli": "Docker version 20.10.24+dfsg1, build 297e128"},
            "docker CLI",
            "warning",
            "20.10.24+dfsg1 is older than the oldest",
        ),
        ({"buildx": "hello"}, "buildx", "problem", "prints no version, but 'hello'"),
        ({"builder": "hello"}, "builder", "problem", "prints no builder and driver, but 'hello'"),
        (
            {"buildx": "github.com/docker/buildx v0.9.1 x"},
            "buildx",
            "problem",
            "0.9.1 is too old: 0.10.2 or newer is needed",
        ),
        ({"engine": DOWN, "cli_engine": DOWN}, "engine", "problem", "Cannot connect"),
        ({"engine": DOWN, "cli_engine": DOWN}, "cross-platform", "skipped", "see engine"),
        ({"engine": PODMAN, "builder": FAR}, "engine", "ok", "Podman 5.4.2, linux/amd64, here"),
        (
            {"engine": PODMAN, "cli": "podman version 5.4.2"},
            "docker CLI",
            "ok",
            "Podman's own builder does not need it",
        ),
        ({"engine": PODMAN, "cli": DOWN}, "docker CLI", "ok", "does not need it: Cannot connect"),
        ({"engine": PODMAN, "cli": DOWN, "builder": FAR}, "docker CLI", "problem", "Cannot connect"),
        ({"engine": PODMAN, "buildx": "buildah 1.39.3"}, "buildx", "ok", "prints no version, but 'buildah 1.39.3'"),
        ({"engine": PODMAN, "cli_engine": DOWN}, "same engine", "ok", "builds and pushes in Podman"),
        ({"engine": PODMAN}, "image store", "ok", "Podman's, overlayfs"),
        ({"engine": PODMAN, "builder": DOWN}, "builder", "ok", "Podman's own, Buildah"),
        ({"engine": PODMAN, "builder": SUBSTITUTE}, "builder", "ok", "Podman's own, Buildah"),
        ({"engine": PODMAN}, "cross-platform", "ok", "Podman's own builder"),
        ({"engine": PODMAN, "prefect": OFF, "builder": FAR}, "cross-platform", "ok", "Podman's own builder"),
        ({"cli_engine": "two"}, "same engine", "warning", "Prefect's images are in docker-py's engine"),
        ({"cli_engine": "two", "build_engine": "two"}, "same engine", "problem", "cannot push"),
        ({"cli_engine": DOWN, "build_engine": DOWN}, "same engine", "problem", "Cannot connect"),
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
            *("emulation", "warning", "RUN steps work only for linux/amd64"),
        ),
    ],
)
def test_findings_about_docker(changes: dict[str, Any], name: str, status: str, seen: str) -> None:
    found = findings(**changes)[name]

    assert (found.status, seen in found.found) == (status, True), found
    assert bool(found.advice) is (status in ("problem", "warning"))


def test_podman_is_ok_with_a_line_about_buildkit() -> None:
    engine = findings(engine=PODMAN)["engine"]
    assert engine.status == "ok"
    assert engine.found.startswith("Podman 5.4.2, linux/amd64, here: its own builder builds images")
    assert "need BuildKit. For these, select a builder outside Podman: `docker buildx create" in engine.advice
    assert "emulation" not in findings(engine=PODMAN)
    assert findings(engine=PODMAN, builder=FAR)["builder"].found.startswith("far, driver remote")
    assert "same engine" not in findings(engine=PODMAN, builder=FAR)


@pytest.mark.parametrize("for_buildkit", [[], ["PREFECT_DOCKER_CACHE_TO"]])
def test_settings_that_need_buildkit_are_a_problem_on_podman(for_buildkit: list[str]) -> None:
    settings = {"platform": "linux/arm64", "cache_to": "type=inline"}
    prefect = PrefectFacts(settings=settings, sources=dict.fromkeys(settings, ".env"), for_buildkit=for_buildkit)
    found = findings(engine=PODMAN, prefect=prefect)["build settings"]
    assert found.status == ("problem" if for_buildkit else "ok")
    assert ("Podman 5.4.2 does not support PREFECT_DOCKER_CACHE_TO" in found.found) is bool(for_buildkit)


def test_what_waits_for_prefect_is_unknown() -> None:
    found = findings(prefect=Late)

    late = "not checked: it took longer than 30 s"
    unknown = {name: finding.found for name, finding in found.items() if finding.status == "unknown"}
    assert unknown == {**dict.fromkeys(("Prefect", "package", "setting"), late), "cross-platform": "see setting"}
    assert {finding.status for name, finding in found.items() if name not in unknown} == {"ok", "warning"}
    assert exit_code(found.values()) == 3


def test_a_prefect_that_cannot_be_imported_is_one_problem() -> None:
    found = findings(prefect=PrefectFacts(import_error="ImportError: no module named x"))

    assert [name for name, finding in found.items() if finding.status == "problem"] == ["Prefect"]
    assert "cannot be imported: ImportError: no module named x" in found["Prefect"].found
    assert {found[name].found for name in ("package", "setting")} == {"see Prefect"}
    assert found["cross-platform"].found == "see setting"


def test_a_docker_py_that_cannot_be_imported_is_one_problem() -> None:
    error = ImportError("x")
    found = findings(docker_py="SystemExit: 3", engine=error, build_engine=error, builder=error)

    assert [name for name, finding in found.items() if finding.status == "problem"] == ["docker-py"]
    assert found["docker-py"].found.endswith("cannot be imported: SystemExit: 3")
    assert {found[name].found for name in ("package", "engine", "buildx")} == {"see docker-py"}


@pytest.mark.parametrize("file", [Late, UnreadableError("prefect.toml is longer than 16 MiB")])
def test_a_settings_file_that_cannot_be_read_is_one_problem(file: object) -> None:
    found = findings(files={".env": None, "prefect.toml": file}, prefect=Late)

    assert [name for name, finding in found.items() if finding.status == "problem"] == ["setting"]
    assert [found[name].found for name in ("Prefect", "package")] == ["see setting"] * 2
    assert exit_code(found.values()) == 1


def test_an_engine_that_does_not_answer_is_a_problem() -> None:
    found = findings(engine=Late, cli_engine=Late, build_engine=Late, builder=Late)

    assert (found["engine"].status, found["builder"].status) == ("problem", "skipped")
    assert "docker context inspect" not in found["engine"].advice


@pytest.mark.parametrize("name", ["command", "cli", "buildx", "folder", "api_version", "docker_py", "builder"])
def test_what_is_only_slow_is_unknown(name: str) -> None:
    found = findings(**{name: Late})

    assert {finding.status for finding in found.values()} <= {"ok", "warning", "unknown"}
    assert exit_code(found.values()) == 3


def test_a_slow_docker_cli_is_no_reason_to_choose_another_engine() -> None:
    found = findings(cli_engine=Late, build_engine=Late)["same engine"]

    assert (found.status, found.found) == ("unknown", "not checked: it took longer than 30 s")
    assert findings(cli_engine=Late)["same engine"].status == "warning"
    assert findings(cli_engine="other", build_engine=Late)["same engine"].status == "unknown"


def test_an_engine_of_the_builder_that_buildx_does_not_wait_for_is_unknown() -> None:
    error = "Error:     Get http://x/version: context deadline exceeded: driver not connecting"
    inspect = INSPECT.format(name="{name}", driver="{driver}", status=f"running\n{error}", more="")
    own = findings(builder=inspect.format(name="default", driver="docker"))
    far = findings(builder=inspect.format(name="far", driver="remote"))

    assert [own[name].status for name in ("builder", "emulation", "cross-platform")] == ["unknown"] * 3
    assert far["builder"].status == "problem"


@pytest.mark.parametrize("prefect", [Late, PrefectFacts(settings_error="Prefect cannot read its settings")])
def test_nothing_is_said_about_corruption_if_the_setting_is_not_known(prefect: object) -> None:
    found = findings(prefect=prefect, builder=DOWN, engine={**ENGINE, "DriverStatus": CONTAINERD})

    assert (found["cross-platform"].found, found["builder"].status) == ("see setting", "warning")


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("PREFECT_DOCKER_DISABLE_ATTESTATION", SETTING),
        ("PREFECT_DISABLE_ATTESTATIONS", SETTING),
        ("PREFECT_DISABLE_DOCKER_ATTESTATIONS", SETTING),
        ("PREFECT_DOCKER_DISBALE_ATTESTATIONS", SETTING),
        ("PREFECT_DOCKER__DISABLE_ATTESTATIONS", SETTING),
        ("PERFECT_DOCKER_DISABLE_ATTESTATIONS", SETTING),
        ("PREFECT_DOCKER_NO_ATTESTATIONS", SETTING),
        ("DOCKER_DISABLE_ATTESTATIONS", SETTING),
        ("prefect_docker_disable_attestation", SETTING),
        ("PREFECT_DOCKER_PLATFORMS", "PREFECT_DOCKER_PLATFORM"),
        ("PREFECT_DOCKER_PLATFROM", "PREFECT_DOCKER_PLATFORM"),
        ("PREFECT_PLATFORM", "PREFECT_DOCKER_PLATFORM"),
        ("PREFECT_DOCKER_MEDIATYPES", "PREFECT_DOCKER_MEDIA_TYPES"),
        ("PREFECT_DOCKER_CACHE_FORM", "PREFECT_DOCKER_CACHE_FROM"),
        ("PREFECT_DOCKER_CACHETO", "PREFECT_DOCKER_CACHE_TO"),
        ("PREFECT_DOCKER_PUSH_FROM_BUILDERS", "PREFECT_DOCKER_PUSH_FROM_BUILDER"),
        ("PREFECT_DOCKER_ATTEST_AUTO_LOAD", "PREFECT_DOCKER_ATTEST_AUTOLOAD"),
        *((name, "") for name in (SETTING, SETTING.lower(), "DOCKER_DEFAULT_PLATFORM", "DOCKER_PLATFORM", "PLATFORM")),
        *((name, "") for name in ("BUILDX_NO_DEFAULT_ATTESTATIONS", "PREFECT_DOCKER_BUILD_BACKEND", "PREFECT_API_URL")),
        *((name, "") for name in ("PREFECT_DOCKER_HOST", "PREFECT_DOCKER_PUSH", "PREFECT_DOCKER_CACHE_DIR", "_", "")),
    ],
)
def test_names_that_are_almost_those_of_settings(name: str, right: str) -> None:
    assert right_name(name) == right


@pytest.mark.parametrize(
    ("error", "seen", "advice"),
    [
        (
            requests.HTTPError("403 Client Error: Forbidden for url: /info"),
            "refuses a request: 403",
            "must allow GET /info",
        ),
        (
            requests.ConnectionError(ProtocolError("aborted", PermissionError(13, "denied"))),
            "gets no answer",
            "group of the engine's",
        ),
    ],
)
def test_an_engine_that_refuses_is_not_to_be_started(error: Exception, seen: str, advice: str) -> None:
    found = findings(engine=error)["engine"]

    assert (found.status, seen in found.found) == ("problem", True)
    assert advice.replace("GET /info", "GET /version and GET /info") in found.advice
    assert "Start Docker" not in found.advice


def test_a_check_that_fails_does_not_stop_the_others() -> None:
    found = findings(builder=5)

    assert found["builder"].status == "warning"
    assert found["builder"].found.startswith("could not be checked: AttributeError: ")
    assert found["engine"].status == "ok"


def test_exit_codes() -> None:
    one = {status: Finding(status, "") for status in ("ok", "warning", "problem", "unknown", "skipped")}
    assert exit_code([one["ok"], one["skipped"], one["warning"]]) == 0
    assert exit_code([one["warning"]], strict=True) == 1
    assert exit_code([one["unknown"], one["warning"]]) == 3
    assert exit_code([one["unknown"], one["warning"]], strict=True) == 1
    assert exit_code([one["unknown"], one["problem"]]) == 1


def test_importing_the_package_does_not_import_the_command() -> None:
    """It imports only the import hooks and the patches, because it happens in every process that imports Prefect."""
    script = "import sys; before = {*sys.modules}; import prefect_docker_attest; print(*{*sys.modules} - before)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    imported = done.stdout.split()
    own = {name for name in imported if name.startswith("prefect_docker_attest")}
    assert own >= {"prefect_docker_attest", "prefect_docker_attest.startup"}
    assert not {name.split(".")[1] for name in own if "." in name} & {"cli", "doctor", "images", "buildx"}
    assert {name.split(".")[0] for name in {*imported} - own} <= sys.stdlib_module_names
