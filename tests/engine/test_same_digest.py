"""Builds of the same inputs, without attestations and with `SOURCE_DATE_EPOCH`: which have the same digest."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from engines.published import Published
from support.both_builders import build
from support.names import BUSYBOX

if TYPE_CHECKING:
    from pathlib import Path

    from engines.private import Engine, Registry

Digest = Callable[..., str]

COPY = "COPY file /file\n"
RUN = "RUN cp /file /copy\n"
IN_2001, IN_2004 = 1_000_000_000, 1_100_000_000


@pytest.fixture(params=[IN_2001, None], ids=["SOURCE_DATE_EPOCH", "no SOURCE_DATE_EPOCH"])
def epoch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int | None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    if request.param is not None:
        monkeypatch.setenv("SOURCE_DATE_EPOCH", str(request.param))
    found: int | None = request.param
    return found


@pytest.fixture
def digest(engine: Engine, registry: Registry, tmp_path: Path, forget: Callable[[Engine], None]) -> Digest:
    """Build without a cache, push, and return the digest of the manifest in the registry."""
    # With the graphdriver store, the layers of a base image without a history get the time of the build.
    base = f"{registry.address}/same-digest/base-{uuid4()}:1"
    (tmp_path / "file").write_text("base")
    (tmp_path / "Dockerfile").write_text(f"FROM {BUSYBOX}\nCOPY file /base\n")
    engine.run("docker", "buildx", "build", "--load", "--provenance=false", f"--tag={base}", str(tmp_path))
    engine.run("docker", "push", base)

    def digest(instructions: str, *, file_time: int = IN_2001) -> str:
        (tmp_path / "Dockerfile").write_text(f"FROM {base}\n{instructions}")
        (tmp_path / "file").write_text("the same")
        os.utime(tmp_path / "file", (file_time, file_time))
        forget(engine)
        name = f"{registry.address}/same-digest/{uuid4()}:1"
        build(switched_on=True, path=str(tmp_path), tag=name)
        engine.run("docker", "push", name)
        return hashlib.sha256(json.dumps(Published(name).manifest()).encode()).hexdigest()

    return digest


def test_copied_files_give_the_same_digest_with_source_date_epoch(digest: Digest, epoch: int | None) -> None:
    assert (digest(COPY) == digest(COPY)) is (epoch is not None)


def test_times_of_copied_files_are_part_of_the_digest(digest: Digest, monkeypatch: pytest.MonkeyPatch) -> None:
    # The files in a clone of a git repository have the time of the clone.
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(IN_2001))
    assert digest(COPY) != digest(COPY, file_time=IN_2004)


def test_times_of_files_that_a_step_makes_are_part_of_the_digest(
    digest: Digest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(IN_2001))
    first = digest(COPY + RUN)
    # A layer's times of files are whole seconds: two builds within one second make the same layer.
    time.sleep(1)
    assert first != digest(COPY + RUN)
