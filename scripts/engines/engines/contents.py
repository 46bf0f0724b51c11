"""Lists the contents of an engine, and removes what was added later, by name or id."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from engines.private import Engine

NO_NAME = "<none>:<none>"
"""The name that docker shows for an image without a name."""


@dataclass(frozen=True)
class Contents:
    """The contents of an engine."""

    containers: Mapping[str, str]
    """The name of each container's image, by the container's id."""
    images: frozenset[tuple[str, str]]
    """The id and the name of each image. Intermediate images of the classic builder have no name."""
    cache: frozenset[str]
    """The ids of the records in BuildKit's cache."""

    @property
    def image_ids(self) -> frozenset[str]:
        return frozenset(image for image, _ in self.images)


def of(engine: Engine) -> Contents:
    """Return the contents of the engine."""
    containers = engine.run("docker", "ps", "--all", "--no-trunc", "--format={{.ID}} {{.Image}}").stdout
    images = engine.run("docker", "image", "ls", "--all", "--no-trunc", "--format={{.ID}} {{.Repository}}:{{.Tag}}")
    return Contents(dict(_pairs(containers)), frozenset(_pairs(images.stdout)), cache_records(engine))


def _pairs(lines: str) -> list[tuple[str, str]]:
    return [(first, rest) for first, _, rest in (line.partition(" ") for line in lines.splitlines())]


def cache_records(engine: Engine) -> frozenset[str]:
    """Return the ids of the records in BuildKit's cache."""
    listed = engine.run("docker", "buildx", "du", "--verbose").stdout
    return frozenset(re.findall(r"^ID:\s+(\w+)", listed, re.MULTILINE))


def remove_cache_since(engine: Engine, before: frozenset[str]) -> None:
    """Remove the records that were added to BuildKit's cache, except for those that images still need."""
    records = sorted(cache_records(engine) - before)
    # The filter is a regular expression. An argument can have at most 128 KiB.
    for start in range(0, len(records), 1000):
        alternatives = "|".join(records[start : start + 1000])
        engine.run("docker", "buildx", "prune", "--all", "--force", f"--filter=id={alternatives}")


def remove_labelled(engine: Engine, label: str) -> None:
    """Remove the containers with this label, and their volumes."""
    containers = engine.run("docker", "ps", "--all", "--quiet", f"--filter=label={label}").stdout.split()
    _remove_containers(engine, containers)


def remove_named(engine: Engine, names: re.Pattern[str]) -> None:
    """Remove the images whose names match, and their containers."""
    now = of(engine)
    _remove_containers(engine, [container for container, image in now.containers.items() if names.match(image)])
    _remove_images(engine, [name for _, name in now.images if names.match(name)], "--force")


def remove_new(engine: Engine, before: Contents, names: re.Pattern[str]) -> None:
    """Remove what was added since `before`.

    This removes images whose names match, images without a name, the containers of these images, and build cache.
    """
    now = of(engine)
    others = {image for image, name in now.images if name != NO_NAME and not names.match(name)}
    ours = now.image_ids - before.image_ids - others
    added = {container: image for container, image in now.containers.items() if container not in before.containers}
    _remove_containers(engine, [container for container, image in added.items() if image in ours or names.match(image)])
    _remove_images(engine, [name for _, name in now.images - before.images if names.match(name)], "--force")
    # The engine refuses to remove an image of the classic builder while another image is based on it.
    left = ours & of(engine).image_ids
    while left:
        _remove_images(engine, left)
        left, last = ours & of(engine).image_ids, left
        if left == last:
            break
    remove_cache_since(engine, before.cache)


def _remove_containers(engine: Engine, containers: Iterable[str]) -> None:
    if ids := [*containers]:
        engine.run("docker", "rm", "--force", "--volumes", *ids, check=False)


def _remove_images(engine: Engine, images: Iterable[str], *options: str) -> None:
    # Each removal takes some tenths of a second with the containerd store, so they run at the same time.
    with ThreadPoolExecutor(16) as pool:
        for image in images:
            pool.submit(engine.run, "docker", "image", "rm", *options, image, check=False)
