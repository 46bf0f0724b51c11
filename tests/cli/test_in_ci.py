"""`inspect` in CI: exit codes, annotations of GitHub Actions, and output for other programs."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from support.hostile import Answer, HostileServer, hostile_server
from support.pushing import tar_layer
from support.shipped import COMMAND

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.shipped import Run


@pytest.fixture
def server() -> Iterator[HostileServer]:
    with hostile_server() as server:
        server.image("good", tar_layer("good"))
        layer = tar_layer("bad")
        server.image(
            "bad", layer, config=server.blob(b'{"rootfs":{"diff_ids":[]},"os":"linux","architecture":"arm64"}')
        )
        document = server.document("manifests/bad")
        document["config"]["mediaType"] = "application/vnd.oci.image.config.v1+json"
        server.serve("bad", document)
        yield server


def test_exit_codes(run: Run, server: HostileServer) -> None:
    good, bad, missing = (f"{server.address}/x:{tag}" for tag in ("good", "bad", "missing"))

    assert run("inspect", "--fail-on-corruption", good).code == 0
    assert run("inspect", "--fail-on-corruption", bad).code == 1
    assert run("inspect", "--fail-on-corruption", missing).code == 3
    assert run("inspect", "--fail-on-corruption", missing, bad, good).code == 1
    assert run("inspect", "--verify-layers", bad).code == 0
    assert run("inspect", "--fail-on-everything", good).code == 2


def test_quiet_shows_only_images_that_fail(run: Run, server: HostileServer) -> None:
    good, bad, missing = (f"{server.address}/x:{tag}" for tag in ("good", "bad", "missing"))

    result = run("inspect", "-q", "--fail-on-corruption", good, bad, missing)
    assert result.code == 1
    assert [name for name in (good, bad) if f"{name} (" in result.out] == [bad]
    assert result.err.startswith(f"{missing}: ")
    silent = run("inspect", "--quiet", "--fail-on-corruption", good)
    assert (silent.code, silent.out, silent.err) == (0, "", "")


@pytest.mark.parametrize("arguments", [("doctor",), ("inspect", "a:b")])
def test_quiet_cannot_be_used_with_json(run: Run, arguments: tuple[str, ...]) -> None:
    result = run(*arguments, "--quiet", "--json")
    assert (result.code, "--quiet and --json cannot be used together" in result.err) == (2, True)


@pytest.mark.parametrize(
    ("answer", "retryable"),
    [
        (Answer(b"{}", 404), False),
        (Answer(b"{}", 401), False),
        (Answer(b"{}", 403), False),
        (Answer(b"{}", 400), False),
        (Answer(b"{}", 429), True),
        (Answer(b"{}", 500), True),
        (Answer(b"{}", 503), True),
        (Answer(raw=b""), True),
        (Answer(b"no JSON", headers={"Content-Type": "application/vnd.oci.image.manifest.v1+json"}), False),
        (Answer(b"", 307, {"Location": "/v2/x/manifests/late"}), False),
    ],
)
def test_json_shows_whether_a_retry_can_help(run: Run, server: HostileServer, answer: Answer, retryable: bool) -> None:
    server.answers["x/manifests/late"] = answer
    result = run("inspect", "--json", f"{server.address}/x:late")

    assert [error["retryable"] for error in result.json["errors"]] == [retryable], result.err
    assert result.code == 3


def test_a_server_that_is_down_can_be_asked_again(run: Run) -> None:
    errors = run("inspect", "--json", "127.0.0.1:1/x", "Not An Image").json["errors"]
    assert [error["retryable"] for error in errors] == [True, False]


def test_failed_checks_are_annotations_of_github_actions(run: Run, server: HostileServer) -> None:
    names = [f"{server.address}/x:bad", f"{server.address}/x:missing", "100%\n::error::x"]
    flags = ("--fail-on-corruption", "--expect-platform=linux/amd64", "--json")
    result = run("inspect", *flags, *names, GITHUB_ACTIONS="true")

    annotations = [line for line in result.err.splitlines() if line.startswith("::")]
    assert annotations[:2] == [
        f"::error::{names[0]}: There is no image for linux/amd64.",
        f"::error::{names[0]}: linux/arm64 is corrupt: the manifest lists 1 layers, but the config lists 0 diff_ids",
    ]
    assert annotations[2].startswith(f"::error::{names[1]}: registry {server.address} answers 404 Not Found")
    assert annotations[3].startswith(r"::error::100%25\n::error::x: ")
    assert len(annotations) == 4
    assert json.loads(result.out)["ok"] is False
    assert "::error::" not in run("inspect", *flags, names[0], GITHUB_ACTIONS=None).err


def test_without_a_terminal_lines_are_neither_wrapped_nor_padded(run: Run, server: HostileServer) -> None:
    lines = run("inspect", "--verify-layers", f"{server.address}/x:bad", COLUMNS="40").out.splitlines()

    assert "  linux/arm64: the manifest lists 1 layers, but the config lists 0 diff_ids" in lines
    assert any(line.startswith("  linux/arm64 OCI sha256:") for line in lines)
    assert "  Corrupt: clusters refuse this image. Build it again, and push it." in lines
    assert [line for line in lines if line != line.rstrip()] == []


@pytest.mark.parametrize(("variable", "escapes"), [("", True), ("1", False)])
def test_no_color_leaves_no_escape_codes(server: HostileServer, variable: str, escapes: bool) -> None:
    parent, child = pty.openpty()
    environment = {**os.environ, "NO_COLOR": variable, "TERM": "xterm-256color"}
    process = subprocess.Popen(
        [sys.executable, COMMAND, "inspect", "--verify-layers", f"{server.address}/x:bad"],
        stdin=subprocess.DEVNULL,
        stdout=child,
        stderr=child,
        env=environment,
    )
    os.close(child)
    shown = b""
    try:
        while piece := os.read(parent, 1 << 16):
            shown += piece
    except OSError:  # the end of a terminal
        pass
    finally:
        os.close(parent)
    assert process.wait() == 0
    assert b"lists 0 diff_ids" in shown
    assert (b"\x1b" in shown) is escapes
