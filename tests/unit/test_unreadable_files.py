"""Which files of a build context are warned of because the user cannot read them. Here, the user can read no file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from prefect_docker_attest.buildx.unreadable_files import unreadable_warnings
from prefect_docker_attest.options.table import BuildxOptions

if TYPE_CHECKING:
    from pathlib import Path

FILES = ("a", "b.env", "data/secret", "deep/er/data/secret", "deep/.git/x", "deep/c.env")


@pytest.fixture(autouse=True)
def nothing_is_readable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)


@pytest.fixture
def context(tmp_path: Path) -> Path:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "link").symlink_to("nowhere")
    return tmp_path


@pytest.mark.parametrize(
    ("patterns", "shown"),
    [
        ("", "'a' and 5 more"),
        ("data\n**/data\n**/.git\n**/*.env\n", "'a'"),
        ("# a comment\n\n*\n", ""),
        ("*\n!deep/er\n", "'deep/er/data/secret'"),
        ("a\nb.env\ndata\ndeep/er\ndeep/.git", "'deep/c.env'"),
        ("[z-a]\n", ""),  # BuildKit refuses this pattern
    ],
)
def test_files_that_are_sent_are_named(context: Path, patterns: str, shown: str) -> None:
    (context / "Dockerfile.dockerignore").write_text(f"{patterns}\nDockerfile*\n")
    options = BuildxOptions(context=str(context), file=str(context / "Dockerfile"))
    warnings = unreadable_warnings(options)
    assert [warning.split(" in the build context ")[0] for warning in warnings] == [
        f"You cannot read {shown}" for _ in filter(None, [shown])
    ]


def test_other_build_contexts_are_read_too(context: Path) -> None:
    options = BuildxOptions(
        context="https://example.com/x.git", build_contexts={"x": str(context), "y": "docker-image://z"}
    )
    assert len(unreadable_warnings(options)) == 1
