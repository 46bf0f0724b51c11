"""`inspect` agrees with containerd about images that are wrong in one way.

An image that an engine refuses must not be sound, and one that all engines pull must not be corrupt.
More random images: `scripts/tox -e tests -- --suite=sid --oracle=2000 tests/engine/test_verdicts.py`.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings

from engines import private
from support.debian_programs import unpacked
from support.memory_registry import MemoryRegistry, memory_registry
from support.mutations import KINDS, draft
from support.random_images import drafts
from support.verdicts import Verdict, verdicts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from engines.private import Engine
    from support.mutations import Draft

pytestmark = [
    pytest.mark.private("compares with the versions of Docker in Debian"),
    pytest.mark.timeout(1200),
]

# Kinds that all these engines pull, but `inspect` does not judge, with the reason.
UNDECIDED = {
    "tar: file over a folder": "whether it can be unpacked depends on what was in the folder",
    "tar: sparse of pax 1.0": "sparse files are not read: no builder writes them",
    "blob: a window of 128 MiB": "needs too much memory",
    "config: rootfs of another type": "containerd 2.1 and newer refuse it",
    # Members with names that are equal for Go. Programs in other languages read another document.
    "config: rootfs beside RootFS": "two names",
    "config: Env beside env": "two names",
    "config: rootfs with a long s, null": "two names",
    "manifest text: Layers before layers": "two names",
    "manifest text: config twice, the same": "two names",
    "manifest text: mediaType twice": "two names",
}
# Members of configs that containerd reads in Docker 26.1, but not in 28.5.
_NEWER = """
    created empty; created a word; created without a zone; created in month 13; created on February 30; created
    with a space; created with a small z; created in second 60; created with a zone of 25 hours; created a
    number; author a number; config a text; config a list; entry point a text; command a text; command of
    numbers; environment an object; user a number; working directory a number; ports a list; ports of numbers;
    volumes a list; labels a list; labels of numbers; stop signal a number; ArgsEscaped a text; health check a
    text; health check of a text as interval; OnBuild a text; Shell a text; history an object; history of texts;
    history created a word; history empty_layer a text; history created_by a number
"""
# Kinds that some engines pull and others refuse. `inspect` cannot judge them, or cannot read them.
DIFFERENT = {
    *(f"config: {name}" for name in " ".join(_NEWER.split()).split("; ")),
    "index: an entry of null",
    "blob: zstd called Docker's zstd",  # containerd 1.7 does not know this media type
    "layer: media type application/vnd.docker.image.rootfs.diff.tar.zstd",
    # With the program unpigz, engines ignore bytes after gzip, and read longer names and fewer flags.
    "blob: zeros after gzip",
    "blob: one zero after gzip",
    "blob: rubbish after gzip",
    "blob: one byte after gzip",
    "blob: a magic number after gzip",
    "blob: gzip with a long name",
    "blob: gzip with a flag that nobody knows",
}


@pytest.fixture(scope="module")
def registry_in_memory() -> Iterator[MemoryRegistry]:
    with memory_registry() as registry:
        yield registry


@pytest.fixture(scope="module")
def containerd(private_docker: private.PrivateDocker) -> Iterator[Engine]:
    """An engine for these tests only: some images break lists of images."""
    with private.start(private_docker.suite, ["containerd"]) as docker:
        yield docker.engines["containerd"]


@pytest.fixture(scope="module")
def containerd_with_unpigz(
    private_docker: private.PrivateDocker,
) -> Iterator[Engine]:
    """An engine that decompresses gzip with the program unpigz."""
    folder = unpacked("pigz")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{folder}/usr/bin", prepend=os.pathsep)
        assert shutil.which("unpigz")
        with private.start(private_docker.suite, ["containerd"]) as docker:
            yield docker.engines["containerd"]


def disagreements(names: Iterable[str], engine: Engine, registry: MemoryRegistry) -> dict[str, Verdict]:
    """Return the verdicts of kinds that disagree, and of those that are undecided without a reason."""
    found: dict[str, Verdict] = {}
    for _ in range(2):  # an engine on a busy machine can fail for another reason
        asked = verdicts({name: draft(name) for name in names}, engine, registry)
        found = {
            name: verdict
            for name, verdict in asked.items()
            if verdict.disagrees or (verdict.is_undecided and name not in UNDECIDED and name not in DIFFERENT)
        }
        names = list(found)
        if not names:
            break
    return found


def test_verdicts_agree_with_containerd(containerd: Engine, registry_in_memory: MemoryRegistry) -> None:
    assert len(KINDS) > 150
    assert disagreements(KINDS, containerd, registry_in_memory) == {}


def test_verdicts_agree_with_containerd_and_unpigz(
    containerd_with_unpigz: Engine, registry_in_memory: MemoryRegistry
) -> None:
    names = [name for name in KINDS if name.startswith("blob: ")]

    assert disagreements(names, containerd_with_unpigz, registry_in_memory) == {}


def test_few_kinds_are_undecided() -> None:
    assert len(UNDECIDED) <= 10
    assert {*UNDECIDED, *DIFFERENT} <= {*KINDS}


def test_verdicts_on_random_images_agree_with_containerd(
    pytestconfig: pytest.Config, containerd: Engine, registry_in_memory: MemoryRegistry
) -> None:
    number = pytestconfig.getoption("--oracle")

    @settings(
        max_examples=number or 60,
        derandomize=not number,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=bool(number),
    )
    @given(image=drafts())
    def check(image: Draft) -> None:
        for _ in range(2):
            (verdict,) = verdicts({"image": image}, containerd, registry_in_memory).values()
            if not verdict.disagrees:
                return
        pytest.fail(f"{image.kind}: {verdict}")

    check()
